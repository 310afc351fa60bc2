//! `/v1/admin`: the handlers for administrators. Each parses, calls one operation and converts.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::extract::{Administrator, Deadline, Id, Query};
use super::problem::{self, Code, FieldError, Problem};
use super::wire::{Upload, UploadList};
use super::wire_admin::{
    AdminListQuery, ParkedDeliveryList, ParkedQuery, ReplayedAll, UsageBy, UsageEntry, UsageList, UsageQuery, Webhook,
    WebhookList, upload_of,
};
use crate::model::Invalid;
use crate::uploads::{Endpoint, MOST_PRINCIPALS, Place, Selection, SumBy, Uploads, Whom, sums};

/// How many uploads or deliveries a page has when nothing is said.
const DEFAULT_PAGE: usize = 50;

/// The most that a page can have.
const LARGEST_PAGE: usize = 200;

/// How many principals are looked at for a page of usage when nothing is said.
const DEFAULT_PRINCIPALS: usize = 500;

/// List anybody's uploads
///
/// By principal, in an order that means nothing; of each principal newest first. What is created during a walk over the
/// pages by a principal that was passed already is not among them.
#[utoipa::path(
    get, path = "/v1/admin/uploads", operation_id = "adminListUploads", tag = "admin",
    params(AdminListQuery),
    responses(
        (status = 200, description = "A page of uploads, each with its `owner` and none with a `transfer`", body = UploadList),
        (status = 400, description = "`invalid-request`", body = problem::Document, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(uploads): State<Arc<Uploads>>,
    Administrator(administrator): Administrator,
    Query(query): Query<AdminListQuery>,
) -> Result<Json<UploadList>, Problem> {
    let selection = Selection {
        whom: Whom { issuer: query.issuer, tenant: query.tenant, subject: query.subject },
        policy: parsed("policy", query.policy.as_deref())?,
        state: query.state.map(super::wire::State::kind),
        limit: limit(query.limit, DEFAULT_PAGE, LARGEST_PAGE)?,
    };
    let from = place(query.cursor.as_deref(), &selection.whom)?;
    let listing = uploads.list_any(&administrator, &selection, from).await?;
    let next = listing.next.map(|next| next.to_string());
    Ok(Json(UploadList::new(listing.uploads.iter().map(Upload::for_administrator).collect(), next)))
}

/// Get anybody's upload
///
/// As the broker knows it: storage is not asked.
#[utoipa::path(
    get, path = "/v1/admin/uploads/{id}", operation_id = "adminGetUpload", tag = "admin",
    params(("id" = String, Path, description = "The upload's id", min_length = 34, max_length = 34, pattern = "^[0-9a-f]{34}$", example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8")),
    responses(
        (status = 200, description = "The upload, with its `owner` and without a `transfer`", body = Upload),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(uploads): State<Arc<Uploads>>,
    Administrator(administrator): Administrator,
    Deadline(deadline): Deadline,
    Id(id): Id,
) -> Result<Json<Upload>, Problem> {
    Ok(Json(Upload::for_administrator(&uploads.find_any(&administrator, id, deadline).await?)))
}

/// Cancel anybody's upload
///
/// As its owner would: the session is revoked at storage, and what was reserved is free. An upload that was final before
/// stays as it was.
#[utoipa::path(
    delete, path = "/v1/admin/uploads/{id}", operation_id = "adminCancelUpload", tag = "admin",
    params(("id" = String, Path, description = "The upload's id", min_length = 34, max_length = 34, pattern = "^[0-9a-f]{34}$", example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8")),
    responses(
        (status = 200, description = "The upload as it then is", body = Upload),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`", body = problem::Document, content_type = "application/problem+json"),
        (status = 502, description = "`storage-error`", body = problem::Document, content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `identity-unavailable`, `overloaded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 504, description = "`storage-timeout`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    State(uploads): State<Arc<Uploads>>,
    Administrator(administrator): Administrator,
    Deadline(deadline): Deadline,
    Id(id): Id,
) -> Result<Json<Upload>, Problem> {
    Ok(Json(Upload::for_administrator(&uploads.cancel_any(&administrator, id, deadline).await?)))
}

/// Tell who uses how much
///
/// A page is made of some principals, up to `limit`, and rows that use nothing are left out. Sums are of the principals of
/// their page alone, and each principal is on one page: add the rows of all pages up. Policies that the configuration has
/// no more are left out, also while uploads that they admitted are under way: `GET /v1/admin/uploads?policy=NAME` lists these.
#[utoipa::path(
    get, path = "/v1/admin/usage", operation_id = "adminUsage", tag = "admin",
    params(UsageQuery),
    responses(
        (status = 200, description = "What is used", body = UsageList),
        (status = 400, description = "`invalid-request`", body = problem::Document, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn usage(
    State(uploads): State<Arc<Uploads>>,
    Administrator(administrator): Administrator,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageList>, Problem> {
    let whom = Whom { issuer: query.issuer, tenant: query.tenant, subject: query.subject };
    let policy = parsed("policy", query.policy.as_deref())?;
    let limit = limit(query.limit, DEFAULT_PRINCIPALS, MOST_PRINCIPALS)?;
    let after = match place(query.cursor.as_deref(), &whom)? {
        Some(Place { within: Some(_), .. }) => return Err(foreign_cursor().into()),
        place => place.map(|place| place.principal),
    };
    let page = uploads.usage(&administrator, &whom, policy.as_ref(), after, limit).await?;
    let summed = |by| sums(&page.rows, by).into_iter().map(UsageEntry::from).collect();
    let rows = match query.by {
        UsageBy::Principal => page.rows.iter().map(UsageEntry::from).collect(),
        UsageBy::Tenant => summed(SumBy::Tenant),
        UsageBy::Policy => summed(SumBy::Policy),
    };
    Ok(Json(UsageList { rows, next_cursor: page.next.map(|next| next.to_string()) }))
}

/// List webhooks
///
/// The endpoints of the configuration, without what of their addresses may be secret.
#[utoipa::path(
    get, path = "/v1/admin/webhooks", operation_id = "adminListWebhooks", tag = "admin",
    responses(
        (status = 200, description = "The webhooks", body = WebhookList),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn webhooks(State(uploads): State<Arc<Uploads>>, _administrator: Administrator) -> Json<WebhookList> {
    Json(WebhookList { webhooks: uploads.endpoints.iter().map(Webhook::from).collect() })
}

/// List parked deliveries
///
/// Those to one webhook that were given up: they were tried for as long as deliveries are.
#[utoipa::path(
    get, path = "/v1/admin/webhooks/{name}/parked", operation_id = "adminListParkedDeliveries", tag = "admin",
    params(("name" = String, Path, description = "The webhook's name", min_length = 1, max_length = 64, pattern = "^[a-z0-9._-]+$", example = "backend.example.com"), ParkedQuery),
    responses(
        (status = 200, description = "A page of deliveries", body = ParkedDeliveryList),
        (status = 400, description = "`invalid-request`", body = problem::Document, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`: there is no such webhook", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn parked(
    State(uploads): State<Arc<Uploads>>,
    Administrator(administrator): Administrator,
    name: Result<Path<String>, PathRejection>,
    Query(query): Query<ParkedQuery>,
) -> Result<Json<ParkedDeliveryList>, Problem> {
    let endpoint = endpoint(&uploads, name.as_deref().map(String::as_str).ok()).ok_or_else(no_webhook)?;
    let limit = limit(query.limit, DEFAULT_PAGE, LARGEST_PAGE)?;
    let after = query.cursor.as_deref().map(str::parse).transpose().map_err(|_| foreign_cursor())?;
    Ok(Json(ParkedDeliveryList::from(&uploads.parked(&administrator, endpoint, after, limit).await?)))
}

/// Replay a parked delivery
///
/// It is due again at once, as if it had never been tried.
#[utoipa::path(
    post, path = "/v1/admin/webhooks/{name}/parked/{event_id}/replay", operation_id = "adminReplayDelivery", tag = "admin",
    params(
        ("name" = String, Path, description = "The webhook's name", min_length = 1, max_length = 64, pattern = "^[a-z0-9._-]+$", example = "backend.example.com"),
        ("event_id" = String, Path, description = "The event's id", min_length = 38, max_length = 38, pattern = "^evt_[0-9a-f]{34}$", example = "evt_3f9a0c51e2b7d84f6011c3a5e79b2d40f8"),
    ),
    responses(
        (status = 202, description = "It will be delivered"),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`: there is no such webhook, or the delivery is not parked", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn replay(
    State(uploads): State<Arc<Uploads>>,
    Administrator(administrator): Administrator,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let path = path.as_deref().ok();
    let endpoint = endpoint(&uploads, path.map(|(name, _)| &**name)).ok_or_else(no_webhook)?;
    let is_replayed = match path.and_then(|(_, event_id)| upload_of(event_id)) {
        Some(id) => uploads.replay(&administrator, endpoint, id).await?,
        None => false,
    };
    let missing = || Problem::new(Code::NotFound).detail("there is no such parked delivery");
    if is_replayed { Ok(StatusCode::ACCEPTED) } else { Err(missing()) }
}

/// Replay all parked deliveries
///
/// Those to one webhook, up to 500 in one call: call again while there are `remaining` ones. After a 5xx some of them may be
/// on their way; call again then, too.
#[utoipa::path(
    post, path = "/v1/admin/webhooks/{name}/replay", operation_id = "adminReplayAllDeliveries", tag = "admin",
    params(("name" = String, Path, description = "The webhook's name", min_length = 1, max_length = 64, pattern = "^[a-z0-9._-]+$", example = "backend.example.com")),
    responses(
        (status = 202, description = "How many will be delivered", body = ReplayedAll),
        (status = 403, description = "`forbidden`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`: there is no such webhook", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn replay_all(
    State(uploads): State<Arc<Uploads>>,
    Administrator(administrator): Administrator,
    name: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<ReplayedAll>), Problem> {
    let endpoint = endpoint(&uploads, name.as_deref().map(String::as_str).ok()).ok_or_else(no_webhook)?;
    let replayed = uploads.replay_all(&administrator, endpoint).await?;
    Ok((StatusCode::ACCEPTED, Json(ReplayedAll::from(replayed))))
}

/// The webhook that a path names. What is no text names none.
fn endpoint<'a>(uploads: &'a Uploads, name: Option<&str>) -> Option<&'a Endpoint> {
    uploads.endpoint(name?)
}

fn no_webhook() -> Problem {
    Problem::new(Code::NotFound).detail("there is no such webhook")
}

fn limit(given: Option<u32>, default: usize, largest: usize) -> Result<usize, FieldError> {
    let limit = given.map_or(default, |limit| limit as usize);
    if (1..=largest).contains(&limit) { Ok(limit) } else { Err(wrong("limit", format!("must be from 1 to {largest}"))) }
}

fn parsed<T: std::str::FromStr<Err = Invalid>>(parameter: &str, text: Option<&str>) -> Result<Option<T>, FieldError> {
    text.map(str::parse).transpose().map_err(|reason: Invalid| wrong(parameter, reason.0))
}

/// Where a walk over principals goes on. One that is about one principal goes on nowhere else.
fn place(cursor: Option<&str>, whom: &Whom) -> Result<Option<Place>, FieldError> {
    let place: Option<Place> = parsed("cursor", cursor)?;
    match (place, whom.one()) {
        (Some(place), Some(one)) if place.principal != one.principal => Err(foreign_cursor()),
        _ => Ok(place),
    }
}

fn foreign_cursor() -> FieldError {
    wrong("cursor", "the cursor is none that this service gave out for this".to_owned())
}

fn wrong(parameter: &str, detail: String) -> FieldError {
    FieldError { pointer: parameter.to_owned(), detail }
}

#[cfg(test)]
#[cfg(feature = "demo")]
mod tests;
