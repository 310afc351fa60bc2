/** The client in Chromium, cross-origin, against a broker with TLS and Redis and an emulator that enforces CORS. */
import { readFileSync } from 'node:fs';
import { appendFile, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { crc32c, toBase64 } from '../../src/crc32c.js';
import type * as client from '../../src/index.js';
import { launch, Site } from '../../../support/page.js';
import { World, wrongOffsets } from '../../../support/servers.js';
import type { Entry } from '../../../support/servers.js';

const MIB = 1024 * 1024;

/** Options that can be handed to a page. */
type Plain = Pick<client.UploadOptions, 'broker' | 'chunk' | 'patience' | 'regions' | 'transfer'>;

/** What `page.js` puts into the page. */
declare global {
  var broker: string;
  var client: typeof import('../../src/index.js');
  var upload: client.Upload;
  var seen: client.UploadEvent[];
  var begin: (options?: Plain, file?: Blob) => client.Upload;
  var outcome: () => Promise<{ crc32c?: string; size?: number; code?: string; events: string[]; upload?: client.BrokerUpload }>;
}

let world: World;
let site: Site;
let stranger: Site;
let browser: Browser;
let context: BrowserContext;
let page: Page;
let folder: string;
let seconds: number[];
let errors: string[];

const folders = [fileURLToPath(new URL('.', import.meta.url)), fileURLToPath(new URL('../../', import.meta.url))];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'upload-'));
  const token = (): string => world.token('ada', seconds.shift() ?? 3600);
  [site, stranger, browser] = await Promise.all([new Site(folders, { '/token': token }).start(), new Site(folders, { '/token': token }).start(), launch()]);
  world = await World.start({ origins: [site.origin], asInProduction: true });
});
afterAll(async () => {
  await browser?.close();
  await Promise.all([world?.stop(), site?.stop(), stranger?.stop(), rm(folder, { recursive: true, force: true })]);
});
beforeEach(async () => {
  seconds = [];
  errors = [];
  await world.mend();
  await world.forgetJournal();
  context = await browser.newContext({ ignoreHTTPSErrors: true });
  page = await context.newPage();
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    if (/Content.Security.Policy/i.test(message.text())) errors.push(message.text());
  });
  await open();
});
afterEach(async () => {
  await context?.close();
  expect(errors, 'errors of the page, and what its policy refused').toEqual([]);
});

async function open(at = site): Promise<void> {
  await page.goto(at.origin);
  await page.waitForFunction(() => 'client' in globalThis);
  await page.evaluate((url) => void (globalThis.broker = url), world.broker);
}

/** A tab more, which is then the page; gives the one before. */
async function openTab(): Promise<Page> {
  const before = page;
  page = await context.newPage();
  page.on('pageerror', (error) => errors.push(error.message));
  await open();
  return before;
}

async function file(name: string, bytes: number, seed = 1): Promise<{ path: string; digest: string }> {
  const piece = Buffer.from(Uint32Array.from({ length: MIB / 4 }, (_, n) => Math.imul(n + 1, 2654435761 * seed)).buffer);
  const pieces: Buffer[] = [];
  for (let left = bytes; left > 0; left -= piece.length) pieces.push(piece.subarray(0, Math.min(left, piece.length)));
  const path = join(folder, name);
  await writeFile(path, Buffer.concat(pieces));
  return { path, digest: toBase64(pieces.reduce((crc, piece) => crc32c(piece, crc), 0)) };
}

const pick = (path: string): Promise<void> => page.setInputFiles('#file', path);
const begin = (options: Plain = {}): Promise<void> => page.evaluate((options) => void globalThis.begin(options), options);
const outcome = () => page.evaluate(() => globalThis.outcome());
/** Pauses the upload as soon as storage has so much. */
const pauseAt = (bytes: number): Promise<unknown> => page.evaluate((bytes) => new Promise<void>((resolve) => {
  const check = ({ receivedBytes }: { receivedBytes: number }): void => {
    if (receivedBytes < bytes || globalThis.upload.state === 'paused') return;
    stop();
    globalThis.upload.pause();
    resolve();
  };
  const stop = globalThis.upload.on('progress', check);
  check(globalThis.upload.progress);
}), bytes);
const resume = (): Promise<void> => page.evaluate(() => globalThis.upload.resume());

