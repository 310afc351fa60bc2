/** What an upload tells while it is under way. */
import type { UploadBrokerError } from './errors.js';
import type { BrokerUpload, CompletedUpload } from './wire.js';

export type ClientState =
  /** The file is looked at, and the broker is asked to admit it. */
  | 'preparing'
  | 'uploading'
  /** A pause after a failure; the next attempt comes by itself. */
  | 'waiting'
  | 'paused'
  /** Storage has everything, and the broker checks it. */
  | 'verifying'
  | 'completed'
  | 'failed'
  | 'cancelled';

export interface Progress {
  /**
   * What storage said that it has, and no more. Less than before when a session was lost, when an upload begins anew, and
   * when storage or the broker says that it has less than it had said.
   */
  receivedBytes: number;
  /** `undefined` while a stream's size is not known. */
  totalBytes: number | undefined;
  /** `undefined` until there is something to measure. */
  bytesPerSecond: number | undefined;
  secondsLeft: number | undefined;
}

/** Why an upload that was begun before is not continued. */
export type AnewReason =
  /** It was of another file of the same name. */
  | 'other-file'
  /** It was of the same file, but of another order: policy, type or metadata differ. */
  | 'other-order'
  /** It ended otherwise, by a rejection, a cancel or its expiry. */
  | 'ended'
  /** The broker knows it no longer, or it is somebody else's. */
  | 'forgotten'
  /** Another upload of this page goes on with it just now. */
  | 'in-use';

export type UploadEvent =
  | { type: 'state'; state: ClientState }
  | ({ type: 'progress' } & Progress)
  /** The broker knows the upload. `isResumed`: an earlier page began it. */
  | { type: 'admitted'; upload: BrokerUpload; isResumed: boolean }
  | { type: 'anew'; reason: AnewReason; detail: string }
  /** Something went wrong and is tried again. */
  | { type: 'retry'; error: UploadBrokerError; waitMs: number; attempt: number }
  /** The session was lost, and another one begins at byte 0. */
  | { type: 'renewed' }
  /** What a reload would need cannot be kept. The upload goes on. */
  | { type: 'unsaved'; cause: unknown }
  | { type: 'completed'; upload: CompletedUpload }
  | { type: 'failed'; error: UploadBrokerError };

export type EventOf<T extends UploadEvent['type']> = Extract<UploadEvent, { type: T }>;

/** Listeners, and queues for those who iterate. */
export class Events implements AsyncIterable<UploadEvent> {
  readonly #listeners = new Map<string, Set<(event: never) => void>>();
  readonly #queues = new Set<(event: UploadEvent) => void>();
  #last: UploadEvent | undefined;

  on<T extends UploadEvent['type']>(type: T, listener: (event: EventOf<T>) => void): () => void {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  emit(event: UploadEvent): void {
    if (isLast(event)) this.#last = event;
    for (const queue of this.#queues) queue(event);
    for (const listener of [...(this.#listeners.get(event.type) ?? [])] as ((event: UploadEvent) => void)[]) {
      try {
        listener(event);
      } catch (error) {
        // A listener's fault is not the upload's: it is reported like any uncaught error.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** From now on until `completed` or `failed`. Progress that nobody has taken yet gives way to newer. */
  async *[Symbol.asyncIterator](): AsyncGenerator<UploadEvent, void, void> {
    const waiting: UploadEvent[] = this.#last ? [this.#last] : [];
    let wake = (): void => {};
    const queue = (event: UploadEvent): void => {
      if (event.type === 'progress' && waiting.at(-1)?.type === 'progress') waiting.pop();
      waiting.push(event);
      wake();
    };
    this.#queues.add(queue);
    try {
      for (;;) {
        const event = waiting.shift();
        if (!event) {
          await new Promise<void>((resolve) => (wake = resolve));
          continue;
        }
        yield event;
        if (isLast(event)) return;
      }
    } finally {
      this.#queues.delete(queue);
    }
  }
}

const isLast = ({ type }: UploadEvent): boolean => type === 'completed' || type === 'failed';

/** Speed, smoothed over some ten seconds. Time in pauses does not count. */
export class Speed {
  #bytesPerSecond: number | undefined;

  get bytesPerSecond(): number | undefined {
    return this.#bytesPerSecond;
  }

  measured(bytes: number, ms: number): void {
    if (bytes <= 0 || ms <= 0) return;
    const now = (bytes / ms) * 1000;
    const weight = 1 - Math.exp(-ms / 10_000);
    this.#bytesPerSecond = this.#bytesPerSecond === undefined ? now : this.#bytesPerSecond + (now - this.#bytesPerSecond) * weight;
  }
}
