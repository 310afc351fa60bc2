/** The page of the demo: puts its parts to work. */
import { byId, say } from "./dom.js";
import * as list from "./list.js";
import * as network from "./network.js";
import * as pending from "./pending.js";
import * as policies from "./policies.js";
import * as regions from "./regions.js";
import * as samples from "./samples.js";
import * as uploads from "./uploads.js";
import { begin, chosen, watch } from "./world.js";

const files = /** @type {HTMLInputElement} */ (byId("files"));
const zone = byId("zone");

files.addEventListener("change", () => {
  const picked = [...(files.files ?? [])];
  // So that the same file can be picked again.
  files.value = "";
  uploads.add(picked);
});

/** @param {DragEvent} event */
const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files") === true;

// A file that is dropped beside the zone would replace the page: the whole page takes it.
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  zone.classList.add("over");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (relatedTarget === null) zone.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  zone.classList.remove("over");
  uploads.add(event.dataTransfer?.files ?? []);
});

watch(() => {
  const broker = chosen()?.broker;
  if (broker) byId("docs").setAttribute("href", `${broker}/docs`);
});

await begin((isThere) => say(byId("lost"), isThere ? "" : "The demo does not answer. Does it still run?"));
samples.begin();
uploads.begin();
regions.begin();
network.begin();
policies.begin();
pending.begin();
list.begin();
document.documentElement.dataset["ready"] = "";
