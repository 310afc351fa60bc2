import { describe, expect, it, vi } from 'vitest';
import { createUpload, memoryStore, UploadBrokerError } from '../../src/index.js';
import type { UploadEvent, UploadOptions } from '../../src/index.js';
import {
  admitted, ASK, BEGIN, CANCEL, chunk, COMPLETE, completed, CREATE, digestOf, END, file, FIND, found, ID, LAST,
  LOOK, lost, persisted, play, problem, QUICK, RENEW, silent, SIZE, status, stored, transfer, UNIT, upload,
} from './script.js';
import type { Answer, Step } from './script.js';

describe('the rules of storage', () => {
  // Each of these happens to the second chunk; the upload completes all the same.
  const cases: [string, Step[]][] = [
    ['nothing goes wrong', [[chunk(1), persisted(2 * UNIT)]]],
    ['the connection is lost, and the chunk with it', [[chunk(1), lost], [ASK, persisted(UNIT)], [chunk(1), persisted(2 * UNIT)]]],
    ['the connection is lost, and only the answer with it', [[chunk(1), lost], [ASK, persisted(2 * UNIT)]]],
    ['storage asks for a pause', [[chunk(1), status(503)], [ASK, persisted(UNIT)], [chunk(1), persisted(2 * UNIT)]]],
    ['the question is lost as well', [[chunk(1), status(429)], [ASK, status(500)], [ASK, lost], [ASK, persisted(UNIT)], [chunk(1), persisted(2 * UNIT)]]],
    ['a request takes too long', [[chunk(1), status(408)], [ASK, persisted(2 * UNIT)]]],
    ['a chunk is persisted in part', [[chunk(1), persisted(UNIT + 7)], [`PUT bytes ${UNIT + 7}-${2 * UNIT + 6}/${SIZE}`, persisted(2 * UNIT)]]],
    ['nothing of a chunk is persisted', [[chunk(1), persisted(UNIT)], [ASK, persisted(UNIT)], [chunk(1), persisted(2 * UNIT)]]],
    ['no Range, and a second look shows one', [[chunk(1), persisted(0)], [ASK, persisted(2 * UNIT)]]],
    ['no Range, again and again: from zero', [
      [chunk(1), persisted(0)], [ASK, persisted(0)], [ASK, persisted(0)], [chunk(0), persisted(UNIT)], [chunk(1), persisted(2 * UNIT)],
    ]],
    ['storage has more than was known', [[chunk(1), lost], [ASK, persisted(UNIT + UNIT)]]],
    ['a Range that cannot be', [[chunk(1), () => new Response(null, { status: 308, headers: { range: 'bytes=5-9' } })], [ASK, persisted(2 * UNIT)]]],
    ['a Range beyond the end', [[chunk(1), persisted(SIZE + 1)], [ASK, persisted(2 * UNIT)]]],
    ['the session is gone: 404', [[chunk(1), status(404)], [RENEW, found()], [chunk(0), persisted(UNIT)], [chunk(1), persisted(2 * UNIT)]]],
    ['the session is gone: 410, and renewing takes two attempts', [
      [chunk(1), status(410)], [RENEW, problem(503, 'storage-unavailable')], [RENEW, found()], [chunk(0), persisted(UNIT)], [chunk(1), persisted(2 * UNIT)],
    ]],
  ];
  it.each(cases)('complete the upload: %s', async (_, steps) => {
    const { error, upload } = await play(file(SIZE), [...BEGIN, ...steps, ...END]);
    expect(error).toBeUndefined();
    expect(upload.state).toBe('completed');
    expect(upload.progress.receivedBytes).toBe(SIZE);
  });

  const ends: [string, Step[]][] = [
    ['the last answer is lost', [[LAST, lost], [ASK, stored]]],
    ['the last bytes are lost', [[LAST, lost], [ASK, persisted(3 * UNIT)], [LAST, stored]]],
    ['all bytes are there, and no object', [[LAST, persisted(SIZE)], [ASK, stored]]],
    ['storage says that it is there already: 412', [[LAST, status(412)]]],
    ['the broker sees less than storage said', [
      [LAST, stored], [COMPLETE, problem(409, 'not-complete', { received_bytes: 3 * UNIT })], [LAST, stored],
    ]],
    ['the broker sees everything, but no object', [[LAST, stored], [COMPLETE, problem(409, 'not-complete', { received_bytes: SIZE })], [ASK, stored]]],
    ['the broker is away for a while', [[LAST, stored], [COMPLETE, lost], [COMPLETE, problem(503, 'store-unavailable')]]],
    ['the broker does not know the session any more', [
      [LAST, stored], [COMPLETE, problem(409, 'session-lost')], [RENEW, found()],
      [chunk(0), persisted(UNIT)], [chunk(1), persisted(2 * UNIT)], [chunk(2), persisted(3 * UNIT)], [LAST, stored],
    ]],
  ];
  it.each(ends)('complete the upload at its end: %s', async (_, steps) => {
    const all: Step[] = [...BEGIN, [chunk(1), persisted(2 * UNIT)], [chunk(2), persisted(3 * UNIT)], ...steps, [COMPLETE, completed(SIZE)]];
    const { error } = await play(file(SIZE), all);
    expect(error).toBeUndefined();
  });

  it('send the digest with the last bytes, and with no others', async () => {
    const { script } = await play(file(SIZE), [...BEGIN, [chunk(1), persisted(2 * UNIT)], ...END]);
    const hashes = script.seen.map(({ headers }) => headers.get('x-goog-hash'));
    expect(hashes).toEqual([null, null, null, null, `crc32c=${digestOf(SIZE)}`, null]);
  });

  it('take an empty file in one request without a range', async () => {
    const { error, script } = await play(file(0), [[CREATE, admitted()], ['PUT all', stored], [COMPLETE, completed(0, 'AAAAAA==')]]);
    expect(error).toBeUndefined();
    expect(script.seen[1]!.headers.get('x-goog-hash')).toBe('crc32c=AAAAAA==');
  });

  it('finish an empty file whose answer was lost by asking', async () => {
    const { error } = await play(file(0), [[CREATE, admitted()], ['PUT all', lost], ['PUT bytes */0', stored], [COMPLETE, completed(0)]]);
    expect(error).toBeUndefined();
  });

  it('give up a session that is lost again and again', async () => {
    const again: Step[] = Array.from({ length: 5 }, (): Step[] => [[RENEW, found()], ['PUT bytes 0-4/5', status(410)]]).flat();
    const { error } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', status(410)], ...again]);
    expect(error?.code).toBe('session-lost-again');
    expect(error?.retryable).toBe(true);
  });

  it('count a session as lost once, however often its renewal is tried', async () => {
    const tries: Step[] = Array.from({ length: 8 }, (): Step => [RENEW, problem(503, 'storage-unavailable')]);
    const { error } = await play(file(5), [
      [CREATE, admitted()], ['PUT bytes 0-4/5', status(410)], ...tries, [RENEW, found()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)],
    ]);
    expect(error).toBeUndefined();
  });

  it('give up with an error that can be retried when nothing is gained for too long', async () => {
    const { error, upload } = await play(file(5), [[CREATE, lost], [CREATE, lost], [CREATE, lost]], { patience: { firstPauseMs: 1, longestPauseMs: 1, giveUpAfterMs: 2 } });
    expect(error?.code).toBe('gave-up');
    expect(error?.retryable).toBe(true);
    expect(error?.detail).toContain('https://broker.example');
    expect(upload.state).toBe('failed');
  });

  it('tell what storage refused, and give the upload back', async () => {
    const { error } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', status(403)], [CANCEL, found({ state: 'cancelled', transfer: undefined })]]);
    expect(error?.code).toBe('storage-refused');
    expect(error?.status).toBe(403);
  });
});

