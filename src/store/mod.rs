//! What is known: every upload and every limit, in Redis or in memory.
//!
//! The two stores do the same and are held to it by one suite of behaviours. Each principal belongs to one of 256
//! partitions; so do its uploads, and each operation touches one partition and either happens as a whole or not at all.
//! What an upload may become is decided in [`UploadState::after`]; the store only guards that a change is made to the
//! revision that it was decided for.
//!
//! Stored are, per upload, a record (`record.rs`) with its sealed session (`session.rs`, `seal.rs`), a reservation in a
//! ledger (`ledger.rs`), an entry in its principal's index, and one in its partition's due queue (`due.rs`); at its end, a
//! delivery for everyone who is to be told (`outbox.rs`). `owners.rs` has the names of principals, for administrators, and
//! `restore.rs` writes anew what a lost server had. `keys.rs` lists the keys.
//! Every operation may be repeated: what happened already is not done twice.

mod connection;
#[cfg(test)]
mod consistency;
mod due;
mod error;
#[cfg(test)]
mod failovers;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod interleavings;
mod keys;
mod ledger;
mod listing;
#[cfg(test)]
mod load;
mod memory;
mod metrics;
mod outbox;
mod owners;
mod record;
mod redis;
#[cfg(test)]
mod redis_tests;
mod reply;
mod restore;
pub mod seal;
mod session;
mod settings;
mod silence;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod suite_limits;
#[cfg(test)]
mod suite_queues;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tls_tests;
mod words;

use std::time::{Duration, Instant};

use crate::clock::Randomness;
use crate::model::endpoint::EndpointId;
use crate::model::id::UploadId;
use crate::model::idempotency::{Fingerprint, IdempotencyKey};
use crate::model::limits::{Enforcement, Limits, Rate};
use crate::model::name::PolicyName;
use crate::model::principal::{Owner, PrincipalId};
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::{Attributes, Upload, UploadState};
use crate::telemetry::trace::{self, Kind};

pub use connection::ServerFacts;
pub use due::Due;
pub use error::{Cause, Error, OpenError};
pub use keys::{ACTIVE_CEILING, FINAL_RETENTION, KEY_LIFE};
pub use listing::{Cursor, Listing, Page};
pub use memory::MemoryStore;
pub use metrics::Metrics;
pub use outbox::{Attempted, Delivery, Failures, Parked, ParkedPage, Wanted};
pub use owners::{KnownOwner, Names, OwnerPage};
pub use redis::RedisStore;
pub use restore::Lost;
pub use settings::{EncryptionKeySettings, Settings, TlsSettings};

use metrics::Operation;
use seal::Keyring;

/// What is wrong with a `store.url` of several hosts, for people. Never repeats it: it may hold a password.
pub fn wrong_with_hosts(url: &str) -> Option<&'static str> {
    connection::wrong_with_hosts(url)
}

/// Where uploads and limits are kept.
pub enum Store {
    /// In a Redis server, for any number of instances of the broker.
    Redis(Box<RedisStore>),
    /// In this process, and gone with it.
    Memory(Box<MemoryStore>),
}

/// What is to be admitted.
#[derive(Clone, Copy)]
pub struct Intent<'a> {
    /// The upload, in state [`UploadState::Admitted`] with the lease that is wanted.
    pub upload: &'a Upload,
    /// Whose it is, for administrators to read.
    pub owner: Owner<'a>,
    /// The bytes that count for it until its size is known.
    pub reserve: ByteCount,
    /// The limits of its principal under its policy.
    pub limits: Limits,
    /// Whether they refuse.
    pub enforcement: Enforcement,
    /// What makes a repeat of the request recognisable.
    pub idempotency: Option<(IdempotencyKey, Fingerprint)>,
    /// The present.
    pub now: Timestamp,
}

/// What became of an [`Intent`].
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is recorded and counted.
    Granted {
        /// Entitles to attach a session.
        lease: Lease,
        /// What it would have been refused for, if limits refused.
        would_refuse: Option<LimitHit>,
    },
    /// An earlier request with this key came so far, and its lease ran out: its upload is ours now, counted once.
    Resumed {
        /// The upload as it was first admitted, with the new lease.
        upload: Upload,
        /// Entitles to attach a session.
        lease: Lease,
    },
    /// An earlier request with this key made this upload.
    Replayed(Tracked),
    /// An earlier request with this key is still under way.
    InProgress {
        /// When its lease ends.
        until: Timestamp,
    },
    /// The key was used for another request.
    Mismatch,
    /// A limit stands in the way; nothing was changed.
    Refused(LimitHit),
}

