/** Why an upload did not get to its end, said to people. The codes are those of the broker's interface and of the client. */
import { limit, size } from "./words.js";

/**
 * @typedef {object} Reason
 * @property {string} title
 * @property {string} text what it means, and what to do now
 */

/** @type {Record<string, Reason>} */
const BY_CODE = {
  "policy-denied": { title: "Not allowed", text: "No policy lets you upload this. Somebody who runs the broker must allow it." },
  "forbidden": { title: "Not allowed", text: "The broker does not let you do this." },
  "unauthenticated": { title: "Not signed in", text: "The broker does not take the token of this page. Reload the page, then pick the file again." },
  "rate-limited": { title: "Too many at once", text: "You began many uploads within a short time. Wait a moment, then try again." },
  "misdirected": { title: "Another region's upload", text: "This upload belongs to another region, and this page could not go there." },
  "not-found": { title: "No longer known", text: "The broker does not know this upload any more. Pick the file again to begin anew." },
  "idempotency-mismatch": { title: "Mixed up", text: "The broker knows another upload under the same key. Pick the file again to begin anew." },
  "body-too-large": { title: "Name too long", text: "The broker does not take so long a description of the file. Give the file a shorter name." },
  "invalid-name": { title: "This name cannot be", text: "Names have at most 255 bytes, and no slash, backslash or control character. Rename the file, then pick it again." },
  "source-changed": { title: "The file changed", text: "The file was changed, moved or removed while it was uploaded, so the upload was given up. Pick the file again, as it is now." },
  "source-unreadable": { title: "The file cannot be read", text: "It is gone, it is a folder, or this browser may not read it. Nothing of it stays in storage." },
  "source-lost": { title: "The stream is gone", text: "Bytes are needed again which a stream cannot give twice. Upload it as a file instead." },
  "in-use": { title: "Running in another tab", text: "Another tab of this page is uploading this file. Go on there, or close that tab and try again." },
  "gave-up": { title: "No connection", text: "Broker or storage could not be reached for too long. What is there stays: try again when the network is back." },
  "token-unavailable": { title: "No token", text: "This page got no token from the demo. Does the demo still run?" },
  "storage-refused": { title: "Storage refuses it", text: "Storage refused the bytes, and would do so again. Pick the file again to begin anew." },
  "session-lost-again": { title: "Sessions are lost", text: "Storage lost one session after the other. Try again later; the upload then begins at its first byte." },
  "content-mismatch": { title: "Something else is stored", text: "What storage has is not this file. Pick the file again to begin anew." },
  "expired": { title: "Took too long", text: "The upload took longer than its policy allows, and was given up. Pick the file again to begin anew." },
  "cancelled": { title: "Cancelled", text: "The upload was given up, and storage keeps nothing of it." },
  "overloaded": { title: "Too busy", text: "The broker is too busy. What is there stays: try again in a moment." },
  "storage-unavailable": { title: "Storage is away", text: "The region's storage cannot be reached. What is there stays: try again in a moment." },
  "store-unavailable": { title: "The broker is away", text: "The region's broker cannot reach its memory. What is there stays: try again in a moment." },
};

/** Of an upload that storage had, and that the broker then found to break a promise. @type {Record<string, Reason>} */
const REJECTED = {
  "size-limit": { title: "Too large", text: "More bytes came than the policy allows, so the broker had the object deleted." },
  "size-mismatch": { title: "Wrong size", text: "Storage got another number of bytes than was declared, so the broker had the object deleted." },
  "digest-mismatch": { title: "Damaged on the way", text: "The bytes in storage are not those of this file, so the broker had the object deleted. Pick the file again." },
  "content-type-mismatch": { title: "Another type", text: "The object has another type than was declared, so the broker had it deleted." },
};

/** Of a quota that is used up. @type {Record<string, Reason>} */
const USED_UP = {
  max_active: { title: "Too many under way", text: "So many of your uploads are under way as the policy allows. Finish or cancel one, then try again." },
  daily_bytes: { title: "Today's amount is used up", text: "This file is larger than what is left of your bytes for today. Try again tomorrow, or take a smaller file." },
};

/**
 * @param {string} name the limit, as policies call it
 * @param {string} allowed
 * @param {string} given
 * @param {string} policy
 * @returns {Reason}
 */
function violated(name, allowed, given, policy) {
  const of = policy ? ` under the policy “${policy}”` : "";
  switch (name) {
    case "max_size":
    case "simple_max_size":
      return { title: "Too large", text: `The file has ${size(Number(given))}, and at most ${limit(Number(allowed))} are allowed${of}.` };
    case "min_size":
      return Number(given) === 0
        ? { title: "The file is empty", text: `There is nothing in it to upload, and at least ${limit(Number(allowed))} is asked for${of}.` }
        : { title: "Too small", text: `The file has ${size(Number(given))}, and at least ${limit(Number(allowed))} are asked for${of}.` };
    case "content_types":
      return { title: "This type is not taken", text: `Files of type ${given} are not taken${of}. Taken are ${allowed}.` };
    case "size_bytes":
      return { title: "Size not known", text: `The size must be known beforehand${of}.` };
    case "object":
      return { title: "This name cannot be", text: `No name in storage can be made of this file's name${of}. Rename the file, then pick it again.` };
    default:
      return { title: "Against the policy", text: `The upload does not keep to ${name.replaceAll("_", " ")}${of}: ${allowed} is allowed, and ${given} was given.` };
  }
}

/**
 * @param {import("./client.js").UploadBrokerError} error
 * @param {string} [policy] under which it was tried
 * @returns {Reason}
 */
export function reason(error, policy = "") {
  const [first, ...others] = error.violations.map(({ limit, allowed, given }) => violated(limit, allowed, given, policy));
  if (first) return { title: first.title, text: [first, ...others].map(({ text }) => text).join(" ") };
  const known = error.code === "quota-exceeded" ? USED_UP[error.problem?.limit ?? ""]
    : error.code === "rejected" ? REJECTED[error.upload?.rejection?.code ?? ""]
      : BY_CODE[error.code];
  if (known) return known;
  const said = error.detail.charAt(0).toUpperCase() + error.detail.slice(1);
  return { title: error.problem?.title ?? "It did not work", text: /[.!?]$/.test(said) ? said : `${said}.` };
}
