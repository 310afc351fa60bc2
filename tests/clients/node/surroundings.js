'use strict';
// The broker and the storage emulator, by the addresses in the environment, and bytes to put there.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const {Readable} = require('node:stream');
const {pipeline} = require('node:stream/promises');
const {CRC32C, IdempotencyStrategy, Storage} = require('@google-cloud/storage');
const {OAuth2Client} = require('google-auth-library');

const KIB = 1024;
// What non-final chunks of a session are multiples of.
const UNIT = 256 * KIB;

// The library takes STORAGE_EMULATOR_HOST for the address of the JSON API, and other libraries for that of the server.
const STORAGE = process.env.STORAGE_EMULATOR_HOST;
delete process.env.STORAGE_EMULATOR_HOST;

/** Bytes that are the same for the same seed, and unlike all others. */
function noise(size, seed = 1) {
  const cipher = crypto.createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(size));
}

const md5 = data => crypto.createHash('md5').update(data).digest('base64');

function crc32c(data) {
  const digest = new CRC32C();
  digest.update(data);
  return digest.toString();
}

/** A stream of these bytes in uneven pieces. */
function stream(data, piece = 100_000) {
  function* pieces() {
    for (let begin = 0; begin < data.length; begin += piece) yield data.subarray(begin, begin + piece);
  }
  return Readable.from(pieces(), {objectMode: false});
}

/** Everything that a stream gives. */
async function gather(readable) {
  const pieces = [];
  for await (const piece of readable) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** The library with a token or without, which repeats what may pass after a second. */
function storage(options = {}) {
  const common = {
    apiEndpoint: STORAGE,
    projectId: 'test',
    retryOptions: {idempotencyStrategy: IdempotencyStrategy.RetryAlways, maxRetryDelay: 1},
    ...options,
  };
  if (process.env.CREDENTIALS === 'anonymous') return new Storage(common);
  const authClient = new OAuth2Client();
  authClient.setCredentials({access_token: 'any token'});
  const storage = new Storage({authClient, useAuthWithCustomEndpoint: true, ...common});
  // Its write streams leave the credentials out where the endpoint is not Google's, whatever the option says.
  const authorization = 'Bearer any token';
  storage.interceptors.push({request: request => ({...request, headers: {...request.headers, authorization}})});
  return storage;
}

const bucket = options => storage(options).bucket(process.env.BUCKET);

/** Somebody's view of the broker. */
class Broker {
  async call(path, body) {
    const headers = {authorization: `Bearer ${process.env.BROKER_TOKEN}`, 'content-type': 'application/json'};
    const answer = await fetch(process.env.BROKER + path, {method: 'POST', headers, body: JSON.stringify(body)});
    return {status: answer.status, body: await answer.json()};
  }

  /** Creates an upload for these bytes, or for unknown ones, and gives the broker's answer. */
  async create(data, more = {}) {
    const body = {filename: 'holiday.mp4', content_type: 'video/mp4', size_bytes: data?.length, ...more};
    const answer = await this.call('/v1/uploads', body);
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return answer.body;
  }

  /** Another session for the same upload. */
  async renew(upload) {
    const answer = await this.call(`/v1/uploads/${upload.id}/renew`);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body;
  }

  complete(upload) {
    return this.call(`/v1/uploads/${upload.id}/complete`);
  }

  /** Completes the upload, which must be an object of exactly these bytes. */
  async completed(upload, data) {
    const {status, body} = await this.complete(upload);
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(body.state, 'completed', JSON.stringify(body));
    const {size_bytes, md5: hash, crc32c: checksum} = body.result;
    assert.deepEqual([size_bytes, hash, checksum], [data.length, md5(data), crc32c(data)]);
  }
}

/** Something goes wrong at the emulator with one object, and must have happened when `work` has ended. */
async function withFault(fault, work) {
  const url = `${STORAGE}/_emulator/faults`;
  const set = await fetch(url, {method: 'POST', body: JSON.stringify([fault])});
  assert.equal(set.status, 200, await set.text());
  const result = await work();
  const {faults} = await (await fetch(url)).json();
  const left = faults.filter(active => active.fault.object === fault.object);
  assert.deepEqual(left, [], 'the fault never met its call');
  return result;
}

/** The emulator's journal of one kind of call for one object. */
async function calls(operation, object) {
  const {entries} = await (await fetch(`${STORAGE}/_emulator/journal`)).json();
  return entries.filter(entry => entry.operation === operation && entry.object === object);
}

module.exports = {
  STORAGE, UNIT, Broker, assert, bucket, calls, crc32c, gather, md5, noise, pipeline, storage, stream, withFault,
};
