import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createUpload, discardUpload, memoryStore, pendingUploads } from '../../src/index.js';
import type { Upload, UploadBrokerError, UploadStore } from '../../src/index.js';
import { admitted, COMPLETE, completed, CREATE, file, FIND, found, ONE_CHUNK, persisted, play, QUICK, Script, silent, stored, UNIT } from './script.js';
import type { Step } from './script.js';

const SIZE = 2 * UNIT;
const CHUNKS = [`PUT bytes 0-${UNIT - 1}/${SIZE}`, `PUT bytes ${UNIT}-${SIZE - 1}/${SIZE}`] as const;
const HALF: Step[] = [[CREATE, admitted()], [CHUNKS[0], persisted(UNIT)], [CHUNKS[1], silent]];
const REST: Step[] = [[FIND, found()], [`PUT bytes */${SIZE}`, persisted(UNIT)], [CHUNKS[1], stored], [COMPLETE, completed(SIZE)]];
const ANEW: Step[] = [[CREATE, admitted()], [CHUNKS[0], persisted(UNIT)], [CHUNKS[1], stored], [COMPLETE, completed(SIZE)]];

/** The Web Locks of an origin: one holder a name, and a queue that an aborted request leaves. */
class Locks {
  readonly #queues = new Map<string, (() => void)[]>();

  async request(name: string, { signal }: { signal: AbortSignal }, use: () => Promise<void>): Promise<void> {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    await new Promise<void>((grant, refuse) => {
      signal.addEventListener('abort', () => {
        if (queue.indexOf(grant) < 1) return;
        queue.splice(queue.indexOf(grant), 1);
        refuse(signal.reason);
      });
      if (queue.push(grant) === 1) grant();
    });
    await use();
    this.#leave(queue);
  }

  /** The pages that hold something go away. */
  closePages(): void {
    for (const queue of this.#queues.values()) this.#leave(queue);
  }

  #leave(queue: (() => void)[]): void {
    queue.shift();
    queue[0]?.();
  }
}

let locks: Locks;
let store: UploadStore;
beforeEach(() => {
  locks = new Locks();
  store = memoryStore();
  vi.stubGlobal('navigator', { locks });
});
afterEach(() => vi.unstubAllGlobals());

/** An upload of another tab, which has come to the middle of the second chunk. */
async function elsewhere(): Promise<Upload> {
  const script = new Script(HALF);
  // A page of its own has modules of its own.
  vi.resetModules();
  const page = await import('../../src/index.js');
  const upload = page.createUpload(file(SIZE), { broker: 'https://broker.example', token: () => 't', store, fetch: script.fetch, chunk: ONE_CHUNK, patience: QUICK });
  await vi.waitFor(() => expect(script.seen).toHaveLength(HALF.length));
  return upload;
}

const isRunning = async (): Promise<boolean[]> => (await pendingUploads(store)).map(({ isRunning }) => isRunning);
const discard = async (): Promise<UploadBrokerError | undefined> => {
  const [record] = await pendingUploads(store);
  return discardUpload(record!, () => 't', store, new Script([]).fetch).then(() => undefined, (error: UploadBrokerError) => error);
};

describe('an upload that runs in another tab', () => {
  it.each([['is sending', false], ['is paused', true]])('is said to run, and neither continued nor given up, while it %s', async (_, isPaused) => {
    const other = await elsewhere();
    if (isPaused) other.pause();
    expect(await isRunning()).toEqual([true]);
    const { error, restarts } = await play(file(SIZE), [], { store });
    expect([error?.code, error?.retryable, restarts]).toEqual(['in-use', true, []]);
    expect((await discard())?.code).toBe('in-use');
    expect(await store.list(), 'it can still be continued there').toHaveLength(1);
    expect(other.state).toBe(isPaused ? 'paused' : 'uploading');
  });

  it('is continued once that tab is gone', async () => {
    await elsewhere();
    locks.closePages();
    expect(await isRunning()).toEqual([false]);
    expect((await play(file(SIZE), REST, { store })).error).toBeUndefined();
    expect(await store.list()).toEqual([]);
  });

  it('is continued although the page that was left lets go a moment later', async () => {
    await elsewhere();
    setTimeout(() => locks.closePages(), 30);
    expect((await play(file(SIZE), REST, { store })).error).toBeUndefined();
  });

  it('is no reason to refuse another order, another file, or an upload that is not written down', async () => {
    await elsewhere();
    expect((await play(file(SIZE), ANEW, { store, metadata: { album: 'summer' } })).restarts).toEqual(['other-order']);
    expect((await play(file(SIZE, 'holiday.mp4', 8), ANEW, { store, digest: 'none' })).restarts).toContain('other-file');
    expect((await play(file(SIZE), ANEW, { store: false })).error).toBeUndefined();
  });
});

it('an upload of this page is said to run and is not given up, and the same file is another upload', async () => {
  const script = new Script(HALF);
  const upload = createUpload(file(SIZE), { broker: 'https://broker.example', token: () => 't', store, fetch: script.fetch, chunk: ONE_CHUNK, patience: QUICK });
  await vi.waitFor(() => expect(script.seen).toHaveLength(HALF.length));
  expect(await isRunning()).toEqual([true]);
  expect((await discard())?.code).toBe('in-use');
  expect(await play(file(SIZE), ANEW, { store })).toMatchObject({ error: undefined, restarts: ['in-use'] });
  expect(upload.state).toBe('uploading');
});

it.each([
  ['there are no Web Locks', {}],
  ['Web Locks are not allowed', { locks: { request: () => Promise.reject(new DOMException('no', 'SecurityError')) } }],
])('an upload of another page is continued where %s: nobody can tell whether that is gone', async (_, navigator) => {
  vi.stubGlobal('navigator', navigator);
  await elsewhere();
  expect(await isRunning()).toEqual([false]);
  expect((await play(file(SIZE), REST, { store })).error).toBeUndefined();
});
