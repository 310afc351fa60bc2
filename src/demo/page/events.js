/** Server-sent events of one upload. `EventSource` cannot send a token, so they are read from an answer's body. */
import { ask } from "./broker.js";

/**
 * Calls `told` with the data of each event until the stream ends, which it does with the upload, or until `signal`.
 * @param {string} broker
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(event: string, data: any) => void} told
 */
export async function follow(broker, id, signal, told) {
  const { body } = await ask(`${broker}/v1/uploads/${id}/events`, signal);
  if (!body) return;
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
      const [event, data] = [fields.get("event"), fields.get("data")];
      if (event && data) told(event, JSON.parse(data));
    }
  }
}
