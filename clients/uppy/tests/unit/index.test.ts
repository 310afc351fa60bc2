import Core from '@uppy/core';
import type { Meta, UppyEventMap, UppyFile } from '@uppy/core';
import { memoryStore } from '@upload-broker/client';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import UploadBroker from '../../src/index.js';
import type { UploadBrokerBody, UploadBrokerOptions } from '../../src/index.js';
import { Fake } from './fake.js';

type M = Meta & { album?: string; secret?: string };
type B = UploadBrokerBody;

let fake: Fake;
beforeEach(() => {
  fake = new Fake();
});

function core(options: Partial<UploadBrokerOptions<M, B>> = {}): Core<M, B> {
  return new Core<M, B>({ logger: { debug() {}, warn() {}, error() {} } }).use(UploadBroker<M, B>, {
    broker: 'https://broker.example', token: () => 'token', store: memoryStore(), fetch: fake.fetch,
    chunk: { bytes: 262144, maxBytes: 262144 }, patience: { firstPauseMs: 1, longestPauseMs: 2, giveUpAfterMs: 10 }, ...options,
  });
}

const add = (uppy: Core<M, B>, name: string, bytes = 5): string =>
  uppy.addFile({ source: 'test', name, type: 'video/mp4', data: new File([new Uint8Array(bytes)], name, { lastModified: 1 }) });

const listen = <E extends keyof UppyEventMap<M, B>>(uppy: Core<M, B>, event: E) => {
  const heard = vi.fn();
  uppy.on(event, heard as unknown as UppyEventMap<M, B>[E]);
  return heard;
};

/** Lets chunks wait until the returned function is called. */
function hold(): () => void {
  let release = (): void => {};
  fake.gate = new Promise((resolve) => (release = resolve));
  return release;
}

