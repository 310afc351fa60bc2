/** Programs that tests run: to their end, or as servers. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** A path in this repository. */
export const repository = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

/** Where `clients/generated/test` puts what it installs, generates and compiles. */
export const made = (path: string): string => repository(`target/clients/generated/${path}`);

/** The interpreter with what `requirements.txt` names. */
export const PYTHON = made('python/bin/python');

export interface Ended {
  code: number | null;
  /** All that it printed. */
  printed: string;
}

/** Runs a program to its end. It inherits no setting but the path, and no proxy. */
export function run(program: string, args: string[], env: Record<string, string> = {}, cwd?: string): Promise<Ended> {
  const child = spawn(program, args, { cwd, env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  for (const output of [child.stdout, child.stderr]) output.on('data', (data) => (printed += String(data)));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, printed }));
  });
}

/** A server that says `listening: PORT`. */
export class Server {
  readonly #child: ChildProcess;
  readonly lines: string[] = [];
  port = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(program: string, args: string[], env: Record<string, string>): Promise<Server> {
    const child = spawn(program, args, { env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] });
    const server = new Server(child);
    child.stderr.on('data', (data) => server.lines.push(String(data)));
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        server.lines.push(line);
        const port = /^listening: (\d+)$/.exec(line)?.[1];
        if (port !== undefined) {
          server.port = Number(port);
          resolve();
        }
      });
      child.once('error', reject);
      child.once('exit', () => reject(new Error(`${program} ended:\n${server.lines.join('\n')}`)));
    });
    return server;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }
}

function environment(added: Record<string, string>): Record<string, string> {
  return { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent', NO_COLOR: '1', PYTHONDONTWRITEBYTECODE: '1', ...added };
}
