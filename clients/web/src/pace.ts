/** How stubborn an upload is, and how much it sends at once. */

export interface Patience {
  /** The first pause, in milliseconds; it doubles with each failure, and jitter of up to its length is added. 1 s. */
  firstPauseMs: number;
  /** The longest pause. A longer `Retry-After` is kept to all the same. 32 s. */
  longestPauseMs: number;
  /** So much pause without progress, and the upload fails with a retryable error. Time asleep does not count. 10 min. */
  giveUpAfterMs: number;
  /** How long an answer may take, beside the time that its bytes take on a network four times slower than it was. 60 s. */
  answerWithinMs: number;
}

/** Storage's documentation, "Retry strategy": 1 s, doubled up to 32 s, with up to 1 s of jitter. */
export const PATIENCE: Patience = { firstPauseMs: 1000, longestPauseMs: 32_000, giveUpAfterMs: 600_000, answerWithinMs: 60_000 };

/** Slower than this, in bytes a second, no network is waited for. */
const SLOWEST = 16 * 1024;

/** What a network is taken for that was not measured yet. Whose is slower gets smaller chunks, and keeps what came through. */
const UNMEASURED = 64 * 1024;

/** A network may become so many times slower than it was before it counts as lost. */
const SLOWER = 4;

/** How long a request with so many bytes may take, in milliseconds. `bytesPerSecond` is what was measured of late. */
export const answerWithin = (patience: Patience, bytes: number, bytesPerSecond = UNMEASURED * SLOWER): number =>
  patience.answerWithinMs + (bytes / Math.max(SLOWEST, bytesPerSecond / SLOWER)) * 1000;

/** Counts the failures since the last progress. */
export class Pace {
  readonly #patience: Patience;
  readonly #random: () => number;
  #failures = 0;
  #waitedMs = 0;

  constructor(patience: Patience, random: () => number) {
    this.#patience = patience;
    this.#random = random;
  }

  get failures(): number {
    return this.#failures;
  }

  /** Something was gained: the next failure is the first again. */
  progressed(): void {
    this.#failures = 0;
    this.#waitedMs = 0;
  }

  /** How long to pause after one more failure, or `undefined` when patience ends before the pause does. */
  next(retryAfterMs = 0): number | undefined {
    const { firstPauseMs, longestPauseMs, giveUpAfterMs } = this.#patience;
    const doubled = firstPauseMs * 2 ** Math.min(this.#failures, 30) + this.#random() * firstPauseMs;
    const pause = Math.max(Math.min(doubled, longestPauseMs), retryAfterMs);
    if (this.#waitedMs + pause > giveUpAfterMs) return undefined;
    this.#failures += 1;
    this.#waitedMs += pause;
    return pause;
  }
}

export interface ChunkBounds {
  /** What the first chunk has; else what the broker advises. */
  bytes?: number;
  /** 256 KiB. */
  minBytes?: number;
  /** 64 MiB; of a stream, 16 MiB, since a chunk of it is kept in memory. */
  maxBytes?: number;
}

/** Storage takes all chunks but the last in multiples of this (storage documentation, "Resumable uploads"). */
const MULTIPLE = 256 * 1024;
const ADVISED = 8 * 1024 * 1024;

/** What one chunk is to take, in seconds: long enough to keep the pipe full, short enough to lose little. */
const AIM_SECONDS = 8;

/** Adapts the size of chunks to the network: at most doubled after a fast one, halved after a failure. */
export class ChunkSizer {
  readonly #multiple: number;
  readonly #min: number;
  readonly #max: number;
  #bytes: number;

  constructor(advice: { chunk_bytes?: number; chunk_multiple_bytes?: number }, bounds: ChunkBounds, most = 64 * 1024 * 1024) {
    this.#multiple = Math.max(1, advice.chunk_multiple_bytes ?? MULTIPLE);
    this.#min = this.#whole(bounds.minBytes ?? 0);
    this.#max = Math.max(this.#min, this.#whole(Math.min(bounds.maxBytes ?? most, most)));
    this.#bytes = this.#clamp(bounds.bytes ?? advice.chunk_bytes ?? ADVISED);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A chunk of so many bytes went through in so many milliseconds. */
  sent(bytes: number, ms: number): void {
    // The last chunk, or what was cut, says little of the network.
    if (bytes < this.#bytes) return;
    const wanted = (bytes / Math.max(ms, 1)) * 1000 * AIM_SECONDS;
    this.#bytes = this.#clamp(Math.min(Math.max(wanted, this.#bytes / 2), this.#bytes * 2));
  }

  /** The connection was lost, or storage answered 408, 429 or 5xx. */
  failed(): void {
    this.#bytes = this.#clamp(this.#bytes / 2);
  }

  #whole(bytes: number): number {
    return Math.max(this.#multiple, Math.floor(bytes / this.#multiple) * this.#multiple);
  }

  #clamp(bytes: number): number {
    return Math.min(Math.max(this.#whole(bytes), this.#min), this.#max);
  }
}
