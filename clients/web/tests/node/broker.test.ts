/** The client in Node against the real broker and the storage emulator. */
import { openAsBlob } from 'node:fs';
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { createUpload, memoryStore } from '../../src/index.js';
import type { Content, Upload, UploadBrokerError, UploadEvent, UploadOptions } from '../../src/index.js';
import { crc32c, toBase64 } from '../../src/crc32c.js';
import { World, wrongOffsets } from '../../../support/servers.js';

const UNIT = 256 * 1024;
const SIZE = 6 * UNIT + 1234;
const BYTES = Uint8Array.from({ length: SIZE }, (_, n) => (n * 2654435761) >>> 11);
const DIGEST = toBase64(crc32c(BYTES));
const movie = (name = 'holiday.mp4'): File => new File([BYTES], name, { type: 'video/mp4', lastModified: 1 });

let world: World;
beforeAll(async () => {
  world = await World.start({
    policies: `
[[policies]]
name = "videos"
object = "videos/{sub}/{id}.{ext}"
max_size = "64MiB"
unknown_size = true
transfers = ["resumable", "simple", "signed_resumable"]
simple_max_size = "8MiB"
[[policies]]
name = "strict"
object = "strict/{sub}/{id}.{ext}"
max_size = "64MiB"
digest = "required"
[[policies]]
name = "two"
when = 'claims.sub == "bob"'
object = "two/{sub}/{id}.{ext}"
max_size = "64MiB"
max_active = 1
[[policies]]
name = "nobody"
when = "false"
object = "no/{id}"
max_size = "1MiB"
`,
  });
});
afterAll(() => world?.stop());
beforeEach(async () => {
  await world.mend();
  await world.forgetJournal();
});

const make = (content: Content, options: Partial<UploadOptions> = {}): Upload => createUpload(content, {
  broker: world.broker, policy: 'videos', token: () => world.token(), store: false, chunk: { bytes: UNIT, maxBytes: UNIT },
  patience: { firstPauseMs: 5, longestPauseMs: 20, giveUpAfterMs: 2000 }, ...options,
});

async function completes(upload: Upload, digest: string | undefined = DIGEST): Promise<void> {
  const { state, result } = await upload.done;
  expect(state).toBe('completed');
  if (digest !== undefined) expect(result.crc32c).toBe(digest);
  expect(wrongOffsets(await world.journal())).toEqual([]);
}

const failure = (upload: Upload): Promise<UploadBrokerError> =>
  upload.done.then(() => expect.fail('it completed'), (error: UploadBrokerError) => error);

const chunk = (action: unknown, more: object = {}) => ({ operation: 'chunk', action, ...more });

