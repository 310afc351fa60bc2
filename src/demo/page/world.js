/** What the demo's own site knows: its regions, where the visitor plays to be, and what the network is like. */

/**
 * @typedef {object} Region
 * @property {string} name
 * @property {string} place
 * @property {number} latitude
 * @property {number} longitude
 * @property {string} bucket
 * @property {string} broker the address of its broker, as clients see it
 * @property {string} storage
 * @property {boolean} running
 * @property {number} distance_km from the visitor
 * @property {number} round_trip_ms
 */

/** @typedef {{ latency_ms: number, drops: boolean, lost_answers: boolean, expired_session: boolean }} Network */
/** @typedef {{ code: string, name: string, latitude: number, longitude: number }} Country */

/**
 * @typedef {object} World
 * @property {Region[]} regions
 * @property {Country[]} countries
 * @property {{ country: string }} client
 * @property {{ region?: string | null }} dns what the simulated geo-DNS answers for that country
 * @property {Network} network
 */

/** How often it is looked at: a session that expired switches itself off, and another page may switch as well. */
const EVERY_MS = 4000;

/** @type {World | undefined} */
let current;
let text = "";
/** Answers come in the order of their questions, or are dropped. */
let asked = 0;
/** @type {Set<(world: World) => void>} */
const watchers = new Set();

/** The world as it was last seen. There is one before any watcher is called. */
export const world = () => /** @type {World} */ (current);

/** @param {string | null | undefined} name @returns {Region | undefined} */
export const region = (name) => current?.regions.find((region) => region.name === name);

/** The region that DNS answers with, if one runs. */
export const chosen = () => region(current?.dns.region);

/** The country that the visitor plays to be in. */
export const country = () => current?.countries.find(({ code }) => code === current?.client.country);

/** Where a region stands among the others: it is the number of its colour. @param {string} name */
export const number = (name) => Math.max(0, current?.regions.findIndex((region) => region.name === name) ?? 0);

/** Calls `watcher` now, if there is a world, and whenever it changes. @param {(world: World) => void} watcher */
export function watch(watcher) {
  watchers.add(watcher);
  if (current) watcher(current);
}

/** Asks now. */
export const refresh = () => call("GET", "/demo/world");

/** @param {string} code */
export const setCountry = (code) => call("PUT", "/demo/client", { country: code });

/** @param {Partial<Network>} change */
export const setNetwork = (change) => call("PUT", "/demo/network", change);

/** @param {string} name @param {boolean} running */
export const setRunning = (name, running) => call("PUT", `/demo/regions/${name}`, { running });

/**
 * Asks from now on, as long as somebody looks. Comes back when there is a world.
 * @param {(isThere: boolean) => void} told whether the site answers, each time that it is asked
 */
export async function begin(told) {
  const look = () => (document.hidden ? undefined : refresh().then(() => told(true), () => told(false)));
  setInterval(look, EVERY_MS);
  document.addEventListener("visibilitychange", look);
  await look();
  if (!current) await new Promise((found) => watch(() => found(undefined)));
}

/** @param {string} method @param {string} path @param {object} [body] */
async function call(method, path, body) {
  const turn = ++asked;
  const answer = await fetch(path, {
    method, cache: "no-store", ...(body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  const said = await answer.text();
  if (!answer.ok) throw new Error(detail(said) ?? `The demo answers with status ${answer.status}.`);
  if (turn !== asked || said === text) return;
  text = said;
  current = /** @type {World} */ (JSON.parse(said));
  for (const watcher of watchers) watcher(current);
}

/** @param {string} said @returns {string | undefined} */
function detail(said) {
  try {
    return JSON.parse(said).detail;
  } catch {
    return undefined;
  }
}
