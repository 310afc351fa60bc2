/** The broker's API: one method an operation, one request each, save for a token that was refused. */
import { STOPPED } from './control.js';
import { UploadBrokerError, isTransient, problemError } from './errors.js';
import type { BrokerUpload, CreateUpload, Problem } from './wire.js';
import { isUpload } from './wire.js';

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;
export type TokenProvider = () => string | Promise<string>;

/** What came of asking the broker. */
export type BrokerAnswer =
  | { from: 'broker'; upload: BrokerUpload; isReplay: boolean; location: string | null }
  | { from: 'broker'; problem: UploadBrokerError }
  | Nowhere;

/** No answer: the network, a time-out, or somebody who cut the request off. */
export interface Nowhere {
  from: 'nowhere';
  error: UploadBrokerError;
}

/** Calls for a token that are under way, so that many uploads ask once. What they gave is kept by each upload alone. */
const asking = new WeakMap<TokenProvider, Promise<string>>();

function ask(provider: TokenProvider): Promise<string> {
  let call = asking.get(provider);
  if (!call) {
    const made = Promise.resolve().then(provider).finally(() => {
      if (asking.get(provider) === made) asking.delete(provider);
    });
    asking.set(provider, (call = made));
  }
  return call;
}

/** As `ask`, until `signal` ends it. A provider that took too long is asked anew the next time. */
async function askUntil(provider: TokenProvider, signal: AbortSignal): Promise<string> {
  let stop = (): void => {};
  const stopped = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop);
  });
  try {
    return await Promise.race([ask(provider), stopped]);
  } catch (error) {
    if (signal.aborted && signal.reason !== STOPPED) asking.delete(provider);
    throw error;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** What a header can bear; a token that cannot would make `fetch` throw, with the token in its message. */
const isToken = (token: unknown): token is string => typeof token === 'string' && /^[\x21-\x7e]+$/.test(token);

/** How often in a row the provider may fail. */
const MOST_TOKEN_FAILURES = 3;

export class BrokerClient {
  readonly #fetch: Fetch;
  readonly #provider: TokenProvider;
  #token: string | undefined;
  #tokenFailures = 0;
  /** Whether a request is out, so that the broker may do what it asks for. */
  isSending = false;

  /** `base` is without a slash at its end. */
  constructor(public base: string, provider: TokenProvider, fetch: Fetch) {
    this.#provider = provider;
    this.#fetch = fetch;
  }

  create(body: CreateUpload, key: string, signal: AbortSignal): Promise<BrokerAnswer> {
    const headers = { 'content-type': 'application/json', 'idempotency-key': key };
    return this.#call('POST', '', { headers, body: JSON.stringify(body), signal });
  }

  find(id: string, signal: AbortSignal): Promise<BrokerAnswer> {
    return this.#call('GET', `/${id}`, { signal });
  }

  /** As `find`, after the broker has looked at what storage has. */
  look(id: string, signal: AbortSignal): Promise<BrokerAnswer> {
    return this.#call('GET', `/${id}?refresh=true`, { signal });
  }

  complete(id: string, signal: AbortSignal): Promise<BrokerAnswer> {
    return this.#call('POST', `/${id}/complete`, { signal });
  }

  renew(id: string, signal: AbortSignal): Promise<BrokerAnswer> {
    return this.#call('POST', `/${id}/renew`, { signal });
  }

  cancel(id: string, signal: AbortSignal): Promise<BrokerAnswer> {
    return this.#call('DELETE', `/${id}`, { signal });
  }

  async #call(method: string, path: string, init: RequestInit): Promise<BrokerAnswer> {
    for (let isRepeat = false; ; isRepeat = true) {
      const token = await this.#currentToken(init.signal!);
      if (typeof token !== 'string') return token;
      const answer = await this.#once(method, path, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });
      const isRefused = 'problem' in answer && answer.problem.status === 401;
      if (!isRefused) return answer;
      // Only if nobody has fetched another one since.
      if (this.#token === token) this.#token = undefined;
      if (isRepeat) return answer;
    }
  }

  async #once(method: string, path: string, init: RequestInit): Promise<BrokerAnswer> {
    this.isSending = true;
    try {
      const response = await this.#fetch(`${this.base}/v1/uploads${path}`, { ...init, method, credentials: 'omit', cache: 'no-store' });
      const text = await response.text();
      const body = parse(text);
      if (!response.ok) {
        return { from: 'broker', problem: problemError(response.status, body, retryAfterMs(response.headers)) };
      }
      if (isUpload(body)) {
        return { from: 'broker', upload: body, isReplay: response.headers.has('idempotent-replayed'), location: response.headers.get('location') };
      }
      return { from: 'broker', problem: new UploadBrokerError('unexpected-answer', 'the broker answered with something that is no upload', { status: response.status }) };
    } catch (error) {
      return {
        from: 'nowhere',
        error: new UploadBrokerError('gave-up', `the broker at ${this.base} could not be reached; if it runs, it may not allow the origin of this page`, { retryable: true, cause: error }),
      };
    } finally {
      this.isSending = false;
    }
  }

  async #currentToken(signal: AbortSignal): Promise<string | BrokerAnswer> {
    if (this.#token !== undefined) return this.#token;
    try {
      const token = await askUntil(this.#provider, signal);
      if (!isToken(token)) throw new TypeError('it is no bearer token');
      this.#tokenFailures = 0;
      return (this.#token = token);
    } catch (error) {
      if (error instanceof UploadBrokerError) return { from: 'broker', problem: error };
      if (signal.reason !== STOPPED) this.#tokenFailures += 1;
      const facts = { retryable: true, cause: error };
      const failure = new UploadBrokerError('token-unavailable', 'the application gave no token', facts);
      return this.#tokenFailures < MOST_TOKEN_FAILURES ? { from: 'nowhere', error: failure } : { from: 'broker', problem: failure };
    }
  }
}

/** Whether the broker may answer the same better later. A quota that is used up is for a person to know. */
export const isPassing = ({ status, code }: UploadBrokerError): boolean =>
  code === 'idempotency-in-progress' || (isTransient(status) && code !== 'quota-exceeded');

/**
 * Whether a broker is out of reach: nothing answers, or what stands before it does, without a problem document. Load
 * balancers answer without CORS headers as a rule, which a page cannot tell from a lost network; others can.
 */
export const isAway = ({ code, status, problem }: UploadBrokerError): boolean =>
  status === 0 ? code === 'gave-up' : status >= 500 && problem === undefined;

/** Whether the upload may have been created although this answer does not bear it. */
export const mayHaveCreated = (answer: BrokerAnswer): boolean => {
  if (answer.from === 'nowhere') return answer.error.code === 'gave-up';
  if (!('problem' in answer)) return false;
  const { status, code } = answer.problem;
  return status >= 500 || status === 408 || code === 'idempotency-in-progress';
};

/** Whether this answer says of the key that nothing was created under it: who may not ask, or not now, is not told. */
export const isSettled = (answer: BrokerAnswer): boolean =>
  'problem' in answer && ![401, 403, 429].includes(answer.problem.status) && !mayHaveCreated(answer);

function parse(text: string): Problem | BrokerUpload | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** `Retry-After`, in seconds or as a date. Browsers show it of the broker, not of storage. */
export function retryAfterMs(headers: Headers, now = Date.now()): number | undefined {
  const value = headers.get('retry-after')?.trim();
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isFinite(ms) && ms > 0 ? ms : undefined;
}
