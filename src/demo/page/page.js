// Uploads files by the rules of storage: chunks in multiples of 256 KiB, and the `Range` answer believed over what was sent.

const broker = document.body.dataset.broker;
const list = document.getElementById("uploads");
document.getElementById("docs").href = `${broker}/docs`;

const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

/** Calls the broker. A refusal becomes an error that says what the problem document says. */
async function call(method, path, body) {
  const token = await (await fetch("/token?sub=visitor")).text();
  const headers = { authorization: `Bearer ${token}` };
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(broker + path, { method, headers, body: body && JSON.stringify(body) });
  const document = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(document.detail), { status: answer.status });
  return document;
}

/** Asks storage how many bytes it has: the next offset, or `null` when it has all. */
async function ask(uri, size) {
  const answer = await fetch(uri, { method: "PUT", headers: { "content-range": `bytes */${size}` } });
  return next(answer);
}

/** Where to go on, by storage's answer: 308 is "Resume Incomplete" here, and no redirect. */
function next(answer) {
  const { status } = answer;
  if (status === 200 || status === 201) return null;
  if (status !== 308) throw Object.assign(new Error(`storage answers ${status}`), { status });
  const range = answer.headers.get("range");
  return range ? Number(range.split("-")[1]) + 1 : 0;
}

/** Sends until storage has everything. Whatever gains nothing is a failure: a pause, and then storage is asked. */
async function send(file, transfer, show, signal) {
  let offset = 0;
  for (let failures = 0; offset !== null; ) {
    const end = Math.min(offset + transfer.chunk_bytes, file.size);
    // All bytes, but not yet an object: asking with the size finishes it.
    const range = offset < end ? `bytes ${offset}-${end - 1}/${file.size}` : `bytes */${file.size}`;
    try {
      const answer = await fetch(transfer.uri, {
        method: "PUT",
        headers: { "content-range": range },
        body: file.slice(offset, end),
        signal,
      });
      const persisted = next(answer);
      if (persisted !== null && persisted <= offset) throw new Error("storage kept nothing of what was sent");
      offset = persisted;
      failures = 0;
    } catch (error) {
      if (signal.aborted || (error.status >= 400 && error.status < 500 && ![408, 429].includes(error.status)) || failures === 6) throw error;
      await pause(Math.min(1000 * 2 ** failures++, 32000) * (0.5 + Math.random() / 2));
      offset = await ask(transfer.uri, file.size).catch(() => offset);
    }
    show(offset ?? file.size);
  }
}

/** Sends, and has the broker verify. In place of a session that storage has lost comes another, which begins at 0. */
async function transmit(id, transfer, file, show, signal) {
  for (let renewals = 0; ; renewals++) {
    const lost = await send(file, transfer, show, signal).catch((error) => {
      if (![404, 410].includes(error.status) || renewals === 5) throw error;
      return true;
    });
    // The object may be there, and only the answer that said so lost with the session.
    const ended = await call("POST", `/v1/uploads/${id}/complete`).catch((error) => {
      if (!lost || error.status !== 409) throw error;
    });
    if (ended) return ended;
    const renewed = await call("POST", `/v1/uploads/${id}/renew`);
    if (!renewed.transfer) return renewed;
    transfer = renewed.transfer;
  }
}

async function upload(file) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const state = document.createElement("span");
  const bar = document.createElement("progress");
  const cancel = document.createElement("button");
  name.textContent = `${file.name}: `;
  state.textContent = "asking for a session";
  bar.max = Math.max(file.size, 1);
  bar.value = 0;
  bar.setAttribute("aria-label", file.name);
  cancel.textContent = "Cancel";
  item.append(name, state, bar, cancel);
  list.prepend(item);

  const stop = new AbortController();
  let id;
  try {
    const policy = file.type.startsWith("video/") ? "videos" : "notes";
    const created = await call("POST", "/v1/uploads", {
      policy,
      filename: file.name,
      content_type: file.type || "application/octet-stream",
      size_bytes: file.size,
    });
    id = created.id;
    cancel.onclick = () => stop.abort();
    const ended = await transmit(id, created.transfer, file, (bytes) => {
      bar.value = bytes;
      state.textContent = `${Math.floor((100 * bytes) / Math.max(file.size, 1))} %`;
    }, stop.signal);
    state.textContent = `${ended.state}, as ${ended.object}`;
    bar.value = bar.max;
  } catch (error) {
    if (stop.signal.aborted) {
      const ended = await call("DELETE", `/v1/uploads/${id}`).catch(() => ({ state: "given up" }));
      state.textContent = ended.state;
    } else {
      state.textContent = error.message;
    }
  } finally {
    cancel.remove();
  }
}

document.getElementById("files").addEventListener("change", (event) => {
  for (const file of event.target.files) upload(file);
  event.target.value = "";
});
