//! Request and response bodies, and how they become, or come from, what the domain knows.
//!
//! Wire objects are flat: a `kind` or `state` and optional fields, which are left out rather than `null`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::route::LocatedBy;
use super::schemas;
use super::transfer::Transfer;
use super::wire_admin::UploadOwner;
use crate::model::name::RegionName;
use crate::model::upload::{self, StateKind, UploadState, Witness};
use crate::routing::{Arrival, Hop};
use crate::store::{Listing, Tracked};
use crate::uploads::{Created, Offer, Owned};

/// Which uploads are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only uploads in this state.
    #[serde(default)]
    pub(super) state: Option<State>,
    /// At most this many.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<u32>,
    /// Where the last page ended, from its `next_cursor`.
    #[serde(default)]
    #[param(max_length = 128)]
    pub(super) cursor: Option<String>,
}

/// How fresh the answer must be.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GetQuery {
    /// Whether storage is asked for the persisted byte count first.
    #[serde(default)]
    #[param(required = false, default = false)]
    pub(super) refresh: bool,
}

/// Where an upload stands. `completed`, `rejected`, `cancelled` and `expired` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A session was handed out, and no byte has been seen.
    Pending,
    /// Storage has some bytes.
    Uploading,
    /// Storage has the object, and it is what was declared.
    Completed,
    /// The object broke its policy or what was declared of it, and was deleted.
    Rejected,
    /// Its owner, or an administrator, did not want it any more.
    Cancelled,
    /// Its time ran out.
    Expired,
}

impl State {
    /// What takes uploads in this state.
    pub(super) const fn kind(self) -> StateKind {
        match self {
            Self::Pending => StateKind::Pending,
            Self::Uploading => StateKind::Uploading,
            Self::Completed => StateKind::Completed,
            Self::Rejected => StateKind::Rejected,
            Self::Cancelled => StateKind::Cancelled,
            Self::Expired => StateKind::Expired,
        }
    }

    const fn of(kind: StateKind) -> Self {
        match kind {
            StateKind::Pending => Self::Pending,
            StateKind::Uploading => Self::Uploading,
            StateKind::Completed => Self::Completed,
            StateKind::Rejected => Self::Rejected,
            StateKind::Cancelled => Self::Cancelled,
            StateKind::Expired => Self::Expired,
        }
    }
}

/// One tracked upload.
#[derive(Debug, Serialize, ToSchema)]
pub struct Upload {
    /// Names the upload.
    #[schema(
        min_length = 34,
        max_length = 34,
        pattern = "^[0-9a-f]{34}$",
        example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8"
    )]
    id: String,
    state: State,
    /// The policy that admitted it.
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "videos")]
    policy: String,
    /// The region that opened its session, and that it stays in.
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "europe-west1")]
    region: String,
    /// Where the object goes.
    #[schema(min_length = 3, max_length = 222, pattern = "^[a-z0-9._-]+$", example = "media-eu")]
    bucket: String,
    /// What the object is called: at most 1024 bytes of UTF-8.
    #[schema(min_length = 1, max_length = 1024, example = "videos/u-17/3f9a0c51e2b7d84f6011c3a5e79b2d40f8.mp4")]
    object: String,
    /// The declared media type.
    #[schema(min_length = 3, max_length = 255, example = "video/mp4")]
    content_type: String,
    /// The declared size; left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 73_400_320)]
    size_bytes: Option<u64>,
    /// How many bytes storage was last seen to have.
    received_bytes: u64,
    #[schema(format = DateTime, example = "2026-11-22T10:00:00.000Z")]
    created_at: String,
    /// When the upload ends if nothing completes it.
    #[schema(format = DateTime, example = "2026-11-23T10:00:00.000Z")]
    expires_at: String,
    /// How to send the bytes. Only for the upload's owner, and only while it is not final.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    transfer: Option<Transfer>,
    /// Whose it is. Only for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    owner: Option<UploadOwner>,
    routing: Routing,
    /// Only once completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    result: Option<UploadResult>,
    /// Only once rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rejection: Option<Rejection>,
}

/// Which region took the upload. All but that is told once, when the upload is created.
#[derive(Debug, Serialize, ToSchema)]
pub struct Routing {
    /// The region that opened the session.
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "europe-west1")]
    served_by: String,
    /// The nearest region that is up and that the policy allows; left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "europe-west1")]
    nearest: Option<String>,
    /// How the client was located.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    located_by: Option<LocatedBy>,
    /// `true` where the nearest region was asked to take the upload, and could not: it is served here instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    forward_failed: Option<bool>,
}

impl Routing {
    fn stored(upload: &upload::Upload) -> Self {
        Self { served_by: upload.region.to_string(), nearest: None, located_by: None, forward_failed: None }
    }

    /// Completes what another region says of an upload that this broker has sent on: only this one knows its client.
    pub(super) fn complete(told: &mut Map<String, Value>, nearest: Option<&RegionName>, arrival: &Arrival) {
        told.remove("nearest");
        told.extend(nearest.map(|region| ("nearest".to_owned(), region.as_str().into())));
        told.insert("located_by".to_owned(), arrival.how().name().into());
    }
}

/// The object, as storage has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadResult {
    /// Identifies this content of the object for good.
    #[schema(min_length = 1, max_length = 20, pattern = "^[0-9]+$", example = "1763805600123456")]
    generation: String,
    size_bytes: u64,
    /// In base64. Storage states none for composite objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        min_length = 24,
        max_length = 24,
        content_encoding = "base64",
        example = "XrY7u+Ae7tCTyyK7j1rNww=="
    )]
    md5: Option<String>,
    /// Big-endian, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 8, max_length = 8, content_encoding = "base64", example = "yZRlqg==")]
    crc32c: Option<String>,
    #[schema(format = DateTime, example = "2026-11-22T10:03:00.000Z")]
    completed_at: String,
    evidence: Evidence,
}

