//! `CloudEvents` 1.0 over HTTP, as Eventarc delivers storage's direct events: the resource is the data, without a
//! Pub/Sub message around it. Where the data does not name the object, the attributes do.

use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::resource::{Int64, Resource};
use super::{Unreadable, essence, text};
use crate::model::notice::ObjectNotice;

/// The one event that says that an object was made. Its siblings end in `archived`, `deleted`, `metadataUpdated`.
const FINALIZED: &str = "google.cloud.storage.object.v1.finalized";

/// What `subject` begins with; the object's name follows.
const SUBJECT_PREFIX: &str = "objects/";

/// An event in structured mode (`CloudEvents` JSON format, section 3), as far as it is read.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: Option<String>,
    bucket: Option<String>,
    subject: Option<String>,
    data: Option<Resource>,
}

/// Reads an event whose attributes are headers and whose data is the body (`CloudEvents` HTTP binding, section 3.1).
pub(super) fn binary(headers: &HeaderMap, body: &[u8]) -> Result<Option<ObjectNotice>, Unreadable> {
    let [bucket, subject] = ["ce-bucket", "ce-subject"].map(|name| text(headers, name).map(percent_decoded));
    let data = || {
        // A trigger can ask for protobuf; the attributes name the object all the same.
        let is_json = essence(headers).eq_ignore_ascii_case("application/json");
        if is_json { Resource::parse(body) } else { Ok(Resource::default()) }
    };
    notice(text(headers, "ce-type"), bucket.as_deref(), subject.as_deref(), data)
}

/// Reads an event that is one JSON document (section 3.2).
pub(super) fn structured(body: &[u8]) -> Result<Option<ObjectNotice>, Unreadable> {
    let event = serde_json::from_slice(body).map_err(|_| Unreadable::Malformed("it is no CloudEvent"))?;
    let Event { kind, bucket, subject, data } = event;
    notice(kind.as_deref(), bucket.as_deref(), subject.as_deref(), || Ok(data.unwrap_or_default()))
}

fn notice(
    kind: Option<&str>,
    bucket: Option<&str>,
    subject: Option<&str>,
    data: impl FnOnce() -> Result<Resource, Unreadable>,
) -> Result<Option<ObjectNotice>, Unreadable> {
    match kind {
        Some(FINALIZED) => {}
        Some(_) => return Ok(None),
        None => return Err(Unreadable::Malformed("it has no type")),
    }
    let resource = data()?;
    let named = subject.and_then(|subject| subject.strip_prefix(SUBJECT_PREFIX));
    let generation = resource.generation.as_ref().and_then(Int64::value);
    let bucket = resource.bucket.as_deref().or(bucket);
    resource.notice(bucket, resource.name.as_deref().or(named), generation).map(Some)
}

/// The value of an attribute that travelled in a header (section 3.1.3.2). What is no escape stands for itself, and what
/// is not UTF-8 afterwards is no name of ours either way.
fn percent_decoded(value: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
