//! The upload: one tracked intent to put one object into a bucket, and how its state moves.

use std::collections::BTreeMap;

use super::digest::{Crc32c, Md5};
use super::id::UploadId;
use super::name::{BucketName, ContentType, FileName, ObjectName, PolicyName, RegionName};
use super::principal::PrincipalId;
use super::size::ByteCount;
use super::time::Timestamp;

/// What a client asks for: the parsed body of a create request. Well-formed, and not yet allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpload {
    /// The policy to be used; left out, the one that admits the caller.
    pub policy: Option<PolicyName>,
    /// The client's name for its file.
    pub filename: FileName,
    /// The media type of the bytes.
    pub content_type: ContentType,
    /// How many bytes there will be, at most [`ByteCount::LARGEST_OBJECT`]; left out, unknown.
    pub size: Option<ByteCount>,
    /// The MD5 of the bytes, to be checked.
    pub md5: Option<Md5>,
    /// The CRC32C of the bytes, to be checked.
    pub crc32c: Option<Crc32c>,
    /// Custom metadata for the object: keys of up to 1024 bytes, values of up to 4096, 8 KiB in all.
    pub metadata: BTreeMap<String, String>,
    /// How the bytes are to travel.
    pub transfer: TransferKind,
}

/// The key in an object's custom metadata that holds the id of its upload. A hint and no proof: whoever holds a session
/// can overwrite it (storage documentation, "Resumable uploads": custom metadata on the final request).
pub const UPLOAD_HINT: &str = "upload-broker-id";

/// The key in an object's custom metadata that holds a sealed note of what the broker knew when it opened the session.
/// Its holder can take it away, and neither read nor make one.
pub const UPLOAD_NOTE: &str = "upload-broker-note";

/// How many bytes the keys and values of an object's custom metadata may have in all (storage RPC interface,
/// `ServiceConstants`: `MAX_CUSTOM_METADATA_TOTAL_SIZE_BYTES`).
pub const MAX_METADATA_BYTES: usize = 8192;

/// How the bytes of an upload go to storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransferKind {
    /// The broker opens a resumable session and hands out its URI.
    #[default]
    Resumable,
    /// The client sends a small file with one signed `PUT`.
    Simple,
    /// The client opens the resumable session itself, with a signed `POST`.
    SignedResumable,
}

impl TransferKind {
    /// The name on the wire and in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resumable => "resumable",
            Self::Simple => "simple",
            Self::SignedResumable => "signed_resumable",
        }
    }

    /// Whether the client works with a URL that the broker signed, rather than with a session that it opened.
    pub const fn is_signed(self) -> bool {
        match self {
            Self::Resumable => false,
            Self::Simple | Self::SignedResumable => true,
        }
    }
}

/// One tracked upload: everything about it that is not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Names it.
    pub id: UploadId,
    /// Owns it.
    pub principal: PrincipalId,
    /// Admitted it.
    pub policy: PolicyName,
    /// Initiated its session.
    pub region: RegionName,
    /// Where the object goes.
    pub bucket: BucketName,
    /// What the object is called.
    pub object: ObjectName,
    /// What was declared of the object, and is checked when it is there.
    pub promise: Promise,
    /// What storage is told of the object beside its bytes.
    pub attributes: Attributes,
    /// How the bytes travel.
    pub transfer: TransferKind,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// When it ends if nothing completes it.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: UploadState,
}

/// What storage is told of an object beside its bytes, whenever a session is opened or a URL is signed for it. Of an
/// upload that is final only [`Attributes::overwrite`] is still known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Custom metadata; the broker's own entry, [`UPLOAD_HINT`], is not in it.
    pub metadata: BTreeMap<String, String>,
    /// The `Cache-Control` that the object is served with.
    pub cache_control: Option<String>,
    /// Whether an object of this name may be replaced.
    pub overwrite: Overwrite,
}

/// Whether an existing object may be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overwrite {
    /// The object must be new. Storage finds out that it is not at the last byte only.
    #[default]
    Forbidden,
    /// Whatever has the name is replaced.
    Allowed,
}

/// What a client declared of its bytes, and its policy allows of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The media type.
    pub content_type: ContentType,
    /// The size.
    pub size: PromisedSize,
    /// The MD5, if declared.
    pub md5: Option<Md5>,
    /// The CRC32C, if declared.
    pub crc32c: Option<Crc32c>,
}

/// What is known of the size before the bytes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromisedSize {
    /// The client declared it.
    Exactly(ByteCount),
    /// The client did not know; the policy bounds it.
    Between {
        /// The fewest bytes.
        least: ByteCount,
        /// The most bytes.
        most: ByteCount,
    },
}

impl PromisedSize {
    /// The bytes to be reserved: no more than this can be stored.
    pub const fn reserve(self) -> ByteCount {
        match self {
            Self::Exactly(size) | Self::Between { most: size, .. } => size,
        }
    }

