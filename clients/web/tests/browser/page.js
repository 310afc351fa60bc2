// What the tests call in the page.
import * as client from '/dist/index.js';

const token = async () => (await fetch('/token')).text();
const told = (event) => {
  switch (event.type) {
    case 'admitted': return event.isResumed ? 'admitted again' : 'admitted';
    case 'anew': return `anew: ${event.reason}: ${event.detail}`;
    default: return event.type;
  }
};

globalThis.begin = (options = {}, file = document.querySelector('#file').files[0]) => {
  globalThis.seen = [];
  globalThis.upload = client.createUpload(file, { broker: globalThis.broker, token, ...options });
  for (const type of ['admitted', 'anew', 'retry', 'renewed', 'unsaved', 'completed', 'failed']) {
    globalThis.upload.on(type, (event) => globalThis.seen.push(told(event)));
  }
  return globalThis.upload;
};

globalThis.outcome = () => globalThis.upload.done.then(
  ({ result }) => ({ crc32c: result.crc32c, size: result.size_bytes, events: globalThis.seen }),
  ({ code, detail, upload }) => ({ code, detail, upload, events: globalThis.seen }),
);
globalThis.client = client;
