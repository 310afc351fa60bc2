/** What travels between a client and the broker: the schemas of `openapi/upload-broker.json` that a client needs. */

export type TransferKind = 'resumable' | 'simple' | 'signed_resumable';

/** Where an upload stands. New values may come: what is not known here is taken as not final. */
export type UploadState = 'pending' | 'uploading' | 'completed' | 'rejected' | 'cancelled' | 'expired' | (string & {});

export interface CreateUpload {
  policy?: string;
  filename: string;
  content_type: string;
  size_bytes?: number;
  crc32c?: string;
  metadata?: Record<string, string>;
  transfer_kind?: TransferKind;
}

/** How to send the bytes. `uri` is a secret: whoever has it can write the object. */
export interface Transfer {
  kind: TransferKind;
  uri: string;
  method: string;
  headers: Record<string, string>;
  chunk_multiple_bytes?: number;
  chunk_bytes?: number;
  expires_at: string;
}

/** The object, as storage has it. */
export interface UploadResult {
  generation: string;
  size_bytes: number;
  md5?: string;
  crc32c?: string;
  completed_at: string;
  evidence: string;
}

export interface Rejection {
  code: string;
  detail: string;
}

/** One upload, as the broker knows it. */
export interface BrokerUpload {
  id: string;
  state: UploadState;
  policy: string;
  region: string;
  bucket: string;
  object: string;
  content_type: string;
  size_bytes?: number;
  received_bytes: number;
  created_at: string;
  expires_at: string;
  transfer?: Transfer;
  routing?: { served_by: string; nearest?: string };
  result?: UploadResult;
  rejection?: Rejection;
}

/** An upload that storage has, checked by the broker. */
export type CompletedUpload = BrokerUpload & { state: 'completed'; result: UploadResult };

/** One limit of a policy that a request does not keep. */
export interface Violation {
  limit: string;
  allowed: string;
  given: string;
}

/** A problem document (RFC 9457) of the broker. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  request_id: string;
  errors?: { pointer: string; detail: string }[];
  violations?: Violation[];
  limit?: string;
  received_bytes?: number;
  region?: string;
  url?: string;
}

export const isFinal = ({ state }: BrokerUpload): boolean =>
  state === 'completed' || state === 'rejected' || state === 'cancelled' || state === 'expired';

/** Whether `value` is an upload, as far as this client relies on it. */
export function isUpload(value: unknown): value is BrokerUpload {
  const upload = value as Partial<BrokerUpload> | null;
  return typeof upload === 'object' && upload !== null && typeof upload.id === 'string' && typeof upload.state === 'string';
}
