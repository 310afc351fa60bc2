//! Sends one request and reads its answer: trust, connections, and the bounds of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::endpoint::Endpoint;
use super::error::{OpenError, Outage};
use super::json::{Answer, Body, Request};

/// How long setting up a connection may take: a few round trips to anywhere on earth, and a lost packet.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest answer that is read. An object resource with all the metadata that storage allows is below 16 KiB.
const LONGEST_BODY: usize = 64 * 1024;

/// How many calls one connection carries at a time, HTTP/2 provided. Servers allow about a hundred streams.
const CALLS_PER_CLIENT: usize = 64;

/// Whom to trust, for storage and for token servers: the system's authorities and `trusted_ca`.
pub(super) fn trust(endpoint: &Endpoint, trusted_ca: &[CertificateDer<'static>]) -> Result<ClientConfig, OpenError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(OpenError::Trust)?;
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(trusted_ca.iter().cloned(), provider);
    match verifier {
        Ok(verifier) => {
            Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
        }
        // A system without any authority will do for a stand-in without TLS.
        Err(_) if endpoint.is_plain_loopback() && trusted_ca.is_empty() => {
            Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        }
        Err(error) => Err(OpenError::Trust(error)),
    }
}

/// Several clients in turn. One keeps a single HTTP/2 connection to storage, whose stream limit would hold up all calls
/// beyond a hundred; and a retry gets another connection than the try that failed.
pub(super) struct Clients {
    clients: Vec<reqwest::Client>,
    next: AtomicUsize,
}

impl Clients {
    /// Clients for up to `calls` calls at a time.
    pub(super) fn new(trust: &ClientConfig, user_agent: &str, calls: usize) -> Result<Self, OpenError> {
        let mut tls = trust.clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let build = |_| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(user_agent)
                // A 308 of storage is no redirect, and nothing that storage says may send a token elsewhere.
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                // Every call is decided on, and counted, by the caller.
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(CALLS_PER_CLIENT)
                .pool_idle_timeout(Duration::from_secs(60))
                // Finds out about a connection into nowhere while calls hang on it.
                .http2_keep_alive_interval(Duration::from_secs(5))
                .http2_keep_alive_timeout(Duration::from_secs(5))
                .http2_max_header_list_size(32 * 1024)
                .build()
                .map_err(OpenError::Client)
        };
        let clients = (0..calls.div_ceil(CALLS_PER_CLIENT)).map(build).collect::<Result<_, _>>()?;
        Ok(Self { clients, next: AtomicUsize::new(0) })
    }

    /// Sends `request` and reads the answer, at most 64 KiB of it. Takes as long as it takes: the caller has the clock.
    pub(super) async fn send(&self, request: &Request, bearer: Option<HeaderValue>) -> Result<Answer, Outage> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.clients.len();
        let mut outgoing = reqwest::Request::new(request.method.clone(), request.url.clone());
        outgoing.headers_mut().clone_from(&request.headers);
        if let Some(bearer) = bearer {
            outgoing.headers_mut().insert(reqwest::header::AUTHORIZATION, bearer);
        }
        if !request.body.is_empty() {
            *outgoing.body_mut() = Some(request.body.clone().into());
        }
        let mut response = self.clients[turn].execute(outgoing).await.map_err(outage)?;
        let body = read_body(&mut response).await.map_err(outage)?;
        Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
    }
}

/// The error without the address, whose query is a secret.
fn outage(error: reqwest::Error) -> Outage {
    let error = error.without_url();
    if error.is_connect() { Outage::NoConnection(error) } else { Outage::Broken(error) }
}

/// Reads a body as far as it is bearable.
pub(super) async fn read_body(response: &mut reqwest::Response) -> Result<Body, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LONGEST_BODY {
            return Ok(Body::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}
