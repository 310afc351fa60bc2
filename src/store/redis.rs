//! The store in Redis: one script an operation, each one atomic transition within one partition.
//!
//! The rules stand in Rust; scripts compare headers of records, count, and write all or nothing. Time is handed to them.
//! Lives of keys are relative and only tidy up.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use redis::{Cmd, Script, Value};

use crate::clock::Randomness;
use crate::model::endpoint::EndpointId;
use crate::model::id::UploadId;
use crate::model::idempotency::IdempotencyKey;
use crate::model::limits::{Enforcement, Limits};
use crate::model::name::PolicyName;
use crate::model::principal::PrincipalId;
use crate::model::secret::SessionUri;
use crate::model::time::Timestamp;
use crate::model::upload::{Upload, UploadState};

use super::connection::{self, Connections, Request, ServerFacts};
use super::error::{Error, OpenError};
use super::keys::{
    ACTIVE_CEILING, DELIVERY_LIFE, FINAL_RETENTION, INDEX_CEILING, INDEX_LIFE, KEY_LIFE, Keys, LEDGER_LIFE,
};
use super::ledger::{Bucket, countable, reservation_end};
use super::metrics::Metrics;
use super::record::{self, millis};
use super::reply::{Reply, hit, unexpected};
use super::seal::Keyring;
use super::{
    Admitted, Advanced, Attached, Cursor, Ending, Intent, Lease, LimitHit, Listing, Page, Revision, Settings, Standing,
    Tracked, Usage, live_retention, owners, session,
};

/// How often an admission is tried while others with the same idempotency key come in between.
const ADMIT_ATTEMPTS: usize = 4;

/// The store in a Redis server.
pub struct RedisStore {
    connections: Connections,
    pub(super) keys: Keys,
    keyring: ArcSwap<Keyring>,
    pub(super) scripts: Scripts,
    metrics: Metrics,
}

pub(super) struct Scripts {
    admit: Script,
    resume: Script,
    attach: Script,
    abandon: Script,
    advance: Script,
    usage: Script,
    page: Script,
    pub(super) claim: Script,
    pub(super) schedule: Script,
    pub(super) postpone: Script,
    pub(super) restore: Script,
    pub(super) claim_deliveries: Script,
    pub(super) settle_delivery: Script,
    pub(super) replay: Script,
    pub(super) forget_owners: Script,
}

impl Scripts {
    fn new() -> Self {
        /// A script that counts needs the functions of `ledger.lua`.
        macro_rules! counting {
            ($path:literal) => {
                Script::new(concat!(include_str!("lua/ledger.lua"), include_str!($path)))
            };
        }
        Self {
            admit: counting!("lua/admit.lua"),
            resume: counting!("lua/resume.lua"),
            attach: Script::new(include_str!("lua/attach.lua")),
            abandon: Script::new(include_str!("lua/abandon.lua")),
            advance: Script::new(include_str!("lua/advance.lua")),
            usage: counting!("lua/usage.lua"),
            page: Script::new(include_str!("lua/page.lua")),
            claim: Script::new(include_str!("lua/claim.lua")),
            schedule: Script::new(include_str!("lua/schedule.lua")),
            postpone: Script::new(include_str!("lua/postpone.lua")),
            restore: Script::new(include_str!("lua/restore.lua")),
            claim_deliveries: Script::new(include_str!("lua/claim_deliveries.lua")),
            settle_delivery: Script::new(include_str!("lua/settle_delivery.lua")),
            replay: Script::new(include_str!("lua/replay.lua")),
            forget_owners: Script::new(include_str!("lua/forget_owners.lua")),
        }
    }
}

/// What `admit.lua` answers.
enum AdmitReply {
    Granted(Option<LimitHit>),
    Refused(LimitHit),
    /// The record that the intent has already.
    Own(Vec<u8>),
    /// The upload that the idempotency key names, and the fingerprint of the request that made it.
    Known(UploadId, [u8; 16]),
}

