/** Calls the brokers for what the client package does not: lists, limits and routes. */

/** The page's user. The samples of the demo are hers as well. */
const USER = "ada";

/** @type {string | undefined} */
let kept;

/** A fresh token. */
export async function token() {
  const answer = await fetch(`/token?sub=${USER}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`the demo gives no token: ${answer.status}`);
  kept = await answer.text();
  return kept;
}

/**
 * Asks with the token that there is, and with another one when it is refused.
 * @param {string} url
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>} an answer that is a success
 */
export async function ask(url, signal) {
  for (let isRepeat = false; ; isRepeat = true) {
    const authorization = `Bearer ${kept ?? (await token())}`;
    const answer = await fetch(url, { headers: { authorization }, cache: "no-store", credentials: "omit", ...(signal && { signal }) });
    if (answer.ok) return answer;
    await answer.body?.cancel();
    if (answer.status !== 401 || isRepeat) throw new Error(`${url} answers with status ${answer.status}`);
    kept = undefined;
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
