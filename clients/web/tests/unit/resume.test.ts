import 'fake-indexeddb/auto';
import { describe, expect, it, vi } from 'vitest';
import { createUpload, discardUpload, indexedDbStore, memoryStore, pendingUploads } from '../../src/index.js';
import type { UploadRecord, UploadStore } from '../../src/index.js';
import { crc32c, toBase64 } from '../../src/crc32c.js';
import {
  admitted, COMPLETE, completed, CREATE, file, FIND, found, ID, ONE_CHUNK, persisted, play, problem, QUICK, Script, silent, status, stored, UNIT,
} from './script.js';
import type { Step } from './script.js';

const SIZE = 2 * UNIT + 5;
const ASK = `PUT bytes */${SIZE}`;
const CHUNKS: [string, string, string] = [`PUT bytes 0-${UNIT - 1}/${SIZE}`, `PUT bytes ${UNIT}-${2 * UNIT - 1}/${SIZE}`, `PUT bytes ${2 * UNIT}-${SIZE - 1}/${SIZE}`];
const ALL: Step[] = [
  [CREATE, admitted()], [CHUNKS[0], persisted(UNIT)], [CHUNKS[1], persisted(2 * UNIT)], [CHUNKS[2], stored], [COMPLETE, completed(SIZE)],
];

let stores = 0;

// Pages go away here without closing, which the locks that newer Nodes have would not notice. `locks.test.ts` has its own.
vi.stubGlobal('navigator', {});

/** What a page leaves that goes away in the middle of the second chunk. */
async function left(store: UploadStore, source = file(SIZE), steps: Step[] = [[CREATE, admitted()], [CHUNKS[0], persisted(UNIT)], [CHUNKS[1], silent]]): Promise<UploadRecord> {
  const script = new Script(steps);
  // A page of its own has modules of its own.
  vi.resetModules();
  const page = await import('../../src/index.js');
  const upload = page.createUpload(source, { broker: 'https://broker.example', token: () => 't', store, fetch: script.fetch, chunk: ONE_CHUNK, patience: QUICK });
  while (script.seen.length < steps.length) await new Promise((resolve) => setTimeout(resolve, 1));
  upload.pause();
  return (await store.list())[0]!;
}

describe.each([
  ['IndexedDB', () => indexedDbStore(`test-${stores++}`)],
  ['memory', memoryStore],
])('with records in %s, an upload', (_, makeStore) => {
  it('goes on where storage says, with the digest of what came before', async () => {
    const store = makeStore();
    const record = await left(store);
    expect(record).toMatchObject({ uploadId: ID, receivedBytes: UNIT, fingerprint: { name: 'holiday.mp4', size: SIZE } });
    expect(JSON.stringify(record), 'the session URI is a secret').not.toContain('storage.example');
    const { error, events, script } = await play(file(SIZE), [
      [FIND, found()], [ASK, persisted(UNIT)], [CHUNKS[1], persisted(2 * UNIT)], [CHUNKS[2], stored], [COMPLETE, completed(SIZE)],
    ], { store });
    expect(error).toBeUndefined();
    expect(events).toContainEqual(expect.objectContaining({ type: 'admitted', isResumed: true }));
    expect(script.seen[3]!.headers.get('x-goog-hash')).toBe(`crc32c=${toBase64(crc32c(new Uint8Array(SIZE).fill(7)))}`);
    expect(await store.list(), 'nothing is left of what is completed').toEqual([]);
  });

  it.each<[string, File, RegExp]>([
    ['of another size', file(SIZE + 1), /had 524293 bytes, and this one has 524294/],
    ['of other content', file(SIZE, 'holiday.mp4', 8), /other content/],
    ['of another time', new File([file(SIZE)], 'holiday.mp4', { type: 'video/mp4', lastModified: 2000 }), /modified at another time/],
  ])('begins anew, and says why, with a file of the same name: %s', async (_, other, why) => {
    const store = makeStore();
    await left(store);
    const { events, error } = await play(other, [[CREATE, problem(403, 'policy-denied')]], { store });
    expect(error?.code).toBe('policy-denied');
    expect(events.find(({ type }) => type === 'anew')).toEqual({ type: 'anew', reason: 'other-file', detail: expect.stringMatching(why) });
    expect(await store.list(), 'the other file can still be continued').toHaveLength(1);
  });

  it('can be looked for, and given up', async () => {
    const store = makeStore();
    const record = await left(store);
    expect(await pendingUploads(store)).toEqual([{ ...record, isRunning: false }]);
    const calls: string[] = [];
    const original = globalThis.fetch;
    globalThis.fetch = async (url, init) => {
      calls.push(`${init?.method} ${url}`);
      return found({ state: 'cancelled', transfer: undefined })(undefined as never);
    };
    try {
      await discardUpload(record, () => 't', store);
    } finally {
      globalThis.fetch = original;
    }
    expect(calls).toEqual([`DELETE https://broker.example/v1/uploads/${ID}`]);
    expect(await pendingUploads(store)).toEqual([]);
  });
});

describe('giving up what was being created when the page went away', () => {
  it.each<[string, Step[], boolean]>([
    ['finds it by its key, and cancels it', [[CREATE, admitted()], [`DELETE /v1/uploads/${ID}`, found({ state: 'cancelled', transfer: undefined })]], true],
    ['forgets what the broker would not have taken', [[CREATE, problem(422, 'policy-violation')]], true],
    ['keeps it when the broker is away', [[CREATE, problem(503, 'overloaded')]], false],
  ])('%s', async (_, steps, isForgotten) => {
    const store = memoryStore();
    const record = await left(store, file(SIZE), [[CREATE, silent]]);
    const script = new Script(steps);
    const error = await discardUpload(record, () => 't', store, script.fetch).then(() => undefined, (error: Error) => error);
    script.expectPlayed();
    expect([error === undefined, (await store.list()).length === 0]).toEqual([isForgotten, isForgotten]);
    expect(script.seen[0]!.headers.get('idempotency-key')).toBe(record.key);
  });
});

