/** What the caller wants, checked before anything is sent. */
import type { Fetch, TokenProvider } from './broker.js';
import { UploadBrokerError } from './errors.js';
import type { ChunkBounds, Patience } from './pace.js';
import type { UploadStore } from './store.js';
import type { CreateUpload, TransferKind } from './wire.js';

export interface UploadOptions {
  /** The broker's address, such as `https://eu.uploads.example.com`. Needed unless there are `regions`. */
  broker?: string;
  /** The brokers of all regions: `GET /v1/route` tells the nearest one, and a broker may send the upload to another of them. */
  regions?: string[];
  /** Gives a bearer token. Called once at first, and again after each 401, so it should fetch a fresh one then. */
  token: TokenProvider;
  /** The policy; needed only where several admit the caller. */
  policy?: string;
  /** The name to upload under; needed for a `Blob` or a stream, which have none. */
  name?: string;
  /** The media type; else that of the file, else `application/octet-stream`. */
  contentType?: string;
  /** Custom metadata of the object. */
  metadata?: Record<string, string>;
  /** Of a stream, if it is known. */
  size?: number;
  /** How the bytes go to storage: `resumable`. */
  transfer?: TransferKind;
  /**
   * `final` sends the CRC32C with the last bytes, and declares it at creation where the policy wants that; `declare`
   * reads the file first and declares it; `none` digests nothing. `final`.
   */
  digest?: 'final' | 'declare' | 'none';
  /** Cancels the upload, as `cancel()` does. */
  signal?: AbortSignal;
  /** Where uploads under way are written down: IndexedDB, if there is one. `false`: nowhere, and every upload is new. */
  store?: UploadStore | false;
  chunk?: ChunkBounds;
  patience?: Partial<Patience>;
  /** In place of the platform's. */
  fetch?: Fetch;
}

/** Refuses what the broker would, and what UTF-8 cannot say. */
export function checkName(name: string): void {
  const refuse = (detail: string): never => {
    throw new UploadBrokerError('invalid-name', detail);
  };
  if (name === '') refuse('the file has no name; give it one with the option `name`');
  if (/[/\\]/.test(name)) refuse('the file\'s name may not contain / or \\');
  if (/\p{Cc}/u.test(name)) refuse('the file\'s name may not contain control characters');
  if (/\p{Cs}/u.test(name)) refuse('the file\'s name is not well-formed Unicode');
  if (new TextEncoder().encode(name).length > 255) refuse('the file\'s name is longer than 255 bytes of UTF-8');
}

export type Content = Blob | ReadableStream<Uint8Array>;

export const isStream = (content: Content): content is ReadableStream<Uint8Array> => 'getReader' in content;

/** The body of `POST /v1/uploads`. */
export function orderOf(content: Content, options: UploadOptions): CreateUpload {
  const refuse = (detail: string): never => {
    throw new UploadBrokerError('invalid-option', detail);
  };
  if (typeof options.token !== 'function') refuse('`token` must be a function that gives a bearer token');
  if (!options.broker && !options.regions?.length) refuse('either `broker` or `regions` must be there');
  if (isStream(content) && options.transfer === 'simple') refuse('a stream cannot be sent as a `simple` upload: its size is not known before its end');
  const name = options.name ?? (content as Partial<File>).name ?? '';
  checkName(name);
  const size = isStream(content) ? options.size : content.size;
  return {
    ...(options.policy !== undefined && { policy: options.policy }),
    filename: name,
    content_type: options.contentType || (content as Partial<File>).type || 'application/octet-stream',
    ...(size !== undefined && { size_bytes: size }),
    ...(options.metadata && { metadata: { ...options.metadata } }),
    ...(options.transfer && options.transfer !== 'resumable' && { transfer_kind: options.transfer }),
  };
}

/** Whether two orders are the same, digests aside: these are of the file, which has a fingerprint. */
export function isSameOrder(one: CreateUpload, other: CreateUpload): boolean {
  const comparable = ({ crc32c: _, metadata, ...rest }: CreateUpload): string =>
    JSON.stringify([Object.entries(rest).sort(), Object.entries(metadata ?? {}).sort()]);
  return comparable(one) === comparable(other);
}
