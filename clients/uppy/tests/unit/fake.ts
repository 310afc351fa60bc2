/** A broker and a storage in a function, which keep what they are sent and can be stopped anywhere. */

export class Fake {
  readonly calls: string[] = [];
  readonly created: { filename: string; [key: string]: unknown }[] = [];
  readonly cancelled: string[] = [];
  /** Uploads that were created and are not over. */
  under = new Set<string>();
  most = 0;
  /** Chunks wait for this. */
  gate: Promise<void> = Promise.resolve();
  /** Answers in place of a creation. */
  refusal: { status: number; code: string; [key: string]: unknown } | undefined;
  /** Storage answers nothing but 503. */
  isAway = false;
  #received = new Map<string, number>();
  #size = new Map<string, number>();

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const { pathname, hostname, searchParams } = new URL(url);
    const call = `${init.method ?? 'GET'} ${hostname === 'storage.example' ? 'storage' : pathname}`;
    this.calls.push(call);
    if (hostname === 'storage.example') return this.#store(searchParams.get('upload_id')!, init);
    if (call === 'POST /v1/uploads') {
      if (this.refusal) return Response.json({ detail: 'no', request_id: 'r1', ...this.refusal }, { status: this.refusal.status });
      const body = JSON.parse(String(init.body));
      const id = String(this.created.push(body));
      this.#size.set(id, body.size_bytes);
      this.under.add(id);
      this.most = Math.max(this.most, this.under.size);
      return Response.json(this.#upload(id, 'pending'), { status: 201 });
    }
    const id = pathname.split('/')[3]!;
    if (init.method === 'DELETE') {
      this.under.delete(id);
      this.cancelled.push(id);
      return Response.json(this.#upload(id, 'cancelled'));
    }
    if (pathname.endsWith('/complete')) {
      this.under.delete(id);
      return Response.json(this.#upload(id, 'completed'));
    }
    return Response.json(this.#upload(id, 'uploading'));
  };

  async #store(id: string, init: RequestInit): Promise<Response> {
    if (this.isAway) return new Response(null, { status: 503 });
    const [, from, to] = /^bytes (\d+)-(\d+)\//.exec(new Headers(init.headers).get('content-range') ?? '') ?? [];
    if (from !== undefined) {
      await Promise.race([this.gate, new Promise((_, reject) => init.signal?.addEventListener('abort', () => reject(new TypeError('cut off'))))]);
      this.#received.set(id, Number(to) + 1);
    }
    const received = this.#received.get(id) ?? 0;
    if (received === this.#size.get(id)) return new Response(null, { status: 200 });
    return new Response(null, { status: 308, headers: received > 0 ? { range: `bytes=0-${received - 1}` } : {} });
  }

  #upload(id: string, state: string): unknown {
    const size = this.#size.get(id);
    return {
      id, state, policy: 'p', region: 'r', bucket: 'b', object: `o/${id}`, content_type: 't', size_bytes: size, received_bytes: 0,
      created_at: '2100-01-01T00:00:00Z', expires_at: '2100-01-02T00:00:00Z', routing: { served_by: 'r' },
      ...(state === 'completed' && { result: { generation: '1', size_bytes: size, completed_at: '', evidence: 'client' } }),
      ...((state === 'pending' || state === 'uploading') && {
        transfer: { kind: 'resumable', uri: `https://storage.example/?upload_id=${id}`, method: 'PUT', headers: {}, chunk_multiple_bytes: 262144, chunk_bytes: 262144, expires_at: '' },
      }),
    };
  }
}
