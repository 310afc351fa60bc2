/** Which region's broker to ask. */
import type { Fetch } from './broker.js';

export const withoutSlash = (url: string): string => url.replace(/\/+$/, '');

/**
 * The broker to begin with: of `regions`, the one that `GET /v1/route` calls the nearest. A broker without that
 * endpoint is taken itself. Never gives an address that is not one of `regions`: the token goes there.
 */
export async function nearest(regions: string[], fetch: Fetch, signal: AbortSignal): Promise<string> {
  const known = regions.map(withoutSlash);
  for (const region of known) {
    let routes: unknown;
    try {
      const response = await fetch(`${region}/v1/route`, { signal, credentials: 'omit', cache: 'no-store' });
      if (!response.ok) {
        await response.body?.cancel();
        if (response.status >= 500) continue;
        return region;
      }
      routes = ((await response.json()) as { regions?: unknown } | null)?.regions;
    } catch {
      if (signal.aborted) break;
      continue;
    }
    const urls = Array.isArray(routes) ? routes.map((route: { url?: unknown } | null) => route?.url) : [];
    const first = urls.find((url): url is string => typeof url === 'string' && known.includes(withoutSlash(url)));
    return first === undefined ? region : withoutSlash(first);
  }
  // None answers: the first one then is what the upload waits for.
  return known[0]!;
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
