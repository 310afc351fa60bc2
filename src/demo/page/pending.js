/** What an earlier visit began and did not end: offered to be continued with the same file, or given up. */
import { discardUpload, pendingUploads } from "./client.js";
import { token } from "./broker.js";
import { announce, byId, el, say } from "./dom.js";
import { add, known, watch } from "./uploads.js";
import { madeAs } from "./samples.js";
import { ago, percent, size } from "./words.js";
import { world } from "./world.js";

/** @typedef {import("./client.js").UploadRecord} UploadRecord */

let shown = "";

export function begin() {
  watch(() => void show());
  void show();
}

async function show() {
  const ours = known();
  // What goes on in a card of this page needs no offer, nor what ended there and may be tried again.
  const records = (await pendingUploads().catch(() => [])).filter(({ uploadId }) => uploadId !== undefined && !ours.has(uploadId));
  const now = records.map(({ key, receivedBytes }) => `${key} ${receivedBytes}`).join();
  if (now === shown) return;
  shown = now;
  byId("pending-list").replaceChildren(...records.map((record) => offer(record)));
  byId("pending").hidden = records.length === 0;
}

/** @param {UploadRecord} record */
function offer(record) {
  const { fingerprint: { name, size: total }, receivedBytes, createdAt, broker } = record;
  const where = world().regions.find((region) => region.broker === broker)?.name;
  const made = madeAs(record.fingerprint);
  const go = el("button", { type: "button", "aria-label": `${made ? "Continue" : "Pick it again:"} ${name}` }, made ? "Continue" : "Pick it again");
  const discard = el("button", { type: "button", class: "quiet", "aria-label": `Give up ${name}` }, "Give up");
  go.addEventListener("click", () => (made ? add([made()]) : byId("files").click()));
  discard.addEventListener("click", async () => {
    discard.disabled = true;
    try {
      await discardUpload(record, token);
      announce(`${name}: given up.`);
      byId("files").focus();
    } catch {
      discard.disabled = false;
      say(byId("pending-error"), `${name} could not be given up: its broker does not answer. Try again later.`);
    }
    await show();
  });
  const facts = `${size(receivedBytes)} of ${size(total)} (${percent(receivedBytes, total)} %) ${where ? `in ${where}` : "stored"}, begun ${ago(createdAt, Date.now())}`;
  return el("li", {}, el("div", {}, el("strong", {}, el("bdi", {}, name)), el("span", { class: "muted" }, facts)), el("div", { class: "actions" }, go, discard));
}