const chunk = (action: unknown, more: object = {}) => ({ operation: 'chunk', action, ...more });
/** Without what Chromium sent again by itself: the very next request on the session, the same as the one that was cut. */
const withoutRepetitions = (journal: Entry[]): Entry[] => journal.filter((entry, n) => {
  const before = journal.slice(0, n).findLast(({ session }) => session === entry.session);
  return !(entry.operation === 'chunk' && before?.operation === 'chunk' && before.status === undefined && before.content_range === entry.content_range);
});

/** What the broker signs beside the type: `docs/storage.md`. */
const SIGNED = ['x-goog-content-length-range', 'x-goog-if-generation-match', 'x-goog-meta-upload-broker-id', 'x-goog-resumable', 'x-upload-content-length'];

const EIGHT = { bytes: 8 * MIB, maxBytes: 8 * MIB };

describe('an upload of 200 MiB', () => {
  it('completes although the network is cut three times, the session expires and the last answer is lost', async () => {
    const { path, digest } = await file('holiday.mp4', 200 * MIB);
    const workers: string[] = [];
    page.on('worker', (worker) => workers.push(new URL(worker.url()).pathname));
    await pick(path);
    // Twice each: when a connection that was used before is cut, Chromium repeats the request by itself.
    await world.faults(
      chunk({ kind: 'persist_then_reset', bytes: 3 * MIB + 17 }, { skip: 2, count: 2 }),
      chunk({ kind: 'kill_session' }, { skip: 3 }),
      chunk({ kind: 'act_then_reset' }, { skip: 6, count: 2 }),
      chunk({ kind: 'reset' }, { skip: 9, count: 2 }),
    );
    await begin({ chunk: EIGHT });
    await pauseAt(192 * MIB);
    await world.faults(chunk({ kind: 'act_then_reset' }, { count: 2 }));
    await resume();
    const ended = await outcome();
    expect([ended.code, ended.size, ended.crc32c]).toEqual([undefined, 200 * MIB, digest]);
    expect(ended.events).toContain('renewed');
    expect(ended.events.filter((event) => event === 'retry')).toHaveLength(4);
    const journal = await world.journal();
    expect(journal.filter(({ operation, status }) => operation === 'chunk' && status === undefined).length).toBeGreaterThanOrEqual(4);
    expect(journal.filter(({ operation, status }) => operation === 'chunk' && status === 503), 'gaps').toEqual([]);
    expect(wrongOffsets(withoutRepetitions(journal))).toEqual([]);
    expect(workers, 'digests are made off the page\'s thread').toEqual(['/dist/crc32c-worker.js']);
  });
});

