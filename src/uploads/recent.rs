//! What the store has acknowledged to this instance lately, and what is done when it has lost that.
//!
//! A replica that takes a master's place may lack the last writes, however they were acknowledged: an upload that its
//! client already has is unknown, one that has ended is under way again and holds its reservation, and nothing at storage
//! tells of a cancel. So each instance remembers what it was acknowledged in the last minutes, and after every connection
//! that was lost or leads elsewhere a sweep compares that with what is known and writes again what is missing. What was
//! lost together with the instance is found by other ways: objects by their notes, ends by the due queue.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::{Error, TRANSITION_ATTEMPTS, Uploads, endpoints};
use crate::model::id::UploadId;
use crate::model::idempotency::{Fingerprint, IdempotencyKey};
use crate::model::principal::Principal;
use crate::model::time::Timestamp;
use crate::model::upload::{Evidence, Overwrite, Upload, UploadState};
use crate::store::{Advanced, Attached, Lease, Lost, Names, Tracked};

/// How long something is remembered: longer than it takes to replace a master, the tries included that fail.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// How many are remembered, of about a kibibyte each and their metadata. Of more, the latest; what a replica lacks is
/// mostly milliseconds old.
const MOST: usize = 4096;

/// How often what is remembered is compared after a loss, in rounds of the sweep: what was under way when the loss was
/// noticed may have been acknowledged by the old master after the first of them.
const PASSES: u8 = 2;

/// After so many failures the store is taken to be away: one master of a cluster alone would not have them in a row.
const FAILURES_IN_A_ROW: u32 = 16;

/// What was acknowledged lately.
#[derive(Debug, Default)]
pub struct Recent {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The oldest first.
    kept: VecDeque<(Timestamp, Remembered)>,
    /// The losses that were noticed when it was last compared, and how often that was done since they were.
    passes: (u64, u8),
}

/// What the store has acknowledged of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered {
    tracked: Tracked,
    /// Once for each upload, with its creation.
    origin: Option<Arc<Origin>>,
}

/// What of an upload does not stand in its record, and only the request tells that creates it.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    owner: Option<Names>,
    idempotency: Option<(IdempotencyKey, Fingerprint)>,
}

impl Recent {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic in between would be a defect of ours; what is remembered stays worth more than nothing.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, remembered: Remembered, now: Timestamp) {
        let mut memory = self.memory();
        if memory.kept.len() == MOST {
            memory.kept.pop_front();
        }
        memory.kept.push_back((now, remembered));
    }

    /// What is to be compared after so many `losses`, each upload once as it was last, the latest first. Forgets what is
    /// too old.
    fn to_compare(&self, losses: u64, now: Timestamp) -> Vec<Remembered> {
        let mut memory = self.memory();
        while memory.kept.front().is_some_and(|(at, _)| now.since(*at) >= REMEMBERED_FOR) {
            memory.kept.pop_front();
        }
        if memory.passes.0 != losses {
            memory.passes = (losses, 0);
        }
        if memory.passes.1 >= PASSES {
            return Vec::new();
        }
        let mut seen: BTreeMap<UploadId, usize> = BTreeMap::new();
        let mut latest: Vec<Remembered> = Vec::new();
        for (_, remembered) in memory.kept.iter().rev() {
            match seen.entry(remembered.tracked.upload.id) {
                Entry::Vacant(place) => {
                    place.insert(latest.len());
                    latest.push(remembered.clone());
                }
                Entry::Occupied(place) => {
                    let last = &mut latest[*place.get()];
                    last.origin = last.origin.take().or_else(|| remembered.origin.clone());
                }
            }
        }
        latest
    }

    fn compared(&self, losses: u64) {
        let mut memory = self.memory();
        if memory.passes.0 == losses {
            memory.passes.1 = memory.passes.1.saturating_add(1);
        }
    }
}

/// What became of something that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recalled {
    /// The store knows it.
    Known,
    /// The store had lost it, and knows it again.
    Written,
}

impl Uploads {
    /// Remembers what the store has just acknowledged, if it can lose it.
    pub(super) fn remember(&self, tracked: &Tracked) {
        self.remember_with(tracked, || None);
    }

    /// Does so with an upload that was just created.
    pub(super) fn remember_created(
        &self,
        tracked: &Tracked,
        principal: &Principal,
        idempotency: Option<(IdempotencyKey, Fingerprint)>,
    ) {
        self.remember_with(tracked, || Some(Arc::new(Origin { owner: Names::of(principal.owner()), idempotency })));
    }

    fn remember_with(&self, tracked: &Tracked, origin: impl FnOnce() -> Option<Arc<Origin>>) {
        if self.store.losses().is_some() {
            let remembered = Remembered { tracked: tracked.clone(), origin: origin() };
            self.recent.remember(remembered, self.clock.now());
        }
    }

