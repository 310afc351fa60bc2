import type { Content, UploadOptions } from './order.js';
import { BrokerClient, isSettled } from './broker.js';
import type { Fetch, TokenProvider } from './broker.js';
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
export async function discardUpload(
  record: UploadRecord, token: TokenProvider, store: UploadStore = defaultStore(), fetch: Fetch = (url, init) => globalThis.fetch(url, init),
): Promise<void> {
  const broker = new BrokerClient(withoutSlash(record.broker), token, fetch);
  const within = (): AbortSignal => AbortSignal.timeout(60_000);
  let id = record.uploadId;
  // The page went away before it had the answer. The same key finds what was created; after a day it would create anew.
  if (id === undefined && !isOutdated(record, Date.now())) {
    const answer = await broker.create(record.request, record.key, within());
    if ('upload' in answer) id = answer.upload.id;
    else if (!isSettled(answer)) throw answer.from === 'nowhere' ? answer.error : answer.problem;
  }
  if (id !== undefined) {
    const answer = await broker.cancel(id, within());
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