describe('after a reload in the middle', () => {
  it('the same file is continued where storage stands', async () => {
    const { path, digest } = await file('holiday.mp4', 20 * MIB);
    await pick(path);
    await begin({ chunk: { bytes: 4 * MIB, maxBytes: 4 * MIB } });
    await pauseAt(8 * MIB);
    await open();
    const pending = await page.evaluate(() => globalThis.client.pendingUploads());
    expect(pending).toEqual([expect.objectContaining({ receivedBytes: 8 * MIB, fingerprint: expect.objectContaining({ name: 'holiday.mp4' }) })]);
    expect(JSON.stringify(pending)).not.toContain('upload_id');
    await world.forgetJournal();
    await pick(path);
    await begin();
    const ended = await outcome();
    expect([ended.code, ended.crc32c, ended.events[0]]).toEqual([undefined, digest, 'admitted again']);
    const [first] = (await world.journal()).filter(({ operation }) => operation === 'chunk');
    expect(first?.content_range).toMatch(/^bytes 8388608-/);
    expect(await page.evaluate(() => globalThis.client.pendingUploads())).toEqual([]);
  });

  it('the same file is continued although a chunk was on its way', async () => {
    const { path, digest } = await file('holiday.mp4', 20 * MIB);
    await world.faults(chunk({ kind: 'hold' }, { skip: 2 }));
    await pick(path);
    await begin({ chunk: { bytes: 4 * MIB, maxBytes: 4 * MIB } });
    await page.waitForFunction((bytes) => globalThis.upload.progress.receivedBytes === bytes, 8 * MIB);
    // The third chunk is sent, and its answer does not come.
    expect(await page.evaluate(() => globalThis.upload.state)).toBe('uploading');
    await open();
    await world.mend();
    await world.forgetJournal();
    await pick(path);
    await begin();
    const ended = await outcome();
    expect([ended.code, ended.crc32c, ended.events[0]]).toEqual([undefined, digest, 'admitted again']);
    const bytes = (await world.journal()).filter(({ operation }) => operation === 'chunk').map(({ content_range }) => Number(/^bytes (\d+)-/.exec(content_range ?? '')?.[1]));
    expect(Math.min(...bytes), 'what was confirmed is not sent again').toBeGreaterThanOrEqual(8 * MIB);
    expect(await page.evaluate(() => globalThis.client.pendingUploads())).toEqual([]);
  });

  it('another file of the same name begins anew, and the page says why', async () => {
    await pick((await file('holiday.mp4', 12 * MIB)).path);
    await begin({ chunk: { bytes: 4 * MIB, maxBytes: 4 * MIB } });
    await pauseAt(4 * MIB);
    await open();
    const { path, digest } = await file('holiday.mp4', 12 * MIB, 3);
    await pick(path);
    await begin();
    const ended = await outcome();
    expect([ended.code, ended.crc32c]).toEqual([undefined, digest]);
    expect(ended.events[0]).toBe('anew: other-file: a file of this name was being uploaded, but it had other content');
  });
});

it('what one tab is uploading is neither continued nor given up in another one, until that is closed', async () => {
  const { path, digest } = await file('holiday.mp4', 12 * MIB);
  await pick(path);
  await begin({ chunk: { bytes: 4 * MIB, maxBytes: 4 * MIB } });
  await pauseAt(4 * MIB);
  const first = await openTab();
  const isRunning = () => page.evaluate(async () => (await globalThis.client.pendingUploads()).map(({ isRunning }) => isRunning));
  expect(await isRunning()).toEqual([true]);
  const before = (await world.journal()).length;
  await pick(path);
  await begin();
  expect(await outcome()).toMatchObject({ code: 'in-use', events: ['failed'] });
  const discarded = await page.evaluate(async () => {
    const [record] = await globalThis.client.pendingUploads();
    return globalThis.client.discardUpload(record!, async () => (await fetch('/token')).text()).then(() => 'given up', ({ code }) => code as string);
  });
  expect(discarded).toBe('in-use');
  expect((await world.journal()).length, 'calls of storage').toBe(before);

  await first.close();
  await expect.poll(isRunning, { timeout: 20_000 }).toEqual([false]);
  await world.forgetJournal();
  await begin();
  const ended = await outcome();
  expect([ended.code, ended.crc32c, ended.events[0]]).toEqual([undefined, digest, 'admitted again']);
  const [chunk] = (await world.journal()).filter(({ operation }) => operation === 'chunk');
  expect(chunk?.content_range).toMatch(/^bytes 4194304-/);
});

