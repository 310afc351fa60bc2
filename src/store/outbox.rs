//! Who is still to be told of which end: for each partition and endpoint, the deliveries that wait and those given up.
//!
//! A delivery is written by the step that ends its upload, in the same script, and names that upload; what is to be told
//! stands in the upload's record, which outlives it. An upload ends once, so it has one delivery for each endpoint, and the
//! order of the events of one upload is given. Claims work as those of the due queue (`due.rs`).

use crate::model::endpoint::EndpointId;
use crate::model::id::{Partition, UploadId};
use crate::model::time::Timestamp;

use super::Store;
use super::error::Error;
use super::keys::DELIVERY_LIFE;
use super::memory::{FORGET_AT_ONCE, MemoryStore};
use super::metrics::Operation;
use super::record::millis;
use super::redis::{RedisStore, life};
use super::reply::{Reply, unexpected};

/// How many deliveries of one endpoint may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// How many at the most.
    pub limit: u32,
}

/// Somebody who is to be told of an upload's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The upload, which has ended.
    pub id: UploadId,
    /// Who is to be told.
    pub endpoint: EndpointId,
    /// What became of it so far.
    pub failures: Failures,
}

/// How often a delivery has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many times.
    pub count: u32,
    /// How it failed last, for operators; empty if it never did.
    pub last: String,
}

/// What came of an attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// There is nothing more to do: the endpoint has taken it, or the upload is forgotten.
    Done,
    /// It failed, and is to be tried again.
    Failed {
        /// This failure included.
        failures: Failures,
        /// When to try again.
        next: Timestamp,
        /// The present.
        at: Timestamp,
    },
    /// It failed, and is given up until somebody replays it.
    GivenUp {
        /// This failure included.
        failures: Failures,
        /// The present.
        at: Timestamp,
    },
}

/// A delivery that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The upload whose end was to be told.
    pub id: UploadId,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub failures: Failures,
}

/// Some of the parked deliveries of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedPage {
    /// By partition, and there by age.
    pub parked: Vec<Parked>,
    /// The last one, if others follow it.
    pub next: Option<UploadId>,
}

impl Failures {
    fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let (count, last) = text.split_once(' ').unwrap_or((&text, ""));
        Self { count: count.parse().unwrap_or(0), last: last.to_owned() }
    }

    fn packed(&self) -> String {
        format!("{} {}", self.count, self.last)
    }
}

impl Store {
    /// Takes deliveries that are due, up to each endpoint's limit. Nobody else is given them until the lease ends at
    /// `until`; then they are due again, unless it was said before what came of them. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. What was taken then comes back with the end of the lease.
    pub async fn claim_deliveries(
        &self,
        partition: Partition,
        wanted: &[Wanted],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Delivery>, Error> {
        self.observed(Operation::ClaimDeliveries, async {
            match self {
                Self::Redis(store) => store.claim_deliveries(partition, wanted, now, until).await,
                Self::Memory(store) => Ok(store.claim_deliveries(partition, wanted, now, until)),
            }
        })
        .await
    }

    /// Says what came of an attempt. Changes nothing when the delivery does not wait any more. Each failure has a few of
    /// the deliveries forgotten that were given up so long ago that their uploads are. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call is safe; left undone, the delivery is made once more.
    pub async fn settle_delivery(
        &self,
        id: UploadId,
        endpoint: EndpointId,
        attempted: &Attempted,
    ) -> Result<(), Error> {
        self.observed(Operation::SettleDelivery, async {
            match self {
                Self::Redis(store) => store.settle_delivery(id, endpoint, attempted).await,
                Self::Memory(store) => {
                    store.settle_delivery(id, endpoint, attempted);
                    Ok(())
                }
            }
        })
        .await
    }

    /// Some of the deliveries of `endpoint` that were given up: up to `limit`, those behind `after`, or from the beginning
    /// of its partition on where that is not among them any more. A round trip for each partition that has none, two or
    /// three for others.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn parked(
        &self,
        endpoint: EndpointId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<ParkedPage, Error> {
        self.observed(Operation::Parked, async {
            let mut page = ParkedPage::default();
            let first = after.map_or(0, |id| id.partition().0);
            for partition in (first..=u8::MAX).map(Partition) {
                let missing = limit - page.parked.len();
                let after = after.filter(|after| after.partition() == partition);
                // One more than is wanted tells whether anything follows.
                let found = match self {
                    Self::Redis(store) => store.parked_in(partition, endpoint, after, missing + 1).await?,
                    Self::Memory(store) => store.parked_in(partition, endpoint, after, missing + 1),
                };
                let more = found.len() > missing;
                page.parked.extend(found.into_iter().take(missing));
                if more {
                    page.next = page.parked.last().map(|last| last.id);
                    break;
                }
            }
            Ok(page)
        })
        .await
    }

    /// Puts a delivery that was given up back among those that wait, due at once. Gives whether it was given up, and its
    /// upload is still known. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call is safe.
    pub async fn replay(&self, id: UploadId, endpoint: EndpointId, now: Timestamp) -> Result<bool, Error> {
        self.observed(Operation::Replay, async {
            match self {
                Self::Redis(store) => store.replay(id, endpoint, now).await,
                Self::Memory(store) => Ok(store.replay(id, endpoint, now)),
            }
        })
        .await
    }
}

impl RedisStore {
    async fn claim_deliveries(
        &self,
        partition: Partition,
        wanted: &[Wanted],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Delivery>, Error> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.scripts.claim_deliveries.prepare_invoke();
        call.arg(millis(now)).arg(millis(until));
        for Wanted { endpoint, limit } in wanted {
            call.key(self.keys.outbox(partition, *endpoint)).key(self.keys.failures(partition, *endpoint)).arg(limit);
        }
        let reply: Vec<Vec<(Vec<u8>, Vec<u8>)>> =
            redis::from_redis_value(self.script(&call).await?).map_err(|_| unexpected())?;
        let mut claimed = Vec::new();
        for (Wanted { endpoint, .. }, found) in wanted.iter().zip(reply) {
            for (random, failures) in found {
                let random = random.try_into().map_err(|_| unexpected())?;
                let (id, failures) = (UploadId::new(partition, random), Failures::parse(&failures));
                claimed.push(Delivery { id, endpoint: *endpoint, failures });
            }
        }
        Ok(claimed)
    }

