//! Delivers what waits: takes it from the store, sends it, and says what came of it.
//!
//! Every endpoint is served by a task of its own, which takes no more than it may have under way. What is taken is
//! leased: an instance that dies leaves it to others, or to itself, when the lease is over. So a message can come twice,
//! always under one id.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::endpoint::{ATTEMPTS_AT_ONCE, Endpoint};
use super::event::{EventKind, event_id, payload};
use super::metrics::{DeliveryResult, Metrics};
use super::schedule::{self, Next};
use super::send::{ATTEMPT_TIME, Failure, Message};
use crate::clock::{Clock, Randomness};
use crate::model::chain;
use crate::model::endpoint::EndpointId;
use crate::model::id::{Partition, UploadId};
use crate::model::time::Timestamp;
use crate::store::{self, Attempted, Delivery, Failures, Store, Tracked, Wanted};
use crate::telemetry::outage::Outage;
use crate::telemetry::trace::{self, Kind, Origin, Tracer};

/// How long what was taken belongs to whoever took it: longer than an attempt takes, and reading what it is about and
/// saying what came of it, from and to a store that answers late.
pub(super) const LEASE: Duration = ATTEMPT_TIME.saturating_add(Duration::from_secs(43));

/// How often every partition is looked into, for what was to be tried again, and for what another instance left.
pub(super) const POLL: Duration = Duration::from_secs(10);

/// The most that chance adds to [`POLL`], as a part of it.
pub(super) const JITTER: f64 = 0.5;

/// How long attempts under way may go on when all is to end.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The pauses between tries to say what came of an attempt.
const SETTLE_PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// How many endings that were just recorded may wait to be looked into. One more is found by the next poll.
pub const ENDINGS_AT_ONCE: usize = 1024;

/// Delivers the events that are recorded in a store to the endpoints of a configuration. Any number of instances may.
pub struct Webhooks {
    /// Tells the time.
    pub clock: Clock,
    /// Spreads what would happen at once.
    pub randomness: Randomness,
    /// Where events wait.
    pub store: Arc<Store>,
    /// Who is told. [`Webhooks::tell`] sets it.
    pub endpoints: watch::Sender<Vec<Arc<Endpoint>>>,
    /// An upload as the API shows it. It is given no session.
    pub render: fn(&Tracked) -> Value,
    /// Where deliveries are traced, if they are.
    pub tracer: Option<Arc<Tracer>>,
    /// What happened.
    pub metrics: Metrics,
}

/// An endpoint that a task serves.
struct Served {
    endpoint: Arc<Endpoint>,
    stop: CancellationToken,
}

impl Served {
    fn serves(&self, endpoint: &Arc<Endpoint>) -> bool {
        Arc::ptr_eq(&self.endpoint, endpoint)
    }
}

