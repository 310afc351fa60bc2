//! What the broker's API says, as far as a client needs it.
//!
//! Written anew rather than shared with the broker: a client must ignore fields and values that it does not know, and
//! the broker must refuse them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Invalid;

use super::error::{Refusal, Violation};

/// How the bytes of an upload go to storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    /// In chunks, to a session that the broker opened.
    #[default]
    Resumable,
    /// All at once, to a signed URL.
    Simple,
    /// In chunks, to a session that the client opens with a signed URL.
    SignedResumable,
}

impl TransferKind {
    const ALL: [Self; 3] = [Self::Resumable, Self::Simple, Self::SignedResumable];

    const fn name(self) -> &'static str {
        match self {
            Self::Resumable => "resumable",
            Self::Simple => "simple",
            Self::SignedResumable => "signed_resumable",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
    fn is_left_out(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for TransferKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for TransferKind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| Invalid::new("a transfer is resumable, simple or signed_resumable"))
    }
}

/// The body of `POST /v1/uploads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CreateUpload {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    pub(super) filename: String,
    pub(super) content_type: String,
    /// Left out where nobody can know it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) md5: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) crc32c: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
    /// Left out where it is what it would be anyway.
    #[serde(default, skip_serializing_if = "TransferKind::is_left_out")]
    pub(super) transfer_kind: TransferKind,
}

/// An upload, as every operation answers it. No `Debug`: the transfer in it is a secret.
#[derive(Deserialize)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) policy: String,
    #[serde(default)]
    pub(super) region: Option<String>,
    pub(super) object: String,
    pub(super) transfer: Option<Transfer>,
    pub(super) result: Option<Stored>,
    pub(super) rejection: Option<Rejection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Completed,
    Rejected,
    Cancelled,
    Expired,
    /// `pending`, `uploading`, and whatever later versions know: none that this client could call final.
    #[serde(other)]
    UnderWay,
}

#[derive(Deserialize)]
pub(super) struct Transfer {
    pub(super) kind: String,
    /// Secret, a signed URL too; becomes a `SessionUri` before it is used.
    pub(super) uri: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) chunk_multiple_bytes: Option<u64>,
    pub(super) chunk_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    pub(super) size_bytes: Option<u64>,
    pub(super) crc32c: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rejection {
    pub(super) code: String,
    #[serde(default)]
    pub(super) detail: String,
}

/// A problem document (RFC 9457).
#[derive(Default, Deserialize)]
struct Problem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
    url: Option<String>,
    #[serde(default)]
    errors: Vec<InvalidField>,
    #[serde(default)]
    violations: Vec<BrokenLimit>,
}

#[derive(Deserialize)]
struct InvalidField {
    pointer: String,
    detail: String,
}

#[derive(Deserialize)]
struct BrokenLimit {
    limit: String,
    #[serde(default)]
    allowed: serde_json::Value,
    #[serde(default)]
    given: serde_json::Value,
}

/// Longer texts of the broker are cut, and more than this many list entries left out: they end on a terminal.
const LONGEST_TEXT: usize = 500;
const MOST_ENTRIES: usize = 20;

/// Text of the other side, fit to be shown: without control characters, which steer terminals, and not too long.
pub(crate) fn presentable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(LONGEST_TEXT).collect()
}

/// Reads an answer that is no success. A body that is no problem document (a proxy's page) says nothing.
pub(super) fn read_refusal(status: u16, body: &[u8]) -> Refusal {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let show = |text: Option<String>| text.map(|text| presentable(&text));
    let plain = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => presentable(&text),
        other => presentable(&other.to_string()),
    };
    let fields: Vec<String> = problem
        .errors
        .into_iter()
        .take(MOST_ENTRIES)
        .map(|field| presentable(&format!("{}: {}", field.pointer, field.detail)))
        .collect();
    let detail = if fields.is_empty() { problem.detail.or(problem.title) } else { Some(fields.join("; ")) };
    let violations = problem.violations.into_iter().take(MOST_ENTRIES).map(|broken| Violation {
        limit: presentable(&broken.limit),
        allowed: plain(broken.allowed),
        given: plain(broken.given),
    });
    Refusal {
        status,
        code: show(problem.code),
        detail: show(detail),
        violations: violations.collect(),
        elsewhere: show(problem.url),
        request_id: show(problem.request_id),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_states_are_no_obstacle() {
        let text = r#"{"id": "x", "state": "quarantined", "policy": "p", "object": "o", "colour": {"a": [1]},
                       "transfer": {"kind": "resumable", "uri": "https://s/", "novelty": true}}"#;
        let upload: Upload = serde_json::from_str(text).unwrap();
        assert_eq!(upload.state, State::UnderWay);
        assert_eq!(upload.transfer.unwrap().uri.as_deref(), Some("https://s/"));
    }

    #[test]
    fn problems_are_shown_in_one_line() {
        for (name, body, expected) in [
            ("a page", "<html>Bad gateway</html>", "422"),
            ("nothing", "", "422"),
            ("a title", r#"{"title": "Conflict", "code": "invalid-state"}"#, "422 invalid-state, Conflict"),
            (
                "fields",
                r#"{"code": "invalid-request", "detail": "no", "errors": [{"pointer": "/md5", "detail": "bad"}]}"#,
                "422 invalid-request, /md5: bad",
            ),
            (
                "violations",
                r#"{"code": "policy-violation", "violations": [{"limit": "max_size", "allowed": "1MiB", "given": 7}]}"#,
                "422 policy-violation; max_size: allowed 1MiB, given 7",
            ),
            (
                "another broker",
                r#"{"code": "misdirected", "url": "https://eu"}"#,
                "422 misdirected; the broker to ask is https://eu",
            ),
            ("an id", r#"{"request_id": "r1"}"#, "422 (request r1)"),
            ("terminal control", "{\"detail\": \"a\\u001b[2Jb\\n\"}", "422, a[2Jb"),
        ] {
            assert_eq!(read_refusal(422, body.as_bytes()).to_string(), expected, "{name}");
        }
        let long = format!(r#"{{"detail": "{}"}}"#, "x".repeat(10_000));
        assert!(read_refusal(500, long.as_bytes()).to_string().len() < 600);
    }
}
