/** Numbers and states in the words of people. Nothing here touches the page. */

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/**
 * @param {number} bytes
 * @returns {string} such as `1.5 MiB`: three digits at least, so that a number that counts up does not jump about.
 */
export function size(bytes) {
  let unit = 0;
  let amount = bytes;
  // 1023.95 would be rounded to 1024.
  while (amount >= 1023.95 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  if (unit === 0) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  return `${amount.toFixed(1)} ${UNITS[unit]}`;
}

/** @param {number} bytes a limit: `2 GiB` rather than `2.0 GiB` */
export const limit = (bytes) => size(bytes).replace(".0 ", " ");

/**
 * @param {number} seconds
 * @returns {string} such as `2 min 5 s`; never `0 s`, which would say that it is over
 */
export function duration(seconds) {
  const whole = Math.max(1, Math.ceil(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours > 99 ? "days" : `${hours} h ${minutes % 60} min`;
}

/** @param {number} bytesPerSecond */
export const speed = (bytesPerSecond) => `${size(Math.round(bytesPerSecond))}/s`;

/**
 * @param {number} received
 * @param {number | undefined} total
 * @returns {number | undefined} whole percents; 100 only when all is there
 */
export function percent(received, total) {
  if (total === undefined) return undefined;
  return total === 0 ? 0 : Math.floor((100 * received) / total);
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** @param {string[]} parts @returns {string} `a, b and c` */
export const and = (parts) => (parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`);

/** @param {number} km */
export const distance = (km) => `${Math.round(km).toLocaleString("en")} km`;

/**
 * How long ago, coarse enough to change rarely.
 * @param {number} then milliseconds
 * @param {number} now milliseconds
 */
export function ago(then, now) {
  const seconds = Math.floor((now - then) / 1000);
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds / 10) * 10} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return plural(Math.floor(seconds / 86_400), "day") + " ago";
}

/** What this page calls the states of an upload of its own. @type {Record<string, string>} */
export const OWN_STATES = {
  queued: "Waits for its turn",
  preparing: "Asking the broker",
  uploading: "Uploading",
  waiting: "Waits to try again",
  paused: "Paused",
  verifying: "The broker checks it",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** What the broker's states mean. @type {Record<string, string>} */
export const BROKER_STATES = {
  pending: "Session open, no byte yet",
  uploading: "Bytes are coming",
  completed: "Stored and checked",
  rejected: "Broke its policy; deleted",
  cancelled: "Given up",
  expired: "Took too long",
};

/** @param {string} time as in the configuration, such as `1m` */
function period(time) {
  const [, count, unit = ""] = /^(\d+)([smhd])$/.exec(time) ?? [];
  const name = { s: "second", m: "minute", h: "hour", d: "day" }[unit];
  return name === undefined ? time : count === "1" ? name : plural(Number(count), name);
}

/**
 * What a policy takes and what is left of it.
 * @param {import("./policies.js").Policy} policy
 * @returns {{ takes: string, left: string[] }}
 */
export function policy(policy) {
  const types = policy.content_types.length === 0 || policy.content_types.includes("*/*") ? "any type" : and(policy.content_types);
  const least = policy.min_size_bytes > 0 ? `, from ${limit(policy.min_size_bytes)}` : "";
  const where = policy.regions ? `, in ${and(policy.regions)} only` : "";
  const stream = policy.unknown_size ? ", also of unknown size" : "";
  const left = [];
  if (policy.max_active !== undefined) left.push(`${Math.max(0, policy.max_active - policy.active)} of ${policy.max_active} at once`);
  if (policy.daily_bytes !== undefined) left.push(`${limit(policy.daily_bytes_left ?? 0)} of ${limit(policy.daily_bytes)} today`);
  if (policy.rate !== undefined) {
    const [most = "", time = ""] = policy.rate.split("/");
    left.push(`${policy.rate_left ?? 0} of ${most} starts per ${period(time)}`);
  }
  return { takes: `${types}${least}, up to ${limit(policy.max_size_bytes)}${stream}${where}`, left };
}
