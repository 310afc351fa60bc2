//! The `[[policies]]` sections.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metadata;
use crate::model::limits::Rate;
use crate::model::name::{PolicyName, RegionName};
use crate::model::section::Fault;
use crate::model::size::ByteCount;
use crate::model::time::Span;
use crate::model::upload::TransferKind;

/// The most uploads under way that a limit can be about: clients read it as a signed number of 32 bits.
const LARGEST_ACTIVE: u32 = i32::MAX.unsigned_abs();

/// The most bytes of a day that a limit can be about. Numbers beyond 2^53 are not exact for every reader of JSON (RFC 7493,
/// section 2.2).
const LARGEST_DAY: ByteCount = ByteCount::gib(4 << 20);

/// One `[[policies]]` section: who may upload what, where, how much and how fast.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// What requests and metrics call it.
    pub name: PolicyName,
    /// The condition on the caller's claims; left out, every authenticated caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The template of object names.
    pub object: String,
    /// The media types accepted, `type/subtype` or `type/*`; left out, all.
    #[serde(default = "default_content_types")]
    pub content_types: Vec<String>,
    /// The smallest upload.
    #[serde(default)]
    pub min_size: ByteCount,
    /// The largest upload; left out, the largest that storage takes.
    #[serde(default = "default_max_size")]
    pub max_size: ByteCount,
    /// Whether the size may be left out when an upload is created.
    #[serde(default)]
    pub unknown_size: bool,
    /// Whether a digest must, may or cannot be declared.
    #[serde(default)]
    pub digest: DigestRule,
    /// How long an upload may take, at most 7 days.
    #[serde(default = "default_session_lifetime")]
    pub session_lifetime: Span,
    /// How many uploads of one principal may be under way at once; left out, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active: Option<u32>,
    /// How many uploads one principal may create in a span of time; left out, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How many bytes one principal may upload in one UTC day; left out, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_bytes: Option<ByteCount>,
    /// Whether an existing object may be replaced.
    #[serde(default)]
    pub overwrite: bool,
    /// How bytes may travel.
    #[serde(default = "default_transfers")]
    pub transfers: Vec<TransferSetting>,
    /// The largest upload that one signed `PUT` may carry: it cannot be resumed.
    #[serde(default = "default_simple_max_size")]
    pub simple_max_size: ByteCount,
    /// The `Cache-Control` of the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Custom metadata of the objects; beats what the client sends.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The regions that may take these uploads; left out, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<RegionName>>,
    /// Counts and logs what the policy would refuse, and refuses nothing.
    #[serde(default)]
    pub report_only: bool,
}

/// A session ends a week after it was opened, whatever is done (storage documentation, "Resumable uploads").
const LONGEST_SESSION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Less leaves no time to upload anything.
const SHORTEST_SESSION: Duration = Duration::from_secs(60);

impl PolicySettings {
    /// Whether clients under it may work with URLs that the broker signs.
    pub fn asks_for_signatures(&self) -> bool {
        self.transfers.iter().any(|setting| setting.kind().is_signed())
    }

    /// The most bytes that an upload of unknown size may come to, and so reserves.
    pub(super) fn reserved_unknown(&self, transfer: TransferKind) -> ByteCount {
        match transfer {
            TransferKind::Simple => self.max_size.min(self.simple_max_size),
            TransferKind::Resumable | TransferKind::SignedResumable => self.max_size,
        }
    }

