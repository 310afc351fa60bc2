/** Which region's broker to ask. */
import type { Fetch } from './broker.js';

export const withoutSlash = (url: string): string => url.replace(/\/+$/, '');

/** How long one region may take to tell the nearest, in milliseconds. The next one is asked then. */
const ANSWER_WITHIN_MS = 5000;

/**
 * The broker to begin with: of `regions`, the one that `GET /v1/route` calls the nearest. A broker without that
 * endpoint is taken itself. Never gives an address that is not one of `regions`: the token goes there. Nor one of
 * `failed`, to which those are added that do not answer, as long as there is another.
 */
export async function nearest(
  regions: string[], fetch: Fetch, signal: AbortSignal, failed = new Set<string>(), withinMs = ANSWER_WITHIN_MS,
): Promise<string> {
  const known = regions.map(withoutSlash);
  const good = (region: string): boolean => !failed.has(region);
  // Those that failed before may be back, but are asked last.
  for (const region of [...known.filter(good), ...known.filter((region) => !good(region))]) {
    const routes = await routesOf(region, fetch, signal, Math.min(withinMs, ANSWER_WITHIN_MS));
    if (signal.aborted) break;
    if (routes === undefined) {
      failed.add(region);
      continue;
    }
    failed.delete(region);
    const named = routes.map((url) => (typeof url === 'string' ? withoutSlash(url) : '')).filter((url) => known.includes(url));
    return named.find(good) ?? region;
  }
  // None answers: what the upload waits for is then the first of which nothing is known.
  return known.find(good) ?? known[0]!;
}

/** What a region says of the routes; nothing of use from one without that endpoint; `undefined` when it does not answer. */
async function routesOf(region: string, fetch: Fetch, signal: AbortSignal, withinMs: number): Promise<unknown[] | undefined> {
  const request = new AbortController();
  const stop = (): void => request.abort();
  signal.addEventListener('abort', stop);
  const timer = setTimeout(stop, withinMs);
  try {
    const response = await fetch(`${region}/v1/route`, { signal: request.signal, credentials: 'omit', cache: 'no-store' });
    if (!response.ok) {
      await response.body?.cancel();
      return response.status >= 500 ? undefined : [];
    }
    const routes = ((await response.json()) as { regions?: unknown } | null)?.regions;
    return Array.isArray(routes) ? routes.map((route: { url?: unknown } | null) => route?.url) : [];
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

/**
 * The broker that took an upload, by the address that its creation was answered with: brokers can have the nearest
 * region create it. A path is one of the broker that was asked.
 */
export function takerOf(location: string | null, id: string): string | undefined {
  const end = `/v1/uploads/${id}`;
  if (!location || !/^https?:\/\//.test(location) || !location.endsWith(end)) return undefined;
  return withoutSlash(location.slice(0, -end.length));
}
