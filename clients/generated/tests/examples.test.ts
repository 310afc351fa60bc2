/** The programs in `examples/`, as they stand there. */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { appendFileSync, chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { launch, Site } from '../../support/page.js';
import { World, wrongOffsets } from '../../support/servers.js';
import { PYTHON, repository, run, Server } from './program.js';

const MIB = 1024 * 1024;
const SECRET = randomBytes(32);

let folder: string;
let world: World;
let site: Site;
let receiver: Server;
let service: Server;
let movie: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'examples-'));
  const KEY = { KEY_FILE: join(folder, 'service.pem') };
  movie = join(folder, 'holiday "2026".mp4');
  writeFileSync(movie, randomBytes(12 * MIB));
  writeFileSync(join(folder, 'webhook.secret'), `whsec_${SECRET.toString('base64')}\n`);
  receiver = await Server.start('node', [repository('examples/webhook-node/receiver.mjs')], { PORT: '0', WEBHOOK_SECRET_FILE: join(folder, 'webhook.secret') });
  const token = (): string => world.token('ada');
  site = await new Site([repository('examples/browser')], { '/token': token, '/config.json': () => JSON.stringify({ broker: world.broker }) }).start();
  const { printed: keys } = await run(PYTHON, [repository('examples/python-service/service.py'), '--jwks'], KEY);
  writeFileSync(join(folder, 'jwks.json'), keys);
  world = await World.start({
    origins: [site.origin],
    policies: `
[[policies]]
name = "videos"
object = "videos/{sub}/{id}"
content_types = ["video/*", "application/octet-stream"]
max_size = "1GiB"

[[policies]]
name = "pictures"
when = 'claims.iss == "https://service.example.com"'
object = "pictures/{sub}/{id}"
content_types = ["image/*"]
max_size = "1MiB"

[[issuers]]
issuer = "https://service.example.com"
audiences = ["upload-broker"]
jwks_file = "${folder}/jwks.json"
algorithms = ["ES256"]
max_lifetime = "5m"

[[webhooks]]
url = "http://127.0.0.1:${receiver.port}/hooks/uploads"
secret_file = "${folder}/webhook.secret"
allow_private_addresses = true
`,
  });
  service = await Server.start(PYTHON, [repository('examples/python-service/service.py')], { ...KEY, BROKER: world.broker, PORT: '0' });
});
afterAll(async () => {
  await Promise.all([receiver?.stop(), service?.stop(), site?.stop(), world?.stop()]);
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  await world.mend();
  await world.forgetJournal();
});

