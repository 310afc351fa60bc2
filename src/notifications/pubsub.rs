//! The wrapped push of Pub/Sub (Pub/Sub documentation, "Push subscriptions"), with the attributes and payload of
//! storage's notifications (storage documentation, "Pub/Sub notifications for Cloud Storage").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::resource::Resource;
use super::{Delivery, Unreadable};

/// The body of a push, as far as it is read.
#[derive(Deserialize)]
struct Envelope {
    message: Option<Message>,
    subscription: Option<String>,
    /// Only an object resource that stands alone has one here.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    attributes: Option<Attributes>,
    /// Standard base64; absent or empty under `payload_format: NONE`.
    data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    event_type: Option<String>,
    bucket_id: Option<String>,
    object_id: Option<String>,
    object_generation: Option<String>,
    payload_format: Option<String>,
}

/// Reads a wrapped push, and tells one that was unwrapped.
pub(super) fn wrapped(body: &[u8]) -> Result<Delivery, Unreadable> {
    let malformed = Err(Unreadable::Malformed("it is no Pub/Sub message"));
    let Ok(Envelope { message, subscription, kind }) = serde_json::from_slice(body) else { return malformed };
    let Some(Message { attributes, data }) = message else {
        let is_resource = kind.is_some_and(|kind| kind == "storage#object");
        return if is_resource { Err(Unreadable::Unwrapped) } else { malformed };
    };
    let Some(attributes) = attributes else { return malformed };
    let notice = match attributes.event_type.as_deref() {
        Some("OBJECT_FINALIZE") => {
            let resource = match (attributes.payload_format.as_deref(), data.as_deref()) {
                (None | Some("JSON_API_V1"), Some(data)) if !data.is_empty() => payload(data)?,
                // Without a payload there is no hint; the attributes name the object all the same.
                _ => Resource::default(),
            };
            let generation = attributes.object_generation.and_then(|text| text.parse().ok());
            Some(resource.notice(attributes.bucket_id.as_deref(), attributes.object_id.as_deref(), generation)?)
        }
        Some(_) => None,
        None => return Err(Unreadable::Malformed("it is no event of storage")),
    };
    Ok(Delivery { subscription, notice })
}

fn payload(data: &str) -> Result<Resource, Unreadable> {
    let text = STANDARD.decode(data).map_err(|_| Unreadable::Malformed("its data is not base64"))?;
    Resource::parse(&text)
}