describe('what was begun before', () => {
  it.each<[string, Step[], string[]]>([
    ['is forgotten by the broker', [[FIND, problem(404, 'not-found')], ...ALL], ['forgotten']],
    ['was rejected', [[FIND, found({ state: 'rejected', transfer: undefined })], ...ALL], ['ended']],
    ['has expired', [[FIND, found({ state: 'expired', transfer: undefined })], ...ALL], ['ended']],
    ['was completed just before the page went away', [[FIND, completed(SIZE)]], []],
    ['has lost its session', [
      [FIND, found()], [ASK, status(404)], [`POST /v1/uploads/${ID}/renew`, found()], ...ALL.slice(1),
    ], []],
    ['has lost the bytes that were confirmed', [[FIND, found()], [ASK, persisted(0)], [ASK, persisted(0)], ...ALL.slice(1)], []],
    ['has gained bytes whose answer was lost', [[FIND, found()], [ASK, persisted(2 * UNIT)], [CHUNKS[2], stored], [COMPLETE, completed(SIZE)]], []],
  ])('%s', async (_, steps, restarts) => {
    const store = memoryStore();
    await left(store);
    const played = await play(file(SIZE), steps, { store });
    expect([played.error, played.restarts]).toEqual([undefined, restarts]);
    expect(await store.list()).toEqual([]);
  });

  it('is created again under the same key when the page went away meanwhile', async () => {
    const store = memoryStore();
    const record = await left(store, file(SIZE), [[CREATE, silent]]);
    const { error, script } = await play(file(SIZE), ALL, { store });
    expect(error).toBeUndefined();
    expect(script.seen[0]!.headers.get('idempotency-key')).toBe(record.key);
  });

  it('is created with its digest when the page went away while it was made', async () => {
    const store = memoryStore();
    const record = await left(store, file(SIZE), [[CREATE, silent]]);
    expect(record.request).not.toHaveProperty('crc32c');
    const { script, error } = await play(file(SIZE), ALL, { store, digest: 'declare' });
    expect(error).toBeUndefined();
    expect(JSON.parse(script.seen[0]!.body).crc32c).toMatch(/^.{6}==$/);
  });

  it('is created under the same key when its digest was declared before the page went away', async () => {
    const store = memoryStore();
    const record = await left(store, file(SIZE), [[CREATE, silent]]);
    await store.put({ ...record, request: { ...record.request, crc32c: 'AAAAAA==' } });
    const { script } = await play(file(SIZE), ALL, { store, digest: 'declare' });
    expect([script.seen[0]!.headers.get('idempotency-key'), JSON.parse(script.seen[0]!.body).crc32c]).toEqual([record.key, 'AAAAAA==']);
  });

  it('is forgotten, and the digest declared again where that is wanted', async () => {
    const store = memoryStore();
    await left(store);
    const { script, error } = await play(file(SIZE), [[FIND, problem(404, 'not-found')], ...ALL], { store, digest: 'declare' });
    expect(error).toBeUndefined();
    expect(JSON.parse(script.seen[1]!.body).crc32c).toMatch(/^.{6}==$/);
  });

  it('is another upload when it was ordered otherwise', async () => {
    const store = memoryStore();
    await left(store);
    const { restarts } = await play(file(SIZE), ALL, { store, metadata: { album: 'summer' } });
    expect(restarts).toEqual(['other-order']);
  });

  it('is another upload at another broker', async () => {
    const store = memoryStore();
    const record = await left(store);
    await store.put({ ...record, broker: 'https://other.example' });
    expect((await play(file(SIZE), ALL, { store })).restarts).toEqual([]);
  });

  it('is left to whoever goes on with it just now', async () => {
    const store = memoryStore();
    const first = new Script([[CREATE, silent]]);
    const upload = createUpload(file(SIZE), { broker: 'https://broker.example', token: () => 't', store, fetch: first.fetch });
    while (first.seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const second = await play(file(SIZE), ALL, { store });
    expect([second.error, second.restarts]).toEqual([undefined, ['in-use']]);
    upload.pause();
  });

  it('is kept when the upload may go well later, and dropped when it will not', async () => {
    const store = memoryStore();
    await play(file(5), [[CREATE, problem(429, 'quota-exceeded')]], { store });
    expect(await store.list()).toHaveLength(1);
    await play(file(5), [[CREATE, problem(403, 'policy-denied')]], { store });
    expect(await store.list()).toEqual([]);
  });

  it('is dropped when it is over by now', async () => {
    const store = memoryStore();
    const record = await left(store);
    await store.put({ ...record, expiresAt: Date.now() - 1 });
    await store.put({ ...record, key: 'x', uploadId: undefined, createdAt: Date.now() - 25 * 3600_000 });
    expect((await play(file(SIZE), ALL, { store })).restarts).toEqual([]);
    expect(await store.list()).toEqual([]);
  });

  it('is not needed: a store that fails stops no upload, and says so once', async () => {
    const broken = (): Promise<never> => Promise.reject(new DOMException('full', 'QuotaExceededError'));
    const { error, events } = await play(file(SIZE), ALL, { store: { list: broken, put: broken, delete: broken } });
    expect(error).toBeUndefined();
    expect(events.filter(({ type }) => type === 'unsaved')).toHaveLength(1);
  });
});
