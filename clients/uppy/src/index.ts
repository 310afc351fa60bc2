/** Uploads Uppy's files through an upload-broker. */
import type { CompletedUpload, Upload, UploadOptions, UploadRecord } from '@upload-broker/client';
import { createUpload, discardUpload, memoryStore, pendingUploads, UploadBrokerError } from '@upload-broker/client';
import type { Body, DefinePluginOpts, Meta, PluginOpts, Uppy, UppyFile } from '@uppy/core';
import { BasePlugin, EventManager } from '@uppy/core';
import type { LocalUppyFile } from '@uppy/core/utils';
import { filterFilesToEmitUploadStarted, filterFilesToUpload, getAllowedMetaFields, RateLimitedQueue } from '@uppy/core/utils';

/** What may be another thing for one file: set it with `uppy.setFileState(id, { uploadBroker: { policy: 'videos' } })`. */
export type FileOptions = Pick<UploadOptions, 'policy' | 'metadata' | 'transfer' | 'digest'>;

export interface UploadBrokerOpts<M extends Meta, B extends Body>
  extends PluginOpts, FileOptions, Pick<UploadOptions, 'broker' | 'regions' | 'token' | 'store' | 'chunk' | 'patience' | 'fetch'> {
  /** How many files are uploaded at once; 0 for all of them. 3. */
  limit?: number;
  /** Which of a file's `meta` become metadata of the object: all, none, or these. None. */
  allowedMetaFields?: boolean | (keyof M & string)[];
  /** Options for one file. What the file's own `uploadBroker` says beats it. */
  fileOptions?: (file: UppyFile<M, B>) => FileOptions;
}

export type { UploadBrokerOpts as UploadBrokerOptions };

/** The `body` of the response that `upload-success` gives. */
export type UploadBrokerBody = { upload: CompletedUpload };

const defaultOptions = { limit: 3, allowedMetaFields: false } satisfies Partial<UploadBrokerOpts<Meta, Body>>;

type Opts<M extends Meta, B extends Body> = DefinePluginOpts<UploadBrokerOpts<M, B>, keyof typeof defaultOptions>;

/** What a file bears, and Golden Retriever keeps. */
export type FileState = FileOptions & {
  /** The broker's id of the upload. */
  uploadId?: string;
};

declare module '@uppy/core/utils' {
  export interface LocalUppyFile<M extends Meta, B extends Body> {
    uploadBroker?: FileState;
  }
  export interface RemoteUppyFile<M extends Meta, B extends Body> {
    uploadBroker?: FileState;
  }
}

declare module '@uppy/core' {
  export interface PluginTypeRegistry<M extends Meta, B extends Body> {
    UploadBroker: UploadBroker<M, B>;
  }
}

const locale = {
  strings: {
    uploadBrokerRemote: 'Files from elsewhere cannot be uploaded here. Download %{name} first.',
    uploadBrokerGhost: 'Select %{name} again to continue its upload.',
  },
};

/** What a record has beside its key, its broker and its upload, where only these count. */
const UNWRITTEN: Omit<UploadRecord, 'key' | 'broker' | 'uploadId'> = {
  version: 1, fingerprint: { name: '', size: 0, lastModified: 0, type: '', sample: 0 }, request: { filename: '', content_type: '' }, receivedBytes: 0, createdAt: 0,
};

/** Resumable uploads straight to Cloud Storage. */
export default class UploadBroker<M extends Meta, B extends Body> extends BasePlugin<Opts<M, B>, M, B> {
  static VERSION = '0.1.0';

  readonly requests: RateLimitedQueue;
  readonly uploads = new Map<string, Upload>();

