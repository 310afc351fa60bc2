'use strict';
// URLs that somebody signed: the broker, or the library with the key of a service account.

const {Storage} = require('@google-cloud/storage');
const {
  STORAGE, UNIT, Broker, assert, bucket, crc32c, gather, md5, noise, pipeline, stream,
} = require('./surroundings');

const broker = new Broker();

/** Sends what a signed transfer asks for, with exactly its headers but for what is changed. */
const send = ({uri, method, headers}, body, changed = {}) =>
  fetch(uri, {method, headers: {...headers, ...changed}, body});

/** One PUT of everything. */
exports.simple_of_the_broker = async () => {
  for (const size of [0, 1, 3 * UNIT + 1]) {
    const data = noise(size);
    const all = [{}, {md5: md5(data)}, {crc32c: crc32c(data)}, {metadata: {album: 'a, b'}}];
    for (const declared of all) {
      const created = await broker.create(data, {transfer_kind: 'simple', ...declared});
      assert.deepEqual([created.transfer.kind, created.transfer.method], ['simple', 'PUT']);
      const answer = await send(created.transfer, data);
      assert.equal(answer.status, 200, await answer.text());
      await broker.completed(created, data);
    }
  }
};

/** The client initiates by a signed POST, and the library sends the bytes. */
exports.resumable_of_the_broker = async () => {
  for (const chunkSize of [undefined, UNIT]) {
    const data = noise(3 * UNIT + 5);
    const created = await broker.create(data, {transfer_kind: 'signed_resumable'});
    assert.deepEqual([created.transfer.kind, created.transfer.method], ['signed_resumable', 'POST']);
    const started = await send(created.transfer);
    assert.equal(started.status, 201, await started.text());
    const uri = started.headers.get('location');
    // An XML session tells no digest at its end: the library has nothing to compare with.
    const options = {uri, chunkSize, validation: false};
    await pipeline(stream(data), bucket().file(created.object).createWriteStream(options));
    await broker.completed(created, data);
  }
};

const account = () => new Storage({
  apiEndpoint: STORAGE, projectId: 'test', keyFilename: process.env.SERVICE_ACCOUNT,
}).bucket(process.env.BUCKET);

/** A URL of the library's own signature. */
async function sign(name, action, more = {}) {
  const expires = Date.now() + 300_000;
  const [url] = await account().file(name).getSignedUrl({version: 'v4', action, expires, ...more});
  return url;
}

/** Every method, by URLs that the library signs. */
exports.signed_by_the_library = async () => {
  const data = noise(UNIT + 3);
  const name = 'node/signed/ä b+c~d%2F/e.mp4';
  const extensionHeaders = {
    'x-goog-if-generation-match': '0',
    'x-goog-content-length-range': `1,${data.length}`,
    'x-goog-meta-album': 'summer  and  autumn',
  };
  const put = await sign(name, 'write', {contentType: 'video/mp4', contentMd5: md5(data), extensionHeaders});
  const headers = {...extensionHeaders, 'content-type': 'video/mp4', 'content-md5': md5(data)};
  const answer = await fetch(put, {method: 'PUT', headers, body: data});
  assert.equal(answer.status, 200, await answer.text());
  assert.equal((await fetch(put, {method: 'PUT', headers, body: data})).status, 412);
  const other = {...headers, 'content-type': 'text/html'};
  assert.equal((await fetch(put, {method: 'PUT', headers: other, body: data})).status, 403);

  const get = await sign(name, 'read');
  assert.deepEqual(await gather((await fetch(get)).body), data);
  const part = await fetch(get, {headers: {range: 'bytes=5-9'}});
  assert.deepEqual(await gather(part.body), data.subarray(5, 10));
  assert.equal((await fetch(get, {method: 'DELETE'})).status, 403, 'a URL for another method');
  assert.equal((await fetch(await sign(name, 'delete'), {method: 'DELETE'})).status, 204);
  assert.equal((await fetch(get)).status, 404);
};

exports.resumable_signed_by_the_library = async () => {
  const data = noise(2 * UNIT + 3);
  const name = 'node/signed/resumable';
  const url = await sign(name, 'resumable', {contentType: 'video/mp4'});
  const headers = {'x-goog-resumable': 'start', 'content-type': 'video/mp4'};
  const started = await fetch(url, {method: 'POST', headers});
  assert.equal(started.status, 201, await started.text());
  const uri = started.headers.get('location');
  await pipeline(stream(data), bucket().file(name).createWriteStream({uri, chunkSize: UNIT, validation: false}));
  const [found] = await bucket().file(name).getMetadata();
  assert.deepEqual([Number(found.size), found.md5Hash, found.contentType], [data.length, md5(data), 'video/mp4']);
};
