/** One upload of this page, from its turn in the queue to its end: what the client tells, gathered for the eye. */
import { createUpload } from "./client.js";
import { token } from "./broker.js";
import { reason } from "./reasons.js";
import { duration, size } from "./words.js";
import { chosen, world } from "./world.js";

/** Small at first, so that there is something to see: on one machine a usual chunk is over at once. */
const CHUNK = { bytes: 1024 * 1024, maxBytes: 8 * 1024 * 1024 };

/** Less patient than the client by itself, for the same reason. */
const PATIENCE = { firstPauseMs: 500, longestPauseMs: 8000 };

/** @typedef {"queued" | import("./client.js").ClientState} State */

export class Job {
  /** @type {State} */
  state = "queued";
  /** What it does or waits for just now, beside its state. */
  doing = "";
  /** What happened on the way that people should know. @type {string[]} */
  notes = [];
  retries = 0;
  renewals = 0;
  /** The region that took it. @type {string | undefined} */
  region;
  /** @type {import("./reasons.js").Reason | undefined} */
  reason;
  /** @type {import("./client.js").UploadBrokerError | undefined} */
  error;
  /** @type {import("./client.js").CompletedUpload | undefined} */
  completed;
  /** Whether the digest of the whole file was made here and compared. */
  isCompared = false;
  /** @type {import("./client.js").Upload | undefined} */
  #upload;
  #beganAt = 0;
  #took = 0;

  /**
   * @param {File} file
   * @param {import("./policies.js").Policy | undefined} policy
   * @param {(job: Job, turn: boolean) => void} changed `turn`: its state, and not just its numbers
   */
  constructor(file, policy, changed) {
    this.file = file;
    this.policy = policy;
    this.changed = changed;
  }

  get id() {
    return this.#upload?.id;
  }

  get received() {
    return this.#upload?.progress.receivedBytes ?? 0;
  }

  /** @returns {import("./client.js").Progress} */
  get progress() {
    return this.#upload?.progress ?? { receivedBytes: 0, totalBytes: this.file.size, bytesPerSecond: undefined, secondsLeft: undefined };
  }

  get isOver() {
    return this.state === "completed" || this.state === "failed" || this.state === "cancelled";
  }

  /** Whether it takes one of the places of those that are under way. */
  get isBusy() {
    return !this.isOver && this.state !== "queued" && this.state !== "paused";
  }

  get canRetry() {
    return this.state === "failed" && this.error?.retryable === true;
  }

  /** How long it took, in words, once it is completed. */
  get took() {
    return duration(this.#took / 1000);
  }

  /** Begins, or goes on after a failure that may pass. */
  start() {
    const { file, policy } = this;
    // DNS says where it begins. The others are told as well: what was begun there goes on there, and a policy may send it there.
    const broker = chosen()?.broker;
    const regions = world().regions.map(({ broker }) => broker);
    // Under a policy of unknown sizes, the file is played as a stream.
    const isStream = policy?.unknown_size === true;
    this.state = "preparing";
    this.reason = this.error = undefined;
    this.#beganAt = performance.now();
    const upload = createUpload(isStream ? file.stream() : file, {
      regions, token, chunk: CHUNK, patience: PATIENCE, name: file.name,
      ...(broker && { broker }), ...(policy && { policy: policy.name }),
      ...(isStream && { contentType: file.type || "application/octet-stream" }),
    });
    this.#upload = upload;
    this.#listen(upload, isStream);
    this.changed(this, true);
  }

  /** @param {import("./client.js").Upload} upload @param {boolean} isStream */
  #listen(upload, isStream) {
    const turn = () => this.changed(this, true);
    if (isStream) this.#note("Sent as a stream, as a camera would: its size is not told beforehand, and a reload ends it.");
    upload.on("state", ({ state }) => {
      // The end comes with its reason, in an event of its own.
      if (state === "completed" || state === "failed" || state === "cancelled") return;
      this.state = state;
      this.doing = "";
      turn();
    });
    upload.on("progress", () => this.changed(this, false));
    upload.on("admitted", ({ upload: { region }, isResumed }) => {
      this.region = region;
      this.isCompared = !isStream && !(isResumed && this.received === this.file.size);
      if (isResumed) this.#note(`Continued at ${size(this.received)}, where storage stood.`);
      turn();
    });
    upload.on("anew", ({ detail }) => this.#note(`Begun anew: ${detail}.`));
    upload.on("retry", ({ error, waitMs, attempt }) => {
      this.retries += 1;
      // What comes after a semicolon is for who wrote the page.
      const [what] = error.detail.split(";");
      this.doing = `${attempt > 1 ? `failure ${attempt} in a row` : "a failure"}: ${what}. Goes on in ${duration(waitMs / 1000)}`;
      turn();
    });
    upload.on("renewed", () => {
      this.renewals += 1;
      this.#note("Storage lost the session; the broker opened another one, which began at the first byte.");
      turn();
    });
    upload.on("unsaved", () => this.#note("A reload would lose this upload: the browser does not let this page keep anything."));
    upload.on("completed", ({ upload: completed }) => {
      this.#took = performance.now() - this.#beganAt;
      this.region = completed.region;
      this.completed = completed;
      this.#end("completed");
    });
    upload.on("failed", ({ error }) => {
      this.error = error;
      this.reason = reason(error, this.policy?.name);
      this.#end(error.code === "cancelled" ? "cancelled" : "failed");
    });
  }

  pause() {
    this.#upload?.pause();
  }

  resume() {
    this.#upload?.resume();
  }

  cancel() {
    if (this.#upload) return void this.#upload.cancel();
    this.#end("cancelled");
  }

  /** @param {State} state */
  #end(state) {
    this.state = state;
    this.doing = "";
    this.changed(this, true);
  }

  /** @param {string} text */
  #note(text) {
    // Told once, however often it happens: the numbers say how often.
    if (!this.notes.includes(text)) this.notes.push(text);
  }
}