/// What made the broker look and find the object.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// A notification from storage.
    Notification,
    /// The client asked.
    Client,
    /// The broker looked by itself.
    Sweep,
}

/// Why an upload was rejected.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rejection {
    code: RejectionCode,
    /// What was promised, and what arrived.
    #[schema(max_length = 1024, example = "1000000 bytes were declared, and 999999 arrived")]
    detail: String,
}

/// The promise that was broken.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RejectionCode {
    /// Another number of bytes than declared.
    SizeMismatch,
    /// More bytes than the policy allows.
    SizeLimit,
    /// Other bytes than declared.
    DigestMismatch,
    /// Another media type than declared.
    ContentTypeMismatch,
}

impl RejectionCode {
    const fn of(code: upload::BreachCode) -> Self {
        match code {
            upload::BreachCode::SizeMismatch => Self::SizeMismatch,
            upload::BreachCode::SizeLimit => Self::SizeLimit,
            upload::BreachCode::DigestMismatch => Self::DigestMismatch,
            upload::BreachCode::ContentTypeMismatch => Self::ContentTypeMismatch,
        }
    }
}

impl Upload {
    /// The upload as its owner sees it: with the session's URI while it is not final.
    pub(super) fn for_owner(tracked: &Tracked) -> Self {
        Self { transfer: Offer::of(tracked).map(Transfer::from), ..Self::without_transfer(&tracked.upload) }
    }

    /// The upload as its owner sees it who has just created it: with what was found out on the way.
    pub(super) fn created(created: &Created) -> Self {
        let Created { tracked, nearest, arrival, .. } = created;
        let routing = Routing {
            nearest: nearest.as_ref().map(ToString::to_string),
            located_by: Some(LocatedBy::of(arrival.how())),
            forward_failed: (arrival.hop == Hop::Back).then_some(true),
            ..Routing::stored(&tracked.upload)
        };
        Self { routing, ..Self::for_owner(tracked) }
    }

    /// The upload as administrators see it: with its owner's names, and never with the session's URI.
    pub(super) fn for_administrator(owned: &Owned) -> Self {
        Self { owner: Some(UploadOwner::from(&owned.owner)), ..Self::without_transfer(&owned.upload) }
    }

    /// The upload without what its bytes are sent with.
    pub(super) fn without_transfer(upload: &upload::Upload) -> Self {
        let result = match &upload.state {
            UploadState::Completed { object, at, witness } => Some(UploadResult {
                generation: object.generation.to_string(),
                size_bytes: object.size.0,
                md5: object.md5.map(|md5| md5.to_string()),
                crc32c: object.crc32c.map(|crc32c| crc32c.to_string()),
                completed_at: at.to_string(),
                evidence: match witness {
                    Witness::Notification => Evidence::Notification,
                    Witness::Client => Evidence::Client,
                    Witness::Sweep => Evidence::Sweep,
                },
            }),
            _ => None,
        };
        let rejection = match &upload.state {
            UploadState::Rejected { breach, .. } => {
                Some(Rejection { code: RejectionCode::of(breach.code), detail: schemas::clipped(&breach.detail) })
            }
            _ => None,
        };
        Self {
            id: upload.id.to_string(),
            state: State::of(upload.state.kind()),
            policy: upload.policy.to_string(),
            region: upload.region.to_string(),
            bucket: upload.bucket.to_string(),
            object: upload.object.to_string(),
            content_type: upload.promise.content_type.to_string(),
            size_bytes: upload.promise.size.declared().map(|size| size.0),
            received_bytes: upload.state.received().0,
            created_at: upload.created_at.to_string(),
            expires_at: upload.expires_at.to_string(),
            transfer: None,
            owner: None,
            routing: Routing::stored(upload),
            result,
            rejection,
        }
    }
}

/// The data of a `progress` event.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadProgress {
    /// Names the upload.
    #[schema(
        min_length = 34,
        max_length = 34,
        pattern = "^[0-9a-f]{34}$",
        example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8"
    )]
    id: String,
    /// How many bytes storage was last seen to have.
    #[schema(example = 16_777_216)]
    received_bytes: u64,
    /// The declared size; left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 73_400_320)]
    size_bytes: Option<u64>,
}

impl From<&upload::Upload> for UploadProgress {
    fn from(upload: &upload::Upload) -> Self {
        Self {
            id: upload.id.to_string(),
            received_bytes: upload.state.received().0,
            size_bytes: upload.promise.size.declared().map(|size| size.0),
        }
    }
}

/// The caller's uploads, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadList {
    #[schema(max_items = 200)]
    uploads: Vec<Upload>,
    /// Ask with this as `cursor` for what follows; left out at the end. A page can be short, or empty, and not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    next_cursor: Option<String>,
}

impl UploadList {
    pub(super) const fn new(uploads: Vec<Upload>, next_cursor: Option<String>) -> Self {
        Self { uploads, next_cursor }
    }
}

impl From<&Listing> for UploadList {
    fn from(listing: &Listing) -> Self {
        Self {
            uploads: listing.uploads.iter().map(Upload::for_owner).collect(),
            next_cursor: listing.next.as_ref().map(ToString::to_string),
        }
    }
}

/// The upload as events have it: as the API shows it, and never with how its bytes are sent.
pub(crate) fn as_event(tracked: &Tracked) -> serde_json::Value {
    // A struct of texts and numbers always becomes JSON.
    serde_json::to_value(Upload::without_transfer(&tracked.upload)).unwrap_or_default()
}
