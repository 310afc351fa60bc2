/** The record of one upload: found, begun, kept up to date and forgotten. */
import type { DigestState } from './digest.js';
import type { AnewReason } from './events.js';
import { UploadBrokerError } from './errors.js';
import { difference, fingerprintOf } from './fingerprint.js';
import type { Fingerprint } from './fingerprint.js';
import { hold } from './locks.js';
import { isSameOrder } from './order.js';
import { withoutSlash } from './route.js';
import type { UploadRecord, UploadStore } from './store.js';
import { defaultStore, isOutdated } from './store.js';
import type { CreateUpload } from './wire.js';

interface Found {
  record?: UploadRecord;
  /** Why nothing of what was begun before is continued. */
  anew?: { reason: AnewReason; detail: string };
}

/** 128 random bits. `randomUUID` is there in secure contexts only. */
const newKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

export class Records {
  readonly #store: UploadStore | undefined;
  readonly #failed: (cause: unknown) => void;
  #fingerprint: Fingerprint | undefined;
  #record: UploadRecord | undefined;
  #release: (() => void) | undefined;
  #hasFailed = false;

  constructor(store: UploadStore | false | undefined, failed: (cause: unknown) => void) {
    this.#store = store === false ? undefined : (store ?? defaultStore());
    this.#failed = failed;
  }

  get order(): CreateUpload {
    return this.#record!.request;
  }

  get key(): string {
    return this.#record!.key;
  }

  /**
   * What was begun before of the same file, for this broker or one of `regions`. It is then held by this upload. Refuses
   * what runs in another tab, of which whoever picked the file may know nothing; this page knows what it asks for.
   */
  async find(broker: string, file: Blob, order: CreateUpload, regions: string[] = []): Promise<Found> {
    if (!this.#store) return {};
    const fingerprint = (this.#fingerprint ??= await fingerprintOf(file, order.filename));
    const known = new Set([broker, ...regions.map(withoutSlash)]);
    let anew: Found['anew'];
    let isElsewhere = false;
    for (const record of await this.#list()) {
      if (!known.has(record.broker) || record.fingerprint.name !== fingerprint.name) continue;
      const different = difference(record.fingerprint, fingerprint);
      if (different !== undefined) {
        anew ??= { reason: 'other-file', detail: `a file of this name was being uploaded, but ${different}` };
      } else if (!isSameOrder(record.request, order)) {
        anew = { reason: 'other-order', detail: 'this file was being uploaded under another policy, type or metadata' };
      } else {
        const release = await hold(record.key);
        if (typeof release === 'function') {
          this.#release = release;
          this.#record = record;
          return { record };
        }
        isElsewhere ||= release === 'another tab';
        anew = { reason: 'in-use', detail: 'another upload of this page goes on with what was begun of this file' };
      }
    }
    if (isElsewhere) throw new UploadBrokerError('in-use', 'this file is being uploaded in another tab', { retryable: true });
    return { anew };
  }

  async begin(broker: string, request: CreateUpload): Promise<void> {
    const fingerprint = this.#fingerprint ?? { name: request.filename, size: 0, lastModified: 0, type: '', sample: 0 };
    this.#record = { version: 1, key: newKey(), broker, fingerprint, request, receivedBytes: 0, createdAt: Date.now() };
    const release = await hold(this.#record.key);
    if (typeof release === 'function') this.#release = release;
    await this.#save();
  }

  /** Another body is another request, so it has another key. */
  async reorder(request: CreateUpload): Promise<void> {
    const { broker } = this.#record!;
    await this.forget();
    await this.begin(broker, request);
  }

  async moved(broker: string): Promise<void> {
    this.#record!.broker = broker;
    await this.#save();
  }

  async progressed(now: { uploadId: string | undefined; receivedBytes: number; digest: DigestState | undefined; expiresAt: number | undefined }): Promise<void> {
    const record = this.#record!;
    if (now.uploadId === record.uploadId && now.receivedBytes === record.receivedBytes) return;
    const { uploadId, receivedBytes, digest, expiresAt } = now;
    this.#record = {
      ...record, receivedBytes,
      ...(uploadId !== undefined && { uploadId }), ...(digest && { digest }), ...(expiresAt && { expiresAt }),
    };
    await this.#save();
  }

  async forget(): Promise<void> {
    const key = this.#record?.key;
    if (key !== undefined && this.#isSaved) await this.#try(() => this.#store?.delete(key));
    this.release();
  }

  release(): void {
    this.#release?.();
    this.#release = undefined;
  }

  /** Only what has a fingerprint can be continued. */
  get #isSaved(): boolean {
    return this.#fingerprint !== undefined;
  }

  async #save(): Promise<void> {
    if (this.#isSaved) await this.#try(() => this.#store?.put(this.#record!));
  }

  /** The newest first, without those that are over by now. */
  async #list(): Promise<UploadRecord[]> {
    const records = (await this.#try(() => this.#store?.list())) ?? [];
    const now = Date.now();
    for (const record of records) {
      if (isOutdated(record, now)) await this.#try(() => this.#store?.delete(record.key));
    }
    return records.filter((record) => !isOutdated(record, now)).sort((a, b) => b.createdAt - a.createdAt);
  }

  async #try<T>(act: () => Promise<T> | undefined): Promise<T | undefined> {
    try {
      return await act();
    } catch (cause) {
      if (!this.#hasFailed) this.#failed(cause);
      this.#hasFailed = true;
      return undefined;
    }
  }
}
