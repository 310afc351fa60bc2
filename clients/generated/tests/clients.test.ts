/** Clients made of the OpenAPI document, used against a broker: each makes an upload, sends it, ends it, and reads a problem. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { World } from '../../support/servers.js';
import { made, PYTHON, repository, run } from './program.js';

let world: World;

beforeAll(async () => {
  const policies = '[[policies]]\nname = "videos"\nobject = "videos/{sub}/{id}"\ncontent_types = ["video/*"]\nmax_size = "1GiB"\n';
  world = await World.start({ policies });
});
afterAll(() => world?.stop());

const clients: Record<string, [program: string, ...args: string[]]> = {
  TypeScript: ['node', made('clients/typescript/built/check.js')],
  Python: [PYTHON, made('clients/python/check.py')],
  Java: ['java', '-XX:TieredStopAtLevel=1', '-cp', `${made('clients/java/classes')}:${made('jars/*')}`, 'Check'],
  Go: [made('clients/go/check')],
};

it.each(Object.entries(clients))('the %s client uploads and reads problems', async (name, [program, ...args]) => {
  const { code, printed } = await run(program, args, { BROKER: world.broker, TOKEN: world.token(name) });
  expect([code, printed.trim().split('\n').at(-1)], printed).toEqual([0, 'passed']);
});

it('the Swift and Dart clients are well-formed', async () => {
  const { code, printed } = await run(PYTHON, [repository('clients/generated/python/well_formed.py'), made('clients')]);
  expect([code, printed.trim()]).toEqual([0, 'passed']);
});
