'use strict';
// The library's own uploads and downloads against the emulator, as other people's tests would do them.

const fs = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');
const {TransferManager} = require('@google-cloud/storage');
const {
  UNIT, assert, bucket, crc32c, gather, md5, noise, pipeline, storage, stream, withFault,
} = require('./surroundings');

/** Does something in a folder that is gone afterwards. */
async function inFolder(work) {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'official-'));
  try {
    await work(folder);
  } finally {
    await fs.rm(folder, {recursive: true});
  }
}

exports.buckets = async () => {
  const [found] = await bucket().getMetadata();
  assert.deepEqual([found.location, found.locationType], ['EUROPE-WEST1', 'region']);
  assert.deepEqual(await bucket().exists(), [true]);
  assert.deepEqual(await storage().bucket('nowhere-to-be-found').exists(), [false]);
  const [made] = await storage().createBucket('made-in-node', {location: 'us-east1'});
  assert.equal((await made.getMetadata())[0].location, 'US-EAST1');
  await assert.rejects(storage().createBucket('made-in-node'), {code: 409});
  const [granted] = await made.iam.testPermissions(['storage.objects.create', 'storage.objects.get']);
  assert.deepEqual(granted, {'storage.objects.create': true, 'storage.objects.get': true});
};

/** Uploads in one request, and in sessions of the library's own. */
exports.uploads = async () => {
  for (const kind of [{resumable: false}, {resumable: true}, {resumable: true, chunkSize: UNIT}]) {
    for (const validation of ['crc32c', 'md5', false]) {
      for (const size of [0, 1, 3 * UNIT, 3 * UNIT + 3]) {
        // A resumable upload without a byte is not sent in chunks.
        if (size === 0 && kind.chunkSize) continue;
        const data = noise(size);
        const file = bucket().file(`node/uploads/${JSON.stringify(kind)}/${validation}/${size}`);
        const metadata = {contentType: 'video/mp4', cacheControl: 'private', metadata: {album: 'summer'}};
        await file.save(data, {...kind, validation, metadata});
        const [found] = await file.getMetadata();
        const attributes = [Number(found.size), found.md5Hash, found.crc32c, found.contentType, found.cacheControl];
        assert.deepEqual(attributes, [size, md5(data), crc32c(data), 'video/mp4', 'private']);
        assert.deepEqual(found.metadata, {album: 'summer'});
        assert.deepEqual((await file.download())[0], data);
      }
    }
  }
};

exports.files = () => inFolder(async folder => {
  const data = noise(3 * UNIT + 5);
  const original = path.join(folder, 'original.mp4');
  await fs.writeFile(original, data);
  for (const resumable of [false, true]) {
    const [file] = await bucket().upload(original, {destination: `node/files/${resumable}.mp4`, resumable});
    assert.equal(file.metadata.contentType, 'video/mp4');
    const copy = path.join(folder, 'copy.mp4');
    await file.download({destination: copy});
    assert.deepEqual(await fs.readFile(copy), data);
  }
  const parallel = path.join(folder, 'parallel.mp4');
  await new TransferManager(bucket()).downloadFileInChunks('node/files/true.mp4', {
    destination: parallel, chunkSizeBytes: UNIT, validation: 'crc32c',
  });
  assert.deepEqual(await fs.readFile(parallel), data);
});

/** A session that the library initiates for somebody else. */
exports.session_by_the_library = async () => {
  const data = noise(2 * UNIT + 1);
  const file = bucket().file('node/session');
  const [uri] = await file.createResumableUpload({
    origin: 'https://app.example.com', preconditionOpts: {ifGenerationMatch: 0}, metadata: {contentType: 'video/mp4'},
  });
  const answer = await fetch(uri, {method: 'PUT', body: data});
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('access-control-allow-origin'), 'https://app.example.com');
  assert.deepEqual((await file.download())[0], data);
  // The second session finds out at its end.
  const [late] = await file.createResumableUpload({preconditionOpts: {ifGenerationMatch: 0}});
  assert.equal((await fetch(late, {method: 'PUT', body: data})).status, 412);
};

exports.downloads = async () => {
  const data = noise(3 * UNIT + 11);
  const file = bucket().file('node/down loads/ä+%2F?.bin');
  await file.save(data);
  for (const validation of ['crc32c', 'md5', false]) {
    assert.deepEqual(await gather(file.createReadStream({validation})), data);
  }
  for (const [start, end] of [[0, 0], [5, 9], [UNIT, undefined], [data.length - 1, undefined]]) {
    const part = await gather(file.createReadStream({start, end}));
    assert.deepEqual(part, data.subarray(start, end === undefined ? undefined : end + 1));
  }
  assert.deepEqual(await gather(file.createReadStream({end: -10})), data.subarray(-10));
  await assert.rejects(gather(file.createReadStream({start: data.length})), {code: 416});
  await assert.rejects(bucket().file('node/never').download(), {code: 404});
};

