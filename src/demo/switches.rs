//! `/demo/…`: what the page shows of the world, and what it switches in it.

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use hyper::body::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::globe::{Globe, Impossible};
use super::view::View;
use crate::geo::Country;

/// `GET /demo/world`, and a `PUT` for each switch, which answers with the world as it is then.
pub(super) fn router(globe: Arc<Globe>) -> Router {
    Router::new()
        .route("/demo/world", get(async |State(globe): State<Arc<Globe>>| Json(View::of(&globe))))
        .route("/demo/client", put(client))
        .route("/demo/network", put(network))
        .route("/demo/regions/{name}", put(region))
        .with_state(globe)
}

/// What cannot be.
struct Refusal(String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::BAD_REQUEST;
        let document = json!({"title": "this cannot be", "status": status.as_u16(), "detail": self.0});
        let mut response = (status, Json(document)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<Impossible> for Refusal {
    fn from(impossible: Impossible) -> Self {
        Self::because(&impossible)
    }
}

impl Refusal {
    fn because(reason: &impl Display) -> Self {
        Self(reason.to_string())
    }
}

/// Reads a body, of whatever media type it says that it is.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::because(&error))
}

type Answer = Result<Json<View>, Refusal>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    country: Country,
}

async fn client(State(globe): State<Arc<Globe>>, body: Bytes) -> Answer {
    let Client { country } = read(&body)?;
    globe.set_client(country);
    Ok(Json(View::of(&globe)))
}

async fn network(State(globe): State<Arc<Globe>>, body: Bytes) -> Answer {
    globe.set_weather(&read(&body)?)?;
    Ok(Json(View::of(&globe)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    running: bool,
}

async fn region(State(globe): State<Arc<Globe>>, Path(name): Path<String>, body: Bytes) -> Answer {
    let Region { running } = read(&body)?;
    globe.set_running(&name, running)?;
    Ok(Json(View::of(&globe)))
}