describe('creating', () => {
  const rest: Step[] = [['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)]];

  it('repeats with the same key and body until it is answered', async () => {
    const { error, script } = await play(file(5), [
      [CREATE, lost], [CREATE, problem(409, 'idempotency-in-progress')], [CREATE, problem(429, 'rate-limited')], [CREATE, admitted()], ...rest,
    ]);
    expect(error).toBeUndefined();
    const keys = new Set(script.seen.slice(0, 4).map(({ headers }) => headers.get('idempotency-key')));
    expect(keys.size).toBe(1);
    expect([...keys][0]).toMatch(/^[0-9a-f]{32}$/);
    expect(new Set(script.seen.slice(0, 4).map(({ body }) => body)).size).toBe(1);
  });

  it('asks where to go on when the broker says that it is a replay', async () => {
    const replay = async () => new Response(JSON.stringify(upload()), { status: 201, headers: { 'idempotent-replayed': 'true' } });
    const { error } = await play(file(5), [[CREATE, lost], [CREATE, replay], ['PUT bytes */5', persisted(2)], ['PUT bytes 2-4/5', stored], [COMPLETE, completed(5)]]);
    expect(error).toBeUndefined();
  });

  it('says what the file is', async () => {
    const { script } = await play(file(5), [[CREATE, admitted()], ...rest], { policy: 'videos', metadata: { album: 'summer' } });
    expect(JSON.parse(script.seen[0]!.body)).toEqual({ policy: 'videos', filename: 'holiday.mp4', content_type: 'video/mp4', size_bytes: 5, metadata: { album: 'summer' } });
    expect(script.seen[0]!.headers.get('authorization')).toBe('Bearer token');
    expect(script.seen[1]!.headers.get('authorization'), 'storage gets no token').toBeNull();
    expect(script.seen[1]!.headers.get('content-type')).toBe('video/mp4');
  });

  it('declares the digest where that is wanted', async () => {
    const { script } = await play(file(5), [[CREATE, admitted()], ...rest], { digest: 'declare' });
    expect(JSON.parse(script.seen[0]!.body).crc32c).toBe(digestOf(5));
  });

  it('declares it where the policy asks for it, under another key', async () => {
    const asks = problem(422, 'policy-violation', { violations: [{ limit: 'digest', allowed: 'md5, crc32c or both', given: 'none' }] });
    const { script, error } = await play(file(5), [[CREATE, asks], [CREATE, admitted()], ...rest]);
    expect(error).toBeUndefined();
    expect(JSON.parse(script.seen[1]!.body).crc32c).toBe(digestOf(5));
    expect(script.seen[1]!.headers.get('idempotency-key')).not.toBe(script.seen[0]!.headers.get('idempotency-key'));
  });

  it('leaves it out where the policy forbids it', async () => {
    const forbids = problem(422, 'policy-violation', { violations: [{ limit: 'digest', allowed: 'none', given: 'crc32c' }] });
    const { script, error } = await play(file(5), [[CREATE, forbids], [CREATE, admitted()], ...rest], { digest: 'declare' });
    expect(error).toBeUndefined();
    expect(JSON.parse(script.seen[1]!.body)).not.toHaveProperty('crc32c');
  });

  it.each([
    ['a denied policy', problem(403, 'policy-denied'), 'policy-denied', false],
    ['an exhausted quota', problem(429, 'quota-exceeded', { limit: 'daily_bytes' }, { 'retry-after': '3600' }), 'quota-exceeded', true],
    ['a file that is too large', problem(422, 'policy-violation', { violations: [{ limit: 'max_size', allowed: '4', given: '5' }] }), 'policy-violation', false],
    ['a page instead of an answer', () => new Response('<!DOCTYPE html>', { status: 404 }), 'unexpected-answer', false],
  ])('ends in a typed error: %s', async (_, answer, code, retryable) => {
    const { error } = await play(file(5), [[CREATE, answer]]);
    expect(error).toBeInstanceOf(UploadBrokerError);
    expect([error?.code, error?.retryable]).toEqual([code, retryable]);
    if (code === 'quota-exceeded') expect([error?.problem?.limit, error?.retryAfterMs, error?.requestId]).toEqual(['daily_bytes', 3_600_000, 'r1']);
    if (code === 'policy-violation') expect(error?.violations).toEqual([{ limit: 'max_size', allowed: '4', given: '5' }]);
  });

  it.each([
    ['a slash', 'a/b'], ['a backslash', 'a\\b'], ['a line break', 'a\nb'], ['nothing', ''], ['half a character', 'a\ud800'],
    ['256 bytes', 'é'.repeat(128)], ['a delete', 'a\u007f'],
  ])('refuses a name before anything is sent: %s', async (_, name) => {
    const { error } = await play(file(5, 'x'), [], { name });
    expect(error?.code).toBe('invalid-name');
  });

  it.each(['Ferien ☀.mp4', 'e\u0301te\u0301', '..', 'مرحبا', '👩‍👩‍👧', '\u202Egpj.exe', 'é'.repeat(127)])('takes any other name: %s', async (name) => {
    const { error, script } = await play(file(5, name), [[CREATE, admitted()], ...rest]);
    expect(error).toBeUndefined();
    expect(JSON.parse(script.seen[0]!.body).filename).toBe(name);
  });
});

describe('tokens', () => {
  const denied = problem(401, 'unauthenticated');

  it('are asked for once, and again after a 401', async () => {
    const token = vi.fn(async () => `token-${token.mock.calls.length}`);
    const { error, script } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, denied], [COMPLETE, completed(5)]], { token });
    expect(error).toBeUndefined();
    expect(script.seen.filter(({ line }) => line !== 'PUT bytes 0-4/5').map(({ headers }) => headers.get('authorization')))
      .toEqual(['Bearer token-1', 'Bearer token-1', 'Bearer token-2']);
  });

  it('are not asked for a third time when the second is refused as well', async () => {
    const token = vi.fn(async () => 'same');
    const { error } = await play(file(5), [[CREATE, denied], [CREATE, denied]], { token });
    expect([error?.code, error?.status, error?.retryable]).toEqual(['unauthenticated', 401, true]);
    expect(token).toHaveBeenCalledTimes(2);
  });

  it('are asked for once by many uploads', async () => {
    let give = (_: string): void => {};
    const token = vi.fn(() => new Promise<string>((resolve) => (give = resolve)));
    const steps: Step[] = [[CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)]];
    const runs = [1, 2, 3].map(() => play(file(5), steps, { token }));
    await vi.waitFor(() => expect(token).toHaveBeenCalled());
    await new Promise((resolve) => setTimeout(resolve));
    give('token');
    for (const { error } of await Promise.all(runs)) expect(error).toBeUndefined();
    expect(token).toHaveBeenCalledTimes(1);
  });

  it('that do not come fail the upload after a few attempts', async () => {
    const token = vi.fn(async () => Promise.reject(new Error('signed out')));
    const { error } = await play(file(5), [], { token });
    expect([error?.code, error?.retryable, (error?.cause as Error).message]).toEqual(['token-unavailable', true, 'signed out']);
    expect(token).toHaveBeenCalledTimes(3);
  });
});

