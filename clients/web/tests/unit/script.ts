/** A fake `fetch` that plays a script: which request must come next, and what it is answered. */
import { expect } from 'vitest';
import { createUpload, memoryStore, UploadBrokerError } from '../../src/index.js';
import { crc32c, toBase64 } from '../../src/crc32c.js';
import type { Content, Upload, UploadEvent, UploadOptions } from '../../src/index.js';

export const KIB = 1024;
/** The smallest chunk. */
export const UNIT = 256 * KIB;
export const ID = '3f9a0c51e2b7d84f6011c3a5e79b2d40f8';
export const SESSION = 'https://storage.example/session?upload_id=1';

export type Answer = (request: Seen) => Response | Promise<Response>;
/** A request line, such as `POST /v1/uploads` or `PUT bytes 0-9/10`, and its answer. */
export type Step = [string, Answer];

export interface Seen {
  line: string;
  url: string;
  headers: Headers;
  body: string;
  bytes: number;
  signal: AbortSignal;
}

const json = (status: number, body: unknown, headers: Record<string, string> = {}): Answer => () =>
  new Response(JSON.stringify(body), { status, headers });

export const upload = (more: Record<string, unknown> = {}) => ({
  id: ID, state: 'pending', policy: 'videos', region: 'r', bucket: 'b', object: 'o', content_type: 'video/mp4',
  received_bytes: 0, created_at: '2100-01-01T00:00:00Z', expires_at: '2100-01-02T00:00:00Z', routing: { served_by: 'r' },
  transfer: {
    kind: 'resumable', uri: SESSION, method: 'PUT', headers: { 'content-type': 'video/mp4' },
    chunk_multiple_bytes: UNIT, chunk_bytes: UNIT, expires_at: '2100-01-02T00:00:00Z',
  },
  ...more,
});

export const transfer = (more: Record<string, unknown>) => ({ transfer: { ...upload().transfer, ...more } });

export const admitted = (more: Record<string, unknown> = {}): Answer => json(201, upload(more));
export const found = (more: Record<string, unknown> = {}): Answer => json(200, upload(more));
export const completed = (size: number, crc32c?: string): Answer =>
  found({ state: 'completed', transfer: undefined, result: { generation: '1', size_bytes: size, crc32c, completed_at: '', evidence: 'client' } });
export const problem = (status: number, code: string, more: Record<string, unknown> = {}, headers: Record<string, string> = {}): Answer =>
  json(status, { type: 'urn:x', title: code, status, detail: `it is ${code}`, code, request_id: 'r1', ...more }, headers);

export const persisted = (bytes: number): Answer => () =>
  new Response(null, { status: 308, headers: bytes > 0 ? { range: `bytes=0-${bytes - 1}` } : {} });
export const status = (code: number, headers: Record<string, string> = {}): Answer => () => new Response('so it is', { status: code, headers });
export const stored = status(200);
export const lost: Answer = () => Promise.reject(new TypeError('Failed to fetch'));
/** Never answers; fails when it is cut off. */
export const silent: Answer = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

export const CREATE = 'POST /v1/uploads';
export const COMPLETE = `POST /v1/uploads/${ID}/complete`;
export const RENEW = `POST /v1/uploads/${ID}/renew`;
export const CANCEL = `DELETE /v1/uploads/${ID}`;
export const FIND = `GET /v1/uploads/${ID}`;
export const LOOK = `${FIND}?refresh=true`;

export class Script {
  readonly seen: Seen[] = [];
  readonly #steps: Step[];

  constructor(steps: Step[]) {
    this.#steps = [...steps];
  }

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const headers = new Headers(init.headers);
    const { pathname, search, origin } = new URL(url);
    const range = headers.get('content-range');
    const place = origin === 'https://broker.example' ? pathname + search : (range ?? new URL(url).searchParams.get('as') ?? 'all');
    const body = init.body instanceof Blob ? await init.body.text() : String(init.body ?? '');
    const bytes = init.body instanceof Blob ? init.body.size : 0;
    const request = { line: `${init.method ?? 'GET'} ${place}`, url, headers, body, bytes, signal: init.signal as AbortSignal };
    this.seen.push(request);
    const step = this.#steps.shift();
    expect(request.line, `request ${this.seen.length}`).toBe(step?.[0] ?? 'nothing more');
    return step![1](request);
  };

  expectPlayed(): void {
    expect(this.#steps.map(([line]) => line), 'steps that nobody asked for').toEqual([]);
  }
}

export const file = (bytes: number, name = 'holiday.mp4', fill = 7): File =>
  new File([new Uint8Array(bytes).fill(fill)], name, { type: 'video/mp4', lastModified: 1000 });

/** Pauses of a millisecond, so that tests are fast, and of a fixed number, so that they end. */
export const QUICK = { firstPauseMs: 1, longestPauseMs: 2, giveUpAfterMs: 50 };
export const ONE_CHUNK = { bytes: UNIT, maxBytes: UNIT };

export interface Played {
  script: Script;
  upload: Upload;
  events: UploadEvent[];
  error: UploadBrokerError | undefined;
  restarts: string[];
}

/** Plays `steps` to the end of the upload, and checks that all of them were. */
export async function play(content: Content, steps: Step[], options: Partial<UploadOptions> = {}, drive?: (upload: Upload) => void): Promise<Played> {
  const script = new Script(steps);
  const upload = createUpload(content, {
    broker: 'https://broker.example/', token: async () => 'token', store: memoryStore(), patience: QUICK, chunk: ONE_CHUNK,
    fetch: script.fetch, ...options,
  });
  drive?.(upload);
  const events: UploadEvent[] = [];
  for await (const event of upload) events.push(event);
  const error = await upload.done.then(() => undefined, (error: UploadBrokerError) => error);
  script.expectPlayed();
  return { script, upload, events, error, restarts: events.flatMap((event) => (event.type === 'anew' ? [event.reason] : [])) };
}

// What most uploads here are: a file of four chunks, the beginning and the end of its upload, and what comes in between.
export const SIZE = 3 * UNIT + 5;
export const digestOf = (bytes: number): string => toBase64(crc32c(new Uint8Array(bytes).fill(7)));
export const chunk = (n: number): string => `PUT bytes ${n * UNIT}-${(n + 1) * UNIT - 1}/${SIZE}`;
export const LAST = `PUT bytes ${3 * UNIT}-${SIZE - 1}/${SIZE}`;
export const ASK = `PUT bytes */${SIZE}`;
export const BEGIN: Step[] = [[CREATE, admitted()], [chunk(0), persisted(UNIT)]];
export const END: Step[] = [[chunk(2), persisted(3 * UNIT)], [LAST, stored], [COMPLETE, completed(SIZE, digestOf(SIZE))]];
