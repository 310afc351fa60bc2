//! `/v1/notifications/storage`: storage says that an object was made, and the broker looks.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;

use super::extract::Deadline;
use super::problem::{self, Problem};
use super::push::{self, Pusher};
use crate::uploads::Uploads;

/// Receive a storage notification
///
/// For Pub/Sub push subscriptions (wrapped messages) and Eventarc triggers, with an OpenID token of the configured service
/// account for the configured audience. The message is only a reason to look: the upload ends by what storage then shows.
/// `204` acknowledges, also what can never be used; everything else asks for the message to be sent again.
#[utoipa::path(
    post, path = "/v1/notifications/storage", operation_id = "receiveStorageNotification", tag = "notifications",
    security(("push" = [])),
    request_body(content(
        (push::StorageNotification = "application/json"),
        (push::StorageNotification = "application/cloudevents+json"),
    ), description = "A wrapped Pub/Sub message, an object resource with the event in `ce-` headers, or a CloudEvent; at most 1 MiB"),
    responses(
        (status = 204, description = "Acknowledged"),
        (status = 400, description = "`invalid-request`: the subscription unwraps its messages", body = problem::Document, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: another account, or a subscription that is not accepted; `https-required`", body = problem::Document, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`: notifications are not configured", body = problem::Document, content_type = "application/problem+json"),
        (status = 408, description = "`request-timeout`", body = problem::Document, content_type = "application/problem+json"),
        (status = 502, description = "`storage-error`", body = problem::Document, content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `identity-unavailable`, `overloaded`", body = problem::Document, content_type = "application/problem+json"),
        (status = 504, description = "`storage-timeout`", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn receive(
    State(uploads): State<Arc<Uploads>>,
    Pusher(receiver): Pusher,
    Deadline(deadline): Deadline,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (head, body) = request.into_parts();
    if let Some(notice) = receiver.read(&head.headers, body).await? {
        let noticed = uploads.notified(&notice, deadline).await;
        receiver.observe(&noticed);
        noticed?;
    }
    Ok(StatusCode::NO_CONTENT)
}
