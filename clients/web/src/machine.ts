/**
 * The rules of an upload, from its creation to its final state, as one machine without any input or output: given what
 * was done and what came of it, it says what to do next.
 *
 * Between `send` and `ask` stands one rule: whatever went wrong with a chunk, the next move is to ask. Storage answers a
 * chunk that would leave a gap with 503, so who repeats the same chunk after a 5xx may never end; who asks first cannot
 * make a gap.
 */
import type { BrokerAnswer, Nowhere } from './broker.js';
import { isPassing } from './broker.js';
import { UploadBrokerError, isTransient } from './errors.js';
import type { Pace } from './pace.js';
import type { BrokerUpload, TransferKind } from './wire.js';
import { isFinal } from './wire.js';

export type Move =
  /** `POST /v1/uploads`. */
  | { do: 'create' }
  /** `GET /v1/uploads/{id}`. */
  | { do: 'find' }
  /** The signed `POST` that opens a session. */
  | { do: 'start' }
  /** The signed `PUT` of everything. */
  | { do: 'put' }
  /** The status query: where to go on? */
  | { do: 'ask' }
  /** A chunk from `offset` on. */
  | { do: 'send'; offset: number }
  /** As `find`, after the broker has looked: has a stream outgrown its policy? */
  | { do: 'look'; offset: number }
  /** `POST …/complete`. */
  | { do: 'complete'; after: Ended }
  /** `POST …/renew`. */
  | { do: 'renew' }
  | { do: 'wait'; ms: number; then: Move; error: UploadBrokerError }
  /** The upload is final. */
  | { do: 'end'; upload: BrokerUpload }
  | { do: 'fail'; error: UploadBrokerError };

export type Ended =
  /** Storage says that it has everything. */
  | { how: 'stored' }
  /** Storage says that the object is there already: 412. It may be ours. */
  | { how: 'exists' }
  /** Nobody saw what a signed URL did. */
  | { how: 'unsure' }
  /** Storage refused a signed URL: it may have ended, or never have been good. */
  | { how: 'refused'; status: number };

/** An answer of storage: its status and headers are all that counts. */
export interface StorageAnswer {
  from: 'storage';
  status: number;
  range: string | null;
  /** Of the answer to `start`. */
  location?: string | null;
  retryAfterMs?: number;
}

export type Outcome = BrokerAnswer | StorageAnswer;

/** What the machine must know of the source. */
export interface Bytes {
  readonly isStream: boolean;
  readonly size: number | undefined;
  readonly keptFrom: number;
}

/** Losing a session is rare; losing so many says that something else is wrong. */
const MOST_RENEWALS = 5;

/** So often must storage say that it has less of a stream than it had confirmed before it is believed. */
const MOST_DOUBTS = 3;

/** When storage has this much of a stream of unknown size, and at each doubling, the broker is asked to look. */
const FIRST_LOOK = 16 * 1024 * 1024;

export class Machine {
  readonly #bytes: Bytes;
  readonly #pace: Pace;
  #kind: TransferKind = 'resumable';
  #hasSession = false;
  /** The most that this session ever had: more is progress. */
  #reached = 0;
  /** Whether storage was asked again after it had said, against what it said before, that it has nothing. */
  #askedAgain = false;
  #doubts = 0;
  #renewals = 0;
  #wasRefused = false;
  /** Whether storage said of this session, or of this signed URL, that it has everything. That can be news but once. */
  #wasStored = false;
  #lookAt = FIRST_LOOK;

  constructor(bytes: Bytes, pace: Pace) {
    this.#bytes = bytes;
    this.#pace = pace;
  }

  /** What storage has for certain, and so what people may be shown. */
  get received(): number {
    return this.#reached;
  }

  /** After a reload: `received` is what the last page knew. */
  resumed(received: number): Move {
    this.#reached = received;
    return { do: 'find' };
  }

