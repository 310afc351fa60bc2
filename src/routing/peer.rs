//! The broker of another region: asked whether it is up, and to take an upload.
//!
//! It is one of the configuration, over HTTPS. What it answers is read within bounds and believed as little as need be:
//! of its headers a short list is passed on, and an answer that no broker gives is a failure.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use reqwest::header::{self, ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Certificate, Client, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::metrics::ForwardResult;
use crate::geo::{Health, Probe, Switch};
use crate::model::chain;
use crate::model::name::RegionName;
use crate::model::time::Timestamp;
use crate::telemetry::trace;

/// The region whose broker has sent a request on: it is not sent on once more.
///
/// Anybody can send it, and gains nothing but to be served where they are, if the policy allows that.
pub const FORWARDED: HeaderName = HeaderName::from_static("x-upload-broker-forwarded");

/// How long a connection to another region may take to open: a few round trips to anywhere on earth, and a lost packet.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long a probe waits for its answer.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// How long a forward may take. A create takes a few hundred milliseconds and the way there and back; half of the time of
/// most clients is then left for doing it here.
const FORWARD_TIME: Duration = Duration::from_secs(5);

/// How many forwards to one region may be under way. A broker takes 128 streams on a connection, and of ours there is
/// one; and while it hangs, those who wait for it must not fill this broker. One more is served here at once.
const AT_ONCE: usize = 100;

/// The longest answer that is read. An upload with all its metadata and its session is below 32 KiB.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What of an answer's headers reaches the client, beside its body.
const PASSED_ON: [HeaderName; 6] = [
    CONTENT_TYPE,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
    HeaderName::from_static("idempotent-replayed"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A client for brokers.
pub(super) fn client(trusted_ca: Vec<Certificate>, user_agent: &str) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_certs_merge(trusted_ca)
        .user_agent(user_agent)
        // A user's token goes where the configuration says, and nowhere else.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        // A create that was perhaps carried out is repeated by whoever has its idempotency key.
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIME)
        .pool_idle_timeout(Duration::from_secs(60))
        // Finds out about a connection into nowhere, which all forwards would share.
        .http2_keep_alive_interval(PROBE_TIME)
        .http2_keep_alive_timeout(PROBE_TIME)
        .http2_max_header_list_size(16 * 1024)
        .build()
}

/// A create request on its way to another region.
pub struct Forward {
    /// The user's token, idempotency key and origin, as they were sent.
    pub headers: HeaderMap,
    /// The body, as it was sent.
    pub body: Bytes,
    /// When the client stops waiting.
    pub deadline: Instant,
    /// Whether the upload may be here should it not be taken there.
    pub or_here: bool,
}

/// What came of a forward.
pub enum Forwarded {
    /// The broker has decided: what it said is the answer.
    Answered(Relay),
    /// It could not decide. It may have taken the upload all the same.
    Failed,
}

/// An answer to be passed on.
pub struct Relay {
    /// 201, or the status of a refusal.
    pub status: StatusCode,
    /// The headers that the client gets, among them the absolute `location` of the upload.
    pub headers: HeaderMap,
    /// An upload, or a problem document.
    pub body: Bytes,
    /// What the request is called in the logs of the broker that answered.
    pub request_id: Option<HeaderValue>,
}

/// The broker of one other region.
pub(super) struct Peer {
    pub(super) name: RegionName,
    url: Url,
    health: Mutex<Health>,
    /// The same in short, for whoever has no time.
    up: AtomicBool,
    permits: Semaphore,
}

/// Why a broker takes no uploads, or none for its region.
#[derive(Debug)]
pub enum Unready {
    /// It is a broker, and gave this code.
    Refused(String),
    /// Something answered with this status, and says of no broker why.
    Answered(StatusCode),
    /// It is the broker of that region.
    Other(RegionName),
    /// What answered is no broker.
    Stranger,
    /// Nothing came in time.
    TimedOut,
    /// There was no connection, or it broke.
    NoConnection(reqwest::Error),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "it takes no uploads: {code}"),
            Self::Answered(status) => write!(f, "what answers gave {}, as no broker does", status.as_u16()),
            Self::Other(region) => write!(f, "it is the broker of {region}"),
            Self::Stranger => f.write_str("what answers there is no broker"),
            Self::TimedOut => f.write_str("it did not answer in time"),
            Self::NoConnection(error) => write!(f, "there was no connection: {}", chain(error)),
        }
    }
}

/// Asks the broker at `url` whose it is: `GET /v1/route`, which needs no token, and which only a broker that is ready answers
/// with 200.
///
/// # Errors
/// Why it takes no uploads, as far as that can be said, after two seconds at the latest.
pub async fn region_of(client: &Client, broker: &Url) -> Result<RegionName, Unready> {
    #[derive(Deserialize)]
    struct List {
        region: RegionName,
    }
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
    }
    let url = broker.join("/v1/route").map_err(|_| Unready::Stranger)?;
    let asking = async {
        let mut response = client.get(url).header(ACCEPT, "application/json").send().await?;
        let body = read(&mut response).await?;
        Ok((response.status(), body.unwrap_or_default()))
    };
    let answered: Result<_, reqwest::Error> =
        tokio::time::timeout(PROBE_TIME, asking).await.map_err(|_| Unready::TimedOut)?;
    let (status, body) = answered.map_err(|error| {
        if error.is_timeout() { Unready::TimedOut } else { Unready::NoConnection(error.without_url()) }
    })?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map(|List { region }| region).map_err(|_| Unready::Stranger);
    }
    match serde_json::from_slice(&body) {
        Ok(Refusal { code }) if status == StatusCode::SERVICE_UNAVAILABLE && is_word(&code) => {
            Err(Unready::Refused(code))
        }
        _ => Err(Unready::Answered(status)),
    }
}

