// How much a page loads: the package bundled, minified and gzipped. What is loaded later, when the first byte is digested,
// is told apart. Fails when the first part has outgrown its bound.
import { buildSync } from 'esbuild';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

// 12 KiB since an upload leaves a region that is away, ends while a token or a stream is waited for, and gives back what it
// created without hearing of it.
const BOUND = 12 * 1024;

const { outputFiles } = buildSync({
  entryPoints: [fileURLToPath(new URL('../src/index.ts', import.meta.url))],
  bundle: true, minify: true, splitting: true, format: 'esm', target: 'es2022', outdir: '/out', write: false,
});
const sizes = outputFiles.map(({ path, contents }) => ({ first: path.endsWith('index.js'), bytes: gzipSync(contents, { level: 9 }).length }));
const sum = (first) => sizes.filter((size) => size.first === first).reduce((total, { bytes }) => total + bytes, 0);
console.log(`@upload-broker/client: ${sum(true)} bytes gzipped, at most ${BOUND}; ${sum(false)} more when it digests`);
if (!(sum(true) <= BOUND)) {
  console.error('It has outgrown its bound. Make it smaller, or say in tests/size.js why it may be larger.');
  process.exit(1);
}
