import type { Content, UploadOptions } from './order.js';
import { BrokerClient } from './broker.js';
import type { TokenProvider } from './broker.js';
import type { UploadRecord, UploadStore } from './store.js';
import { defaultStore, isOutdated } from './store.js';
import { withoutSlash } from './route.js';
import { Upload } from './upload.js';

/**
 * Uploads a file through a broker, and continues what an earlier page began with the same file. It begins by itself, a
 * turn later.
 */
export const createUpload = (content: Content, options: UploadOptions): Upload => new Upload(content, options);

/** Uploads that were begun and not ended, newest first, for a page to offer: "pick holiday.mp4 again to continue". */
export async function pendingUploads(store: UploadStore = defaultStore()): Promise<UploadRecord[]> {
  const now = Date.now();
  return (await store.list()).filter((record) => !isOutdated(record, now)).sort((a, b) => b.createdAt - a.createdAt);
}

/** Gives up what `pendingUploads` told of: the broker cancels it, and it is forgotten here. */
export async function discardUpload(record: UploadRecord, token: TokenProvider, store: UploadStore = defaultStore()): Promise<void> {
  if (record.uploadId !== undefined) {
    const broker = new BrokerClient(withoutSlash(record.broker), token, (url, init) => fetch(url, init));
    const answer = await broker.cancel(record.uploadId, AbortSignal.timeout(60_000));
    if (answer.from === 'nowhere') throw answer.error;
    if ('problem' in answer && answer.problem.status !== 404) throw answer.problem;
  }
  await store.delete(record.key);
}

export { UploadBrokerError } from './errors.js';
export type { BrokerCode, ClientCode, ErrorCode } from './errors.js';
export type { AnewReason, ClientState, Progress, UploadEvent } from './events.js';
export type { Fingerprint } from './fingerprint.js';
export type { Content, UploadOptions } from './order.js';
export type { ChunkBounds, Patience } from './pace.js';
export type { Fetch, TokenProvider } from './broker.js';
export { indexedDbStore, memoryStore } from './store.js';
export type { UploadRecord, UploadStore } from './store.js';
export type { DigestState } from './digest.js';
export type { Upload } from './upload.js';
export type { BrokerUpload, CompletedUpload, Problem, Rejection, Transfer, TransferKind, UploadResult, UploadState, Violation } from './wire.js';
