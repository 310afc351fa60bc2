/** Where uploads go and why: the sentences and switches beside the map. */
import { route } from "./broker.js";
import { announce, byId, el, say } from "./dom.js";
import { draw } from "./map.js";
import { and, distance } from "./words.js";
import { chosen, country, number, region, setCountry, setRunning, watch } from "./world.js";

/** @typedef {import("./world.js").World} World */
/** @typedef {import("./world.js").Region} Region */

/** When the broker is asked again, if it sees the regions otherwise than they are. */
const ASK_AGAIN_MS = 4000;

/** @type {ReturnType<typeof setTimeout> | undefined} */
let again;

/** How the broker may have found out where the visitor is. @type {Record<string, string>} */
const LOCATED = {
  header: "from the country that its load balancer names in a header",
  database: "from a database of network addresses",
};

export function begin() {
  const map = /** @type {SVGSVGElement} */ (/** @type {unknown} */ (byId("map")));
  const picker = /** @type {HTMLSelectElement} */ (byId("country"));
  const redraw = draw(map);
  picker.addEventListener("change", () => act(setCountry(picker.value)));
  let last = "";
  watch((world) => {
    if (picker.options.length !== world.countries.length) {
      picker.replaceChildren(...world.countries.map(({ code, name }) => el("option", { value: code }, name)));
    }
    picker.value = world.client.country;
    redraw(world);
    rows(world);
    const sentence = dns(world);
    say(byId("routed"), sentence);
    map.setAttribute("aria-label", `Map of the world. ${sentence}`);
    if (last && last !== sentence) announce(sentence);
    last = sentence;
    void ask();
  });
}

/** What DNS answers, and why. @param {World} world */
function dns({ regions }) {
  const to = chosen();
  const here = country()?.name ?? "this country";
  if (!to?.running) return "No region runs, so there is nowhere to go. Start one: uploads that are under way then go on.";
  const nearer = regions.filter(({ running, distance_km }) => !running && distance_km < to.distance_km).map(({ name }) => name);
  const why = nearer.length === 0
    ? "the nearest region"
    : `the nearest region that runs: ${and(nearer)} would be nearer, but ${nearer.length === 1 ? "is" : "are"} stopped`;
  return `From ${here}, DNS sends you to ${to.name} in ${to.place}, ${why}.`;
}

/** What the broker there says of it, which has its own way to know. */
async function ask() {
  clearTimeout(again);
  const to = chosen();
  const out = byId("located");
  if (!to?.running) return say(out, "");
  try {
    const { regions, located_by, country } = await route(to.broker);
    if (to !== chosen()) return;
    const [nearest] = regions.filter(({ healthy }) => healthy);
    const how = LOCATED[located_by];
    const located = how ? `The broker there locates you ${country ? `in ${country} ` : ""}${how}` : "The broker there does not know where you are";
    const says = nearest && (nearest.name === to.name ? "and agrees" : `and says that ${nearest.name} is nearer`);
    const stopped = regions.filter(({ healthy }) => !healthy).map(({ name }) => name);
    const away = stopped.length ? ` It passes over ${and(stopped)}, which ${stopped.length === 1 ? "does" : "do"} not answer.` : "";
    // Brokers notice after some seconds that another region went away or came back.
    const isBehind = regions.some(({ name, healthy }) => region(name)?.running !== healthy);
    if (isBehind || nearest?.name !== to.name) again = setTimeout(ask, ASK_AGAIN_MS);
    say(out, `${located}${says ? `, ${says}` : ""}.${away}`);
  } catch {
    if (to === chosen()) say(out, "The broker there does not answer just now.");
  }
}

/** One row a region; kept, so that the focus stays where it is. @param {World} world */
function rows({ regions }) {
  const list = byId("regions");
  if (list.children.length !== regions.length) list.replaceChildren(...regions.map((region) => row(region)));
  regions.forEach((region, n) => {
    const [, about, facts, button] = list.children[n]?.children ?? [];
    const isChosen = region === chosen() && region.running;
    list.children[n]?.classList.toggle("chosen", isChosen);
    list.children[n]?.classList.toggle("stopped", !region.running);
    if (about?.children[1]) say(about.children[1], isChosen ? `${region.place}. Takes your uploads` : region.running ? region.place : `${region.place}. Stopped`);
    if (facts?.children[0]) say(facts.children[0], distance(region.distance_km));
    if (facts?.children[1]) say(facts.children[1], `${Math.round(region.round_trip_ms)} ms round trip`);
    button?.setAttribute("aria-checked", String(region.running));
    if (button?.lastElementChild) say(button.lastElementChild, region.running ? "On" : "Off");
  });
}

/** @param {Region} region */
function row({ name }) {
  const button = el("button", { type: "button", role: "switch", class: "switch", "aria-label": `${name} runs` },
    el("span", { class: "knob", "aria-hidden": "true" }), el("span", { class: "on", "aria-hidden": "true" }));
  button.addEventListener("click", () => act(setRunning(name, button.getAttribute("aria-checked") !== "true")));
  return el("li", { class: `r${number(name)}` },
    el("span", { class: "dot", "aria-hidden": "true" }), el("div", {}, el("strong", {}, name), el("span", { class: "muted" })), el("div", { class: "facts" }, el("span"), el("span")), button);
}

/** @param {Promise<void>} change */
function act(change) {
  say(byId("world-error"), "");
  change.catch((/** @type {Error} */ { message }) => say(byId("world-error"), message));
}
