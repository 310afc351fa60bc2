import type { Content, UploadOptions } from './order.js';
import { Upload } from './upload.js';

/**
 * Uploads a file through a broker, and continues what an earlier page began with the same file. It begins by itself, a
 * turn later.
 */
export const createUpload = (content: Content, options: UploadOptions): Upload => new Upload(content, options);

export { UploadBrokerError } from './errors.js';
export type { BrokerCode, ClientCode, ErrorCode } from './errors.js';
export type { AnewReason, ClientState, Progress, UploadEvent } from './events.js';
export type { Fingerprint } from './fingerprint.js';
export type { Content, UploadOptions } from './order.js';
export type { ChunkBounds, Patience } from './pace.js';
export { discardUpload, pendingUploads } from './pending.js';
export type { PendingUpload } from './pending.js';
export type { Fetch, TokenProvider } from './broker.js';
export { indexedDbStore, memoryStore } from './store.js';
export type { UploadRecord, UploadStore } from './store.js';
export type { DigestState } from './digest.js';
export type { Upload } from './upload.js';
export type { BrokerUpload, CompletedUpload, Problem, Rejection, Transfer, TransferKind, UploadResult, UploadState, Violation } from './wire.js';