  /** `move` was cut off by this side, as by a pause. */
  interrupted(move: Move): Move {
    switch (move.do) {
      case 'send': return { do: 'ask' };
      case 'put': return { do: 'complete', after: { how: 'unsure' } };
      case 'wait': return move.then;
      default: return move;
    }
  }

  /** What to do after `move`, of which `outcome` came. */
  after(move: Move, outcome: Outcome): Move {
    if (outcome.from === 'nowhere') return this.#lost(move, outcome);
    if (outcome.from === 'storage') {
      switch (move.do) {
        case 'start': return this.#afterStart(outcome);
        case 'put': return this.#afterPut(outcome);
        case 'ask': case 'send': return this.#afterBytes(move, outcome);
        default: return unexpected(move, outcome);
      }
    }
    if ('problem' in outcome) return this.#afterProblem(move, outcome.problem);
    switch (move.do) {
      case 'create': return this.#enter(outcome.upload, outcome.isReplay ? 'known' : 'new');
      case 'find': return this.#enter(outcome.upload, 'known');
      case 'renew':
        this.#renewals += 1;
        return this.#enter(outcome.upload, 'new');
      case 'look': return isFinal(outcome.upload) ? { do: 'end', upload: outcome.upload } : { do: 'send', offset: move.offset };
      case 'complete':
        return isFinal(outcome.upload) ? { do: 'end', upload: outcome.upload } : this.#wait(move, unaware());
      default: return unexpected(move, outcome);
    }
  }

  /** The broker handed out an upload. Storage may have bytes of a known one, and has none of a new one. */
  #enter(upload: BrokerUpload, as: 'new' | 'known'): Move {
    if (isFinal(upload)) return { do: 'end', upload };
    const { transfer } = upload;
    if (!transfer) {
      // Another request is opening its session just now.
      return this.#wait({ do: 'find' }, new UploadBrokerError('gave-up', 'the broker has not opened the session yet', { retryable: true }));
    }
    this.#kind = transfer.kind;
    this.#hasSession = transfer.kind === 'resumable';
    if (as === 'new') {
      this.#reached = 0;
      this.#wasStored = false;
      this.#pace.progressed();
    }
    switch (transfer.kind) {
      case 'resumable': return as === 'new' ? { do: 'send', offset: 0 } : { do: 'ask' };
      // The session that an earlier page opened by itself is forgotten, and with it what storage could be asked.
      case 'signed_resumable': return as === 'new' ? { do: 'start' } : { do: 'complete', after: { how: 'unsure' } };
      case 'simple':
        if (this.#bytes.isStream) return fail('unexpected-answer', 'the broker wants a stream in one request');
        return as === 'new' ? { do: 'put' } : { do: 'complete', after: { how: 'unsure' } };
      default: return fail('unexpected-answer', 'the broker asks for a kind of transfer that this client does not know');
    }
  }

