/** The generated TypeScript client, used as an application uses it. */
import { strict as assert } from 'node:assert';
import createClient from 'openapi-fetch';
import type { components, paths } from './broker.js';

const bytes = new Uint8Array(300_000).fill(7);
const broker = createClient<paths>({ baseUrl: process.env['BROKER']!, headers: { authorization: `Bearer ${process.env['TOKEN']}` } });

const order: components['schemas']['CreateUpload'] = { policy: 'videos', filename: 'holiday.mp4', content_type: 'video/mp4', size_bytes: bytes.length };
const once = { header: { 'Idempotency-Key': crypto.randomUUID() } };
const created = await broker.POST('/v1/uploads', { params: once, body: order });
assert(created.data?.transfer);
const { id, transfer } = created.data;
assert.equal(created.data.state, 'pending');
const repeated = await broker.POST('/v1/uploads', { params: once, body: order });
assert.equal(repeated.data?.id, id);

const early = await broker.POST('/v1/uploads/{id}/complete', { params: { path: { id } } });
assert.equal(early.error?.code, 'not-complete');

const sent = await fetch(transfer.uri, { method: transfer.method, headers: transfer.headers, body: bytes });
assert.equal(sent.status, 200);
const completed = await broker.POST('/v1/uploads/{id}/complete', { params: { path: { id } } });
assert.equal(completed.data?.state, 'completed');
assert.equal(completed.data?.result?.size_bytes, bytes.length);

const got = await broker.GET('/v1/uploads/{id}', { params: { path: { id } } });
assert.equal(got.data?.result?.generation, completed.data?.result?.generation);
const listed = await broker.GET('/v1/uploads', { params: { query: { state: 'completed', limit: 200 } } });
assert(listed.data?.uploads.some((upload) => upload.id === id));
const policies = await broker.GET('/v1/policies');
assert.deepEqual(policies.data?.policies.map(({ name }) => name), ['videos']);

const unknown = await broker.GET('/v1/uploads/{id}', { params: { path: { id: '0'.repeat(34) } } });
assert.equal(unknown.error?.code, 'not-found');
const large = await broker.POST('/v1/uploads', { body: { ...order, size_bytes: 2 ** 40 } });
assert.equal(large.error?.code, 'policy-violation');
assert.equal(large.error?.violations?.[0]?.limit, 'max_size');
console.log('passed');
