// Makes `client.js` and its worker for the page of the demo out of the sources of `@upload-broker/client`. Both are
// committed, so that building the broker needs no Node; a test compares them with what this makes now.
import { buildSync } from 'esbuild';
import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

/** @param {string} path */
const at = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Where the page's files are. */
export const PAGE = at('../../src/demo/page/');

const BANNER = '// @ts-nocheck: made of clients/web by `npm run build --workspace demo` in clients/. Do not edit.';

/** Name and text of each file. Not minified: whoever reads the demo's page may want to read on. */
export function build() {
  const { outputFiles } = buildSync({
    entryPoints: { client: at('../web/src/index.ts'), 'crc32c-worker': at('../web/src/crc32c-worker.ts') },
    bundle: true, format: 'esm', target: 'es2022', charset: 'utf8', banner: { js: BANNER },
    // So that names of folders in comments do not depend on where this runs.
    absWorkingDir: at('../web/src'), outdir: '/', write: false, logLevel: 'warning',
  });
  return outputFiles.map(({ path, text }) => ({ name: basename(path), text }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const { name, text } of build()) writeFileSync(PAGE + name, text);
}
