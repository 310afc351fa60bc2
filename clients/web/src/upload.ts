/** One upload: does what the machine says, tells what happens, and can be stopped at any point. */
import type { BrokerAnswer, Fetch } from './broker.js';
import { BrokerClient, isAway, isSettled, mayHaveCreated } from './broker.js';
import { Control, STOPPED } from './control.js';
import { UploadBrokerError } from './errors.js';
import type { ClientState, EventOf, Progress, UploadEvent } from './events.js';
import { Events, Speed } from './events.js';
import type { Move, Outcome } from './machine.js';
import { Machine } from './machine.js';
import type { Content, UploadOptions } from './order.js';
import { isStream, orderOf } from './order.js';
import type { Patience } from './pace.js';
import { PATIENCE, Pace } from './pace.js';
import { Records } from './records.js';
import { Regions } from './regions.js';
import { withoutSlash } from './route.js';
import type { Source } from './source.js';
import { BlobSource, StreamSource, unreadable } from './source.js';
import { StorageClient } from './storage.js';
import type { BrokerUpload, CompletedUpload, CreateUpload } from './wire.js';
import { isFinal } from './wire.js';

/** So often is a cancellation sent; whom it does not reach, the upload's own expiry will. */
const CANCEL_ATTEMPTS = 3;
/** So long at most does each of them take, in milliseconds, the token included: somebody waits for the end. */
const CANCEL_WITHIN_MS = 15_000;

const STATES: Partial<Record<Move['do'], ClientState>> = {
  create: 'preparing', find: 'preparing', start: 'preparing',
  put: 'uploading', ask: 'uploading', send: 'uploading', look: 'uploading', renew: 'uploading',
  complete: 'verifying', wait: 'waiting',
};

/** An upload under way. It begins by itself. */
export class Upload implements AsyncIterable<UploadEvent> {
  /** The upload, as soon as the broker has verified it. Rejects with an `UploadBrokerError`. */
  readonly done: Promise<CompletedUpload>;

  readonly #content: Content;
  readonly #options: UploadOptions;
  readonly #patience: Patience;
  readonly #fetch: Fetch;
  readonly #events = new Events();
  readonly #speed = new Speed();
  readonly #broker: BrokerClient;
  readonly #records: Records;
  readonly #control: Control;
  readonly #regions: Regions;
  readonly #onOnline = (): void => this.#control.online();
  readonly #onOffline = (): void => this.#control.offline();
  readonly #onAbort = (): void => void this.cancel();

  #state: ClientState = 'preparing';
  #progress: Progress;
  #id: string | undefined;
  #upload: BrokerUpload | undefined;
  /** The creation was sent, and perhaps done, but its answer never came. */
  #isUnsure = false;
  /** An earlier page began it, and the broker has not said yet that it goes on. */
  #isFromBefore = false;
  #source: Source | undefined;
  #storage!: StorageClient;
  #machine!: Machine;
  #pace!: Pace;
  #move: Move['do'] = 'create';

