/** Who goes on with an upload: at most one upload of all pages of this origin. */

/** Uploads of this page, by the key of their record. */
const held = new Set<string>();

/** So long may a page that was just left take to let go, in milliseconds: its successor may already ask. */
const LETS_GO_WITHIN_MS = 250;

/** The lock of all pages: gives what releases it, or `undefined` when another page has it. */
async function lock(key: string): Promise<(() => void) | undefined> {
  const locks = typeof navigator === 'undefined' ? undefined : navigator.locks;
  // An old browser, or an origin that is not secure: this page alone is all that can be kept apart.
  if (!locks) return () => {};
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), LETS_GO_WITHIN_MS);
  try {
    return await new Promise((resolve, reject) => {
      locks.request(`upload-broker ${key}`, { signal: patience.signal }, () => new Promise<void>((release) => resolve(release))).catch(reject);
    });
  } catch {
    // Else it is not allowed here, as in a sandboxed frame.
    return patience.signal.aborted ? undefined : () => {};
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Keeps everybody else, in this page and in others of this origin, from going on with the same upload. Gives what
 * releases it, or who has it. A page that goes away releases by going.
 */
export async function hold(key: string): Promise<(() => void) | 'this page' | 'another tab'> {
  if (held.has(key)) return 'this page';
  held.add(key);
  const release = await lock(key);
  if (!release) {
    held.delete(key);
    return 'another tab';
  }
  return () => {
    held.delete(key);
    release();
  };
}

/** Whether somebody goes on with it just now. Takes the lock for a moment, which is less than `hold` waits. */
export async function isHeld(key: string): Promise<boolean> {
  if (held.has(key)) return true;
  const release = await lock(key);
  release?.();
  return !release;
}
