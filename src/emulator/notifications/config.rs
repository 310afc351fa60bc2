//! Notification configs: which events of a bucket go to which topic (storage documentation, "Notifications").

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::event::{Event, EventType};
use crate::emulator::http::{Call, Failure, selected};
use crate::emulator::journal::Operation;
use crate::emulator::problem::{self, Answer, Problem};
use crate::emulator::target::Route;
use crate::emulator::upload::NO_BUCKET;

/// How many configs a bucket may have, and how many of them may ask for one type of event (storage documentation, "Quotas
/// and limits"; as are the limits below).
const CONFIGS: usize = 100;
const CONFIGS_PER_TYPE: usize = 10;

const ATTRIBUTES: usize = 5;
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;

/// The longest name of an object: a longer beginning fits none.
const PREFIX_BYTES: usize = 1024;

/// What a topic's full name begins with.
const SERVICE: &str = "//pubsub.googleapis.com/";

/// What the messages of a config contain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Payload {
    /// The object's resource.
    #[default]
    JsonApiV1,
    /// Nothing.
    None,
}

impl Payload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::JsonApiV1 => "JSON_API_V1",
            Self::None => "NONE",
        }
    }
}

/// A config as a client describes it; what cannot be written is ignored.
#[derive(Debug, Deserialize)]
struct Wish {
    topic: Option<String>,
    event_types: Option<Vec<EventType>>,
    object_name_prefix: Option<String>,
    payload_format: Option<Payload>,
    custom_attributes: Option<BTreeMap<String, String>>,
}

/// A notification config.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) id: u64,
    /// `projects/P/topics/T`.
    pub(super) topic: String,
    pub(super) payload: Payload,
    pub(super) attributes: BTreeMap<String, String>,
    /// Empty means every type.
    event_types: Vec<EventType>,
    prefix: String,
}

impl Config {
    fn asks_for(&self, event_type: EventType) -> bool {
        self.event_types.is_empty() || self.event_types.contains(&event_type)
    }

    fn resource(&self, base: &str, bucket: &str) -> Value {
        let id = self.id.to_string();
        let mut resource = json!({
            "kind": "storage#notification",
            "id": id,
            "etag": id,
            "selfLink": format!("{base}/storage/v1/b/{bucket}/notificationConfigs/{id}"),
            "topic": format!("{SERVICE}{}", self.topic),
            "payload_format": self.payload,
        });
        if !self.event_types.is_empty() {
            resource["event_types"] = json!(self.event_types);
        }
        if !self.prefix.is_empty() {
            resource["object_name_prefix"] = json!(self.prefix);
        }
        if !self.attributes.is_empty() {
            resource["custom_attributes"] = json!(self.attributes);
        }
        resource
    }
}

/// The configs of one bucket, by their ids, which count from 1 and are never given again.
#[derive(Debug, Default)]
pub(super) struct Configs {
    last: u64,
    by_id: BTreeMap<u64, Arc<Config>>,
}

impl Configs {
    /// The configs that are for the event.
    pub(super) fn fitting(&self, event: &Event) -> impl Iterator<Item = &Arc<Config>> {
        let (event_type, name) = (event.kind.event_type(), &event.object.name);
        self.by_id.values().filter(move |config| config.asks_for(event_type) && name.starts_with(&config.prefix))
    }

    fn add(&mut self, wish: Wish) -> Result<Arc<Config>, Problem> {
        let topic = wish.topic.ok_or_else(|| Problem::required("Required: topic"))?;
        let topic = topic.strip_prefix(SERVICE).and_then(topic_name);
        let topic = topic.ok_or_else(|| Problem::invalid(format!("A topic is {SERVICE}projects/P/topics/T.")))?;
        let attributes = wish.custom_attributes.unwrap_or_default();
        let fits =
            |(key, value): (&String, &String)| (1..=KEY_BYTES).contains(&key.len()) && value.len() <= VALUE_BYTES;
        if attributes.len() > ATTRIBUTES || !attributes.iter().all(fits) {
            return Err(Problem::invalid("Invalid value for custom_attributes."));
        }
        let prefix = wish.object_name_prefix.unwrap_or_default();
        if prefix.len() > PREFIX_BYTES {
            return Err(Problem::invalid("Invalid value for object_name_prefix."));
        }
        let config = Config {
            id: self.last + 1,
            topic: topic.to_owned(),
            payload: wish.payload_format.unwrap_or_default(),
            attributes,
            event_types: wish.event_types.unwrap_or_default(),
            prefix,
        };
        if self.by_id.len() >= CONFIGS {
            return Err(Problem::invalid(format!("A bucket has at most {CONFIGS} notification configs.")));
        }
        let is_crowded = |asked: EventType| {
            let others = self.by_id.values().filter(|other| other.asks_for(asked)).count();
            config.asks_for(asked) && others >= CONFIGS_PER_TYPE
        };
        if EventType::ALL.into_iter().any(is_crowded) {
            let message = format!("A bucket has at most {CONFIGS_PER_TYPE} notification configs for a type of event.");
            return Err(Problem::invalid(message));
        }
        self.last += 1;
        let config = Arc::new(config);
        self.by_id.insert(self.last, Arc::clone(&config));
        Ok(config)
    }
}