describe('signed URLs', () => {
  const SIGNED = 'https://storage.example/b/o?as=all';
  const simple = admitted(transfer({ kind: 'simple', uri: SIGNED, headers: { 'content-type': 'video/mp4', 'x-goog-if-generation-match': '0' } }));
  const start = transfer({ kind: 'signed_resumable', method: 'POST', uri: 'https://storage.example/b/o?as=start', headers: { 'x-goog-resumable': 'start' } });
  const opened = status(201, { location: 'https://storage.example/b/o?upload_id=2' });
  const PUT = 'PUT all';

  it.each<[string, Step[]]>([
    ['nothing goes wrong', [[PUT, stored]]],
    ['the answer is lost, and the object there', [[PUT, lost]]],
    ['the answer is lost, and no object there', [[PUT, lost], [COMPLETE, problem(409, 'not-complete', { received_bytes: 0 })], [PUT, stored]]],
    ['storage is busy', [[PUT, status(503)], [COMPLETE, problem(409, 'not-complete', { received_bytes: 0 })], [PUT, stored]]],
    ['it is there already', [[PUT, status(412)]]],
    ['the URL has ended', [[PUT, status(400)], [COMPLETE, problem(409, 'session-lost')], [RENEW, found(transfer({ kind: 'simple', uri: SIGNED }))], [PUT, stored]]],
    ['the URL has ended by storage\'s clock', [
      [PUT, status(403)], [COMPLETE, problem(409, 'not-complete', { received_bytes: 0 })], [RENEW, found(transfer({ kind: 'simple', uri: SIGNED }))], [PUT, stored],
    ]],
  ])('carry everything at once: %s', async (_, steps) => {
    const { error, script } = await play(file(SIZE), [[CREATE, simple], ...steps, [COMPLETE, completed(SIZE, digestOf(SIZE))]], { transfer: 'simple' });
    expect(error).toBeUndefined();
    expect(JSON.parse(script.seen[0]!.body).transfer_kind).toBe('simple');
    const headers = Object.fromEntries(script.seen[1]!.headers);
    expect(headers, 'exactly those that were signed').toEqual({ 'content-type': 'video/mp4', 'x-goog-if-generation-match': '0' });
  });

  it('are not tried a third time', async () => {
    const refused: Step[] = [[PUT, status(403)], [COMPLETE, problem(409, 'not-complete', { received_bytes: 0 })]];
    const { error } = await play(file(5), [
      [CREATE, simple], ...refused, [RENEW, found(transfer({ kind: 'simple', uri: SIGNED }))], ...refused, [CANCEL, found({ state: 'cancelled', transfer: undefined })],
    ], { transfer: 'simple' });
    expect([error?.code, error?.status]).toEqual(['storage-refused', 403]);
  });

  /** Answers with the same as long as it is asked, so that only the client can end it; the hundredth time fails the test. */
  const always = async (answers: Record<string, Answer>, options: Partial<UploadOptions>) => {
    const lines: string[] = [];
    const upload = createUpload(file(SIZE), {
      broker: 'https://broker.example', token: () => 't', store: memoryStore(), patience: QUICK, ...options,
      fetch: async (url, init) => {
        const { origin, pathname, searchParams } = new URL(url);
        const line = `${init.method} ${origin === 'https://broker.example' ? pathname : (searchParams.get('as') ?? 'session')}`;
        if (lines.push(line) === 100) await upload.cancel();
        return answers[line]!(undefined as never);
      },
    });
    const error = await upload.done.then(() => undefined, (error: UploadBrokerError) => error);
    return { lines, error };
  };
  const nothing = problem(409, 'not-complete', { received_bytes: 0 });

  it('are not used again when the object is taken away as soon as it is there: all at once', async () => {
    const { lines, error } = await always({ [CREATE]: simple, 'PUT all': stored, [COMPLETE]: nothing }, { transfer: 'simple' });
    expect([error?.code, error?.retryable, (error?.cause as UploadBrokerError).code]).toEqual(['gave-up', true, 'not-complete']);
    expect(lines.filter((line) => line === PUT)).toHaveLength(1);
    expect(lines.filter((line) => line === COMPLETE).length).toBeGreaterThan(3);
  });

  it('are not used again when the object is taken away as soon as it is there: a session', async () => {
    const { lines, error } = await always({ [CREATE]: admitted(start), 'POST start': opened, 'PUT session': stored, [COMPLETE]: nothing }, { transfer: 'signed_resumable' });
    expect([error?.code, error?.retryable]).toEqual(['gave-up', true]);
    expect(lines.filter((line) => line === 'POST start')).toHaveLength(1);
  });

  it.each<[string, Step[]]>([
    ['nothing goes wrong', [['POST start', opened]]],
    ['the start is repeated', [['POST start', lost], ['POST start', status(503)], ['POST start', opened]]],
    ['the URL has ended', [['POST start', status(400)], [COMPLETE, problem(409, 'session-lost')], [RENEW, found(start)], ['POST start', opened]]],
  ])('open a session: %s', async (_, steps) => {
    const { error, script } = await play(file(SIZE), [
      [CREATE, admitted(start)], ...steps, [chunk(0), persisted(UNIT)], [chunk(1), lost], [ASK, persisted(2 * UNIT)], ...END,
    ], { transfer: 'signed_resumable' });
    expect(error).toBeUndefined();
    const sent = script.seen.find(({ line }) => line === chunk(0))!;
    expect([sent.url, sent.headers.has('content-type')]).toEqual(['https://storage.example/b/o?upload_id=2', false]);
  });
});

