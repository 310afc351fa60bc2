//! The HTTP interface: the only place that knows axum, JSON and status codes.

mod admin;
pub mod arrival;
pub mod docs;
mod events;
mod examples;
pub mod extract;
pub mod gate;
mod notifications;
pub mod observe;
pub mod openapi;
pub mod operations;
mod policies;
pub mod problem;
pub mod push;
pub mod readiness;
mod route;
mod schemas;
pub mod transfer;
mod uploads;
pub mod wire;
pub mod wire_admin;
pub mod wire_create;
pub mod wire_policies;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use observe::{Metrics, Observer, Tracing};

use self::arrival::TrustedProxies;
use self::extract::AllowedOrigins;
use self::gate::Gate;
use self::problem::{Code, Problem};
use self::push::Receiver;
use self::readiness::Readiness;
use crate::identity::Identity;
use crate::routing::Routing;
use crate::uploads::Uploads;

/// What handlers can be given. Each takes only what its signature names.
#[derive(Clone)]
pub struct Services {
    /// What can be done with uploads.
    pub uploads: Arc<Uploads>,
    /// Who is asking.
    pub identity: Arc<Identity>,
    /// Who takes notifications, where they are configured.
    pub receiver: Option<Arc<Receiver>>,
    /// The web origins that may use the broker.
    pub allowed_origins: AllowedOrigins,
    /// Whether a session can be handed out.
    pub readiness: Arc<Readiness>,
    /// Whose word on a client counts.
    pub trusted_proxies: TrustedProxies,
}

impl FromRef<Services> for Arc<Uploads> {
    fn from_ref(services: &Services) -> Self {
        Self::clone(&services.uploads)
    }
}

impl FromRef<Services> for Arc<Identity> {
    fn from_ref(services: &Services) -> Self {
        Self::clone(&services.identity)
    }
}

impl FromRef<Services> for Option<Arc<Receiver>> {
    fn from_ref(services: &Services) -> Self {
        services.receiver.clone()
    }
}

impl FromRef<Services> for AllowedOrigins {
    fn from_ref(services: &Services) -> Self {
        services.allowed_origins.clone()
    }
}

impl FromRef<Services> for Arc<Routing> {
    fn from_ref(services: &Services) -> Self {
        Self::clone(&services.uploads.routing)
    }
}

impl FromRef<Services> for Arc<Readiness> {
    fn from_ref(services: &Services) -> Self {
        Self::clone(&services.readiness)
    }
}

impl FromRef<Services> for TrustedProxies {
    fn from_ref(services: &Services) -> Self {
        services.trusted_proxies.clone()
    }
}

/// The public interface.
///
/// # Errors
/// When the OpenAPI document cannot be written, which a test rules out.
pub fn router(services: Services, gate: Gate, observer: Observer) -> Result<Router, serde_json::Error> {
    let cors = cors(&services.allowed_origins);
    let (operations, document) = openapi::operations();
    let page = docs::page(&document);
    let document = document.to_pretty_json()? + "\n";
    Ok(operations
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        // Only operations are behind the gate: it is about tokens and session URIs.
        .layer(from_fn_with_state(gate, gate::gate))
        .route("/openapi.json", get(async move || ([(CONTENT_TYPE, "application/json")], document.clone())))
        .route("/docs", get(async move || ([(CONTENT_TYPE, "text/html; charset=utf-8")], page.clone())))
        .fallback(async || Problem::new(Code::NotFound).detail("there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .with_state(services)
        // A preflight has no token and no body, so it is answered before the gate; refusals need a grant as well, or a
        // page could not read them.
        .layer(cors)
        .layer(CatchPanicLayer::custom(|panic: Box<dyn Any + Send>| {
            drop(panic);
            Problem::new(Code::InternalError).into_response()
        }))
        .layer(from_fn_with_state(observer, observe::observe)))
}

/// Grants the configured origins, and no other, what the interface needs (Fetch standard, section 3.2).
fn cors(AllowedOrigins(origins): &AllowedOrigins) -> CorsLayer {
    let header = HeaderName::from_static;
    let origins = origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, header("idempotency-key"), header("last-event-id")])
        .expose_headers([
            LOCATION,
            RETRY_AFTER,
            header("x-request-id"),
            header("idempotent-replayed"),
            header("ratelimit"),
            header("ratelimit-policy"),
        ])
        .max_age(Duration::from_secs(600))
}