/** Waits for what comes by itself. */
async function eventually<T>(look: () => T | undefined): Promise<T> {
  for (let attempt = 0; attempt < 600; attempt++) {
    const found = look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('it did not come');
}

/** What storage says to each chunk from now on. */
const always = (action: unknown): Promise<void> => world.faults({ operation: 'chunk', count: 1000, action });

const curl = (file: string, type = 'video/mp4', token = world.token('ada')): ReturnType<typeof run> =>
  run(repository('examples/curl/upload.sh'), [file, type], { BROKER: world.broker, TOKEN: token });

describe('curl', () => {
  it('uploads a file, and prints how it ended', async () => {
    const { code, printed } = await curl(movie);
    expect([code, printed]).toEqual([0, expect.stringContaining('"state":"completed"')]);
    expect(JSON.parse(printed).result.size_bytes).toBe(12 * MIB);
  });

  it('uploads an empty file', async () => {
    const empty = join(folder, 'empty.mp4');
    writeFileSync(empty, '');
    const { code, printed } = await curl(empty);
    expect([code, printed]).toEqual([0, expect.stringContaining('"state":"completed"')]);
  });

  it('goes on where storage stands after the connection broke', async () => {
    await world.faults({ operation: 'chunk', action: { kind: 'persist_then_reset', bytes: 7 * MIB } });
    const { code, printed } = await curl(movie);
    expect([code, printed]).toEqual([0, expect.stringContaining('"state":"completed"')]);
    expect(wrongOffsets(await world.journal())).toEqual([]);
    expect((await world.journal()).filter(({ content_range }) => content_range?.startsWith(`bytes ${7 * MIB}-`))).toHaveLength(1);
  });

  it('renews a session that was lost', async () => {
    await world.faults({ operation: 'chunk', action: { kind: 'kill_session' } });
    const { code, printed } = await curl(movie);
    expect([code, printed]).toEqual([0, expect.stringContaining('"state":"completed"')]);
    expect(new Set((await world.journal()).map(({ session }) => session).filter(Boolean)).size).toBe(2);
  });

  describe('gives up, and says why', () => {
    /**
     * As `curl`, with pauses that are over at once, and a file of which all is sent before the answer comes: of a larger one
     * curl may learn no more than that the connection was reset.
     */
    const impatient = (): ReturnType<typeof run> => {
      const small = join(folder, 'small.mp4');
      writeFileSync(small, Buffer.alloc(1024));
      const quick = join(folder, 'quick');
      mkdirSync(quick, { recursive: true });
      writeFileSync(join(quick, 'sleep'), '#!/bin/sh\n');
      chmodSync(join(quick, 'sleep'), 0o755);
      return run(repository('examples/curl/upload.sh'), [small, 'video/mp4'], { BROKER: world.broker, TOKEN: world.token('ada'), PATH: `${quick}:${process.env['PATH']}` });
    };
    const chunks = async (): Promise<number> => (await world.journal()).filter(({ operation }) => operation === 'chunk').length;

    it.each([400, 403, 412])('at once when storage answers %s', async (status) => {
      await always({ kind: 'respond', status, body: 'xml' });
      const { code, printed } = await impatient();
      expect([code, printed]).toEqual([1, expect.stringContaining(`storage: ${status}`)]);
      expect(await chunks()).toBe(1);
    });

    it('when the question is refused', async () => {
      await world.faults({ operation: 'chunk', action: { kind: 'respond', status: 503 } }, { operation: 'status', action: { kind: 'respond', status: 403, body: 'xml' } });
      const { code, printed } = await impatient();
      expect([code, printed]).toEqual([1, expect.stringContaining('storage: 403')]);
    });

    it('when storage keeps nothing for too long', async () => {
      await always({ kind: 'respond', status: 503 });
      const { code, printed } = await impatient();
      expect([code, printed]).toEqual([1, expect.stringContaining('at last it said 503')]);
      expect(await chunks()).toBe(21);
    });

    it('when one session after the other is lost', async () => {
      await always({ kind: 'kill_session' });
      const { code, printed } = await impatient();
      expect([code, printed]).toEqual([1, expect.stringContaining('one session after the other')]);
      expect(await chunks()).toBe(6);
    });
  });

  it('says what the broker refuses, and ends without success', async () => {
    const refused = await curl(movie, 'text/plain');
    expect([refused.code, refused.printed]).toEqual([1, expect.stringContaining('policy-violation')]);
    const stranger = await curl(movie, 'video/mp4', 'no.token');
    expect([stranger.code, stranger.printed]).toEqual([1, expect.stringContaining('unauthenticated')]);
  });
});

describe('the receiver of webhooks', () => {
  const events = (id: string): unknown[] => receiver.lines.filter((line) => line.startsWith('{') && line.includes(id)).map((line) => JSON.parse(line));

  const post = (body: string, headers: Record<string, string>): Promise<number> =>
    fetch(`http://127.0.0.1:${receiver.port}/hooks/uploads`, { method: 'POST', headers, body }).then(({ status }) => status);

  const signed = (id: string, time: number, body: string, secret = SECRET): Record<string, string> => ({
    'webhook-id': id,
    'webhook-timestamp': String(time),
    'webhook-signature': `v1,${createHmac('sha256', secret).update(`${id}.${time}.${body}`).digest('base64')}`,
  });

  it('is told how an upload ended', async () => {
    const { printed } = await curl(movie);
    const { id, object, result } = JSON.parse(printed);
    const event = await eventually(() => events(id)[0]);
    expect(event).toEqual({ type: 'upload.completed', id, object, generation: result.generation });
  });

  it('believes only what bears a signature of now, and handles each event once', async () => {
    const now = Math.floor(Date.now() / 1000);
    const body = JSON.stringify({ type: 'upload.expired', timestamp: new Date().toISOString(), data: { upload: { id: 'made-up', object: 'x' } } });
    expect(await post(body, signed('evt_1', now, body, randomBytes(32)))).toBe(401);
    expect(await post(body, signed('evt_1', now - 301, body))).toBe(401);
    expect(await post(`${body} `, signed('evt_1', now, body))).toBe(401);
    expect(await post(body, { ...signed('evt_1', now, body), 'webhook-id': 'evt_2' })).toBe(401);
    expect(await post(body, {})).toBe(401);
    expect(events('made-up')).toEqual([]);
    // Another version of signatures may stand beside the one that is known.
    const headers = signed('evt_1', now, body);
    expect(await post(body, { ...headers, 'webhook-signature': `v2,x ${headers['webhook-signature']}` })).toBe(204);
    expect(await post(body, headers)).toBe(204);
    expect(events('made-up')).toHaveLength(1);
  });
});

describe('the service in Python', () => {
  const ask = async (path: string, session: string, body?: unknown): Promise<{ status: number; document: any }> => {
    const answer = await fetch(`http://127.0.0.1:${service.port}${path}`, {
      method: 'POST',
      headers: { authorization: `Session ${session}`, 'content-type': 'application/json' },
      body: body === undefined ? '' : JSON.stringify(body),
    });
    return { status: answer.status, document: await answer.json() };
  };
  const picture = { filename: 'beach.jpg', content_type: 'image/jpeg', size_bytes: 1000, album: 'summer' };

  it('creates an upload in the name of its user, who sends the bytes', async () => {
    const { status, document } = await ask('/uploads', 'session-of-ada', picture);
    expect(status).toBe(201);
    const { id, transfer } = document;
    const sent = await fetch(transfer.uri, { method: transfer.method, headers: transfer.headers, body: new Uint8Array(1000) });
    expect(sent.status).toBe(200);
    // Somebody else's upload does not exist.
    expect((await ask(`/uploads/${id}/complete`, 'session-of-bob')).status).toBe(404);
    const done = await ask(`/uploads/${id}/complete`, 'session-of-ada');
    expect(done).toEqual({ status: 200, document: { id, state: 'completed', object: `pictures/ada/${id}` } });
  });

  it('answers 503 when the broker is out of reach, and 502 when something else answers in its place', async () => {
    const proxy = createServer((_, answer) => void answer.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>'));
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    const BROKER = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const apart = await Server.start(PYTHON, [repository('examples/python-service/service.py')], { KEY_FILE: join(folder, 'service.pem'), BROKER, PORT: '0' });
    const create = async (): Promise<[number, string]> => {
      const answer = await fetch(`http://127.0.0.1:${apart.port}/uploads`, { method: 'POST', headers: { authorization: 'Session session-of-ada' }, body: JSON.stringify(picture) });
      return [answer.status, ((await answer.json()) as { error: string }).error];
    };
    try {
      expect(await create()).toEqual([502, 'broker-unavailable']);
      proxy.closeAllConnections();
      await new Promise((resolve) => proxy.close(resolve));
      expect(await create()).toEqual([503, 'broker-unreachable']);
    } finally {
      proxy.close();
      await apart.stop();
    }
  });

  it.each(['-1', 'many', '1e3'])('refuses a length of %s', async (length) => {
    const answer = await new Promise<string>((resolve, reject) => {
      let said = '';
      const socket = connect(service.port, '127.0.0.1', () =>
        socket.write(`POST /uploads HTTP/1.1\r\nhost: x\r\nauthorization: Session session-of-ada\r\ncontent-length: ${length}\r\n\r\n`));
      socket.setTimeout(10_000, () => socket.destroy(new Error('no answer')));
      socket.on('data', (data) => (said += String(data))).on('close', () => resolve(said)).on('error', reject);
    });
    expect(answer).toMatch(/^HTTP\/1.\d 400 /);
  });

  it('hands on what the broker refuses, and lets nobody in who is signed out', async () => {
    const refused = await ask('/uploads', 'session-of-ada', { ...picture, size_bytes: 2 * MIB });
    expect([refused.status, refused.document.error]).toEqual([422, 'policy-violation']);
    expect((await ask('/uploads', 'session-of-eve', picture)).status).toBe(401);
    expect((await ask('/uploads', 'session-of-ada', { filename: 'x' })).status).toBe(400);
  });
});

describe('the page', () => {
  /** The user's last upload. */
  const newest = async (): Promise<{ state: string; md5?: string }> => {
    const answer = await fetch(`${world.broker}/v1/uploads?limit=1`, { headers: { authorization: `Bearer ${world.token('ada')}` } });
    const [{ state, result }] = (await answer.json()).uploads;
    return { state, md5: result?.md5 };
  };

  describe('ends, and says why', () => {
    /** Uploads with pauses that are over soon, does what goes wrong meanwhile, and gives what the page says in the end. */
    const end = async (file: string, meanwhile = async (): Promise<void> => {}): Promise<string | null> => {
      const browser = await launch();
      try {
        const page = await browser.newPage();
        await page.addInitScript(() => {
          const original = globalThis.setTimeout;
          globalThis.setTimeout = ((act: () => void, ms?: number) => original(act, Math.min(ms ?? 0, 10))) as typeof setTimeout;
        });
        await page.goto(site.origin);
        await page.setInputFiles('#file', file);
        await meanwhile();
        await page.waitForFunction(() => document.getElementById('state')?.textContent?.startsWith('It failed'), undefined, { timeout: 60_000 });
        return await page.textContent('#state');
      } finally {
        await browser.close();
      }
    };
    const chunks = async (): Promise<number> => (await world.journal()).filter(({ operation }) => operation === 'chunk').length;

    it.each([400, 403, 412])('when storage answers %s', async (status) => {
      await always({ kind: 'respond', status, body: 'xml' });
      expect(await end(movie)).toBe(`It failed: Storage refused the bytes (${status}).`);
      expect(await chunks()).toBe(1);
    });

    it('when one session after the other is lost', async () => {
      await always({ kind: 'kill_session' });
      expect(await end(movie)).toBe('It failed: One session after the other was lost.');
      expect(await chunks()).toBe(6);
    });

    it('when the file changes', async () => {
      const changing = join(folder, 'changing.mp4');
      writeFileSync(changing, randomBytes(24 * MIB));
      await world.faults({ operation: 'chunk', skip: 1, action: { kind: 'hold' } });
      expect(await end(changing, async () => {
        for (let attempt = 0; (await chunks()) < 1; attempt++) {
          if (attempt === 600) throw new Error('no chunk came');
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        appendFileSync(changing, 'more');
        await world.mend();
      })).toMatch(/^It failed: The file was changed or removed/);
    });
  });

  it('uploads a file in chunks, and goes on after a broken connection and a lost session', async () => {
    const md5 = createHash('md5').update(readFileSync(movie)).digest('base64');
    const browser = await launch();
    try {
      const page = await browser.newPage();
      await page.goto(site.origin);
      const upload = async (): Promise<void> => {
        await page.setInputFiles('#file', []);
        await page.setInputFiles('#file', movie);
        await page.waitForFunction(() => document.getElementById('state')?.textContent === 'Completed.', undefined, { timeout: 60_000 });
      };
      await world.faults({ operation: 'chunk', skip: 1, action: { kind: 'persist_then_reset', bytes: MIB } });
      await upload();
      expect(await newest()).toEqual({ state: 'completed', md5 });
      expect((await world.journal()).some(({ faulty }) => faulty)).toBe(true);
      await page.reload();
      await world.forgetJournal();
      await world.faults({ operation: 'chunk', skip: 1, action: { kind: 'kill_session' } });
      await upload();
      expect(await newest()).toEqual({ state: 'completed', md5 });
      expect(new Set((await world.journal()).map(({ session }) => session).filter(Boolean)).size).toBe(2);
    } finally {
      await browser.close();
    }
  });
});
