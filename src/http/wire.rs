//! Request and response bodies, and how they become, or come from, what the domain knows.
//!
//! Wire objects are flat: a `kind` or `state` and optional fields, which are left out rather than `null`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{FieldError, Problem};
use super::route::LocatedBy;
use super::schemas;
use super::transfer::{Transfer, TransferKind};
use super::wire_admin::UploadOwner;
use crate::model::limits::Limits;
use crate::model::name::{ContentType, PolicyName};
use crate::model::size::ByteCount;
use crate::model::upload::{self, NewUpload, StateKind, UploadState, Witness};
use crate::policy::{DigestRule, TransferSetting};
use crate::routing::Hop;
use crate::store::{Listing, Tracked};
use crate::uploads::{Allowance, Created, Offer, Owned};

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

/// The upload as events have it: as the API shows it, and never with how its bytes are sent.
pub(crate) fn as_event(tracked: &Tracked) -> serde_json::Value {
    // A struct of texts and numbers always becomes JSON.
    serde_json::to_value(Upload::without_transfer(&tracked.upload)).unwrap_or_default()
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

/// The policies that the caller may use.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyList {
    pub(super) policies: Vec<Policy>,
}

/// A policy that the caller may use, and what is left of its limits.
#[derive(Debug, Serialize, ToSchema)]
pub struct Policy {
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "videos")]
    name: String,
    /// The media types accepted: `type/subtype`, `type/*` or `*/*`.
    #[schema(schema_with = schemas::accepted_types)]
    content_types: Vec<String>,
    /// The smallest upload.
    #[schema(maximum = 5_497_558_138_880_u64, example = 1)]
    min_size_bytes: u64,
    /// The largest upload.
    #[schema(maximum = 5_497_558_138_880_u64, example = 21_474_836_480_u64)]
    max_size_bytes: u64,
    /// Whether the size may be left out.
    unknown_size: bool,
    digest: Digest,
    /// How bytes may travel.
    #[schema(min_items = 1, max_items = 3)]
    transfers: Vec<TransferKind>,
    /// The largest upload that may travel as `simple`; left out where none may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 8_388_608)]
    simple_max_size_bytes: Option<u64>,
    /// How long an upload may take.
    #[schema(minimum = 60, maximum = 604_800, example = 86_400)]
    session_lifetime_seconds: u64,
    /// How many uploads are under way.
    active: u32,
    /// How many may be; left out where any number may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_active: Option<u32>,
    /// How many uploads may be created in a span of time; left out where any number may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 3, max_length = 64, example = "30/1m")]
    rate: Option<String>,
    /// How many may be created right now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rate_left: Option<u32>,
    /// How many bytes are reserved or stored today, in UTC.
    bytes_today: u64,
    /// How many bytes may be in one UTC day; left out where any number may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    daily_bytes: Option<u64>,
    /// How many of them are left today.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    daily_bytes_left: Option<u64>,
    /// The regions that take these uploads; left out where all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, schema_with = schemas::regions)]
    regions: Option<Vec<String>>,
}

/// What a policy says of digests.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    /// May be declared.
    Optional,
    /// At least one must be declared.
    Required,
    /// None can be declared.
    None,
}

impl From<&Allowance<'_>> for Policy {
    fn from(allowance: &Allowance<'_>) -> Self {
        let settings = allowance.policy.settings();
        let usage = &allowance.usage;
        let Limits { max_active, rate, daily_bytes } = allowance.policy.limits();
        let name: &PolicyName = allowance.policy.name();
        Self {
            name: name.to_string(),
            content_types: settings.content_types.clone(),
            min_size_bytes: settings.min_size.0,
            max_size_bytes: settings.max_size.0,
            unknown_size: settings.unknown_size,
            digest: match settings.digest {
                DigestRule::Optional => Digest::Optional,
                DigestRule::Required => Digest::Required,
                DigestRule::None => Digest::None,
            },
            transfers: settings.transfers.iter().map(|transfer| TransferKind::from_domain(transfer.kind())).collect(),
            simple_max_size_bytes: settings
                .transfers
                .contains(&TransferSetting::Simple)
                .then_some(settings.simple_max_size.0),
            session_lifetime_seconds: settings.session_lifetime.0.as_secs(),
            active: usage.active,
            max_active,
            rate: rate.map(|rate| rate.to_string()),
            rate_left: usage.rate_left,
            bytes_today: usage.bytes_today.0,
            daily_bytes: daily_bytes.map(|limit| limit.0),
            daily_bytes_left: daily_bytes.map(|limit| limit.0.saturating_sub(usage.bytes_today.0)),
            regions: settings.regions.as_ref().map(|regions| regions.iter().map(ToString::to_string).collect()),
        }
    }
}
