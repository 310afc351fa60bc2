//! Push subscriptions: who is told, in which form, as whom, and what goes wrong on the way.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::http::header;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::config::topic_name;
use super::queue::Queue;
use super::status::SubscriptionStatus;
use super::token::Identity;
use super::{Message, push};
use crate::clock::Randomness;
use crate::emulator::World;
use crate::model::Invalid;
use crate::model::address::UpstreamUrl;
use crate::model::time::Span;

/// How many subscriptions there may be.
const SUBSCRIPTIONS: usize = 100;

/// How many messages of a subscription are pushed at a time.
const AT_A_TIME: usize = 32;

/// How long a receiver may take for its answer: the default of `ackDeadlineSeconds`.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most copies, and the widest window of a shuffle.
const COPIES: u32 = 100;
const WINDOW: usize = 100_000;

/// What a push looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushForm {
    /// The wrapped message of Pub/Sub.
    #[default]
    PubSub,
    /// The `CloudEvent` of Eventarc in the binary mode of HTTP: the object's resource, and the rest in `ce-` headers.
    Eventarc,
}

/// A push subscription as it is to be made.
///
/// As JSON: `{"push_endpoint": "http://127.0.0.1:8080/push", "form": "pubsub", "audience": "a", "service_account":
/// "push@p.example", "copies": 5, "lose": 0.2}`, where only `push_endpoint` must be there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionSettings {
    /// Where messages are pushed: `https`, or `http` to loopback.
    pub push_endpoint: String,
    /// Its name; left out, `projects/emulator/subscriptions/push-1` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `projects/P/topics/T`: it hears what notification configs send there. Left out, it hears every event of every
    /// bucket, once and without any config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// What a push looks like.
    #[serde(default)]
    pub form: PushForm,
    /// Whom the token is for; left out, the push endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Whose token a push bears; left out, it bears none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Certificates in PEM that alone are trusted; left out, those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How often each message is delivered in all, from 1 to 100.
    #[serde(default = "once")]
    pub copies: u32,
    /// Which share of the messages is never pushed, from 0 to 1.
    #[serde(default)]
    pub lose: f64,
    /// In a window of how many deliveries the order is random. A delivery waits up to 100 ms for its window to fill.
    #[serde(default)]
    pub shuffle: usize,
    /// How long after its event a message is pushed at the earliest.
    #[serde(default = "at_once")]
    pub delay: Span,
    /// Whether nothing is pushed until the subscriptions are released.
    #[serde(default)]
    pub hold: bool,
}

fn once() -> u32 {
    1
}

fn at_once() -> Span {
    Span::seconds(0)
}

impl SubscriptionSettings {
    /// Every event to `push_endpoint` in the form of Pub/Sub, without a token, and with nothing going wrong.
    pub fn to(push_endpoint: impl Into<String>) -> Self {
        Self {
            push_endpoint: push_endpoint.into(),
            name: None,
            topic: None,
            form: PushForm::PubSub,
            audience: None,
            service_account: None,
            ca: None,
            copies: once(),
            lose: 0.0,
            shuffle: 0,
            delay: at_once(),
            hold: false,
        }
    }
}

