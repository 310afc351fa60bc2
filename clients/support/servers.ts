/** The real broker and the storage emulator, each a process of its own, for tests. */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM = process.env['UPLOAD_BROKER'] ?? fileURLToPath(new URL('../../target/debug/upload-broker', import.meta.url));

/** What a test wants to be otherwise. */
export interface Wishes {
  /** The `[[policies]]` sections. */
  policies?: string;
  origins?: string[];
  /** TLS with a certificate of its own, and a real Redis; else plain HTTP on loopback, and memory. */
  asInProduction?: boolean;
}

/** One call, as the emulator's journal has it. */
export interface Entry {
  sequence: number;
  operation: string;
  method: string;
  object?: string;
  session?: number;
  status?: number;
  content_range?: string;
  origin?: string;
  received: number;
  persisted?: number;
  faulty: boolean;
}

const POLICIES = `
[[policies]]
name = "videos"
object = "videos/{sub}/{id}.{ext}"
max_size = "8GiB"
transfers = ["resumable", "simple", "signed_resumable"]
simple_max_size = "8MiB"
`;

export class World {
  readonly #children: ChildProcess[] = [];
  readonly #folder = mkdtempSync(join(tmpdir(), 'upload-broker-'));
  storage = '';
  broker = '';

  static async start(wishes: Wishes = {}): Promise<World> {
    const world = new World();
    try {
      await world.#boot(wishes);
      return world;
    } catch (error) {
      await world.stop();
      throw error;
    }
  }

  async #boot({ policies = POLICIES, origins = [], asInProduction = false }: Wishes): Promise<void> {
    const emulator = this.#spawn(PROGRAM, ['emulator', '--bucket', 'media-eu', '--port', '0', '--service-account', this.#file('sa.json')]);
    this.storage = await line(emulator, 'stdout', (text) => /storage emulator: (\S+)/.exec(text)?.[1]);
    let store = 'memory';
    let tls = '';
    if (asInProduction) {
      const port = await freePort();
      const redis = this.#spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']);
      await line(redis, 'stdout', (text) => (text.includes('eady to accept connections') ? 'ready' : undefined));
      store = `redis://127.0.0.1:${port}`;
      execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
        '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', this.#file('tls.key'), '-out', this.#file('tls.crt')], { stdio: 'ignore' });
      tls = 'tls = { certificate = "tls.crt", key = "tls.key" }';
    }
    writeFileSync(this.#file('jwks.json'), execFileSync(PROGRAM, ['token', '--key', this.#file('issuer.pem'), '--jwks'], { stdio: ['ignore', 'pipe', 'ignore'] }));
    writeFileSync(this.#file('session.key'), randomBytes(32).toString('base64'));
    writeFileSync(this.#file('broker.toml'), `
region = "europe-west1"
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
public_url = "https://localhost"
allowed_origins = ${JSON.stringify(origins)}
${tls}
[store]
url = "${store}"
encryption_keys = [{ id = "k1", file = "session.key" }]
[storage]
endpoint = "${this.storage}"
credentials = { file = "sa.json" }
[[issuers]]
issuer = "https://issuer.example"
audiences = ["upload-broker"]
jwks_file = "jwks.json"
algorithms = ["ES256"]
leeway = "0s"
[[regions]]
name = "europe-west1"
bucket = "media-eu"
url = "https://localhost"
${policies}`);
    const broker = this.#spawn(PROGRAM, ['serve', '--config', this.#file('broker.toml'), ...(asInProduction ? [] : ['--insecure-loopback'])]);
    const [address, operations] = await line(broker, 'stderr', (text) => {
      const { address, operations, message } = parse(text);
      return message === 'listening' && address && operations ? [address, operations] : undefined;
    });
    this.broker = asInProduction ? `https://localhost:${address.split(':').at(-1)}` : `http://${address}`;
    for (let attempt = 0; (await fetch(`http://${operations}/readyz`)).status !== 200; attempt++) {
      if (attempt === 200) throw new Error('the broker is not ready');
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  /** A token of `subject`, good for so many seconds. */
  token(subject = 'ada', seconds = 3600): string {
    return execFileSync(PROGRAM, ['token', '--key', this.#file('issuer.pem'), '--subject', subject, '--lifetime', `${seconds}s`], { encoding: 'utf8' }).trim();
  }

  /** What goes wrong from now on, in the form of the emulator's documentation. */
  async faults(...faults: unknown[]): Promise<void> {
    const answer = await fetch(`${this.storage}/_emulator/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(faults) });
    if (!answer.ok) throw new Error(`the faults were refused: ${await answer.text()}`);
  }

  /** Forgets all faults, and lets held calls go on. */
  async mend(): Promise<void> {
    await fetch(`${this.storage}/_emulator/faults`, { method: 'DELETE' });
  }

  async journal(): Promise<Entry[]> {
    const { entries } = (await (await fetch(`${this.storage}/_emulator/journal`)).json()) as { entries: Entry[] };
    return entries;
  }

  async forgetJournal(): Promise<void> {
    await fetch(`${this.storage}/_emulator/journal`, { method: 'DELETE' });
  }

  async advanceStorage(by: string): Promise<void> {
    await fetch(`${this.storage}/_emulator/clock`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ advance: by }) });
  }

  async stop(): Promise<void> {
    await Promise.all(this.#children.map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }));
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #file(name: string): string {
    return join(this.#folder, name);
  }

  #spawn(program: string, args: string[]): ChildProcess {
    const child = spawn(program, args, { cwd: this.#folder, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#children.push(child);
    return child;
  }
}

/**
 * The chunks that were not sent from where their session stood: a gap, or bytes sent again that storage was known to
 * have. Empty when all is well.
 */
export function wrongOffsets(entries: Entry[]): Entry[] {
  const stood = new Map<number, number>();
  return entries.filter(({ operation, session, content_range, persisted }) => {
    if (session === undefined) return false;
    const before = stood.get(session) ?? 0;
    if (persisted !== undefined) stood.set(session, persisted);
    const from = /^bytes (\d+)-/.exec(content_range ?? '')?.[1];
    return operation === 'chunk' && from !== undefined && Number(from) !== before;
  });
}

function parse(text: string): { address?: string; operations?: string; message?: string } {
  try {
    const { fields = {}, ...rest } = JSON.parse(text);
    return { ...rest, ...fields };
  } catch {
    return {};
  }
}

/** The first line in which `find` finds something. What comes after it is read, and dropped. */
function line<T>(child: ChildProcess, from: 'stdout' | 'stderr', find: (text: string) => T | undefined): Promise<T> {
  const said: string[] = [];
  child[from === 'stdout' ? 'stderr' : 'stdout']?.on('data', (data) => said.push(String(data)));
  return new Promise((resolve, reject) => {
    createInterface({ input: child[from]! }).on('line', (text) => {
      if (said.length < 100) said.push(text);
      const found = find(text);
      if (found !== undefined) resolve(found);
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`${child.spawnfile} ended with ${code}:\n${said.join('\n')}`)));
  });
}

/** Of a server that cannot take port 0 and say which one it got. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