impl RedisStore {
    pub(super) async fn open(settings: &Settings, randomness: Randomness) -> Result<Self, OpenError> {
        let metrics = Metrics::new();
        let certificates = connection::tls::load(settings).await?;
        Ok(Self {
            connections: Connections::new(&settings.url, certificates.as_ref(), &metrics)?,
            keys: Keys::new(&settings.key_prefix)?,
            keyring: ArcSwap::from_pointee(Keyring::open(&settings.encryption_keys, randomness).await?),
            scripts: Scripts::new(),
            metrics,
        })
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The keys of this moment.
    pub(super) fn keyring(&self) -> Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    pub(super) fn replace_keys(&self, keys: Keyring) {
        self.keyring.store(Arc::new(keys));
    }

    pub(super) async fn admit(&self, intent: &Intent<'_>) -> Result<Admitted, Error> {
        let lease_until = intent.lease_until()?;
        let mut superseded = None;
        for _ in 0..ADMIT_ATTEMPTS {
            match self.admit_once(intent, lease_until, superseded).await? {
                AdmitReply::Granted(would_refuse) => {
                    return Ok(Admitted::Granted { lease: intent.lease(Revision::FIRST, lease_until), would_refuse });
                }
                AdmitReply::Refused(hit) => return Ok(Admitted::Refused(hit)),
                AdmitReply::Own(record) => {
                    let own = self.read(intent.upload.id, &record)?;
                    // A repeat, after an answer that was lost.
                    if own.upload.state == intent.upload.state {
                        let lease = intent.lease(own.revision, lease_until);
                        return Ok(Admitted::Granted { lease, would_refuse: None });
                    }
                    match Standing::of(own, intent.now) {
                        Standing::Answer(answer) => return Ok(answer),
                        Standing::Lapsed(own) => {
                            if let Some(answer) = self.resume(intent, own, lease_until).await? {
                                return Ok(answer);
                            }
                        }
                        Standing::Over => break,
                    }
                }
                AdmitReply::Known(id, fingerprint) => match self.find(id).await? {
                    None => superseded = Some(id),
                    Some(_) if intent.idempotency.is_some_and(|(_, ours)| ours.0 != fingerprint) => {
                        return Ok(Admitted::Mismatch);
                    }
                    Some(found) => match Standing::of(found, intent.now) {
                        Standing::Answer(answer) => return Ok(answer),
                        Standing::Over => superseded = Some(id),
                        Standing::Lapsed(found) => {
                            if let Some(answer) = self.resume(intent, found, lease_until).await? {
                                return Ok(answer);
                            }
                        }
                    },
                },
            }
        }
        // Whoever came in between each time holds a lease now.
        Ok(Admitted::InProgress { until: lease_until })
    }

    async fn admit_once(
        &self,
        intent: &Intent<'_>,
        lease_until: Timestamp,
        superseded: Option<UploadId>,
    ) -> Result<AdmitReply, Error> {
        let Intent { upload, owner, reserve, limits, enforcement, idempotency, now } = *intent;
        let record = record::encode(upload, Revision::FIRST, None);
        let bucket = limits.rate.map(Bucket::new);
        let mut call = self.scripts.admit.prepare_invoke();
        call.key(self.keys.record(upload.id))
            .key(self.keys.ledger(upload.principal, &upload.policy))
            .key(self.keys.index(upload.principal))
            .key(self.keys.due(upload.id.partition(), &upload.region))
            .key(self.keys.owners(upload.id.partition()))
            .arg(&upload.id.random()[..])
            .arg(millis(now))
            .arg(now.utc_day())
            .arg(countable(reserve))
            .arg(millis(lease_until))
            .arg(record)
            .arg(millis(upload.created_at))
            .arg(u8::from(enforcement == Enforcement::Enforce))
            .arg(limits.max_active.map_or(-1, i64::from))
            .arg(daily_argument(&limits))
            .arg(bucket.map_or(0, |bucket| bucket.tokens))
            .arg(bucket.map_or(0, |bucket| bucket.interval))
            .arg(life(live_retention(upload, now)))
            .arg(life(LEDGER_LIFE))
            .arg(life(INDEX_LIFE))
            .arg(ACTIVE_CEILING)
            .arg(INDEX_CEILING)
            .arg(&upload.principal.0[1..])
            .arg(owners::packed(owner));
        if let Some((key, fingerprint)) = idempotency {
            call.key(self.keys.idempotency(upload.principal, key)).arg(&fingerprint.0[..]).arg(life(KEY_LIFE));
            match superseded {
                Some(id) => call.arg(&id.random()[..]),
                None => call.arg(""),
            };
        }
        let reply = Reply(self.connections.ask(Request::Script(&call)).await?);
        let hit = || hit(&reply, &limits, now);
        match reply.code()? {
            0 => Ok(AdmitReply::Granted(hit()?)),
            1 => hit()?.map(AdmitReply::Refused).ok_or_else(unexpected),
            2 => Ok(AdmitReply::Own(reply.bytes(1)?.to_vec())),
            3 => {
                let known = reply.bytes(1)?;
                let Some((id, rest)) = known.split_first_chunk() else { return Err(unexpected()) };
                let Some(fingerprint) = rest.first_chunk() else { return Err(unexpected()) };
                Ok(AdmitReply::Known(UploadId::new(upload.id.partition(), *id), *fingerprint))
            }
            _ => Err(unexpected()),
        }
    }

    /// Leases `lapsed` anew; `None` when it changed meanwhile.
    async fn resume(
        &self,
        intent: &Intent<'_>,
        lapsed: Tracked,
        lease_until: Timestamp,
    ) -> Result<Option<Admitted>, Error> {
        let Intent { reserve, limits, enforcement, now, .. } = intent;
        let next = lapsed.moved_to(UploadState::Admitted { lease_until });
        let upload = &next.upload;
        let mut call = self.scripts.resume.prepare_invoke();
        call.key(self.keys.record(upload.id))
            .key(self.keys.ledger(upload.principal, &upload.policy))
            .key(self.keys.due(upload.id.partition(), &upload.region))
            .arg(&upload.id.random()[..])
            .arg(millis(*now))
            .arg(now.utc_day())
            .arg(countable(*reserve))
            .arg(millis(lease_until))
            .arg(self.write(&next)?)
            .arg(&lapsed.revision.0.to_be_bytes()[..])
            .arg(u8::from(*enforcement == Enforcement::Enforce))
            .arg(limits.max_active.map_or(-1, i64::from))
            .arg(daily_argument(limits))
            .arg(life(LEDGER_LIFE))
            .arg(ACTIVE_CEILING);
        let reply = Reply(self.connections.ask(Request::Script(&call)).await?);
        match reply.code()? {
            0 => {
                let lease = intent.lease(next.revision, lease_until);
                Ok(Some(Admitted::Resumed { upload: next.upload, lease }))
            }
            1 => hit(&reply, limits, *now)?.map(|hit| Some(Admitted::Refused(hit))).ok_or_else(unexpected),
            2 => Ok(None),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn attach(
        &self,
        lease: &Lease,
        upload: &Upload,
        session: &SessionUri,
        due: Timestamp,
    ) -> Result<Attached, Error> {
        let attached = Tracked {
            upload: Upload { state: UploadState::Pending, ..upload.clone() },
            session: Some(session.clone()),
            revision: lease.revision.next(),
        };
        let mut call = self.scripts.attach.prepare_invoke();
        call.key(self.keys.record(upload.id))
            .key(self.keys.ledger(upload.principal, &upload.policy))
            .key(self.keys.due(upload.id.partition(), &upload.region))
            .arg(&upload.id.random()[..])
            .arg(&lease.revision.0.to_be_bytes()[..])
            .arg(self.write(&attached)?)
            .arg(reservation_end(upload))
            .arg(millis(due));
        let reply = Reply(self.connections.ask(Request::Script(&call)).await?);
        match reply.code()? {
            0 => Ok(Attached::Tracked(attached)),
            1 => {
                let found = self.read(upload.id, reply.bytes(1)?)?;
                // A repeat, after an answer that was lost.
                if found.session.as_ref() == Some(session) && !found.upload.state.is_final() {
                    return Ok(Attached::Tracked(found));
                }
                Ok(Attached::LeaseLost(Some(found)))
            }
            2 => Ok(Attached::LeaseLost(None)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn abandon(&self, lease: &Lease, upload: &Upload) -> Result<(), Error> {
        let mut call = self.scripts.abandon.prepare_invoke();
        call.key(self.keys.record(upload.id))
            .key(self.keys.ledger(upload.principal, &upload.policy))
            .key(self.keys.index(upload.principal))
            .key(self.keys.due(upload.id.partition(), &upload.region))
            .arg(&upload.id.random()[..])
            .arg(&lease.revision.0.to_be_bytes()[..]);
        if let Some(key) = lease.idempotency {
            call.key(self.keys.idempotency(upload.principal, key));
        }
        self.connections.ask(Request::Script(&call)).await.map(drop)
    }

    pub(super) async fn knows_key(
        &self,
        principal: PrincipalId,
        key: IdempotencyKey,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut get = Cmd::new();
        get.arg("GET").arg(self.keys.idempotency(principal, key));
        match self.connections.ask(Request::Command(&get)).await? {
            Value::Nil => Ok(false),
            // The upload and the fingerprint, of 16 bytes each, then when to forget them.
            Value::BulkString(known) => {
                let forget_at = known.get(32..).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
                Ok(forget_at.ok_or_else(unexpected)? > millis(now))
            }
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn find(&self, id: UploadId) -> Result<Option<Tracked>, Error> {
        self.record(id).await?.map(|record| self.read(id, &record)).transpose()
    }

    pub(super) async fn find_whole(&self, id: UploadId) -> Result<Option<Tracked>, Error> {
        self.record(id).await?.map(|record| self.read_whole(id, &record)).transpose()
    }

    async fn record(&self, id: UploadId) -> Result<Option<Vec<u8>>, Error> {
        let mut get = Cmd::new();
        get.arg("GET").arg(self.keys.record(id));
        match self.connections.ask(Request::Command(&get)).await? {
            Value::Nil => Ok(None),
            Value::BulkString(record) => Ok(Some(record)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn list(&self, principal: PrincipalId, page: &Page, now: Timestamp) -> Result<Listing, Error> {
        let oldest = millis(now.minus(INDEX_LIFE));
        let (mut listing, mut position, mut budget) = (Listing::default(), page.after, Page::SCAN);
        loop {
            // With a filter most may not fit.
            let missing = page.limit() - listing.uploads.len();
            let wanted = if page.state.is_some() { Page::LARGEST } else { missing }.min(budget);
            // One more than is looked at tells whether anything follows.
            let mut entries = self.stretch(principal, wanted + 1, position).await?;
            entries.truncate(entries.iter().position(|entry| entry.created_at < oldest).unwrap_or(wanted + 1));
            let more = entries.len() > wanted;
            entries.truncate(wanted);
            let found = self.read_all(principal, &entries).await?;
            for ((entry, found), left) in entries.iter().zip(found).zip((0..entries.len()).rev()) {
                position = Some(*entry);
                budget -= 1;
                let is_repeated = page.after.is_some_and(|after| *entry >= after);
                listing.uploads.extend(found.filter(|found| !is_repeated && page.takes(&found.upload)));
                if listing.uploads.len() == page.limit() || budget == 0 {
                    listing.next = position.filter(|_| more || left > 0);
                    return Ok(listing);
                }
            }
            if !more {
                return Ok(listing);
            }
        }
    }

    /// Up to `count` entries of an index, newest first.
    async fn stretch(
        &self,
        principal: PrincipalId,
        count: usize,
        behind: Option<Cursor>,
    ) -> Result<Vec<Cursor>, Error> {
        let mut call = self.scripts.page.prepare_invoke();
        call.key(self.keys.index(principal)).arg(count);
        match behind {
            Some(Cursor { created_at, random }) => call.arg(created_at).arg(&random[..]),
            None => call.arg("").arg(""),
        };
        let reply: Vec<(Vec<u8>, u64)> =
            redis::from_redis_value(self.connections.ask(Request::Script(&call)).await?).map_err(|_| unexpected())?;
        let entry = |(member, created_at): (Vec<u8>, u64)| Some(Cursor { created_at, random: member.try_into().ok()? });
        reply.into_iter().map(entry).collect::<Option<_>>().ok_or_else(unexpected)
    }

    /// The uploads, in their order; `None` for those that are gone or cannot be read.
    async fn read_all(&self, principal: PrincipalId, entries: &[Cursor]) -> Result<Vec<Option<Tracked>>, Error> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let ids = entries.iter().map(|entry| UploadId::new(principal.partition(), entry.random));
        let mut get = Cmd::new();
        get.arg("MGET").arg(ids.clone().map(|id| self.keys.record(id)).collect::<Vec<_>>());
        let Value::Array(records) = self.connections.ask(Request::Command(&get)).await? else {
            return Err(unexpected());
        };
        let read = |(id, record)| match record {
            Value::BulkString(record) => self
                .read(id, &record)
                .inspect_err(|error| tracing::warn!(upload.id = %id, %error, "an upload is left out of a listing"))
                .ok(),
            _ => None,
        };
        Ok(ids.zip(records).map(read).collect())
    }

    pub(super) async fn replace(
        &self,
        tracked: &Tracked,
        next: Tracked,
        due: Option<Timestamp>,
        tell: &[EndpointId],
        now: Timestamp,
    ) -> Result<Advanced, Error> {
        let Tracked { upload, .. } = &next;
        let (ending, settled) = match Ending::of(&upload.state) {
            Ending::Keep => ("keep", 0),
            Ending::Release => ("release", 0),
            Ending::Settle(size) => ("settle", size.0.min(record::LARGEST)),
        };
        let mut call = self.scripts.advance.prepare_invoke();
        call.key(self.keys.record(upload.id))
            .key(self.keys.ledger(upload.principal, &upload.policy))
            .key(self.keys.due(upload.id.partition(), &upload.region))
            .arg(&upload.id.random()[..])
            .arg(&tracked.revision.0.to_be_bytes()[..])
            .arg(self.write(&next)?)
            .arg(ending)
            .arg(settled)
            .arg(now.utc_day())
            .arg(if upload.state.is_final() { life(FINAL_RETENTION).to_string() } else { String::new() })
            .arg(due.map(|due| millis(due).to_string()).unwrap_or_default())
            .arg(millis(now))
            .arg(life(DELIVERY_LIFE));
        for endpoint in tell {
            call.key(self.keys.outbox(upload.id.partition(), *endpoint));
        }
        let reply = Reply(self.connections.ask(Request::Script(&call)).await?);
        match reply.code()? {
            0 => Ok(Advanced::Done(next)),
            1 => {
                let found = self.read(upload.id, reply.bytes(1)?)?;
                // A repeat, after an answer that was lost.
                Ok(if found == next { Advanced::Done(found) } else { Advanced::Conflict(found) })
            }
            2 => Ok(Advanced::Vanished),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn usage(
        &self,
        principal: PrincipalId,
        policies: &[(&PolicyName, Limits)],
        now: Timestamp,
    ) -> Result<Vec<Usage>, Error> {
        if policies.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.scripts.usage.prepare_invoke();
        for (policy, _) in policies {
            call.key(self.keys.ledger(principal, policy));
        }
        call.arg(millis(now)).arg(now.utc_day());
        let reply: Vec<(u64, u64, u64)> =
            redis::from_redis_value(self.connections.ask(Request::Script(&call)).await?).map_err(|_| unexpected())?;
        if reply.len() != policies.len() {
            return Err(unexpected());
        }
        let usage = |((active, bytes, full_at), (_, limits)): (_, &(&PolicyName, Limits))| {
            Usage::new(active, bytes, full_at, limits, now)
        };
        Ok(reply.into_iter().zip(policies).map(usage).collect())
    }

    pub(super) async fn ping(&self) -> Result<(), Error> {
        // A write, since a replica answers reads; there is never anything to delete.
        let mut delete = Cmd::new();
        delete.arg("DEL").arg(self.keys.probe());
        self.connections.probe(&delete).await
    }

    pub(super) async fn facts(&self) -> Vec<ServerFacts> {
        self.connections.facts().await
    }

    pub(super) async fn script(&self, call: &redis::ScriptInvocation<'_>) -> Result<Value, Error> {
        self.connections.ask(Request::Script(call)).await
    }

    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Error> {
        self.connections.ask(Request::Command(command)).await
    }

    pub(super) fn write(&self, tracked: &Tracked) -> Result<Vec<u8>, Error> {
        let Tracked { upload, session, revision } = tracked;
        let sealed = match session {
            Some(session) => Some(self.keyring().seal(upload.id, &session::shorten(session, upload))?),
            None => None,
        };
        Ok(record::encode(upload, *revision, sealed.as_deref()))
    }

    /// A record. The session of an upload that has ended is to be handed out no more, so one that was sealed with a key that
    /// is not here any more hides nothing else.
    pub(super) fn read(&self, id: UploadId, record: &[u8]) -> Result<Tracked, Error> {
        let record = record::decode(id, record)?;
        let session = match self.open_session(&record) {
            Err(Error::SealedByUnknownKey { .. }) if record.upload.state.is_final() => None,
            session => session?,
        };
        Ok(Tracked { upload: record.upload, session, revision: record.revision })
    }

    /// A record with its session, if it has one.
    fn read_whole(&self, id: UploadId, record: &[u8]) -> Result<Tracked, Error> {
        let record = record::decode(id, record)?;
        let session = self.open_session(&record)?;
        Ok(Tracked { upload: record.upload, session, revision: record.revision })
    }

    fn open_session(&self, record: &record::Record<'_>) -> Result<Option<SessionUri>, Error> {
        let Some(sealed) = record.sealed else { return Ok(None) };
        let id = record.upload.id;
        let short = self.keyring().open_sealed(id, sealed)?;
        let corrupt = Error::Corrupt { id, what: "its session is not in the short form" };
        session::expand(&short, &record.upload).map(Some).ok_or(corrupt)
    }

    /// The server itself, for tests that look at what is stored.
    #[cfg(test)]
    pub(super) async fn raw<T: redis::FromRedisValue>(&self, command: &Cmd) -> T {
        redis::from_redis_value(self.connections.ask(Request::Command(command)).await.unwrap()).unwrap()
    }
}

/// A life as Redis takes it.
pub(super) fn life(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(record::LARGEST).clamp(1, record::LARGEST)
}

fn daily_argument(limits: &Limits) -> String {
    limits.daily_bytes.map_or_else(|| "-1".to_owned(), |limit| limit.0.to_string())
}
