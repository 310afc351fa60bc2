//! `/v1/uploads`: the handlers. Each parses, calls one operation and converts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use serde_json::Value;

use super::arrival::Arrived;
use super::extract::{Body, Caller, Deadline, Id, Origin, Query, RepeatKey};
use super::observe::AnsweredElsewhere;
use super::problem::{self, Code, Problem};
use super::wire;
use super::wire_create::CreateUpload;
use crate::model::Invalid;
use crate::model::idempotency::Fingerprint;
use crate::model::name::RegionName;
use crate::model::upload::NewUpload;
use crate::routing::{Arrival, Forward, Forwarded, Hop, Relay};
use crate::store::{Page, Tracked};
use crate::uploads::{CreateContext, Created, Creation, Freshness, Uploads};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How many uploads a page has when nothing is said.
const DEFAULT_PAGE: u32 = 50;

/// The most that a page can have.
const LARGEST_PAGE: u32 = 200;

/// Create an upload
///
/// Admits it by policy and limits, and hands out where the bytes go: a resumable session that it opens at storage, or a
/// URL that it signs. Send the bytes there, and say `complete`.
///
/// The broker may have had the nearest region create the upload: `location` is then an absolute URL, and all that
/// concerns this upload is asked there.
#[utoipa::path(
    post, path = "/v1/uploads", operation_id = "createUpload", tag = "uploads",
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats with the same key and body give the same upload, for 24 hours.", min_length = 1, max_length = 255, example = "8a6f0a6e-6f4f-4a3f-9d1c-2f2b7f1f6c11")),
    request_body = CreateUpload,
    responses(
        (status = 201, description = "The upload, with how to send its bytes", body = wire::Upload, headers(
            ("location" = String, description = "The upload's path; an absolute URL where another region has created it"),
            ("idempotent-replayed" = Option<String>, description = "`true` where an earlier request created the upload"),
        )),
        (status = 400, description = "`invalid-request`", body = problem::Document, content_type = "application/problem+json"),
        (status = 403, description = "`policy-denied`, `https-required`", body = problem::Document, content_type = "application/problem+json"),
        (status = 408, description = "`request-timeout`", body = problem::Document, content_type = "application/problem+json"),
        (status = 409, description = "`idempotency-in-progress`", body = problem::Document, content_type = "application/problem+json"),
        (status = 413, description = "`body-too-large`", body = problem::Document, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = problem::Document, content_type = "application/problem+json"),
        (status = 421, description = "`misdirected`", body = problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "`policy-violation`, `idempotency-mismatch`", body = problem::Document, content_type = "application/problem+json"),
        (status = 429, description = "`rate-limited`, `quota-exceeded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 502, description = "`storage-error`", body = problem::Document, content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `identity-unavailable`, `overloaded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 504, description = "`storage-timeout`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
    Deadline(deadline): Deadline,
    Origin(origin): Origin,
    RepeatKey(key): RepeatKey,
    Arrived { mut arrival, credentials }: Arrived,
    Body(body, bytes): Body<CreateUpload>,
) -> Result<Response, Problem> {
    let idempotency = key.map(|key| (key, Fingerprint::of(&body.canonical())));
    let request = NewUpload::try_from(body)?;
    let create = |arrival| {
        let context = CreateContext { idempotency, origin: origin.clone(), arrival, deadline };
        uploads.create(Arc::clone(&principal), request.clone(), context)
    };
    let mut creation = create(arrival).await?;
    if let Creation::Elsewhere { region, nearest, or_here } = &creation {
        let forward = Forward { headers: credentials, body: bytes, deadline, or_here: *or_here };
        if let Forwarded::Answered(relay) = uploads.routing.forward(region, forward).await {
            return Ok(pass_on(relay, nearest.as_ref(), &arrival));
        }
        arrival.hop = Hop::Back;
        creation = create(arrival).await?;
    }
    match creation {
        Creation::Here(created) => Ok(answer_created(&created)),
        // What has come back is not sent on again.
        Creation::Elsewhere { .. } => Err(Problem::new(Code::InternalError)),
    }
}

fn answer_created(created: &Created) -> Response {
    let location = format!("/v1/uploads/{}", created.tracked.upload.id);
    let upload = Json(wire::Upload::created(created));
    let mut response = (StatusCode::CREATED, [(LOCATION, location)], upload).into_response();
    if created.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The answer of another region, under the id that its logs know the request by. Where the client is, only this broker
/// knows, and says.
fn pass_on(relay: Relay, nearest: Option<&RegionName>, arrival: &Arrival) -> Response {
    let body = match serde_json::from_slice::<Value>(&relay.body) {
        Ok(Value::Object(mut upload)) if relay.status == StatusCode::CREATED => {
            if let Some(Value::Object(routing)) = upload.get_mut("routing") {
                wire::Routing::complete(routing, nearest, arrival);
            }
            Bytes::from(Value::Object(upload).to_string())
        }
        _ => relay.body,
    };
    let mut response = (relay.status, relay.headers, body).into_response();
    if let Some(id) = relay.request_id {
        response.extensions_mut().insert(AnsweredElsewhere(id));
    }
    response
}

/// List uploads
///
/// The caller's own, newest first.
#[utoipa::path(
    get, path = "/v1/uploads", operation_id = "listUploads", tag = "uploads",
    params(wire::ListQuery),
    responses(
        (status = 200, description = "A page of uploads", body = wire::UploadList),
        (status = 400, description = "`invalid-request`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
    Query(query): Query<wire::ListQuery>,
) -> Result<Json<wire::UploadList>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::invalid_field("limit", &Invalid(format!("a page has 1 to {LARGEST_PAGE} uploads"))));
    }
    let after = query.cursor.as_deref().map(str::parse).transpose();
    let page = Page {
        after: after.map_err(|reason| Problem::invalid_field("cursor", &reason))?,
        limit: limit as usize,
        state: query.state.map(wire::State::kind),
    };
    let listing = uploads.list(&principal, &page).await?;
    Ok(Json(wire::UploadList::from(&listing)))
}