describe('streams', () => {
  const stream = (bytes: number, fails = false): ReadableStream<Uint8Array> => {
    let left = bytes;
    return new ReadableStream({
      pull(controller) {
        const piece = Math.min(left, 100_000);
        left -= piece;
        if (piece > 0) controller.enqueue(new Uint8Array(piece).fill(7));
        else if (fails) controller.error(new Error('the camera was unplugged'));
        else controller.close();
      },
    });
  };
  const named = { name: 'live.mp4' };
  const open = (n: number): string => `PUT bytes ${n * UNIT}-${(n + 1) * UNIT - 1}/*`;

  it.each<[string, number, Step[]]>([
    ['that end within a chunk', SIZE, [[open(0), persisted(UNIT)], [open(1), persisted(2 * UNIT)], [open(2), persisted(3 * UNIT)], [LAST, stored]]],
    ['that end on the border of a chunk', UNIT, [[`PUT bytes 0-${UNIT - 1}/${UNIT}`, stored]]],
    ['whose end storage does not take at once', UNIT, [[`PUT bytes 0-${UNIT - 1}/${UNIT}`, persisted(UNIT)], [`PUT bytes */${UNIT}`, stored]]],
    ['that are empty', 0, [['PUT all', stored]]],
    ['of which a part was persisted', UNIT + 1, [[open(0), persisted(9)], [`PUT bytes 9-${UNIT}/${UNIT + 1}`, stored]]],
    ['whose chunk is lost', UNIT + 1, [[open(0), lost], ['PUT bytes */*', persisted(0)], [open(0), persisted(UNIT)], [`PUT bytes ${UNIT}-${UNIT}/${UNIT + 1}`, stored]]],
  ])('are sent as they come: %s', async (_, bytes, steps) => {
    const { error, script } = await play(stream(bytes), [[CREATE, admitted()], ...steps, [COMPLETE, completed(bytes, digestOf(bytes))]], named);
    expect(error).toBeUndefined();
    expect(JSON.parse(script.seen[0]!.body)).not.toHaveProperty('size_bytes');
  });

  it('are looked at by the broker as they grow', async () => {
    const size = 20 * 1024 * 1024;
    const big = { bytes: 16 * 1024 * 1024 };
    const { error } = await play(stream(size), [
      [CREATE, admitted()], [`PUT bytes 0-${big.bytes - 1}/*`, persisted(big.bytes)],
      [LOOK, found({ state: 'rejected', transfer: undefined, rejection: { code: 'size-limit', detail: 'too large' } })],
    ], { ...named, chunk: big });
    expect([error?.code, error?.upload?.rejection?.code]).toEqual(['rejected', 'size-limit']);
  });

  it('cannot begin again when their session is lost', async () => {
    const { error } = await play(stream(SIZE), [
      [CREATE, admitted()], [open(0), persisted(UNIT)], [open(1), status(410)], [CANCEL, found({ state: 'cancelled', transfer: undefined })],
    ], named);
    expect(error?.code).toBe('source-lost');
  });

  it('that fail cancel their upload', async () => {
    const { error } = await play(stream(10, true), [[CREATE, admitted()], [CANCEL, found({ state: 'cancelled', transfer: undefined })]], named);
    expect([error?.code, (error?.cause as Error).message]).toEqual(['source-unreadable', 'the camera was unplugged']);
  });

  it('that are not of their declared size cancel their upload', async () => {
    const { error } = await play(stream(10), [[CREATE, admitted()], [CANCEL, found({ state: 'cancelled', transfer: undefined })]], { ...named, size: 11 });
    expect(error?.code).toBe('source-changed');
  });

  it('need a name, and cannot be sent at once', async () => {
    expect((await play(stream(10), [])).error?.code).toBe('invalid-name');
    expect((await play(stream(10), [], { ...named, transfer: 'simple' })).error?.code).toBe('invalid-option');
  });
});

