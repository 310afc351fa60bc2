//! What storage's notifications say: Pub/Sub pushes and `CloudEvents` become an [`ObjectNotice`]. Pure.
//!
//! Three forms arrive at one address, and [`read`] tells them apart: the wrapped push of Pub/Sub, whose attributes name
//! the object and whose data, in base64, describes it; and the `CloudEvents` that Eventarc delivers, in binary mode (the
//! event in headers, the object as the body) or in structured mode (both in one JSON document).
//!
//! Of all that only bucket, name, generation and the hint in the metadata are read, and of them none is believed: the
//! notice is a reason to ask storage. So nothing depends on which of two equal keys a reader takes, and unknown fields
//! and events are passed over.

mod cloud_events;
mod metrics;
mod pubsub;
mod resource;
#[cfg(test)]
mod tests;

use reqwest::header::{CONTENT_TYPE, HeaderMap};

pub use metrics::{Metrics, Outcome};

use crate::model::notice::ObjectNotice;

/// The largest body that is read, in bytes. An object with all the metadata that it can have stays below 64 KiB, base64
/// and the message around it included below twice that; Pub/Sub would take 10 MB.
pub const MAX_BODY: usize = 1024 * 1024;

/// What a delivery is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The Pub/Sub subscription that it comes from, which only wrapped pushes name.
    pub subscription: Option<String>,
    /// The new object. `None` for every other event: what was changed or deleted completes no upload.
    pub notice: Option<ObjectNotice>,
}

/// Why a delivery cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It will not be readable the next time either.
    #[error("the notification makes no sense: {0}")]
    Malformed(&'static str),
    /// The subscription delivers payloads without the message around them, until someone sets it up otherwise.
    #[error("the subscription unwraps its messages: switch payload unwrapping (noWrapper) off")]
    Unwrapped,
}

/// Reads one delivery.
///
/// # Errors
/// When it is none, or in a form that is not supported.
pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Delivery, Unreadable> {
    if essence(headers).eq_ignore_ascii_case("application/cloudevents+json") {
        return Ok(Delivery { subscription: None, notice: cloud_events::structured(body)? });
    }
    if text(headers, "ce-specversion").is_some() || text(headers, "ce-type").is_some() {
        return Ok(Delivery { subscription: None, notice: cloud_events::binary(headers, body)? });
    }
    if headers.keys().any(|name| name.as_str().starts_with("x-goog-pubsub-")) {
        return Err(Unreadable::Unwrapped);
    }
    pubsub::wrapped(body)
}

/// The media type without parameters.
fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
