//! The object resource, as far as it is read, and what makes a notice of it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::Unreadable;
use crate::model::notice::ObjectNotice;
use crate::model::upload::UPLOAD_HINT;

/// Four fields of an object resource (storage documentation, JSON API, "Objects").
#[derive(Debug, Default, Deserialize)]
pub(super) struct Resource {
    pub(super) bucket: Option<String>,
    pub(super) name: Option<String>,
    pub(super) generation: Option<Int64>,
    metadata: Option<Map<String, Value>>,
}

impl Resource {
    /// Reads the JSON text of a resource.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(text).map_err(|_| Unreadable::Malformed("it holds no object resource"))
    }

    /// The notice of this object, whose bucket and name may stand elsewhere.
    pub(super) fn notice(
        &self,
        bucket: Option<&str>,
        object: Option<&str>,
        generation: Option<i64>,
    ) -> Result<ObjectNotice, Unreadable> {
        let bucket = bucket.and_then(|bucket| bucket.parse().ok());
        let object = object.and_then(|object| object.parse().ok());
        let hint = self.metadata.as_ref().and_then(|metadata| metadata.get(UPLOAD_HINT)?.as_str());
        Ok(ObjectNotice {
            bucket: bucket.ok_or(Unreadable::Malformed("it names no bucket"))?,
            object: object.ok_or(Unreadable::Malformed("it names no object"))?,
            generation,
            // Clients write there what they like.
            hint: hint.and_then(|hint| hint.parse().ok()),
        })
    }
}

/// A 64-bit integer: Pub/Sub payloads have it as text, and events of Eventarc as text or as a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Int64 {
    Number(i64),
    Text(String),
    Other(IgnoredAny),
}

impl Int64 {
    pub(super) fn value(&self) -> Option<i64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            Self::Other(_) => None,
        }
    }
}
