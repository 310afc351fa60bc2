//! One attempt: a message goes out, and something comes back, or nothing, within bounds of time and memory.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use arc_swap::ArcSwap;
use reqwest::dns::Resolve as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, StatusCode};
use url::Url;

use super::address::{Reach, RefusedAddress, Resolver, Unresolved};
use super::schedule::LONGEST_RETRY_AFTER;
use super::settings::literal_address;
use super::sign::Secrets;
use crate::model::time::Timestamp;
use crate::telemetry::trace;

/// How long a connection may take to open, its name and its TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long an answer may take to begin, from the start of the attempt. The specification recommends 15 to 30 s.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// How long what follows the head of an answer is read, so that the connection can be used again.
const REST_TIME: Duration = Duration::from_secs(2);

/// How much of it is read.
const LONGEST_REST: usize = 64 * 1024;

/// The longest that one attempt takes.
pub(super) const ATTEMPT_TIME: Duration = ANSWER_TIME.saturating_add(REST_TIME);

/// What is sent: one event, the same at each attempt but for the time of sending.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The `webhook-id`.
    pub(super) id: String,
    /// The payload.
    pub(super) body: String,
}

/// Why an attempt was none that the receiver accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What happened.
    pub(super) reason: Reason,
    /// How long the receiver asks to be left alone, at most [`LONGEST_RETRY_AFTER`].
    pub(super) retry_after: Option<Duration>,
}

/// What happened, without anything that the receiver or the configuration said: it is stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It answered with this status. Redirects are answers, too: nobody is sent elsewhere.
    Answered(StatusCode),
    /// Nothing came in time.
    TimedOut,
    /// Its name leads inside.
    RefusedAddress,
    /// Its name does not resolve.
    Unresolved,
    /// No connection could be opened, or none that can be trusted.
    NotConnected,
    /// The connection broke, or what came over it is not HTTP.
    Broken,
}

impl Reason {
    /// A word for it, for spans.
    const fn kind(self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::TimedOut => "timed_out",
            Self::RefusedAddress => "refused_address",
            Self::Unresolved => "unresolved",
            Self::NotConnected => "not_connected",
            Self::Broken => "broken",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered(status) => return write!(f, "answered {}", status.as_u16()),
            Self::TimedOut => "timed out",
            Self::RefusedAddress => "refused address",
            Self::Unresolved => "could not resolve the name",
            Self::NotConnected => "could not connect",
            Self::Broken => "no valid answer",
        })
    }
}

/// Sends messages to one address.
pub(super) struct Sender {
    client: Client,
    resolver: Resolver,
    url: Url,
    secrets: ArcSwap<Secrets>,
}

impl Sender {
    /// A client of its own for `url`, which has no more than `at_once` idle connections.
    pub(super) fn new(
        url: Url,
        secrets: Secrets,
        reach: Reach,
        trusted_ca: Vec<Certificate>,
        user_agent: &str,
        at_once: usize,
    ) -> Result<Self, reqwest::Error> {
        let resolver = Resolver::new(reach);
        let client = Client::builder()
            .tls_certs_merge(trusted_ca)
            .user_agent(user_agent)
            .dns_resolver(resolver.clone())
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // A proxy would resolve the name, and connect to what it likes.
            .no_proxy()
            // Every attempt is counted, and decided on by the schedule.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIME)
            .pool_max_idle_per_host(at_once)
            .pool_idle_timeout(Duration::from_secs(60))
            // Finds out about a connection into nowhere, which all attempts would share.
            .http2_keep_alive_interval(CONNECT_TIME)
            .http2_keep_alive_timeout(CONNECT_TIME)
            .http2_max_header_list_size(16 * 1024)
            .build()?;
        Ok(Self { client, resolver, url, secrets: ArcSwap::from_pointee(secrets) })
    }

    /// The host that messages go to.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Scheme, host and port of the address.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The addresses that messages may go to.
    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, &'static str> {
        let port = self.url.port_or_known_default().unwrap_or_default();
        let found = if let Some(address) = literal_address(&self.url) {
            // Nobody resolves it; the settings have been asked whether it may be called.
            vec![SocketAddr::new(address, port)]
        } else {
            let name = self.host().parse().map_err(|_| "the host is no name")?;
            self.resolver.resolve(name).await.map(Vec::from_iter).map_err(|error| {
                let leads_inside = error.is::<RefusedAddress>();
                if leads_inside { "the name leads to private addresses only" } else { "the name does not resolve" }
            })?
        };
        Ok(found.into_iter().map(|address| SocketAddr::new(address.ip(), port)).collect())
    }

    /// Signs with the secrets of another one from now on.
    pub(super) fn take_secrets(&self, other: &Self) {
        self.secrets.store(other.secrets.load_full());
    }

    /// Makes one attempt, which takes [`ATTEMPT_TIME`] at most. Dropped, it may have been received all the same.
    pub(super) async fn send(&self, message: &Message, now: Timestamp) -> Result<(), Failure> {
        let failed = |reason| Failure { reason, retry_after: None };
        let signature = self.secrets.load().signature(&message.id, now, message.body.as_bytes());
        trace::record("http.request.method", || "POST");
        trace::record("server.address", || self.host().to_owned());
        let request = self.client.post(self.url.clone());
        // So that what the receiver does about it can be found from here.
        let request = match trace::traceparent() {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        };
        let exchange = request
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now.as_secs())
            .header("webhook-signature", signature)
            .body(message.body.clone())
            .send();
        let failed = |reason: Reason| {
            trace::fail(reason.kind());
            failed(reason)
        };
        let answer = tokio::time::timeout(ANSWER_TIME, exchange).await;
        let mut answer = answer.map_err(|_| failed(Reason::TimedOut))?.map_err(|error| failed(reason(&error)))?;
        trace::record("http.response.status_code", || answer.status().as_u16());
        // The status says it all. What follows counts for nothing, however long it is and however it ends.
        let _ = tokio::time::timeout(REST_TIME, skip(&mut answer)).await;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(Failure { retry_after: retry_after(answer.headers()), ..failed(Reason::Answered(answer.status())) })
    }
}

/// Reads a body and keeps nothing of it.
async fn skip(answer: &mut reqwest::Response) {
    let mut left = LONGEST_REST;
    while let Ok(Some(chunk)) = answer.chunk().await {
        let Some(less) = left.checked_sub(chunk.len()) else { return };
        left = less;
    }
}

/// The pause that is asked for in seconds (RFC 9110, section 10.2.3). A date would need the receiver's clock to be right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

fn reason(error: &reqwest::Error) -> Reason {
    if is_caused_by::<RefusedAddress>(error) {
        Reason::RefusedAddress
    } else if is_caused_by::<Unresolved>(error) {
        Reason::Unresolved
    } else if error.is_timeout() {
        Reason::TimedOut
    } else if error.is_connect() {
        Reason::NotConnected
    } else {
        Reason::Broken
    }
}

fn is_caused_by<E: StdError + 'static>(error: &reqwest::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.any(<dyn StdError>::is::<E>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_in_seconds_and_bounded() {
        for (name, value, expected) in [
            ("seconds", "120", Some(120)),
            ("blanks", " 7 ", Some(7)),
            ("a week", "604800", Some(3600)),
            ("a date", "Fri, 31 Dec 2027 23:59:59 GMT", None),
            ("a negative number", "-5", None),
            ("longer than a number", "99999999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{name}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
