import type { BrokerUpload, Problem, Violation } from './wire.js';

/** What the broker says, as in its OpenAPI document. */
export type BrokerCode =
  | 'invalid-request' | 'unauthenticated' | 'policy-denied' | 'https-required' | 'forbidden' | 'not-found'
  | 'method-not-allowed' | 'not-acceptable' | 'request-timeout' | 'not-complete' | 'session-lost' | 'invalid-state'
  | 'idempotency-in-progress' | 'body-too-large' | 'unsupported-media-type' | 'misdirected' | 'policy-violation'
  | 'idempotency-mismatch' | 'rate-limited' | 'quota-exceeded' | 'internal-error' | 'storage-error'
  | 'storage-unavailable' | 'store-unavailable' | 'identity-unavailable' | 'overloaded' | 'storage-timeout';

/** What this client finds by itself. */
export type ClientCode =
  /** The broker would refuse the file's name. Nothing was sent. */
  | 'invalid-name'
  /** An option makes no sense. Nothing was sent. */
  | 'invalid-option'
  /** `token` gave none, several times in a row. */
  | 'token-unavailable'
  /** Neither the broker nor storage could be reached for too long, or they answered nothing but 5xx. */
  | 'gave-up'
  /** Another tab goes on with the upload, or an upload of this page with what was to be given up. Nothing was sent. */
  | 'in-use'
  /** The file is gone, or may no longer be read. */
  | 'source-unreadable'
  /** The file is not what it was when the upload began. */
  | 'source-changed'
  /** What was read from a stream is needed again, and is gone. */
  | 'source-lost'
  /** Storage said no, and would say it again. */
  | 'storage-refused'
  /** One session after the other was lost. */
  | 'session-lost-again'
  /** The broker verified the object, and it broke its policy or what was declared; it was deleted. */
  | 'rejected'
  | 'cancelled'
  | 'expired'
  /** The upload is completed, but not with the bytes of this file. */
  | 'content-mismatch'
  /** An answer that does not fit the contract. */
  | 'unexpected-answer';

/** Programs decide by it. The broker may learn new ones. */
export type ErrorCode = BrokerCode | ClientCode | (string & {});

export interface ErrorFacts {
  status?: number;
  problem?: Problem;
  retryAfterMs?: number;
  retryable?: boolean;
  upload?: BrokerUpload;
  cause?: unknown;
}

/** Why an upload did not get to its end. Carries the broker's problem document, where there is one. */
export class UploadBrokerError extends Error {
  override readonly name = 'UploadBrokerError';
  readonly code: ErrorCode;
  /** The HTTP status that says so; 0 where no answer does. */
  readonly status: number;
  /** This problem, for people. */
  readonly detail: string;
  /** Whether the same may go well later. What was uploaded stays, and `createUpload` with the same file goes on with it. */
  readonly retryable: boolean;
  /** `policy-violation`: each limit that is not kept. */
  readonly violations: Violation[];
  /** `invalid-request`: each thing that is wrong with the request. */
  readonly errors: { pointer: string; detail: string }[];
  /** Names the request in the broker's logs. */
  readonly requestId: string | undefined;
  /** How long the server wants to be left alone, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** The whole problem document. */
  readonly problem: Problem | undefined;
  /** The upload as the broker last told of it, where it is over: `rejection` says why. Bears no secret. */
  readonly upload: BrokerUpload | undefined;

  constructor(code: ErrorCode, detail: string, facts: ErrorFacts = {}) {
    super(`${detail} (${code})`, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = code;
    this.detail = detail;
    this.status = facts.status ?? 0;
    this.retryable = facts.retryable ?? false;
    this.problem = facts.problem;
    this.violations = facts.problem?.violations ?? [];
    this.errors = facts.problem?.errors ?? [];
    this.requestId = facts.problem?.request_id;
    this.retryAfterMs = facts.retryAfterMs;
    this.upload = facts.upload && { ...facts.upload, transfer: undefined };
  }
}

/** Whether the same request may be answered better later. */
export const isTransient = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** The error of an answer of the broker that is no success. Its body is a problem document, unless a proxy answered. */
export function problemError(status: number, body: unknown, retryAfterMs?: number): UploadBrokerError {
  const problem = typeof body === 'object' && body !== null && typeof (body as Problem).code === 'string'
    ? (body as Problem) : undefined;
  const code = problem?.code ?? (isTransient(status) ? 'overloaded' : 'unexpected-answer');
  const detail = problem ? (problem.detail ?? problem.title ?? code) : `the broker answered ${status} without a problem document`;
  return new UploadBrokerError(code, detail, {
    status, problem, retryAfterMs, retryable: isTransient(status) || code === 'idempotency-in-progress' || status === 401,
  });
}
