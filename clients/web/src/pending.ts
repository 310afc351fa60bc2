/** What was begun and has not ended: for a page to offer, or to give up. */
import { BrokerClient, isSettled } from './broker.js';
import type { Fetch, TokenProvider } from './broker.js';
import { UploadBrokerError } from './errors.js';
import { hold, isHeld } from './locks.js';
import { withoutSlash } from './route.js';
import type { UploadRecord, UploadStore } from './store.js';
import { defaultStore, isOutdated } from './store.js';

export interface PendingUpload extends UploadRecord {
  /** An upload of this page goes on with it just now, or one of another tab, be it paused: then nobody else can. */
  isRunning: boolean;
}

/** Uploads that were begun and not ended, newest first, for a page to offer: "pick holiday.mp4 again to continue". */
export async function pendingUploads(store: UploadStore = defaultStore()): Promise<PendingUpload[]> {
  const now = Date.now();
  const records = (await store.list()).filter((record) => !isOutdated(record, now)).sort((a, b) => b.createdAt - a.createdAt);
  return Promise.all(records.map(async (record) => ({ ...record, isRunning: await isHeld(record.key) })));
}

/** Gives up what `pendingUploads` told of: the broker cancels it, and it is forgotten here. Not while somebody goes on with it. */
export async function discardUpload(
  record: UploadRecord, token: TokenProvider, store: UploadStore = defaultStore(), fetch: Fetch = (url, init) => globalThis.fetch(url, init),
): Promise<void> {
  const release = await hold(record.key);
  if (typeof release === 'string') throw new UploadBrokerError('in-use', `this upload is running in ${release}`, { retryable: true });
  try {
    await discard(record, new BrokerClient(withoutSlash(record.broker), token, fetch));
    await store.delete(record.key);
  } finally {
    release();
  }
}

async function discard(record: UploadRecord, broker: BrokerClient): Promise<void> {
  const within = (): AbortSignal => AbortSignal.timeout(60_000);
  let id = record.uploadId;
  // The page went away before it had the answer. The same key finds what was created; after a day it would create anew.
  if (id === undefined && !isOutdated(record, Date.now())) {
    const answer = await broker.create(record.request, record.key, within());
    if ('upload' in answer) id = answer.upload.id;
    else if (!isSettled(answer)) throw answer.from === 'nowhere' ? answer.error : answer.problem;
  }
  if (id === undefined) return;
  const answer = await broker.cancel(id, within());
  if (answer.from === 'nowhere') throw answer.error;
  if ('problem' in answer && answer.problem.status !== 404) throw answer.problem;
}
