// @ts-nocheck: made of clients/web by `npm run build --workspace demo` in clients/. Do not edit.
var __defProp = Object.defineProperty;
var __getOwnPropNames = Object.getOwnPropertyNames;
var __esm = (fn, res, err) => function __init() {
  if (err) throw err[0];
  try {
    return fn && (res = (0, fn[__getOwnPropNames(fn)[0]])(fn = 0)), res;
  } catch (e) {
    throw err = [e], e;
  }
};
var __export = (target, all) => {
  for (var name in all)
    __defProp(target, name, { get: all[name], enumerable: true });
};

// crc32c.ts
var crc32c_exports = {};
__export(crc32c_exports, {
  crc32c: () => crc32c,
  crc32cOf: () => crc32cOf,
  toBase64: () => toBase64
});
function crc32c(bytes, crc = 0) {
  let c = ~crc;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    c ^= bytes[i] | bytes[i + 1] << 8 | bytes[i + 2] << 16 | bytes[i + 3] << 24;
    c = T7[c & 255] ^ T6[c >>> 8 & 255] ^ T5[c >>> 16 & 255] ^ T4[c >>> 24] ^ T3[bytes[i + 4]] ^ T2[bytes[i + 5]] ^ T1[bytes[i + 6]] ^ T0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) c = T0[(c ^ bytes[i]) & 255] ^ c >>> 8;
  return ~c >>> 0;
}
async function crc32cOf(blob, crc = 0) {
  for (let at = 0; at < blob.size; at += PIECE) {
    crc = crc32c(new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer()), crc);
  }
  return crc;
}
var TABLES, T0, T1, T2, T3, T4, T5, T6, T7, PIECE, toBase64;
var init_crc32c = __esm({
  "crc32c.ts"() {
    "use strict";
    TABLES = Array.from({ length: 8 }, () => new Int32Array(256));
    for (let n = 0; n < 256; n++) {
      let crc = n;
      for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >>> 1 ^ 2197175160 : crc >>> 1;
      TABLES[0][n] = crc;
    }
    for (let n = 0; n < 256; n++) {
      for (let k = 1; k < 8; k++) {
        const before = TABLES[k - 1][n];
        TABLES[k][n] = before >>> 8 ^ TABLES[0][before & 255];
      }
    }
    [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES;
    PIECE = 1024 * 1024;
    toBase64 = (crc) => btoa(String.fromCharCode(crc >>> 24, crc >>> 16 & 255, crc >>> 8 & 255, crc & 255));
  }
});

// digest.ts
var digest_exports = {};
__export(digest_exports, {
  Digest: () => Digest
});
var WORTH_A_WORKER, Digest, NoWorker;
var init_digest = __esm({
  "digest.ts"() {
    "use strict";
    init_crc32c();
    WORTH_A_WORKER = 8 * 1024 * 1024;
    Digest = class {
      #state;
      #queue = Promise.resolve();
      #worker;
      #canWork;
      constructor(size, state = { bytes: 0, crc: 0 }) {
        this.#state = { ...state };
        this.#canWork = typeof Worker === "function" && size !== void 0 && size >= WORTH_A_WORKER;
      }
      get state() {
        return { ...this.#state };
      }
      base64() {
        return toBase64(this.#state.crc);
      }
      /** Digests up to byte `to` of `file`, after what was asked for before. Rejects when the file cannot be read. */
      advance(file, to) {
        const next = this.#queue.then(async () => {
          const { bytes, crc } = this.#state;
          if (to <= bytes) return;
          this.#state = { bytes: to, crc: await this.#of(file.slice(bytes, to), crc) };
        });
        this.#queue = next.catch(() => {
        });
        return next;
      }
      /** Digests what a stream gave next. */
      append(bytes) {
        this.#state = { bytes: this.#state.bytes + bytes.length, crc: crc32c(bytes, this.#state.crc) };
      }
      close() {
        this.#worker?.terminate();
        this.#worker = void 0;
        this.#canWork = false;
      }
      async #of(blob, crc) {
        if (this.#canWork) {
          try {
            return await this.#inWorker(blob, crc);
          } catch (error) {
            if (!(error instanceof NoWorker)) throw error;
            this.close();
          }
        }
        return crc32cOf(blob, crc);
      }
      #inWorker(blob, crc) {
        return new Promise((resolve, reject) => {
          try {
            this.#worker ??= new Worker(new URL("./crc32c-worker.js", import.meta.url), { type: "module" });
          } catch {
            reject(new NoWorker());
            return;
          }
          const worker = this.#worker;
          worker.onerror = (event) => {
            event.preventDefault();
            reject(new NoWorker());
          };
          worker.onmessage = ({ data }) => "crc" in data ? resolve(data.crc) : reject(data.error);
          worker.postMessage({ blob, crc });
        });
      }
    };
    NoWorker = class extends Error {
    };
  }
});