it('a token that expires in the middle is replaced, and nobody notices', async () => {
  const { path, digest } = await file('a.mp4', 12 * MIB);
  seconds = [1];
  await world.faults(chunk({ kind: 'delay', for: '1500ms' }, { skip: 1 }));
  await pick(path);
  await begin({ chunk: { bytes: 4 * MIB, maxBytes: 4 * MIB } });
  const ended = await outcome();
  expect([ended.code, ended.crc32c]).toEqual([undefined, digest]);
  expect(ended.events).not.toContain('retry');
  expect(seconds).toEqual([]);
});

it('an upload waits while there is no network, and goes on as soon as there is', async () => {
  const { path, digest } = await file('a.mp4', 12 * MIB);
  await pick(path);
  // The pause alone would be longer than this test.
  await begin({ chunk: { bytes: 4 * MIB, maxBytes: 4 * MIB }, patience: { firstPauseMs: 500_000, longestPauseMs: 500_000 } });
  await pauseAt(4 * MIB);
  await context.setOffline(true);
  await resume();
  await page.waitForFunction(() => globalThis.upload.state === 'waiting');
  await context.setOffline(false);
  const ended = await outcome();
  expect([ended.code, ended.crc32c]).toEqual([undefined, digest]);
});

it('an upload begins at the next region when a load balancer says, without CORS, that the first one is away', async () => {
  const asked: string[] = [];
  const edge = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(503, { 'retry-after': '5' }).end('this region is away\n');
  });
  await new Promise<void>((resolve) => edge.listen(0, '127.0.0.1', resolve));
  try {
    const { path, digest } = await file('a.mp4', 1 * MIB);
    await pick(path);
    await begin({ broker: undefined, regions: [`http://127.0.0.1:${(edge.address() as AddressInfo).port}`, world.broker] });
    const ended = await outcome();
    expect([ended.code, ended.crc32c, ended.events]).toEqual([undefined, digest, ['admitted', 'completed']]);
    expect(asked, 'no token goes there').toEqual(['GET /v1/route']);
  } finally {
    edge.close();
  }
});

