//! A development issuer, found by OpenID discovery as a real one would be, and the page that uploads with its tokens.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::identity::development::DevelopmentKey;

/// An issuer that gives a token to whoever asks for one on this machine.
pub(super) struct Issuer {
    listener: std::sync::Mutex<Option<TcpListener>>,
    shared: Arc<Shared>,
}

struct Shared {
    key: DevelopmentKey,
    address: SocketAddr,
}

#[derive(Clone)]
struct Site {
    shared: Arc<Shared>,
    broker: String,
}

impl Issuer {
    pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { key: DevelopmentKey::generate()?, address });
        Ok(Self { listener: std::sync::Mutex::new(Some(listener)), shared })
    }

    pub(super) fn url(&self) -> String {
        self.shared.url()
    }

    /// What a browser calls this site, by either of its names.
    pub(super) fn origins(&self) -> Vec<String> {
        vec![self.url(), format!("http://localhost:{}", self.shared.address.port())]
    }

    pub(super) fn token(&self, subject: &str) -> anyhow::Result<String> {
        self.shared.token(subject)
    }

    /// Serves key set, tokens and page until `stop` is cancelled. A second call does nothing.
    pub(super) fn serve(&self, broker: String, stop: CancellationToken) {
        let listener = self.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(listener) = listener else { return };
        let site = Site { shared: Arc::clone(&self.shared), broker };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(async |State(site): State<Site>| Json(site.shared.key.key_set())))
            .route("/token", get(token))
            .route("/", get(page))
            .route("/page.js", get(async || asset("text/javascript; charset=utf-8", include_str!("page/page.js"))))
            .route("/page.css", get(async || asset("text/css; charset=utf-8", include_str!("page/page.css"))))
            .with_state(site);
        tokio::spawn(async move {
            // The demo is for this machine alone, so the plain server will do here.
            let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "the demo's page is not served any more");
            }
        });
    }
}

impl Shared {
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

async fn discovery(State(site): State<Site>) -> Json<Value> {
    let issuer = site.shared.url();
    Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

#[derive(Deserialize)]
struct TokenQuery {
    sub: String,
}

/// A token for whoever asks, if it is the demo's own page or a program on this machine that asks.
async fn token(State(site): State<Site>, Query(query): Query<TokenQuery>, headers: HeaderMap) -> Response {
    // A foreign page that had its name point here would bear that name.
    let port = site.shared.address.port();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if host != format!("127.0.0.1:{port}") && host != format!("localhost:{port}") {
        return StatusCode::FORBIDDEN.into_response();
    }
    match site.shared.token(&query.sub) {
        Ok(token) => asset("text/plain; charset=utf-8", token),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn page(State(site): State<Site>) -> Response {
    // The page may speak to this site, to the broker, and to storage, whose address the broker gives it.
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' http://127.0.0.1:*; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let html = include_str!("page/page.html").replace("BROKER_URL", &site.broker);
    let mut response = asset("text/html; charset=utf-8", html);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn asset(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
