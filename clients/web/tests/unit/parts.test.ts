import { createHash } from 'node:crypto';
import { describe, expect, it, vi } from 'vitest';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { crc32c, crc32cOf, toBase64 } from '../../src/crc32c.js';
import { Control } from '../../src/control.js';
import { retryAfterMs } from '../../src/broker.js';
import { problemError } from '../../src/errors.js';
import { Speed } from '../../src/events.js';
import { persistedBytes } from '../../src/machine.js';
import { answerWithin, ChunkSizer, PATIENCE, Pace } from '../../src/pace.js';
import { nearest } from '../../src/route.js';

const MIB = 1024 * 1024;
const UNIT = 256 * 1024;

describe('CRC32C', () => {
  it.each([
    ['', 'AAAAAA=='], ['hello', 'mnG7TA=='], ['hello world', 'yZRlqg=='], ['123456789', '4waSgw=='],
  ])('of %j is %s', (text, digest) => {
    expect(toBase64(crc32c(new TextEncoder().encode(text)))).toBe(digest);
  });

  it('is the same however the bytes are cut', async () => {
    const bytes = Uint8Array.from({ length: 100_003 }, (_, n) => (n * 2654435761) >>> 13);
    const whole = crc32c(bytes);
    // Bit by bit, as the polynomial is defined.
    let simple = ~0;
    for (const byte of bytes) {
      simple ^= byte;
      for (let bit = 0; bit < 8; bit++) simple = simple & 1 ? (simple >>> 1) ^ 0x82f63b78 : simple >>> 1;
    }
    expect(whole).toBe(~simple >>> 0);
    for (const cut of [0, 1, 7, 8, 9, 50_000, 100_002, 100_003]) {
      expect(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut))), `cut at ${cut}`).toBe(whole);
    }
    expect(await crc32cOf(new Blob([bytes]))).toBe(whole);
  });

  it('tells contents apart', () => {
    const seen = new Set(Array.from({ length: 1000 }, (_, n) => crc32c(createHash('sha256').update(String(n)).digest())));
    expect(seen.size).toBe(1000);
  });
});

describe('Range', () => {
  it.each<[string | null, number | undefined]>([
    [null, 0], ['bytes=0-0', 1], ['bytes=0-262143', UNIT], ['bytes=0-5497558138879', 5497558138880],
    ['bytes=1-5', undefined], ['bytes=0-', undefined], ['0-5', undefined], ['bytes=0-5,7-9', undefined], ['bytes=0--1', undefined], ['', undefined],
  ])('%j means %s bytes', (range, bytes) => expect(persistedBytes(range)).toBe(bytes));
});

describe('pauses', () => {
  const pauses = (random: number, n: number): (number | undefined)[] => {
    const pace = new Pace(PATIENCE, () => random);
    return Array.from({ length: n }, () => pace.next());
  };

  it('double up to the longest, with jitter of up to the first', () => {
    expect(pauses(0, 7)).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 32_000]);
    expect(pauses(0.5, 3)).toEqual([1500, 2500, 4500]);
  });

  it('end when nothing is gained for too long, and begin again when something is', () => {
    expect(pauses(0, 100).findIndex((pause) => pause === undefined)).toBe(22);
    const pace = new Pace(PATIENCE, () => 0);
    for (let n = 0; n < 20; n++) pace.next();
    pace.progressed();
    expect(pace.next()).toBe(1000);
  });

  it('are as long as the server asks, unless that is beyond all patience', () => {
    const pace = new Pace(PATIENCE, () => 0);
    expect(pace.next(120_000)).toBe(120_000);
    expect(pace.next(1)).toBe(2000);
    expect(pace.next(3_600_000)).toBeUndefined();
  });
});

it.each<[string, number, number | undefined, number]>([
  ['nothing but an answer', 0, undefined, 60],
  ['a first chunk', 8, undefined, 60 + 128],
  ['a chunk on a fast network', 64, 8 * MIB, 60 + 32],
  ['a chunk on a slow network', 1, 128 * 1024, 60 + 32],
  ['a chunk on the slowest that is waited for', 1, 1024, 60 + 64],
])('a request has time by what was measured: %s', (_, mib, speed, seconds) => {
  expect(answerWithin(PATIENCE, mib * MIB, speed)).toBe(seconds * 1000);
});

