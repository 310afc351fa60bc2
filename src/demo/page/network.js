/** The switches of the bad network. This page only asks for it: storage itself then plays it. */
import { byId, say } from "./dom.js";
import { and } from "./words.js";
import { setNetwork, watch } from "./world.js";

/** @typedef {import("./world.js").Network} Network */

/** The switches, by what the site calls them. @type {[string, "drops" | "lost_answers" | "expired_session"][]} */
const SWITCHES = [["drops", "drops"], ["lost-answers", "lost_answers"], ["expired-session", "expired_session"]];

const GOOD = { latency_ms: 0, drops: false, lost_answers: false, expired_session: false };
const BAD = { latency_ms: 300, drops: true, lost_answers: true, expired_session: true };

export function begin() {
  const latency = /** @type {HTMLInputElement} */ (byId("latency"));
  latency.addEventListener("input", () => say(byId("latency-out"), `${latency.value} ms`));
  latency.addEventListener("change", () => act({ latency_ms: Number(latency.value) }));
  for (const [id, name] of SWITCHES) {
    byId(id).addEventListener("click", () => act({ [name]: byId(id).getAttribute("aria-checked") !== "true" }));
  }
  byId("network-good").addEventListener("click", () => act(GOOD));
  byId("network-bad").addEventListener("click", () => act(BAD));
  watch(({ network }) => show(network));
}

/** @param {Network} network */
function show(network) {
  const latency = /** @type {HTMLInputElement} */ (byId("latency"));
  // Who is just pulling it keeps it.
  if (document.activeElement !== latency || !latency.matches(":active")) latency.value = String(network.latency_ms);
  say(byId("latency-out"), `${network.latency_ms} ms`);
  for (const [id, name] of SWITCHES) byId(id).setAttribute("aria-checked", String(network[name]));
  const bad = [
    ...(network.latency_ms > 0 ? [`${network.latency_ms} ms slower`] : []),
    ...(network.drops ? ["connections cut"] : []),
    ...(network.lost_answers ? ["answers lost"] : []),
    ...(network.expired_session ? ["the next session expires"] : []),
  ];
  say(byId("network-now"), bad.length ? `Bad network: ${and(bad)}` : "Good network");
  byId("network-now").classList.toggle("bad", bad.length > 0);
}

/** @param {Partial<Network>} change */
function act(change) {
  say(byId("network-error"), "");
  setNetwork(change).catch((/** @type {Error} */ { message }) => say(byId("network-error"), message));
}