describe('UploadBroker', () => {
  it('throws when it is not told where to upload, or as whom', () => {
    expect(() => core({ broker: undefined })).toThrow(/`broker` or `regions`/);
    expect(() => core({ token: undefined })).toThrow(/`token`/);
  });

  it('uploads files, and tells in Uppy\'s events', async () => {
    const uppy = core();
    const [started, progress, success] = [listen(uppy, 'upload-start'), listen(uppy, 'upload-progress'), listen(uppy, 'upload-success')];
    const id = add(uppy, 'holiday.mp4', 600_000);
    const result = await uppy.upload();
    expect([result?.failed, result?.successful?.length]).toEqual([[], 1]);
    expect(started).toHaveBeenCalledTimes(1);
    expect(progress.mock.calls.map(([, { bytesUploaded }]) => bytesUploaded)).toEqual([262144, 524288, 600_000]);
    expect(success.mock.calls[0]![1]).toMatchObject({ status: 200, body: { upload: { id: '1', object: 'o/1', result: { size_bytes: 600_000 } } } });
    expect(uppy.getFile(id)).toMatchObject({ uploadBroker: { uploadId: '1' }, progress: { uploadComplete: true, percentage: 100 } });
    expect(JSON.stringify(uppy.getState()), 'the session URI is a secret').not.toContain('upload_id');
  });

  it('says what the file is, by the options of the plugin, of a function and of the file', async () => {
    const uppy = core({ policy: 'plugin', metadata: { from: 'web' }, allowedMetaFields: ['album'], fileOptions: ({ name }) => (name === 'b' ? { policy: 'function' } : {}) });
    uppy.setMeta({ album: 'summer', secret: 'x' });
    add(uppy, 'a');
    add(uppy, 'b', 6);
    uppy.setFileState(add(uppy, 'c', 7), { uploadBroker: { policy: 'file' } });
    await uppy.upload();
    expect(fake.created.map(({ policy }) => policy).sort()).toEqual(['file', 'function', 'plugin']);
    expect(fake.created[0]).toEqual({ policy: expect.any(String), filename: expect.any(String), content_type: 'video/mp4', size_bytes: expect.any(Number), metadata: { from: 'web', album: 'summer' } });
  });

  it('uploads no more files at once than `limit`', async () => {
    const uppy = core({ limit: 2 });
    for (let n = 0; n < 6; n++) add(uppy, `${n}`, n + 1);
    const release = hold();
    const done = uppy.upload();
    await vi.waitFor(() => expect(fake.under.size).toBe(2));
    release();
    expect((await done)?.successful).toHaveLength(6);
    expect(fake.most).toBe(2);
  });

  it('pauses and resumes a file, and lets another one have its place', async () => {
    const uppy = core({ limit: 1 });
    const first = add(uppy, 'first', 600_000);
    const second = add(uppy, 'second', 5);
    let release = hold();
    const success = listen(uppy, 'upload-success');
    const done = uppy.upload();
    await vi.waitFor(() => expect(fake.calls.filter((call) => call === 'PUT storage')).toHaveLength(1));
    expect(uppy.pauseResume(first)).toBe(true);
    release();
    await vi.waitFor(() => expect(success).toHaveBeenCalledTimes(1));
    expect(success.mock.calls[0]![0].id).toBe(second);
    release = hold();
    uppy.pauseResume(first);
    release();
    expect((await done)?.successful).toHaveLength(2);
    expect(fake.created.map(({ filename }) => filename)).toEqual(['first', 'second']);
  });

  it('pauses and resumes all', async () => {
    const uppy = core();
    add(uppy, 'a', 600_000);
    add(uppy, 'b', 700_000);
    const release = hold();
    const done = uppy.upload();
    await vi.waitFor(() => expect(fake.calls.filter((call) => call === 'PUT storage')).toHaveLength(2));
    uppy.pauseAll();
    release();
    const calls = fake.calls.length;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(fake.calls.length).toBe(calls);
    uppy.resumeAll();
    expect((await done)?.successful).toHaveLength(2);
    expect(fake.created).toHaveLength(2);
  });

  it.each(['removeFile', 'cancelAll'] as const)('cancels at the broker: %s', async (how) => {
    const uppy = core();
    const id = add(uppy, 'a', 600_000);
    hold();
    const done = uppy.upload();
    await vi.waitFor(() => expect(fake.calls).toContain('PUT storage'));
    if (how === 'removeFile') uppy.removeFile(id);
    else uppy.cancelAll();
    await done;
    await vi.waitFor(() => expect(fake.cancelled).toEqual(['1']));
  });

  describe.each(['removeFile', 'cancelAll'] as const)('cancels at the broker by %s', (how) => {
    const remove = (uppy: Core<M, B>, id: string): void => (how === 'removeFile' ? uppy.removeFile(id) : uppy.cancelAll());

    it.each([['that is written down', memoryStore], ['that is not', () => false as const]])('an upload that failed and may go on later, %s', async (_, make) => {
      const store = make();
      const uppy = core({ store });
      const id = add(uppy, 'a', 600_000);
      fake.isAway = true;
      expect((await uppy.upload())?.failed).toHaveLength(1);
      expect(fake.cancelled).toEqual([]);
      remove(uppy, id);
      await vi.waitFor(() => expect(fake.cancelled).toEqual(['1']));
      if (store) await vi.waitFor(async () => expect(await store.list()).toEqual([]));
    });

    it('an upload of an earlier page', async () => {
      const uppy = core();
      const id = add(uppy, 'a', 600_000);
      uppy.setFileState(id, { uploadBroker: { uploadId: '7' } });
      remove(uppy, id);
      await vi.waitFor(() => expect(fake.cancelled).toEqual(['7']));
    });

    it('each of several at once, none of which is written down', async () => {
      const uppy = core({ store: false });
      const ids = [add(uppy, 'a', 600_000), add(uppy, 'b', 600_001)];
      fake.isAway = true;
      expect((await uppy.upload())?.failed).toHaveLength(2);
      if (how === 'removeFile') uppy.removeFiles(ids);
      else uppy.cancelAll();
      await vi.waitFor(() => expect(fake.cancelled.toSorted()).toEqual(['1', '2']));
    });

    it('nothing that is completed', async () => {
      const uppy = core();
      const id = add(uppy, 'a');
      await uppy.upload();
      const calls = fake.calls.length;
      remove(uppy, id);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(fake.calls.length).toBe(calls);
    });
  });

  it('tells how an upload ended that waited for its turn to go on', async () => {
    const uppy = core({ limit: 1 });
    const first = add(uppy, 'first', 600_000);
    add(uppy, 'second', 600_001);
    const release = hold();
    const error = listen(uppy, 'upload-error');
    const done = uppy.upload();
    await vi.waitFor(() => expect(fake.created).toHaveLength(1));
    uppy.pauseResume(first);
    await vi.waitFor(() => expect(fake.created).toHaveLength(2));
    uppy.pauseResume(first);
    await uppy.getPlugin<UploadBroker<M, B>>('UploadBroker')!.uploads.get(first)!.cancel();
    await vi.waitFor(() => expect(error).toHaveBeenCalled());
    expect([error.mock.calls[0]![0].id, error.mock.calls[0]![1].code]).toEqual([first, 'cancelled']);
    release();
    expect((await done)?.successful).toHaveLength(1);
  });

  it('leaves a file that waits for its turn without an error when it is removed', async () => {
    const uppy = core({ limit: 1 });
    add(uppy, 'a', 600_000);
    const second = add(uppy, 'b', 6);
    const release = hold();
    const done = uppy.upload();
    await vi.waitFor(() => expect(fake.calls).toContain('PUT storage'));
    uppy.removeFile(second);
    release();
    expect((await done)?.successful).toHaveLength(1);
    expect([fake.created.length, fake.cancelled]).toEqual([1, []]);
  });

  it('keeps what was uploaded when it is removed itself', async () => {
    const uppy = core();
    add(uppy, 'a', 600_000);
    hold();
    void uppy.upload();
    await vi.waitFor(() => expect(fake.calls).toContain('PUT storage'));
    uppy.removePlugin(uppy.getPlugin('UploadBroker')!);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(fake.cancelled).toEqual([]);
  });

  it('tells a refusal with the problem document, and retries when it is asked to', async () => {
    const uppy = core();
    fake.refusal = { status: 422, code: 'policy-violation', violations: [{ limit: 'max_size', allowed: '4', given: '5' }] };
    const error = listen(uppy, 'upload-error');
    const id = add(uppy, 'a');
    expect((await uppy.upload())?.failed).toHaveLength(1);
    const [file, told, response] = error.mock.calls[0]!;
    expect([file.id, told.code, told.details]).toEqual([id, 'policy-violation', 'policy-violation; max_size: 4 allowed, 5 given; request r1']);
    expect(response).toMatchObject({ status: 422, body: { problem: { code: 'policy-violation' } } });
    expect(uppy.getFile(id).error).toMatch(/^no policy-violation/);
    fake.refusal = undefined;
    expect((await uppy.retryUpload(id))?.successful).toHaveLength(1);
  });

  it('says that a network is lost in a way that Uppy understands', async () => {
    const uppy = core({ fetch: async () => Promise.reject(new TypeError('Failed to fetch')) });
    const error = listen(uppy, 'upload-error');
    add(uppy, 'a');
    await uppy.upload();
    expect(error.mock.calls[0]![1]).toMatchObject({ code: 'gave-up', isNetworkError: true });
  });

  it('asks for a file whose bytes a reload lost, and goes on with its upload when it is selected again', async () => {
    const uppy = core();
    const id = add(uppy, 'a', 600_000);
    fake.isAway = true;
    await uppy.upload();
    fake.isAway = false;
    // As Golden Retriever does with what is too large for it to keep.
    uppy.setFileState(id, { isRestored: true, isGhost: true, data: undefined, error: undefined } as unknown as Partial<UppyFile<M, B>>);
    const error = listen(uppy, 'upload-error');
    const calls = fake.calls.length;
    expect((await uppy.retryUpload(id))?.failed).toHaveLength(1);
    expect([error.mock.calls[0]![1].message, fake.calls.length]).toEqual(['Select a again to continue its upload.', calls]);
    expect(add(uppy, 'a', 600_000)).toBe(id);
    expect((await uppy.retryUpload(id))?.successful).toHaveLength(1);
    expect([fake.created.length, fake.cancelled, uppy.getFile(id).isGhost]).toEqual([1, [], false]);
  });

  it('refuses remote files', async () => {
    const uppy = core();
    const error = listen(uppy, 'upload-error');
    uppy.addFile({ source: 'x', name: 'a', type: 't', isRemote: true, data: { size: 5 }, remote: { companionUrl: '', requestClientId: '', url: '' } } as Parameters<typeof uppy.addFile>[0]);
    await uppy.upload();
    expect(error.mock.calls[0]![1].message).toContain('Download a first');
    expect(fake.calls).toEqual([]);
  });

  it('can be resumed, as it says', () => {
    const uppy = core();
    expect(uppy.getState().capabilities.resumableUploads).toBe(true);
    uppy.removePlugin(uppy.getPlugin('UploadBroker')!);
    expect(uppy.getState().capabilities.resumableUploads).toBe(false);
  });
});
