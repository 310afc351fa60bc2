//! What stands around a broker: a metadata server, and a server with TLS that is issuer, receiver and broker in one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use upload_broker::emulator::OWN_ACCOUNT;

/// A token that must never be printed.
pub const TOKEN: &str = "ya29.s3cret-of-the-machine";

/// A metadata server of a machine in `zone`, whose account is the emulator's own.
pub struct Metadata {
    pub host: String,
    _task: AbortOnDropHandle<()>,
}

impl Metadata {
    pub async fn of(zone: &'static str) -> Self {
        let say = |text: String| {
            get(move |asked: HeaderMap| async move {
                let is_asked = asked.get("metadata-flavor").is_some_and(|value| value == "Google");
                let status = if is_asked { StatusCode::OK } else { StatusCode::FORBIDDEN };
                (status, [("metadata-flavor", "Google")], text)
            })
        };
        let token = json!({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"});
        let instance = Router::new()
            .route("/zone", say(format!("projects/1/zones/{zone}")))
            .route("/service-accounts/default/email", say(OWN_ACCOUNT.to_owned()))
            .route("/service-accounts/default/token", say(token.to_string()))
            .fallback(async || (StatusCode::NOT_FOUND, [("metadata-flavor", "Google")]));
        let router = Router::new().nest("/computeMetadata/v1/instance", instance);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { host, _task: AbortOnDropHandle::new(task) }
    }
}

/// A server with TLS on `localhost`: an issuer with discovery, and the broker of `us-east1`.
pub struct Outside {
    address: SocketAddr,
    /// Its certificate, which vouches for itself, and its key, in PEM. It is for `eu.uploads.example.com`, too.
    pub certificate: String,
    pub key: String,
    _task: AbortOnDropHandle<()>,
}

impl Outside {
    pub async fn start(keys: Value) -> Self {
        let names = ["localhost", "eu.uploads.example.com"].map(str::to_owned);
        let issued = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let json = |value: Value| get(async move || ([(header::CONTENT_TYPE, "application/json")], value.to_string()));
        let url = format!("https://localhost:{}", address.port());
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let router = Router::new()
            .route("/.well-known/openid-configuration", json(discovery.clone()))
            .route("/other/.well-known/openid-configuration", json(discovery))
            .route("/keys", json(keys))
            .route("/v1/route", json(json!({"region": "us-east1", "regions": [], "located_by": "none"})));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return Ok::<_, Infallible>(()) };
                    // Clients hang up as they like.
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                    Ok(())
                });
            }
        });
        let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
        Self { address, certificate, key, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}
