/** The uploads of this page: files come in, wait for their turn, and get a card each. */
import { Card } from "./card.js";
import { pendingUploads } from "./client.js";
import { announce, byId } from "./dom.js";
import { Job } from "./job.js";
import { fitting, known as policiesKnown, refresh as refreshPolicies } from "./policies.js";
import { OWN_STATES } from "./words.js";

/** So many at once. More would not be faster, and policies count those that are under way. */
const AT_ONCE = 3;

/** @type {Map<Job, Card>} newest first on the page, oldest first here */
const cards = new Map();
/** @type {Set<() => void>} */
const watchers = new Set();

/** Calls `watcher` when an upload of this page begins, turns or ends. @param {() => void} watcher */
export const watch = (watcher) => watchers.add(watcher);

/** The uploads of this page that the broker knows, by its ids. @returns {Map<string, Job>} */
export function known() {
  return new Map([...cards.keys()].flatMap((job) => (job.id === undefined ? [] : [[job.id, job]])));
}

/** Whether one of them is under way. */
export const isBusy = () => [...cards.keys()].some((job) => job.isBusy);

/** @param {Iterable<File>} files */
export async function add(files) {
  // Taken out first: the list of what was dropped is empty a turn later.
  const taken = [...files];
  const [begun] = await Promise.all([pendingUploads().catch(() => []), policiesKnown()]);
  const list = byId("uploads");
  for (const file of taken) {
    const before = begun.find(({ fingerprint: { name, size, lastModified } }) => name === file.name && size === file.size && lastModified === file.lastModified);
    const job = new Job(file, fitting(file, before?.request.policy), changed);
    const card = new Card(job, { remove });
    cards.set(job, card);
    list.prepend(card.element);
  }
  next();
  count();
}

/** Whoever waits longest is next. */
function next() {
  const jobs = [...cards.keys()];
  const free = AT_ONCE - jobs.filter((job) => job.isBusy).length;
  for (const job of jobs.filter(({ state }) => state === "queued").slice(0, Math.max(0, free))) job.start();
}

/** @param {Job} job @param {boolean} turn */
function changed(job, turn) {
  const card = cards.get(job);
  if (!turn) return card?.progress();
  card?.turn();
  tell(job);
  if (job.isOver || job.state === "paused") queueMicrotask(next);
  if (job.isOver || (job.state === "uploading" && job.received === 0)) void refreshPolicies();
  count();
  for (const watcher of watchers) watcher();
}

/** The last thing that was said, so that going to and fro between sending and pausing is not told each time. @type {WeakMap<Job, string>} */
const told = new WeakMap();

/** @param {Job} job */
function tell(job) {
  const { state, reason, file } = job;
  if (state === "queued" || state === "preparing" || state === "verifying" || told.get(job) === state) return;
  if (state === "uploading" && told.get(job) === "waiting") return;
  told.set(job, state);
  announce(`${file.name}: ${reason && state === "failed" ? `${reason.title}. ${reason.text}` : OWN_STATES[state]}.`);
}

/** @param {Job} job */
function remove(job) {
  const card = cards.get(job);
  const beside = card?.element.nextElementSibling ?? card?.element.previousElementSibling;
  card?.element.remove();
  cards.delete(job);
  // The button that was pressed is gone: the next card's takes the focus, or the place where files come in.
  const to = beside?.querySelector("button:not([hidden])") ?? byId("files");
  if (to instanceof HTMLElement) to.focus();
  count();
}

/** What depends on how many there are. */
function count() {
  byId("no-uploads").hidden = cards.size > 0;
  byId("clear").hidden = [...cards.keys()].filter(({ isOver }) => isOver).length < 2;
}

export function begin() {
  byId("clear").addEventListener("click", () => {
    for (const job of [...cards.keys()].filter(({ isOver }) => isOver)) remove(job);
    byId("files").focus();
  });
}
