//! What an endpoint is told: one event for each upload, when it enters its final state.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::id::UploadId;
use crate::model::time::Timestamp;
use crate::model::upload::{StateKind, UploadState};

/// The events that an endpoint can ask for. Each upload has exactly one of them, since a final state is entered once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum EventKind {
    /// Storage has the object, and it is what was promised.
    #[serde(rename = "upload.completed")]
    Completed,
    /// The object broke a promise and was deleted.
    #[serde(rename = "upload.rejected")]
    Rejected,
    /// Its time ran out.
    #[serde(rename = "upload.expired")]
    Expired,
    /// Its owner did not want it any more.
    #[serde(rename = "upload.cancelled")]
    Cancelled,
}

impl EventKind {
    /// All of them: what an endpoint gets that asks for nothing in particular.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Rejected, Self::Expired, Self::Cancelled];

    /// The `type` on the wire, and the name in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "upload.completed",
            Self::Rejected => "upload.rejected",
            Self::Expired => "upload.expired",
            Self::Cancelled => "upload.cancelled",
        }
    }

    /// The final state that it tells of.
    pub const fn state(self) -> StateKind {
        match self {
            Self::Completed => StateKind::Completed,
            Self::Rejected => StateKind::Rejected,
            Self::Expired => StateKind::Expired,
            Self::Cancelled => StateKind::Cancelled,
        }
    }

    /// The event that entering `state` was, and when it happened; none, where the state is not final.
    pub(super) const fn of(state: &UploadState) -> Option<(Self, Timestamp)> {
        match state {
            UploadState::Admitted { .. } | UploadState::Pending | UploadState::Uploading { .. } => None,
            UploadState::Completed { at, .. } => Some((Self::Completed, *at)),
            UploadState::Rejected { at, .. } => Some((Self::Rejected, *at)),
            UploadState::Expired { at, .. } => Some((Self::Expired, *at)),
            UploadState::Cancelled { at, .. } => Some((Self::Cancelled, *at)),
        }
    }
}

/// The `webhook-id` of an upload's event: the same at every attempt, after restarts and on every instance, so that a
/// receiver can tell a repeat.
pub fn event_id(upload: UploadId) -> String {
    format!("evt_{upload}")
}

/// The payload (Standard Webhooks 1.0, "Payload structure"). `upload` is the upload as in the API.
pub(super) fn payload(kind: EventKind, at: Timestamp, upload: Value) -> String {
    #[derive(Serialize)]
    struct Payload {
        r#type: EventKind,
        timestamp: Timestamp,
        data: Data,
    }
    #[derive(Serialize)]
    struct Data {
        upload: Value,
    }
    let payload = Payload { r#type: kind, timestamp: at, data: Data { upload } };
    // Text keys and no foreign types: there is nothing in it that could not be written.
    serde_json::to_string(&payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Partition;

    #[test]
    fn an_event_is_called_the_same_in_configurations_and_on_the_wire() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn the_payload_says_what_happened_when_and_to_which_upload() {
        let payload = payload(EventKind::Expired, Timestamp::from_secs(1), serde_json::json!({"id": "3f"}));
        let expected =
            r#"{"type":"upload.expired","timestamp":"1970-01-01T00:00:01.000Z","data":{"upload":{"id":"3f"}}}"#;
        assert_eq!(payload, expected);
        assert_eq!(event_id(UploadId::new(Partition(0x3f), [0; 16])), "evt_3f00000000000000000000000000000000");
    }
}
