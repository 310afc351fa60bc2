import type { Meta } from '@uppy/core';
import Uppy from '@uppy/core';
import Dashboard from '@uppy/dashboard';
import GoldenRetriever from '@uppy/golden-retriever';
import UploadBroker from '@upload-broker/uppy';
import type { UploadBrokerBody } from '@upload-broker/uppy';

/** An application asks its own back end, which knows who is signed in. Here it is `GET /token`, in plain text. */
async function token(): Promise<string> {
  const answer = await fetch('/token');
  if (!answer.ok) throw new Error(`no token: ${answer.status}`);
  return (await answer.text()).trim();
}

/** The broker's address: `?broker=https://…`, else this page's own origin. */
const broker = new URLSearchParams(location.search).get('broker') ?? location.origin;

const uppy = new Uppy<Meta, UploadBrokerBody>()
  .use(Dashboard, { target: '#uppy', inline: true, width: '100%', theme: 'auto', proudlyDisplayPoweredByUppy: false })
  .use(UploadBroker<Meta, UploadBrokerBody>, { broker, token, limit: 3 })
  .use(GoldenRetriever);

uppy.on('upload-success', (file, { body }) => {
  const item = document.createElement('li');
  item.textContent = `${file?.name} is stored as ${body?.upload.object}`;
  document.querySelector('#done')?.append(item);
});
