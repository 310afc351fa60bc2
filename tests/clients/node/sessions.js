'use strict';
// Sessions that the broker issued, driven by Google's resumable uploads.

const {
  UNIT, Broker, assert, bucket, calls, crc32c, md5, noise, pipeline, stream, withFault,
} = require('./surroundings');

const broker = new Broker();

// A session of the XML API answers its last request without a word. A library that is to compare digests takes that for
// damage, and tries to delete the object.
const IS_XML = process.env.SESSIONS === 'xml';
const UNCHECKED = IS_XML ? {validation: false} : {};

/** The library's stream into a session that somebody else has initiated. */
const writer = (created, options) =>
  bucket().file(created.object).createWriteStream({uri: created.transfer.uri, ...UNCHECKED, ...options});

/** Chunk after chunk, with the digest on the last one. */
exports.chunked = async () => {
  for (const validation of IS_XML ? [false] : ['crc32c', 'md5', false]) {
    for (const size of [4 * UNIT + 5, 2 * UNIT]) {
      const data = noise(size);
      const created = await broker.create(data);
      await pipeline(stream(data), writer(created, {chunkSize: UNIT, validation}));
      assert.equal((await calls('chunk', created.object)).length, Math.ceil(size / UNIT));
      await broker.completed(created, data);
    }
  }
};

/** One streaming request whose end the library does not know when it begins. */
exports.streamed = async () => {
  for (const metadata of [{}, {contentLength: 3 * UNIT + 1}]) {
    const data = noise(3 * UNIT + 1);
    const created = await broker.create(data);
    await pipeline(stream(data), writer(created, {metadata}));
    assert.equal((await calls('chunk', created.object)).length, 1);
    await broker.completed(created, data);
  }
};

/** What people write: the bytes, saved. */
exports.saved = async () => {
  for (const chunkSize of [undefined, UNIT]) {
    const data = noise(2 * UNIT + 77);
    const created = await broker.create(data);
    const options = {uri: created.transfer.uri, resumable: true, chunkSize, ...UNCHECKED};
    await bucket().file(created.object).save(data, options);
    await broker.completed(created, data);
  }
};

/** One part, and the rest by somebody else who knows where the first one stopped. */
exports.partly = async () => {
  const data = noise(4 * UNIT + 9);
  const created = await broker.create(data);
  const first = writer(created, {chunkSize: UNIT, isPartialUpload: true, metadata: {contentLength: data.length}});
  const digest = new Promise(resolve => first.on('crc32c', resolve));
  await pipeline(stream(data.subarray(0, 2 * UNIT)), first);

  const resumeCRC32C = await digest;
  const second = writer(created, {
    chunkSize: UNIT, offset: 2 * UNIT, resumeCRC32C, metadata: {contentLength: data.length},
  });
  await pipeline(stream(data.subarray(2 * UNIT)), second);
  await broker.completed(created, data);
};

/** The first attempt dies amid a request; the second asks where it stopped, and leaves out what storage has. */
exports.resumed = async () => {
  const data = noise(5 * UNIT + 3);
  for (const chunkSize of [undefined, UNIT]) {
    const created = await broker.create(data);
    const cut = {operation: 'chunk', object: created.object, action: {kind: 'persist_then_reset', bytes: 3 * UNIT}};
    if (chunkSize) Object.assign(cut, {skip: 2, action: {kind: 'persist_then_reset', bytes: UNIT}});
    const options = {uri: created.transfer.uri, chunkSize, ...UNCHECKED};
    const impatient = bucket({retryOptions: {autoRetry: false}}).file(created.object);
    await withFault(cut, () => assert.rejects(pipeline(stream(data), impatient.createWriteStream(options))));
    await pipeline(stream(data), writer(created, {chunkSize}));
    const status = (await calls('status', created.object)).at(-1);
    assert.equal(status.persisted, 3 * UNIT);
    await broker.completed(created, data);
  }
};

/** Errors and cut connections amid chunks, which the library gets over by itself. */
exports.recovered = async () => {
  const actions = [
    {kind: 'respond', status: 503},
    {kind: 'respond', status: 429, retry_after: 0},
    {kind: 'reset'},
    {kind: 'act_then_reset'},
    {kind: 'persist_then_respond', bytes: UNIT + 100, reply: {status: 503}},
    {kind: 'persist_then_reset', bytes: UNIT + 100},
  ];
  await Promise.all(actions.map(async (action, index) => {
    const data = noise(6 * UNIT + 1, index + 1);
    const created = await broker.create(data);
    await withFault({operation: 'chunk', object: created.object, skip: 1, action}, () =>
      pipeline(stream(data), writer(created, {chunkSize: 2 * UNIT})));
    await broker.completed(created, data);
  }));
};

/** What storage refuses is an error of the library, and completes nothing. */
exports.refused = async () => {
  const data = noise(2 * UNIT);
  const other = await broker.create(data, {md5: md5(noise(2 * UNIT, 2))});
  await assert.rejects(pipeline(stream(data), writer(other, {chunkSize: UNIT})), {code: 400});
  assert.notEqual((await broker.complete(other)).body.state, 'completed');

  const longer = await broker.create(data);
  await assert.rejects(pipeline(stream(Buffer.concat([data, Buffer.from('more')])), writer(longer, {chunkSize: UNIT})));
  assert.notEqual((await broker.complete(longer)).body.state, 'completed');
};

/** After its session was lost, an upload goes on from its beginning in another. */
exports.renewed = async () => {
  const data = noise(3 * UNIT);
  const created = await broker.create(data);
  const fault = {operation: 'chunk', object: created.object, skip: 1, action: {kind: 'kill_session'}};
  await withFault(fault, () =>
    assert.rejects(pipeline(stream(data), writer(created, {chunkSize: UNIT})), {code: 410}));
  assert.equal((await broker.complete(created)).body.code, 'session-lost');
  const again = await broker.renew(created);
  assert.notEqual(again.transfer.uri, created.transfer.uri);
  await pipeline(stream(data), writer(again, {chunkSize: UNIT}));
  await broker.completed(created, data);
};

/** Nobody knows the size before the end, the broker included. */
exports.unknown_size = async () => {
  for (const [size, chunkSize] of [[0], [1], [2 * UNIT], [2 * UNIT, UNIT], [2 * UNIT + 1, UNIT]]) {
    const data = noise(size);
    const created = await broker.create();
    assert.equal(created.size_bytes, undefined);
    await pipeline(stream(data), writer(created, {chunkSize}));
    await broker.completed(created, data);
  }
};

/** No byte went any other way: the emulator saw exactly those of the object. */
exports.straight_to_storage = async () => {
  const data = noise(3 * UNIT + 9);
  const created = await broker.create(data, {crc32c: crc32c(data)});
  await pipeline(stream(data), writer(created, {chunkSize: UNIT}));
  await broker.completed(created, data);
  const chunks = await calls('chunk', created.object);
  assert.equal(chunks.reduce((sum, call) => sum + call.received, 0), data.length);
  assert.deepEqual(chunks.map(call => call.status), [308, 308, 308, 200]);
};
