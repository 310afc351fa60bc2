/** The demo as a process, its page in a browser, and what the page must never do. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Page, Request } from 'playwright-core';
import type { Network, World } from '../../../src/demo/page/world.js';

const PROGRAM = process.env['UPLOAD_BROKER'] ?? fileURLToPath(new URL('../../../target/debug/upload-broker', import.meta.url));

/** One call, as the journal of a region's storage has it. */
export interface Entry {
  operation: string;
  status?: number;
  content_range?: string;
  object?: string;
  persisted?: number;
}

export class Demo {
  private constructor(readonly origin: string, readonly child: ChildProcess) {}

  /** Waits until its samples are there. */
  static start(): Promise<Demo> {
    const child = spawn(PROGRAM, ['demo', '--port', '0'], { stdio: ['ignore', 'pipe', 'pipe'] });
    const said: string[] = [];
    child.stderr!.on('data', (data) => said.push(String(data)) > 100 && said.shift());
    return new Promise((resolve, reject) => {
      let origin = '';
      createInterface({ input: child.stdout! }).on('line', (line) => {
        origin = /page to upload from:\s+(\S+)/.exec(line)?.[1] ?? origin;
        if (line.includes('Ctrl-C')) resolve(new Demo(origin, child));
      });
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`the demo ended with ${code}:\n${said.join('')}`)));
    });
  }

  async world(): Promise<World> {
    return (await fetch(`${this.origin}/demo/world`)).json();
  }

  async put(path: string, body: object): Promise<void> {
    const answer = await fetch(`${this.origin}/demo/${path}`, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${path} was refused: ${await answer.text()}`);
  }

  network(change: Partial<Network>): Promise<void> {
    return this.put('network', change);
  }

  /** Of the page's user. */
  async headers(): Promise<Record<string, string>> {
    return { authorization: `Bearer ${await (await fetch(`${this.origin}/token?sub=ada`)).text()}`, 'content-type': 'application/json' };
  }

  /** Cancels what a test left under way: policies count it. */
  async clear(): Promise<void> {
    const headers = await this.headers();
    for (const { broker } of (await this.world()).regions) {
      for (const state of ['pending', 'uploading']) {
        const { uploads } = (await (await fetch(`${broker}/v1/uploads?state=${state}`, { headers })).json()) as { uploads: { id: string }[] };
        for (const { id } of uploads) await fetch(`${broker}/v1/uploads/${id}`, { method: 'DELETE', headers });
      }
    }
  }

  /** As it was at the start: in Germany, with a good network, and all regions up. */
  async calm(): Promise<void> {
    await this.network({ latency_ms: 0, drops: false, lost_answers: false, expired_session: false });
    await this.put('client', { country: 'DE' });
    for (const { name, running } of (await this.world()).regions) {
      if (!running) await this.put(`regions/${name}`, { running: true });
    }
  }

  /** The connection of a later chunk is cut, and that of the next request with one as well. */
  async cutTwice(): Promise<void> {
    const faults = [{ operation: 'chunk', skip: 3, count: 2, action: { kind: 'persist_then_reset', bytes: 300_017 } }];
    const answer = await fetch(`${await this.#storage()}/_emulator/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(faults) });
    if (!answer.ok) throw new Error(`the faults were refused: ${await answer.text()}`);
  }

  /** The chunks that the storage in Europe saw. */
  async chunks(): Promise<Entry[]> {
    const storage = await this.#storage();
    const { entries } = (await (await fetch(`${storage}/_emulator/journal`)).json()) as { entries: Entry[] };
    return entries.filter(({ operation }) => operation === 'chunk');
  }

  async #storage(): Promise<string> {
    return (await this.world()).regions.find(({ name }) => name === 'europe-west1')!.storage;
  }

  async stop(): Promise<void> {
    this.child.kill('SIGKILL');
    await new Promise((resolve) => this.child.once('exit', resolve));
  }
}

/**
 * Collects what a page must not do: errors, what its content security policy refused, and requests to elsewhere. Browsers
 * also tell of answers that a test provokes: those to addresses that it names with `mayFail`.
 */
export function watch(page: Page): { wrongs: string[]; mayFail: (request: RegExp) => void } {
  const wrongs: string[] = [];
  const mayFail: RegExp[] = [];
  page.on('pageerror', (error) => wrongs.push(error.stack ?? error.message));
  page.on('console', (message) => {
    // What is not allowed to answer at all is told with the address in the text.
    const failed = /^Access to fetch at '([^']+)'/.exec(message.text())?.[1] ?? (/^Failed to load resource/.test(message.text()) ? message.location().url : undefined);
    const isAnswer = failed !== undefined && mayFail.some((request) => request.test(failed));
    if ((message.type() === 'error' || message.type() === 'warning') && !isAnswer) wrongs.push(`${message.text()} (${message.location().url})`);
  });
  page.on('request', (request: Request) => {
    const { protocol, hostname } = new URL(request.url());
    if (hostname !== '127.0.0.1' && protocol !== 'data:' && protocol !== 'blob:') wrongs.push(`request to ${request.url()}`);
  });
  return { wrongs, mayFail: (request) => void mayFail.push(request) };
}
