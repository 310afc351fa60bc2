//! The demo's own site: a development issuer, found by OpenID discovery as a real one would be, the page that uploads with
//! its tokens, and what the page switches.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::globe::Globe;
use super::switches;
use crate::clock::Clock;
use crate::identity::development::DevelopmentKey;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// The page: path, media type and text of each of its files.
const PAGES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/page.html")),
    ("/page.css", CSS, include_str!("page/page.css")),
    ("/icon.svg", ICON, include_str!("page/icon.svg")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/broker.js", SCRIPT, include_str!("page/broker.js")),
    ("/card.js", SCRIPT, include_str!("page/card.js")),
    ("/client.js", SCRIPT, include_str!("page/client.js")),
    ("/crc32c-worker.js", SCRIPT, include_str!("page/crc32c-worker.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/events.js", SCRIPT, include_str!("page/events.js")),
    ("/geography.js", SCRIPT, include_str!("page/geography.js")),
    ("/job.js", SCRIPT, include_str!("page/job.js")),
    ("/land.js", SCRIPT, include_str!("page/land.js")),
    ("/list.js", SCRIPT, include_str!("page/list.js")),
    ("/map.js", SCRIPT, include_str!("page/map.js")),
    ("/network.js", SCRIPT, include_str!("page/network.js")),
    ("/pending.js", SCRIPT, include_str!("page/pending.js")),
    ("/policies.js", SCRIPT, include_str!("page/policies.js")),
    ("/reasons.js", SCRIPT, include_str!("page/reasons.js")),
    ("/regions.js", SCRIPT, include_str!("page/regions.js")),
    ("/samples.js", SCRIPT, include_str!("page/samples.js")),
    ("/uploads.js", SCRIPT, include_str!("page/uploads.js")),
    ("/words.js", SCRIPT, include_str!("page/words.js")),
    ("/world.js", SCRIPT, include_str!("page/world.js")),
];

/// The page may speak to this site, to the brokers, and to storage, whose addresses these give it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; worker-src 'self'; \
                      connect-src 'self' http://127.0.0.1:*; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A site that gives a token to whoever asks for one on this machine.
pub(super) struct Site {
    listener: Option<TcpListener>,
    issuer: Arc<Issuer>,
}

struct Issuer {
    key: DevelopmentKey,
    address: SocketAddr,
}

impl Site {
    pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let issuer = Arc::new(Issuer { key: DevelopmentKey::generate()?, address });
        Ok(Self { listener: Some(listener), issuer })
    }

    pub(super) fn url(&self) -> String {
        self.issuer.url()
    }

    /// What a browser calls this site, by either of its names.
    pub(super) fn origins(&self) -> Vec<String> {
        vec![self.url(), format!("http://localhost:{}", self.issuer.address.port())]
    }

    pub(super) fn token(&self, subject: &str) -> anyhow::Result<String> {
        self.issuer.token(subject)
    }

    /// Serves key set, tokens, page and switches until `stop` is cancelled. A second call does nothing.
    pub(super) fn serve(&mut self, globe: &Arc<Globe>, stop: CancellationToken) {
        let Some(listener) = self.listener.take() else { return };
        let issuer = Arc::clone(&self.issuer);
        let mut router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(async |State(issuer): State<Arc<Issuer>>| Json(issuer.key.key_set())))
            .route("/token", get(token))
            .with_state(Arc::clone(&issuer))
            .merge(switches::router(Arc::clone(globe)));
        for &(path, kind, text) in PAGES {
            router = router.route(path, get(async move || asset(kind, text)));
        }
        let router = router.layer(from_fn_with_state(issuer, guard));
        tokio::spawn(async move {
            // The demo is for this machine alone, so the plain server will do here.
            let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "the demo's page is not served any more");
            }
        });
    }
}

impl Issuer {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn token(&self, subject: &str) -> anyhow::Result<String> {
        let now = Clock::System.now().as_secs();
        let claims = Map::from_iter([
            ("iss".to_owned(), Value::from(self.url())),
            ("aud".to_owned(), Value::from("demo")),
            ("sub".to_owned(), Value::from(subject)),
            ("iat".to_owned(), Value::from(now)),
            ("exp".to_owned(), Value::from(now + 3600)),
            ("roles".to_owned(), json!(["creator"])),
        ]);
        Ok(self.key.sign(&claims)?)
    }
}

/// Lets in the demo's own page and programs on this machine. A foreign page that had its name point here would bear that
/// name.
async fn guard(State(issuer): State<Arc<Issuer>>, request: Request, next: Next) -> Response {
    let port = issuer.address.port();
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if host != format!("127.0.0.1:{port}") && host != format!("localhost:{port}") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn discovery(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let url = issuer.url();
    Json(json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

#[derive(Deserialize)]
struct TokenQuery {
    sub: String,
}

/// A token for whoever asks.
async fn token(State(issuer): State<Arc<Issuer>>, Query(query): Query<TokenQuery>) -> Response {
    match issuer.token(&query.sub) {
        Ok(token) => asset("text/plain; charset=utf-8", token),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn asset(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