describe('an end other than completion', () => {
  it('is told with what the broker found', async () => {
    const rejected = found({ state: 'rejected', transfer: undefined, rejection: { code: 'digest-mismatch', detail: 'other bytes' } });
    const { error, upload } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, rejected]]);
    expect([error?.code, error?.detail, error?.upload?.rejection?.code, upload.state]).toEqual(['rejected', 'other bytes', 'digest-mismatch', 'failed']);
  });

  it('is found out when the broker says that it is over', async () => {
    const { error } = await play(file(5), [
      [CREATE, admitted()], ['PUT bytes 0-4/5', status(499)], [RENEW, problem(409, 'invalid-state')], [FIND, found({ state: 'expired', transfer: undefined })],
    ]);
    expect(error?.code).toBe('expired');
  });

  it('is a mismatch when other bytes are stored', async () => {
    const { error } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5, 'AAAAAA==')]]);
    expect(error?.code).toBe('content-mismatch');
  });
});

describe('a file that changes', () => {
  it('stops the upload, which is given back', async () => {
    const source = file(SIZE);
    const { error } = await play(source, [
      [CREATE, admitted()],
      [chunk(0), () => {
        Object.defineProperty(source, 'lastModified', { value: 2000 });
        return persisted(UNIT)(undefined as never);
      }],
      [CANCEL, found({ state: 'cancelled', transfer: undefined })],
    ]);
    expect(error?.code).toBe('source-changed');
  });

  it('is told from a lost network by reading it', async () => {
    const source = file(SIZE);
    const { error } = await play(source, [
      [CREATE, admitted()],
      [chunk(0), (request) => {
        const unreadable = { arrayBuffer: () => Promise.reject(new DOMException('it changed', 'NotReadableError')) };
        Object.defineProperty(source, 'slice', { value: () => unreadable });
        return lost(request);
      }],
      [CANCEL, found({ state: 'cancelled', transfer: undefined })],
    ]);
    expect(error?.code).toBe('source-changed');
  });
});

