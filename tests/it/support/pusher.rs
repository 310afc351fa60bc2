//! Whoever pushes storage's notifications, by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};
use upload_broker::identity::development::DevelopmentKey;
use upload_broker::model::time::Timestamp;

use super::user::Answer;
use super::{BUCKET, Broker, User, push_key};

/// The section that accepts what these pushes bear.
pub const SECTION: &str = r#"
[notifications]
issuer = "https://push.example"
jwks_file = "push.json"
algorithms = ["ES256"]
audience = "https://eu.uploads.example.com/v1/notifications/storage"
service_account = "push@acme.iam.gserviceaccount.com"
"#;

/// Where pushes go.
pub const PATH: &str = "/v1/notifications/storage";

/// The claims of a good token, as Google makes them.
pub fn claims(now: Timestamp) -> Map<String, Value> {
    let claims = json!({
        "iss": "https://push.example",
        "aud": "https://eu.uploads.example.com/v1/notifications/storage",
        "azp": "1093", "sub": "1093",
        "email": "push@acme.iam.gserviceaccount.com", "email_verified": true,
        "iat": now.as_secs(), "exp": now.as_secs() + 3600,
    });
    claims.as_object().unwrap().clone()
}

/// Pushes to one broker.
pub struct Pusher {
    user: User,
}

impl Pusher {
    pub fn new(broker: &Broker) -> Self {
        Self::signed(broker, push_key(), &claims(broker.clock.now()))
    }

    /// With another token.
    pub fn signed(broker: &Broker, key: &DevelopmentKey, claims: &Map<String, Value>) -> Self {
        Self { user: broker.user("nobody").bearing(key.sign(claims).unwrap()) }
    }

    /// Sends these bytes.
    pub async fn send(&self, headers: HeaderMap, body: impl Into<reqwest::Body>) -> Answer {
        let url = format!("{}{PATH}", self.user.broker);
        let request = self.user.client.post(url).bearer_auth(&self.user.token).headers(headers).body(body);
        Answer::of(request.send().await.unwrap()).await.unwrap()
    }

    /// Pushes a message by Pub/Sub.
    pub async fn push(&self, message: &Value) -> Answer {
        self.user.call(reqwest::Method::POST, PATH, Some(message)).await
    }
}

/// The object resource, as it is told.
pub fn resource(object: &str, generation: i64, hint: Option<&str>) -> Value {
    let mut resource = json!({
        "kind": "storage#object", "id": format!("{BUCKET}/{object}/{generation}"), "bucket": BUCKET, "name": object,
        "generation": generation.to_string(), "metageneration": "1", "contentType": "video/mp4", "size": "10",
    });
    if let Some(hint) = hint {
        resource["metadata"] = json!({"upload-broker-id": hint});
    }
    resource
}

/// A wrapped push about `resource`.
pub fn message(event: &str, resource: &Value) -> Value {
    json!({
        "message": {
            "attributes": {
                "eventType": event, "payloadFormat": "JSON_API_V1",
                "bucketId": resource["bucket"], "objectId": resource["name"], "objectGeneration": resource["generation"],
                "notificationConfig": "projects/_/buckets/media-eu/notificationConfigs/3",
            },
            "data": STANDARD.encode(resource.to_string()), "messageId": "1", "message_id": "1",
        },
        "subscription": "projects/acme/subscriptions/uploads-eu",
    })
}

/// The push that storage sends when this upload's object was made.
pub fn finalized(broker: &Broker, created: &Answer) -> Value {
    let object = created.text("/object");
    let generation = broker.storage.object(BUCKET, &object).map_or(1, |found| found.generation);
    message("OBJECT_FINALIZE", &resource(&object, generation, Some(&created.id())))
}
