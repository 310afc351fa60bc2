import { describe, expect, it, vi } from 'vitest';
import { createUpload, memoryStore } from '../../src/index.js';
import {
  admitted, ASK, BEGIN, CANCEL, chunk, COMPLETE, completed, CREATE, END, file, found, ID, lost, persisted, play,
  problem, Script, silent, SIZE, status, stored, transfer, UNIT,
} from './script.js';
import type { Answer, Step } from './script.js';

describe('pause, resume and cancel', () => {
  it('cuts the chunk off, and asks where to go on', async () => {
    const { error, events } = await play(file(SIZE), [
      ...BEGIN, [chunk(1), silent], [ASK, persisted(UNIT)], [chunk(1), persisted(2 * UNIT)], ...END,
    ], {}, (upload) => upload.on('progress', ({ receivedBytes }) => {
      if (receivedBytes === UNIT && upload.state === 'uploading') {
        setTimeout(() => upload.pause(), 1);
        setTimeout(() => upload.resume(), 2);
      }
    }));
    expect(error).toBeUndefined();
    const states = events.flatMap((event) => (event.type === 'state' ? [event.state] : []));
    expect(states).toEqual(['uploading', 'paused', 'uploading', 'verifying', 'completed']);
    expect(events.some(({ type }) => type === 'retry'), 'a pause is no failure').toBe(false);
  });

  it('begins paused when it is paused at once', async () => {
    const script = new Script([[CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)]]);
    const upload = createUpload(file(5), { broker: 'https://broker.example', token: () => 't', store: memoryStore(), fetch: script.fetch });
    upload.pause();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect([script.seen.length, upload.state]).toEqual([0, 'paused']);
    upload.resume();
    expect((await upload.done).id).toBe(ID);
  });

  it('cancels at the broker, whether asked by a call or a signal', async () => {
    for (const way of ['call', 'signal']) {
      const controller = new AbortController();
      const { error, upload } = await play(file(SIZE), [...BEGIN, [chunk(1), silent], [CANCEL, found({ state: 'cancelled', transfer: undefined })]], { signal: controller.signal }, (upload) =>
        upload.on('progress', ({ receivedBytes }) => {
          if (receivedBytes === UNIT) setTimeout(() => (way === 'call' ? void upload.cancel() : controller.abort()), 1);
        }));
      expect([error?.code, upload.state], way).toEqual(['cancelled', 'cancelled']);
    }
  });

  it('does nothing at all when the signal was aborted before', async () => {
    const { error } = await play(file(5), [], { signal: AbortSignal.abort() });
    expect(error?.code).toBe('cancelled');
  });

  it('cancels what was being created, as soon as it has a name', async () => {
    const { error } = await play(file(5), [[CREATE, async (request) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return admitted()(request);
    }], [CANCEL, found({ state: 'cancelled', transfer: undefined })]], {}, (upload) => setTimeout(() => upload.cancel(), 2));
    expect(error?.code).toBe('cancelled');
  });

  it.each<[string, Answer, Step[]]>([
    ['had been created', lost, [[CREATE, admitted()], [CANCEL, found({ state: 'cancelled', transfer: undefined })]]],
    ['had been created, although a proxy lost patience', status(504), [[CREATE, admitted()], [CANCEL, found({ state: 'cancelled', transfer: undefined })]]],
    ['is refused', lost, [[CREATE, problem(422, 'policy-violation')]]],
    ['cannot be asked about', lost, [[CREATE, lost]]],
  ])('asks once more under the same key when the answer to the creation was lost: it %s', async (_, answer, steps) => {
    const { error, script } = await play(file(5), [[CREATE, answer], ...steps], { patience: { firstPauseMs: 1e6, longestPauseMs: 1e6, giveUpAfterMs: 1e9 } },
      (upload) => upload.on('retry', () => void upload.cancel()));
    expect(error?.code).toBe('cancelled');
    const [first, second] = script.seen;
    expect([second!.headers.get('idempotency-key'), second!.body]).toEqual([first!.headers.get('idempotency-key'), first!.body]);
  });

  it.each(['call', 'signal'])('cancels while a token does not come, by a %s', async (way) => {
    const controller = new AbortController();
    const { error, upload } = await play(file(5), [], { token: () => new Promise(() => {}), signal: controller.signal }, (upload) =>
      setTimeout(() => (way === 'call' ? void upload.cancel() : controller.abort()), 2));
    expect([error?.code, upload.state]).toEqual(['cancelled', 'cancelled']);
  });

  it('cancels while a token does not come for what is under way, and does not wait for one to cancel with', async () => {
    const token = vi.fn(() => (token.mock.calls.length === 1 ? 'first' : new Promise<string>(() => {})));
    const { error } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, problem(401, 'unauthenticated')]],
      { token, patience: { firstPauseMs: 1, longestPauseMs: 1, giveUpAfterMs: 5, answerWithinMs: 10 } }, (upload) =>
        upload.on('state', ({ state }) => state === 'verifying' && setTimeout(() => upload.cancel(), 5)));
    expect(error?.code).toBe('cancelled');
  });

  it('asks a provider anew that gave no token in time', async () => {
    const token = vi.fn(() => (token.mock.calls.length === 1 ? new Promise<string>(() => {}) : 'second'));
    const { error } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)]],
      { token, patience: { firstPauseMs: 1, longestPauseMs: 1, giveUpAfterMs: 50, answerWithinMs: 10 } });
    expect([error, token.mock.calls.length]).toEqual([undefined, 2]);
  });

  it('cancels while a stream has nothing to give, and the stream with it', async () => {
    const cancelled = vi.fn();
    const silence = new ReadableStream<Uint8Array>({ cancel: cancelled });
    const { error } = await play(silence, [[CREATE, admitted()], [CANCEL, () => {
      expect(cancelled).toHaveBeenCalledTimes(1);
      return found({ state: 'cancelled', transfer: undefined })(undefined as never);
    }]], { name: 'live.mp4' }, (upload) => upload.on('state', ({ state }) => state === 'uploading' && setTimeout(() => upload.cancel(), 1)));
    expect(error?.code).toBe('cancelled');
    expect(cancelled).toHaveBeenCalledTimes(1);
  });

  it('is completed when the last byte was faster than the cancellation', async () => {
    const { error, upload } = await play(file(5), [[CREATE, admitted()], ['PUT bytes 0-4/5', silent], [CANCEL, completed(5)]], {}, (upload) =>
      upload.on('state', ({ state }) => {
        if (state === 'uploading') setTimeout(() => upload.cancel(), 1);
      }));
    expect(error).toBeUndefined();
    expect(upload.state).toBe('completed');
  });

  it('ends the pause after a failure', async () => {
    const { error } = await play(file(5), [[CREATE, problem(429, 'rate-limited')]], { patience: { firstPauseMs: 1e6, longestPauseMs: 1e6, giveUpAfterMs: 1e9 } }, (upload) =>
      upload.on('retry', () => void upload.cancel()));
    expect(error?.code).toBe('cancelled');
  });

  it('goes on at once when the network is back', async () => {
    const target = new EventTarget();
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
    vi.stubGlobal('removeEventListener', target.removeEventListener.bind(target));
    try {
      const { error } = await play(file(5), [[CREATE, lost], [CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)]],
        { patience: { firstPauseMs: 1e6, longestPauseMs: 1e6, giveUpAfterMs: 1e9 } },
        (upload) => upload.on('retry', () => setTimeout(() => target.dispatchEvent(new Event('online')))));
      expect(error).toBeUndefined();
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it.each<[string, Step, Step[]]>([
    ['a chunk', [chunk(1), silent], [[ASK, persisted(2 * UNIT)], ...END]],
    ['a question', [chunk(1), lost], [[ASK, silent], [ASK, persisted(2 * UNIT)], ...END]],
  ])('asks again when there is another network: the answer to %s never comes', async (_, step, rest) => {
    const target = new EventTarget();
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
    vi.stubGlobal('removeEventListener', target.removeEventListener.bind(target));
    try {
      const { error } = await play(file(SIZE), [...BEGIN, step, ...rest], {}, (upload) => {
        const again = setInterval(() => {
          if (upload.progress.receivedBytes !== UNIT) return upload.state === 'completed' ? clearInterval(again) : undefined;
          target.dispatchEvent(new Event('offline'));
          target.dispatchEvent(new Event('online'));
        }, 20);
      });
      expect(error).toBeUndefined();
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it('takes a network that swallows a chunk for lost by what it was before', async () => {
    vi.useFakeTimers();
    try {
      const size = 64 * 1024 * 1024;
      const half = size / 2;
      const slow: Answer = async () => {
        await vi.advanceTimersByTimeAsync(4000);
        return persisted(half)(undefined as never);
      };
      const whole = { size, lastModified: 1, type: 'video/mp4', slice: (from: number, to: number) => new Blob([new Uint8Array(Math.min(to, size) - from)]) } as unknown as Blob;
      const script = new Script([
        [CREATE, admitted(transfer({ chunk_bytes: half }))], [`PUT bytes 0-${half - 1}/${size}`, slow], [`PUT bytes ${half}-${size - 1}/${size}`, silent], [`PUT bytes */${size}`, stored], [COMPLETE, completed(size)],
      ]);
      const upload = createUpload(whole, {
        broker: 'https://broker.example', token: () => 't', store: false, name: 'huge.mp4', digest: 'none', fetch: script.fetch, chunk: { maxBytes: half },
      });
      await vi.advanceTimersByTimeAsync(0);
      for (let n = 0; n < 200 && script.seen.length < 3; n++) await vi.advanceTimersByTimeAsync(0);
      expect(script.seen).toHaveLength(3);
      // 32 MiB came through in 4 s: four times that, and a minute.
      await vi.advanceTimersByTimeAsync(60_000);
      expect(upload.state).toBe('uploading');
      await vi.advanceTimersByTimeAsync(20_000);
      expect((await upload.done).state).toBe('completed');
    } finally {
      vi.useRealTimers();
    }
  });

  it('loses no patience while there is no network', async () => {
    vi.stubGlobal('navigator', { onLine: false });
    try {
      const many = Array.from({ length: 10 }, (): Step => [CREATE, lost]);
      const { error } = await play(file(5), [...many, [CREATE, admitted()], ['PUT bytes 0-4/5', stored], [COMPLETE, completed(5)]],
        { patience: { firstPauseMs: 1, longestPauseMs: 1, giveUpAfterMs: 2 } });
      expect(error).toBeUndefined();
    } finally {
      vi.unstubAllGlobals();
    }
  });
});
