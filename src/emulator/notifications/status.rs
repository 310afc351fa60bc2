//! What a subscription says of itself.

use serde::Serialize;

use super::subscription::{PushForm, Subscription};

/// A subscription, and what has come of it so far. Copies count, each for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: String,
    /// Where it pushes to.
    pub push_endpoint: String,
    /// The topic that it hears; without one it hears every event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// How it says it.
    pub form: PushForm,
    /// How many deliveries wait or are being tried.
    pub queued: usize,
    /// How many were acknowledged.
    pub delivered: u64,
    /// How often one was tried and answered, or not answered in time.
    pub attempts: u64,
    /// How many messages were lost on demand, whatever number of copies.
    pub lost: u64,
    /// How many deliveries found the queue full.
    pub overflowed: u64,
    /// What came of the latest attempt: the status of the answer, or why there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

impl SubscriptionStatus {
    pub(super) fn of(subscription: &Subscription) -> Self {
        let counts = subscription.queue.counts();
        Self {
            name: subscription.name.clone(),
            push_endpoint: subscription.settings.push_endpoint.clone(),
            topic: subscription.topic.clone(),
            form: subscription.settings.form,
            queued: counts.queued,
            delivered: counts.delivered,
            attempts: counts.attempts,
            lost: subscription.lost(),
            overflowed: counts.overflowed,
            last: subscription.last(),
        }
    }
}
