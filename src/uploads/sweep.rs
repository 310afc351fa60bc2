//! What is done without being asked: uploads reach their end although clients, notifications and brokers are lost.
//!
//! A round walks over the partitions, in another order each time, claims what is due there and settles it: an upload that
//! was silent is looked at, one that ran out is ended, an interrupted creation is adopted or withdrawn, and one that ended
//! otherwise than completed is looked at again until nothing can write its object any more. Whatever fails is due again
//! when its claim ends, or after an hour where its record cannot be read. Any number of instances may sweep at once; each
//! operation here is one that requests use, too, or is as safe to repeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, warn};

use super::clean_up::{FIRST_CLEAN_UP, next_clean_up};
use super::complete::Looked;
use super::{Error, Uploads};
use crate::model::chain;
use crate::model::id::{Partition, UploadId};
use crate::model::time::{Span, Timestamp};
use crate::model::upload::{Evidence, PromisedSize, Upload, UploadState, Witness};
use crate::storage;
use crate::store::{self, Due, Lease, Tracked};
use crate::telemetry::trace::{self, Active, Kind, Origin};

/// How long after one round the next one begins, on average: what an end that nobody asked for is late by, at the most.
pub(super) const ROUND_EVERY: Duration = Duration::from_secs(10);

/// How many uploads of a partition are claimed at a time. With [`AT_ONCE`], settling them takes a fraction of [`CLAIM`].
const BATCH: u32 = 32;

/// How many uploads one instance settles at once.
const AT_ONCE: usize = 16;

/// How many partitions one instance walks through at once: most have little that is due.
const PARTITIONS_AT_ONCE: usize = 8;

/// After how many failures in a row a round is given up, of those that say that storage or the store is away.
const HOPELESS: u32 = 64;

/// How long a claim lasts. Should two instances settle the same upload, nothing is lost but their time.
pub(super) const CLAIM: Duration = Duration::from_secs(120);

/// When an upload is looked at again whose record cannot be read: whoever mends that takes longer than a claim lasts.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(3600);

/// How long an interrupted creation is kept beyond its lease, for a client that repeats it with its idempotency key. It
/// reserves nothing in this time.
const REPEAT_GRACE: Duration = Duration::from_secs(600);

/// The shortest pause between two looks at an upload of unknown size, which storage does not bound.
const UNBOUNDED_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause between two looks at an upload that is under way.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// The `[sweeper]` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SweepSettings {
    /// Storage is asked about uploads that were silent for this long.
    #[serde(default = "default_idle_after")]
    pub idle_after: Span,
}

const fn default_idle_after() -> Span {
    Span::seconds(15 * 60)
}

impl Default for SweepSettings {
    fn default() -> Self {
        Self { idle_after: default_idle_after() }
    }
}

/// What was done about an upload that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Settled {
    /// It has reached a final state.
    Ended,
    /// It is under way.
    UnderWay,
    /// A creation that was interrupted was withdrawn, or is left to be repeated.
    Interrupted,
    /// It had ended; nothing was left of it.
    Clean,
    /// It had ended; a session was revoked or an object deleted that were there all the same.
    Cleaned,
    /// It is known no more.
    Forgotten,
}

impl Settled {
    pub(super) const ALL: [Self; 6] =
        [Self::Ended, Self::UnderWay, Self::Interrupted, Self::Clean, Self::Cleaned, Self::Forgotten];
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// How many uploads were due.
    pub due: usize,
    /// How many of them are due again because something failed.
    pub failed: usize,
    /// How long the oldest of them had been due.
    pub oldest: Duration,
    /// Since when the oldest had been due of those that failed and are tried again soon.
    pub failed_since: Option<Timestamp>,
    /// How many partitions it did not come to, or did not get to the end of.
    pub unseen: usize,
    /// How far sweeping lags behind, as far as this instance knows.
    pub lag: Duration,
}

impl Round {
    fn add(&mut self, part: Self) {
        self.due += part.due;
        self.failed += part.failed;
        self.oldest = self.oldest.max(part.oldest);
        self.failed_since = self.failed_since.into_iter().chain(part.failed_since).min();
        self.unseen += part.unseen;
    }
}