  constructor(uppy: Uppy<M, B>, opts: UploadBrokerOpts<M, B>) {
    super(uppy, { ...defaultOptions, ...opts });
    this.type = 'uploader';
    this.id = this.opts.id || 'UploadBroker';
    this.defaultLocale = locale;
    this.i18nInit();
    if (typeof this.opts.token !== 'function') throw new Error('[UploadBroker] The option `token` must be a function that gives a bearer token.');
    if (!this.opts.broker && !this.opts.regions?.length) throw new Error('[UploadBroker] The option `broker` or `regions` is missing.');
    this.requests = new RateLimitedQueue(this.opts.limit);
  }

  override install(): void {
    this.#capable(true);
    this.uppy.addUploader(this.#handleUpload);
    // Of `cancelAll` as well, which removes every file.
    this.uppy.on('file-removed', this.#discard);
  }

  override uninstall(): void {
    this.#capable(false);
    this.uppy.removeUploader(this.#handleUpload);
    this.uppy.off('file-removed', this.#discard);
    // They can be continued: nobody has said that they are of no more use.
    for (const upload of this.uploads.values()) upload.pause();
  }

  #capable(resumableUploads: boolean): void {
    this.uppy.setState({ capabilities: { ...this.uppy.getState().capabilities, resumableUploads } });
  }

  readonly #handleUpload = async (fileIDs: string[]): Promise<void> => {
    if (fileIDs.length === 0) {
      this.uppy.log('[UploadBroker] No files to upload');
      return;
    }
    const files = filterFilesToUpload(this.uppy.getFilesByIds(fileIDs)) as UppyFile<M, B>[];
    this.uppy.emit('upload-start', filterFilesToEmitUploadStarted(files) as UppyFile<M, B>[]);
    await Promise.allSettled(files.map((file) => this.#upload(file)));
  };

  /** A file is removed whose upload failed, waits for its turn, or was begun by an earlier page: nobody cancels that. */
  readonly #discard = async (file: UppyFile<M, B>): Promise<void> => {
    const { uploadId } = file.uploadBroker ?? {};
    if (uploadId === undefined || this.uploads.has(file.id) || file.progress.uploadComplete) return;
    const { store, token, broker, fetch } = this.opts;
    try {
      const records = store === false ? [] : await pendingUploads(store).catch(() => []);
      const record = records.find((record) => record.uploadId === uploadId);
      if (record) await discardUpload(record, token, store || undefined, fetch);
      // Nothing is written down, but the file itself knows the id.
      else if (broker) await discardUpload({ ...UNWRITTEN, key: uploadId, broker, uploadId }, token, memoryStore(), fetch);
    } catch (error) {
      this.uppy.log(`[UploadBroker] ${file.name} could not be cancelled: ${error instanceof UploadBrokerError ? error.detail : error}`, 'warning');
    }
  };

  /** Until the file is uploaded, or is no longer to be. */
  async #upload(file: UppyFile<M, B>): Promise<void> {
    try {
      if (file.isRemote) throw new Error(this.i18n('uploadBrokerRemote', { name: file.name }));
      if (!file.data) throw new Error(this.i18n('uploadBrokerGhost', { name: file.name }));
      const completed = await this.#uploadLocal(file, file.data);
      if (!completed) return;
      const body = { upload: completed } satisfies UploadBrokerBody as unknown as B;
      this.uppy.emit('upload-success', this.uppy.getFile(file.id), { status: 200, body });
    } catch (error) {
      this.uppy.emit('upload-error', this.uppy.getFile(file.id) ?? file, shown(error), responseOf<B>(error));
      throw error;
    }
  }

  async #uploadLocal(file: LocalUppyFile<M, B>, data: Blob): Promise<CompletedUpload | undefined> {
    const events = new EventManager(this.uppy);
    let upload: Upload | undefined;
    let slot: { abort(): void; done(): void } | undefined;
    let isPaused = file.isPaused ?? false;
    let isGone = false;
    try {
      return await new Promise<CompletedUpload | undefined>((resolve, reject) => {
        const start = (): (() => void) => {
          if (upload) {
            upload.resume();
          } else {
            upload = this.#begin(file, data);
            upload.done.then(resolve, reject);
          }
          return () => {};
        };
        // Always through the queue, or a pause and a resume would be a way around the limit.
        const pause = (pauses: boolean): void => {
          if (pauses === isPaused || isGone) return;
          isPaused = pauses;
          slot?.abort();
          slot = undefined;
          if (pauses) upload?.pause();
          else slot = this.requests.run(start);
        };
        const leave = (): void => {
          isGone = true;
          slot?.abort();
          slot = undefined;
          void upload?.cancel();
          resolve(undefined);
        };
        events.onPause(file.id, pause);
        events.onPauseAll(file.id, () => pause(true));
        events.onResumeAll(file.id, () => pause(false));
        events.onFileRemove(file.id, leave);
        events.onCancelAll(file.id, leave);
        if (!isPaused) slot = this.requests.run(start);
      });
    } finally {
      // It may still wait for its turn, which cannot be done.
      slot?.abort();
      events.remove();
      if (this.uploads.get(file.id) === upload) this.uploads.delete(file.id);
    }
  }

  #begin(file: LocalUppyFile<M, B>, data: Blob): Upload {
    const { broker, regions, token, store, chunk, patience, fetch, policy, metadata, transfer, digest, fileOptions } = this.opts;
    const { uploadId: _, ...own } = this.uppy.getFile(file.id).uploadBroker ?? {};
    const options: FileOptions = { policy, transfer, digest, ...fileOptions?.(file), ...own };
    const meta = { ...metadata, ...this.#metadata(file), ...options.metadata };
    const upload = createUpload(data, {
      ...options, broker, regions, token, store, chunk, patience, fetch,
      name: file.meta.name || file.name, contentType: file.type,
      ...(Object.keys(meta).length > 0 && { metadata: meta }),
    });
    this.uploads.set(file.id, upload);
    upload.on('admitted', ({ upload: { id } }) => {
      const now = this.uppy.getFile(file.id);
      if (now) this.uppy.setFileState(file.id, { uploadBroker: { ...now.uploadBroker, uploadId: id } } as Partial<UppyFile<M, B>>);
    });
    upload.on('progress', ({ receivedBytes, totalBytes }) => {
      const now = this.uppy.getFile(file.id);
      if (!now) return;
      this.uppy.emit('upload-progress', now, {
        uploadStarted: now.progress.uploadStarted ?? Date.now(), bytesUploaded: receivedBytes, bytesTotal: totalBytes ?? data.size,
      });
    });
    upload.on('anew', ({ detail }) => this.uppy.log(`[UploadBroker] ${file.name} begins anew: ${detail}`));
    upload.on('retry', ({ error, waitMs }) => this.uppy.log(`[UploadBroker] ${file.name}: ${error.detail}; again in ${Math.round(waitMs)} ms`, 'warning'));
    return upload;
  }

  #metadata(file: LocalUppyFile<M, B>): Record<string, string> {
    const fields = getAllowedMetaFields(this.opts.allowedMetaFields as boolean | string[], file.meta);
    return Object.fromEntries(fields.flatMap((field) => {
      const value = file.meta[field];
      return value === undefined || value === null ? [] : [[field, String(value)]];
    }));
  }
}

/** As Uppy shows errors: by message and details. A lost network gets words of Uppy's own. */
function shown(error: unknown): { name: string; message: string; details?: string } {
  if (!(error instanceof UploadBrokerError)) return error as Error;
  const violations = error.violations.map(({ limit, allowed, given }) => `${limit}: ${allowed} allowed, ${given} given`);
  const details = [error.code, ...violations, ...(error.requestId ? [`request ${error.requestId}`] : [])].join('; ');
  return Object.assign(error, { message: error.detail, details, isNetworkError: error.code === 'gave-up' && error.status === 0 });
}

const responseOf = <B extends Body>(error: unknown): { status: number; body?: B } | undefined =>
  error instanceof UploadBrokerError && error.status > 0
    ? { status: error.status, ...(error.problem && { body: { problem: error.problem } as unknown as B }) } : undefined;
