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

/** Sends bytes to the session, or only asks where it stands. The number of bytes that storage has, 'done' or 'lost'. */
async function put(uri, size, from, body) {
  const range = body ? `bytes ${from}-${from + body.size - 1}/${size}` : `bytes */${size}`;
  const answer = await fetch(uri, { method: 'PUT', headers: { 'content-range': range }, body }).catch(() => undefined);
  if (answer?.ok) return 'done';
  if (answer?.status === 404 || answer?.status === 410) return 'lost';
  // Without a Range nothing is there. Everything else says nothing: ask.
  if (answer?.status === 308) return Number(answer.headers.get('range')?.split('-')[1] ?? -1) + 1;
}

async function upload(file) {
  const order = { filename: file.name, content_type: file.type || 'application/octet-stream', size_bytes: file.size };
  let upload = await call('POST', '/v1/uploads', order, { 'idempotency-key': crypto.randomUUID() });
  let offset = 0;
  let waited = 1;
  while (upload.transfer) {
    bar.value = file.size ? offset / file.size : 0;
    const { uri, chunk_bytes } = upload.transfer;
    const chunk = file.slice(offset, offset + chunk_bytes);
    let reached = await put(uri, file.size, offset, chunk.size ? chunk : undefined);
    if (reached === undefined || reached <= offset) {
      state.value = 'Waiting for the network…';
      await pause(waited);
      waited = Math.min(waited * 2, 32);
      reached = await put(uri, file.size, 0);
    } else {
      waited = 1;
    }
    if (reached === 'lost') [upload, offset] = [await call('POST', `/v1/uploads/${upload.id}/renew`), 0];
    else if (reached === 'done') break;
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