/// Entitles to attach a session to an intent, or to abandon it, until someone else was leased the intent or its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When someone else may be leased the intent.
    pub until: Timestamp,
    revision: Revision,
    idempotency: Option<IdempotencyKey>,
}

impl Lease {
    /// The lease of an intent as it was read: for whoever settles one that nobody holds any more.
    pub fn of(tracked: &Tracked) -> Option<Self> {
        match tracked.upload.state {
            UploadState::Admitted { lease_until } => {
                Some(Self { until: lease_until, revision: tracked.revision, idempotency: None })
            }
            _ => None,
        }
    }
}

/// The limit that an upload would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitHit {
    /// Too many in too short a time.
    Rate {
        /// The limit.
        limit: Rate,
        /// When there will be room.
        retry_after: Duration,
    },
    /// Too many under way.
    Active {
        /// The limit.
        limit: u32,
        /// When to try again: until the first reservation ends, at most a minute.
        retry_after: Duration,
    },
    /// Too many bytes in one UTC day.
    DailyBytes {
        /// The limit.
        limit: ByteCount,
        /// What is left of it.
        left: ByteCount,
        /// Until the next day.
        retry_after: Duration,
    },
}

impl LimitHit {
    /// What the limit is called in a policy.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rate { .. } => Limits::RATE,
            Self::Active { .. } => Limits::MAX_ACTIVE,
            Self::DailyBytes { .. } => Limits::DAILY_BYTES,
        }
    }
}

/// An upload as it is known, and its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The upload.
    pub upload: Upload,
    /// Its session, from when it is attached until the upload is completed. What ended otherwise keeps it, so that it can
    /// be revoked at storage once more; it is never to be handed out then.
    pub session: Option<SessionUri>,
    /// What a change must be based on.
    pub revision: Revision,
}

/// Counts the changes of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(u32);

impl Revision {
    const FIRST: Self = Self(1);

    /// The changes so far, as a number that can be told: the first is 1.
    pub const fn number(self) -> u32 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// What became of attaching a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Attached {
    /// The upload is tracked.
    Tracked(Tracked),
    /// The lease is no longer ours, so the session must not be handed out. With the upload as it is now.
    LeaseLost(Option<Tracked>),
}

/// What became of a transition.
#[derive(Debug, PartialEq, Eq)]
pub enum Advanced {
    /// It happened.
    Done(Tracked),
    /// Something else happened first. With the upload as it is now.
    Conflict(Tracked),
    /// The upload is not known any more.
    Vanished,
}

/// What a principal uses under one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Uploads under way.
    pub active: u32,
    /// Bytes reserved, or stored today.
    pub bytes_today: ByteCount,
    /// How many uploads the rate allows at once; `None` without a rate.
    pub rate_left: Option<u32>,
    /// When it will allow all of them again; `None` without a rate.
    pub rate_resets_at: Option<Timestamp>,
}

impl Store {
    /// Opens the store that `settings` describe. The server need not be there yet: [`Store::ping`] tells.
    ///
    /// # Errors
    /// When the address or the keys cannot be used.
    pub async fn open(settings: &Settings, randomness: Randomness) -> Result<Self, OpenError> {
        if settings.url == "memory" {
            return Ok(Self::Memory(Box::new(MemoryStore::new())));
        }
        Ok(Self::Redis(Box::new(RedisStore::open(settings, randomness).await?)))
    }

    /// Reads other keys for what is sealed, as [`Store::open`] does; `None` for a store that seals nothing.
    ///
    /// # Errors
    /// When the keys cannot be used.
    pub async fn read_keys(
        &self,
        keys: &[EncryptionKeySettings],
        randomness: Randomness,
    ) -> Result<Option<Keyring>, OpenError> {
        match self {
            Self::Redis(_) => Keyring::open(keys, randomness).await.map(Some),
            Self::Memory(_) => Ok(None),
        }
    }

    /// Seals and opens with these keys from now on.
    pub fn replace_keys(&self, keys: Keyring) {
        match self {
            Self::Redis(store) => store.replace_keys(keys),
            Self::Memory(_) => {}
        }
    }

    /// Counts an upload against its limits and writes its intent and reservation, all or nothing. One round trip; a
    /// repeat under an idempotency key that was used before takes two or three.
    ///
    /// # Errors
    /// When the store cannot tell. The intent may have been written then: admitting it again finds it.
    pub async fn admit(&self, intent: &Intent<'_>) -> Result<Admitted, Error> {
        self.observed(Operation::Admit, async {
            match self {
                Self::Redis(store) => store.admit(intent).await,
                Self::Memory(store) => store.admit(intent),
            }
        })
        .await
    }

