//! The second listener, which is not public: probes and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::readiness::Readiness;
use crate::uploads::Uploads;

/// What the operators' listener shows.
pub struct Operations {
    /// The service, whose listeners are told when it ends.
    pub uploads: Arc<Uploads>,
    /// Whether a session can be handed out.
    pub readiness: Arc<Readiness>,
    /// Everything that is counted.
    pub registry: Registry,
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn router(operations: Arc<Operations>) -> Router {
    Router::new()
        .route("/livez", get(async || Json(Report { status: "alive", reasons: Vec::new() })))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .with_state(operations)
}

/// Like the public listener's, without an id: operators' requests are not logged.
async fn nothing() -> Response {
    let problem = serde_json::json!({
        "type": "urn:upload-broker:problem:not-found",
        "title": "There is nothing here",
        "status": 404,
        "detail": "operators find /livez, /readyz and /metrics here",
        "code": "not-found",
    });
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// Ready is who can hand out a session now: a load balancer or geo-DNS leaves the region otherwise.
async fn ready(State(operations): State<Arc<Operations>>) -> Response {
    let obstacles = operations.readiness.obstacles().await;
    let reasons: Vec<_> = obstacles.iter().map(ToString::to_string).collect();
    if reasons.is_empty() {
        Json(Report { status: "ready", reasons }).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(Report { status: "not ready", reasons })).into_response()
    }
}

async fn metrics(State(operations): State<Arc<Operations>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &operations.registry) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