/// A topic's name as Pub/Sub has it, `projects/P/topics/T`, with or without the service in front.
pub(super) fn topic_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix(SERVICE).unwrap_or(text);
    let mut parts = name.split('/');
    let is_topic = parts.next() == Some("projects")
        && parts.next().is_some_and(|project| !project.is_empty())
        && parts.next() == Some("topics")
        && parts.next().is_some_and(|topic| !topic.is_empty())
        && parts.next().is_none();
    is_topic.then_some(name)
}

/// Answers what is asked of a bucket's configs.
pub(in crate::emulator) async fn serve(
    call: &mut Call<'_>,
    operation: Operation,
    route: &Route,
) -> Result<Answer, Failure> {
    call.authorize()?;
    let (Route::NotificationConfigs { bucket } | Route::NotificationConfig { bucket, .. }) = route else {
        return Err(Problem::not_found("Not Found").into());
    };
    call.world.objects.bucket(bucket).ok_or_else(|| Problem::not_found(NO_BUCKET))?;
    let reads = matches!(operation, Operation::ListNotificationConfigs | Operation::GetNotificationConfig);
    call.permit(bucket, if reads { "storage.buckets.get" } else { "storage.buckets.update" })?;
    let wish = match operation {
        Operation::CreateNotificationConfig => Some(wish(call).await?),
        _ => None,
    };
    let mut inner = call.world.notifications.lock();
    let base = call.base();
    Ok(match (wish, operation, route) {
        (Some(wish), ..) => {
            let configs = inner.configs.entry(bucket.clone()).or_default();
            selected(call, configs.add(wish)?.resource(&base, bucket))?
        }
        (_, Operation::ListNotificationConfigs, _) => {
            let mut answer = json!({"kind": "storage#notifications"});
            let configs = inner.configs.get(bucket).map(|configs| configs.by_id.values());
            let items: Vec<_> = configs.into_iter().flatten().map(|config| config.resource(&base, bucket)).collect();
            if !items.is_empty() {
                answer["items"] = Value::Array(items);
            }
            selected(call, answer)?
        }
        (_, Operation::GetNotificationConfig, Route::NotificationConfig { id, .. }) => {
            let config = inner.configs.get(bucket).zip(number(id)).and_then(|(configs, id)| configs.by_id.get(&id));
            selected(call, config.ok_or_else(|| missing(id))?.resource(&base, bucket))?
        }
        (_, Operation::DeleteNotificationConfig, Route::NotificationConfig { id, .. }) => {
            let configs = inner.configs.get_mut(bucket).zip(number(id));
            configs.and_then(|(configs, id)| configs.by_id.remove(&id)).ok_or_else(|| missing(id))?;
            problem::empty(StatusCode::NO_CONTENT)
        }
        _ => return Err(Problem::method_not_allowed().into()),
    })
}

async fn wish(call: &mut Call<'_>) -> Result<Wish, Failure> {
    let wish = Wish::deserialize(Value::Object(call.resource().await?));
    wish.map_err(|error| Problem::invalid(format!("Invalid notification config: {error}.")).into())
}

/// An id as it is written; `07` is none.
fn number(id: &str) -> Option<u64> {
    id.parse::<u64>().ok().filter(|number| number.to_string() == id)
}

fn missing(id: &str) -> Problem {
    Problem::not_found(format!("No such notification config: {id}"))
}
