/** The running CRC32C of a source, from its first byte on. Loaded when the first byte is to be digested. */
import { crc32c, crc32cOf, toBase64 } from './crc32c.js';

/** Smaller files are not worth the start of a worker. */
const WORTH_A_WORKER = 8 * 1024 * 1024;

/** The CRC32C of the first so many bytes: enough to go on from there after a reload. */
export interface DigestState {
  bytes: number;
  crc: number;
}

/**
 * Digests a source in order, each byte once. What storage persists does not matter to it: the digest is one of the file.
 */
export class Digest {
  #state: DigestState;
  #queue: Promise<void> = Promise.resolve();
  #worker: Worker | undefined;
  #canWork: boolean;

  constructor(size: number | undefined, state: DigestState = { bytes: 0, crc: 0 }) {
    this.#state = { ...state };
    this.#canWork = typeof Worker === 'function' && size !== undefined && size >= WORTH_A_WORKER;
  }

  get state(): DigestState {
    return { ...this.#state };
  }

  base64(): string {
    return toBase64(this.#state.crc);
  }

  /** Digests up to byte `to` of `file`, after what was asked for before. Rejects when the file cannot be read. */
  advance(file: Blob, to: number): Promise<void> {
    const next = this.#queue.then(async () => {
      const { bytes, crc } = this.#state;
      if (to <= bytes) return;
      this.#state = { bytes: to, crc: await this.#of(file.slice(bytes, to), crc) };
    });
    this.#queue = next.catch(() => {});
    return next;
  }

  /** Digests what a stream gave next. */
  append(bytes: Uint8Array): void {
    this.#state = { bytes: this.#state.bytes + bytes.length, crc: crc32c(bytes, this.#state.crc) };
  }

  close(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#canWork = false;
  }

  async #of(blob: Blob, crc: number): Promise<number> {
    if (this.#canWork) {
      try {
        return await this.#inWorker(blob, crc);
      } catch (error) {
        if (!(error instanceof NoWorker)) throw error;
        // A content security policy, or a bundler that left the worker out: slower, but the same digest.
        this.close();
      }
    }
    return crc32cOf(blob, crc);
  }

  #inWorker(blob: Blob, crc: number): Promise<number> {
    return new Promise((resolve, reject) => {
      try {
        this.#worker ??= new Worker(new URL('./crc32c-worker.js', import.meta.url), { type: 'module' });
      } catch {
        reject(new NoWorker());
        return;
      }
      const worker = this.#worker;
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new NoWorker());
      };
      worker.onmessage = ({ data }: MessageEvent<{ crc: number } | { error: unknown }>) =>
        'crc' in data ? resolve(data.crc) : reject(data.error);
      worker.postMessage({ blob, crc });
    });
  }
}

class NoWorker extends Error {}
