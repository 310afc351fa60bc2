//! What a caller is told of the policies that admit it.

use serde::Serialize;
use utoipa::ToSchema;

use super::schemas;
use super::transfer::TransferKind;
use crate::model::limits::Limits;
use crate::model::name::PolicyName;
use crate::policy::{DigestRule, TransferSetting};
use crate::uploads::Allowance;

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
