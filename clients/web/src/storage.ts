/** Storage's side of one upload: one method a request, which gives what the machine must know of its answer. */
import type { Fetch, Nowhere } from './broker.js';
import { retryAfterMs } from './broker.js';
import type { Control } from './control.js';
import { STOPPED } from './control.js';
import { UploadBrokerError } from './errors.js';
import type { Speed } from './events.js';
import type { StorageAnswer } from './machine.js';
import type { UploadOptions } from './order.js';
import type { Patience } from './pace.js';
import { answerWithin, ChunkSizer } from './pace.js';
import type { Part, Source } from './source.js';
import type { Transfer } from './wire.js';

export type Answered = Promise<StorageAnswer | Nowhere | typeof STOPPED>;

export class StorageClient {
  readonly #options: Pick<UploadOptions, 'chunk' | 'digest'>;
  readonly #source: Source;
  readonly #speed: Speed;
  readonly #control: Control;
  readonly #patience: Patience;
  readonly #fetch: Fetch;
  #transfer!: Transfer;
  #sizer!: ChunkSizer;
  /** Where chunks go: the session of the broker, or that which a signed URL opened. */
  #session: string | undefined;

  constructor(options: Pick<UploadOptions, 'chunk' | 'digest'>, source: Source, speed: Speed, control: Control, patience: Patience, fetch: Fetch) {
    this.#options = options;
    this.#source = source;
    this.#speed = speed;
    this.#control = control;
    this.#patience = patience;
    this.#fetch = fetch;
  }

  /** The broker said how the bytes go to storage. It does so before anything else is called. */
  granted(transfer: Transfer): void {
    this.#transfer = transfer;
    this.#session = transfer.kind === 'resumable' ? transfer.uri : undefined;
    this.#sizer = new ChunkSizer(transfer, this.#options.chunk ?? {}, this.#source.mostBytes);
  }

  /** Opens a session by a signed URL. */
  async start(): Answered {
    const { uri, method, headers } = this.#transfer;
    const answer = await this.#request(uri, { method, headers }, 0);
    if (answer !== STOPPED && answer.from === 'storage' && answer.location) this.#session = answer.location;
    return answer;
  }

  /** Asks how much there is. */
  ask(): Answered {
    // With a declared size, `bytes */N` is a mere question until N bytes are there; then it finishes. Of a stream it
    // would make an object of whatever is there.
    const total = this.#source.isStream ? '*' : this.#source.size;
    return this.#request(this.#session!, { method: 'PUT', headers: { 'content-range': `bytes */${total}` } }, 0);
  }

  /** Sends everything to a signed URL. */
  async put(): Answered {
    const { method, headers, uri } = this.#transfer;
    const part = await this.#part(0, Infinity);
    return this.#send(uri, { method, headers }, part);
  }

  /** Sends the chunk that begins at `offset`. */
  async send(offset: number): Answered {
    const part = await this.#part(offset, this.#sizer.bytes);
    const headers: Record<string, string> = this.#transfer.kind === 'resumable' ? { ...this.#transfer.headers } : {};
    const range = contentRange(part);
    if (range) headers['content-range'] = range;
    const crc32c = part.isLast && this.#options.digest !== 'none' ? this.#source.crc32c : undefined;
    // Storage compares before there is an object (storage documentation, "Data validation and change detection").
    if (crc32c !== undefined) headers['x-goog-hash'] = `crc32c=${crc32c}`;
    return this.#send(this.#session!, { method: 'PUT', headers }, part);
  }

  /** The next bytes, digested before they are sent: what the network costs is far more, and what cannot be read is not sent. */
  #part(offset: number, wanted: number): Promise<Part> {
    const read = async (): Promise<Part> => {
      const part = await this.#source.part(offset, wanted);
      if (this.#options.digest !== 'none') await this.#source.digestTo(part.offset + part.length);
      return part;
    };
    // A stream may have nothing to give for a long time.
    return this.#control.unlessCancelled(read());
  }

  async #send(url: string, init: RequestInit, part: Part): Answered {
    const began = performance.now();
    const answer = await this.#request(url, { ...init, body: part.body ?? null }, part.length);
    if (answer === STOPPED) return answer;
    const ms = performance.now() - began;
    if (answer.from === 'nowhere' || answer.status >= 400) {
      this.#sizer.failed();
      // The file may be why: browsers do not tell it from a lost network.
      await this.#source.check(part.offset);
    } else {
      this.#sizer.sent(part.length, ms);
      this.#speed.measured(part.length, ms);
    }
    return answer;
  }

  #request(url: string, init: RequestInit, bytes: number): Answered {
    // What is sent at once cannot be sent in smaller pieces: it has the time that the slowest network needs.
    const speed = this.#transfer.kind === 'simple' ? 0 : this.#speed.bytesPerSecond;
    return this.#control.cuttable(async (signal) => {
      try {
        // No redirect is followed: a 308 here has no Location, and is handed over as it is.
        const response = await this.#fetch(url, { ...init, signal, credentials: 'omit', cache: 'no-store' });
        const { status, headers } = response;
        // Its body says nothing that counts. It is read so that the connection can be used again.
        await response.arrayBuffer().catch(() => {});
        return { from: 'storage', status, range: headers.get('range'), location: headers.get('location'), retryAfterMs: retryAfterMs(headers) } as const;
      } catch (cause) {
        // The message of `cause` may hold the URL, which is a secret: it stays out of the detail.
        return { from: 'nowhere', error: new UploadBrokerError('gave-up', 'the connection to storage failed', { retryable: true, cause }) } as const;
      }
    }, answerWithin(this.#patience, bytes, speed));
  }
}

/** `Content-Range` of a part. A stream that ended on the border of a chunk is closed by its size alone; what is empty is sent without. */
function contentRange({ offset, length, total, isLast }: Part): string | undefined {
  if (length > 0) return `bytes ${offset}-${offset + length - 1}/${total ?? '*'}`;
  return isLast && offset > 0 ? `bytes */${total}` : undefined;
}
