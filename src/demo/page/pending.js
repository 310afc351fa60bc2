/** What an earlier visit began and did not end: offered to be continued with the same file, or given up. */
import { UploadBrokerError, discardUpload, pendingUploads } from "./client.js";
import { token } from "./broker.js";
import { announce, byId, el, say } from "./dom.js";
import { add, known, watch } from "./uploads.js";
import { madeAs } from "./samples.js";
import { ago, percent, size } from "./words.js";
import { world } from "./world.js";

/** @typedef {import("./client.js").PendingUpload} PendingUpload */

let shown = "";

export function begin() {
  watch(() => void show());
  // Another tab, which went on with one of them, may have been closed meanwhile.
  document.addEventListener("visibilitychange", () => void (document.hidden || show()));
  void show();
}

async function show() {
  const begun = await pendingUploads().catch(() => []);
  const ours = known();
  // What goes on in a card of this page needs no offer, nor what ended there and may be tried again.
  const records = begun.filter(({ uploadId }) => uploadId !== undefined && !ours.has(uploadId));
  const now = records.map(({ key, receivedBytes, isRunning }) => `${key} ${receivedBytes} ${isRunning}`).join();
  if (now === shown) return;
  shown = now;
  byId("pending-list").replaceChildren(...records.map((record) => offer(record)));
  byId("pending").hidden = records.length === 0;
}

/** @param {PendingUpload} record */
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
    } catch (error) {
      discard.disabled = false;
      const why = error instanceof UploadBrokerError && error.code === "in-use" ? "another tab is uploading it" : "its broker does not answer";
      say(byId("pending-error"), `${name} could not be given up: ${why}. Try again later.`);
    }
    await show();
  });
  const facts = `${size(receivedBytes)} of ${size(total)} (${percent(receivedBytes, total)} %) ${where ? `in ${where}` : "stored"}, begun ${ago(createdAt, Date.now())}${record.isRunning ? ", and running in another tab" : ""}`;
  const actions = record.isRunning ? [] : [el("div", { class: "actions" }, go, discard)];
  return el("li", {}, el("div", {}, el("strong", {}, el("bdi", {}, name)), el("span", { class: "muted" }, facts)), ...actions);
}