    async fn settle_delivery(&self, id: UploadId, endpoint: EndpointId, attempted: &Attempted) -> Result<(), Error> {
        let (outcome, when, failures, now) = match attempted {
            Attempted::Done => ("done", 0, String::new(), None),
            Attempted::Failed { failures, next, at } => ("retry", millis(*next), failures.packed(), Some(at)),
            Attempted::GivenUp { failures, at } => ("park", millis(*at), failures.packed(), Some(at)),
        };
        let partition = id.partition();
        let mut call = self.scripts.settle_delivery.prepare_invoke();
        call.key(self.keys.outbox(partition, endpoint))
            .key(self.keys.failures(partition, endpoint))
            .key(self.keys.parked(partition, endpoint))
            .arg(&id.random()[..])
            .arg(outcome)
            .arg(when)
            .arg(failures)
            .arg(life(DELIVERY_LIFE))
            .arg(now.map_or(0, |now| millis(now.minus(DELIVERY_LIFE))));
        self.script(&call).await.map(drop)
    }

    async fn parked_in(
        &self,
        partition: Partition,
        endpoint: EndpointId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<Parked>, Error> {
        let key = self.keys.parked(partition, endpoint);
        let mut first = 0;
        if let Some(after) = after {
            let mut rank = redis::cmd("ZRANK");
            rank.arg(&key).arg(&after.random()[..]);
            let rank: Option<usize> = redis::from_redis_value(self.command(&rank).await?).map_err(|_| unexpected())?;
            first = rank.map_or(0, |rank| rank + 1);
        }
        let mut range = redis::cmd("ZRANGE");
        range.arg(&key).arg(first).arg(first + limit - 1).arg("WITHSCORES");
        let found: Vec<(Vec<u8>, f64)> =
            redis::from_redis_value(self.command(&range).await?).map_err(|_| unexpected())?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = redis::cmd("HMGET");
        get.arg(self.keys.failures(partition, endpoint));
        for (random, _) in &found {
            get.arg(random);
        }
        let failures: Vec<Option<Vec<u8>>> =
            redis::from_redis_value(self.command(&get).await?).map_err(|_| unexpected())?;
        let parked = |((random, since), failures): ((Vec<u8>, f64), Option<Vec<u8>>)| {
            #[expect(clippy::cast_possible_truncation, reason = "a score is written as whole milliseconds below 2^48")]
            let since = Timestamp::from_millis(since as i64);
            let id = UploadId::new(partition, random.try_into().ok()?);
            Some(Parked { id, since, failures: Failures::parse(&failures.unwrap_or_default()) })
        };
        found.into_iter().zip(failures).map(parked).collect::<Option<_>>().ok_or_else(unexpected)
    }

    async fn replay(&self, id: UploadId, endpoint: EndpointId, now: Timestamp) -> Result<bool, Error> {
        let partition = id.partition();
        let mut call = self.scripts.replay.prepare_invoke();
        call.key(self.keys.outbox(partition, endpoint))
            .key(self.keys.failures(partition, endpoint))
            .key(self.keys.parked(partition, endpoint))
            .key(self.keys.record(id))
            .arg(&id.random()[..])
            .arg(millis(now))
            .arg(life(DELIVERY_LIFE));
        Reply(self.script(&call).await?).truth()
    }
}

/// A delivery in the memory store.
pub(super) struct Kept {
    failures: Failures,
    /// When to try next; or since when it has been parked.
    at: Timestamp,
    is_parked: bool,
}

impl Kept {
    /// A new delivery, due at once.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { failures: Failures::default(), at: now, is_parked: false }
    }
}

/// The names of the first and the last upload that a partition can have.
fn bounds(partition: Partition, endpoint: EndpointId) -> std::ops::RangeInclusive<(EndpointId, UploadId)> {
    (endpoint, UploadId::new(partition, [0; 16]))..=(endpoint, UploadId::new(partition, [0xFF; 16]))
}

impl MemoryStore {
    fn claim_deliveries(
        &self,
        partition: Partition,
        wanted: &[Wanted],
        now: Timestamp,
        until: Timestamp,
    ) -> Vec<Delivery> {
        let known = &mut *self.known();
        let mut claimed = Vec::new();
        for Wanted { endpoint, limit } in wanted {
            let waiting = known.deliveries.range_mut(bounds(partition, *endpoint));
            let mut due: Vec<_> = waiting.filter(|(_, kept)| !kept.is_parked && kept.at <= now).collect();
            due.sort_by_key(|(_, kept)| kept.at);
            for ((endpoint, id), kept) in due.into_iter().take(*limit as usize) {
                kept.at = until;
                claimed.push(Delivery { id: *id, endpoint: *endpoint, failures: kept.failures.clone() });
            }
        }
        claimed
    }