describe('events', () => {
  it('bear no secret', async () => {
    const { events } = await play(file(SIZE), [...BEGIN, [chunk(1), lost], [ASK, persisted(2 * UNIT)], ...END]);
    const text = JSON.stringify(events, (_, value) => (value instanceof Error ? { ...value, message: value.message } : value));
    expect(text).not.toContain('upload_id');
    expect(text).not.toContain('token');
  });

  it('come in order, and end', async () => {
    const { events } = await play(file(5), [[CREATE, lost], [CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)]]);
    expect(events.map((event: UploadEvent) => event.type === 'state' ? event.state : event.type)).toEqual(
      ['waiting', 'retry', 'preparing', 'admitted', 'uploading', 'progress', 'verifying', 'completed', 'completed']);
  });

  it('are unknown to nobody who comes late', async () => {
    const { upload } = await play(file(5), [[CREATE, problem(403, 'policy-denied')]]);
    const late = [];
    for await (const event of upload) late.push(event.type);
    expect(late).toEqual(['failed']);
  });
});

describe('an upload that the broker had created by another region', () => {
  const at = (location: string) => () => new Response(JSON.stringify(upload()), { status: 201, headers: { location } });
  const regions = ['https://broker.example/', 'https://us.example/'];

  it('is asked about there', async () => {
    const steps: Step[] = [
      [CREATE, at(`https://us.example/v1/uploads/${ID}`)], ['PUT bytes 0-4/5', stored], ['POST all', completed(5, digestOf(5))],
    ];
    const { error, script } = await play(file(5), steps, { regions });
    expect(error).toBeUndefined();
    expect(script.seen.at(-1)!.url).toBe(`https://us.example/v1/uploads/${ID}/complete`);
  });

  it.each([['a path', `/v1/uploads/${ID}`], ['its own address', `https://broker.example/v1/uploads/${ID}`]])('is its own by %s', async (_, location) => {
    const steps: Step[] = [[CREATE, at(location)], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5, digestOf(5))]];
    expect((await play(file(5), steps, { regions })).error).toBeUndefined();
  });

  it('is given up when the token would go to an address that is not listed', async () => {
    const { error } = await play(file(5), [[CREATE, at(`https://evil.example/v1/uploads/${ID}`)]], { regions });
    expect(error?.code).toBe('misdirected');
  });
});