describe('chunks', () => {
  const advice = { chunk_bytes: 8 * MIB, chunk_multiple_bytes: UNIT };

  it('begin as advised, grow with a fast network and shrink with a slow one', () => {
    const sizer = new ChunkSizer(advice, {});
    const sizes = [100, 100, 100, 100].map((ms) => {
      sizer.sent(sizer.bytes, ms);
      return sizer.bytes / MIB;
    });
    expect(sizes, 'doubled, up to 64 MiB').toEqual([16, 32, 64, 64]);
    sizer.sent(sizer.bytes, 64_000);
    expect(sizer.bytes / MIB, 'halved at most').toBe(32);
    sizer.sent(sizer.bytes, 16_000);
    expect(sizer.bytes / MIB).toBe(16);
    sizer.failed();
    expect(sizer.bytes / MIB).toBe(8);
    for (let n = 0; n < 20; n++) sizer.failed();
    expect(sizer.bytes).toBe(UNIT);
  });

  it('are multiples of what storage takes, within the bounds that are wanted', () => {
    const sizer = new ChunkSizer(advice, { bytes: 3 * MIB + 5, minBytes: MIB + 7, maxBytes: 4 * MIB });
    expect(sizer.bytes).toBe(3 * MIB);
    sizer.sent(sizer.bytes, 1);
    expect(sizer.bytes).toBe(4 * MIB);
    for (let n = 0; n < 9; n++) sizer.failed();
    expect(sizer.bytes).toBe(MIB);
    for (const [seconds, size] of [[7, 3.25], [5.5, 4.25]] as const) {
      const sizer = new ChunkSizer(advice, { bytes: 3 * MIB });
      sizer.sent(sizer.bytes, seconds * 1000);
      expect(sizer.bytes % UNIT).toBe(0);
      expect(sizer.bytes / MIB, `${seconds} s`).toBe(size);
    }
  });

  it('are not judged by a short last one', () => {
    const sizer = new ChunkSizer(advice, {});
    sizer.sent(5, 10_000);
    expect(sizer.bytes).toBe(8 * MIB);
  });
});

it('Retry-After is seconds or a date', () => {
  const read = (value: string): number | undefined => retryAfterMs(new Headers({ 'retry-after': value }), Date.parse('2026-11-22T10:00:00Z'));
  expect([read('3'), read('Sun, 22 Nov 2026 10:00:05 GMT'), read('soon'), read('-1'), read('0')]).toEqual([3000, 5000, undefined, undefined, undefined]);
});

it('an error carries the problem document', () => {
  const problem = { type: 'urn:x', title: 'T', status: 400, detail: 'D', code: 'invalid-request', request_id: 'r', errors: [{ pointer: '/filename', detail: 'no' }] };
  const error = problemError(400, problem);
  expect({ ...error }).toMatchObject({ code: 'invalid-request', status: 400, detail: 'D', retryable: false, errors: problem.errors, requestId: 'r', problem });
  expect(error.message).toBe('D (invalid-request)');
});

it('a part that was read is kept by nobody, however long the upload may still be cancelled', async () => {
  setFlagsFromString('--expose_gc');
  const collect = runInNewContext('gc') as () => void;
  const control = new Control(PATIENCE);
  const read = async (): Promise<WeakRef<object>> => new WeakRef(await control.unlessCancelled(Promise.resolve({ body: 'many bytes' })));
  const part = await read();
  await new Promise((resolve) => setTimeout(resolve));
  collect();
  expect(part.deref()).toBeUndefined();
});

it('speed is smoothed', () => {
  const speed = new Speed();
  expect(speed.bytesPerSecond).toBeUndefined();
  speed.measured(1000, 1000);
  expect(speed.bytesPerSecond).toBe(1000);
  speed.measured(3000, 1000);
  expect(speed.bytesPerSecond).toBeGreaterThan(1100);
  expect(speed.bytesPerSecond).toBeLessThan(1300);
});

describe('the nearest region', () => {
  const regions = ['https://eu.example/', 'https://us.example'];
  const route = (urls: unknown[]) => new Response(JSON.stringify({ regions: urls.map((url) => ({ name: 'x', url })) }));
  const ask = (answers: Record<string, () => Response>) => nearest(regions, async (url) => {
    const answer = answers[new URL(url).hostname];
    if (!answer) throw new TypeError('Failed to fetch');
    return answer();
  }, new AbortController().signal);

  it.each<[string, Record<string, () => Response>, string]>([
    ['is what the broker says', { 'eu.example': () => route(['https://us.example/', 'https://eu.example']) }, 'https://us.example'],
    ['is asked of another when one is away', { 'us.example': () => route(['https://us.example']) }, 'https://us.example'],
    ['is asked of another when one is in trouble', { 'eu.example': () => new Response('', { status: 503 }), 'us.example': () => route([]) }, 'https://us.example'],
    ['is the one that has no such endpoint', { 'eu.example': () => new Response('', { status: 404 }) }, 'https://eu.example'],
    ['is never one that was not named', { 'eu.example': () => route(['https://evil.example', 7, null]) }, 'https://eu.example'],
    ['is the first one when none answers', {}, 'https://eu.example'],
    ['is none that was just seen to fail', { 'us.example': () => route(['https://eu.example', 'https://us.example']) }, 'https://us.example'],
  ])('%s', async (_, answers, expected) => expect(await ask(answers)).toBe(expected));

  it('is asked of another when one says nothing at all', async () => {
    const silent = (signal: AbortSignal) => new Promise<Response>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    const fetch = (url: string, { signal }: RequestInit) => (url.includes('eu.') ? silent(signal!) : Promise.resolve(route(['https://eu.example', 'https://us.example'])));
    vi.useFakeTimers();
    try {
      const found = nearest(regions, fetch, new AbortController().signal);
      await vi.advanceTimersByTimeAsync(5000);
      expect(await found).toBe('https://us.example');
    } finally {
      vi.useRealTimers();
    }
  });

  it('is one of which nothing is known when time is up', async () => {
    const controller = new AbortController();
    const found = nearest(regions, async (url) => {
      if (url.includes('us.')) controller.abort();
      throw new TypeError('Failed to fetch');
    }, controller.signal);
    expect(await found).toBe('https://us.example');
  });
});