impl Webhooks {
    /// Delivers until `stop` is cancelled; attempts under way then have five seconds. `ended` names the partitions in
    /// which an event was just recorded, so that it does not wait for the next poll.
    pub async fn run(self: Arc<Self>, mut ended: mpsc::Receiver<Partition>, stop: CancellationToken) {
        let mut endpoints = self.endpoints.subscribe();
        endpoints.mark_changed();
        let mut servants = JoinSet::new();
        let mut served: Vec<Served> = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(partition) = ended.recv() => {
                    for one in &served {
                        one.endpoint.queue.push(partition);
                    }
                }
                Ok(()) = endpoints.changed() => {
                    let wanted = endpoints.borrow_and_update().clone();
                    let (kept, gone): (Vec<_>, Vec<_>) =
                        served.into_iter().partition(|one| wanted.iter().any(|wanted| one.serves(wanted)));
                    for one in gone {
                        one.stop.cancel();
                    }
                    served = kept;
                    for endpoint in wanted {
                        if !served.iter().any(|one| one.serves(&endpoint)) {
                            self.metrics.introduce(&endpoint.name);
                            let stop = stop.child_token();
                            servants.spawn(Arc::clone(&self).serve(Arc::clone(&endpoint), stop.clone()));
                            served.push(Served { endpoint, stop });
                        }
                    }
                }
                // Those of endpoints that are told no more.
                Some(_) = servants.join_next() => {}
            }
        }
        while servants.join_next().await.is_some() {}
    }

    /// Tells these from now on, and those that are not among them no more. One that is told the same at the same address
    /// goes on as it is, with the secrets that were read for it now.
    pub fn tell(&self, endpoints: Vec<Arc<Endpoint>>) {
        self.endpoints.send_modify(|told| {
            let kept_or_new = endpoints.into_iter().map(|fresh| match told.iter().find(|one| one.is_like(&fresh)) {
                Some(kept) => {
                    kept.take_secrets(&fresh);
                    Arc::clone(kept)
                }
                None => fresh,
            });
            *told = kept_or_new.collect();
        });
    }

    /// Takes what is due for one endpoint, as much as may be under way, for as long as there is something.
    async fn serve(self: Arc<Self>, endpoint: Arc<Endpoint>, stop: CancellationToken) {
        let mut attempts = JoinSet::new();
        let mut poll_at = Instant::now();
        let outage = Outage::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = attempts.join_next() => {}
                () = tokio::time::sleep_until(poll_at) => {
                    endpoint.queue.push_all(self.randomness.bytes());
                    poll_at = Instant::now() + POLL.mul_f64(1.0 + JITTER * self.randomness.fraction());
                }
                partition = endpoint.queue.next(), if attempts.len() < ATTEMPTS_AT_ONCE => {
                    let free = ATTEMPTS_AT_ONCE - attempts.len();
                    match self.claim(endpoint.id, partition, free).await {
                        Ok(claimed) => {
                            if outage.worked() {
                                info!(endpoint = %endpoint.name, "events can be read again");
                            }
                            // There may be more, for which the other partitions do not wait.
                            if claimed.len() >= free {
                                endpoint.queue.push(partition);
                            }
                            for delivery in claimed {
                                let (this, endpoint) = (Arc::clone(&self), Arc::clone(&endpoint));
                                // A trace of its own: what ended the upload may have been long ago, and elsewhere.
                                let begin = |tracer| Tracer::begin(tracer, Origin::Here, "webhook deliver", Kind::Internal);
                                let span = self.tracer.as_ref().map(begin);
                                let deliver = async move { this.deliver(&endpoint, delivery).await };
                                attempts.spawn(trace::run_logged(span, deliver));
                            }
                        }
                        Err(error) => {
                            // The next poll asks for all of them again.
                            endpoint.queue.clear();
                            if outage.failed() {
                                warn!(endpoint = %endpoint.name, error = chain(&error), "events cannot be read");
                            }
                        }
                    }
                }
            }
        }
        // What is cut here comes again when its lease is over.
        let _ = tokio::time::timeout(GRACE, async { while attempts.join_next().await.is_some() {} }).await;
    }

    async fn claim(
        &self,
        endpoint: EndpointId,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<Delivery>, store::Error> {
        let now = self.clock.now();
        let wanted = Wanted { endpoint, limit: u32::try_from(limit).unwrap_or(u32::MAX) };
        self.store.claim_deliveries(partition, &[wanted], now, now.plus(LEASE)).await
    }

    /// Makes one attempt, and records what came of it.
    async fn deliver(&self, endpoint: &Endpoint, delivery: Delivery) {
        trace::record("upload.id", || delivery.id.to_string());
        trace::record("webhook.endpoint", || endpoint.name.to_string());
        let tracked = match self.store.find(delivery.id).await {
            Ok(tracked) => tracked,
            Err(error @ (store::Error::Corrupt { .. } | store::Error::SealedByUnknownKey { .. })) => {
                // Perhaps a key is missing that comes back.
                warn!(upload.id = %delivery.id, error = chain(&error), "an event waits whose upload cannot be read");
                self.metrics.count(&endpoint.name, DeliveryResult::Failed);
                let attempted = self.after_failure(&delivery, "the record cannot be read", None, self.clock.now());
                return self.settle(endpoint, delivery.id, &attempted).await;
            }
            // The end of the lease brings it back.
            Err(_) => return,
        };
        // It is forgotten, and there is nothing to tell.
        let Some(tracked) = tracked else { return self.settle(endpoint, delivery.id, &Attempted::Done).await };
        // It was set back when a server was lost, and has its end before it. The event is left to wait for that: taken
        // away here, it could be the new one.
        let Some((kind, happened_at)) = EventKind::of(&tracked.upload.state) else { return };
        let upload = (self.render)(&Tracked { session: None, ..tracked });
        let message = Message { id: event_id(delivery.id), body: payload(kind, happened_at, upload) };
        let begun = Instant::now();
        let attempt = endpoint.sender.send(&message, self.clock.now());
        let result = trace::child("webhook attempt", Kind::Client, attempt).await;
        self.metrics.observe_attempt(&endpoint.name, begun.elapsed());
        let attempted = self.judge(endpoint, &delivery, happened_at, result);
        self.settle(endpoint, delivery.id, &attempted).await;
    }

    /// What an attempt means for the event, told in metrics and log.
    fn judge(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        happened_at: Timestamp,
        result: Result<(), Failure>,
    ) -> Attempted {
        let Err(failure) = result else {
            self.metrics.count(&endpoint.name, DeliveryResult::Accepted);
            self.metrics.observe_lag(&endpoint.name, self.clock.now().since(happened_at));
            if endpoint.outage.worked() {
                info!(endpoint = %endpoint.name, "a webhook endpoint accepts events again");
            }
            return Attempted::Done;
        };
        let reason = failure.reason.to_string();
        // One line for each outage: there may be very many events.
        if endpoint.outage.failed() {
            warn!(endpoint = %endpoint.name, reason, "a webhook endpoint does not accept events");
        }
        let attempted = self.after_failure(delivery, &reason, failure.retry_after, happened_at);
        let result = match &attempted {
            Attempted::GivenUp { .. } => {
                warn!(endpoint = %endpoint.name, upload.id = %delivery.id, reason, "an event is not sent any more");
                DeliveryResult::Parked
            }
            _ => DeliveryResult::Failed,
        };
        self.metrics.count(&endpoint.name, result);
        attempted
    }

    fn after_failure(
        &self,
        delivery: &Delivery,
        reason: &str,
        retry_after: Option<Duration>,
        happened_at: Timestamp,
    ) -> Attempted {
        let failures = Failures { count: delivery.failures.count.saturating_add(1), last: reason.to_owned() };
        let now = self.clock.now();
        match schedule::after_failure(failures.count, happened_at, now, retry_after, self.randomness.fraction()) {
            Next::Again(next) => Attempted::Failed { failures, next, at: now },
            Next::Park => Attempted::GivenUp { failures, at: now },
        }
    }

    /// Records what came of an attempt. What cannot be recorded is sent once more.
    async fn settle(&self, endpoint: &Endpoint, upload: UploadId, attempted: &Attempted) {
        let mut pauses = SETTLE_PAUSES.into_iter();
        while let Err(error) = self.store.settle_delivery(upload, endpoint.id, attempted).await {
            let Some(pause) = pauses.next() else {
                let error = chain(&error);
                warn!(endpoint = %endpoint.name, upload.id = %upload, error, "an event will be sent once more");
                return;
            };
            tokio::time::sleep(pause).await;
        }
    }
}