  #afterStart({ status, location, retryAfterMs }: StorageAnswer): Move {
    if (status === 200 || status === 201) {
      if (!location) return fail('unexpected-answer', 'storage opened a session without saying where; does the CORS of the bucket expose Location?');
      this.#hasSession = true;
      this.#wasRefused = false;
      this.#pace.progressed();
      return { do: 'send', offset: 0 };
    }
    if (isTransient(status)) return this.#wait({ do: 'start' }, busy(status), retryAfterMs);
    return { do: 'complete', after: { how: 'refused', status } };
  }

  #afterPut({ status, retryAfterMs }: StorageAnswer): Move {
    if (status === 200 || status === 201) return this.#stored();
    if (status === 412) return { do: 'complete', after: { how: 'exists' } };
    // The object may be there all the same.
    if (isTransient(status)) return this.#wait({ do: 'complete', after: { how: 'unsure' } }, busy(status), retryAfterMs);
    return { do: 'complete', after: { how: 'refused', status } };
  }

  /** A chunk, or the question, was answered. */
  #afterBytes(move: Move & { do: 'ask' | 'send' }, { status, range, retryAfterMs }: StorageAnswer): Move {
    switch (status) {
      case 200: case 201: return this.#stored();
      case 308: return this.#afterPersisted(move, range, retryAfterMs);
      case 412: return { do: 'complete', after: { how: 'exists' } };
      case 404: case 410: case 499: return this.#renew();
    }
    if (isTransient(status)) return this.#wait({ do: 'ask' }, busy(status), retryAfterMs);
    const at = move.do === 'send' ? move.offset : this.#reached;
    return { do: 'fail', error: new UploadBrokerError('storage-refused', `storage refused the bytes at offset ${at} with status ${status}`, { status }) };
  }

  #afterPersisted(move: Move & { do: 'ask' | 'send' }, range: string | null, retryAfterMs: number | undefined): Move {
    const { isStream, size, keptFrom } = this.#bytes;
    const persisted = persistedBytes(range);
    if (persisted === undefined || persisted > (size ?? Infinity)) {
      return this.#wait({ do: 'ask' }, trouble('storage answered with a Range that cannot be'), retryAfterMs);
    }
    if (persisted < keptFrom) {
      // What storage has never becomes less, but an answer can be wrong.
      this.#doubts += 1;
      if (this.#doubts === MOST_DOUBTS) return fail('source-lost', 'storage lost what it had confirmed, and a stream cannot be read again');
      return this.#wait({ do: 'ask' }, trouble('storage answered that it has less than it had'), retryAfterMs);
    }
    this.#doubts = 0;
    const gained = persisted > this.#reached;
    if (gained) {
      // What the broker did not find is sent again with the patience that is left.
      if (!this.#wasStored) this.#pace.progressed();
      this.#askedAgain = false;
    }
    // Of a file, asking with the size ends the upload. A stream is ended by a request of its own.
    const isEverything = !isStream && persisted > 0 && persisted === size;
    if (move.do === 'ask' && !isEverything) {
      // No Range after bytes were confirmed: asked once more, then believed, and sent from zero.
      if (range === null && this.#reached > 0 && !this.#askedAgain) {
        this.#askedAgain = true;
        return this.#wait({ do: 'ask' }, trouble('storage answered that it has nothing'), retryAfterMs);
      }
      this.#askedAgain = false;
      this.#reached = persisted;
      return { do: 'send', offset: persisted };
    }
    if (gained) this.#reached = persisted;
    if (move.do === 'send' && gained && !isEverything) {
      if (isStream && size === undefined && persisted >= this.#lookAt) {
        this.#lookAt = persisted * 2;
        return { do: 'look', offset: persisted };
      }
      return { do: 'send', offset: persisted };
    }
    // All bytes, but not yet an object: asking with the size finishes it. Or none of the bytes that were sent; what
    // storage says right after such a chunk may be wrong, so it is asked after a pause.
    return this.#wait({ do: 'ask' }, trouble('storage kept nothing of what was sent'), retryAfterMs);
  }

  #stored(): Move {
    this.#reached = this.#bytes.size ?? this.#reached;
    if (!this.#wasStored) this.#pace.progressed();
    this.#wasStored = true;
    return { do: 'complete', after: { how: 'stored' } };
  }

  #afterProblem(move: Move, problem: UploadBrokerError): Move {
    switch (problem.code) {
      case 'not-complete':
        if (move.do === 'complete') return this.#afterNotComplete(move, problem);
        break;
      case 'session-lost':
        if (move.do === 'complete') return this.#renew();
        break;
      case 'invalid-state':
        // It ended otherwise in the meantime, or a renewal found it final: what it is now is the answer.
        if (move.do === 'complete' || move.do === 'renew') return { do: 'find' };
        break;
    }
    if (problem.code === 'misdirected' && move.do !== 'create') {
      // The upload lives on in the region that took it; a page that may send its token there can go on with it.
      const { detail, status, problem: document } = problem;
      return { do: 'fail', error: new UploadBrokerError(problem.code, detail, { status, problem: document, retryable: true }) };
    }
    if (isPassing(problem)) {
      // That storage cannot be looked at is no reason to send nothing.
      if (move.do === 'look') return { do: 'send', offset: move.offset };
      return this.#wait(move, problem, problem.retryAfterMs);
    }
    return { do: 'fail', error: problem };
  }

  #afterNotComplete({ after }: Move & { do: 'complete' }, problem: UploadBrokerError): Move {
    switch (after.how) {
      case 'stored': {
        // Storage's word against the broker's, which asked storage as well. It says where to go on. Or there was an object,
        // and somebody took it away at once: then each further one would go the same way, so a signed URL is not used again.
        const received = problem.problem?.received_bytes;
        const { size, keptFrom } = this.#bytes;
        const canGoOn = this.#kind === 'resumable' && received !== undefined && received < (size ?? 0) && received >= keptFrom;
        if (canGoOn) this.#reached = received;
        const next: Move = canGoOn ? { do: 'send', offset: received } : this.#hasSession ? { do: 'ask' } : { do: 'complete', after };
        return this.#wait(next, unaware(problem));
      }
      case 'unsure': return this.#more();
      case 'exists':
        return { do: 'fail', error: new UploadBrokerError('storage-refused', 'storage has another object of that name', { status: 412 }) };
      case 'refused': {
        // Storage, whose clock is another, may find a URL ended before the broker does. That is not so of two in a row.
        const isFirst = !this.#wasRefused && (after.status === 400 || after.status === 403);
        this.#wasRefused = true;
        if (isFirst) return this.#renew();
        return { do: 'fail', error: new UploadBrokerError('storage-refused', `storage refused the signed URL with status ${after.status}`, { status: after.status }) };
      }
    }
  }

  /** Storage has not everything: how to go on by this kind of transfer. */
  #more(): Move {
    if (this.#hasSession) return { do: 'ask' };
    return this.#kind === 'simple' ? { do: 'put' } : { do: 'start' };
  }

  #lost(move: Move, { error }: Nowhere): Move {
    switch (move.do) {
      case 'send': return this.#wait({ do: 'ask' }, error);
      case 'put': return this.#wait({ do: 'complete', after: { how: 'unsure' } }, error);
      case 'look': return { do: 'send', offset: move.offset };
      default: return this.#wait(move, error);
    }
  }

  #renew(): Move {
    if (this.#bytes.keptFrom > 0) return fail('source-lost', 'the session was lost, and a stream cannot be read again');
    if (this.#renewals < MOST_RENEWALS) return { do: 'renew' };
    const detail = `the session was lost ${this.#renewals + 1} times`;
    return { do: 'fail', error: new UploadBrokerError('session-lost-again', detail, { retryable: true }) };
  }

  #wait(then: Move, error: UploadBrokerError, retryAfterMs?: number): Move {
    const ms = this.#pace.next(retryAfterMs);
    return ms === undefined ? { do: 'fail', error } : { do: 'wait', ms, then, error };
  }
}

/** The number of bytes that `bytes=0-K` stands for: K is the last byte's position. No header: none, not even byte 0. */
export function persistedBytes(range: string | null): number | undefined {
  if (range === null) return 0;
  const last = /^bytes=0-(\d{1,15})$/.exec(range.trim())?.[1];
  return last === undefined ? undefined : Number(last) + 1;
}

const fail = (code: string, detail: string): Move => ({ do: 'fail', error: new UploadBrokerError(code, detail) });
const trouble = (detail: string): UploadBrokerError => new UploadBrokerError('gave-up', detail, { retryable: true });
const busy = (status: number): UploadBrokerError => new UploadBrokerError('gave-up', `storage answered ${status}`, { status, retryable: true });
const unaware = (cause?: UploadBrokerError): UploadBrokerError =>
  new UploadBrokerError('gave-up', 'storage took everything, and the broker does not see the object', { retryable: true, cause });
const unexpected = (move: Move, outcome: Outcome): Move => fail('unexpected-answer', `${move.do} was answered from ${outcome.from}`);