/// Get an upload
///
/// As the broker knows it, or with what storage has at this moment.
#[utoipa::path(
    get, path = "/v1/uploads/{id}", operation_id = "getUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload's id", min_length = 34, max_length = 34, pattern = "^[0-9a-f]{34}$", example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8"), wire::GetQuery),
    responses(
        (status = 200, description = "The upload", body = wire::Upload),
        (status = 400, description = "`invalid-request`", body = problem::Document, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`", body = problem::Document, content_type = "application/problem+json"),
        (status = 502, description = "`storage-error`", body = problem::Document, content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `identity-unavailable`, `overloaded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 504, description = "`storage-timeout`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
    Deadline(deadline): Deadline,
    Id(id): Id,
    Query(query): Query<wire::GetQuery>,
) -> Result<Json<wire::Upload>, Problem> {
    let freshness = if query.refresh { Freshness::Refreshed } else { Freshness::Known };
    let tracked = uploads.find(&principal, id, freshness, deadline).await?;
    Ok(answer(&tracked))
}

/// Complete an upload
///
/// The client says that it is done; the broker asks storage, checks the object against what was declared, and
/// answers with the upload `completed` or `rejected`.
#[utoipa::path(
    post, path = "/v1/uploads/{id}/complete", operation_id = "completeUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload's id", min_length = 34, max_length = 34, pattern = "^[0-9a-f]{34}$", example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8")),
    responses(
        (status = 200, description = "The upload, `completed` or `rejected`", body = wire::Upload),
        (status = 404, description = "`not-found`", body = problem::Document, content_type = "application/problem+json"),
        (status = 409, description = "`not-complete`, `session-lost`, `invalid-state`", body = problem::Document, content_type = "application/problem+json"),
        (status = 502, description = "`storage-error`", body = problem::Document, content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `identity-unavailable`, `overloaded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 504, description = "`storage-timeout`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn complete(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
    Deadline(deadline): Deadline,
    Id(id): Id,
) -> Result<Json<wire::Upload>, Problem> {
    Ok(answer(&uploads.complete(&principal, id, deadline).await?))
}

/// Renew an upload
///
/// A new session, or a new signed URL, for the same upload: when storage answers 404 or 410, when the URL has ended, or when
/// the page that uploads has another origin now. The old session is asked first, since it may have finished: the upload
/// then comes back final, without a transfer. Else it is cancelled, and what it had received is lost: begin at byte 0.
#[utoipa::path(
    post, path = "/v1/uploads/{id}/renew", operation_id = "renewUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload's id", min_length = 34, max_length = 34, pattern = "^[0-9a-f]{34}$", example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8")),
    responses(
        (status = 200, description = "The upload, with how to send its bytes unless it is final", body = wire::Upload),
        (status = 404, description = "`not-found`", body = problem::Document, content_type = "application/problem+json"),
        (status = 409, description = "`invalid-state`: the upload is final, or its first session was never opened", body = problem::Document, content_type = "application/problem+json"),
        (status = 421, description = "`misdirected`: another region took the upload", body = problem::Document, content_type = "application/problem+json"),
        (status = 502, description = "`storage-error`", body = problem::Document, content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `identity-unavailable`, `overloaded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 504, description = "`storage-timeout`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn renew(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
    Deadline(deadline): Deadline,
    Origin(origin): Origin,
    Id(id): Id,
) -> Result<Json<wire::Upload>, Problem> {
    Ok(answer(&uploads.renew(&principal, id, origin.as_deref(), deadline).await?))
}

/// Cancel an upload
///
/// The session is revoked at storage, and what was reserved is free. An upload that was final before stays as it was.
#[utoipa::path(
    delete, path = "/v1/uploads/{id}", operation_id = "cancelUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload's id", min_length = 34, max_length = 34, pattern = "^[0-9a-f]{34}$", example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8")),
    responses(
        (status = 200, description = "The upload as it then is", body = wire::Upload),
        (status = 404, description = "`not-found`", body = problem::Document, content_type = "application/problem+json"),
        (status = 502, description = "`storage-error`", body = problem::Document, content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `identity-unavailable`, `overloaded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 504, description = "`storage-timeout`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
    Deadline(deadline): Deadline,
    Id(id): Id,
) -> Result<Json<wire::Upload>, Problem> {
    Ok(answer(&uploads.cancel(&principal, id, deadline).await?))
}

/// The upload as its owner sees it.
fn answer(tracked: &Tracked) -> Json<wire::Upload> {
    Json(wire::Upload::for_owner(tracked))
}
