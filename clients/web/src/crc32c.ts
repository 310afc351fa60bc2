/** CRC32C (Castagnoli, reflected polynomial 0x82F63B78), eight bytes at a time. */

const TABLES: Int32Array[] = Array.from({ length: 8 }, () => new Int32Array(256));
for (let n = 0; n < 256; n++) {
  let crc = n;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  TABLES[0]![n] = crc;
}
for (let n = 0; n < 256; n++) {
  for (let k = 1; k < 8; k++) {
    const before = TABLES[k - 1]![n]!;
    TABLES[k]![n] = (before >>> 8) ^ TABLES[0]![before & 255]!;
  }
}
const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES as [Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array];

/** The CRC32C of what `crc` is of, followed by `bytes`. Of nothing it is 0. */
export function crc32c(bytes: Uint8Array, crc = 0): number {
  let c = ~crc;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    c ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    c = T7[c & 255]! ^ T6[(c >>> 8) & 255]! ^ T5[(c >>> 16) & 255]! ^ T4[c >>> 24]!
      ^ T3[bytes[i + 4]!]! ^ T2[bytes[i + 5]!]! ^ T1[bytes[i + 6]!]! ^ T0[bytes[i + 7]!]!;
  }
  for (; i < bytes.length; i++) c = T0[(c ^ bytes[i]!) & 255]! ^ (c >>> 8);
  return ~c >>> 0;
}

/** So much of a file is in memory at once while it is digested. */
const PIECE = 1024 * 1024;

/** As `crc32c`, of a slice of a file, read piece by piece. */
export async function crc32cOf(blob: Blob, crc = 0): Promise<number> {
  for (let at = 0; at < blob.size; at += PIECE) {
    crc = crc32c(new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer()), crc);
  }
  return crc;
}

/** As storage and the broker write it: big-endian, in base64. */
export const toBase64 = (crc: number): string =>
  btoa(String.fromCharCode(crc >>> 24, (crc >>> 16) & 255, (crc >>> 8) & 255, crc & 255));
