//! `/v1/uploads/{id}/events`: server-sent events (HTML standard, section 9.2).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;

use super::extract::{Caller, Deadline, Id};
use super::problem::{self, Problem};
use super::wire;
use crate::uploads::{Listener, Sight, Told, Uploads};

/// The route. The gate knows by it which requests are answered with events.
pub(super) const PATH: &str = "/v1/uploads/{id}/events";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Keeps nginx, and what learned from it, from collecting events before they are passed on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How a stream begins: when it breaks off, clients come back after two seconds. Also what proxies need to see before they
/// pass on that there is an answer.
const OPENING: &str = "retry: 2000\n\n";

/// A comment, which clients pass over.
const HEARTBEAT: &str = ":\n\n";

/// Watch an upload
///
/// Server-sent events. `state` comes first, when the state changes, and when another session has taken the place of the
/// upload's own; its data is an `Upload`, always without `transfer`: get the upload for that. `progress` comes when storage
/// has more of the bytes; its data is an `UploadProgress`. While nothing else is learned, storage is asked after ten
/// seconds, and more rarely the longer nothing comes. Where nothing happens there is a comment every 15 seconds, so that
/// silence means a lost connection.
///
/// Only what is newest is sent: a reader that is slow misses what is past. Each event has an `id`; given as
/// `Last-Event-ID`, a new stream does not repeat what is known, unless that is a final state. The stream ends with a final
/// state. It also ends with the token, after ten minutes, and when the broker restarts: then come back.
#[utoipa::path(
    get, path = "/v1/uploads/{id}/events", operation_id = "watchUpload", tag = "uploads",
    params(
        ("id" = String, Path, description = "The upload's id", min_length = 34, max_length = 34, pattern = "^[0-9a-f]{34}$", example = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was received. One that is not known is passed over.", max_length = 255, example = "2"),
    ),
    responses(
        (status = 200, description = "Events, until the upload is final", body = String, content_type = "text/event-stream", example = json!("retry: 2000\n\nid: 2\nevent: progress\ndata: {\"id\":\"3f9a0c51e2b7d84f6011c3a5e79b2d40f8\",\"received_bytes\":16777216,\"size_bytes\":73400320}\n\n")),
        (status = 404, description = "`not-found`", body = problem::Document, content_type = "application/problem+json"),
        (status = 429, description = "`quota-exceeded`: the caller has ten streams open at this instance", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn watch(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
    Deadline(deadline): Deadline,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    let listener = uploads.listen(&principal, id, seen, deadline).await?;
    let headers = [(CONTENT_TYPE, "text/event-stream"), (ACCEL_BUFFERING, "no")];
    Ok((headers, Body::new(Events::of(listener))).into_response())
}

/// The block of one event, or a comment.
fn block(told: &Told) -> String {
    match told {
        Told::State(sight) => event("state", sight, &wire::Upload::without_transfer(&sight.upload)),
        Told::Progress(sight) => event("progress", sight, &wire::UploadProgress::from(&*sight.upload)),
        Told::Heartbeat => HEARTBEAT.to_owned(),
    }
}

fn event(name: &str, sight: &Sight, data: &impl Serialize) -> String {
    // JSON has no line breaks of its own, so one line holds it.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("id: {}\nevent: {name}\ndata: {data}\n\n", sight.revision.number())
}

/// A body that is made as it is read: nothing is waited for, or kept, for a client that does not take it. Its listener's
/// seat does not wait for that client, either.
struct Events {
    opening: Option<Bytes>,
    next: Pin<Box<dyn Future<Output = Option<Step>> + Send>>,
}

/// One block, and who gives the next.
type Step = (Bytes, Listener);

impl Events {
    fn of(listener: Listener) -> Self {
        Self { opening: Some(Bytes::from_static(OPENING.as_bytes())), next: Box::pin(step(listener)) }
    }
}

async fn step(mut listener: Listener) -> Option<Step> {
    let told = listener.next().await?;
    Some((Bytes::from(block(&told)), listener))
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(opening) = self.opening.take() {
            return Poll::Ready(Some(Ok(Frame::data(opening))));
        }
        let step_taken = ready!(self.next.as_mut().poll(cx));
        let Some((bytes, listener)) = step_taken else {
            // A future that has ended must not be asked again.
            self.next = Box::pin(std::future::ready(None));
            return Poll::Ready(None);
        };
        self.next = Box::pin(step(listener));
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
