/** What is seen of one upload of this page. */
import { el, say } from "./dom.js";
import { OWN_STATES, and, duration, percent, plural, size, speed } from "./words.js";
import { number } from "./world.js";

/** @typedef {import("./job.js").Job} Job */

/** What the first button does, by state. Where there is none, the second one is all there is to do. @type {Record<string, string>} */
const FIRST = { preparing: "Pause", uploading: "Pause", waiting: "Pause", verifying: "Pause", paused: "Resume" };

export class Card {
  #state = el("span", { class: "badge" });
  #region = el("span", { class: "where" });
  #bar = el("progress");
  #percent = el("span", { class: "percent" });
  #meter = el("div", { class: "meter" }, this.#bar, this.#percent);
  #amount = el("span");
  #pace = el("span", { class: "pace" });
  #doing = el("p", { class: "doing" });
  #outcome = el("div", { class: "outcome" });
  #notes = el("ul", { class: "notes" });
  #first = el("button", { type: "button" });
  #second = el("button", { type: "button", class: "quiet" });

  /**
   * @param {Job} job
   * @param {{ remove: (job: Job) => void }} actions
   */
  constructor(job, { remove }) {
    const { name } = job.file;
    this.job = job;
    this.#bar.setAttribute("aria-label", `Progress of ${name}`);
    this.element = el("li", { class: "card" },
      el("div", { class: "head" }, el("h3", {}, el("bdi", {}, name)), this.#state),
      this.#meter,
      // Above what comes and goes, so that no button moves away under a finger.
      el("div", { class: "foot" },
        el("p", { class: "numbers" }, this.#amount, this.#pace, this.#region),
        el("div", { class: "actions" }, this.#first, this.#second)),
      this.#doing, this.#outcome, this.#notes);
    this.#first.addEventListener("click", () => {
      if (job.canRetry) job.start();
      else if (job.state === "paused") job.resume();
      else job.pause();
    });
    this.#second.addEventListener("click", () => (job.isOver ? remove(job) : job.cancel()));
    this.turn();
  }

  /** Its state changed. */
  turn() {
    const { job } = this;
    const { name } = job.file;
    this.element.dataset["state"] = job.state;
    say(this.#state, job.reason && job.state === "failed" ? job.reason.title : (OWN_STATES[job.state] ?? job.state));
    const doing = job.doing.charAt(0).toUpperCase() + job.doing.slice(1);
    say(this.#doing, doing && `${doing}.`);
    say(this.#region, job.region ? `to ${job.region}` : "");
    this.#region.className = `where${job.region ? ` r${number(job.region)}` : ""}`;
    this.#outcome.replaceChildren(...outcome(job));
    const met = [...(job.retries ? [plural(job.retries, "retry", "retries")] : []), ...(job.renewals ? [plural(job.renewals, "new session")] : [])];
    const counts = met.length ? [`On the way: ${and(met)}.`] : [];
    this.#notes.replaceChildren(...[...job.notes, ...counts].map((note) => el("li", {}, note)));
    const first = job.canRetry ? "Try again" : FIRST[job.state];
    // Whoever just pressed a button that goes away is left at the other one.
    const hadFocus = document.activeElement === this.#first;
    this.#first.hidden = first === undefined;
    if (first) this.#name(this.#first, first, name);
    this.#name(this.#second, job.isOver ? "Remove" : "Cancel", name);
    if (hadFocus && !first) this.#second.focus();
    this.progress();
  }

  /** Its numbers changed. */
  progress() {
    const { job } = this;
    const { receivedBytes, totalBytes, bytesPerSecond, secondsLeft } = job.progress;
    const whole = percent(receivedBytes, totalBytes);
    const isDone = job.state === "completed";
    // Of what was refused at once, there is no progress to speak of.
    const isRefused = job.isOver && !isDone && receivedBytes === 0;
    this.#meter.hidden = isRefused;
    if (whole === undefined && !job.isOver && job.isBusy) this.#bar.removeAttribute("value");
    else this.#bar.value = isDone ? 1 : totalBytes ? receivedBytes / totalBytes : 0;
    say(this.#percent, isDone ? "100 %" : whole === undefined ? "" : `${whole} %`);
    const total = totalBytes ?? (isDone ? receivedBytes : undefined);
    say(this.#amount, total === undefined ? `${size(receivedBytes)}` : isDone || isRefused ? size(total) : `${size(receivedBytes)} of ${size(total)}`);
    const isMoving = job.state === "uploading" && bytesPerSecond !== undefined;
    say(this.#pace, isDone ? `in ${job.took}` : !isMoving ? "" : `${speed(bytesPerSecond)}${secondsLeft === undefined ? "" : `, ${duration(secondsLeft)} left`}`);
  }

  /** @param {HTMLButtonElement} button @param {string} action @param {string} file */
  #name(button, action, file) {
    say(button, action);
    button.setAttribute("aria-label", `${action} ${file}`);
  }
}

/** The end in words, and for whoever wants to know better, what the broker said. @param {Job} job @returns {HTMLElement[]} */
function outcome(job) {
  if (job.completed) {
    const { bucket, object, result } = job.completed;
    const digest = result.crc32c === undefined ? ""
      : job.isCompared ? ` The digest is that of the file here (CRC32C ${result.crc32c}).` : ` Its digest is CRC32C ${result.crc32c}.`;
    return [el("p", {}, "Stored as ", el("code", {}, `${bucket}/${object}`), `, and the broker has checked it with storage.${digest}`)];
  }
  if (!job.reason) return [];
  const text = el("p", {}, job.reason.text);
  const { error } = job;
  if (!error || job.state === "cancelled") return [text];
  const said = [["Code", error.code], ["Detail", error.upload?.rejection?.detail ?? error.detail], ["Status", error.status ? String(error.status) : ""], ["Request", error.requestId ?? ""]];
  const facts = said.filter(([, value]) => value).flatMap(([name = "", value = ""]) => [el("dt", {}, name), el("dd", {}, value)]);
  return [text, el("details", {}, el("summary", {}, error.problem || error.upload ? "What the broker said" : "What the client said"), el("dl", {}, ...facts))];
}