    /// The declared size.
    pub const fn declared(self) -> Option<ByteCount> {
        match self {
            Self::Exactly(size) => Some(size),
            Self::Between { .. } => None,
        }
    }
}

/// An object as storage describes it (storage JSON API, `objects` resource).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Identifies this content for good.
    pub generation: i64,
    /// The number of bytes stored.
    pub size: ByteCount,
    /// The media type, which the client may have changed.
    pub content_type: Option<ContentType>,
    /// Left out by storage for composite objects.
    pub md5: Option<Md5>,
    /// Always given by storage.
    pub crc32c: Option<Crc32c>,
}

impl Promise {
    /// What is broken already while the object is still being sent: more bytes than there may be in the end.
    pub fn outgrown_by(&self, received: ByteCount) -> Option<Breach> {
        let (code, relation) = match self.size {
            PromisedSize::Exactly(_) => (BreachCode::SizeMismatch, "were declared"),
            PromisedSize::Between { .. } => (BreachCode::SizeLimit, "are allowed"),
        };
        let most = self.size.reserve();
        (received > most).then(|| Breach {
            code,
            detail: format!("{} bytes arrived before the end, where {} {relation}", received.0, most.0),
        })
    }

    /// What of this promise `object` breaks, if anything.
    pub fn broken_by(&self, object: &StoredObject) -> Option<Breach> {
        let arrived = object.size;
        let size = match self.size {
            PromisedSize::Exactly(size) if arrived != size => Some((BreachCode::SizeMismatch, size, "were declared")),
            PromisedSize::Between { least, .. } if arrived < least => {
                Some((BreachCode::SizeLimit, least, "are the least"))
            }
            PromisedSize::Between { most, .. } if arrived > most => Some((BreachCode::SizeLimit, most, "are allowed")),
            PromisedSize::Exactly(_) | PromisedSize::Between { .. } => None,
        };
        if let Some((code, bound, relation)) = size {
            let detail = format!("{} bytes arrived, where {} {relation}", arrived.0, bound.0);
            return Some(Breach { code, detail });
        }
        // A digest that storage does not state cannot be checked, so the promise is not kept.
        if self.md5.is_some() && self.md5 != object.md5 {
            return Some(Breach::digest("MD5", self.md5, object.md5));
        }
        if self.crc32c.is_some() && self.crc32c != object.crc32c {
            return Some(Breach::digest("CRC32C", self.crc32c, object.crc32c));
        }
        if object.content_type.as_ref() != Some(&self.content_type) {
            let stored = object.content_type.as_ref().map_or("none", ContentType::as_str);
            let detail = format!("the content type is {stored}, where {} was declared", self.content_type);
            return Some(Breach { code: BreachCode::ContentTypeMismatch, detail });
        }
        None
    }
}

/// How an object breaks what was promised of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which promise.
    pub code: BreachCode,
    /// What was promised and what arrived, for people.
    pub detail: String,
}

impl Breach {
    fn digest<D: std::fmt::Display>(name: &str, declared: Option<D>, stored: Option<D>) -> Self {
        let text = |digest: Option<D>| digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
        let detail = format!("the {name} is {}, where {} was declared", text(stored), text(declared));
        Self { code: BreachCode::DigestMismatch, detail }
    }
}

/// The promises that an object can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreachCode {
    /// Another number of bytes than declared.
    SizeMismatch,
    /// More or fewer bytes than the policy allows.
    SizeLimit,
    /// Other bytes than declared.
    DigestMismatch,
    /// Another media type than declared.
    ContentTypeMismatch,
}

/// Where an upload stands. The final states are entered once and never left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// Counted and recorded; storage is being asked for a session. Over when the lease is: whoever holds it has until then.
    Admitted {
        /// When another attempt may take over.
        lease_until: Timestamp,
    },
    /// A session was handed out, and no byte has been seen.
    Pending,
    /// Storage has some bytes.
    Uploading {
        /// How many storage has persisted.
        received: ByteCount,
    },
    /// Storage has the object, and it is what was promised. Final.
    Completed {
        /// The object.
        object: StoredObject,
        /// When that was found.
        at: Timestamp,
        /// Who found it first.
        witness: Witness,
    },
    /// The object broke a promise and was deleted. Final.
    Rejected {
        /// The promise.
        breach: Breach,
        /// How many bytes had arrived.
        received: ByteCount,
        /// When that was found.
        at: Timestamp,
    },
    /// The owner did not want it any more. Final.
    Cancelled {
        /// How many bytes had been seen.
        received: ByteCount,
        /// When.
        at: Timestamp,
    },
    /// Its time ran out. Final.
    Expired {
        /// How many bytes had been seen.
        received: ByteCount,
        /// When that was noticed.
        at: Timestamp,
    },
}