/// What the walks of one round share.
pub(super) struct Share {
    /// One for each upload that may be settled at the same time.
    permits: Semaphore,
    /// How many have found storage or the store away since the last that did not.
    failed_in_a_row: AtomicU32,
    /// The round's own span, if rounds are traced.
    span: Option<Active>,
}

impl Share {
    pub(super) fn new(span: Option<Active>) -> Self {
        Self { permits: Semaphore::new(AT_ONCE), failed_in_a_row: AtomicU32::new(0), span }
    }

    fn observe(&self, failure: Option<Failure>) {
        match failure {
            None | Some(Failure::Refused) => self.failed_in_a_row.store(0, Ordering::Relaxed),
            Some(Failure::Away) => {
                self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
            }
            // That there is such a record says nothing of storage.
            Some(Failure::Unreadable) => {}
        }
    }
}

/// Why an upload that was due is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Storage or the store is away, or makes no sense: so it may be for all others.
    Away,
    /// Storage is there, and does not do what was asked.
    Refused,
    /// What is known of it cannot be read.
    Unreadable,
}

impl Failure {
    fn of(error: &Error) -> Self {
        match error {
            Error::Store(store::Error::Corrupt { .. } | store::Error::SealedByUnknownKey { .. }) => Self::Unreadable,
            Error::Storage(storage::Error::Refused { .. }) => Self::Refused,
            _ => Self::Away,
        }
    }
}