// control.ts
var STOPPED = /* @__PURE__ */ Symbol("stopped");
var Control = class {
  #patience;
  #wasOffline = false;
  #isPaused = false;
  #isCancelled = false;
  #request;
  /** Ends the sleep under way. */
  #wake;
  #waitsForNetwork = false;
  /** End what is waited for just now, and only a cancellation ends. */
  #waits = /* @__PURE__ */ new Set();
  constructor(patience) {
    this.#patience = patience;
  }
  get isCancelled() {
    return this.#isCancelled;
  }
  get isStopped() {
    return this.#isPaused || this.#isCancelled;
  }
  /** Tells whether that is news. */
  pause() {
    if (this.#isPaused) return false;
    this.#isPaused = true;
    this.#request?.abort(STOPPED);
    this.#wake?.();
    return true;
  }
  resume() {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#wake?.();
  }
  /** For good. The request under way is cut off, or may finish. */
  cancel(request) {
    this.#isCancelled = true;
    for (const stop of this.#waits) stop();
    if (request === "cut off") this.#request?.abort(STOPPED);
    this.#wake?.();
  }
  /** What `act` comes to, unless it is cancelled before: then throws `STOPPED`, and what comes of it is nobody's. */
  async unlessCancelled(act) {
    let stop = () => {
    };
    const cancelled = new Promise((_, reject) => stop = () => reject(STOPPED));
    if (this.#isCancelled) stop();
    this.#waits.add(stop);
    return Promise.race([act, cancelled]).finally(() => this.#waits.delete(stop));
  }
  /** The network is gone. What is under way may get its answer all the same. */
  offline() {
    this.#wasOffline = true;
  }
  /** There is a network again: who sleeps for want of one wakes up, and what began before on another one is done anew. */
  online() {
    if (this.#wasOffline) this.#request?.abort();
    if (this.#waitsForNetwork) this.#wake?.();
  }
  /** Waits while it is paused; tells whether it was. Throws `STOPPED` once it is cancelled. */
  async gate() {
    let wasPaused = false;
    while (this.#isPaused && !this.#isCancelled) {
      wasPaused = true;
      await this.#until(void 0);
    }
    if (this.#isCancelled) throw STOPPED;
    return wasPaused;
  }
  /**
   * Sleeps so many milliseconds, or until somebody wakes it; for want of a network at least as long as the longest pause,
   * since then it is woken in time. Tells whether the platform says that there is no network, about which platforms err.
   */
  async sleep(ms, forNetwork) {
    if (this.isStopped) return false;
    const isOffline = forNetwork && typeof navigator !== "undefined" && navigator.onLine === false;
    this.#waitsForNetwork = forNetwork;
    await this.#until(isOffline ? Math.max(ms, this.#patience.longestPauseMs) : ms);
    this.#waitsForNetwork = false;
    return isOffline;
  }
  /** Something that is cut off by a pause, a cancellation, another network, or when it takes too long. */
  async cuttable(act, withinMs = this.#patience.answerWithinMs) {
    if (this.isStopped) return STOPPED;
    const request = this.#request = new AbortController();
    const timer = setTimeout(() => request.abort(), withinMs);
    this.#wasOffline = false;
    try {
      const answer = await act(request.signal);
      const isCutOff = request.signal.reason === STOPPED && answer.from === "nowhere";
      return isCutOff ? STOPPED : answer;
    } finally {
      clearTimeout(timer);
      this.#request = void 0;
    }
  }
  async #until(ms) {
    let timer;
    await new Promise((resolve) => {
      this.#wake = resolve;
      if (ms !== void 0) timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
    });
    clearTimeout(timer);
    this.#wake = void 0;
  }
};

// errors.ts
var UploadBrokerError = class extends Error {
  name = "UploadBrokerError";
  code;
  /** The HTTP status that says so; 0 where no answer does. */
  status;
  /** This problem, for people. */
  detail;
  /** Whether the same may go well later. What was uploaded stays, and `createUpload` with the same file goes on with it. */
  retryable;
  /** `policy-violation`: each limit that is not kept. */
  violations;
  /** `invalid-request`: each thing that is wrong with the request. */
  errors;
  /** Names the request in the broker's logs. */
  requestId;
  /** How long the server wants to be left alone, in milliseconds. */
  retryAfterMs;
  /** The whole problem document. */
  problem;
  /** The upload as the broker last told of it, where it is over: `rejection` says why. Bears no secret. */
  upload;
  constructor(code, detail, facts = {}) {
    super(`${detail} (${code})`, facts.cause === void 0 ? void 0 : { cause: facts.cause });
    this.code = code;
    this.detail = detail;
    this.status = facts.status ?? 0;
    this.retryable = facts.retryable ?? false;
    this.problem = facts.problem;
    this.violations = facts.problem?.violations ?? [];
    this.errors = facts.problem?.errors ?? [];
    this.requestId = facts.problem?.request_id;
    this.retryAfterMs = facts.retryAfterMs;
    this.upload = facts.upload && { ...facts.upload, transfer: void 0 };
  }
};
var isTransient = (status) => status === 408 || status === 429 || status >= 500;
function problemError(status, body, retryAfterMs2) {
  const problem = typeof body === "object" && body !== null && typeof body.code === "string" ? body : void 0;
  const code = problem?.code ?? (isTransient(status) ? "overloaded" : "unexpected-answer");
  const detail = problem ? problem.detail ?? problem.title ?? code : `the broker answered ${status} without a problem document`;
  return new UploadBrokerError(code, detail, {
    status,
    problem,
    retryAfterMs: retryAfterMs2,
    retryable: isTransient(status) || code === "idempotency-in-progress" || status === 401
  });
}

// wire.ts
var isFinal = ({ state }) => state === "completed" || state === "rejected" || state === "cancelled" || state === "expired";
function isUpload(value) {
  const upload = value;
  return typeof upload === "object" && upload !== null && typeof upload.id === "string" && typeof upload.state === "string";
}

// broker.ts
var asking = /* @__PURE__ */ new WeakMap();
function ask(provider) {
  let call = asking.get(provider);
  if (!call) {
    const made = Promise.resolve().then(provider).finally(() => {
      if (asking.get(provider) === made) asking.delete(provider);
    });
    asking.set(provider, call = made);
  }
  return call;
}
async function askUntil(provider, signal) {
  let stop = () => {
  };
  const stopped = new Promise((_, reject) => {
    stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop);
  });
  try {
    return await Promise.race([ask(provider), stopped]);
  } catch (error) {
    if (signal.aborted && signal.reason !== STOPPED) asking.delete(provider);
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
var isToken = (token) => typeof token === "string" && /^[\x21-\x7e]+$/.test(token);
var MOST_TOKEN_FAILURES = 3;
var BrokerClient = class {
  /** `base` is without a slash at its end. */
  constructor(base, provider, fetch2) {
    this.base = base;
    this.#provider = provider;
    this.#fetch = fetch2;
  }
  base;
  #fetch;
  #provider;
  #token;
  #tokenFailures = 0;
  /** Whether a request is out, so that the broker may do what it asks for. */
  isSending = false;
  create(body, key, signal) {
    const headers = { "content-type": "application/json", "idempotency-key": key };
    return this.#call("POST", "", { headers, body: JSON.stringify(body), signal });
  }
  find(id, signal) {
    return this.#call("GET", `/${id}`, { signal });
  }
  /** As `find`, after the broker has looked at what storage has. */
  look(id, signal) {
    return this.#call("GET", `/${id}?refresh=true`, { signal });
  }
  complete(id, signal) {
    return this.#call("POST", `/${id}/complete`, { signal });
  }
  renew(id, signal) {
    return this.#call("POST", `/${id}/renew`, { signal });
  }
  cancel(id, signal) {
    return this.#call("DELETE", `/${id}`, { signal });
  }
  async #call(method, path, init) {
    for (let isRepeat = false; ; isRepeat = true) {
      const token = await this.#currentToken(init.signal);
      if (typeof token !== "string") return token;
      const answer = await this.#once(method, path, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });
      const isRefused = "problem" in answer && answer.problem.status === 401;
      if (!isRefused) return answer;
      if (this.#token === token) this.#token = void 0;
      if (isRepeat) return answer;
    }
  }
  async #once(method, path, init) {
    this.isSending = true;
    try {
      const response = await this.#fetch(`${this.base}/v1/uploads${path}`, { ...init, method, credentials: "omit", cache: "no-store" });
      const text = await response.text();
      const body = parse(text);
      if (!response.ok) {
        return { from: "broker", problem: problemError(response.status, body, retryAfterMs(response.headers)) };
      }
      if (isUpload(body)) {
        return { from: "broker", upload: body, isReplay: response.headers.has("idempotent-replayed"), location: response.headers.get("location") };
      }
      return { from: "broker", problem: new UploadBrokerError("unexpected-answer", "the broker answered with something that is no upload", { status: response.status }) };
    } catch (error) {
      return {
        from: "nowhere",
        error: new UploadBrokerError("gave-up", `the broker at ${this.base} could not be reached; if it runs, it may not allow the origin of this page`, { retryable: true, cause: error })
      };
    } finally {
      this.isSending = false;
    }
  }
  async #currentToken(signal) {
    if (this.#token !== void 0) return this.#token;
    try {
      const token = await askUntil(this.#provider, signal);
      if (!isToken(token)) throw new TypeError("it is no bearer token");
      this.#tokenFailures = 0;
      return this.#token = token;
    } catch (error) {
      if (error instanceof UploadBrokerError) return { from: "broker", problem: error };
      if (signal.reason !== STOPPED) this.#tokenFailures += 1;
      const facts = { retryable: true, cause: error };
      const failure = new UploadBrokerError("token-unavailable", "the application gave no token", facts);
      return this.#tokenFailures < MOST_TOKEN_FAILURES ? { from: "nowhere", error: failure } : { from: "broker", problem: failure };
    }
  }
};
var isPassing = ({ status, code }) => code === "idempotency-in-progress" || isTransient(status) && code !== "quota-exceeded";
var isAway = ({ code, status, problem }) => status === 0 ? code === "gave-up" : status >= 500 && problem === void 0;
var mayHaveCreated = (answer) => {
  if (answer.from === "nowhere") return answer.error.code === "gave-up";
  if (!("problem" in answer)) return false;
  const { status, code } = answer.problem;
  return status >= 500 || status === 408 || code === "idempotency-in-progress";
};
var isSettled = (answer) => "problem" in answer && ![401, 403, 429].includes(answer.problem.status) && !mayHaveCreated(answer);
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return void 0;
  }
}
function retryAfterMs(headers, now = Date.now()) {
  const value = headers.get("retry-after")?.trim();
  if (!value) return void 0;
  const ms = /^\d+$/.test(value) ? Number(value) * 1e3 : Date.parse(value) - now;
  return Number.isFinite(ms) && ms > 0 ? ms : void 0;
}

// events.ts
var Events = class {
  #listeners = /* @__PURE__ */ new Map();
  #queues = /* @__PURE__ */ new Set();
  #last;
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? /* @__PURE__ */ new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }
  emit(event) {
    if (isLast(event)) this.#last = event;
    for (const queue of this.#queues) queue(event);
    for (const listener of [...this.#listeners.get(event.type) ?? []]) {
      try {
        listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
  /** From now on until `completed` or `failed`. Progress that nobody has taken yet gives way to newer. */
  async *[Symbol.asyncIterator]() {
    const waiting = this.#last ? [this.#last] : [];
    let wake = () => {
    };
    const queue = (event) => {
      if (event.type === "progress" && waiting.at(-1)?.type === "progress") waiting.pop();
      waiting.push(event);
      wake();
    };
    this.#queues.add(queue);
    try {
      for (; ; ) {
        const event = waiting.shift();
        if (!event) {
          await new Promise((resolve) => wake = resolve);
          continue;
        }
        yield event;
        if (isLast(event)) return;
      }
    } finally {
      this.#queues.delete(queue);
    }
  }
};
var isLast = ({ type }) => type === "completed" || type === "failed";
var Speed = class {
  #bytesPerSecond;
  get bytesPerSecond() {
    return this.#bytesPerSecond;
  }
  measured(bytes, ms) {
    if (bytes <= 0 || ms <= 0) return;
    const now = bytes / ms * 1e3;
    const weight = 1 - Math.exp(-ms / 1e4);
    this.#bytesPerSecond = this.#bytesPerSecond === void 0 ? now : this.#bytesPerSecond + (now - this.#bytesPerSecond) * weight;
  }
};

// machine.ts
var MOST_RENEWALS = 5;
var MOST_DOUBTS = 3;
var FIRST_LOOK = 16 * 1024 * 1024;
var Machine = class {
  #bytes;
  #pace;
  #kind = "resumable";
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
  constructor(bytes, pace) {
    this.#bytes = bytes;
    this.#pace = pace;
  }
  /** What storage has for certain, and so what people may be shown. */
  get received() {
    return this.#reached;
  }
  /** After a reload: `received` is what the last page knew. */
  resumed(received) {
    this.#reached = received;
    return { do: "find" };
  }
  /** `move` was cut off by this side, as by a pause. */
  interrupted(move) {
    switch (move.do) {
      case "send":
        return { do: "ask" };
      case "put":
        return { do: "complete", after: { how: "unsure" } };
      case "wait":
        return move.then;
      default:
        return move;
    }
  }
  /** What to do after `move`, of which `outcome` came. */
  after(move, outcome) {
    if (outcome.from === "nowhere") return this.#lost(move, outcome);
    if (outcome.from === "storage") {
      switch (move.do) {
        case "start":
          return this.#afterStart(outcome);
        case "put":
          return this.#afterPut(outcome);
        case "ask":
        case "send":
          return this.#afterBytes(move, outcome);
        default:
          return unexpected(move, outcome);
      }
    }
    if ("problem" in outcome) return this.#afterProblem(move, outcome.problem);
    switch (move.do) {
      case "create":
        return this.#enter(outcome.upload, outcome.isReplay ? "known" : "new");
      case "find":
        return this.#enter(outcome.upload, "known");
      case "renew":
        this.#renewals += 1;
        return this.#enter(outcome.upload, "new");
      case "look":
        return isFinal(outcome.upload) ? { do: "end", upload: outcome.upload } : { do: "send", offset: move.offset };
      case "complete":
        return isFinal(outcome.upload) ? { do: "end", upload: outcome.upload } : this.#wait(move, unaware());
      default:
        return unexpected(move, outcome);
    }
  }
  /** The broker handed out an upload. Storage may have bytes of a known one, and has none of a new one. */
  #enter(upload, as) {
    if (isFinal(upload)) return { do: "end", upload };
    const { transfer } = upload;
    if (!transfer) {
      return this.#wait({ do: "find" }, new UploadBrokerError("gave-up", "the broker has not opened the session yet", { retryable: true }));
    }
    this.#kind = transfer.kind;
    this.#hasSession = transfer.kind === "resumable";
    if (as === "new") {
      this.#reached = 0;
      this.#wasStored = false;
      this.#pace.progressed();
    }
    switch (transfer.kind) {
      case "resumable":
        return as === "new" ? { do: "send", offset: 0 } : { do: "ask" };
      // The session that an earlier page opened by itself is forgotten, and with it what storage could be asked.
      case "signed_resumable":
        return as === "new" ? { do: "start" } : { do: "complete", after: { how: "unsure" } };
      case "simple":
        if (this.#bytes.isStream) return fail("unexpected-answer", "the broker wants a stream in one request");
        return as === "new" ? { do: "put" } : { do: "complete", after: { how: "unsure" } };
      default:
        return fail("unexpected-answer", "the broker asks for a kind of transfer that this client does not know");
    }
  }
  #afterStart({ status, location, retryAfterMs: retryAfterMs2 }) {
    if (status === 200 || status === 201) {
      if (!location) return fail("unexpected-answer", "storage opened a session without saying where; does the CORS of the bucket expose Location?");
      this.#hasSession = true;
      this.#wasRefused = false;
      this.#pace.progressed();
      return { do: "send", offset: 0 };
    }
    if (isTransient(status)) return this.#wait({ do: "start" }, busy(status), retryAfterMs2);
    return { do: "complete", after: { how: "refused", status } };
  }
  #afterPut({ status, retryAfterMs: retryAfterMs2 }) {
    if (status === 200 || status === 201) return this.#stored();
    if (status === 412) return { do: "complete", after: { how: "exists" } };
    if (isTransient(status)) return this.#wait({ do: "complete", after: { how: "unsure" } }, busy(status), retryAfterMs2);
    return { do: "complete", after: { how: "refused", status } };
  }
  /** A chunk, or the question, was answered. */
  #afterBytes(move, { status, range, retryAfterMs: retryAfterMs2 }) {
    switch (status) {
      case 200:
      case 201:
        return this.#stored();
      case 308:
        return this.#afterPersisted(move, range, retryAfterMs2);
      case 412:
        return { do: "complete", after: { how: "exists" } };
      case 404:
      case 410:
      case 499:
        return this.#renew();
    }
    if (isTransient(status)) return this.#wait({ do: "ask" }, busy(status), retryAfterMs2);
    const at = move.do === "send" ? move.offset : this.#reached;
    return { do: "fail", error: new UploadBrokerError("storage-refused", `storage refused the bytes at offset ${at} with status ${status}`, { status }) };
  }
  #afterPersisted(move, range, retryAfterMs2) {
    const { isStream: isStream2, size, keptFrom } = this.#bytes;
    const persisted = persistedBytes(range);
    if (persisted === void 0 || persisted > (size ?? Infinity)) {
      return this.#wait({ do: "ask" }, trouble("storage answered with a Range that cannot be"), retryAfterMs2);
    }
    if (persisted < keptFrom) {
      this.#doubts += 1;
      if (this.#doubts === MOST_DOUBTS) return fail("source-lost", "storage lost what it had confirmed, and a stream cannot be read again");
      return this.#wait({ do: "ask" }, trouble("storage answered that it has less than it had"), retryAfterMs2);
    }
    this.#doubts = 0;
    const gained = persisted > this.#reached;
    if (gained) {
      if (!this.#wasStored) this.#pace.progressed();
      this.#askedAgain = false;
    }
    const isEverything = !isStream2 && persisted > 0 && persisted === size;
    if (move.do === "ask" && !isEverything) {
      if (range === null && this.#reached > 0 && !this.#askedAgain) {
        this.#askedAgain = true;
        return this.#wait({ do: "ask" }, trouble("storage answered that it has nothing"), retryAfterMs2);
      }
      this.#askedAgain = false;
      this.#reached = persisted;
      return { do: "send", offset: persisted };
    }
    if (gained) this.#reached = persisted;
    if (move.do === "send" && gained && !isEverything) {
      if (isStream2 && size === void 0 && persisted >= this.#lookAt) {
        this.#lookAt = persisted * 2;
        return { do: "look", offset: persisted };
      }
      return { do: "send", offset: persisted };
    }
    return this.#wait({ do: "ask" }, trouble("storage kept nothing of what was sent"), retryAfterMs2);
  }
  #stored() {
    this.#reached = this.#bytes.size ?? this.#reached;
    if (!this.#wasStored) this.#pace.progressed();
    this.#wasStored = true;
    return { do: "complete", after: { how: "stored" } };
  }
  #afterProblem(move, problem) {
    switch (problem.code) {
      case "not-complete":
        if (move.do === "complete") return this.#afterNotComplete(move, problem);
        break;
      case "session-lost":
        if (move.do === "complete") return this.#renew();
        break;
      case "invalid-state":
        if (move.do === "complete" || move.do === "renew") return { do: "find" };
        break;
    }
    if (problem.code === "misdirected" && move.do !== "create") {
      const { detail, status, problem: document } = problem;
      return { do: "fail", error: new UploadBrokerError(problem.code, detail, { status, problem: document, retryable: true }) };
    }
    if (isPassing(problem)) {
      if (move.do === "look") return { do: "send", offset: move.offset };
      return this.#wait(move, problem, problem.retryAfterMs);
    }
    return { do: "fail", error: problem };
  }
  #afterNotComplete({ after }, problem) {
    switch (after.how) {
      case "stored": {
        const received = problem.problem?.received_bytes;
        const { size, keptFrom } = this.#bytes;
        const canGoOn = this.#kind === "resumable" && received !== void 0 && received < (size ?? 0) && received >= keptFrom;
        if (canGoOn) this.#reached = received;
        const next = canGoOn ? { do: "send", offset: received } : this.#hasSession ? { do: "ask" } : { do: "complete", after };
        return this.#wait(next, unaware(problem));
      }
      case "unsure":
        return this.#more();
      case "exists":
        return { do: "fail", error: new UploadBrokerError("storage-refused", "storage has another object of that name", { status: 412 }) };
      case "refused": {
        const isFirst = !this.#wasRefused && (after.status === 400 || after.status === 403);
        this.#wasRefused = true;
        if (isFirst) return this.#renew();
        return { do: "fail", error: new UploadBrokerError("storage-refused", `storage refused the signed URL with status ${after.status}`, { status: after.status }) };
      }
    }
  }
  /** Storage has not everything: how to go on by this kind of transfer. */
  #more() {
    if (this.#hasSession) return { do: "ask" };
    return this.#kind === "simple" ? { do: "put" } : { do: "start" };
  }
  #lost(move, { error }) {
    switch (move.do) {
      case "send":
        return this.#wait({ do: "ask" }, error);
      case "put":
        return this.#wait({ do: "complete", after: { how: "unsure" } }, error);
      case "look":
        return { do: "send", offset: move.offset };
      default:
        return this.#wait(move, error);
    }
  }
  #renew() {
    if (this.#bytes.keptFrom > 0) return fail("source-lost", "the session was lost, and a stream cannot be read again");
    if (this.#renewals < MOST_RENEWALS) return { do: "renew" };
    const detail = `the session was lost ${this.#renewals + 1} times`;
    return { do: "fail", error: new UploadBrokerError("session-lost-again", detail, { retryable: true }) };
  }
  #wait(then, error, retryAfterMs2) {
    const ms = this.#pace.next(retryAfterMs2);
    return ms === void 0 ? { do: "fail", error } : { do: "wait", ms, then, error };
  }
};
function persistedBytes(range) {
  if (range === null) return 0;
  const last = /^bytes=0-(\d{1,15})$/.exec(range.trim())?.[1];
  return last === void 0 ? void 0 : Number(last) + 1;
}
var fail = (code, detail) => ({ do: "fail", error: new UploadBrokerError(code, detail) });
var trouble = (detail) => new UploadBrokerError("gave-up", detail, { retryable: true });
var busy = (status) => new UploadBrokerError("gave-up", `storage answered ${status}`, { status, retryable: true });
var unaware = (cause) => new UploadBrokerError("gave-up", "storage took everything, and the broker does not see the object", { retryable: true, cause });
var unexpected = (move, outcome) => fail("unexpected-answer", `${move.do} was answered from ${outcome.from}`);

// order.ts
function checkName(name) {
  const refuse = (detail) => {
    throw new UploadBrokerError("invalid-name", detail);
  };
  if (name === "") refuse("the file has no name; give it one with the option `name`");
  if (/[/\\]/.test(name)) refuse("the file's name may not contain / or \\");
  if (/\p{Cc}/u.test(name)) refuse("the file's name may not contain control characters");
  if (/\p{Cs}/u.test(name)) refuse("the file's name is not well-formed Unicode");
  if (new TextEncoder().encode(name).length > 255) refuse("the file's name is longer than 255 bytes of UTF-8");
}
var isStream = (content) => "getReader" in content;
function orderOf(content, options) {
  const refuse = (detail) => {
    throw new UploadBrokerError("invalid-option", detail);
  };
  if (typeof options.token !== "function") refuse("`token` must be a function that gives a bearer token");
  if (!options.broker && !options.regions?.length) refuse("either `broker` or `regions` must be there");
  if (isStream(content) && options.transfer === "simple") refuse("a stream cannot be sent as a `simple` upload: its size is not known before its end");
  const name = options.name ?? content.name ?? "";
  checkName(name);
  const size = isStream(content) ? options.size : content.size;
  return {
    ...options.policy !== void 0 && { policy: options.policy },
    filename: name,
    content_type: options.contentType || content.type || "application/octet-stream",
    ...size !== void 0 && { size_bytes: size },
    ...options.metadata && { metadata: { ...options.metadata } },
    ...options.transfer && options.transfer !== "resumable" && { transfer_kind: options.transfer }
  };
}
function isSameOrder(one, other) {
  const comparable = ({ crc32c: _, metadata, ...rest }) => JSON.stringify([Object.entries(rest).sort(), Object.entries(metadata ?? {}).sort()]);
  return comparable(one) === comparable(other);
}

// pace.ts
var PATIENCE = { firstPauseMs: 1e3, longestPauseMs: 32e3, giveUpAfterMs: 6e5, answerWithinMs: 6e4 };
var SLOWEST = 16 * 1024;
var UNMEASURED = 64 * 1024;
var SLOWER = 4;
var answerWithin = (patience, bytes, bytesPerSecond = UNMEASURED * SLOWER) => patience.answerWithinMs + bytes / Math.max(SLOWEST, bytesPerSecond / SLOWER) * 1e3;
var Pace = class {
  #patience;
  #random;
  #failures = 0;
  #waitedMs = 0;
  constructor(patience, random) {
    this.#patience = patience;
    this.#random = random;
  }
  get failures() {
    return this.#failures;
  }
  /** Something was gained: the next failure is the first again. */
  progressed() {
    this.#failures = 0;
    this.#waitedMs = 0;
  }
  /** How long to pause after one more failure, or `undefined` when patience ends before the pause does. */
  next(retryAfterMs2 = 0) {
    const { firstPauseMs, longestPauseMs, giveUpAfterMs } = this.#patience;
    const doubled = firstPauseMs * 2 ** Math.min(this.#failures, 30) + this.#random() * firstPauseMs;
    const pause = Math.max(Math.min(doubled, longestPauseMs), retryAfterMs2);
    if (this.#waitedMs + pause > giveUpAfterMs) return void 0;
    this.#failures += 1;
    this.#waitedMs += pause;
    return pause;
  }
};
var MULTIPLE = 256 * 1024;
var ADVISED = 8 * 1024 * 1024;
var AIM_SECONDS = 8;
var ChunkSizer = class {
  #multiple;
  #min;
  #max;
  #bytes;
  constructor(advice, bounds, most = 64 * 1024 * 1024) {
    this.#multiple = Math.max(1, advice.chunk_multiple_bytes ?? MULTIPLE);
    this.#min = this.#whole(bounds.minBytes ?? 0);
    this.#max = Math.max(this.#min, this.#whole(Math.min(bounds.maxBytes ?? most, most)));
    this.#bytes = this.#clamp(bounds.bytes ?? advice.chunk_bytes ?? ADVISED);
  }
  get bytes() {
    return this.#bytes;
  }
  /** A chunk of so many bytes went through in so many milliseconds. */
  sent(bytes, ms) {
    if (bytes < this.#bytes) return;
    const wanted = bytes / Math.max(ms, 1) * 1e3 * AIM_SECONDS;
    this.#bytes = this.#clamp(Math.min(Math.max(wanted, this.#bytes / 2), this.#bytes * 2));
  }
  /** The connection was lost, or storage answered 408, 429 or 5xx. */
  failed() {
    this.#bytes = this.#clamp(this.#bytes / 2);
  }
  #whole(bytes) {
    return Math.max(this.#multiple, Math.floor(bytes / this.#multiple) * this.#multiple);
  }
  #clamp(bytes) {
    return Math.min(Math.max(this.#whole(bytes), this.#min), this.#max);
  }
};

// source.ts
function unreadable(error) {
  if (error instanceof UploadBrokerError) return error;
  const name = error?.name;
  return name === "NotReadableError" ? new UploadBrokerError("source-changed", "the file was changed, moved or removed while it was being uploaded", { cause: error }) : new UploadBrokerError("source-unreadable", "the file cannot be read", { cause: error });
}
var loadDigest = async (size, state) => new (await Promise.resolve().then(() => (init_digest(), digest_exports))).Digest(size, state);
var BlobSource = class {
  isStream = false;
  keptFrom = 0;
  mostBytes = 64 * 1024 * 1024;
  size;
  #blob;
  #modified;
  #begin;
  #digest;
  constructor(blob, digested) {
    this.#blob = blob;
    this.size = blob.size;
    this.#modified = blob.lastModified;
    this.#begin = digested && digested.bytes <= blob.size ? digested : void 0;
  }
  async part(offset, wanted) {
    this.#expectUnchanged();
    const end = Math.min(offset + wanted, this.size);
    const body = end > offset ? this.#blob.slice(offset, end) : void 0;
    return { body, offset, length: end - offset, total: this.size, isLast: end === this.size };
  }
  confirmed() {
  }
  async check(offset) {
    this.#expectUnchanged();
    const at = Math.max(0, Math.min(offset, this.size - 1));
    try {
      const read = await this.#blob.slice(at, at + 1).arrayBuffer();
      if (read.byteLength !== Math.min(1, this.size)) throw new DOMException("it became shorter", "NotReadableError");
    } catch (error) {
      throw unreadable(error);
    }
  }
  async digestTo(to) {
    try {
      this.#digest ??= await loadDigest(this.size, this.#begin);
      await this.#digest.advance(this.#blob, to);
    } catch (error) {
      throw unreadable(error);
    }
  }
  get digestState() {
    return this.#digest?.state ?? this.#begin;
  }
  get crc32c() {
    return this.#digest?.state.bytes === this.size ? this.#digest.base64() : void 0;
  }
  close() {
    this.#digest?.close();
  }
  #expectUnchanged() {
    if (this.#blob.size !== this.size || this.#blob.lastModified !== this.#modified) {
      throw new UploadBrokerError("source-changed", "the file was changed while it was being uploaded");
    }
  }
};
var StreamSource = class {
  isStream = true;
  mostBytes = 16 * 1024 * 1024;
  #declared;
  #reader;
  #kept = [];
  #keptFrom = 0;
  #readTo = 0;
  #ended = false;
  #digest;
  constructor(stream, size) {
    this.#reader = stream.getReader();
    this.#declared = size;
  }
  get size() {
    return this.#declared ?? (this.#ended ? this.#readTo : void 0);
  }
  get keptFrom() {
    return this.#keptFrom;
  }
  async part(offset, wanted) {
    if (offset < this.#keptFrom) {
      throw new UploadBrokerError("source-lost", "storage lost bytes of a stream, which cannot be read again");
    }
    await this.#fill(offset + wanted + 1);
    const end = Math.min(offset + wanted, this.#readTo);
    const isLast2 = this.#ended && end === this.#readTo;
    const body = end > offset ? new Blob(this.#kept).slice(offset - this.#keptFrom, end - this.#keptFrom) : void 0;
    return { body, offset, length: end - offset, total: this.size, isLast: isLast2 };
  }
  confirmed(bytes) {
    let drop = Math.min(bytes, this.#readTo) - this.#keptFrom;
    if (drop <= 0) return;
    this.#keptFrom += drop;
    while (drop > 0) {
      const first = this.#kept[0];
      if (first.length > drop) this.#kept[0] = first.subarray(drop);
      else this.#kept.shift();
      drop -= first.length;
    }
  }
  async check() {
  }
  async digestTo() {
    this.#digest ??= await loadDigest(void 0);
  }
  get digestState() {
    return void 0;
  }
  get crc32c() {
    return this.#ended ? this.#digest?.base64() : void 0;
  }
  close() {
    this.#kept = [];
    this.#reader.cancel().catch(() => {
    });
  }
  async #fill(to) {
    await this.digestTo();
    while (!this.#ended && this.#readTo < to) {
      let read;
      try {
        read = await this.#reader.read();
      } catch (error) {
        throw new UploadBrokerError("source-unreadable", "the stream failed", { cause: error });
      }
      if (read.done) {
        this.#ended = true;
      } else if (read.value.length > 0) {
        const bytes = new Uint8Array(read.value);
        this.#digest.append(bytes);
        this.#kept.push(bytes);
        this.#readTo += bytes.length;
      }
      const isWrong = this.#ended ? this.#readTo !== (this.#declared ?? this.#readTo) : this.#readTo > (this.#declared ?? Infinity);
      if (isWrong) throw new UploadBrokerError("source-changed", `the stream does not have the ${this.#declared} bytes that were declared`);
    }
  }
};

// fingerprint.ts
var SAMPLE = 64 * 1024;
async function fingerprintOf(file, name) {
  const { crc32cOf: crc32cOf2 } = await Promise.resolve().then(() => (init_crc32c(), crc32c_exports));
  let sample = 0;
  try {
    for (const at of /* @__PURE__ */ new Set([0, Math.floor(file.size / 2), Math.max(0, file.size - SAMPLE)])) {
      sample = await crc32cOf2(file.slice(at, at + SAMPLE), sample);
    }
  } catch (error) {
    throw unreadable(error);
  }
  return { name, size: file.size, lastModified: file.lastModified ?? 0, type: file.type, sample };
}
function difference(before, now) {
  if (before.name !== now.name) return `it was called ${before.name}`;
  if (before.size !== now.size) return `it had ${before.size} bytes, and this one has ${now.size}`;
  if (before.sample !== now.sample) return "it had other content";
  if (before.lastModified !== now.lastModified) return "it was modified at another time";
  if (before.type !== now.type) return `it was ${before.type || "of no type"}, and this one is ${now.type || "of no type"}`;
  return void 0;
}

// locks.ts
var held = /* @__PURE__ */ new Set();
var LETS_GO_WITHIN_MS = 250;
async function lock(key) {
  const locks = typeof navigator === "undefined" ? void 0 : navigator.locks;
  if (!locks) return () => {
  };
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), LETS_GO_WITHIN_MS);
  try {
    return await new Promise((resolve, reject) => {
      locks.request(`upload-broker ${key}`, { signal: patience.signal }, () => new Promise((release) => resolve(release))).catch(reject);
    });
  } catch {
    return patience.signal.aborted ? void 0 : () => {
    };
  } finally {
    clearTimeout(timer);
  }
}
async function hold(key) {
  if (held.has(key)) return "this page";
  held.add(key);
  const release = await lock(key);
  if (!release) {
    held.delete(key);
    return "another tab";
  }
  return () => {
    held.delete(key);
    release();
  };
}
async function isHeld(key) {
  if (held.has(key)) return true;
  const release = await lock(key);
  release?.();
  return !release;
}

// route.ts
var withoutSlash = (url) => url.replace(/\/+$/, "");
var ANSWER_WITHIN_MS = 5e3;
async function nearest(regions, fetch2, signal, failed = /* @__PURE__ */ new Set(), withinMs = ANSWER_WITHIN_MS) {
  const known = regions.map(withoutSlash);
  const good = (region) => !failed.has(region);
  for (const region of [...known.filter(good), ...known.filter((region2) => !good(region2))]) {
    const routes = await routesOf(region, fetch2, signal, Math.min(withinMs, ANSWER_WITHIN_MS));
    if (signal.aborted) break;
    if (routes === void 0) {
      failed.add(region);
      continue;
    }
    failed.delete(region);
    const named = routes.map((url) => typeof url === "string" ? withoutSlash(url) : "").filter((url) => known.includes(url));
    return named.find(good) ?? region;
  }
  return known.find(good) ?? known[0];
}
async function routesOf(region, fetch2, signal, withinMs) {
  const request = new AbortController();
  const stop = () => request.abort();
  signal.addEventListener("abort", stop);
  const timer = setTimeout(stop, withinMs);
  try {
    const response = await fetch2(`${region}/v1/route`, { signal: request.signal, credentials: "omit", cache: "no-store" });
    if (!response.ok) {
      await response.body?.cancel();
      return response.status >= 500 ? void 0 : [];
    }
    const routes = (await response.json())?.regions;
    return Array.isArray(routes) ? routes.map((route) => route?.url) : [];
  } catch {
    return void 0;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}
function takerOf(location, id) {
  const end = `/v1/uploads/${id}`;
  if (!location || !/^https?:\/\//.test(location) || !location.endsWith(end)) return void 0;
  return withoutSlash(location.slice(0, -end.length));
}

// store.ts
function memoryStore() {
  const records = /* @__PURE__ */ new Map();
  return {
    list: async () => structuredClone([...records.values()]),
    put: async (record) => void records.set(record.key, structuredClone(record)),
    delete: async (key) => void records.delete(key)
  };
}
function indexedDbStore(name = "upload-broker") {
  let opening;
  const open = () => opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("uploads", { keyPath: "key" });
    request.onsuccess = () => {
      const database = request.result;
      const forget = () => void (opening = void 0);
      database.onclose = forget;
      database.onversionchange = () => {
        database.close();
        forget();
      };
      resolve(database);
    };
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new DOMException("another page holds an older version", "InvalidStateError"));
  }).catch((error) => {
    opening = void 0;
    throw error;
  });
  const transact = async (mode, ask2) => {
    const transaction = (await open()).transaction("uploads", mode);
    return new Promise((resolve, reject) => {
      const request = ask2(transaction.objectStore("uploads"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
    });
  };
  return {
    list: async () => (await transact("readonly", (store) => store.getAll())).filter(isRecord),
    put: async (record) => void await transact("readwrite", (store) => store.put(record)),
    delete: async (key) => void await transact("readwrite", (store) => store.delete(key))
  };
}
var isRecord = (value) => value?.version === 1;
var defaultStore = () => standing ??= typeof indexedDB === "undefined" ? memoryStore() : indexedDbStore();
var standing;
var KEYS_LIVE_MS = 24 * 3600 * 1e3;
var isOutdated = ({ uploadId, createdAt, expiresAt }, now) => uploadId === void 0 ? now - createdAt >= KEYS_LIVE_MS : expiresAt !== void 0 && now >= expiresAt;

// records.ts
var newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
var Records = class {
  #store;
  #failed;
  #fingerprint;
  #record;
  #release;
  #hasFailed = false;
  constructor(store, failed) {
    this.#store = store === false ? void 0 : store ?? defaultStore();
    this.#failed = failed;
  }
  get order() {
    return this.#record.request;
  }
  get key() {
    return this.#record.key;
  }
  /**
   * What was begun before of the same file, for this broker or one of `regions`. It is then held by this upload. Refuses
   * what runs in another tab, of which whoever picked the file may know nothing; this page knows what it asks for.
   */
  async find(broker, file, order, regions = []) {
    if (!this.#store) return {};
    const fingerprint = this.#fingerprint ??= await fingerprintOf(file, order.filename);
    const known = /* @__PURE__ */ new Set([broker, ...regions.map(withoutSlash)]);
    let anew;
    let isElsewhere = false;
    for (const record of await this.#list()) {
      if (!known.has(record.broker) || record.fingerprint.name !== fingerprint.name) continue;
      const different = difference(record.fingerprint, fingerprint);
      if (different !== void 0) {
        anew ??= { reason: "other-file", detail: `a file of this name was being uploaded, but ${different}` };
      } else if (!isSameOrder(record.request, order)) {
        anew = { reason: "other-order", detail: "this file was being uploaded under another policy, type or metadata" };
      } else {
        const release = await hold(record.key);
        if (typeof release === "function") {
          this.#release = release;
          this.#record = record;
          return { record };
        }
        isElsewhere ||= release === "another tab";
        anew = { reason: "in-use", detail: "another upload of this page goes on with what was begun of this file" };
      }
    }
    if (isElsewhere) throw new UploadBrokerError("in-use", "this file is being uploaded in another tab", { retryable: true });
    return { anew };
  }
  async begin(broker, request) {
    const fingerprint = this.#fingerprint ?? { name: request.filename, size: 0, lastModified: 0, type: "", sample: 0 };
    this.#record = { version: 1, key: newKey(), broker, fingerprint, request, receivedBytes: 0, createdAt: Date.now() };
    const release = await hold(this.#record.key);
    if (typeof release === "function") this.#release = release;
    await this.#save();
  }
  /** Another body is another request, so it has another key. */
  async reorder(request) {
    const { broker } = this.#record;
    await this.forget();
    await this.begin(broker, request);
  }
  async moved(broker) {
    this.#record.broker = broker;
    await this.#save();
  }
  async progressed(now) {
    const record = this.#record;
    if (now.uploadId === record.uploadId && now.receivedBytes === record.receivedBytes) return;
    const { uploadId, receivedBytes, digest, expiresAt } = now;
    this.#record = {
      ...record,
      receivedBytes,
      ...uploadId !== void 0 && { uploadId },
      ...digest && { digest },
      ...expiresAt && { expiresAt }
    };
    await this.#save();
  }
  async forget() {
    const key = this.#record?.key;
    if (key !== void 0 && this.#isSaved) await this.#try(() => this.#store?.delete(key));
    this.release();
  }
  release() {
    this.#release?.();
    this.#release = void 0;
  }
  /** Only what has a fingerprint can be continued. */
  get #isSaved() {
    return this.#fingerprint !== void 0;
  }
  async #save() {
    if (this.#isSaved) await this.#try(() => this.#store?.put(this.#record));
  }
  /** The newest first, without those that are over by now. */
  async #list() {
    const records = await this.#try(() => this.#store?.list()) ?? [];
    const now = Date.now();
    for (const record of records) {
      if (isOutdated(record, now)) await this.#try(() => this.#store?.delete(record.key));
    }
    return records.filter((record) => !isOutdated(record, now)).sort((a, b) => b.createdAt - a.createdAt);
  }
  async #try(act) {
    try {
      return await act();
    } catch (cause) {
      if (!this.#hasFailed) this.#failed(cause);
      this.#hasFailed = true;
      return void 0;
    }
  }
};

// regions.ts
var Regions = class {
  /** The token goes to these, and to no other address. */
  #known;
  /** Whether it is said which broker to begin at. */
  #isChosen;
  #broker;
  #records;
  #control;
  #nearest;
  /** The brokers that did not answer. */
  #failed = /* @__PURE__ */ new Set();
  /** The brokers that the upload was sent to, so that it is not sent in circles. */
  #wasSent = /* @__PURE__ */ new Set();
  /** A region has `withinMs` to answer. */
  constructor({ broker, regions }, client, records, control, fetch2, withinMs) {
    this.#known = (regions ?? []).map(withoutSlash);
    this.#isChosen = Boolean(broker);
    this.#broker = client;
    this.#records = records;
    this.#control = control;
    this.#nearest = (signal) => nearest(this.#known, fetch2, signal, this.#failed, withinMs);
  }
  /** Turns to the nearest region that answers, where it is not said which broker to use. */
  async choose() {
    if (this.#known.length === 0 || this.#isChosen) return;
    for (; ; ) {
      const base = await this.#control.cuttable(async (signal) => {
        const found = await this.#nearest(signal);
        return signal.reason === STOPPED ? STOPPED : found;
      });
      if (base !== STOPPED) return void (this.#broker.base = base);
      await this.#control.gate();
    }
  }
  /** Before a creation that nobody answered is sent again: perhaps another region can be reached. */
  async leave() {
    const before = this.#broker.base;
    this.#failed.add(before);
    await this.choose();
    if (this.#broker.base !== before) await this.#records.moved(this.#broker.base);
  }
  /** Goes on with the broker that took the upload, if that is not the one that was asked to create it. */
  async follow(created) {
    const taker = "upload" in created ? takerOf(created.location, created.upload.id) : void 0;
    if (taker === void 0 || taker === this.#broker.base) return created;
    if (!this.#known.includes(taker)) {
      return { from: "broker", problem: new UploadBrokerError("misdirected", `the broker had the upload created at ${taker}, which is not among the regions`) };
    }
    await this.#move(taker);
    return created;
  }
  /** Whether another region is to be asked the same: the nearest one at the creation, later the one that took the upload. */
  async isSentOn({ code, problem }) {
    const elsewhere = code === "misdirected" && problem?.url ? withoutSlash(problem.url) : void 0;
    if (elsewhere === void 0 || !this.#known.includes(elsewhere) || elsewhere === this.#broker.base || this.#wasSent.has(elsewhere)) return false;
    this.#wasSent.add(elsewhere);
    await this.#move(elsewhere);
    return true;
  }
  /** A broker did what it was asked: whoever sends the upload on from here does so for a new reason. */
  answered() {
    this.#wasSent.clear();
  }
  async #move(base) {
    this.#broker.base = base;
    await this.#records.moved(base);
  }
};

// storage.ts
var StorageClient = class {
  #options;
  #source;
  #speed;
  #control;
  #patience;
  #fetch;
  #transfer;
  #sizer;
  /** Where chunks go: the session of the broker, or that which a signed URL opened. */
  #session;
  constructor(options, source, speed, control, patience, fetch2) {
    this.#options = options;
    this.#source = source;
    this.#speed = speed;
    this.#control = control;
    this.#patience = patience;
    this.#fetch = fetch2;
  }
  /** The broker said how the bytes go to storage. It does so before anything else is called. */
  granted(transfer) {
    this.#transfer = transfer;
    this.#session = transfer.kind === "resumable" ? transfer.uri : void 0;
    this.#sizer = new ChunkSizer(transfer, this.#options.chunk ?? {}, this.#source.mostBytes);
  }
  /** Opens a session by a signed URL. */
  async start() {
    const { uri, method, headers } = this.#transfer;
    const answer = await this.#request(uri, { method, headers }, 0);
    if (answer !== STOPPED && answer.from === "storage" && answer.location) this.#session = answer.location;
    return answer;
  }
  /** Asks how much there is. */
  ask() {
    const total = this.#source.isStream ? "*" : this.#source.size;
    return this.#request(this.#session, { method: "PUT", headers: { "content-range": `bytes */${total}` } }, 0);
  }
  /** Sends everything to a signed URL. */
  async put() {
    const { method, headers, uri } = this.#transfer;
    const part = await this.#part(0, Infinity);
    return this.#send(uri, { method, headers }, part);
  }
  /** Sends the chunk that begins at `offset`. */
  async send(offset) {
    const part = await this.#part(offset, this.#sizer.bytes);
    const headers = this.#transfer.kind === "resumable" ? { ...this.#transfer.headers } : {};
    const range = contentRange(part);
    if (range) headers["content-range"] = range;
    const crc32c2 = part.isLast && this.#options.digest !== "none" ? this.#source.crc32c : void 0;
    if (crc32c2 !== void 0) headers["x-goog-hash"] = `crc32c=${crc32c2}`;
    return this.#send(this.#session, { method: "PUT", headers }, part);
  }
  /** The next bytes, digested before they are sent: what the network costs is far more, and what cannot be read is not sent. */
  #part(offset, wanted) {
    const read = async () => {
      const part = await this.#source.part(offset, wanted);
      if (this.#options.digest !== "none") await this.#source.digestTo(part.offset + part.length);
      return part;
    };
    return this.#control.unlessCancelled(read());
  }
  async #send(url, init, part) {
    const began = performance.now();
    const answer = await this.#request(url, { ...init, body: part.body ?? null }, part.length);
    if (answer === STOPPED) return answer;
    const ms = performance.now() - began;
    if (answer.from === "nowhere" || answer.status >= 400) {
      this.#sizer.failed();
      await this.#source.check(part.offset);
    } else {
      this.#sizer.sent(part.length, ms);
      this.#speed.measured(part.length, ms);
    }
    return answer;
  }
  #request(url, init, bytes) {
    const speed = this.#transfer.kind === "simple" ? 0 : this.#speed.bytesPerSecond;
    return this.#control.cuttable(async (signal) => {
      try {
        const response = await this.#fetch(url, { ...init, signal, credentials: "omit", cache: "no-store" });
        const { status, headers } = response;
        await response.arrayBuffer().catch(() => {
        });
        return { from: "storage", status, range: headers.get("range"), location: headers.get("location"), retryAfterMs: retryAfterMs(headers) };
      } catch (cause) {
        return { from: "nowhere", error: new UploadBrokerError("gave-up", "the connection to storage failed", { retryable: true, cause }) };
      }
    }, answerWithin(this.#patience, bytes, speed));
  }
};
function contentRange({ offset, length, total, isLast: isLast2 }) {
  if (length > 0) return `bytes ${offset}-${offset + length - 1}/${total ?? "*"}`;
  return isLast2 && offset > 0 ? `bytes */${total}` : void 0;
}

// upload.ts
var CANCEL_ATTEMPTS = 3;
var CANCEL_WITHIN_MS = 15e3;
var STATES = {
  create: "preparing",
  find: "preparing",
  start: "preparing",
  put: "uploading",
  ask: "uploading",
  send: "uploading",
  look: "uploading",
  renew: "uploading",
  complete: "verifying",
  wait: "waiting"
};
var Upload = class {
  /** The upload, as soon as the broker has verified it. Rejects with an `UploadBrokerError`. */
  done;
  #content;
  #options;
  #patience;
  #fetch;
  #events = new Events();
  #speed = new Speed();
  #broker;
  #records;
  #control;
  #regions;
  #onOnline = () => this.#control.online();
  #onOffline = () => this.#control.offline();
  #onAbort = () => void this.cancel();
  #state = "preparing";
  #progress;
  #id;
  #upload;
  /** The creation was sent, and perhaps done, but its answer never came. */
  #isUnsure = false;
  /** An earlier page began it, and the broker has not said yet that it goes on. */
  #isFromBefore = false;
  #source;
  #storage;
  #machine;
  #pace;
  #move = "create";
  constructor(content, options) {
    this.#content = content;
    this.#options = options;
    this.#patience = { ...PATIENCE, ...options.patience };
    this.#control = new Control(this.#patience);
    this.#fetch = options.fetch ?? ((url, init) => fetch(url, init));
    this.#broker = new BrokerClient(withoutSlash(options.broker ?? options.regions?.[0] ?? ""), options.token, this.#fetch);
    this.#records = new Records(options.store, (cause) => this.#events.emit({ type: "unsaved", cause }));
    this.#regions = new Regions(options, this.#broker, this.#records, this.#control, this.#fetch, this.#patience.answerWithinMs);
    const totalBytes = isStream(content) ? options.size : content.size;
    this.#progress = { receivedBytes: 0, totalBytes, bytesPerSecond: void 0, secondsLeft: void 0 };
    this.done = Promise.resolve().then(() => this.#run());
    this.done.catch(() => {
    });
  }
  /** The broker's id of the upload, as soon as there is one. */
  get id() {
    return this.#id;
  }
  get state() {
    return this.#state;
  }
  get progress() {
    return this.#progress;
  }
  /** Calls `listener` at each event of that type; gives what ends that. */
  on(type, listener) {
    return this.#events.on(type, listener);
  }
  /** All events from now on, to the last, `completed` or `failed`. */
  [Symbol.asyncIterator]() {
    return this.#events[Symbol.asyncIterator]();
  }
  /** Stops sending. What storage has stays; the chunk under way is sent again. */
  pause() {
    if (!this.#isOver && this.#control.pause()) this.#become("paused");
  }
  resume() {
    this.#control.resume();
  }
  /**
   * Ends the upload for good: the broker cancels the session and frees the quota. `done` then rejects with `cancelled`,
   * unless the last byte was faster.
   */
  async cancel() {
    if (!this.#isOver) this.#control.cancel(this.#move === "create" && this.#broker.isSending ? "finish" : "cut off");
    await this.done.then(() => {
    }, () => {
    });
  }
  get #isOver() {
    return this.#state === "completed" || this.#state === "failed" || this.#state === "cancelled";
  }
  async #run() {
    const target = globalThis;
    const { signal } = this.#options;
    target.addEventListener?.("online", this.#onOnline);
    target.addEventListener?.("offline", this.#onOffline);
    signal?.addEventListener("abort", this.#onAbort);
    if (signal?.aborted) this.#control.cancel("cut off");
    try {
      const upload = await this.#drive();
      return this.#completed(upload);
    } catch (thrown) {
      const error = thrown === STOPPED ? new UploadBrokerError("cancelled", "the upload was cancelled") : asError(thrown);
      this.#source?.close();
      const isForLater = error.retryable && !isStream(this.#content);
      const late = isForLater ? void 0 : await this.#abandon();
      if (late?.state === "completed" && thrown === STOPPED) return this.#completed(late);
      this.#become(error.code === "cancelled" ? "cancelled" : "failed");
      this.#events.emit({ type: "failed", error });
      throw error;
    } finally {
      target.removeEventListener?.("online", this.#onOnline);
      target.removeEventListener?.("offline", this.#onOffline);
      signal?.removeEventListener("abort", this.#onAbort);
      this.#source?.close();
      this.#records.release();
    }
  }
  #completed(upload) {
    this.#advance(upload.result.size_bytes);
    this.#become("completed");
    const told = { ...upload };
    this.#events.emit({ type: "completed", upload: told });
    return told;
  }
  async #drive() {
    const order = orderOf(this.#content, this.#options);
    await this.#control.gate();
    await this.#regions.choose();
    let move = await this.#begin(order);
    for (; ; ) {
      if (await this.#control.gate()) move = this.#machine.interrupted(move);
      this.#move = move.do;
      this.#become(STATES[move.do]);
      if (move.do === "end") {
        const anew = this.#isFromBefore && move.upload.state !== "completed";
        if (!anew) return this.#settle(move.upload);
        move = await this.#anew(order, "ended", `the upload begun before is ${move.upload.state}`);
        continue;
      }
      if (move.do === "fail") {
        const anew = this.#isFromBefore && move.error.code === "not-found";
        if (!anew) throw move.error;
        move = await this.#anew(order, "forgotten", "the broker does not know the upload begun before");
        continue;
      }
      if (move.do === "wait") {
        this.#events.emit({ type: "retry", error: move.error, waitMs: move.ms, attempt: this.#pace.failures });
        const isOffline = await this.#control.sleep(move.ms, move.error.status === 0);
        if (isOffline) this.#pace.progressed();
        if (this.#control.isStopped) continue;
        if (move.then.do === "create" && isAway(move.error)) await this.#regions.leave();
        move = move.then;
        continue;
      }
      const outcome = await this.#make(move);
      if (outcome === STOPPED) {
        move = this.#machine.interrupted(move);
        continue;
      }
      if ("problem" in outcome) {
        if (await this.#regions.isSentOn(outcome.problem)) continue;
        if (move.do === "create" && await this.#mended(outcome.problem)) continue;
      }
      const before = move.do;
      move = this.#machine.after(move, outcome);
      await this.#observed(before, outcome);
    }
  }
  /** Goes on with what an earlier page began, or begins. */
  async #begin(order) {
    const found = isStream(this.#content) ? { record: void 0 } : await this.#records.find(this.#broker.base, this.#content, order, this.#options.regions);
    if (found.anew) this.#events.emit({ type: "anew", ...found.anew });
    const { record } = found;
    this.#isFromBefore = record !== void 0;
    this.#isUnsure = record !== void 0 && record.uploadId === void 0;
    if (record) {
      this.#broker.base = record.broker;
    } else {
      await this.#records.begin(this.#broker.base, order);
    }
    this.#source?.close();
    this.#source = isStream(this.#content) ? new StreamSource(this.#content, this.#options.size) : new BlobSource(this.#content, record?.digest);
    this.#storage = new StorageClient(this.#options, this.#source, this.#speed, this.#control, this.#patience, this.#fetch);
    this.#pace = new Pace(this.#patience, Math.random);
    this.#machine = new Machine(this.#source, this.#pace);
    const isToDeclare = this.#options.digest === "declare" && !isStream(this.#content) && !record?.uploadId;
    if (isToDeclare && this.#records.order.crc32c === void 0) await this.#declare();
    if (!record?.uploadId) return { do: "create" };
    this.#id = record.uploadId;
    const move = this.#machine.resumed(record.receivedBytes);
    this.#advance(record.receivedBytes);
    return move;
  }
  async #anew(order, reason, detail) {
    await this.#records.forget();
    this.#id = this.#upload = void 0;
    this.#advance(0);
    this.#events.emit({ type: "anew", reason, detail });
    return this.#begin(order);
  }
  /** Digests everything, for the creation to declare it. */
  async #declare() {
    const size = this.#source.size;
    let to = 0;
    do {
      await this.#control.gate();
      to = Math.min(size, to + 64 * 1024 * 1024);
      await this.#control.unlessCancelled(this.#source.digestTo(to));
    } while (to < size);
    await this.#records.reorder({ ...this.#records.order, crc32c: this.#source.crc32c });
  }
  /** Whether the order was refused for something that could be mended, and was. */
  async #mended(problem) {
    const { digest } = this.#options;
    const { order } = this.#records;
    const isOfDigest = problem.violations.length > 0 && problem.violations.every(({ limit }) => limit === "digest");
    if (problem.code !== "policy-violation" || !isOfDigest) return false;
    const isForbidden = problem.violations.every(({ allowed }) => allowed === "none");
    if (isForbidden && order.crc32c !== void 0) {
      const { crc32c: _, ...rest } = order;
      await this.#records.reorder(rest);
      return true;
    }
    if (isForbidden || order.crc32c !== void 0 || digest === "none" || isStream(this.#content)) return false;
    await this.#declare();
    return true;
  }
  /** Takes note of what a move brought, before the next one. */
  async #observed(move, outcome) {
    if (outcome.from === "broker" && "upload" in outcome) {
      const { upload } = outcome;
      const isFirst = this.#upload === void 0;
      this.#upload = upload;
      this.#id = upload.id;
      if (upload.transfer && move !== "complete" && move !== "look") this.#storage.granted(upload.transfer);
      if (!isFinal(upload)) {
        if (isFirst) this.#events.emit({ type: "admitted", upload: { ...upload, transfer: void 0 }, isResumed: this.#isFromBefore });
        this.#isFromBefore = false;
      }
      this.#regions.answered();
      if (move === "renew" && !isFinal(upload)) this.#events.emit({ type: "renewed" });
    }
    const received = this.#machine.received;
    if (received > this.#source.keptFrom) this.#source.confirmed(received);
    this.#advance(received);
    await this.#records.progressed({
      uploadId: this.#id,
      receivedBytes: received,
      digest: this.#source.digestState,
      expiresAt: this.#upload && Date.parse(this.#upload.expires_at)
    });
  }
  async #create(signal) {
    const answer = await this.#broker.create(this.#records.order, this.#records.key, signal);
    if (mayHaveCreated(answer)) this.#isUnsure = true;
    else if ("upload" in answer || isSettled(answer)) this.#isUnsure = false;
    return this.#regions.follow(answer);
  }
  #make(move) {
    const id = this.#id;
    switch (move.do) {
      case "create":
        return this.#control.cuttable((signal) => this.#create(signal));
      case "find":
        return this.#control.cuttable((signal) => this.#broker.find(id, signal));
      case "look":
        return this.#control.cuttable((signal) => this.#broker.look(id, signal));
      case "complete":
        return this.#control.cuttable((signal) => this.#broker.complete(id, signal));
      case "renew":
        return this.#control.cuttable((signal) => this.#broker.renew(id, signal));
      case "start":
        return this.#storage.start();
      case "put":
        return this.#storage.put();
      case "ask":
        return this.#storage.ask();
      case "send":
        return this.#storage.send(move.offset);
      default:
        throw new UploadBrokerError("unexpected-answer", `nothing can be made of ${move.do}`);
    }
  }
  async #settle(upload) {
    await this.#records.forget();
    this.#upload = upload;
    switch (upload.state) {
      case "completed": {
        const { result } = upload;
        if (!result) throw new UploadBrokerError("unexpected-answer", "the upload is completed without a result", { upload });
        const { size, crc32c: crc32c2 } = this.#source;
        const isOther = result.size_bytes !== size || crc32c2 !== void 0 && result.crc32c !== void 0 && crc32c2 !== result.crc32c;
        if (isOther) throw new UploadBrokerError("content-mismatch", "what is stored is not this file", { upload });
        return upload;
      }
      case "rejected":
        throw new UploadBrokerError("rejected", upload.rejection?.detail ?? "the upload was rejected", { upload });
      case "expired":
        throw new UploadBrokerError("expired", "the upload took longer than its policy allows", { upload });
      default:
        throw new UploadBrokerError("cancelled", "the upload was cancelled", { upload });
    }
  }
  /** The upload is of no more use: nobody is to continue it, and its quota is to be free. */
  async #abandon() {
    if (!this.#id && this.#isUnsure) await this.#once((signal) => this.#create(signal)).then((answer) => {
      if ("upload" in answer) [this.#id, this.#upload] = [answer.upload.id, answer.upload];
    });
    await this.#records.forget();
    if (!this.#id || this.#upload && isFinal(this.#upload)) return this.#upload;
    const pace = new Pace(this.#patience, Math.random);
    for (let attempt = 0; attempt < CANCEL_ATTEMPTS; attempt++) {
      const answer = await this.#once((signal) => this.#broker.cancel(this.#id, signal));
      if ("upload" in answer) return answer.upload;
      const error = "problem" in answer ? answer.problem : answer.error;
      if (!error.retryable || error.code === "token-unavailable") return void 0;
      const ms = pace.next();
      if (ms === void 0 || !this.#control.isCancelled) return void 0;
      await new Promise((resolve) => setTimeout(resolve, ms));
    }
    return void 0;
  }
  /** What nothing but time cuts off. */
  async #once(act) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), Math.min(this.#patience.answerWithinMs, CANCEL_WITHIN_MS));
    return act(controller.signal).finally(() => clearTimeout(timer));
  }
  #advance(receivedBytes) {
    const totalBytes = this.#source ? this.#source.size : this.#progress.totalBytes;
    const { bytesPerSecond } = this.#speed;
    const secondsLeft = bytesPerSecond && totalBytes !== void 0 ? (totalBytes - receivedBytes) / bytesPerSecond : void 0;
    const isNews = receivedBytes !== this.#progress.receivedBytes || totalBytes !== this.#progress.totalBytes;
    this.#progress = { receivedBytes, totalBytes, bytesPerSecond, secondsLeft };
    if (isNews) this.#events.emit({ type: "progress", ...this.#progress });
  }
  #become(state) {
    if (state === void 0 || state === this.#state) return;
    this.#state = state;
    this.#events.emit({ type: "state", state });
  }
};
var asError = (thrown) => thrown instanceof UploadBrokerError ? thrown : thrown instanceof DOMException ? unreadable(thrown) : new UploadBrokerError("unexpected-answer", "the upload failed in a way that it should not", { cause: thrown });

// pending.ts
async function pendingUploads(store = defaultStore()) {
  const now = Date.now();
  const records = (await store.list()).filter((record) => !isOutdated(record, now)).sort((a, b) => b.createdAt - a.createdAt);
  return Promise.all(records.map(async (record) => ({ ...record, isRunning: await isHeld(record.key) })));
}
async function discardUpload(record, token, store = defaultStore(), fetch2 = (url, init) => globalThis.fetch(url, init)) {
  const release = await hold(record.key);
  if (typeof release === "string") throw new UploadBrokerError("in-use", `this upload is running in ${release}`, { retryable: true });
  try {
    await discard(record, new BrokerClient(withoutSlash(record.broker), token, fetch2));
    await store.delete(record.key);
  } finally {
    release();
  }
}
async function discard(record, broker) {
  const within = () => AbortSignal.timeout(6e4);
  let id = record.uploadId;
  if (id === void 0 && !isOutdated(record, Date.now())) {
    const answer2 = await broker.create(record.request, record.key, within());
    if ("upload" in answer2) id = answer2.upload.id;
    else if (!isSettled(answer2)) throw answer2.from === "nowhere" ? answer2.error : answer2.problem;
  }
  if (id === void 0) return;
  const answer = await broker.cancel(id, within());
  if (answer.from === "nowhere") throw answer.error;
  if ("problem" in answer && answer.problem.status !== 404) throw answer.problem;
}

// index.ts
var createUpload = (content, options) => new Upload(content, options);
export {
  UploadBrokerError,
  createUpload,
  discardUpload,
  indexedDbStore,
  memoryStore,
  pendingUploads
};
