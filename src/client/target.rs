//! Where storage is called, and how: a URI that is a secret, with the headers that belong to it.

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::model::address::is_loopback;
use crate::model::secret::SessionUri;

use super::error::{Error, Operation, Trouble};
use super::http::{Http, read_body};
use super::pace::Pace;
use super::source::Streaming;
use super::wire::Transfer;

/// Answers are read to their end, so that the connection can be used again, but not beyond this.
const MAX_ANSWER: usize = 64 << 10;

/// No word of storage's for an error has so many letters.
const LONGEST_REASON: usize = 64;

/// A session URI or a signed URL. No `Debug`: it is a secret.
pub(super) struct Target {
    url: Url,
    headers: HeaderMap,
}

impl Target {
    /// What the broker handed out.
    ///
    /// # Errors
    /// When this client cannot or must not use it.
    pub(super) fn of(transfer: &Transfer, operation: Operation) -> Result<Self, Error> {
        let nonsense = |what| Error::Nonsense { operation, what };
        let url = transfer.uri.as_deref().ok_or_else(|| nonsense("it has no URI to send to"))?;
        let url = read_url(url).map_err(nonsense)?;
        let headers = read_headers(&transfer.headers).ok_or_else(|| nonsense("it has headers that cannot be sent"))?;
        Ok(Self { url, headers })
    }

    /// The session that storage opened at `location`.
    ///
    /// # Errors
    /// When this client cannot or must not use it.
    pub(super) fn opened(location: &str) -> Result<Self, Error> {
        Ok(Self { url: read_url(location).map_err(Error::StorageNonsense)?, headers: HeaderMap::new() })
    }

    /// A request with the headers that belong to it.
    pub(super) fn request(&self, http: &Http, method: Method) -> RequestBuilder {
        self.request_bare(http, method).headers(self.headers.clone())
    }

    /// A request without them.
    pub(super) fn request_bare(&self, http: &Http, method: Method) -> RequestBuilder {
        http.toward(&self.url).request(method, self.url.clone())
    }
}

/// Takes a URI that bytes may be sent to, or says what is wrong with it.
fn read_url(text: &str) -> Result<Url, &'static str> {
    let uri = SessionUri::parse(text).ok().and_then(|uri| Url::parse(uri.expose()).ok());
    let url = uri.ok_or("it has no usable URI to send to")?;
    if url.scheme() == "https" || is_loopback(&url) { Ok(url) } else { Err("its URI to send to is not https") }
}

/// The headers that the broker asks for. Those that frame the message are ours alone.
fn read_headers(given: &BTreeMap<String, String>) -> Option<HeaderMap> {
    let ours = ["host", "connection", "transfer-encoding", "content-length", "content-range", "expect", "upgrade"];
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name: HeaderName = name.parse().ok()?;
        if !ours.contains(&name.as_str()) {
            headers.insert(name, value.parse().ok()?);
        }
    }
    Some(headers)
}

/// Sends, as long as bytes move. A connection that was cut silently would hold a request for a quarter of an hour.
pub(super) async fn exchange(
    request: RequestBuilder,
    streaming: Option<&Streaming>,
    pace: &Pace<'_>,
) -> Result<Response, Trouble> {
    let moved = || streaming.map_or(0, Streaming::moved);
    let mut answer = std::pin::pin!(request.send());
    loop {
        let before = moved();
        match tokio::time::timeout(pace.patience().stalled_after, &mut answer).await {
            // The error's own text would hold the URL, and with it the session.
            Ok(answer) => return answer.map_err(|error| Trouble::StorageUnreachable(error.without_url())),
            Err(_) if moved() > before => {}
            Err(_) => return Err(Trouble::StorageSilent),
        }
    }
}

/// Reads an answer away; the connection is worth having. Whether its body comes does not matter, and what it says only
/// if it tells of a wrong request: then storage's word for the reason is given back, for people to read.
pub(super) async fn drain(response: Response, pace: &Pace<'_>) -> Option<String> {
    let tells = response.status() == StatusCode::BAD_REQUEST;
    let body = tokio::time::timeout(pace.patience().stalled_after, read_body(response, MAX_ANSWER)).await;
    body.ok()?.ok().filter(|_| tells).and_then(|body| read_reason(&body))
}