/// Whether it can be the code of a problem document, and so be repeated.
fn is_word(code: &str) -> bool {
    code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

impl Peer {
    pub(super) fn new(name: RegionName, url: Url) -> Self {
        Self { name, url, health: Mutex::default(), up: AtomicBool::new(true), permits: Semaphore::new(AT_ONCE) }
    }

    /// Whether it is the broker of that region, at that address.
    pub(super) fn is_at(&self, region: &RegionName, url: &Url) -> bool {
        self.name == *region && self.url == *url
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Takes in what a probe found.
    pub(super) fn observe(&self, passed: bool, now: Timestamp) -> Option<Switch> {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let switch = health.observe(if passed { Probe::Passed } else { Probe::Failed }, now);
        self.up.store(health.is_up(), Ordering::Relaxed);
        switch
    }

    /// Asks whether it takes uploads, as the broker of its region.
    pub(super) async fn probe(&self, client: &Client) -> Result<(), Unready> {
        let region = region_of(client, &self.url).await?;
        if region == self.name { Ok(()) } else { Err(Unready::Other(region)) }
    }

    /// Asks it to create an upload, in the user's own name.
    ///
    /// # Errors
    /// Why it could not decide, or was not asked.
    pub(super) async fn forward(
        &self,
        client: &Client,
        from: &RegionName,
        forward: Forward,
    ) -> Result<Relay, ForwardResult> {
        let Forward { headers, body, deadline, or_here } = forward;
        trace::record("http.request.method", || "POST");
        trace::record("server.address", || self.url.host_str().unwrap_or_default().to_owned());
        trace::record("routing.peer", || self.name.to_string());
        let _permit = self.permits.try_acquire().map_err(|_| ForwardResult::Overloaded)?;
        let url = self.url.join("/v1/uploads").map_err(|_| ForwardResult::Failed)?;
        let request = client.post(url).headers(headers).headers(guard(from)).body(body);
        let request = match trace::traceparent() {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        };
        let asking = async {
            let mut response = request.send().await?;
            let body = read(&mut response).await?;
            Ok((response.status(), std::mem::take(response.headers_mut()), body))
        };
        let until = deadline.min(Instant::now() + FORWARD_TIME);
        let answered: Result<_, reqwest::Error> =
            tokio::time::timeout_at(until, asking).await.map_err(|_| ForwardResult::TimedOut)?;
        let (status, headers, body) = answered
            .map_err(|error| if error.is_timeout() { ForwardResult::TimedOut } else { ForwardResult::NoConnection })?;
        trace::record("http.response.status_code", || status.as_u16());
        self.relay(status, &headers, body.ok_or(ForwardResult::Failed)?, or_here)
    }

    /// The answer as the client gets it, if it is one that decides: an upload, or a broker's refusal of this request.
    ///
    /// # Errors
    /// Why it decides nothing.
    fn relay(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
        or_here: bool,
    ) -> Result<Relay, ForwardResult> {
        #[derive(Deserialize)]
        struct Told {
            #[serde(default)]
            code: Option<String>,
        }
        let content_type = headers.get(CONTENT_TYPE).ok_or(ForwardResult::Failed)?;
        // A page of some gateway is not the word of a broker, whatever its status.
        let told: Told = serde_json::from_slice(&body).map_err(|_| ForwardResult::Failed)?;
        let decides = match (status.as_u16(), told.code.as_deref()) {
            (201, None) => content_type == "application/json",
            // It is no defect of the client's request that brokers do not meet over HTTPS.
            (403, Some("https-required")) => false,
            (400 | 401 | 403 | 409 | 413 | 415 | 421 | 422 | 429, Some(_)) => {
                content_type == "application/problem+json"
            }
            _ => false,
        };
        if !decides {
            return Err(ForwardResult::Failed);
        }
        // This broker knows the user, and the policy lets the upload in. While a configuration is rolled out, region by
        // region, the other one may know neither yet.
        if or_here && matches!((status.as_u16(), told.code.as_deref()), (401, _) | (403, Some("policy-denied"))) {
            return Err(ForwardResult::Disagreed);
        }
        let mut passed: HeaderMap =
            PASSED_ON.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect();
        if let Some(location) = self.absolute(headers) {
            passed.insert(header::LOCATION, location);
        }
        let readable = |id: &&HeaderValue| id.len() <= 64 && id.to_str().is_ok();
        Ok(Relay { status, headers: passed, body, request_id: headers.get(REQUEST_ID).filter(readable).cloned() })
    }

    /// Where the upload is, with the host of its broker: the client asked another one.
    fn absolute(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let url = self.url.join(headers.get(header::LOCATION)?.to_str().ok()?).ok()?;
        if url.origin() != self.url.origin() {
            return None;
        }
        HeaderValue::try_from(url.as_str()).ok()
    }
}

/// What keeps a request from being sent on again. Where the client is, does not go along: nobody would believe it.
fn guard(from: &RegionName) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(name) = HeaderValue::try_from(from.as_str()) {
        headers.insert(FORWARDED, name);
    }
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

/// Reads a body as far as it is bearable; `None` beyond that.
async fn read(response: &mut reqwest::Response) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(Bytes::from(body)))
}
