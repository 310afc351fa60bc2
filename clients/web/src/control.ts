/** Pause, resume and cancel: what cuts requests off, ends pauses, and keeps the next move from being made. */
import type { Patience } from './pace.js';

/** Why something did not come to its end, where that was neither an answer nor the network. */
export const STOPPED = Symbol('stopped');

export class Control {
  readonly #patience: Patience;
  #wasOffline = false;
  #isPaused = false;
  #isCancelled = false;
  #request: AbortController | undefined;
  /** Ends the sleep under way. */
  #wake: (() => void) | undefined;
  #waitsForNetwork = false;
  /** End what is waited for just now, and only a cancellation ends. */
  readonly #waits = new Set<() => void>();

  constructor(patience: Patience) {
    this.#patience = patience;
  }

  get isCancelled(): boolean {
    return this.#isCancelled;
  }

  get isStopped(): boolean {
    return this.#isPaused || this.#isCancelled;
  }

  /** Tells whether that is news. */
  pause(): boolean {
    if (this.#isPaused) return false;
    this.#isPaused = true;
    this.#request?.abort(STOPPED);
    this.#wake?.();
    return true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#wake?.();
  }

  /** For good. The request under way is cut off, or may finish. */
  cancel(request: 'cut off' | 'finish'): void {
    this.#isCancelled = true;
    for (const stop of this.#waits) stop();
    if (request === 'cut off') this.#request?.abort(STOPPED);
    this.#wake?.();
  }

  /** What `act` comes to, unless it is cancelled before: then throws `STOPPED`, and what comes of it is nobody's. */
  async unlessCancelled<T>(act: Promise<T>): Promise<T> {
    let stop = (): void => {};
    // A promise of its own each time: one for the whole upload would keep what every race came to.
    const cancelled = new Promise<never>((_, reject) => (stop = () => reject(STOPPED)));
    if (this.#isCancelled) stop();
    this.#waits.add(stop);
    return Promise.race([act, cancelled]).finally(() => this.#waits.delete(stop));
  }

  /** The network is gone. What is under way may get its answer all the same. */
  offline(): void {
    this.#wasOffline = true;
  }

  /** There is a network again: who sleeps for want of one wakes up, and what began before on another one is done anew. */
  online(): void {
    if (this.#wasOffline) this.#request?.abort();
    if (this.#waitsForNetwork) this.#wake?.();
  }

  /** Waits while it is paused; tells whether it was. Throws `STOPPED` once it is cancelled. */
  async gate(): Promise<boolean> {
    let wasPaused = false;
    while (this.#isPaused && !this.#isCancelled) {
      wasPaused = true;
      await this.#until(undefined);
    }
    if (this.#isCancelled) throw STOPPED;
    return wasPaused;
  }

  /**
   * Sleeps so many milliseconds, or until somebody wakes it; for want of a network at least as long as the longest pause,
   * since then it is woken in time. Tells whether the platform says that there is no network, about which platforms err.
   */
  async sleep(ms: number, forNetwork: boolean): Promise<boolean> {
    // A listener may have stopped it just now, when there was nothing to wake.
    if (this.isStopped) return false;
    const isOffline = forNetwork && typeof navigator !== 'undefined' && navigator.onLine === false;
    this.#waitsForNetwork = forNetwork;
    await this.#until(isOffline ? Math.max(ms, this.#patience.longestPauseMs) : ms);
    this.#waitsForNetwork = false;
    return isOffline;
  }

  /** Something that is cut off by a pause, a cancellation, another network, or when it takes too long. */
  async cuttable<T>(act: (signal: AbortSignal) => Promise<T>, withinMs = this.#patience.answerWithinMs): Promise<T | typeof STOPPED> {
    if (this.isStopped) return STOPPED;
    const request = (this.#request = new AbortController());
    const timer = setTimeout(() => request.abort(), withinMs);
    this.#wasOffline = false;
    try {
      const answer = await act(request.signal);
      // An answer that came all the same is one.
      const isCutOff = request.signal.reason === STOPPED && (answer as { from?: string }).from === 'nowhere';
      return isCutOff ? STOPPED : answer;
    } finally {
      clearTimeout(timer);
      this.#request = undefined;
    }
  }

  async #until(ms: number | undefined): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      // Timers take no more than 2^31 - 1 ms.
      if (ms !== undefined) timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
    });
    clearTimeout(timer);
    this.#wake = undefined;
  }
}
