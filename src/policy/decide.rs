//! The decision: an upload and a policy become an [`Admission`], or all the reasons why not.

use std::sync::Arc;
use std::time::Duration;

use super::object_name::Parts;
use super::{DigestRule, Policy, metadata};
use crate::model::id::UploadId;
use crate::model::limits::{Enforcement, Limits};
use crate::model::name::{ObjectName, PolicyName, RegionName};
use crate::model::principal::Principal;
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::{Attributes, NewUpload, Overwrite, Promise, PromisedSize, TransferKind};

/// What a policy grants: everything that is needed to count, record and initiate the upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The policy that admitted it.
    pub policy: PolicyName,
    /// What the object will be called.
    pub object: ObjectName,
    /// What the object will be held to.
    pub promise: Promise,
    /// The bytes that are counted for it before it is there. No more than the policy's limits allow an object to have,
    /// also where they only report: else an unknown size would be reported as all that storage takes.
    pub reserve: ByteCount,
    /// What the object is made with: among it the policy's metadata and the client's.
    pub attributes: Attributes,
    /// What the principal may use under this policy.
    pub limits: Limits,
    /// Whether those limits refuse, or only report.
    pub enforcement: Enforcement,
    /// How long the upload may take.
    pub session_lifetime: Duration,
    /// The regions that may take it; `None`: any.
    pub regions: Option<Arc<[RegionName]>>,
    /// What a policy that only reports would have refused it for.
    pub would_refuse: Vec<Violation>,
}

/// Why an upload was not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No policy admits the caller. Also when the one it named exists but is not for it: who may not use a policy may
    /// not learn that it exists.
    NotAdmitted,
    /// The caller named no policy, and several admit it.
    Ambiguous {
        /// Their names, in configuration order.
        candidates: Vec<PolicyName>,
    },
    /// The policy admits the caller but not this upload; everything that is wrong with it, never empty.
    Violations(Vec<Violation>),
}

/// One limit that an upload does not keep. The texts are for the caller: they may repeat what its token or file says of
/// it, and so belong into the answer, not into logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The limit.
    pub limit: ViolatedLimit,
    /// What it allows.
    pub allowed: String,
    /// What the upload has.
    pub given: String,
}

/// The limits that an upload by itself can break; most have the name of a policy's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolatedLimit {
    /// The media type is none of those accepted.
    ContentTypes,
    /// Too few bytes.
    MinSize,
    /// Too many bytes.
    MaxSize,
    /// Too many bytes for one signed `PUT`.
    SimpleMaxSize,
    /// The size must be declared.
    SizeBytes,
    /// A digest must, or must not, be declared.
    Digest,
    /// The bytes may not travel this way.
    Transfers,
    /// No object name can be made of the file's name and the token's claims.
    Object,
    /// The custom metadata is not such as storage takes.
    Metadata,
}

impl ViolatedLimit {
    /// The name that the limit has on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContentTypes => "content_types",
            Self::MinSize => "min_size",
            Self::MaxSize => "max_size",
            Self::SimpleMaxSize => "simple_max_size",
            Self::SizeBytes => "size_bytes",
            Self::Digest => "digest",
            Self::Transfers => "transfers",
            Self::Object => "object",
            Self::Metadata => "metadata",
        }
    }
}

impl Policy {
    /// Decides about an upload of a caller whom the policy admits.
    pub(super) fn decide(
        &self,
        principal: &Principal,
        request: &NewUpload,
        id: UploadId,
        now: Timestamp,
    ) -> Result<Admission, Denial> {
        let broken = self.broken_rules(request);
        // What stays refused under a policy that only reports: there is no way to admit it.
        let mut impossible = Vec::new();
        impossible.extend(self.unknown_transfer(request.transfer));
        impossible.extend(self.beyond_storage(request.size));
        let object =
            self.object.fill(&Parts { principal, filename: &request.filename, id, now }).map_err(|violations| {
                impossible.extend(violations);
            });
        let metadata = metadata::merge(&self.settings.metadata, &request.metadata).map_err(|reason| {
            let allowed = "keys and values that storage takes".to_owned();
            impossible.push(Violation { limit: ViolatedLimit::Metadata, allowed, given: reason.to_string() });
        });
        let would_refuse = match self.enforcement() {
            Enforcement::Enforce => {
                impossible.splice(0..0, broken);
                Vec::new()
            }
            Enforcement::Report => broken,
        };
        match (object, metadata) {
            (Ok(object), Ok(metadata)) if impossible.is_empty() => Ok(Admission {
                policy: self.name().clone(),
                object,
                promise: self.promise(request),
                reserve: request.size.unwrap_or_else(|| self.settings.reserved_unknown(request.transfer)),
                attributes: Attributes {
                    metadata,
                    cache_control: self.settings.cache_control.clone(),
                    overwrite: if self.settings.overwrite { Overwrite::Allowed } else { Overwrite::Forbidden },
                },
                limits: self.limits(),
                enforcement: self.enforcement(),
                session_lifetime: self.settings.session_lifetime.0,
                regions: self.regions.clone(),
                would_refuse,
            }),
            _ => Err(Denial::Violations(impossible)),
        }
    }

