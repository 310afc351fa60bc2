/** Calls the brokers for what the client package does not: lists, limits and routes. */

/** The page's user. The samples of the demo are hers as well. */
const USER = "ada";

/** The last one, or that which is just being asked for. @type {Promise<string> | undefined} */
let kept;

/** A fresh token. */
export function token() {
  const asking = fetchToken();
  kept = asking;
  asking.catch(() => {
    if (kept === asking) kept = undefined;
  });
  return asking;
}

async function fetchToken() {
  const answer = await fetch(`/token?sub=${USER}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`the demo gives no token: ${answer.status}`);
  return answer.text();
}

/**
 * Asks with the token that there is, and with another one when it is refused.
 * @param {string} url
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>} an answer that is a success
 */
export async function ask(url, signal) {
  for (let isRepeat = false; ; isRepeat = true) {
    const using = kept ?? token();
    const authorization = `Bearer ${await using}`;
    const answer = await fetch(url, { headers: { authorization }, cache: "no-store", credentials: "omit", ...(signal && { signal }) });
    if (answer.ok) return answer;
    await answer.body?.cancel();
    if (answer.status !== 401 || isRepeat) throw new Error(`${url} answers with status ${answer.status}`);
    // Only if nobody has asked for another one since.
    if (kept === using) kept = undefined;
  }
}

/** @typedef {{ name: string, url: string, distance_km?: number, healthy: boolean }} Route */

/**
 * How the broker sees the way to the regions. Needs no token.
 * @param {string} broker
 * @returns {Promise<{ region: string, located_by: string, country?: string, regions: Route[] }>}
 */
export async function route(broker) {
  const answer = await fetch(`${broker}/v1/route`, { cache: "no-store", credentials: "omit" });
  if (!answer.ok) throw new Error(`the broker answers with status ${answer.status}`);
  return answer.json();
}