/// The states without what is known in them: as they are told, listed and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// No byte seen.
    Pending,
    /// Some bytes seen.
    Uploading,
    /// Verified. Final.
    Completed,
    /// A promise was broken. Final.
    Rejected,
    /// The owner's wish. Final.
    Cancelled,
    /// Out of time. Final.
    Expired,
}

impl StateKind {
    /// Those that an upload can end in.
    pub const FINAL: [Self; 4] = [Self::Completed, Self::Rejected, Self::Cancelled, Self::Expired];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Uploading => "uploading",
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// Who made the broker look, when it found the object complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Witness {
    /// Storage's own notification.
    Notification,
    /// The client, by its word or by asking.
    Client,
    /// The sweeper.
    Sweep,
}

/// What has been learned about an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Its session is open.
    SessionOpened,
    /// Its session was lost, and another one is open: nothing has been sent there yet.
    SessionRenewed,
    /// Storage has persisted this many bytes.
    Persisted(ByteCount),
    /// Storage has the object and it keeps every promise.
    Verified(StoredObject, Witness),
    /// Storage has, or had, an object that breaks a promise.
    Broken(Breach, ByteCount),
    /// The owner cancels.
    CancelRequested,
    /// `expires_at` has passed.
    TimeRanOut,
}

/// A state that cannot take a piece of evidence: mostly because it is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an upload that is {state} cannot become anything else")]
pub struct InvalidState {
    /// The name of the state, as on the wire.
    pub state: &'static str,
}

impl UploadState {
    /// The state after `seen`. Final states take nothing; progress within one session never goes back.
    ///
    /// # Errors
    /// When the state is final, or progress is reported of an upload that has no session yet.
    pub fn after(&self, seen: Evidence, now: Timestamp) -> Result<Self, InvalidState> {
        let received = self.received();
        match (self, seen) {
            (Self::Completed { .. } | Self::Rejected { .. } | Self::Cancelled { .. } | Self::Expired { .. }, _)
            | (Self::Admitted { .. }, Evidence::Persisted(_))
            | (Self::Admitted { .. }, Evidence::SessionRenewed)
            | (Self::Pending | Self::Uploading { .. }, Evidence::SessionOpened) => {
                Err(InvalidState { state: self.name() })
            }
            (Self::Admitted { .. }, Evidence::SessionOpened)
            | (Self::Pending | Self::Uploading { .. }, Evidence::SessionRenewed) => Ok(Self::Pending),
            (Self::Pending | Self::Uploading { .. }, Evidence::Persisted(seen)) => Ok(match seen.max(received) {
                ByteCount::ZERO => Self::Pending,
                received => Self::Uploading { received },
            }),
            (_, Evidence::Verified(object, witness)) => Ok(Self::Completed { object, at: now, witness }),
            (_, Evidence::Broken(breach, received)) => Ok(Self::Rejected { breach, received, at: now }),
            (_, Evidence::CancelRequested) => Ok(Self::Cancelled { received, at: now }),
            (_, Evidence::TimeRanOut) => Ok(Self::Expired { received, at: now }),
        }
    }

