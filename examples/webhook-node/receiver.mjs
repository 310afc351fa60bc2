// Receives the broker's webhooks, with nothing but Node.
//
//   WEBHOOK_SECRET_FILE=webhook.secret PORT=8080 node examples/webhook-node/receiver.mjs
//
// The file is the one that secret_file names in the broker's [[webhooks]]. Behind a proxy that ends TLS, the address is then
//
//   [[webhooks]]
//   url = "https://backend.example.com/hooks/uploads"
//   secret_file = "webhook.secret"
//
// Events come at least once, and again until they are answered with 2xx: handle each webhook-id once.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

/** So far may clocks differ, and no longer is a message that was listened to of use to anybody. */
const TOLERANCE_SECONDS = 300;
/** An event has a few kilobytes. */
const LARGEST = 256 * 1024;

// One secret, or two while they are exchanged.
const secrets = readFileSync(process.env.WEBHOOK_SECRET_FILE, 'utf8').split('\n').map((line) => line.trim()).filter(Boolean)
  .map((line) => Buffer.from(line.replace(/^whsec_/, ''), 'base64'));

/** Whether the message is the broker's, by Standard Webhooks 1.0: an HMAC-SHA256 of id, time and the body as it came. */
function isAuthentic(headers, body) {
  const { 'webhook-id': id = '', 'webhook-timestamp': time = '', 'webhook-signature': signatures = '' } = headers;
  if (!/^\d+$/.test(time) || Math.abs(Date.now() / 1000 - Number(time)) > TOLERANCE_SECONDS) return false;
  const given = signatures.split(' ').filter((one) => one.startsWith('v1,')).map((one) => Buffer.from(one.slice(3), 'base64'));
  return secrets.some((secret) => {
    const expected = createHmac('sha256', secret).update(`${id}.${time}.`).update(body).digest();
    return given.some((signature) => signature.length === expected.length && timingSafeEqual(signature, expected));
  });
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    if ((size += chunk.length) > LARGEST) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The ids of events that were handled. A real back end keeps them in its database, in the transaction that handles one. */
const handled = new Set();

function handle(id, { type, data: { upload } }) {
  if (handled.has(id)) return;
  handled.add(id);
  console.log(JSON.stringify({ type, id: upload.id, object: upload.object, generation: upload.result?.generation }));
}

const server = createServer(async (request, response) => {
  const answer = (status) => response.writeHead(status).end();
  try {
    if (request.method !== 'POST') return answer(405);
    const body = await read(request);
    if (body === undefined) return answer(413);
    if (!isAuthentic(request.headers, body)) return answer(401);
    // Store it and answer: the broker waits some seconds only. What takes long comes later.
    handle(request.headers['webhook-id'], JSON.parse(body));
    answer(204);
  } catch (error) {
    console.error(error);
    if (!response.headersSent) answer(500);
  }
});
server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? '127.0.0.1', () => {
  console.log(`listening: ${server.address().port}`);
});
