// Uploads a file by the broker's interface, without a package. What it leaves out, @upload-broker/client has: to go on after
// a reload, digests, and chunks that follow the speed of the network.

const token = async () => (await fetch('/token')).text();
const { broker } = await (await fetch('/config.json')).json();
const [input, bar, state] = ['file', 'progress', 'state'].map((id) => document.getElementById(id));
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** A call of the broker. Answers with the upload, or throws the problem document. */
async function call(method, path, body, headers = {}) {
  for (let seconds = 1; ; seconds *= 2) {
    const answer = await fetch(broker + path, {
      method,
      headers: { authorization: `Bearer ${await token()}`, ...(body && { 'content-type': 'application/json' }), ...headers },
      body: body && JSON.stringify(body),
    }).catch(() => undefined);
    if (answer?.ok) return answer.json();
    if (answer && answer.status < 500 && answer.status !== 408) throw await answer.json();
    if (seconds > 32) throw new Error('The broker cannot be reached.');
    await pause(Number(answer?.headers.get('retry-after')) || seconds);
  }
}

/**
 * Sends bytes to the session, or only asks where it stands. The number of bytes that storage has, 'done' or 'lost', nothing
 * when nothing can be said, or the error that storage would give again.
 */
async function put(uri, size, from, body) {
  const range = body ? `bytes ${from}-${from + body.size - 1}/${size}` : `bytes */${size}`;
  const answer = await fetch(uri, { method: 'PUT', headers: { 'content-range': range }, body }).catch(() => undefined);
  if (answer?.ok) return 'done';
  if (answer?.status === 404 || answer?.status === 410) return 'lost';
  // Without a Range nothing is there.
  if (answer?.status === 308) return Number(answer.headers.get('range')?.split('-')[1] ?? -1) + 1;
  // No answer, 408, 429 and 5xx say nothing: ask.
  if (answer && answer.status < 500 && answer.status !== 408 && answer.status !== 429) throw new Error(`Storage refused the bytes (${answer.status}).`);
}

/** A page that reads a changed file fails as if there were no network, so it is read once more to tell. */
async function check(file, offset) {
  await file.slice(offset, offset + 1).arrayBuffer().catch(() => {
    throw new Error('The file was changed or removed meanwhile. Pick it again.');
  });
}

async function upload(file) {
  const order = { filename: file.name, content_type: file.type || 'application/octet-stream', size_bytes: file.size };
  let upload = await call('POST', '/v1/uploads', order, { 'idempotency-key': crypto.randomUUID() });
  let offset = 0;
  let waited = 1;
  let renewals = 0;
  while (upload.transfer) {
    bar.value = file.size ? offset / file.size : 0;
    const { uri, chunk_bytes } = upload.transfer;
    const chunk = file.slice(offset, offset + chunk_bytes);
    let reached = await put(uri, file.size, offset, chunk.size ? chunk : undefined);
    if (reached === undefined || reached <= offset) {
      await check(file, offset);
      state.value = 'Waiting for the network…';
      await pause(waited);
      waited = Math.min(waited * 2, 32);
      reached = await put(uri, file.size, 0);
    } else if (reached !== 'lost') {
      state.value = 'Uploading…';
      waited = 1;
    }
    if (reached === 'lost') {
      if (renewals++ === 5) throw new Error('One session after the other was lost.');
      await pause(waited);
      waited = Math.min(waited * 2, 32);
      [upload, offset] = [await call('POST', `/v1/uploads/${upload.id}/renew`), 0];
    } else if (reached === 'done') break;
    else offset = reached ?? offset;
  }
  return call('POST', `/v1/uploads/${upload.id}/complete`);
}

input.addEventListener('change', async () => {
  state.value = 'Uploading…';
  try {
    const { state: end, rejection } = await upload(input.files[0]);
    bar.value = 1;
    state.value = end === 'completed' ? 'Completed.' : `It was ${end}: ${rejection?.detail ?? ''}`;
  } catch (problem) {
    state.value = `It failed: ${problem.detail ?? problem.message}`;
  }
});