it('an origin that is not allowed gets no grant from the broker, and none from the session', async () => {
  const { path } = await file('a.mp4', 1 * MIB);
  // A session of the allowed origin, which the stranger has got hold of.
  const created = await page.evaluate(async () => {
    const token = await (await fetch('/token')).text();
    const answer = await fetch(`${globalThis.broker}/v1/uploads`, {
      method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify({ filename: 'a.mp4', size_bytes: 5 }),
    });
    return (await answer.json()) as client.BrokerUpload;
  });
  await open(stranger);
  await pick(path);
  await begin({ patience: { firstPauseMs: 1, longestPauseMs: 1, giveUpAfterMs: 2 } });
  expect((await outcome()).code).toBe('gave-up');
  const read = await page.evaluate(async (uri) => {
    const put = (headers: HeadersInit): Promise<number | string> =>
      fetch(uri, { method: 'PUT', body: 'hello', headers }).then(({ status }) => status, (error: Error) => error.name);
    return [await put({ 'content-range': 'bytes 0-4/5' }), await put({})];
  }, created.transfer!.uri);
  expect(read).toEqual(['TypeError', 'TypeError']);
  // What the page was not let see, header by header: no grant to the stranger, and one to the page's own origin.
  const granted = async (url: string, method: string, headers: Record<string, string>): Promise<string | undefined> =>
    (await context.request.fetch(url, { method, headers, maxRedirects: 0 })).headers()['access-control-allow-origin'];
  const preflight = (origin: string): Promise<string | undefined> =>
    granted(`${world.broker}/v1/uploads`, 'OPTIONS', { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' });
  const question = (origin: string): Promise<string | undefined> => granted(created.transfer!.uri, 'PUT', { origin, 'content-range': 'bytes */5' });
  expect([await preflight(stranger.origin), await preflight(site.origin)]).toEqual([undefined, site.origin]);
  // Storage names the origin that the session was created for, whoever asks.
  expect([await question(stranger.origin), await question(site.origin)]).toEqual([site.origin, site.origin]);
  expect((await world.journal()).filter(({ origin, operation }) => origin === stranger.origin && operation === 'initiate')).toEqual([]);
});

it.each(['simple', 'signed_resumable'] as const)('%s goes to a bucket whose CORS is as documented', async (transfer) => {
  const { path, digest } = await file('a.mp4', 5 * MIB);
  const cors = [{
    origin: [site.origin], method: ['PUT', 'POST'], maxAgeSeconds: 60,
    responseHeader: ['Content-Type', 'Content-Range', 'Range', 'Location', 'X-Goog-Hash', ...SIGNED],
  }];
  const patched = await fetch(`${world.storage}/storage/v1/b/media-eu`, {
    method: 'PATCH', headers: { authorization: 'Bearer x', 'content-type': 'application/json' }, body: JSON.stringify({ cors }),
  });
  expect(patched.status).toBe(200);
  await pick(path);
  await begin({ transfer, chunk: { bytes: 2 * MIB, maxBytes: 2 * MIB } });
  const ended = await outcome();
  expect([ended.code, ended.crc32c, ended.events]).toEqual([undefined, digest, ['admitted', 'completed']]);
});

it('the memory of the page stays flat over 1.5 GiB of a file of 4 GiB', async () => {
  const cdp = await context.newCDPSession(page);
  await cdp.send('Performance.enable');
  const { processInfo } = await (await browser.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
  const renderers = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id);
  /** In bytes: the heap of the page, and what its process has, buffers outside of the heap included. */
  const memory = async (): Promise<{ heap: number; process: number }> => {
    await cdp.send('HeapProfiler.collectGarbage');
    const { metrics } = await cdp.send('Performance.getMetrics');
    const resident = renderers.map((id) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, 'utf8'))?.[1]) * 1024);
    return { heap: metrics.find(({ name }) => name === 'JSHeapUsedSize')!.value, process: Math.max(...resident) };
  };
  const before = await memory();
  const path = join(folder, 'huge.mp4');
  // Sparse: its bytes are read from a disk, but take none.
  await writeFile(path, '');
  await truncate(path, 4096 * MIB);
  await pick(path);
  await begin();
  const process: number[] = [];
  for (let mib = 128; mib <= 1536; mib += 128) {
    await page.waitForFunction((bytes) => globalThis.upload.progress.receivedBytes >= bytes, mib * MIB, { timeout: 120_000 });
    const now = await memory();
    expect(now.heap - before.heap, `heap after ${mib} MiB`).toBeLessThan(8 * MIB);
    // The worker's buffers wait for its own collector: some hundreds of MiB at times, however much was sent.
    expect(now.process - before.process, `process after ${mib} MiB`).toBeLessThan(384 * MIB);
    process.push(now.process);
  }
  // Six marks each, 768 MiB apart: what was kept of the file would lie between them.
  const [early, late] = [Math.min(...process.slice(0, 6)), Math.min(...process.slice(6))];
  expect(late - early, 'the least of the second half against that of the first').toBeLessThan(64 * MIB);
  expect(await page.evaluate(() => globalThis.upload.progress.totalBytes)).toBe(4096 * MIB);
  await page.evaluate(() => globalThis.upload.cancel());
  expect((await outcome()).code).toBe('cancelled');
}, 300_000);

describe('a file that changes on disk ends in a typed error', () => {
  it.each(['grows', 'vanishes'])('when it %s', async (how) => {
    const { path } = await file('changing.mp4', 12 * MIB);
    await pick(path);
    await begin({ chunk: { bytes: 4 * MIB, maxBytes: 4 * MIB } });
    await pauseAt(4 * MIB);
    await (how === 'grows' ? appendFile(path, 'more') : rm(path));
    await resume();
    const { code } = await outcome();
    expect(['source-changed', 'source-unreadable']).toContain(code);
    expect((await world.journal()).some(({ operation, status }) => operation === 'cancel' && status === 499)).toBe(true);
  });
});
