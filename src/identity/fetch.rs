//! Reads a key set from where it is published, once, within bounds.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use serde_json::Value;

use super::key_set::KeySet;
use super::{Algorithm, json};
use crate::model::Invalid;
use crate::model::address::{UpstreamUrl, is_loopback};

/// How long one answer may take, from the connection to its last byte.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The largest document that is read. Public key sets are a few KiB.
const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// How long keys are taken to be fresh when their issuer does not say.
const DEFAULT_FRESHNESS: Duration = Duration::from_secs(10 * 60);

/// No issuer is asked more often than this, whatever it says.
const MIN_FRESHNESS: Duration = Duration::from_secs(60);

/// Every issuer is asked at least this often, so that a withdrawn key goes within a day.
const MAX_FRESHNESS: Duration = Duration::from_secs(24 * 3600);

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file, read again at the default interval.
    File(PathBuf),
    /// The address of the key set.
    Address(UpstreamUrl),
    /// The issuer's discovery document, which names the address.
    Discovery {
        /// The document's address.
        document: UpstreamUrl,
        /// Whether the issuer itself is on this machine: only then may its keys be.
        on_loopback: bool,
    },
}

/// A key set, and how long it may be used before it is asked for again.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    pub(super) fresh_for: Duration,
}

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the file cannot be read")]
    File(#[source] io::Error),
    #[error("the issuer cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the issuer did not answer in time")]
    TooSlow,
    #[error("the issuer answered with status {0}, where only 200 will do")]
    Status(u16),
    #[error("the answer comes from another address than was asked")]
    Redirected,
    #[error("the answer is not declared to be JSON")]
    NotJson,
    #[error("the document is larger than 1 MiB")]
    TooLarge,
    #[error("the discovery document is not a JSON object")]
    NoDiscovery,
    #[error("the discovery document is that of another issuer")]
    ForeignDiscovery,
    #[error("the discovery document has no acceptable jwks_uri")]
    KeyAddress(#[source] Invalid),
    #[error("the key set cannot be used")]
    Unusable(#[source] Invalid),
}

/// Asks for the key set of `issuer` at its origin.
pub(super) async fn fetch(
    client: &reqwest::Client,
    answer_time: Duration,
    origin: &Origin,
    issuer: &str,
    accepted: &[Algorithm],
) -> Result<Fetched, Error> {
    let document = match origin {
        Origin::File(path) => {
            let (path, accepted) = (path.clone(), accepted.to_vec());
            let reading = tokio::task::spawn_blocking(move || read_file(&path, &accepted));
            return reading.await.map_err(|stopped| Error::File(io::Error::other(stopped)))?;
        }
        Origin::Address(url) => download(client, answer_time, url).await?,
        Origin::Discovery { document, on_loopback } => {
            let discovered = download(client, answer_time, document).await?;
            let url = key_address(&discovered.body, issuer, *on_loopback)?;
            download(client, answer_time, &url).await?
        }
    };
    let keys = KeySet::parse(&document.body, accepted).map_err(Error::Unusable)?;
    Ok(Fetched { keys, fresh_for: document.fresh_for })
}

/// Reads the key set in a file.
pub(super) fn read_file(path: &Path, accepted: &[Algorithm]) -> Result<Fetched, Error> {
    let mut document = Vec::new();
    let limit = MAX_DOCUMENT_BYTES as u64 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut document)).map_err(Error::File)?;
    if document.len() > MAX_DOCUMENT_BYTES {
        return Err(Error::TooLarge);
    }
    let keys = KeySet::parse(&document, accepted).map_err(Error::Unusable)?;
    Ok(Fetched { keys, fresh_for: DEFAULT_FRESHNESS })
}

/// The `jwks_uri` of a discovery document (OpenID Connect Discovery 1.0, sections 3 and 4.3).
fn key_address(document: &[u8], issuer: &str, on_loopback: bool) -> Result<UpstreamUrl, Error> {
    let document = json::object(document).ok_or(Error::NoDiscovery)?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(Error::ForeignDiscovery);
    }
    let address = document.get("jwks_uri").and_then(Value::as_str).unwrap_or_default();
    let url: UpstreamUrl = address.parse().map_err(Error::KeyAddress)?;
    // A document from elsewhere must not send the broker to its own machine.
    if is_loopback(url.as_url()) && !on_loopback {
        return Err(Error::KeyAddress(Invalid::new("leads to this machine, where the issuer is not")));
    }
    Ok(url)
}

struct Download {
    body: Vec<u8>,
    fresh_for: Duration,
}

async fn download(client: &reqwest::Client, answer_time: Duration, url: &UpstreamUrl) -> Result<Download, Error> {
    tokio::time::timeout(answer_time, exchange(client, url)).await.unwrap_or(Err(Error::TooSlow))
}