describe('an upload that may go to several regions', () => {
  const regions = ['https://broker.example', 'https://us.example'];
  const ROUTE = 'GET /v1/route';
  const route = (...urls: string[]): Answer => () => Response.json({ regions: urls.map((url) => ({ url })) });

  it.each([
    // So a page sees a load balancer's 503 as well: it bears no CORS headers, and may answer a preflight.
    ['does not answer, or not so that a page may read it', lost],
    ['is away, as a load balancer says that a page may read', status(503)],
  ])('begins elsewhere when the nearest region %s', async (_, away) => {
    const { error, script } = await play(file(5), [
      [ROUTE, route(...regions)], [CREATE, away], ['GET all', route(...regions)], ['POST all', admitted()], ['PUT bytes 0-4/5', stored], ['POST all', completed(5)],
    ], { broker: undefined, regions });
    expect(error).toBeUndefined();
    expect(script.seen.map(({ url }) => new URL(url).hostname)).toEqual(
      ['broker.example', 'broker.example', 'us.example', 'us.example', 'storage.example', 'us.example']);
    expect(script.seen[3]!.headers.get('idempotency-key')).toBe(script.seen[1]!.headers.get('idempotency-key'));
  });

  it('stays where it is when the broker itself is in trouble, and says so', async () => {
    const { error } = await play(file(5), [
      [ROUTE, route(...regions)], [CREATE, problem(503, 'storage-unavailable')], [CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)],
    ], { broker: undefined, regions });
    expect(error).toBeUndefined();
  });

  it.each([['does not answer', lost], ['is away', status(503)]])('stays where it is created, although that region %s later', async (_, away) => {
    const { error } = await play(file(5), [
      [ROUTE, route(...regions)], [CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, away], [COMPLETE, completed(5)],
    ], { broker: undefined, regions });
    expect(error).toBeUndefined();
  });

  it('asks again for the nearest one when it was paused meanwhile', async () => {
    const { error } = await play(file(5), [
      [ROUTE, silent], [ROUTE, route('https://us.example')], ['POST all', admitted()], ['PUT bytes 0-4/5', stored], ['POST all', completed(5)],
    ], { broker: undefined, regions }, (upload) => {
      setTimeout(() => upload.pause(), 5);
      setTimeout(() => upload.resume(), 10);
    });
    expect(error).toBeUndefined();
  });

  it('is renewed by the region that took it', async () => {
    const elsewhere = problem(421, 'misdirected', { region: 'us', url: 'https://us.example/' });
    const { error, script } = await play(file(5), [
      [CREATE, admitted()], ['PUT bytes 0-4/5', status(410)], [RENEW, elsewhere], ['POST all', found()],
      ['PUT bytes 0-4/5', stored], ['POST all', completed(5)],
    ], { regions: [...regions, 'https://us.example'] });
    expect(error).toBeUndefined();
    expect(script.seen[3]!.url).toBe(`https://us.example/v1/uploads/${ID}/renew`);
  });

  it.each([['is not listed', 'https://evil.example'], ['is the one that says so', 'https://broker.example']])('is kept for later when its region %s', async (_, url) => {
    const store = memoryStore();
    const { error } = await play(file(5), [
      [CREATE, admitted()], ['PUT bytes 0-4/5', status(410)], [RENEW, problem(421, 'misdirected', { region: 'x', url })],
    ], { regions, store });
    expect([error?.code, error?.status, error?.retryable, (await store.list())[0]?.uploadId]).toEqual(['misdirected', 421, true, ID]);
  });
});
