//! What is to be looked at, and when: one queue for each partition and region.
//!
//! Every upload that may still change, or that may still leave something behind at storage, has one entry. Whoever sweeps
//! claims entries that are due, which moves them to the end of a lease: any number may sweep at once, and an entry whose
//! sweeper dies comes back by itself. A claim costs by what is due, never by what exists.

use crate::model::id::{Partition, UploadId};
use crate::model::name::RegionName;
use crate::model::time::Timestamp;

use super::error::Error;
use super::memory::MemoryStore;
use super::metrics::Operation;
use super::record::millis;
use super::redis::RedisStore;
use super::reply::{Reply, unexpected};
use super::{Store, Tracked};

/// An entry that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The upload to look at.
    pub id: UploadId,
    /// Since when it has been due, also where it was claimed before and nothing came of that: to about ten seconds then, and
    /// eleven hours at the most.
    pub since: Timestamp,
}

impl Store {
    /// Takes up to `limit` uploads of `region` that are due, the longest overdue first. Nobody else is given them until
    /// the lease ends at `until`; then they are due again, unless they were scheduled or have ended. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. What was taken then comes back with the end of the lease.
    pub async fn claim_due(
        &self,
        partition: Partition,
        region: &RegionName,
        limit: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Due>, Error> {
        self.observed(Operation::Claim, async {
            match self {
                Self::Redis(store) => store.claim_due(partition, region, limit, now, until).await,
                Self::Memory(store) => Ok(store.claim_due(partition, region, limit, now, until)),
            }
        })
        .await
    }

    /// Says when `tracked` is to be looked at next, or that it never is again; only if it has not changed since it was
    /// read. Gives whether it had not. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call is safe.
    pub async fn schedule(&self, tracked: &Tracked, due: Option<Timestamp>) -> Result<bool, Error> {
        self.observed(Operation::Schedule, async {
            match self {
                Self::Redis(store) => store.schedule(tracked, due).await,
                Self::Memory(store) => Ok(store.schedule_at(tracked, due)),
            }
        })
        .await
    }

    /// Has an upload whose record cannot be read come back at `due`, and not when the claim on it ends at `claimed_until`;
    /// only if it is still claimed so. Gives whether it was. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call is safe.
    pub async fn postpone(
        &self,
        id: UploadId,
        region: &RegionName,
        claimed_until: Timestamp,
        due: Timestamp,
    ) -> Result<bool, Error> {
        self.observed(Operation::Schedule, async {
            match self {
                Self::Redis(store) => store.postpone(id, region, claimed_until, due).await,
                Self::Memory(store) => Ok(store.postpone(id, claimed_until, due)),
            }
        })
        .await
    }

    /// Takes an upload that is not known any more from the queue of `region`. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call is safe.
    pub async fn unschedule(&self, id: UploadId, region: &RegionName) -> Result<(), Error> {
        self.observed(Operation::Schedule, async {
            match self {
                Self::Redis(store) => store.unschedule(id, region).await,
                Self::Memory(store) => {
                    store.unschedule(id);
                    Ok(())
                }
            }
        })
        .await
    }
}

impl RedisStore {
    async fn claim_due(
        &self,
        partition: Partition,
        region: &RegionName,
        limit: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Due>, Error> {
        let mut call = self.scripts.claim.prepare_invoke();
        call.key(self.keys.due(partition, region)).arg(millis(now)).arg(millis(until)).arg(limit);
        let reply: Vec<(Vec<u8>, i64)> =
            redis::from_redis_value(self.script(&call).await?).map_err(|_| unexpected())?;
        let due = |(random, since): (Vec<u8>, i64)| {
            let id = UploadId::new(partition, random.try_into().ok()?);
            Some(Due { id, since: Timestamp::from_millis(since) })
        };
        reply.into_iter().map(due).collect::<Option<_>>().ok_or_else(unexpected)
    }

    async fn schedule(&self, tracked: &Tracked, due: Option<Timestamp>) -> Result<bool, Error> {
        let Tracked { upload, revision, .. } = tracked;
        self.schedule_if(upload.id, &upload.region, &revision.0.to_be_bytes(), due).await
    }

    async fn postpone(
        &self,
        id: UploadId,
        region: &RegionName,
        claimed_until: Timestamp,
        due: Timestamp,
    ) -> Result<bool, Error> {
        let mut call = self.scripts.postpone.prepare_invoke();
        call.key(self.keys.due(id.partition(), region))
            .arg(&id.random()[..])
            .arg(millis(claimed_until))
            .arg(millis(due));
        Reply(self.script(&call).await?).truth()
    }

    async fn unschedule(&self, id: UploadId, region: &RegionName) -> Result<(), Error> {
        self.schedule_if(id, region, &[], None).await.map(drop)
    }

    async fn schedule_if(
        &self,
        id: UploadId,
        region: &RegionName,
        revision: &[u8],
        due: Option<Timestamp>,
    ) -> Result<bool, Error> {
        let mut call = self.scripts.schedule.prepare_invoke();
        call.key(self.keys.record(id))
            .key(self.keys.due(id.partition(), region))
            .arg(&id.random()[..])
            .arg(revision)
            .arg(due.map(|due| millis(due).to_string()).unwrap_or_default());
        Reply(self.script(&call).await?).truth()
    }
}

impl MemoryStore {
    fn claim_due(
        &self,
        partition: Partition,
        region: &RegionName,
        limit: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Vec<Due> {
        let known = &mut *self.known();
        let is_ours = |id: UploadId| {
            id.partition() == partition
                && known.uploads.get(&id).is_some_and(|kept| kept.tracked.upload.region == *region)
        };
        let overdue = known.due.iter().take_while(|(since, _)| *since <= now).filter(|(_, id)| is_ours(*id));
        let since = |id: UploadId, due| known.uploads.get(&id).and_then(|kept| kept.overdue_since).unwrap_or(due);
        let claimed: Vec<Due> =
            overdue.take(limit as usize).map(|&(due, id)| Due { id, since: since(id, due) }).collect();
        for Due { id, since } in &claimed {
            known.schedule(*id, Some(until));
            known.uploads.entry(*id).and_modify(|kept| kept.overdue_since = Some(*since));
        }
        claimed
    }

    fn schedule_at(&self, tracked: &Tracked, due: Option<Timestamp>) -> bool {
        let known = &mut *self.known();
        let id = tracked.upload.id;
        let unchanged = known.uploads.get(&id).is_some_and(|kept| kept.tracked.revision == tracked.revision);
        if unchanged {
            known.schedule(id, due);
        }
        unchanged
    }

    fn postpone(&self, id: UploadId, claimed_until: Timestamp, due: Timestamp) -> bool {
        let known = &mut *self.known();
        let is_claimed = known.due.contains(&(claimed_until, id));
        if is_claimed {
            known.schedule(id, Some(due));
        }
        is_claimed
    }

    fn unschedule(&self, id: UploadId) {
        let known = &mut *self.known();
        if !known.uploads.contains_key(&id) {
            known.due.retain(|(_, other)| *other != id);
        }
    }
}