    /// Writes again what the store has acknowledged to this instance and lost, if it may have lost anything since this was
    /// last done.
    pub(super) async fn recall(&self) -> Result<(), Error> {
        let Some(losses) = self.store.losses() else { return Ok(()) };
        let mut failure = None;
        let (mut written, mut in_a_row) = (0_u64, 0);
        for remembered in self.recent.to_compare(losses, self.clock.now()) {
            match self.recall_one(&remembered).await {
                Ok(recalled) => {
                    written += u64::from(recalled == Recalled::Written);
                    in_a_row = 0;
                }
                Err(error) => {
                    failure = Some(error);
                    in_a_row += 1;
                    // The next round compares all of it again.
                    if in_a_row == FAILURES_IN_A_ROW {
                        break;
                    }
                }
            }
        }
        if written > 0 {
            warn!(uploads = written, "the store had lost what it had acknowledged, which is written again");
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.recent.compared(losses);
        Ok(())
    }

    async fn recall_one(&self, remembered: &Remembered) -> Result<Recalled, Error> {
        let tracked = &remembered.tracked;
        let mut recalled = Recalled::Known;
        for _ in 0..TRANSITION_ATTEMPTS {
            let step = match self.store.find(tracked.upload.id).await? {
                None => self.write_anew(remembered).await?,
                Some(current) if current.upload.state.is_final() => {
                    self.take_back(&current, tracked).await;
                    Step::Nothing
                }
                Some(current) if tracked.upload.state.is_final() => self.end_again(&current, tracked).await?,
                Some(current) => self.reopen(&current, tracked).await?,
            };
            match step {
                Step::Nothing if recalled == Recalled::Written => {
                    // Its record may be one that an object's note has made, which knows nothing of its creation.
                    if remembered.origin.is_some() {
                        self.write_anew(remembered).await?;
                    }
                    self.metrics.observe_recalled(&tracked.upload);
                    self.watchers.nudge(tracked.upload.id);
                    return Ok(recalled);
                }
                Step::Nothing => return Ok(recalled),
                // Another look tells whether more is missing.
                Step::Written => recalled = Recalled::Written,
                Step::Overtaken => {}
            }
        }
        Err(Error::Contended)
    }

    /// The record as it was before its end, if it had one, with its session, its reservation and what is known of its
    /// creation.
    async fn write_anew(&self, remembered: &Remembered) -> Result<Step, Error> {
        let (tracked, origin) = (&remembered.tracked, remembered.origin.as_deref());
        let upload = Upload { state: UploadState::Pending, ..tracked.upload.clone() };
        let lost = Lost {
            tracked: &Tracked { upload, ..tracked.clone() },
            owner: origin.and_then(|origin| origin.owner.as_ref()).map(Names::owner),
            idempotency: origin.and_then(|origin| origin.idempotency),
        };
        self.store.restore_lost(&lost, self.clock.now()).await?;
        Ok(Step::Written)
    }

    /// Records the end that was recorded before. What it was made of was read from storage then, and need not be there any
    /// more: its owner may have taken the object away since.
    async fn end_again(&self, current: &Tracked, remembered: &Tracked) -> Result<Step, Error> {
        let end = &remembered.upload.state;
        let due = self.next_look(&current.upload, end);
        let tell = endpoints::told_of(&self.endpoints, end);
        let advanced = self.store.advance(current, end.clone(), due, &tell, self.clock.now()).await?;
        let Advanced::Done(ended) = advanced else { return Ok(Step::Overtaken) };
        if !tell.is_empty() {
            self.hint_at(ended.upload.id);
        }
        // A renewal may have opened it, of an upload that seemed to be under way. The record of one that is not completed
        // keeps its session, which the sweep then revokes.
        if let (UploadState::Completed { .. }, Some(session)) = (end, &current.session) {
            self.discard(&current.upload, session).await;
        }
        Ok(Step::Written)
    }

    /// Revokes the session that was handed out and acknowledged, and is not the upload's: another took its place after the
    /// store had lost it, and two must not work. Mostly it is dead, and nothing happens.
    async fn take_back(&self, current: &Tracked, remembered: &Tracked) {
        let Some(session) = remembered.session.as_ref().filter(|_| current.session != remembered.session) else {
            return;
        };
        // What has made the object is over, and any other session of the upload must find the object there.
        let is_harmless = matches!(current.upload.state, UploadState::Completed { .. })
            && current.upload.attributes.overwrite == Overwrite::Forbidden;
        if !is_harmless {
            self.discard(&current.upload, session).await;
        }
    }

    /// Gives an upload the session that its client has.
    async fn reopen(&self, current: &Tracked, remembered: &Tracked) -> Result<Step, Error> {
        let Some(session) = remembered.session.as_ref().filter(|_| current.session != remembered.session) else {
            return Ok(Step::Nothing);
        };
        // Whatever was written after what is remembered counts more than that.
        if current.revision >= remembered.revision {
            self.take_back(current, remembered).await;
            return Ok(Step::Nothing);
        }
        let now = self.clock.now();
        let due = self.next_look(&current.upload, &UploadState::Pending);
        if let Some(lease) = Lease::of(current) {
            let due = due.unwrap_or(current.upload.expires_at);
            return Ok(match self.store.attach(&lease, &current.upload, session, due).await? {
                Attached::Tracked(_) => Step::Written,
                Attached::LeaseLost(Some(found)) if found.revision == current.revision => {
                    // Its reservation has ended and was taken away: it is written anew with another.
                    self.store.abandon(&lease, &current.upload).await?;
                    Step::Overtaken
                }
                Attached::LeaseLost(_) => Step::Overtaken,
            });
        }
        let Ok(next) = current.upload.state.after(Evidence::SessionRenewed, now) else { return Ok(Step::Overtaken) };
        Ok(match self.store.renew(current, next, session, due, now).await? {
            Advanced::Done(_) => Step::Written,
            Advanced::Conflict(_) | Advanced::Vanished => Step::Overtaken,
        })
    }
}

/// What one look at an upload led to.
enum Step {
    /// Nothing is missing.
    Nothing,
    /// Something was missing, and is there again.
    Written,
    /// Somebody else was quicker.
    Overtaken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Partition;
    use crate::model::principal::Owner;
    use crate::model::size::ByteCount;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn tracked(number: u32) -> Remembered {
        let tracked = crate::store::testing::tracked(UploadId::new(Partition(7), u128::from(number).to_be_bytes()));
        Remembered { tracked, origin: None }
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_in_time() {
        let recent = Recent::default();
        let most = u32::try_from(MOST).unwrap();
        for number in 0..most + 10 {
            recent.remember(tracked(number), NOW);
        }
        let compared = recent.to_compare(1, NOW);
        assert_eq!(compared.len(), MOST);
        assert_eq!(compared[0], tracked(most + 9), "the latest first");
        recent.remember(tracked(7), NOW.plus(Duration::from_secs(1)));
        assert_eq!(recent.to_compare(1, NOW.plus(REMEMBERED_FOR)), [tracked(7)]);
        assert_eq!(recent.memory().kept.len(), 1, "the others are forgotten");
    }

    #[test]
    fn each_upload_is_compared_as_it_was_last_and_twice_after_a_loss() {
        let recent = Recent::default();
        let created = |number| {
            let owner = Owner { issuer: "https://issuer.example", tenant: None, subject: "ada" };
            let origin = Origin { owner: Names::of(owner), idempotency: None };
            Remembered { origin: Some(Arc::new(origin)), ..tracked(number) }
        };
        let ended = Upload {
            state: UploadState::Cancelled { received: ByteCount::ZERO, at: NOW },
            ..tracked(1).tracked.upload
        };
        let ended = Remembered { tracked: Tracked { upload: ended, ..tracked(1).tracked }, origin: None };
        for remembered in [created(1), created(2), ended.clone()] {
            recent.remember(remembered, NOW);
        }
        let ended = Remembered { origin: created(1).origin, ..ended };
        for (name, losses, expected) in
            [("after the first loss", 1, 2), ("once more", 1, 2), ("and not again", 1, 0), ("after another", 2, 2)]
        {
            let compared = recent.to_compare(losses, NOW);
            assert_eq!(compared.len(), expected, "{name}");
            assert!(expected == 0 || compared[0] == ended, "{name}");
            recent.compared(losses);
        }
        recent.compared(3);
        assert_eq!(recent.to_compare(3, NOW).len(), 2, "what failed is done again");
    }

    /// An upload in each step of its life, the newest last: created, its session recorded, renewed.
    #[cfg(feature = "demo")]
    async fn steps() -> (crate::emulator::Emulator, Uploads, [Tracked; 3]) {
        use crate::uploads::tests::{admit, renew, uploads};
        let (emulator, uploads) = uploads().await;
        let (upload, lease, session) = admit(&uploads).await;
        let admitted = uploads.store.find(upload.id).await.unwrap().unwrap();
        let attached = uploads.attach(&upload, &lease, &session).await.unwrap();
        let renewed = renew(&uploads, &attached).await;
        (emulator, std::sync::Arc::into_inner(uploads).unwrap(), [admitted, attached, renewed])
    }

    /// Has the store know nothing but `known`.
    #[cfg(feature = "demo")]
    async fn roll_back(uploads: &mut Uploads, known: Option<&Tracked>) {
        let store = crate::store::testing::memory();
        if let Some(known) = known {
            let lost = Lost { tracked: known, owner: None, idempotency: None };
            store.restore_lost(&lost, uploads.clock.now()).await.unwrap();
        }
        uploads.store = std::sync::Arc::new(store);
    }

    #[cfg(feature = "demo")]
    fn remembered(tracked: &Tracked) -> Remembered {
        Remembered { tracked: tracked.clone(), origin: None }
    }

    #[cfg(feature = "demo")]
    #[tokio::test]
    async fn of_several_that_remember_the_last_is_right() {
        let (_emulator, mut uploads, [admitted, attached, renewed]) = steps().await;
        for (name, known, words, expected) in [
            ("all is lost", None, vec![&renewed], &renewed),
            ("all, and an older word comes after", None, vec![&renewed, &attached], &renewed),
            ("all, and an older word comes before", None, vec![&attached, &renewed], &renewed),
            ("the session", Some(&admitted), vec![&attached], &attached),
            ("the session and its renewal", Some(&admitted), vec![&renewed], &renewed),
            ("the renewal", Some(&attached), vec![&renewed], &renewed),
            ("the renewal, of which another does not know", Some(&attached), vec![&attached], &attached),
            ("nothing", Some(&renewed), vec![&attached], &renewed),
        ] {
            roll_back(&mut uploads, known).await;
            for one in words {
                uploads.recall_one(&remembered(one)).await.unwrap();
                let again = uploads.recall_one(&remembered(one)).await.unwrap();
                assert_eq!(again, Recalled::Known, "{name}: once is enough");
            }
            let found = uploads.store.find(admitted.upload.id).await.unwrap().unwrap();
            assert_eq!((&found.upload, &found.session), (&expected.upload, &expected.session), "{name}");
        }
    }

    /// Its owner came back in between and renewed it by another broker, which knew of no session but the first.
    #[cfg(feature = "demo")]
    #[tokio::test]
    async fn a_session_that_was_lost_and_replaced_is_revoked() {
        use crate::uploads::tests::{ada, put, renew, session, soon};
        for ends in [false, true] {
            let (emulator, mut uploads, [_, attached, renewed]) = steps().await;
            roll_back(&mut uploads, Some(&attached)).await;
            let mut current = renew(&uploads, &attached).await;
            if ends {
                current = uploads.cancel(&ada(), current.upload.id, soon()).await.unwrap();
            }
            assert_eq!(emulator.sessions(), if ends { 1 } else { 2 });
            assert_eq!(uploads.recall_one(&remembered(&renewed)).await.unwrap(), Recalled::Known);
            assert_eq!(emulator.sessions(), usize::from(!ends), "of what was handed out one works at most");
            assert_eq!(uploads.store.find(current.upload.id).await.unwrap().as_ref(), Some(&current));
            if !ends {
                put(session(&current), 5).await;
            }
        }
    }

    /// Its owner saw it under way again and renewed it.
    #[cfg(feature = "demo")]
    #[tokio::test]
    async fn an_end_that_was_told_stands() {
        use crate::uploads::tests::{ada, put, renew, session, soon};
        let (emulator, mut uploads, [_, _, tracked]) = steps().await;
        put(session(&tracked), 5).await;
        let completed = uploads.complete(&ada(), tracked.upload.id, soon()).await.unwrap();
        // As if the object had not come: its customer has taken it away.
        let Some(object) = emulator.object("media-eu", tracked.upload.object.as_str()) else { panic!("no object") };
        uploads
            .storage
            .delete(&tracked.upload.bucket, &tracked.upload.object, object.generation, soon())
            .await
            .unwrap();
        roll_back(&mut uploads, Some(&tracked)).await;
        renew(&uploads, &tracked).await;
        assert_eq!(emulator.sessions(), 1);
        assert_eq!(uploads.recall_one(&remembered(&completed)).await.unwrap(), Recalled::Written);
        let found = uploads.store.find(tracked.upload.id).await.unwrap().unwrap();
        assert_eq!(found.upload, completed.upload);
        assert_eq!(emulator.sessions(), 0, "the session that it seemed to need is revoked");

        // Whatever else has ended it since is left alone.
        roll_back(&mut uploads, Some(&tracked)).await;
        let cancelled = uploads.cancel(&ada(), tracked.upload.id, soon()).await.unwrap();
        assert_eq!(uploads.recall_one(&remembered(&completed)).await.unwrap(), Recalled::Known);
        assert_eq!(uploads.store.find(tracked.upload.id).await.unwrap(), Some(cancelled));
    }
}
