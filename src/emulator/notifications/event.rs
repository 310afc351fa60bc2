//! What happened to an object, and the words that storage, Pub/Sub and Eventarc have for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::emulator::objects::Description;
use crate::model::time::Timestamp;

/// The types of events that a config can ask for (storage documentation, "Pub/Sub notifications"). Without versions
/// there is never an archived one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub(super) enum EventType {
    Finalize,
    MetadataUpdate,
    Delete,
    Archive,
}

impl EventType {
    pub(super) const ALL: [Self; 4] = [Self::Finalize, Self::MetadataUpdate, Self::Delete, Self::Archive];

    fn name(self) -> &'static str {
        match self {
            Self::Finalize => "OBJECT_FINALIZE",
            Self::MetadataUpdate => "OBJECT_METADATA_UPDATE",
            Self::Delete => "OBJECT_DELETE",
            Self::Archive => "OBJECT_ARCHIVE",
        }
    }
}

impl From<EventType> for &'static str {
    fn from(event_type: EventType) -> Self {
        event_type.name()
    }
}

impl TryFrom<String> for EventType {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|event_type| event_type.name() == name);
        found.ok_or_else(|| format!("{name:?} is no type of event"))
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A new generation.
    Finalize {
        /// The generation that it replaced.
        overwrote: Option<i64>,
    },
    MetadataUpdate,
    Delete {
        /// The generation that replaced it.
        by: Option<i64>,
    },
}

impl Kind {
    pub(super) fn event_type(self) -> EventType {
        match self {
            Self::Finalize { .. } => EventType::Finalize,
            Self::MetadataUpdate => EventType::MetadataUpdate,
            Self::Delete { .. } => EventType::Delete,
        }
    }

    /// Its `type` as a `CloudEvent`.
    pub(super) fn cloud_type(self) -> &'static str {
        match self {
            Self::Finalize { .. } => "google.cloud.storage.object.v1.finalized",
            Self::MetadataUpdate => "google.cloud.storage.object.v1.metadataUpdated",
            Self::Delete { .. } => "google.cloud.storage.object.v1.deleted",
        }
    }
}

/// A change of an object.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) kind: Kind,
    /// The object after the change, or before its removal.
    pub(super) object: Arc<Description>,
    pub(super) at: Timestamp,
}

impl Event {
    /// The attributes that every message of it has (storage documentation, "Notification format").
    pub(super) fn attributes(&self) -> BTreeMap<&str, String> {
        let object = &self.object;
        let mut attributes = BTreeMap::from([
            ("eventType", self.kind.event_type().name().to_owned()),
            ("eventTime", self.at.to_string()),
            ("bucketId", object.bucket.to_string()),
            ("objectId", object.name.to_string()),
            ("objectGeneration", object.generation.to_string()),
        ]);
        match self.kind {
            Kind::Finalize { overwrote: Some(generation) } => {
                attributes.insert("overwroteGeneration", generation.to_string());
            }
            Kind::Delete { by: Some(generation) } => {
                attributes.insert("overwrittenByGeneration", generation.to_string());
            }
            Kind::Finalize { overwrote: None } | Kind::Delete { by: None } | Kind::MetadataUpdate => {}
        }
        attributes
    }
}
