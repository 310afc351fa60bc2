//! The `[[policies]]` sections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::limits::Rate;
use crate::model::name::{PolicyName, RegionName};
use crate::model::size::ByteCount;
use crate::model::time::Span;

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

/// How bytes may travel. This version opens every session itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferSetting {
    /// A session that the broker opens.
    Resumable,
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

fn default_transfers() -> Vec<TransferSetting> {
    vec![TransferSetting::Resumable]
}
