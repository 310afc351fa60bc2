//! The part of an upload that says how its bytes are sent.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schemas;
use crate::model::upload;
use crate::uploads::Offer;

/// Chunks are multiples of this (storage documentation, "Resumable uploads").
const CHUNK_MULTIPLE: u64 = 256 * 1024;

/// The chunk size that storage's documentation recommends.
const CHUNK: u64 = 8 * 1024 * 1024;

/// How the bytes of an upload go to storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    /// A session that the broker opens: chunks, resumed after an interruption.
    #[default]
    Resumable,
    /// One signed `PUT`, for small files.
    Simple,
    /// A signed `POST`, with which the client opens the session: its `Location` takes the chunks.
    SignedResumable,
}

impl TransferKind {
    pub(super) const fn into_domain(self) -> upload::TransferKind {
        match self {
            Self::Resumable => upload::TransferKind::Resumable,
            Self::Simple => upload::TransferKind::Simple,
            Self::SignedResumable => upload::TransferKind::SignedResumable,
        }
    }

    pub(super) const fn from_domain(kind: upload::TransferKind) -> Self {
        match kind {
            upload::TransferKind::Resumable => Self::Resumable,
            upload::TransferKind::Simple => Self::Simple,
            upload::TransferKind::SignedResumable => Self::SignedResumable,
        }
    }
}

/// How to send the bytes of an upload. The URI is a secret: whoever has it can write the object.
#[derive(Serialize, ToSchema)]
pub struct Transfer {
    kind: TransferKind,
    /// Where the first request goes: a session URI of storage, or a signed URL. Needs no `Authorization`.
    #[schema(
        format = "uri",
        max_length = 8192,
        example = "https://storage.googleapis.com/upload/storage/v1/b/media-eu/o?uploadType=resumable&upload_id=ABgVH8-example"
    )]
    uri: String,
    /// The method of the first request. For `signed_resumable` it is `POST` without a body, and the chunks go by `PUT` to
    /// the `Location` of its answer.
    #[schema(min_length = 3, max_length = 16, pattern = "^[A-Z]+$", example = "PUT")]
    method: &'static str,
    /// The headers of the first request. With a signed URL exactly these: one more that begins with `x-goog-`, one less,
    /// or another value is refused by storage.
    #[schema(schema_with = schemas::transfer_headers)]
    headers: BTreeMap<String, String>,
    /// All chunks but the last are multiples of this. Left out where the bytes go in one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 262_144)]
    chunk_multiple_bytes: Option<u64>,
    /// A good size for chunks. Left out where the bytes go in one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 8_388_608)]
    chunk_bytes: Option<u64>,
    /// When the URI ends. A signed URL ends long before its upload, which can be renewed.
    #[schema(format = DateTime, example = "2026-11-23T10:00:00.000Z")]
    expires_at: String,
}

impl From<Offer<'_>> for Transfer {
    fn from(offer: Offer<'_>) -> Self {
        let chunked = |bytes| (offer.kind != upload::TransferKind::Simple).then_some(bytes);
        Self {
            kind: TransferKind::from_domain(offer.kind),
            uri: offer.uri.expose().to_owned(),
            method: offer.method,
            chunk_multiple_bytes: chunked(CHUNK_MULTIPLE),
            chunk_bytes: chunked(CHUNK),
            expires_at: offer.expires_at.to_string(),
            headers: offer.headers,
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("kind", &self.kind).finish_non_exhaustive()
    }
}