/// The code of an XML error, or the reason of the first JSON one (storage documentation, "HTTP status and error codes").
/// Both are single words; anything else is left out, since it goes to terminals and must not hold a secret.
fn read_reason(body: &[u8]) -> Option<String> {
    let word = if let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) {
        json.pointer("/error/errors/0/reason")?.as_str()?.to_owned()
    } else {
        let text = String::from_utf8_lossy(body);
        let (_, rest) = text.split_once("<Code>")?;
        rest.split_once("</Code>")?.0.to_owned()
    };
    let is_word = (1..=LONGEST_REASON).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(uri: &str) -> Transfer {
        Transfer {
            kind: "resumable".into(),
            uri: Some(uri.into()),
            headers: BTreeMap::new(),
            chunk_multiple_bytes: None,
            chunk_bytes: None,
        }
    }

    #[test]
    fn bytes_are_sent_only_where_it_is_safe() {
        let secret_free = |name: &str, error: Error| {
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{name}: {error}");
        };
        for (name, uri, accepted) in [
            ("storage", "https://storage.example/u?upload_id=s3cret", true),
            ("this machine", "http://127.0.0.1:1/u?upload_id=s3cret", true),
            ("plain http", "http://storage.example/u?upload_id=s3cret", false),
            ("a file", "file:///s3cret", false),
            ("relative", "/u?upload_id=s3cret", false),
            ("nothing", "", false),
        ] {
            for target in [Target::of(&transfer(uri), Operation::Create), Target::opened(uri)] {
                assert_eq!(target.is_ok(), accepted, "{name}");
                target.err().into_iter().for_each(|error| secret_free(name, error));
            }
        }
        for (name, transfer) in [
            ("no URI", Transfer { uri: None, ..transfer("") }),
            (
                "a header with a line break",
                Transfer { headers: [("a".into(), "b\ns3cret".into())].into(), ..transfer("https://s.example/") },
            ),
        ] {
            secret_free(name, Target::of(&transfer, Operation::Create).err().expect(name));
        }
    }

    #[test]
    fn a_reason_is_one_word_or_none() {
        let long = |letters| format!("<Error><Code>{}</Code></Error>", "a".repeat(letters));
        let (longest, too_long) = (long(64), long(65));
        for (name, body, expected) in [
            (
                "XML",
                "<?xml version='1.0'?><Error><Code>EntityTooLarge</Code><Message>No</Message></Error>",
                Some("EntityTooLarge"),
            ),
            (
                "JSON",
                r#"{"error": {"code": 400, "message": "No", "errors": [{"domain": "global", "reason": "invalid"}]}}"#,
                Some("invalid"),
            ),
            ("the longest", &longest, Some(&*"a".repeat(64))),
            ("too long", &too_long, None),
            ("no letters", "<Code>\u{1b}[2J</Code>", None),
            ("several words", "<Code>upload_id=s3cret</Code>", None),
            ("nothing in it", "<Code></Code>", None),
            ("no end", "<Code>EntityTooLarge", None),
            ("JSON without a reason", r#"{"error": {"message": "No"}}"#, None),
            ("JSON with another reason", r#"{"error": {"errors": [{"reason": 7}]}}"#, None),
            ("text", "Invalid request", None),
            ("nothing", "", None),
        ] {
            assert_eq!(read_reason(body.as_bytes()).as_deref(), expected, "{name}");
        }
        assert_eq!(read_reason(b"\xff<Code>BadDigest</Code>\xff").as_deref(), Some("BadDigest"), "not UTF-8");
    }

    #[test]
    fn headers_that_frame_the_message_are_not_taken_from_the_broker() {
        let given = [("Content-Type", "video/mp4"), ("Content-Length", "7"), ("Host", "evil")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let headers = read_headers(&given).unwrap();
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["content-type"], "video/mp4");
    }
}