    /// Whether an upload was admitted under the idempotency key, here and in the last day. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn knows_key(&self, principal: PrincipalId, key: IdempotencyKey, now: Timestamp) -> Result<bool, Error> {
        self.observed(Operation::FindKey, async {
            match self {
                Self::Redis(store) => store.knows_key(principal, key, now).await,
                Self::Memory(store) => Ok(store.knows_key(principal, key, now)),
            }
        })
        .await
    }

    /// Makes an intent a tracked upload: pending, its session sealed beside it, to be looked at when `due`. Only while
    /// the lease is ours. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. The session must then not be handed out, unless attaching it again succeeds.
    pub async fn attach(
        &self,
        lease: &Lease,
        upload: &Upload,
        session: &SessionUri,
        due: Timestamp,
    ) -> Result<Attached, Error> {
        self.observed(Operation::Attach, async {
            match self {
                Self::Redis(store) => store.attach(lease, upload, session, due).await,
                Self::Memory(store) => Ok(store.attach(lease, upload, session, due)),
            }
        })
        .await
    }

    /// Forgets an intent whose session could not be opened, with all that was counted for it but its token of the
    /// rate. Only while the lease is ours; otherwise nothing happens. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. The intent then ends with its lease.
    pub async fn abandon(&self, lease: &Lease, upload: &Upload) -> Result<(), Error> {
        self.observed(Operation::Abandon, async {
            match self {
                Self::Redis(store) => store.abandon(lease, upload).await,
                Self::Memory(store) => {
                    store.abandon(lease, upload);
                    Ok(())
                }
            }
        })
        .await
    }

    /// The upload, or `None` when it never was or is already forgotten. One that has ended is without its session where that
    /// was sealed with a key that is not here any more. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell, or what it has cannot be read.
    pub async fn find(&self, id: UploadId) -> Result<Option<Tracked>, Error> {
        self.observed(Operation::Find, async {
            match self {
                Self::Redis(store) => store.find(id).await,
                Self::Memory(store) => Ok(store.find(id)),
            }
        })
        .await
    }

    /// The same, and never without a session that the upload has: for whoever takes its power away.
    ///
    /// # Errors
    /// As [`Store::find`], and when the session was sealed with a key that is not here.
    pub async fn find_whole(&self, id: UploadId) -> Result<Option<Tracked>, Error> {
        self.observed(Operation::Find, async {
            match self {
                Self::Redis(store) => store.find_whole(id).await,
                Self::Memory(store) => Ok(store.find(id)),
            }
        })
        .await
    }

    /// A principal's uploads, newest first. What cannot be read is left out, and logged. Looks at no more than 1000
    /// uploads, so a page may have fewer than its limit although more follow.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn list(&self, principal: PrincipalId, page: &Page, now: Timestamp) -> Result<Listing, Error> {
        self.observed(Operation::List, async {
            match self {
                Self::Redis(store) => store.list(principal, page, now).await,
                Self::Memory(store) => Ok(store.list(principal, page, now)),
            }
        })
        .await
    }

    /// Moves an upload to `next`, which [`UploadState::after`] gave for it, if it has not changed since it was read.
    /// Final states end the reservation and are forgotten after [`FINAL_RETENTION`]. A completed upload counts with its
    /// object's true size on the day of `now`, also when its reservation ended before. The upload will be looked at again
    /// when `due`, or never; `tell` are the endpoints that a delivery is recorded for, in the same step. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call tells.
    pub async fn advance(
        &self,
        tracked: &Tracked,
        next: UploadState,
        due: Option<Timestamp>,
        tell: &[EndpointId],
        now: Timestamp,
    ) -> Result<Advanced, Error> {
        self.observed(Operation::Advance, self.replace(tracked, tracked.moved_to(next), due, tell, now)).await
    }

    async fn replace(
        &self,
        tracked: &Tracked,
        next: Tracked,
        due: Option<Timestamp>,
        tell: &[EndpointId],
        now: Timestamp,
    ) -> Result<Advanced, Error> {
        match self {
            Self::Redis(store) => store.replace(tracked, next, due, tell, now).await,
            Self::Memory(store) => Ok(store.replace(tracked, next, due, tell, now)),
        }
    }

    /// Gives an upload another session in place of the one that it has, and moves it to `next`, which
    /// [`UploadState::after`] gave for that, if it has not changed since it was read. Its reservation and its end stay
    /// as they are. The upload will be looked at again when `due`. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call tells; the session must not be handed out unless it does.
    pub async fn renew(
        &self,
        tracked: &Tracked,
        next: UploadState,
        session: &SessionUri,
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Advanced, Error> {
        let next = Tracked { session: Some(session.clone()), ..tracked.moved_to(next) };
        self.observed(Operation::Renew, self.replace(tracked, next, due, &[], now)).await
    }

    /// What a principal uses under each of `policies`, in their order. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn usage(
        &self,
        principal: PrincipalId,
        policies: &[(&PolicyName, Limits)],
        now: Timestamp,
    ) -> Result<Vec<Usage>, Error> {
        self.observed(Operation::Usage, async {
            match self {
                Self::Redis(store) => store.usage(principal, policies, now).await,
                Self::Memory(store) => Ok(store.usage(principal, policies, now)),
            }
        })
        .await
    }

    /// Whether the store is there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.observed(Operation::Ping, async {
            match self {
                Self::Redis(store) => store.ping().await,
                Self::Memory(_) => Ok(()),
            }
        })
        .await
    }

    /// What the servers of the store tell of themselves, of a cluster its masters; none where this process is the store.
    /// After [`Store::ping`], which finds them.
    pub async fn facts(&self) -> Vec<ServerFacts> {
        match self {
            Self::Redis(store) => store.facts().await,
            Self::Memory(_) => Vec::new(),
        }
    }

    /// What can be seen of the store's work.
    pub fn metrics(&self) -> &Metrics {
        match self {
            Self::Redis(store) => store.metrics(),
            Self::Memory(store) => store.metrics(),
        }
    }

    async fn observed<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let (kind, system) = match self {
            Self::Redis(_) => (Kind::Client, "redis"),
            Self::Memory(_) => (Kind::Internal, "memory"),
        };
        let traced = trace::child_told(operation.span_name(), kind, work, |span, result| {
            span.record("db.system.name", system);
            if let Err(error) = result {
                span.fail(error.kind());
            }
        });
        let result = traced.await;
        self.metrics().observe(operation, &result, started.elapsed());
        result
    }
}

