/** All of the user's uploads, over the regions that run: asked for now and then, and followed where one is under way. */
import { ask } from "./broker.js";
import { byId, el, say } from "./dom.js";
import { follow } from "./events.js";
import { isBusy, known, watch as watchOwn } from "./uploads.js";
import { BROKER_STATES, ago, percent, size } from "./words.js";
import { number, region, watch as watchWorld, world } from "./world.js";

/** @typedef {import("./client.js").BrokerUpload} BrokerUpload */
/** @typedef {{ upload: BrokerUpload, element: HTMLElement, cells: HTMLElement[], bar: HTMLProgressElement }} Row */

/** So many are shown. The newest of them are the newest of all regions, since each region is asked for as many. */
const ROWS = 10;

/** How often the regions are asked, in ms: while an upload of this page is under way, and else. */
const BUSY_MS = 1500;
const IDLE_MS = 5000;

/** Streams at once and region. Browsers have six connections to one address, and others need some. */
const STREAMS = 2;

/** @type {Map<string, Row>} */
const rows = new Map();
/** @type {Map<string, AbortController>} */
const streams = new Map();
let isAsking = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

export function begin() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return soon();
    clearTimeout(timer);
    for (const stream of streams.values()) stream.abort();
  });
  // Numbers of this page's own uploads are known at once; the broker's view of them follows.
  watchOwn(() => soon(300));
  watchWorld(() => soon());
}

/** @param {number} [ms] */
function soon(ms = 0) {
  clearTimeout(timer);
  timer = setTimeout(look, ms);
}

async function look() {
  if (document.hidden) return;
  if (isAsking) return soon(300);
  isAsking = true;
  const running = world().regions.filter(({ running }) => running);
  const answers = await Promise.all(running.map(({ broker }) => page(broker)));
  isAsking = false;
  const found = new Map(answers.flat().map((upload) => [upload.id, upload]));
  show([...found.values()].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at)).slice(0, ROWS));
  const stopped = world().regions.length - running.length;
  say(byId("list-note"), stopped ? `${stopped === 1 ? "One region is" : `${stopped} regions are`} stopped, and not asked.` : "");
  clearTimeout(timer);
  timer = setTimeout(look, isBusy() ? BUSY_MS : IDLE_MS);
}

/** @param {string} broker @returns {Promise<BrokerUpload[]>} */
async function page(broker) {
  try {
    return (await (await ask(`${broker}/v1/uploads?limit=${ROWS}`)).json()).uploads;
  } catch {
    // It was stopped a moment ago; the world will tell.
    return [];
  }
}

/** @param {BrokerUpload[]} uploads newest first */
function show(uploads) {
  const body = byId("list");
  const ids = new Set(uploads.map(({ id }) => id));
  for (const [id, { element }] of rows) {
    if (ids.has(id)) continue;
    element.remove();
    rows.delete(id);
    streams.get(id)?.abort();
  }
  uploads.forEach((upload, n) => {
    const row = rows.get(upload.id) ?? make(upload);
    row.upload = upload;
    update(row);
    // Moved only where it must be, so that what is selected stays so.
    if (body.children[n] !== row.element) body.insertBefore(row.element, body.children[n] ?? null);
  });
  byId("no-list").hidden = uploads.length > 0;
  for (const upload of uploads) stream(upload);
}

/** @param {BrokerUpload} upload @returns {Row} */
function make(upload) {
  const bar = el("progress", { "aria-hidden": "true" });
  // Roles, because a phone shows rows as blocks, which would no longer be a table to screen readers.
  const cells = ["state", "object", "region", "size", "time"].map((name) => el("td", { role: "cell", class: name }));
  const row = { upload, element: el("tr", { role: "row" }, ...cells), cells, bar };
  rows.set(upload.id, row);
  return row;
}

/** @param {Row} row */
function update({ upload, element, cells, bar }) {
  const own = known().get(upload.id);
  const received = Math.max(upload.received_bytes, own && !own.isOver ? own.received : 0);
  const isFinal = !isOpen(upload);
  const [state, object, where, amount, time] = cells;
  // The broker asks storage now and then; this page knows earlier that its bytes arrive.
  const name = upload.state === "pending" && received > 0 ? "uploading" : upload.state;
  element.dataset["state"] = name;
  if (state && state.textContent !== name) {
    state.replaceChildren(el("span", { class: "badge", title: BROKER_STATES[name] ?? "" }, name));
  }
  if (object && object.textContent !== upload.object) object.replaceChildren(el("bdi", {}, upload.object));
  if (where) {
    where.className = `region r${number(upload.region)}`;
    say(where, upload.region);
  }
  const total = upload.result?.size_bytes ?? upload.size_bytes;
  const whole = percent(received, total);
  if (amount) {
    const text = isFinal ? size(total ?? received) : total === undefined ? size(received) : `${whole} % of ${size(total)}`;
    if (amount.firstElementChild?.textContent !== text) {
      amount.replaceChildren(el("span", {}, text), ...(isFinal ? [] : [bar]));
    }
    if (total) bar.value = received / total;
  }
  const ended = upload.result ? Date.parse(upload.result.completed_at) : undefined;
  if (time) say(time, ended ? ago(ended, Date.now()) : `begun ${ago(Date.parse(upload.created_at), Date.now())}`);
}

/** @param {BrokerUpload} upload */
const isOpen = ({ state }) => state === "pending" || state === "uploading";

/** Follows an upload that something else than this page sends, such as another tab or a program. @param {BrokerUpload} upload */
function stream(upload) {
  const { id } = upload;
  const broker = region(upload.region)?.broker;
  const beside = [...streams.keys()].filter((id) => rows.get(id)?.upload.region === upload.region).length;
  if (!isOpen(upload) || !broker || streams.has(id) || known().has(id) || beside >= STREAMS) return;
  const stop = new AbortController();
  streams.set(id, stop);
  follow(broker, id, stop.signal, (event, data) => {
    const row = rows.get(id);
    if (!row) return;
    row.upload = event === "state" ? data : { ...row.upload, received_bytes: data.received_bytes };
    update(row);
  }).catch(() => {}).finally(() => streams.delete(id));
}