describe('an upload completes with the bytes of the file', () => {
  it.each<[string, unknown[]]>([
    ['nothing goes wrong', []],
    ['connections are cut before, within and after chunks', [
      chunk({ kind: 'reset' }, { skip: 1 }), chunk({ kind: 'persist_then_reset', bytes: 1000 }, { skip: 2 }), chunk({ kind: 'act_then_reset' }, { skip: 3 }),
    ]],
    ['a chunk is persisted in part', [chunk({ kind: 'persist_then_respond', bytes: 12_345, reply: { status: 503 } })]],
    ['the last answer is lost', [chunk({ kind: 'act_then_reset' }, { skip: 6 })]],
    ['Range is left out', [chunk({ kind: 'omit_range' }, { skip: 2 })]],
    ['Range is left out again, of the question', [chunk({ kind: 'omit_range' }, { skip: 2 }), { operation: 'status', action: { kind: 'omit_range' } }]],
    ['storage is busy, and says so in each way', [429, 408, 500, 502, 503].map((status) => chunk({ kind: 'respond', status }))],
    ['the broker cannot reach storage at the end', [{ operation: 'status', skip: 0, count: 3, action: { kind: 'respond', status: 503 } }]],
  ])('when %s', async (_, faults) => {
    await world.faults(...faults);
    await completes(make(movie()));
  });

  it.each(['kill_session', 'forget_session'])('when its session ends in the middle: %s', async (kind) => {
    await world.faults(chunk({ kind }, { skip: 3 }));
    const upload = make(movie());
    const renewed = vi.fn();
    upload.on('renewed', renewed);
    await completes(upload);
    expect(renewed).toHaveBeenCalledTimes(1);
    expect(new Set((await world.journal()).filter(({ operation }) => operation === 'chunk').map(({ session }) => session)).size).toBe(2);
  });

  it('when its token expires in the middle, and nobody notices', async () => {
    let asked = 0;
    // Good for a second; then the broker refuses it, and another is asked for.
    const token = () => world.token('ada', ++asked === 1 ? 1 : 3600);
    await world.faults(chunk({ kind: 'delay', for: '1500ms' }, { skip: 2 }));
    const upload = make(movie(), { token });
    const events: UploadEvent[] = [];
    upload.on('retry', (event) => events.push(event));
    await completes(upload);
    expect([asked, events]).toEqual([2, []]);
  });

  it.each([['an empty file', 0], ['one byte', 1], ['one chunk exactly', UNIT], ['one byte more', UNIT + 1]])('of %s', async (_, bytes) => {
    await completes(make(new File([BYTES.subarray(0, bytes)], 'a.bin')), toBase64(crc32c(BYTES.subarray(0, bytes))));
  });

  it.each(['simple', 'signed_resumable'] as const)('by %s', async (transfer) => {
    await completes(make(movie(), { transfer }));
    await completes(make(new File([], 'empty'), { transfer }), 'AAAAAA==');
  });

  it('by signed URLs, whose answers are lost and which end', async () => {
    await world.faults({ operation: 'simple', action: { kind: 'act_then_reset' } });
    await completes(make(movie(), { transfer: 'simple' }));
    await world.faults({ operation: 'simple', action: { kind: 'reset' } });
    await completes(make(movie(), { transfer: 'simple' }));
    await world.faults({ operation: 'simple', action: { kind: 'respond', status: 400, body: 'xml' } });
    await completes(make(movie(), { transfer: 'simple' }));
    await world.faults({ operation: 'initiate', action: { kind: 'respond', status: 403, body: 'xml' } }, chunk({ kind: 'persist_then_reset', bytes: 7 }, { skip: 1 }));
    await completes(make(movie(), { transfer: 'signed_resumable' }));
  });

  it.each([0, 1, UNIT, 2 * UNIT + 5])('of a stream of %i bytes', async (bytes) => {
    await world.faults(chunk({ kind: 'act_then_reset' }, { skip: 1 }));
    await completes(make(new Blob([BYTES.subarray(0, bytes)]).stream(), { name: 'live.mp4' }), toBase64(crc32c(BYTES.subarray(0, bytes))));
  });

  it.each(['declare', 'none'] as const)('with the digest: %s', async (digest) => {
    await completes(make(movie(), { digest }));
  });

  it('where the policy asks for a digest', async () => {
    await completes(make(movie(), { policy: 'strict' }));
  });

  it('with any name', async () => {
    for (const name of ['Ferien ☀.mp4', '..', 'مرحبا', '👩‍👩‍👧', '\u202Egpj.exe', '"<%2F>#?[*]', ' ', 'é'.repeat(127)]) await completes(make(movie(name)));
  });

  it('that was begun by a page before, from where storage stands', async () => {
    const store = memoryStore();
    await world.faults(chunk({ kind: 'hold' }, { skip: 3 }));
    const first = make(movie(), { store });
    await new Promise<void>((resolve) => first.on('progress', ({ receivedBytes }) => receivedBytes === 3 * UNIT && resolve()));
    await new Promise((resolve) => setTimeout(resolve, 50));
    first.pause();
    await world.mend();
    vi.resetModules();
    const page = await import('../../src/index.js');
    const second = page.createUpload(movie(), { broker: world.broker, policy: 'videos', token: () => world.token(), store, chunk: { bytes: UNIT, maxBytes: UNIT } });
    const admitted = vi.fn();
    second.on('admitted', admitted);
    await completes(second as unknown as Upload);
    expect(admitted).toHaveBeenCalledWith(expect.objectContaining({ isResumed: true }));
    const sent = (await world.journal()).filter(({ operation }) => operation === 'chunk').reduce((sum, { received }) => sum + received, 0);
    expect(sent).toBeLessThan(SIZE + 2 * UNIT);
  });
});

