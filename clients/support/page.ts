/** A browser, and pages of an origin of their own. */
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { chromium } from 'playwright-core';
import type { Browser } from 'playwright-core';

const TYPES: Record<string, string> = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css' };

/** What a page may load: what its own origin serves, and nothing inline. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; worker-src 'self'; img-src 'self' data: blob:; connect-src *; base-uri 'none'; form-action 'none'";

/** A static server on an origin of its own. */
export class Site {
  readonly #server: Server;
  origin = '';

  /** `folders` are searched in order. `answers` come first; each gives a body. */
  constructor(folders: string[], answers: Record<string, (query: URLSearchParams) => string> = {}) {
    this.#server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? '/', 'http://site');
      const head = { 'content-security-policy': POLICY, 'cache-control': 'no-store' };
      const answer = answers[pathname];
      if (answer) return void response.writeHead(200, { ...head, 'content-type': pathname === '/' ? TYPES['.html'] : 'text/plain' }).end(answer(searchParams));
      const path = normalize(pathname === '/' ? '/index.html' : pathname);
      const file = folders.map((folder) => join(folder, path)).find((file) => existsSync(file) && statSync(file).isFile());
      if (!file) return void response.writeHead(404, head).end();
      response.writeHead(200, { ...head, 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
      createReadStream(file).pipe(response);
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.origin = `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Chromium as Debian packs it, or as `CHROMIUM` says. It talks to nobody but the tests' own servers. */
export const launch = (): Promise<Browser> => chromium.launch({
  executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