/// Why a subscription cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// The endpoint is not to be pushed to.
    #[error("the push endpoint cannot be taken")]
    Endpoint(#[source] Invalid),
    /// The topic is none.
    #[error("{0:?} is not a topic such as projects/P/topics/T")]
    Topic(String),
    /// A number is out of its range.
    #[error("{0}")]
    Range(&'static str),
    /// There is one of that name.
    #[error("there is a subscription {0} already")]
    Taken(String),
    /// There are as many as there may be.
    #[error("there are {SUBSCRIPTIONS} subscriptions already")]
    Full,
    /// The file of certificates cannot be read, or holds none.
    #[error("{} cannot be used", .0.display())]
    Ca(PathBuf, #[source] io::Error),
    /// A certificate is malformed, or the system has none.
    #[error("no connection can be made with these certificates")]
    Tls(#[source] reqwest::Error),
}

/// A push subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) name: String,
    pub(super) topic: Option<String>,
    pub(super) settings: SubscriptionSettings,
    pub(super) queue: Queue,
    endpoint: Url,
    identity: Option<Identity>,
    client: reqwest::Client,
    /// Decides what is lost: a sequence of its own, so that the same events are lost however fast others are pushed.
    randomness: Randomness,
    lost: AtomicU64,
    last: Mutex<Option<String>>,
    ended: CancellationToken,
}

impl Subscription {
    fn new(
        name: String,
        settings: SubscriptionSettings,
        world: &World,
        ended: CancellationToken,
    ) -> Result<Self, SubscriptionError> {
        let endpoint: UpstreamUrl = settings.push_endpoint.parse().map_err(SubscriptionError::Endpoint)?;
        let topic = match &settings.topic {
            None => None,
            Some(text) => {
                let topic = topic_name(text).ok_or_else(|| SubscriptionError::Topic(text.clone()))?;
                Some(topic.to_owned())
            }
        };
        if !(1..=COPIES).contains(&settings.copies) {
            return Err(SubscriptionError::Range("copies is a number from 1 to 100"));
        }
        if !(0.0..=1.0).contains(&settings.lose) {
            return Err(SubscriptionError::Range("lose is a share from 0 to 1"));
        }
        if settings.shuffle > WINDOW {
            return Err(SubscriptionError::Range("shuffle is a number up to 100000"));
        }
        let audience = settings.audience.clone().unwrap_or_else(|| settings.push_endpoint.clone());
        let identity = settings.service_account.clone().map(|email| Identity::new(audience, email));
        let sequence = || Randomness::seeded(u64::from_le_bytes(world.randomness.bytes()));
        Ok(Self {
            name,
            topic,
            client: client(&settings)?,
            endpoint: endpoint.as_url().clone(),
            identity,
            queue: Queue::new(settings.shuffle, settings.hold, sequence()),
            randomness: sequence(),
            settings,
            lost: AtomicU64::new(0),
            last: Mutex::default(),
            ended,
        })
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues a message, or loses it.
    pub(super) fn take(&self, message: &Arc<Message>) {
        if self.randomness.fraction() < self.settings.lose {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.queue.push(message, self.settings.copies, self.settings.delay.0);
        }
    }

    /// Delivers one message after another, for ever.
    async fn deliver(&self, world: &World) {
        loop {
            let delivery = self.queue.next().await;
            let outcome = match self.request(&delivery.message, world) {
                Ok(request) => push::send(request).await,
                Err(error) => Err(error),
            };
            let (Ok(last) | Err(last)) = &outcome;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last.clone());
            match outcome {
                Ok(_) => self.queue.delivered(delivery),
                Err(_) => self.queue.failed(delivery),
            }
        }
    }

    fn request(&self, message: &Message, world: &World) -> Result<reqwest::RequestBuilder, String> {
        let base = world.url();
        let request = self.client.post(self.endpoint.clone()).header(header::CONTENT_TYPE, "application/json");
        let request = match self.settings.form {
            PushForm::PubSub => request.body(message.wrapped(&base, &self.name)),
            PushForm::Eventarc => request.headers(message.cloud_headers()).body(message.cloud_body(&base)),
        };
        match &self.identity {
            None => Ok(request),
            Some(identity) => {
                let token = identity.token(&base, world.now()).map_err(|error| error.to_string())?;
                Ok(request.bearer_auth(token))
            }
        }
    }
}

fn client(settings: &SubscriptionSettings) -> Result<reqwest::Client, SubscriptionError> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        // Pub/Sub follows none, and takes them for refusals.
        .redirect(reqwest::redirect::Policy::none())
        .timeout(DEADLINE)
        .user_agent(concat!("upload-broker-emulator/", env!("CARGO_PKG_VERSION")));
    let builder = match &settings.ca {
        None => builder,
        Some(file) => {
            let pem = std::fs::read(file).map_err(|error| SubscriptionError::Ca(file.clone(), error))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(SubscriptionError::Tls)?;
            if certificates.is_empty() {
                let error = io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate");
                return Err(SubscriptionError::Ca(file.clone(), error));
            }
            builder.tls_certs_only(certificates)
        }
    };
    builder.build().map_err(SubscriptionError::Tls)
}

/// The push subscriptions of an emulator. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    world: Arc<World>,
}

impl Subscriptions {
    pub(in crate::emulator) fn of(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Makes a subscription, which hears of what happens from now on. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the settings cannot be taken.
    pub fn add(&self, settings: SubscriptionSettings) -> Result<(), SubscriptionError> {
        let notifications = &self.world.notifications;
        let made = {
            let mut inner = notifications.lock();
            inner.made += 1;
            inner.made
        };
        let name = settings.name.clone().unwrap_or_else(|| format!("projects/emulator/subscriptions/push-{made}"));
        // Not under the lock: reading certificates takes a while, and whoever changes an object would wait.
        let subscription = Subscription::new(name, settings, &self.world, notifications.stop.child_token())?;
        let subscription = Arc::new(subscription);
        {
            let subscriptions = &mut notifications.lock().subscriptions;
            if subscriptions.len() >= SUBSCRIPTIONS {
                return Err(SubscriptionError::Full);
            }
            if subscriptions.iter().any(|other| other.name == subscription.name) {
                return Err(SubscriptionError::Taken(subscription.name.clone()));
            }
            subscriptions.push(Arc::clone(&subscription));
        }
        for _ in 0..AT_A_TIME {
            let (subscription, world) = (Arc::clone(&subscription), Arc::clone(&self.world));
            notifications.tasks.spawn(async move {
                tokio::select! {
                    () = subscription.ended.cancelled() => {}
                    () = subscription.deliver(&world) => {}
                }
            });
        }
        Ok(())
    }

    fn all(&self) -> Vec<Arc<Subscription>> {
        self.world.notifications.lock().subscriptions.clone()
    }

    /// The subscriptions in the order in which they were made, and what has come of them.
    pub fn list(&self) -> Vec<SubscriptionStatus> {
        self.all().iter().map(|subscription| SubscriptionStatus::of(subscription)).collect()
    }

    /// Lets held subscriptions push.
    pub fn release(&self) {
        for subscription in self.all() {
            subscription.queue.release();
        }
    }

    /// Removes them all, with what they have not delivered.
    pub fn clear(&self) {
        let removed = std::mem::take(&mut self.world.notifications.lock().subscriptions);
        for subscription in removed {
            subscription.ended.cancel();
            subscription.queue.close();
        }
    }

    /// Waits until each subscription has delivered what it has heard. Without an end of its own: put a time-out around it.
    pub async fn delivered(&self) {
        for subscription in self.all() {
            subscription.queue.emptied().await;
        }
    }
}
