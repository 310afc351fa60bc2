// @ts-nocheck: made of clients/web by `npm run build --workspace demo` in clients/. Do not edit.

// crc32c.ts
var TABLES = Array.from({ length: 8 }, () => new Int32Array(256));
for (let n = 0; n < 256; n++) {
  let crc = n;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >>> 1 ^ 2197175160 : crc >>> 1;
  TABLES[0][n] = crc;
}
for (let n = 0; n < 256; n++) {
  for (let k = 1; k < 8; k++) {
    const before = TABLES[k - 1][n];
    TABLES[k][n] = before >>> 8 ^ TABLES[0][before & 255];
  }
}
var [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES;
function crc32c(bytes, crc = 0) {
  let c = ~crc;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    c ^= bytes[i] | bytes[i + 1] << 8 | bytes[i + 2] << 16 | bytes[i + 3] << 24;
    c = T7[c & 255] ^ T6[c >>> 8 & 255] ^ T5[c >>> 16 & 255] ^ T4[c >>> 24] ^ T3[bytes[i + 4]] ^ T2[bytes[i + 5]] ^ T1[bytes[i + 6]] ^ T0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) c = T0[(c ^ bytes[i]) & 255] ^ c >>> 8;
  return ~c >>> 0;
}
var PIECE = 1024 * 1024;
async function crc32cOf(blob, crc = 0) {
  for (let at = 0; at < blob.size; at += PIECE) {
    crc = crc32c(new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer()), crc);
  }
  return crc;
}

// crc32c-worker.ts
var scope = globalThis;
scope.onmessage = ({ data: { blob, crc } }) => {
  crc32cOf(blob, crc).then(
    (crc2) => scope.postMessage({ crc: crc2 }),
    // A DOMException survives the way with its name, which tells a file that changed from a bug.
    (error) => scope.postMessage({ error })
  );
};