async fn exchange(client: &reqwest::Client, url: &UpstreamUrl) -> Result<Download, Error> {
    let unreachable = |error: reqwest::Error| Error::Unreachable(error.without_url());
    let request = client.get(url.as_url().clone()).header(ACCEPT, "application/json, application/jwk-set+json");
    let mut response = request.send().await.map_err(unreachable)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(Error::Status(response.status().as_u16()));
    }
    // The client follows no redirects. Should one be handed in that does, nothing it found is used.
    if response.url() != url.as_url() {
        return Err(Error::Redirected);
    }
    if !says_json(response.headers()) {
        return Err(Error::NotJson);
    }
    let fresh_for = freshness(response.headers());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(Error::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Download { body, fresh_for })
}

/// Whether the media type is JSON's, or one built on it, such as `application/jwk-set+json`.
fn says_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// How long an answer with these headers stays fresh (RFC 9111, sections 4.2 and 5.2.2), within our own limits.
fn freshness(headers: &HeaderMap) -> Duration {
    let declared = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut fresh_for = DEFAULT_FRESHNESS;
    for directive in declared.flat_map(|value| value.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return MIN_FRESHNESS;
        }
        let seconds = directive.strip_prefix("max-age=").and_then(|value| value.trim_matches('"').parse().ok());
        fresh_for = seconds.map_or(fresh_for, Duration::from_secs);
    }
    // What a cache on the way has already used up.
    let age = headers.get(AGE).and_then(|value| value.to_str().ok()).and_then(|value| value.trim().parse().ok());
    fresh_for.saturating_sub(Duration::from_secs(age.unwrap_or(0))).clamp(MIN_FRESHNESS, MAX_FRESHNESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_what_the_issuer_says_within_limits() {
        for (name, cache_control, age, seconds) in [
            ("nothing said", None, None, 600),
            ("as said", Some("public, max-age=20000, must-revalidate"), None, 20_000),
            ("less what a cache used up", Some("max-age=20000"), Some("5000"), 15_000),
            ("too short", Some("max-age=5"), None, 60),
            ("used up", Some("max-age=600"), Some("700"), 60),
            ("too long", Some("max-age=31536000"), None, 86_400),
            ("longer than a number", Some("max-age=99999999999999999999999"), None, 600),
            ("not to be kept", Some("no-store, max-age=3600"), None, 60),
            ("in capitals and quotes", Some("Max-Age=\"120\""), None, 120),
            ("a word that only ends so", Some("s-max-age=3000"), None, 600),
        ] {
            let mut headers = HeaderMap::new();
            cache_control.map(|value| headers.insert(CACHE_CONTROL, value.parse().unwrap()));
            age.map(|value| headers.insert(AGE, value.parse().unwrap()));
            assert_eq!(freshness(&headers), Duration::from_secs(seconds), "{name}");
        }
    }

    #[test]
    fn a_discovery_document_is_believed_only_about_its_own_issuer_and_fit_addresses() {
        let issuer = "https://id.example/realms/a";
        for (name, document, on_loopback, expected) in [
            (
                "as it should be",
                r#"{"issuer":"https://id.example/realms/a","jwks_uri":"https://keys.example/a"}"#,
                false,
                true,
            ),
            (
                "a slash more",
                r#"{"issuer":"https://id.example/realms/a/","jwks_uri":"https://keys.example/a"}"#,
                false,
                false,
            ),
            (
                "another issuer",
                r#"{"issuer":"https://evil.example","jwks_uri":"https://keys.example/a"}"#,
                false,
                false,
            ),
            ("no issuer", r#"{"jwks_uri":"https://keys.example/a"}"#, false, false),
            ("no address", r#"{"issuer":"https://id.example/realms/a"}"#, false, false),
            (
                "plain http",
                r#"{"issuer":"https://id.example/realms/a","jwks_uri":"http://keys.example/a"}"#,
                false,
                false,
            ),
            ("a file", r#"{"issuer":"https://id.example/realms/a","jwks_uri":"file:///etc/passwd"}"#, false, false),
            (
                "the metadata server",
                r#"{"issuer":"https://id.example/realms/a","jwks_uri":"http://169.254.169.254/"}"#,
                false,
                false,
            ),
            (
                "this machine, from afar",
                r#"{"issuer":"https://id.example/realms/a","jwks_uri":"http://127.0.0.1:1/"}"#,
                false,
                false,
            ),
            (
                "this machine, from here",
                r#"{"issuer":"https://id.example/realms/a","jwks_uri":"http://127.0.0.1:1/"}"#,
                true,
                true,
            ),
            ("an array", "[]", false, false),
        ] {
            assert_eq!(key_address(document.as_bytes(), issuer, on_loopback).is_ok(), expected, "{name}");
        }
    }
}
