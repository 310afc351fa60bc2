/** Where the bytes come from: a file that can be read again, or a stream that cannot. */
import { UploadBrokerError } from './errors.js';
import type { Digest, DigestState } from './digest.js';

/** What one request carries. */
export interface Part {
  body: Blob | undefined;
  offset: number;
  length: number;
  /** The size of the whole, as far as it is known by now. */
  total: number | undefined;
  /** Whether nothing comes after it. */
  isLast: boolean;
}

export interface Source {
  readonly isStream: boolean;
  /** `undefined` until a stream of unknown size has ended. */
  readonly size: number | undefined;
  /** Bytes before this one are gone. */
  readonly keptFrom: number;
  /** So much at most is worth asking for at once. */
  readonly mostBytes: number;
  /** The next bytes, at most `wanted`; fewer only at the end. */
  part(offset: number, wanted: number): Promise<Part>;
  /** Storage has so many bytes for good. */
  confirmed(bytes: number): void;
  /** Throws when the bytes at `offset` can no longer be read, or are others than before. */
  check(offset: number): Promise<void>;
  /** Digests up to byte `to`, where the source did not do so when it was read. */
  digestTo(to: number): Promise<void>;
  /** How far the digest has come; `undefined` before it began. */
  readonly digestState: DigestState | undefined;
  /** The CRC32C of all bytes, in base64, where they were all digested. */
  readonly crc32c: string | undefined;
  /** Lets go of what it holds, and of a stream that is not at its end. */
  close(): void;
}

/** What the platform says when a file cannot be read, as a typed error. */
export function unreadable(error: unknown): UploadBrokerError {
  if (error instanceof UploadBrokerError) return error;
  // Browsers tell with NotReadableError both of a file that changed and of one that is gone.
  const name = (error as Error | undefined)?.name;
  return name === 'NotReadableError'
    ? new UploadBrokerError('source-changed', 'the file was changed, moved or removed while it was being uploaded', { cause: error })
    : new UploadBrokerError('source-unreadable', 'the file cannot be read', { cause: error });
}

export const loadDigest = async (size: number | undefined, state?: DigestState): Promise<Digest> =>
  new (await import('./digest.js')).Digest(size, state);

/** A `File` or `Blob`. Only slices of it are handed on; it is never read whole. */
export class BlobSource implements Source {
  readonly isStream = false;
  readonly keptFrom = 0;
  readonly mostBytes = 64 * 1024 * 1024;
  readonly size: number;
  readonly #blob: Blob;
  readonly #modified: number | undefined;
  readonly #begin: DigestState | undefined;
  #digest: Digest | undefined;

  constructor(blob: Blob, digested?: DigestState) {
    this.#blob = blob;
    this.size = blob.size;
    this.#modified = (blob as Partial<File>).lastModified;
    this.#begin = digested && digested.bytes <= blob.size ? digested : undefined;
  }

  async part(offset: number, wanted: number): Promise<Part> {
    this.#expectUnchanged();
    const end = Math.min(offset + wanted, this.size);
    const body = end > offset ? this.#blob.slice(offset, end) : undefined;
    return { body, offset, length: end - offset, total: this.size, isLast: end === this.size };
  }

  confirmed(): void {}

  async check(offset: number): Promise<void> {
    this.#expectUnchanged();
    const at = Math.max(0, Math.min(offset, this.size - 1));
    try {
      // Browsers look at the file's time and size when they read of it, and a failed request does not say why it failed.
      const read = await this.#blob.slice(at, at + 1).arrayBuffer();
      if (read.byteLength !== Math.min(1, this.size)) throw new DOMException('it became shorter', 'NotReadableError');
    } catch (error) {
      throw unreadable(error);
    }
  }

  async digestTo(to: number): Promise<void> {
    try {
      this.#digest ??= await loadDigest(this.size, this.#begin);
      await this.#digest.advance(this.#blob, to);
    } catch (error) {
      throw unreadable(error);
    }
  }

  get digestState(): DigestState | undefined {
    return this.#digest?.state ?? this.#begin;
  }

  get crc32c(): string | undefined {
    return this.#digest?.state.bytes === this.size ? this.#digest.base64() : undefined;
  }

  close(): void {
    this.#digest?.close();
  }

  #expectUnchanged(): void {
    if (this.#blob.size !== this.size || (this.#blob as Partial<File>).lastModified !== this.#modified) {
      throw new UploadBrokerError('source-changed', 'the file was changed while it was being uploaded');
    }
  }
}

/** A stream, of which what storage has not confirmed is kept: one chunk. */
export class StreamSource implements Source {
  readonly isStream = true;
  readonly mostBytes = 16 * 1024 * 1024;
  readonly #declared: number | undefined;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #kept: Uint8Array<ArrayBuffer>[] = [];
  #keptFrom = 0;
  #readTo = 0;
  #ended = false;
  #digest: Digest | undefined;

  constructor(stream: ReadableStream<Uint8Array>, size: number | undefined) {
    this.#reader = stream.getReader();
    this.#declared = size;
  }

  get size(): number | undefined {
    return this.#declared ?? (this.#ended ? this.#readTo : undefined);
  }

  get keptFrom(): number {
    return this.#keptFrom;
  }

  async part(offset: number, wanted: number): Promise<Part> {
    if (offset < this.#keptFrom) {
      throw new UploadBrokerError('source-lost', 'storage lost bytes of a stream, which cannot be read again');
    }
    // One byte more than is sent: else nobody knows whether a chunk is the last.
    await this.#fill(offset + wanted + 1);
    const end = Math.min(offset + wanted, this.#readTo);
    const isLast = this.#ended && end === this.#readTo;
    const body = end > offset ? new Blob(this.#kept).slice(offset - this.#keptFrom, end - this.#keptFrom) : undefined;
    return { body, offset, length: end - offset, total: this.size, isLast };
  }

  confirmed(bytes: number): void {
    let drop = Math.min(bytes, this.#readTo) - this.#keptFrom;
    if (drop <= 0) return;
    this.#keptFrom += drop;
    while (drop > 0) {
      const first = this.#kept[0]!;
      if (first.length > drop) this.#kept[0] = first.subarray(drop);
      else this.#kept.shift();
      drop -= first.length;
    }
  }

  async check(): Promise<void> {}

  async digestTo(): Promise<void> {
    this.#digest ??= await loadDigest(undefined);
  }

  get digestState(): undefined {
    return undefined;
  }

  get crc32c(): string | undefined {
    return this.#ended ? this.#digest?.base64() : undefined;
  }

  close(): void {
    this.#kept = [];
    this.#reader.cancel().catch(() => {});
  }

  async #fill(to: number): Promise<void> {
    await this.digestTo();
    while (!this.#ended && this.#readTo < to) {
      let read: ReadableStreamReadResult<Uint8Array>;
      try {
        read = await this.#reader.read();
      } catch (error) {
        throw new UploadBrokerError('source-unreadable', 'the stream failed', { cause: error });
      }
      if (read.done) {
        this.#ended = true;
      } else if (read.value.length > 0) {
        // A copy: the stream may hand out its own buffer, and write on in it.
        const bytes = new Uint8Array(read.value);
        this.#digest!.append(bytes);
        this.#kept.push(bytes);
        this.#readTo += bytes.length;
      }
      const isWrong = this.#ended ? this.#readTo !== (this.#declared ?? this.#readTo) : this.#readTo > (this.#declared ?? Infinity);
      if (isWrong) throw new UploadBrokerError('source-changed', `the stream does not have the ${this.#declared} bytes that were declared`);
    }
  }
}
