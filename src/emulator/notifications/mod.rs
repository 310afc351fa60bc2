//! Object notifications, as storage publishes them and Pub/Sub or Eventarc pushes them.
//!
//! A change of an object becomes an [`Event`]. Each notification config of its bucket that fits makes a [`Message`] of it
//! for the config's topic, and each [`Subscription`] to that topic queues the message and pushes it until it is
//! acknowledged. A subscription without a topic needs no config: it hears every event of every bucket once, as by a config
//! for everything in `JSON_API_V1` whose id is 0, whatever other configs there are.
//!
//! Topics need not be made: they are the names that configs and subscriptions share. A message is rendered each time it is
//! pushed, so that a long queue costs little more than the descriptions of its objects.

mod config;
mod event;
mod push;
mod queue;
mod status;
mod subscription;
mod token;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::World;
use super::attributes::Attributes;
use super::content::Sealed;
use super::insertion::Insertion;
use super::objects::{Condition, Description, Inserted, Miss};

pub(super) use self::config::serve;
use self::config::{Config, Configs};
use self::event::{Event, Kind};
pub use self::status::SubscriptionStatus;
use self::subscription::Subscription;
pub use self::subscription::{PushForm, SubscriptionError, SubscriptionSettings, Subscriptions};
pub(super) use self::token::tell;

/// Who is to hear of changes, and by whom.
#[derive(Debug)]
pub(super) struct Notifications {
    tasks: TaskTracker,
    /// Ends with the emulator, and all deliveries with it.
    stop: CancellationToken,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By bucket.
    configs: BTreeMap<String, Configs>,
    subscriptions: Vec<Arc<Subscription>>,
    /// How many subscriptions were made, those that are gone included: their names count on.
    made: u64,
    /// How many messages were published.
    messages: u64,
}

/// An event as it was published to a topic.
#[derive(Debug)]
struct Message {
    /// Counts from 1.
    id: u64,
    event: Arc<Event>,
    /// `None` for subscriptions without a topic.
    config: Option<Arc<Config>>,
}

impl Notifications {
    pub(super) fn new(tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { tasks, stop, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, event: Event) {
        let mut inner = self.lock();
        let Inner { configs, subscriptions, messages, .. } = &mut *inner;
        if subscriptions.is_empty() {
            return;
        }
        let event = Arc::new(event);
        let fitting = configs.get(&*event.object.bucket).into_iter().flat_map(|configs| configs.fitting(&event));
        for config in fitting.cloned().map(Some).chain([None]) {
            *messages += 1;
            let topic = config.as_ref().map(|config| config.topic.as_str());
            let listening = subscriptions.iter().filter(|subscription| subscription.topic.as_deref() == topic);
            let message = Arc::new(Message { id: *messages, event: Arc::clone(&event), config: config.clone() });
            for subscription in listening {
                subscription.take(&message);
            }
        }
    }
}

/// The changes of objects, each of which is announced before its caller is answered.
impl World {
    /// Makes the object live, if the preconditions hold at this moment.
    pub(super) fn insert(
        &self,
        bucket: &str,
        insertion: &Insertion,
        attributes: Attributes,
        content: Sealed,
    ) -> Result<Arc<Description>, Miss> {
        let at = self.now();
        let Inserted { object, replaced } = self.objects.insert(bucket, insertion, attributes, content, at)?;
        let overwrote = replaced.as_ref().map(|replaced| replaced.generation);
        let by = object.generation;
        self.notifications.announce(Event { kind: Kind::Finalize { overwrote }, object: Arc::clone(&object), at });
        if let Some(replaced) = replaced {
            self.notifications.announce(Event { kind: Kind::Delete { by: Some(by) }, object: replaced, at });
        }
        Ok(object)
    }

    /// Removes the live object, if it is the one meant.
    pub(super) fn remove(&self, bucket: &str, name: &str, condition: Condition) -> Result<(), Miss> {
        let object = self.objects.remove(bucket, name, condition)?;
        self.notifications.announce(Event { kind: Kind::Delete { by: None }, object, at: self.now() });
        Ok(())
    }

    /// Changes what is said of the live object.
    pub(super) fn patch<E>(
        &self,
        bucket: &str,
        name: &str,
        condition: Condition,
        change: impl FnOnce(&mut Attributes) -> Result<(), E>,
    ) -> Result<Result<Arc<Description>, E>, Miss> {
        let at = self.now();
        let patched = self.objects.patch(bucket, name, condition, at, change)?;
        if let Ok(object) = &patched {
            self.notifications.announce(Event { kind: Kind::MetadataUpdate, object: Arc::clone(object), at });
        }
        Ok(patched)
    }
}