describe('an upload ends in a typed error', () => {
  it('when no policy admits it', async () => {
    const error = await failure(make(movie(), { policy: 'nobody' }));
    expect([error.code, error.status, error.retryable]).toEqual(['policy-denied', 403, false]);
    expect(error.problem?.request_id).toBe(error.requestId);
  });

  it('when it is too large', async () => {
    const many = new File(Array.from({ length: 50 }, () => BYTES), 'many.mp4');
    const tooLarge = await failure(make(many));
    expect([tooLarge.code, tooLarge.violations]).toEqual(['policy-violation', [{ limit: 'max_size', allowed: String(64 << 20), given: String(many.size) }]]);
  });

  it('when the quota is used up', async () => {
    const token = () => world.token('bob');
    await world.faults(chunk({ kind: 'hold' }));
    const first = make(movie(), { policy: 'two', token });
    await new Promise<void>((resolve) => first.on('admitted', () => resolve()));
    const error = await failure(make(movie(), { policy: 'two', token }));
    expect([error.code, error.status, error.problem?.limit, error.retryable]).toEqual(['quota-exceeded', 429, 'max_active', true]);
    await first.cancel();
    expect((await failure(first)).code).toBe('cancelled');
    await world.mend();
    await completes(make(movie(), { policy: 'two', token }));
  });

  it('when the type is malformed', async () => {
    const error = await failure(make(movie(), { contentType: 'video' }));
    expect([error.code, error.errors[0]?.pointer]).toEqual(['invalid-request', '/content_type']);
  });

  it('when the token is no good', async () => {
    expect((await failure(make(movie(), { token: () => 'no-token' }))).code).toBe('unauthenticated');
  });

  it('when storage has lost its bytes to another content', async () => {
    const wrong = async (url: string, init: RequestInit): Promise<Response> => {
      const headers = new Headers(init.headers);
      if (headers.has('x-goog-hash')) headers.set('x-goog-hash', 'crc32c=AAAAAA==');
      return fetch(url, { ...init, headers });
    };
    const error = await failure(make(movie(), { fetch: wrong }));
    expect([error.code, error.status]).toEqual(['storage-refused', 400]);
  });

  it.each(['grows', 'shrinks', 'vanishes'])('when the file %s while it is uploaded', async (how) => {
    const folder = await mkdtemp(join(tmpdir(), 'upload-'));
    const path = join(folder, 'a.mp4');
    await writeFile(path, BYTES);
    const upload = make(await openAsBlob(path), { name: 'a.mp4', patience: { firstPauseMs: 5, longestPauseMs: 20, giveUpAfterMs: 200 } });
    await new Promise<void>((resolve) => upload.on('progress', async ({ receivedBytes }) => {
      if (receivedBytes !== 2 * UNIT) return;
      upload.pause();
      if (how === 'grows') await appendFile(path, 'more');
      else if (how === 'shrinks') await writeFile(path, 'less');
      else await rm(path);
      upload.resume();
      resolve();
    }));
    const error = await failure(upload);
    expect(['source-changed', 'source-unreadable']).toContain(error.code);
    const [last] = (await world.journal()).filter(({ operation }) => operation === 'cancel');
    expect(last?.status, 'the session is given back').toBe(499);
    await rm(folder, { recursive: true });
  });
});
