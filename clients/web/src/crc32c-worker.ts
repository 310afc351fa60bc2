/** Digests slices of a file off the page's thread. One message in, one message out, in order. */
import { crc32cOf } from './crc32c.js';

const scope = globalThis as unknown as {
  onmessage: (event: { data: { blob: Blob; crc: number } }) => void;
  postMessage(message: { crc: number } | { error: unknown }): void;
};

scope.onmessage = ({ data: { blob, crc } }) => {
  crc32cOf(blob, crc).then(
    (crc) => scope.postMessage({ crc }),
    // A DOMException survives the way with its name, which tells a file that changed from a bug.
    (error: unknown) => scope.postMessage({ error }),
  );
};