    fn settle_delivery(&self, id: UploadId, endpoint: EndpointId, attempted: &Attempted) {
        let known = &mut *self.known();
        let Some(kept) = known.deliveries.get_mut(&(endpoint, id)).filter(|kept| !kept.is_parked) else { return };
        let now = match attempted {
            Attempted::Done => {
                known.deliveries.remove(&(endpoint, id));
                return;
            }
            Attempted::Failed { failures, next, at } => {
                *kept = Kept { failures: failures.clone(), at: *next, is_parked: false };
                at
            }
            Attempted::GivenUp { failures, at } => {
                *kept = Kept { failures: failures.clone(), at: *at, is_parked: true };
                at
            }
        };
        let oldest = now.minus(DELIVERY_LIFE);
        let of_partition = known.deliveries.range(bounds(id.partition(), endpoint));
        let old = of_partition.filter(|(_, kept)| kept.is_parked && kept.at <= oldest).map(|(name, _)| *name);
        for name in old.take(FORGET_AT_ONCE).collect::<Vec<_>>() {
            known.deliveries.remove(&name);
        }
    }

    fn parked_in(
        &self,
        partition: Partition,
        endpoint: EndpointId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Vec<Parked> {
        let known = self.known();
        let kept = known.deliveries.range(bounds(partition, endpoint)).filter(|(_, kept)| kept.is_parked);
        let parked = kept.map(|((_, id), kept)| Parked { id: *id, since: kept.at, failures: kept.failures.clone() });
        let mut parked: Vec<_> = parked.collect();
        parked.sort_by_key(|parked| (parked.since, parked.id));
        let position = parked.iter().position(|parked| Some(parked.id) == after);
        parked.into_iter().skip(position.map_or(0, |position| position + 1)).take(limit).collect()
    }

    fn replay(&self, id: UploadId, endpoint: EndpointId, now: Timestamp) -> bool {
        let known = &mut *self.known();
        let is_known = known.uploads.contains_key(&id);
        let Some(kept) = known.deliveries.get_mut(&(endpoint, id)).filter(|kept| kept.is_parked) else { return false };
        if is_known {
            *kept = Kept::new(now);
        } else {
            known.deliveries.remove(&(endpoint, id));
        }
        is_known
    }
}
