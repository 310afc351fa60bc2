/** What may be uploaded: the policies of the region that takes the uploads, and which of them fits a file. */
import { ask } from "./broker.js";
import { byId, el, say } from "./dom.js";
import { policy as inWords } from "./words.js";
import { chosen, watch } from "./world.js";

/**
 * @typedef {object} Policy
 * @property {string} name
 * @property {string[]} content_types
 * @property {number} min_size_bytes
 * @property {number} max_size_bytes
 * @property {boolean} unknown_size
 * @property {string[]} [regions]
 * @property {number} [max_active]
 * @property {number} active
 * @property {string} [rate]
 * @property {number} [rate_left]
 * @property {number} [daily_bytes]
 * @property {number} [daily_bytes_left]
 */

/** @type {Policy[]} */
let policies = [];
let asked = 0;
/** The turn of the answer that is shown; older ones are dropped. */
let answered = 0;

/** Shows the limits, and keeps them fresh as the region changes. */
export function begin() {
  let broker = "";
  watch(() => {
    const to = chosen();
    const now = to?.running ? to.broker : "";
    if (now !== broker) void refresh();
    broker = now;
  });
}

/** Whoever is faster than the first answer waits for it. */
export async function known() {
  if (policies.length === 0) await refresh();
}

/** After an upload began or ended, other amounts are left. */
export async function refresh() {
  const broker = chosen()?.broker;
  if (!broker) return;
  const turn = ++asked;
  try {
    const answer = await (await ask(`${broker}/v1/policies`)).json();
    if (turn < answered) return;
    answered = turn;
    policies = answer.policies;
    show();
  } catch {
    // The region is just being stopped: what was known stays, until another one answers.
  }
}

/**
 * The policy for a file: the one that the visitor chose, or under which it was begun, else the first that takes the
 * file's type. Where none does, one is taken all the same, so that the broker says why not.
 * @param {{ type: string }} file
 * @param {string} [begun] under another policy it would not be continued
 * @returns {Policy | undefined}
 */
export function fitting({ type }, begun) {
  const wanted = /** @type {HTMLSelectElement} */ (byId("policy")).value || begun;
  const found = wanted && policies.find(({ name }) => name === wanted);
  if (found) return found;
  const usual = policies.filter(({ unknown_size, regions }) => !unknown_size && !regions);
  return usual.find((policy) => takes(policy, type || "application/octet-stream")) ?? usual.at(-1) ?? policies[0];
}

/** @param {Policy} policy @param {string} type */
const takes = ({ content_types }, type) =>
  content_types.length === 0
  || content_types.some((taken) => taken === "*/*" || taken === type || (taken.endsWith("/*") && type.startsWith(taken.slice(0, -1))));

function show() {
  const select = /** @type {HTMLSelectElement} */ (byId("policy"));
  const list = byId("limits");
  const names = policies.map(({ name }) => name);
  const isSame = names.join() === [...select.options].slice(1).map(({ value }) => value).join();
  if (!isSame) {
    const before = select.value;
    select.replaceChildren(el("option", { value: "" }, "Chosen by type"), ...names.map((name) => el("option", { value: name }, name)));
    select.value = names.includes(before) ? before : "";
    list.replaceChildren(...names.map(() => el("div", { class: "limit" }, el("dt"), el("dd", { class: "takes" }), el("dd", { class: "left" }))));
  }
  policies.forEach((policy, n) => {
    const [name, takes, left] = list.children[n]?.children ?? [];
    const words = inWords(policy);
    if (name) say(name, policy.name);
    if (takes) say(takes, words.takes);
    if (left) say(left, words.left.length ? `Left: ${words.left.join("; ")}` : "Nothing is counted");
  });
}
