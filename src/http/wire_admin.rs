//! What administrators ask and are told, beside what everybody is.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::wire::State;
use crate::model::upload::StateKind;
use crate::store::KnownOwner;
use crate::uploads::{Endpoint, ParkedDeliveries, Replayed, Sum, SumOf, UsageRow};

/// Whose uploads are listed, and which.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AdminListQuery {
    /// Only of principals with this `iss` claim.
    #[serde(default)]
    #[param(max_length = 255, example = "https://securetoken.google.com/acme")]
    pub(super) issuer: Option<String>,
    /// Only of principals of this tenant.
    #[serde(default)]
    #[param(max_length = 255)]
    pub(super) tenant: Option<String>,
    /// Only of principals with this `sub` claim. Together with `issuer` it names one principal: of `tenant`, or of none.
    #[serde(default)]
    #[param(max_length = 255, example = "u-17")]
    pub(super) subject: Option<String>,
    /// Only uploads that this policy has admitted.
    #[serde(default)]
    #[param(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "videos")]
    pub(super) policy: Option<String>,
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

/// Whose usage is told, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// What a row is of; left out, of a principal.
    #[serde(default)]
    #[param(inline, required = false)]
    pub(super) by: UsageBy,
    /// Only of principals with this `iss` claim.
    #[serde(default)]
    #[param(max_length = 255, example = "https://securetoken.google.com/acme")]
    pub(super) issuer: Option<String>,
    /// Only of principals of this tenant.
    #[serde(default)]
    #[param(max_length = 255)]
    pub(super) tenant: Option<String>,
    /// Only of principals with this `sub` claim. Together with `issuer` it names one principal: of `tenant`, or of none.
    #[serde(default)]
    #[param(max_length = 255, example = "u-17")]
    pub(super) subject: Option<String>,
    /// Only under this policy.
    #[serde(default)]
    #[param(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "videos")]
    pub(super) policy: Option<String>,
    /// At most so many principals are looked at for a page, whatever they use.
    #[serde(default)]
    #[param(minimum = 1, maximum = 2000, default = 500)]
    pub(super) limit: Option<u32>,
    /// Where the last page ended, from its `next_cursor`.
    #[serde(default)]
    #[param(max_length = 128)]
    pub(super) cursor: Option<String>,
}

/// Which parked deliveries are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ParkedQuery {
    /// At most this many.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<u32>,
    /// Where the last page ended, from its `next_cursor`.
    #[serde(default)]
    #[param(max_length = 128)]
    pub(super) cursor: Option<String>,
}

/// What a row of usage is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// One principal under one policy.
    #[default]
    Principal,
    /// All principals of one issuer and tenant, under all policies.
    Tenant,
    /// All principals under one policy.
    Policy,
}

/// Whose an upload is.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadOwner {
    /// A digest of issuer, tenant and subject.
    #[schema(
        min_length = 32,
        max_length = 32,
        pattern = "^[0-9a-f]{32}$",
        example = "3f1b0f7c9a52de6430b8c1e7d2a94f05"
    )]
    principal: String,
    /// The `iss` claim; left out where the names were too long to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 255, example = "https://securetoken.google.com/acme")]
    issuer: Option<String>,
    /// The tenant, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 255)]
    tenant: Option<String>,
    /// The `sub` claim; left out together with the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 255, example = "u-17")]
    subject: Option<String>,
}

impl From<&KnownOwner> for UploadOwner {
    fn from(owner: &KnownOwner) -> Self {
        let names = owner.names.as_ref();
        Self {
            principal: owner.principal.to_string(),
            issuer: names.map(|names| names.issuer.clone()),
            tenant: names.and_then(|names| names.tenant.clone()),
            subject: names.map(|names| names.subject.clone()),
        }
    }
}

/// What is used.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageList {
    /// Without those that use nothing.
    pub(super) rows: Vec<UsageEntry>,
    /// Ask with this as `cursor` for what follows; left out at the end. A page can be empty, and not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    pub(super) next_cursor: Option<String>,
}

/// What a principal uses under a policy; or, as `by` has it, a sum over the principals of this page.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct UsageEntry {
    /// `by=principal`: a digest of issuer, tenant and subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 32, max_length = 32, pattern = "^[0-9a-f]{32}$")]
    principal: Option<String>,
    /// `by=principal` and `by=tenant`: the `iss` claim; left out where the names were too long to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 255)]
    issuer: Option<String>,
    /// `by=principal` and `by=tenant`: the tenant, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 255)]
    tenant: Option<String>,
    /// `by=principal`: the `sub` claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 255)]
    subject: Option<String>,
    /// `by=principal` and `by=policy`: the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$")]
    policy: Option<String>,
    /// `by=tenant` and `by=policy`: how many principals this is the sum of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    principals: Option<u64>,
    /// How many uploads are under way.
    active: u64,
    /// How many bytes are reserved or stored today, in UTC.
    bytes_today: u64,
    /// `by=principal`: how many uploads may be under way; left out where any number may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_active: Option<u32>,
    /// `by=principal`: how many bytes may be in one UTC day; left out where any number may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    daily_bytes: Option<u64>,
    /// `by=principal`: how many uploads may be created right now; left out where any number may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rate_left: Option<u32>,
}