/// What an upload that was found under an idempotency key means for the request that brought the key.
enum Standing {
    /// It is the answer.
    Answer(Admitted),
    /// Its lease ran out: it can be leased anew.
    Lapsed(Tracked),
    /// It was never opened and its time is over: it stands in nobody's way.
    Over,
}

impl Standing {
    fn of(found: Tracked, now: Timestamp) -> Self {
        match found.upload.state {
            UploadState::Admitted { lease_until } if lease_until > now => {
                Self::Answer(Admitted::InProgress { until: lease_until })
            }
            UploadState::Admitted { .. } if found.upload.expires_at > now => Self::Lapsed(found),
            UploadState::Admitted { .. } => Self::Over,
            _ => Self::Answer(Admitted::Replayed(found)),
        }
    }
}

/// What becomes of the reservation when an upload enters a state.
enum Ending {
    Keep,
    Release,
    Settle(ByteCount),
}

impl Ending {
    fn of(state: &UploadState) -> Self {
        match state {
            UploadState::Admitted { .. } | UploadState::Pending | UploadState::Uploading { .. } => Self::Keep,
            UploadState::Completed { object, .. } => Self::Settle(object.size),
            UploadState::Rejected { .. } | UploadState::Cancelled { .. } | UploadState::Expired { .. } => Self::Release,
        }
    }
}

impl Intent<'_> {
    /// The end of the lease, of an intent that is one.
    fn lease_until(&self) -> Result<Timestamp, Error> {
        let corrupt = |what| Err(Error::Corrupt { id: self.upload.id, what });
        if self.upload.id.partition() != self.upload.principal.partition() {
            return corrupt("its id is not of its principal's partition");
        }
        match self.upload.state {
            UploadState::Admitted { lease_until } => Ok(lease_until),
            _ => corrupt("only an upload in state admitted can be admitted"),
        }
    }

    fn lease(&self, revision: Revision, until: Timestamp) -> Lease {
        Lease { until, revision, idempotency: self.idempotency.map(|(key, _)| key) }
    }
}

impl Tracked {
    /// The upload as it will be in `next`.
    fn moved_to(&self, next: UploadState) -> Self {
        let session = if matches!(next, UploadState::Completed { .. }) { None } else { self.session.clone() };
        let mut upload = Upload { state: next, ..self.upload.clone() };
        // What is made no more needs not to be remembered for a week.
        if upload.state.is_final() {
            upload.attributes = Attributes { overwrite: upload.attributes.overwrite, ..Attributes::default() };
        }
        Self { upload, session, revision: self.revision.next() }
    }
}

/// How long a record is kept that is written at `now` for an upload that has not ended.
fn live_retention(upload: &Upload, now: Timestamp) -> Duration {
    upload.expires_at.since(now) + FINAL_RETENTION
}
