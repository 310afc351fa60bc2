/** What must survive a reload. It holds no secret: the owner of an upload gets its session from the broker again. */
import type { DigestState } from './digest.js';
import type { Fingerprint } from './fingerprint.js';
import type { CreateUpload } from './wire.js';

export interface UploadRecord {
  version: 1;
  /** Names the record, and is the upload's `Idempotency-Key`. Written before the first request goes out. */
  key: string;
  /** The broker that it belongs to. */
  broker: string;
  fingerprint: Fingerprint;
  request: CreateUpload;
  /** The upload, once the broker has named it. */
  uploadId?: string;
  receivedBytes: number;
  digest?: DigestState;
  /** Milliseconds since 1970. */
  createdAt: number;
  /** When the upload ends if nothing completes it, once the broker has said so. */
  expiresAt?: number;
}

/** Where records are kept. A failure of it stops no upload; it can then not be continued after a reload. */
export interface UploadStore {
  list(): Promise<UploadRecord[]>;
  /** Adds it, or replaces the one of the same `key`. */
  put(record: UploadRecord): Promise<void>;
  delete(key: string): Promise<void>;
}

/** Records that live as long as the page. */
export function memoryStore(): UploadStore {
  const records = new Map<string, UploadRecord>();
  return {
    list: async () => structuredClone([...records.values()]),
    put: async (record) => void records.set(record.key, structuredClone(record)),
    delete: async (key) => void records.delete(key),
  };
}

/** Records in this origin's IndexedDB. */
export function indexedDbStore(name = 'upload-broker'): UploadStore {
  let opening: Promise<IDBDatabase> | undefined;
  const open = (): Promise<IDBDatabase> =>
    (opening ??= new Promise<IDBDatabase>((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore('uploads', { keyPath: 'key' });
      request.onsuccess = () => {
        const database = request.result;
        // The browser may close it, or another version of this code want it: open it anew then.
        const forget = (): void => void (opening = undefined);
        database.onclose = forget;
        database.onversionchange = () => {
          database.close();
          forget();
        };
        resolve(database);
      };
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new DOMException('another page holds an older version', 'InvalidStateError'));
    }).catch((error: unknown) => {
      opening = undefined;
      throw error;
    }));
  const transact = async <T>(mode: IDBTransactionMode, ask: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> => {
    const transaction = (await open()).transaction('uploads', mode);
    return new Promise((resolve, reject) => {
      const request = ask(transaction.objectStore('uploads'));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
    });
  };
  return {
    list: async () => (await transact<unknown[]>('readonly', (store) => store.getAll())).filter(isRecord),
    put: async (record) => void (await transact('readwrite', (store) => store.put(record))),
    delete: async (key) => void (await transact('readwrite', (store) => store.delete(key))),
  };
}

export const isRecord = (value: unknown): value is UploadRecord => (value as Partial<UploadRecord> | null)?.version === 1;

/** IndexedDB where there is one, else nothing that outlives the page. */
export const defaultStore = (): UploadStore => (standing ??= typeof indexedDB === 'undefined' ? memoryStore() : indexedDbStore());
let standing: UploadStore | undefined;

/** Keys without an upload: after this the broker no longer knows them. */
const KEYS_LIVE_MS = 24 * 3600 * 1000;

export const isOutdated = ({ uploadId, createdAt, expiresAt }: UploadRecord, now: number): boolean =>
  uploadId === undefined ? now - createdAt >= KEYS_LIVE_MS : expiresAt !== undefined && now >= expiresAt;
