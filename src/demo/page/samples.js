/** Files that this page makes up, for who has none at hand. Always the same bytes, so that a reload can go on with them. */
import { byId, el } from "./dom.js";
import { add } from "./uploads.js";

const MIB = 1024 * 1024;

/** @type {{ label: string, name: string, type: string, bytes: number }[]} */
const SAMPLES = [
  { label: "Video, 48 MiB", name: "sample.mp4", type: "video/mp4", bytes: 48 * MIB },
  { label: "Small note", name: "sample.txt", type: "text/plain", bytes: 40 * 1024 },
  { label: "Empty video", name: "empty.mp4", type: "video/mp4", bytes: 0 },
  { label: "3 GiB video", name: "too-large.mp4", type: "video/mp4", bytes: 3 * 1024 * MIB },
  { label: "MP3 song", name: "sample.mp3", type: "audio/mpeg", bytes: 3 * MIB },
];

/** When they were last changed: never. */
const MADE_AT = Date.UTC(2026, 0, 1);

export function begin() {
  byId("samples").append(...SAMPLES.map((sample) => {
    const button = el("button", { type: "button", class: "chip" }, sample.label);
    button.addEventListener("click", () => add([make(sample)]));
    return el("li", {}, button);
  }));
}

/** The sample that an upload was begun with, if it was one. @param {import("./client.js").Fingerprint} fingerprint */
export function madeAs({ name, size, lastModified }) {
  const sample = SAMPLES.find((sample) => sample.name === name && sample.bytes === size && lastModified === MADE_AT);
  return sample && (() => make(sample));
}

/** @param {typeof SAMPLES[number]} sample */
function make({ name, type, bytes }) {
  // One piece of noise, over and over: however large, the file takes a MiB of memory.
  const noise = new Uint8Array(Math.min(bytes, MIB));
  let state = 1;
  for (let n = 0; n < noise.length; n++) noise[n] = (state = Math.imul(state, 48_271) + 11) >>> 16;
  const piece = new Blob([noise]);
  const parts = Array.from({ length: bytes ? Math.ceil(bytes / MIB) : 0 }, () => piece);
  return new File(parts, name, { type, lastModified: MADE_AT });
}