    /// Which state it is. An upload whose session is still being opened is pending to its owner.
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Admitted { .. } | Self::Pending => StateKind::Pending,
            Self::Uploading { .. } => StateKind::Uploading,
            Self::Completed { .. } => StateKind::Completed,
            Self::Rejected { .. } => StateKind::Rejected,
            Self::Cancelled { .. } => StateKind::Cancelled,
            Self::Expired { .. } => StateKind::Expired,
        }
    }

    /// The name that the state has on the wire.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Whether nothing can change any more.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Admitted { .. } | Self::Pending | Self::Uploading { .. } => false,
            Self::Completed { .. } | Self::Rejected { .. } | Self::Cancelled { .. } | Self::Expired { .. } => true,
        }
    }

    /// How many bytes storage was last seen to have.
    pub const fn received(&self) -> ByteCount {
        match self {
            Self::Admitted { .. } | Self::Pending => ByteCount::ZERO,
            Self::Completed { object, .. } => object.size,
            Self::Uploading { received }
            | Self::Rejected { received, .. }
            | Self::Cancelled { received, .. }
            | Self::Expired { received, .. } => *received,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn object(size: u64) -> StoredObject {
        StoredObject {
            generation: 1,
            size: ByteCount(size),
            content_type: Some("video/mp4".parse().unwrap()),
            md5: None,
            crc32c: Some(Crc32c(7)),
        }
    }

    fn completed() -> UploadState {
        UploadState::Completed { object: object(3), at: NOW, witness: Witness::Client }
    }

    fn uploading(received: u64) -> UploadState {
        UploadState::Uploading { received: ByteCount(received) }
    }

    #[test]
    fn evidence_moves_a_state_as_the_contract_says() {
        let admitted = UploadState::Admitted { lease_until: NOW };
        let cancelled = |received| UploadState::Cancelled { received: ByteCount(received), at: NOW };
        for (name, state, evidence, expected) in [
            ("the session opens", admitted.clone(), Evidence::SessionOpened, Some(UploadState::Pending)),
            ("it opens only once", UploadState::Pending, Evidence::SessionOpened, None),
            ("another session begins anew", uploading(3), Evidence::SessionRenewed, Some(UploadState::Pending)),
            ("no other session before the first", admitted.clone(), Evidence::SessionRenewed, None),
            ("no progress without a session", admitted.clone(), Evidence::Persisted(ByteCount(1)), None),
            ("first bytes", UploadState::Pending, Evidence::Persisted(ByteCount(3)), Some(uploading(3))),
            ("no bytes yet", UploadState::Pending, Evidence::Persisted(ByteCount(0)), Some(UploadState::Pending)),
            ("more bytes", uploading(3), Evidence::Persisted(ByteCount(5)), Some(uploading(5))),
            ("progress never goes back", uploading(5), Evidence::Persisted(ByteCount(3)), Some(uploading(5))),
            ("verified", uploading(3), Evidence::Verified(object(3), Witness::Client), Some(completed())),
            (
                "verified unseen",
                UploadState::Pending,
                Evidence::Verified(object(3), Witness::Client),
                Some(completed()),
            ),
            ("cancelled before the session", admitted, Evidence::CancelRequested, Some(cancelled(0))),
            ("cancelled on the way", uploading(3), Evidence::CancelRequested, Some(cancelled(3))),
            ("a cancel after the end", completed(), Evidence::CancelRequested, None),
            ("a completion after a cancel", cancelled(3), Evidence::Verified(object(3), Witness::Client), None),
            ("an expiry after the end", completed(), Evidence::TimeRanOut, None),
        ] {
            assert_eq!(state.after(evidence, NOW).ok(), expected, "{name}");
        }
    }

    #[test]
    fn final_states_take_nothing() {
        let breach = Breach { code: BreachCode::SizeLimit, detail: String::new() };
        let finals = [
            completed(),
            UploadState::Rejected { breach: breach.clone(), received: ByteCount(1), at: NOW },
            UploadState::Cancelled { received: ByteCount(1), at: NOW },
            UploadState::Expired { received: ByteCount(1), at: NOW },
        ];
        let all_evidence = [
            Evidence::SessionOpened,
            Evidence::SessionRenewed,
            Evidence::Persisted(ByteCount(9)),
            Evidence::Verified(object(9), Witness::Sweep),
            Evidence::Broken(breach, ByteCount(9)),
            Evidence::CancelRequested,
            Evidence::TimeRanOut,
        ];
        for state in &finals {
            assert!(state.is_final());
            for evidence in &all_evidence {
                assert!(state.after(evidence.clone(), NOW).is_err(), "{} took {evidence:?}", state.name());
            }
        }
    }

    #[test]
    fn an_object_is_held_to_what_was_promised() {
        let promise = |size, crc32c| Promise {
            content_type: "video/mp4".parse().unwrap(),
            size,
            md5: None,
            crc32c: Some(Crc32c(crc32c)),
        };
        let exactly = PromisedSize::Exactly(ByteCount(3));
        let between = |least, most| PromisedSize::Between { least: ByteCount(least), most: ByteCount(most) };
        let other_type = StoredObject { content_type: Some("text/html".parse().unwrap()), ..object(3) };
        let md5 = Promise { md5: Some(Md5([0; 16])), ..promise(exactly, 7) };
        for (name, promise, object, expected) in [
            ("kept", promise(exactly, 7), object(3), None),
            ("fewer bytes", promise(exactly, 7), object(2), Some(BreachCode::SizeMismatch)),
            ("more bytes", promise(exactly, 7), object(4), Some(BreachCode::SizeMismatch)),
            ("between the bounds", promise(between(2, 9), 7), object(3), None),
            ("at both bounds", promise(between(3, 3), 7), object(3), None),
            ("above the bounds", promise(between(0, 2), 7), object(3), Some(BreachCode::SizeLimit)),
            ("below the bounds", promise(between(4, 9), 7), object(3), Some(BreachCode::SizeLimit)),
            ("other bytes", promise(exactly, 8), object(3), Some(BreachCode::DigestMismatch)),
            ("a digest that storage does not state", md5, object(3), Some(BreachCode::DigestMismatch)),
            ("another type", promise(exactly, 7), other_type, Some(BreachCode::ContentTypeMismatch)),
        ] {
            assert_eq!(promise.broken_by(&object).map(|breach| breach.code), expected, "{name}");
        }
    }
}