    /// The rules of the policy's own choosing that the request breaks.
    fn broken_rules(&self, request: &NewUpload) -> Vec<Violation> {
        let settings = &self.settings;
        let mut broken = Vec::new();
        let mut refuse = |limit, allowed, given| broken.push(Violation { limit, allowed, given });
        if !self.content_types.accept(&request.content_type) {
            let allowed = settings.content_types.join(", ");
            refuse(ViolatedLimit::ContentTypes, allowed, request.content_type.essence());
        }
        match request.size {
            Some(size) if size < settings.min_size => {
                refuse(ViolatedLimit::MinSize, settings.min_size.0.to_string(), size.0.to_string());
            }
            // Beyond what storage takes it is impossible, not only forbidden, and is told off there.
            Some(size) if size > settings.max_size && size <= ByteCount::LARGEST_OBJECT => {
                refuse(ViolatedLimit::MaxSize, settings.max_size.0.to_string(), size.0.to_string());
            }
            Some(size) if request.transfer == TransferKind::Simple && size > settings.simple_max_size => {
                refuse(ViolatedLimit::SimpleMaxSize, settings.simple_max_size.0.to_string(), size.0.to_string());
            }
            None if !settings.unknown_size => {
                refuse(ViolatedLimit::SizeBytes, "a declared size".to_owned(), "none".to_owned());
            }
            Some(_) | None => {}
        }
        let declared = match (request.md5, request.crc32c) {
            (Some(_), Some(_)) => "md5, crc32c",
            (Some(_), None) => "md5",
            (None, Some(_)) => "crc32c",
            (None, None) => "none",
        };
        match settings.digest {
            DigestRule::Required if declared == "none" => {
                refuse(ViolatedLimit::Digest, "md5, crc32c or both".to_owned(), declared.to_owned());
            }
            DigestRule::None if declared != "none" => {
                refuse(ViolatedLimit::Digest, "none".to_owned(), declared.to_owned());
            }
            DigestRule::Optional | DigestRule::Required | DigestRule::None => {}
        }
        broken
    }

    /// A way of transfer that the policy does not list. A policy can list every way that the broker knows, so what is
    /// not listed here may not exist, and reporting cannot let it pass.
    fn unknown_transfer(&self, transfer: TransferKind) -> Option<Violation> {
        let listed = || self.settings.transfers.iter().map(|setting| setting.kind());
        if listed().any(|kind| kind == transfer) {
            return None;
        }
        Some(Violation {
            limit: ViolatedLimit::Transfers,
            allowed: listed().map(TransferKind::name).collect::<Vec<_>>().join(", "),
            given: transfer.name().to_owned(),
        })
    }

    fn beyond_storage(&self, size: Option<ByteCount>) -> Option<Violation> {
        size.filter(|size| *size > ByteCount::LARGEST_OBJECT).map(|size| Violation {
            limit: ViolatedLimit::MaxSize,
            allowed: self.largest().0.to_string(),
            given: size.0.to_string(),
        })
    }

    /// The largest object that is let in. One that turns out larger than promised is deleted, and a policy that only
    /// reports deletes nothing for its size.
    fn largest(&self) -> ByteCount {
        match self.enforcement() {
            Enforcement::Enforce => self.settings.max_size,
            Enforcement::Report => ByteCount::LARGEST_OBJECT,
        }
    }

    /// The smallest object that is let in, likewise.
    fn smallest(&self) -> ByteCount {
        match self.enforcement() {
            Enforcement::Enforce => self.settings.min_size,
            Enforcement::Report => ByteCount::ZERO,
        }
    }

    fn promise(&self, request: &NewUpload) -> Promise {
        let most = match self.enforcement() {
            Enforcement::Enforce => self.settings.reserved_unknown(request.transfer),
            Enforcement::Report => self.largest(),
        };
        let bounds = PromisedSize::Between { least: self.smallest(), most };
        Promise {
            content_type: request.content_type.clone(),
            size: request.size.map_or(bounds, PromisedSize::Exactly),
            md5: request.md5,
            crc32c: request.crc32c,
        }
    }
}