exports.listing = async () => {
  for (const name of ['a/1', 'a/2', 'a/b/3', 'c']) await bucket().file(`node/list/${name}`).save(name);
  const pages = [];
  for (let query = {prefix: 'node/list/', maxResults: 3, autoPaginate: false}; query; ) {
    const [page, next] = await bucket().getFiles(query);
    pages.push(page.map(file => file.name.replace('node/list/', '')));
    query = next;
  }
  assert.deepEqual(pages, [['a/1', 'a/2', 'a/b/3'], ['c']]);
  const streamed = [];
  for await (const file of bucket().getFilesStream({prefix: 'node/list/'})) streamed.push(file.name);
  assert.equal(streamed.length, 4);
  const query = {prefix: 'node/list/a/', delimiter: '/', autoPaginate: false};
  const [inFolder, , answer] = await bucket().getFiles(query);
  assert.deepEqual(inFolder.map(file => file.name), ['node/list/a/1', 'node/list/a/2']);
  assert.deepEqual(answer.prefixes, ['node/list/a/b/']);
};

exports.attributes = async () => {
  const file = bucket().file('node/attributes');
  await file.save('hello', {contentType: 'text/plain'});
  await file.setMetadata({cacheControl: 'no-store', metadata: {keep: 'yes', drop: 'soon'}}, {ifMetagenerationMatch: 1});
  const [changed] = await file.getMetadata();
  assert.deepEqual([changed.metageneration, changed.cacheControl], ['2', 'no-store']);
  assert.deepEqual(changed.metadata, {keep: 'yes', drop: 'soon'});
  await file.setMetadata({metadata: {drop: null}});
  assert.deepEqual((await file.getMetadata())[0].metadata, {keep: 'yes'});
  await assert.rejects(file.setMetadata({cacheControl: null}, {ifMetagenerationMatch: 1}), {code: 412});
  assert.deepEqual(await bucket().file('node/never').exists(), [false]);
};

exports.preconditions = async () => {
  const file = bucket().file('node/preconditions');
  const fresh = {preconditionOpts: {ifGenerationMatch: 0}};
  await file.save('first', {...fresh, resumable: false});
  const first = file.metadata.generation;
  for (const kind of [{resumable: false}, {resumable: true}, {resumable: true, chunkSize: UNIT}]) {
    const data = noise(2 * UNIT);
    await assert.rejects(bucket().file(file.name).save(data, {...fresh, ...kind}), {code: 412}, JSON.stringify(kind));
  }
  assert.equal((await file.download())[0].toString(), 'first');
  await file.save('second', {preconditionOpts: {ifGenerationMatch: first}});
  assert.ok(BigInt(file.metadata.generation) > BigInt(first));
  await assert.rejects(bucket().file(file.name).delete({ifGenerationMatch: first}), {code: 412});
};

/** Digests that the caller sets by hand are storage's to refuse. */
exports.wrong_digests = async () => {
  for (const metadata of [{md5Hash: md5('other')}, {crc32c: crc32c(Buffer.from('other'))}]) {
    for (const resumable of [false, true]) {
      const file = bucket().file(`node/wrong/${Object.keys(metadata)}/${resumable}`);
      await assert.rejects(file.save('hello', {metadata, resumable, validation: false}), {code: 400});
      assert.deepEqual(await file.exists(), [false]);
    }
  }
};

exports.deletion = async () => {
  const file = bucket().file('node/deleted');
  await file.save('hello');
  await file.delete({ifGenerationMatch: file.metadata.generation});
  await assert.rejects(file.delete(), {code: 404});
  await file.delete({ignoreNotFound: true});
};

/** What may pass is tried again, and then is no failure. Each try waits for a second, so that all go at once. */
exports.retries = async () => {
  const data = noise(3 * UNIT);
  const failing = (object, operation, action, work) => withFault({operation, object, action}, work);
  const one = async status => {
    const action = {kind: 'respond', status, body: 'json'};
    const file = bucket().file(`node/retries/${status}`);
    await failing(file.name, 'simple', action, () => file.save(data, {resumable: false}));
    await failing(file.name, 'get', action, () => file.getMetadata());
    await failing(file.name, 'patch', action, () => file.setMetadata({cacheControl: 'no-store'}));
    await failing(file.name, 'delete', action, () => file.delete());
  };
  const session = async (status, operation) => {
    const action = {kind: 'respond', status};
    const file = bucket().file(`node/retried ${operation}/${status}`);
    await failing(file.name, operation, action, () =>
      pipeline(stream(data), file.createWriteStream({chunkSize: UNIT, preconditionOpts: {ifGenerationMatch: 0}})));
    assert.deepEqual((await file.download())[0], data);
  };
  const all = [503, 429, 500, 408].flatMap(status => [
    one(status), session(status, 'initiate'), session(status, 'chunk'),
  ]);
  await Promise.all(all);
};
