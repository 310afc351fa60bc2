/** The OpenAPI document, under a linter whose warnings are errors. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { made, repository, run } from './program.js';

const DOCUMENT = repository('openapi/upload-broker.json');

const lint = (document: string): ReturnType<typeof run> =>
  run(made('node_modules/.bin/redocly'), ['lint', document, '--config', repository('openapi/redocly.yaml')], { REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' });

it('finds nothing in the document', async () => {
  const { code, printed } = await lint(DOCUMENT);
  expect([code, printed]).toEqual([0, expect.stringContaining('Your API description is valid')]);
  expect(printed).not.toMatch(/warning(s)? (was|were)|Warning was generated/);
});

it.each([
  ['an example that does not fit its schema', 'no-invalid-media-type-examples', (document: any) => {
    document.paths['/v1/uploads'].post.requestBody.content['application/json'].examples.video.value.size_bytes = 'many';
  }],
  ['an example with a field that the schema does not have', 'no-invalid-media-type-examples', (document: any) => {
    document.components.examples['not-found'].value.surprise = true;
  }],
  ['an operation without a description', 'operation-description', (document: any) => {
    delete document.paths['/v1/uploads'].get.description;
  }],
  ['a reference to nothing', 'no-unresolved-refs', (document: any) => {
    document.components.schemas.Upload.properties.state.$ref = '#/components/schemas/Nothing';
  }],
])('would find %s', async (_, rule, spoil) => {
  const folder = mkdtempSync(join(tmpdir(), 'lint-'));
  try {
    const document = JSON.parse(readFileSync(DOCUMENT, 'utf8'));
    spoil(document);
    writeFileSync(join(folder, 'openapi.json'), JSON.stringify(document));
    const { code, printed } = await lint(join(folder, 'openapi.json'));
    expect([code, printed]).toEqual([1, expect.stringContaining(rule)]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