    /// Checks each value by itself and against the others; what has to be compiled is checked where it is.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.check_sizes()?;
        let lifetime = self.session_lifetime.0;
        if !(SHORTEST_SESSION..=LONGEST_SESSION).contains(&lifetime) {
            return Err(Fault::new("session_lifetime", "must be at least 1m and at most 7d"));
        }
        if self.max_active == Some(0) {
            return Err(Fault::new(
                "max_active",
                "is 0, so nothing would ever be admitted; leave it out for no limit".to_owned(),
            ));
        }
        if self.max_active.is_some_and(|limit| limit > LARGEST_ACTIVE) {
            return Err(Fault::new("max_active", format!("is more than {LARGEST_ACTIVE}; leave it out for no limit")));
        }
        require_some_once("transfers", &self.transfers)?;
        // A signed URL is good for any number of requests until it ends. Where objects may be replaced, the one that was
        // verified could be.
        if self.overwrite
            && let Some(signed) = self.transfers.iter().find(|setting| setting.kind().is_signed())
        {
            let name = signed.kind().name();
            return Err(Fault::new(
                "transfers",
                format!("\"{name}\" needs overwrite = false: its URL could replace the object after it was verified"),
            ));
        }
        if let Some(regions) = &self.regions {
            require_some_once("regions", regions)?;
        }
        metadata::check(&self.metadata).map_err(|reason| Fault::new("metadata", reason.to_string()))?;
        if let Some(value) = &self.cache_control {
            let legal = !value.is_empty()
                && value.trim() == value
                && value.len() <= 1024
                && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            if !legal {
                return Err(Fault::new(
                    "cache_control",
                    "must be 1 to 1024 printable ASCII characters, without outer spaces".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), Fault> {
        if self.max_size > ByteCount::LARGEST_OBJECT {
            return Err(Fault::new(
                "max_size",
                format!("is more than the {} that storage takes", ByteCount::LARGEST_OBJECT),
            ));
        }
        if self.min_size > self.max_size {
            return Err(Fault::new("min_size", format!("is {}, more than max_size, {}", self.min_size, self.max_size)));
        }
        if self.simple_max_size < self.min_size && self.transfers.contains(&TransferSetting::Simple) {
            let reason = format!(
                "is {}, less than min_size, {}: nothing would ever be admitted as \"simple\"",
                self.simple_max_size, self.min_size
            );
            return Err(Fault::new("simple_max_size", reason));
        }
        let Some(daily) = self.daily_bytes else { return Ok(()) };
        if daily > LARGEST_DAY {
            return Err(Fault::new("daily_bytes", format!("is more than {LARGEST_DAY}; leave it out for no limit")));
        }
        if daily < self.min_size {
            let reason = format!("is {daily}, less than min_size, {}: nothing would ever be admitted", self.min_size);
            return Err(Fault::new("daily_bytes", reason));
        }
        // An upload of unknown size reserves as much as it may become.
        let reserved = self.transfers.iter().map(|setting| self.reserved_unknown(setting.kind())).min();
        if self.unknown_size
            && let Some(reserved) = reserved.filter(|reserved| daily < *reserved)
        {
            let reason = format!(
                "is {daily}, less than the {reserved} that an upload of unknown size reserves: none would ever be admitted"
            );
            return Err(Fault::new("daily_bytes", reason));
        }
        Ok(())
    }
}

fn require_some_once<T: PartialEq>(key: &'static str, list: &[T]) -> Result<(), Fault> {
    if list.is_empty() {
        return Err(Fault::new(key, "the list is empty, so nothing would ever be admitted"));
    }
    let repeated = list.iter().enumerate().any(|(position, item)| list[..position].contains(item));
    if repeated { Err(Fault::new(key, "an entry is there twice")) } else { Ok(()) }
}

/// What a policy says of declared digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestRule {
    /// MD5, CRC32C, both or neither.
    #[default]
    Optional,
    /// At least one of MD5 and CRC32C.
    Required,
    /// Neither.
    None,
}

/// How bytes may travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferSetting {
    /// A session that the broker opens.
    Resumable,
    /// One signed `PUT`.
    Simple,
    /// A session that the client opens, with a signed `POST`. One such URL opens any number of sessions until it ends.
    SignedResumable,
}

impl TransferSetting {
    /// What an upload calls it.
    pub const fn kind(self) -> TransferKind {
        match self {
            Self::Resumable => TransferKind::Resumable,
            Self::Simple => TransferKind::Simple,
            Self::SignedResumable => TransferKind::SignedResumable,
        }
    }
}

fn default_content_types() -> Vec<String> {
    vec!["*/*".to_owned()]
}

fn default_max_size() -> ByteCount {
    ByteCount::LARGEST_OBJECT
}

fn default_session_lifetime() -> Span {
    Span::seconds(24 * 3600)
}

fn default_simple_max_size() -> ByteCount {
    ByteCount::mib(8)
}

fn default_transfers() -> Vec<TransferSetting> {
    vec![TransferSetting::Resumable]
}