impl From<&UsageRow> for UsageEntry {
    fn from(row: &UsageRow) -> Self {
        let UploadOwner { principal, issuer, tenant, subject } = UploadOwner::from(&row.owner);
        Self {
            principal: Some(principal),
            issuer,
            tenant,
            subject,
            policy: Some(row.policy.to_string()),
            principals: None,
            active: row.usage.active.into(),
            bytes_today: row.usage.bytes_today.0,
            max_active: row.limits.max_active,
            daily_bytes: row.limits.daily_bytes.map(|limit| limit.0),
            rate_left: row.usage.rate_left,
        }
    }
}

impl From<(SumOf, Sum)> for UsageEntry {
    fn from((of, sum): (SumOf, Sum)) -> Self {
        let (issuer, tenant, policy) = match of {
            SumOf::Tenant { issuer, tenant } => (issuer, tenant, None),
            SumOf::Policy(policy) => (None, None, Some(policy.to_string())),
        };
        Self {
            issuer,
            tenant,
            policy,
            principals: Some(sum.principals),
            active: sum.active,
            bytes_today: sum.bytes_today.0,
            ..Self::default()
        }
    }
}

/// Who is told how uploads end.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookList {
    #[schema(max_items = 16)]
    pub(super) webhooks: Vec<Webhook>,
}

/// A receiver of events.
#[derive(Debug, Serialize, ToSchema)]
pub struct Webhook {
    /// What it is called in the configuration.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9._-]+$", example = "backend.example.com")]
    name: String,
    /// The host that it is at.
    #[schema(min_length = 1, max_length = 255, example = "backend.example.com")]
    url_host: String,
    /// What it is told of.
    #[schema(min_items = 1, max_items = 4)]
    events: Vec<EventType>,
}

impl From<&Endpoint> for Webhook {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            name: endpoint.name.clone(),
            url_host: endpoint.host.clone(),
            events: endpoint.states.iter().filter_map(|state| EventType::of(*state)).collect(),
        }
    }
}

/// What an event tells: that an upload has entered a final state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub enum EventType {
    /// Storage has the object, and it is what was declared.
    #[serde(rename = "upload.completed")]
    Completed,
    /// The object broke its policy or what was declared of it, and was deleted.
    #[serde(rename = "upload.rejected")]
    Rejected,
    /// Its time ran out.
    #[serde(rename = "upload.expired")]
    Expired,
    /// It was cancelled.
    #[serde(rename = "upload.cancelled")]
    Cancelled,
}

impl EventType {
    /// The event of entering a state; none, where the state is not final.
    const fn of(state: StateKind) -> Option<Self> {
        match state {
            StateKind::Pending | StateKind::Uploading => None,
            StateKind::Completed => Some(Self::Completed),
            StateKind::Rejected => Some(Self::Rejected),
            StateKind::Expired => Some(Self::Expired),
            StateKind::Cancelled => Some(Self::Cancelled),
        }
    }
}

/// What begins the id of an event; its upload's id follows.
const EVENT_PREFIX: &str = "evt_";

/// The upload whose end an event tells, if the text is the id of an event.
pub(super) fn upload_of(event_id: &str) -> Option<crate::model::id::UploadId> {
    event_id.strip_prefix(EVENT_PREFIX)?.parse().ok()
}

/// Deliveries that were given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct ParkedDeliveryList {
    #[schema(max_items = 200)]
    deliveries: Vec<ParkedDelivery>,
    /// Ask with this as `cursor` for what follows; left out at the end. A page can be short, or empty, and not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    next_cursor: Option<String>,
}

/// A delivery that was given up, and waits for a replay as long as its upload is known.
#[derive(Debug, Serialize, ToSchema)]
pub struct ParkedDelivery {
    /// The `webhook-id` of the event.
    #[schema(
        min_length = 38,
        max_length = 38,
        pattern = "^evt_[0-9a-f]{34}$",
        example = "evt_3f9a0c51e2b7d84f6011c3a5e79b2d40f8"
    )]
    event_id: String,
    /// The upload whose end was to be told.
    #[schema(
        min_length = 34,
        max_length = 34,
        pattern = "^[0-9a-f]{34}$",
        example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8"
    )]
    upload_id: String,
    r#type: EventType,
    /// Since when.
    #[schema(format = DateTime, example = "2026-11-22T10:03:00.000Z")]
    parked_at: String,
    /// How often it was tried.
    attempts: u32,
    /// How it failed last.
    #[schema(max_length = 255, example = "answered 503")]
    last_error: String,
}

impl From<&ParkedDeliveries> for ParkedDeliveryList {
    fn from(found: &ParkedDeliveries) -> Self {
        let deliveries = found.deliveries.iter().filter_map(|delivery| {
            let parked = &delivery.parked;
            Some(ParkedDelivery {
                event_id: format!("{EVENT_PREFIX}{}", parked.id),
                upload_id: parked.id.to_string(),
                r#type: EventType::of(delivery.state)?,
                parked_at: parked.since.to_string(),
                attempts: parked.failures.count,
                last_error: parked.failures.last.clone(),
            })
        });
        Self { deliveries: deliveries.collect(), next_cursor: found.next.map(|last| last.to_string()) }
    }
}

/// What a replay of all parked deliveries did.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayedAll {
    /// How many are due again.
    #[schema(maximum = 500)]
    replayed: u32,
    /// Whether there were more than one call takes: call again.
    remaining: bool,
}

impl From<Replayed> for ReplayedAll {
    fn from(Replayed { count, remaining }: Replayed) -> Self {
        Self { replayed: count, remaining }
    }
}
