//! A message as it is pushed, and what the receiver says to it.

use std::collections::BTreeMap;
use std::error::Error as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::Message;
use super::config::Payload;

/// What acknowledges a message (Pub/Sub documentation, "Receive push messages"). So does 102 there; HTTP has it come before
/// the answer (RFC 9110, section 15.2), and here that answer counts.
const ACKNOWLEDGING: [u16; 4] = [200, 201, 202, 204];

impl Message {
    fn payload(&self) -> Payload {
        self.config.as_ref().map_or_else(Payload::default, |config| config.payload)
    }

    fn attributes(&self) -> BTreeMap<&str, String> {
        let mut attributes = BTreeMap::new();
        if let Some(config) = &self.config {
            attributes.extend(config.attributes.iter().map(|(key, value)| (key.as_str(), value.clone())));
        }
        attributes.extend(self.event.attributes());
        let (bucket, id) = (&self.event.object.bucket, self.config.as_ref().map_or(0, |config| config.id));
        let config = format!("projects/_/buckets/{bucket}/notificationConfigs/{id}");
        attributes.extend([("notificationConfig", config), ("payloadFormat", self.payload().name().to_owned())]);
        attributes
    }

    /// The body of a Pub/Sub push, wrapped (Pub/Sub documentation, "Push subscriptions"). Links begin with `base`.
    pub(super) fn wrapped(&self, base: &str, subscription: &str) -> String {
        let (id, time) = (self.id.to_string(), self.event.at.to_string());
        let mut message = json!({
            "attributes": self.attributes(),
            "messageId": id,
            "message_id": id,
            "publishTime": time,
            "publish_time": time,
        });
        if self.payload() == Payload::JsonApiV1 {
            message["data"] = json!(STANDARD.encode(self.event.object.resource(base).to_string()));
        }
        json!({"message": message, "subscription": subscription}).to_string()
    }

    /// The headers of a `CloudEvent` in the binary mode of HTTP, as Eventarc sends it. What has no place in them, such as
    /// custom attributes, is left out.
    pub(super) fn cloud_headers(&self) -> HeaderMap {
        let object = &self.event.object;
        let values = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", self.id.to_string()),
            ("ce-type", self.event.kind.cloud_type().to_owned()),
            ("ce-source", format!("//storage.googleapis.com/projects/_/buckets/{}", object.bucket)),
            ("ce-subject", format!("objects/{}", object.name)),
            ("ce-bucket", object.bucket.to_string()),
            ("ce-time", self.event.at.to_string()),
        ];
        let header = |(name, value): (&'static str, String)| {
            let value = HeaderValue::try_from(header_text(&value)).ok()?;
            Some((HeaderName::from_static(name), value))
        };
        values.into_iter().filter_map(header).collect()
    }

    /// The body of a `CloudEvent`.
    pub(super) fn cloud_body(&self, base: &str) -> String {
        self.event.object.resource(base).to_string()
    }
}

/// Text as a header of a `CloudEvent` has it: percent-encoded where it is not visible ASCII, a quotation mark or a percent
/// sign (`CloudEvents`, "HTTP Protocol Binding", section 3.1.3.2).
fn header_text(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\"%".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
        }
    }
    encoded
}

/// Sends a push; gives what the receiver answered, and says in a few words why it is no acknowledgement.
///
/// # Errors
/// When the message is to be sent once more.
pub(super) async fn send(request: reqwest::RequestBuilder) -> Result<String, String> {
    match request.send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            if ACKNOWLEDGING.contains(&status) { Ok(status.to_string()) } else { Err(status.to_string()) }
        }
        Err(error) => {
            let error = error.without_url();
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            Err(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_visible_ascii() {
        for (text, expected) in [
            ("objects/a/b.mp4", "objects/a/b.mp4"),
            ("objects/a b\"%", "objects/a%20b%22%25"),
            ("objects/é€", "objects/%C3%A9%E2%82%AC"),
            ("objects/\u{7f}\u{1}", "objects/%7F%01"),
        ] {
            assert_eq!(header_text(text), expected, "{text}");
        }
    }
}