impl Uploads {
    /// Sweeps until `stop`, round by round, each under the configuration that `present` gives for it. A round that is under
    /// way is ended at once; what it claimed comes back.
    pub async fn keep_sweeping(present: impl Fn() -> Arc<Self>, stop: CancellationToken) {
        let sweeping = async {
            loop {
                let [chance] = present().randomness.bytes::<1>();
                // Between a half and one and a half of it, so that instances do not walk in step.
                tokio::time::sleep(ROUND_EVERY.mul_f64(0.5 + f64::from(chance) / 256.0)).await;
                present().sweep().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = sweeping => {}
        }
    }

    /// One round: settles everything that is due. Where one upload after the other fails, storage or the store is away,
    /// and the round ends early: what is due stays due.
    pub async fn sweep(self: &Arc<Self>) -> Round {
        // It is not the current span: the claims of 256 partitions, most of which find nothing, would bury the rest.
        let span = self.tracer.as_ref().map(|tracer| tracer.begin(Origin::Here, "sweep", Kind::Internal));
        let [first] = self.randomness.bytes::<1>();
        let share = Arc::new(Share::new(span));
        // What was lost comes first: the queue lacks it, or has it as it was.
        let (mut round, mut unreachable) = (Round::default(), self.recall().await.err());
        let mut walking = JoinSet::new();
        let mut take = |walked: Option<Result<(Round, Option<Error>), JoinError>>| match walked {
            Some(Ok((part, error))) => {
                round.add(part);
                unreachable = unreachable.take().or(error);
            }
            Some(Err(_)) => round.unseen += 1,
            None => {}
        };
        for partition in (0..=u8::MAX).map(|offset| Partition(first.wrapping_add(offset))) {
            if walking.len() == PARTITIONS_AT_ONCE {
                take(walking.join_next().await);
            }
            let (uploads, share) = (Arc::clone(self), Arc::clone(&share));
            walking.spawn(async move { uploads.sweep_partition(partition, &share).await }.in_current_span());
        }
        while let Some(walked) = walking.join_next().await {
            take(Some(walked));
        }
        // One each time: within the hour all have had their turn.
        if let Err(error) = self.store.forget_owners(Partition(first)).await {
            unreachable.get_or_insert(error.into());
        }
        if let Some(error) = unreachable {
            warn!(error = chain(&error), "some uploads could not be swept, and wait for the next round");
        }
        round.lag = self.metrics.observe_round(&round, self.clock.now());
        if let Some(span) = Arc::into_inner(share).and_then(|share| share.span) {
            span.record("sweep.due", round.due);
            span.record("sweep.failed", round.failed);
            span.end();
        }
        round
    }

    /// Settles what is due in one partition; with what kept it from going on.
    pub(super) async fn sweep_partition(
        self: &Arc<Self>,
        partition: Partition,
        share: &Arc<Share>,
    ) -> (Round, Option<Error>) {
        let mut round = Round::default();
        loop {
            if share.failed_in_a_row.load(Ordering::Relaxed) >= HOPELESS {
                round.unseen = 1;
                break;
            }
            let now = self.clock.now();
            let claimed = self.store.claim_due(partition, &self.region.name, BATCH, now, now.plus(CLAIM)).await;
            let claimed = match claimed {
                Ok(claimed) => claimed,
                Err(error) => {
                    round.unseen = 1;
                    return (round, Some(error.into()));
                }
            };
            let is_last = claimed.len() < BATCH as usize;
            self.settle_all(claimed, now, share, &mut round).await;
            if is_last {
                break;
            }
        }
        (round, None)
    }

    async fn settle_all(self: &Arc<Self>, claimed: Vec<Due>, now: Timestamp, share: &Arc<Share>, round: &mut Round) {
        let mut settling = JoinSet::new();
        for due in claimed {
            round.due += 1;
            round.oldest = round.oldest.max(now.since(due.since));
            self.metrics.observe_overdue(round.oldest);
            let (uploads, share) = (Arc::clone(self), Arc::clone(share));
            let span = share.span.as_ref().map(|span| span.child("sweep settle", Kind::Internal));
            settling.spawn(
                async move {
                    // Never closed; and whoever fails for want of one has lost nothing.
                    let Ok(_permit) = share.permits.acquire().await else { return (Some(Failure::Away), due.since) };
                    let failure = trace::run_logged(span, uploads.settle(due, now.plus(CLAIM))).await;
                    share.observe(failure);
                    (failure, due.since)
                }
                .in_current_span(),
            );
        }
        while let Some(settled) = settling.join_next().await {
            match settled {
                Ok((None, _)) => {}
                // It waits for somebody to mend it, and not for a sweep.
                Ok((Some(Failure::Unreadable), _)) | Err(_) => round.failed += 1,
                Ok((Some(Failure::Away | Failure::Refused), since)) => {
                    let failed_since = Some(since);
                    round.add(Round { failed: 1, failed_since, ..Round::default() });
                }
            }
        }
    }

    /// Settles one upload that is claimed until then, and gives why that failed, if it did.
    async fn settle(&self, Due { id, .. }: Due, claimed_until: Timestamp) -> Option<Failure> {
        trace::record("upload.id", || id.to_string());
        // As much as a request has: a look, and what follows from it.
        let deadline = Instant::now() + 2 * self.storage_timeout;
        let settled = self.settle_within(id, deadline).await;
        self.metrics.observe_settled(settled.as_ref().ok().copied());
        match settled {
            // Somebody else is at it at this moment, and it is due again soon.
            Ok(_) | Err(Error::Contended | Error::NotFound) => None,
            Err(error) => {
                let failure = Failure::of(&error);
                info!(upload.id = %id, error = chain(&error), "an upload that was due is not settled, and is due again");
                if failure == Failure::Unreadable {
                    let next = self.clock.now().plus(UNREADABLE_PAUSE);
                    // Otherwise it comes back with the end of the claim.
                    let _ = self.store.postpone(id, &self.region.name, claimed_until, next).await;
                }
                Some(failure)
            }
        }
    }

    async fn settle_within(&self, id: UploadId, deadline: Instant) -> Result<Settled, Error> {
        // What has ended is cleaned up by its session: without that it would seem clean.
        let Some(tracked) = self.store.find_whole(id).await? else {
            self.store.unschedule(id, &self.region.name).await?;
            return Ok(Settled::Forgotten);
        };
        match &tracked.upload.state {
            UploadState::Admitted { lease_until } => {
                let lease_until = *lease_until;
                self.settle_interrupted(tracked, lease_until, deadline).await
            }
            UploadState::Pending | UploadState::Uploading { .. } if self.has_run_out(&tracked.upload) => {
                self.end(tracked, Evidence::TimeRanOut, Witness::Sweep, deadline).await?;
                Ok(Settled::Ended)
            }
            UploadState::Pending | UploadState::Uploading { .. } => {
                // That the session is lost is for the client to find, and to mend by a renewal; its time runs on.
                let (Looked::Progressed(tracked) | Looked::Lost(tracked)) =
                    self.look(tracked, Witness::Sweep, deadline).await?;
                if tracked.upload.state.is_final() {
                    return Ok(Settled::Ended);
                }
                self.store.schedule(&tracked, self.next_look(&tracked.upload, &tracked.upload.state)).await?;
                Ok(Settled::UnderWay)
            }
            UploadState::Completed { .. } => {
                self.store.schedule(&tracked, None).await?;
                Ok(Settled::Clean)
            }
            UploadState::Rejected { at, .. } | UploadState::Cancelled { at, .. } | UploadState::Expired { at, .. } => {
                let ended_at = *at;
                let settled = self.clean_up(&tracked, deadline).await?;
                let next = next_clean_up(&tracked, ended_at, settled, self.clock.now());
                self.store.schedule(&tracked, next).await?;
                Ok(settled)
            }
        }
    }

    /// Adopts what a creation has left at storage that was interrupted, or withdraws it.
    ///
    /// Nobody was told of its session, unless the store has lost what it had acknowledged: then there may be an object.
    async fn settle_interrupted(
        &self,
        tracked: Tracked,
        lease_until: Timestamp,
        deadline: Instant,
    ) -> Result<Settled, Error> {
        let now = self.clock.now();
        if lease_until > now {
            self.store.schedule(&tracked, Some(lease_until)).await?;
            return Ok(Settled::Interrupted);
        }
        if let Some(object) = self.arrived(&tracked.upload, deadline).await? {
            self.judge(tracked, object, Witness::Sweep, deadline).await?;
            return Ok(Settled::Ended);
        }
        let withdrawn_at = lease_until.plus(REPEAT_GRACE).min(tracked.upload.expires_at);
        if withdrawn_at > now {
            self.store.schedule(&tracked, Some(withdrawn_at)).await?;
        } else if let Some(lease) = Lease::of(&tracked) {
            self.store.abandon(&lease, &tracked.upload).await?;
        }
        Ok(Settled::Interrupted)
    }

    /// When an upload is to be looked at that is in the state `next` now. One that is under way after a silence, which may
    /// grow with its age, and at its end at the latest; one that ended otherwise than completed, once more.
    pub(super) fn next_look(&self, upload: &Upload, next: &UploadState) -> Option<Timestamp> {
        let now = self.clock.now();
        match next {
            UploadState::Completed { .. } => None,
            UploadState::Rejected { .. } | UploadState::Cancelled { .. } | UploadState::Expired { .. } => {
                Some(now.plus(FIRST_CLEAN_UP))
            }
            UploadState::Admitted { .. } | UploadState::Pending | UploadState::Uploading { .. } => {
                let (age, idle_after) = (now.since(upload.created_at), self.sweeper.idle_after.0);
                let pause = match upload.promise.size {
                    PromisedSize::Exactly(_) => idle_after.max((age / 8).min(LONGEST_PAUSE)),
                    PromisedSize::Between { .. } => idle_after.min(UNBOUNDED_PAUSE.max(age / 16)),
                };
                Some(now.plus(pause).min(upload.expires_at))
            }
        }
    }
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::clock::Randomness;
    use crate::emulator::faults::{Action, Fault, Reply};
    use crate::emulator::journal::Operation;
    use crate::store::testing::Server;
    use crate::store::{EncryptionKeySettings, Store};
    use crate::uploads::tests::{create, uploads};

    const MINUTE: Duration = Duration::from_secs(60);

    /// More than end a round if they fail because storage is away, and whole batches of them.
    const MANY: usize = 3 * BATCH as usize;

    #[tokio::test]
    async fn while_redis_is_away_the_lag_grows() {
        let Some(mut server) = Server::start() else { return };
        let (_emulator, uploads) = uploads().await;
        let Some(mut uploads) = Arc::into_inner(uploads) else { panic!("shared") };
        uploads.store = Arc::new(Store::open(&server.settings("t"), Randomness::System).await.unwrap());
        let uploads = Arc::new(uploads);
        assert_eq!(uploads.sweep().await.lag, Duration::ZERO);
        server.kill();
        for minutes in [5, 10] {
            uploads.clock.advance(5 * MINUTE);
            assert_eq!(uploads.sweep().await.lag, minutes * MINUTE);
        }
        server.restart();
        while uploads.store.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(uploads.sweep().await.lag, Duration::ZERO);
    }

    #[tokio::test]
    async fn while_storage_fails_the_lag_grows() {
        let (emulator, uploads) = uploads().await;
        create(&uploads).await;
        uploads.clock.advance(uploads.sweeper.idle_after.0);
        let overdue = uploads.sweeper.idle_after.0.saturating_sub(UNBOUNDED_PAUSE);
        let outage = Fault { count: None, ..Fault::once(Operation::Status, Action::Respond(Reply::status(503))) };
        emulator.faults().add(outage);
        for minutes in 0..4_u32 {
            // After each attempt, and between two.
            assert_eq!(uploads.sweep().await.lag, overdue + minutes * MINUTE, "{minutes}");
            uploads.clock.advance(MINUTE);
        }
        emulator.faults().clear();
        let round = uploads.sweep().await;
        assert_eq!((round.due, round.failed), (1, 0));
        uploads.clock.advance(CLAIM + MINUTE);
        assert!(uploads.sweep().await.lag < CLAIM, "it is due as any other");
    }

    #[tokio::test]
    async fn what_storage_refuses_does_not_keep_others_waiting() {
        let (emulator, uploads) = uploads().await;
        for _ in 0..=MANY {
            create(&uploads).await;
        }
        uploads.clock.advance(uploads.sweeper.idle_after.0);
        for _ in 0..MANY {
            emulator.faults().add(Fault::once(Operation::Status, Action::Respond(Reply::status(403))));
        }
        let round = uploads.sweep().await;
        assert_eq!((round.due, round.failed), (MANY + 1, MANY));
    }

    #[tokio::test]
    async fn what_cannot_be_read_keeps_nobody_waiting_and_comes_back_in_an_hour() {
        let Some(server) = Server::start() else { return };
        let (_emulator, uploads) = uploads().await;
        let Some(mut uploads) = Arc::into_inner(uploads) else { panic!("shared") };
        uploads.store = Arc::new(Store::open(&server.settings("t"), Randomness::System).await.unwrap());
        let uploads = Arc::new(uploads);
        let mut unreadable = Vec::new();
        for _ in 0..MANY {
            unreadable.push(create(&uploads).await.upload.id);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("k2.key");
        std::fs::write(&file, base64::engine::general_purpose::STANDARD.encode([2; 32])).unwrap();
        let key = EncryptionKeySettings { id: "k2".to_owned(), file };
        let keys = uploads.store.read_keys(&[key], Randomness::System).await.unwrap().unwrap();
        uploads.store.replace_keys(keys);
        uploads.clock.advance(Duration::from_secs(1));
        let readable = create(&uploads).await.upload.id;
        uploads.clock.advance(uploads.sweeper.idle_after.0);
        let now = uploads.clock.now();
        let round = uploads.sweep().await;
        assert_eq!((round.due, round.failed), (MANY + 1, MANY));
        assert_eq!(uploads.store.due(readable).await, Some(now.plus(UNBOUNDED_PAUSE)), "it was looked at");
        for id in unreadable {
            assert_eq!(uploads.store.due(id).await, Some(now.plus(UNREADABLE_PAUSE)));
        }
    }
}