  constructor(content: Content, options: UploadOptions) {
    this.#content = content;
    this.#options = options;
    this.#patience = { ...PATIENCE, ...options.patience };
    this.#control = new Control(this.#patience);
    this.#fetch = options.fetch ?? ((url, init) => fetch(url, init));
    this.#broker = new BrokerClient(withoutSlash(options.broker ?? options.regions?.[0] ?? ''), options.token, this.#fetch);
    this.#records = new Records(options.store, (cause) => this.#events.emit({ type: 'unsaved', cause }));
    this.#regions = new Regions(options, this.#broker, this.#records, this.#control, this.#fetch, this.#patience.answerWithinMs);
    const totalBytes = isStream(content) ? options.size : content.size;
    this.#progress = { receivedBytes: 0, totalBytes, bytesPerSecond: undefined, secondsLeft: undefined };
    // A turn later, so that whoever made it can listen first.
    this.done = Promise.resolve().then(() => this.#run());
    this.done.catch(() => {});
  }

  /** The broker's id of the upload, as soon as there is one. */
  get id(): string | undefined {
    return this.#id;
  }

  get state(): ClientState {
    return this.#state;
  }

  get progress(): Progress {
    return this.#progress;
  }

  /** Calls `listener` at each event of that type; gives what ends that. */
  on<T extends UploadEvent['type']>(type: T, listener: (event: EventOf<T>) => void): () => void {
    return this.#events.on(type, listener);
  }

  /** All events from now on, to the last, `completed` or `failed`. */
  [Symbol.asyncIterator](): AsyncGenerator<UploadEvent, void, void> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Stops sending. What storage has stays; the chunk under way is sent again. */
  pause(): void {
    if (!this.#isOver && this.#control.pause()) this.#become('paused');
  }

  resume(): void {
    this.#control.resume();
  }

  /**
   * Ends the upload for good: the broker cancels the session and frees the quota. `done` then rejects with `cancelled`,
   * unless the last byte was faster.
   */
  async cancel(): Promise<void> {
    // A creation that is on its way is left to finish, or nobody would know what to cancel.
    if (!this.#isOver) this.#control.cancel(this.#move === 'create' && this.#broker.isSending ? 'finish' : 'cut off');
    await this.done.then(() => {}, () => {});
  }

  get #isOver(): boolean {
    return this.#state === 'completed' || this.#state === 'failed' || this.#state === 'cancelled';
  }

  async #run(): Promise<CompletedUpload> {
    const target = globalThis as Partial<EventTarget>;
    const { signal } = this.#options;
    target.addEventListener?.('online', this.#onOnline);
    target.addEventListener?.('offline', this.#onOffline);
    signal?.addEventListener('abort', this.#onAbort);
    if (signal?.aborted) this.#control.cancel('cut off');
    try {
      const upload = await this.#drive();
      return this.#completed(upload);
    } catch (thrown) {
      const error = thrown === STOPPED ? new UploadBrokerError('cancelled', 'the upload was cancelled') : asError(thrown);
      // Nobody reads on: whoever feeds a stream is told now, not when the broker has answered.
      this.#source?.close();
      // Later is another time, and a stream will not be there then.
      const isForLater = error.retryable && !isStream(this.#content);
      const late = isForLater ? undefined : await this.#abandon();
      if (late?.state === 'completed' && thrown === STOPPED) return this.#completed(late as CompletedUpload);
      this.#become(error.code === 'cancelled' ? 'cancelled' : 'failed');
      this.#events.emit({ type: 'failed', error });
      throw error;
    } finally {
      target.removeEventListener?.('online', this.#onOnline);
      target.removeEventListener?.('offline', this.#onOffline);
      signal?.removeEventListener('abort', this.#onAbort);
      this.#source?.close();
      this.#records.release();
    }
  }

  #completed(upload: CompletedUpload): CompletedUpload {
    this.#advance(upload.result.size_bytes);
    this.#become('completed');
    const told = { ...upload };
    this.#events.emit({ type: 'completed', upload: told });
    return told;
  }

  async #drive(): Promise<CompletedUpload> {
    const order = orderOf(this.#content, this.#options);
    await this.#control.gate();
    await this.#regions.choose();
    let move = await this.#begin(order);
    for (;;) {
      if (await this.#control.gate()) move = this.#machine.interrupted(move);
      this.#move = move.do;
      this.#become(STATES[move.do]);
      if (move.do === 'end') {
        const anew = this.#isFromBefore && move.upload.state !== 'completed';
        if (!anew) return this.#settle(move.upload);
        move = await this.#anew(order, 'ended', `the upload begun before is ${move.upload.state}`);
        continue;
      }
      if (move.do === 'fail') {
        const anew = this.#isFromBefore && move.error.code === 'not-found';
        if (!anew) throw move.error;
        move = await this.#anew(order, 'forgotten', 'the broker does not know the upload begun before');
        continue;
      }
      if (move.do === 'wait') {
        this.#events.emit({ type: 'retry', error: move.error, waitMs: move.ms, attempt: this.#pace.failures });
        const isOffline = await this.#control.sleep(move.ms, move.error.status === 0);
        // Without a network it may take hours, which cost no patience.
        if (isOffline) this.#pace.progressed();
        // Woken by a pause, it stays a wait, which the gate then takes for interrupted.
        if (this.#control.isStopped) continue;
        if (move.then.do === 'create' && isAway(move.error)) await this.#regions.leave();
        move = move.then;
        continue;
      }
      const outcome = await this.#make(move);
      if (outcome === STOPPED) {
        move = this.#machine.interrupted(move);
        continue;
      }
      if ('problem' in outcome) {
        if (await this.#regions.isSentOn(outcome.problem)) continue;
        if (move.do === 'create' && (await this.#mended(outcome.problem))) continue;
      }
      const before = move.do;
      move = this.#machine.after(move, outcome);
      await this.#observed(before, outcome);
    }
  }

  /** Goes on with what an earlier page began, or begins. */
  async #begin(order: CreateUpload): Promise<Move> {
    const found = isStream(this.#content) ? { record: undefined } : await this.#records.find(this.#broker.base, this.#content, order, this.#options.regions);
    if (found.anew) this.#events.emit({ type: 'anew', ...found.anew });
    const { record } = found;
    this.#isFromBefore = record !== undefined;
    this.#isUnsure = record !== undefined && record.uploadId === undefined;
    if (record) {
      this.#broker.base = record.broker;
    } else {
      await this.#records.begin(this.#broker.base, order);
    }
    this.#source?.close();
    this.#source = isStream(this.#content)
      ? new StreamSource(this.#content, this.#options.size)
      : new BlobSource(this.#content, record?.digest);
    this.#storage = new StorageClient(this.#options, this.#source, this.#speed, this.#control, this.#patience, this.#fetch);
    this.#pace = new Pace(this.#patience, Math.random);
    this.#machine = new Machine(this.#source, this.#pace);
    // Also where an earlier page went away while it digested: then it has sent nothing.
    const isToDeclare = this.#options.digest === 'declare' && !isStream(this.#content) && !record?.uploadId;
    if (isToDeclare && this.#records.order.crc32c === undefined) await this.#declare();
    if (!record?.uploadId) return { do: 'create' };
    this.#id = record.uploadId;
    const move = this.#machine.resumed(record.receivedBytes);
    this.#advance(record.receivedBytes);
    return move;
  }

  async #anew(order: CreateUpload, reason: EventOf<'anew'>['reason'], detail: string): Promise<Move> {
    await this.#records.forget();
    this.#id = this.#upload = undefined;
    this.#advance(0);
    this.#events.emit({ type: 'anew', reason, detail });
    return this.#begin(order);
  }

  /** Digests everything, for the creation to declare it. */
  async #declare(): Promise<void> {
    // In pieces, so that a pause need not wait for the end.
    const size = this.#source!.size!;
    let to = 0;
    do {
      await this.#control.gate();
      to = Math.min(size, to + 64 * 1024 * 1024);
      await this.#control.unlessCancelled(this.#source!.digestTo(to));
    } while (to < size);
    await this.#records.reorder({ ...this.#records.order, crc32c: this.#source!.crc32c! });
  }

  /** Whether the order was refused for something that could be mended, and was. */
  async #mended(problem: UploadBrokerError): Promise<boolean> {
    const { digest } = this.#options;
    const { order } = this.#records;
    const isOfDigest = problem.violations.length > 0 && problem.violations.every(({ limit }) => limit === 'digest');
    if (problem.code !== 'policy-violation' || !isOfDigest) return false;
    const isForbidden = problem.violations.every(({ allowed }) => allowed === 'none');
    if (isForbidden && order.crc32c !== undefined) {
      const { crc32c: _, ...rest } = order;
      await this.#records.reorder(rest);
      return true;
    }
    if (isForbidden || order.crc32c !== undefined || digest === 'none' || isStream(this.#content)) return false;
    await this.#declare();
    return true;
  }

  /** Takes note of what a move brought, before the next one. */
  async #observed(move: Move['do'], outcome: Outcome): Promise<void> {
    if (outcome.from === 'broker' && 'upload' in outcome) {
      const { upload } = outcome;
      const isFirst = this.#upload === undefined;
      this.#upload = upload;
      this.#id = upload.id;
      if (upload.transfer && move !== 'complete' && move !== 'look') this.#storage.granted(upload.transfer);
      if (!isFinal(upload)) {
        // From here on it is this page's own, whatever an earlier one began.
        if (isFirst) this.#events.emit({ type: 'admitted', upload: { ...upload, transfer: undefined }, isResumed: this.#isFromBefore });
        this.#isFromBefore = false;
      }
      this.#regions.answered();
      if (move === 'renew' && !isFinal(upload)) this.#events.emit({ type: 'renewed' });
    }
    const received = this.#machine.received;
    if (received > this.#source!.keptFrom) this.#source!.confirmed(received);
    this.#advance(received);
    await this.#records.progressed({
      uploadId: this.#id, receivedBytes: received, digest: this.#source!.digestState,
      expiresAt: this.#upload && Date.parse(this.#upload.expires_at),
    });
  }

  async #create(signal: AbortSignal): Promise<BrokerAnswer> {
    const answer = await this.#broker.create(this.#records.order, this.#records.key, signal);
    if (mayHaveCreated(answer)) this.#isUnsure = true;
    else if ('upload' in answer || isSettled(answer)) this.#isUnsure = false;
    return this.#regions.follow(answer);
  }

  #make(move: Move): Promise<Outcome | typeof STOPPED> {
    const id = this.#id!;
    switch (move.do) {
      case 'create': return this.#control.cuttable((signal) => this.#create(signal));
      case 'find': return this.#control.cuttable((signal) => this.#broker.find(id, signal));
      case 'look': return this.#control.cuttable((signal) => this.#broker.look(id, signal));
      case 'complete': return this.#control.cuttable((signal) => this.#broker.complete(id, signal));
      case 'renew': return this.#control.cuttable((signal) => this.#broker.renew(id, signal));
      case 'start': return this.#storage.start();
      case 'put': return this.#storage.put();
      case 'ask': return this.#storage.ask();
      case 'send': return this.#storage.send(move.offset);
      default: throw new UploadBrokerError('unexpected-answer', `nothing can be made of ${move.do}`);
    }
  }

  async #settle(upload: BrokerUpload): Promise<CompletedUpload> {
    await this.#records.forget();
    this.#upload = upload;
    switch (upload.state) {
      case 'completed': {
        const { result } = upload;
        if (!result) throw new UploadBrokerError('unexpected-answer', 'the upload is completed without a result', { upload });
        const { size, crc32c } = this.#source!;
        const isOther = result.size_bytes !== size || (crc32c !== undefined && result.crc32c !== undefined && crc32c !== result.crc32c);
        if (isOther) throw new UploadBrokerError('content-mismatch', 'what is stored is not this file', { upload });
        return upload as CompletedUpload;
      }
      case 'rejected': throw new UploadBrokerError('rejected', upload.rejection?.detail ?? 'the upload was rejected', { upload });
      case 'expired': throw new UploadBrokerError('expired', 'the upload took longer than its policy allows', { upload });
      default: throw new UploadBrokerError('cancelled', 'the upload was cancelled', { upload });
    }
  }

  /** The upload is of no more use: nobody is to continue it, and its quota is to be free. */
  async #abandon(): Promise<BrokerUpload | undefined> {
    // The same key finds what was created. What is not found this way holds its quota until it expires.
    if (!this.#id && this.#isUnsure) await this.#once((signal) => this.#create(signal)).then((answer) => {
      if ('upload' in answer) [this.#id, this.#upload] = [answer.upload.id, answer.upload];
    });
    await this.#records.forget();
    if (!this.#id || (this.#upload && isFinal(this.#upload))) return this.#upload;
    const pace = new Pace(this.#patience, Math.random);
    for (let attempt = 0; attempt < CANCEL_ATTEMPTS; attempt++) {
      const answer = await this.#once((signal) => this.#broker.cancel(this.#id!, signal));
      if ('upload' in answer) return answer.upload;
      const error = 'problem' in answer ? answer.problem : answer.error;
      if (!error.retryable || error.code === 'token-unavailable') return undefined;
      const ms = pace.next();
      if (ms === undefined || !this.#control.isCancelled) return undefined;
      await new Promise((resolve) => setTimeout(resolve, ms));
    }
    return undefined;
  }

  /** What nothing but time cuts off. */
  async #once<T>(act: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), Math.min(this.#patience.answerWithinMs, CANCEL_WITHIN_MS));
    return act(controller.signal).finally(() => clearTimeout(timer));
  }

  #advance(receivedBytes: number): void {
    const totalBytes = this.#source ? this.#source.size : this.#progress.totalBytes;
    const { bytesPerSecond } = this.#speed;
    const secondsLeft = bytesPerSecond && totalBytes !== undefined ? (totalBytes - receivedBytes) / bytesPerSecond : undefined;
    const isNews = receivedBytes !== this.#progress.receivedBytes || totalBytes !== this.#progress.totalBytes;
    this.#progress = { receivedBytes, totalBytes, bytesPerSecond, secondsLeft };
    if (isNews) this.#events.emit({ type: 'progress', ...this.#progress });
  }

  #become(state: ClientState | undefined): void {
    if (state === undefined || state === this.#state) return;
    this.#state = state;
    this.#events.emit({ type: 'state', state });
  }
}

const asError = (thrown: unknown): UploadBrokerError =>
  thrown instanceof UploadBrokerError ? thrown : thrown instanceof DOMException ? unreadable(thrown)
    : new UploadBrokerError('unexpected-answer', 'the upload failed in a way that it should not', { cause: thrown });
