/** What tells a file from another one of the same name, without reading it whole. */
import { unreadable } from './source.js';

export interface Fingerprint {
  name: string;
  size: number;
  /** Milliseconds; 0 of a blob that does not say. */
  lastModified: number;
  type: string;
  /** CRC32C of the first, the middle and the last 64 KiB, one after the other. */
  sample: number;
}

const SAMPLE = 64 * 1024;

export async function fingerprintOf(file: Blob, name: string): Promise<Fingerprint> {
  const { crc32cOf } = await import('./crc32c.js');
  let sample = 0;
  try {
    for (const at of new Set([0, Math.floor(file.size / 2), Math.max(0, file.size - SAMPLE)])) {
      sample = await crc32cOf(file.slice(at, at + SAMPLE), sample);
    }
  } catch (error) {
    throw unreadable(error);
  }
  return { name, size: file.size, lastModified: (file as Partial<File>).lastModified ?? 0, type: file.type, sample };
}

/** In words, what is different in `now`, or `undefined` when it is the same file. */
export function difference(before: Fingerprint, now: Fingerprint): string | undefined {
  if (before.name !== now.name) return `it was called ${before.name}`;
  if (before.size !== now.size) return `it had ${before.size} bytes, and this one has ${now.size}`;
  if (before.sample !== now.sample) return 'it had other content';
  if (before.lastModified !== now.lastModified) return 'it was modified at another time';
  if (before.type !== now.type) return `it was ${before.type || 'of no type'}, and this one is ${now.type || 'of no type'}`;
  return undefined;
}
