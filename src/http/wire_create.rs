//! What a caller asks for who creates an upload.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::problem::{FieldError, Problem};
use super::schemas;
use super::transfer::TransferKind;
use crate::model::name::ContentType;
use crate::model::size::ByteCount;
use crate::model::upload::NewUpload;

/// Bounds of custom metadata (storage documentation, "Quotas and limits"; `storage.proto`).
const MAX_METADATA_KEY: usize = 1024;
const MAX_METADATA_VALUE: usize = 4096;
const MAX_METADATA_TOTAL: usize = 8192;

/// A file that the caller wants to upload.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"policy": "videos", "filename": "holiday.mp4", "content_type": "video/mp4", "size_bytes": 73_400_320}))]
pub struct CreateUpload {
    /// The policy to be used. May be left out where exactly one admits the caller.
    #[serde(default)]
    #[schema(nullable = false, min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "videos")]
    policy: Option<String>,
    /// The client's name for the file, without `/`, `\` and control characters; at most 255 bytes of UTF-8.
    #[schema(min_length = 1, max_length = 255, example = "holiday.mp4")]
    filename: String,
    /// The media type of the bytes.
    #[serde(default)]
    #[schema(
        nullable = false,
        min_length = 3,
        max_length = 255,
        default = "application/octet-stream",
        example = "video/mp4"
    )]
    content_type: Option<String>,
    /// How many bytes there will be. May be left out only under a policy with `unknown_size`.
    #[serde(default)]
    #[schema(nullable = false, minimum = 0, maximum = 5_497_558_138_880_u64, example = 73_400_320)]
    size_bytes: Option<u64>,
    /// The MD5 of the bytes, in base64. An object with another one is not stored, or deleted when the upload completes.
    #[serde(default)]
    #[schema(
        nullable = false,
        min_length = 24,
        max_length = 24,
        content_encoding = "base64",
        example = "XrY7u+Ae7tCTyyK7j1rNww=="
    )]
    md5: Option<String>,
    /// The CRC32C of the bytes, big-endian, in base64. An object with another one is not stored, or deleted when the
    /// upload completes.
    #[serde(default)]
    #[schema(nullable = false, min_length = 8, max_length = 8, content_encoding = "base64", example = "yZRlqg==")]
    crc32c: Option<String>,
    /// Custom metadata of the object: at most 8 KiB in all. The policy's own beats it.
    #[serde(default, deserialize_with = "unique_keys")]
    #[schema(required = false, schema_with = schemas::metadata)]
    metadata: BTreeMap<String, String>,
    /// How the bytes are to travel.
    #[serde(default)]
    #[schema(required = false)]
    transfer_kind: TransferKind,
}

/// A map whose keys stand once. Where a key stands twice, readers would disagree which value counts.
fn unique_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of strings")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = entries.next_entry()? {
                if map.insert(key, value).is_some() {
                    return Err(serde::de::Error::custom("duplicate key"));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

impl CreateUpload {
    /// What the request asks for, in the one form that its repeats share.
    pub(super) fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl TryFrom<CreateUpload> for NewUpload {
    type Error = Problem;

    /// Parses every field, and reports all that is wrong at once.
    fn try_from(wire: CreateUpload) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let mut refuse =
            |pointer: &str, detail: String| errors.push(FieldError { pointer: pointer.to_owned(), detail });
        let policy = parse(wire.policy.as_deref(), "/policy", &mut refuse);
        let filename = parse(Some(&wire.filename), "/filename", &mut refuse);
        let content_type = wire.content_type.as_deref().unwrap_or(ContentType::DEFAULT);
        let content_type = parse(Some(content_type), "/content_type", &mut refuse);
        let md5 = parse(wire.md5.as_deref(), "/md5", &mut refuse);
        let crc32c = parse(wire.crc32c.as_deref(), "/crc32c", &mut refuse);
        let size = wire.size_bytes.map(ByteCount);
        if size.is_some_and(|size| size > ByteCount::LARGEST_OBJECT) {
            refuse("/size_bytes", format!("an object has at most {} bytes", ByteCount::LARGEST_OBJECT.0));
        }
        let total: usize = wire.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if total > MAX_METADATA_TOTAL
            || wire
                .metadata
                .iter()
                .any(|(key, value)| key.is_empty() || key.len() > MAX_METADATA_KEY || value.len() > MAX_METADATA_VALUE)
        {
            refuse(
                "/metadata",
                "keys have 1 to 1024 bytes, values up to 4096, and all together at most 8192".to_owned(),
            );
        }
        match (filename, content_type) {
            (Some(filename), Some(content_type)) if errors.is_empty() => Ok(Self {
                policy,
                filename,
                content_type,
                size,
                md5,
                crc32c,
                metadata: wire.metadata,
                transfer: wire.transfer_kind.into_domain(),
            }),
            _ => Err(Problem::invalid_request(errors)),
        }
    }
}

fn parse<T: std::str::FromStr<Err = crate::model::Invalid>>(
    text: Option<&str>,
    pointer: &str,
    refuse: &mut impl FnMut(&str, String),
) -> Option<T> {
    match text?.parse() {
        Ok(value) => Some(value),
        Err(reason) => {
            refuse(pointer, reason.to_string());
            None
        }
    }
}
