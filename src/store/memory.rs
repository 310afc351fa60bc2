//! The store in this process: the same behaviour, for a single instance, the demo and tests.
//!
//! One map a kind behind one lock, which is never held across an await. What Redis forgets by the lives of its keys is
//! forgotten here at admissions, a few at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::endpoint::EndpointId;
use crate::model::id::UploadId;
use crate::model::idempotency::{Fingerprint, IdempotencyKey};
use crate::model::limits::Limits;
use crate::model::name::PolicyName;
use crate::model::principal::{Owner, PrincipalId};
use crate::model::secret::SessionUri;
use crate::model::time::Timestamp;
use crate::model::upload::{Upload, UploadState};

use super::error::Error;
use super::keys::{FINAL_RETENTION, INDEX_LIFE, KEY_LIFE};
use super::ledger::{Claim, Ledger, Token, countable, reservation_end};
use super::metrics::Metrics;
use super::record::millis;
use super::{
    Admitted, Advanced, Attached, Cursor, Ending, Intent, Lease, Listing, Page, Revision, Standing, Tracked, Usage,
    live_retention, outbox, owners,
};

/// How much is forgotten at one admission, or at one failed delivery, at most: more than either adds.
pub(super) const FORGET_AT_ONCE: usize = 16;

/// The store in this process.
pub struct MemoryStore {
    known: Mutex<Known>,
    metrics: Metrics,
}

#[derive(Default)]
pub(super) struct Known {
    pub(super) uploads: HashMap<UploadId, Kept>,
    pub(super) ledgers: HashMap<(PrincipalId, PolicyName), Ledger>,
    index: HashMap<PrincipalId, BTreeSet<Cursor>>,
    keys: HashMap<(PrincipalId, IdempotencyKey), Remembered>,
    /// Uploads by when to look at them next.
    pub(super) due: BTreeSet<(Timestamp, UploadId)>,
    /// Who is to be told of which end.
    pub(super) deliveries: BTreeMap<(EndpointId, UploadId), outbox::Kept>,
    /// The names of principals that have uploads, packed.
    pub(super) owners: BTreeMap<PrincipalId, String>,
    /// What to forget when.
    forget: BTreeMap<(Timestamp, u64), Forgettable>,
    /// Tells what is to be forgotten at the same time apart.
    sequence: u64,
}

pub(super) struct Kept {
    pub(super) tracked: Tracked,
    due: Option<Timestamp>,
    /// Since when it has been due, while it is claimed.
    pub(super) overdue_since: Option<Timestamp>,
    forget_at: Timestamp,
}

struct Remembered {
    id: UploadId,
    fingerprint: Fingerprint,
    forget_at: Timestamp,
}

enum Forgettable {
    Upload(UploadId),
    Key(PrincipalId, IdempotencyKey),
}

impl MemoryStore {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default(), metrics: Metrics::new() }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // A panic in between would be a defect of ours; what is known stays worth more than nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admit(&self, intent: &Intent<'_>) -> Result<Admitted, Error> {
        let lease_until = intent.lease_until()?;
        let known = &mut *self.known();
        known.forget(intent.now);
        if let Some(own) = known.uploads.get(&intent.upload.id) {
            if own.tracked.upload.state == intent.upload.state {
                let lease = intent.lease(own.tracked.revision, lease_until);
                return Ok(Admitted::Granted { lease, would_refuse: None });
            }
            return Ok(match Standing::of(own.tracked.clone(), intent.now) {
                Standing::Answer(answer) => answer,
                Standing::Lapsed(own) => known.resume(intent, &own, lease_until),
                Standing::Over => Admitted::InProgress { until: lease_until },
            });
        }
        if let Some((remembered, kept)) = known.remembered(intent) {
            if intent.idempotency.is_some_and(|(_, ours)| ours != remembered.fingerprint) {
                return Ok(Admitted::Mismatch);
            }
            match Standing::of(kept.tracked.clone(), intent.now) {
                Standing::Answer(answer) => return Ok(answer),
                Standing::Lapsed(found) => return Ok(known.resume(intent, &found, lease_until)),
                Standing::Over => {}
            }
        }
        Ok(known.admit(intent, lease_until))
    }

    pub(super) fn knows_key(&self, principal: PrincipalId, key: IdempotencyKey, now: Timestamp) -> bool {
        self.known().keys.get(&(principal, key)).is_some_and(|remembered| remembered.forget_at > now)
    }

    pub(super) fn attach(&self, lease: &Lease, upload: &Upload, session: &SessionUri, due: Timestamp) -> Attached {
        let known = &mut *self.known();
        let Some(kept) = known.uploads.get_mut(&upload.id) else { return Attached::LeaseLost(None) };
        let ledger = known.ledgers.get_mut(&(upload.principal, upload.policy.clone()));
        let prolong = |ledger: &mut Ledger| ledger.prolong(upload.id.random(), reservation_end(upload));
        if !kept.is_leased(lease) || !ledger.is_some_and(prolong) {
            let tracked = kept.tracked.clone();
            if tracked.session.as_ref() == Some(session) && !tracked.upload.state.is_final() {
                return Attached::Tracked(tracked);
            }
            return Attached::LeaseLost(Some(tracked));
        }
        kept.tracked = Tracked {
            upload: Upload { state: UploadState::Pending, ..upload.clone() },
            session: Some(session.clone()),
            revision: lease.revision.next(),
        };
        let tracked = kept.tracked.clone();
        known.schedule(upload.id, Some(due));
        Attached::Tracked(tracked)
    }

    pub(super) fn abandon(&self, lease: &Lease, upload: &Upload) {
        let known = &mut *self.known();
        if known.uploads.get(&upload.id).is_some_and(|kept| kept.is_leased(lease)) {
            known.release(upload);
            known.remove(upload.id);
            let key = lease.idempotency.map(|key| (upload.principal, key));
            if let Some(key) = key.filter(|key| known.keys.get(key).is_some_and(|found| found.id == upload.id)) {
                known.keys.remove(&key);
            }
        }
    }

    pub(super) fn find(&self, id: UploadId) -> Option<Tracked> {
        self.known().uploads.get(&id).map(|kept| kept.tracked.clone())
    }

    pub(super) fn list(&self, principal: PrincipalId, page: &Page, now: Timestamp) -> Listing {
        let known = &*self.known();
        let oldest = millis(now.minus(INDEX_LIFE));
        let mut listing = Listing::default();
        let Some(index) = known.index.get(&principal) else { return listing };
        let mut entries = index
            .iter()
            .rev()
            .skip_while(|entry| page.after.is_some_and(|after| **entry >= after))
            .take_while(|entry| entry.created_at >= oldest)
            .peekable();
        let mut budget = Page::SCAN;
        while let Some(entry) = entries.next() {
            budget -= 1;
            let found = known.uploads.get(&UploadId::new(principal.partition(), entry.random));
            listing
                .uploads
                .extend(found.filter(|kept| page.takes(&kept.tracked.upload)).map(|kept| kept.tracked.clone()));
            if listing.uploads.len() == page.limit() || budget == 0 {
                listing.next = entries.peek().map(|_| *entry);
                break;
            }
        }
        listing
    }

    pub(super) fn replace(
        &self,
        tracked: &Tracked,
        next: Tracked,
        due: Option<Timestamp>,
        tell: &[EndpointId],
        now: Timestamp,
    ) -> Advanced {
        let known = &mut *self.known();
        let id = tracked.upload.id;
        let Some(kept) = known.uploads.get_mut(&id) else { return Advanced::Vanished };
        if kept.tracked.revision != tracked.revision || kept.tracked.upload.state.is_final() {
            let found = kept.tracked.clone();
            return if found == next { Advanced::Done(found) } else { Advanced::Conflict(found) };
        }
        kept.tracked = next.clone();
        if next.upload.state.is_final() {
            kept.forget_at = now.plus(FINAL_RETENTION);
            let forget_at = kept.forget_at;
            known.forget_later(forget_at, Forgettable::Upload(id));
        }
        match Ending::of(&next.upload.state) {
            Ending::Keep => {}
            Ending::Release => known.release(&next.upload),
            Ending::Settle(size) => {
                let ledger = (next.upload.principal, next.upload.policy.clone());
                known.ledgers.entry(ledger).or_default().settle(id.random(), size.0, now);
            }
        }
        known.schedule(id, due);
        for endpoint in tell {
            known.deliveries.insert((*endpoint, id), outbox::Kept::new(now));
        }
        Advanced::Done(next)
    }

    pub(super) fn usage(
        &self,
        principal: PrincipalId,
        policies: &[(&PolicyName, Limits)],
        now: Timestamp,
    ) -> Vec<Usage> {
        let known = self.known();
        let usage = |(policy, limits): &(&PolicyName, Limits)| {
            let ledger = known.ledgers.get(&(principal, (*policy).clone()));
            ledger.map_or_else(|| Ledger::default().usage(limits, now), |ledger| ledger.usage(limits, now))
        };
        policies.iter().map(usage).collect()
    }

    /// When the upload is to be looked at next.
    #[cfg(test)]
    pub(super) fn due(&self, id: UploadId) -> Option<Timestamp> {
        let known = self.known();
        known.due.iter().find(|(_, due)| *due == id).map(|(at, _)| *at)
    }

    /// How many things are kept in all.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let known = self.known();
        let index: usize = known.index.values().map(BTreeSet::len).sum();
        let queues = known.due.len() + known.forget.len() + known.deliveries.len();
        known.uploads.len() + known.ledgers.len() + index + known.keys.len() + known.owners.len() + queues
    }
}

impl Kept {
    fn is_leased(&self, lease: &Lease) -> bool {
        matches!(self.tracked.upload.state, UploadState::Admitted { .. }) && self.tracked.revision == lease.revision
    }
}

impl Known {
    /// The upload that the intent's idempotency key names.
    fn remembered(&self, intent: &Intent<'_>) -> Option<(&Remembered, &Kept)> {
        let (key, _) = intent.idempotency?;
        let remembered = self.keys.get(&(intent.upload.principal, key))?;
        Some((remembered, self.uploads.get(&remembered.id)?)).filter(|_| remembered.forget_at > intent.now)
    }

    fn admit(&mut self, intent: &Intent<'_>, lease_until: Timestamp) -> Admitted {
        let Intent { upload, owner, idempotency, now, .. } = *intent;
        let ledger = self.ledgers.entry((upload.principal, upload.policy.clone())).or_default();
        let would_refuse = match ledger.claim(&intent.claim(upload, lease_until, Token::Take)) {
            Ok(would_refuse) => would_refuse,
            Err(hit) => return Admitted::Refused(hit),
        };
        self.keep(Tracked { upload: upload.clone(), session: None, revision: Revision::FIRST }, now);
        self.name(upload.principal, Some(owner));
        self.schedule(upload.id, Some(lease_until));
        if let Some((key, fingerprint)) = idempotency {
            self.keys.remove(&(upload.principal, key));
            self.remember(upload, key, fingerprint, now.plus(KEY_LIFE), now);
        }
        Admitted::Granted { lease: intent.lease(Revision::FIRST, lease_until), would_refuse }
    }

    /// Remembers the idempotency key of an upload, unless it is another's.
    pub(super) fn remember(
        &mut self,
        upload: &Upload,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        forget_at: Timestamp,
        now: Timestamp,
    ) {
        let name = (upload.principal, key);
        if self.keys.get(&name).is_none_or(|remembered| remembered.forget_at <= now) {
            self.keys.insert(name, Remembered { id: upload.id, fingerprint, forget_at });
            self.forget_later(forget_at, Forgettable::Key(upload.principal, key));
        }
    }

    /// Writes down who is behind a principal, unless that is known.
    pub(super) fn name(&mut self, principal: PrincipalId, owner: Option<Owner<'_>>) {
        let names = self.owners.entry(principal).or_default();
        if let Some(owner) = owner.filter(|_| names.is_empty()) {
            *names = owners::packed(owner);
        }
    }

    /// Keeps a record that is new, and lists it.
    pub(super) fn keep(&mut self, tracked: Tracked, now: Timestamp) {
        let upload = &tracked.upload;
        let (id, forget_at) = (upload.id, now.plus(live_retention(upload, now)));
        self.index.entry(upload.principal).or_default().insert(Cursor::behind(upload.created_at, id));
        self.uploads.insert(id, Kept { tracked, due: None, overdue_since: None, forget_at });
        self.forget_later(forget_at, Forgettable::Upload(id));
    }

    fn resume(&mut self, intent: &Intent<'_>, lapsed: &Tracked, lease_until: Timestamp) -> Admitted {
        let next = lapsed.moved_to(UploadState::Admitted { lease_until });
        let upload = &next.upload;
        let ledger = self.ledgers.entry((upload.principal, upload.policy.clone())).or_default();
        if let Err(hit) = ledger.claim(&intent.claim(upload, lease_until, Token::Taken)) {
            return Admitted::Refused(hit);
        }
        if let Some(kept) = self.uploads.get_mut(&upload.id) {
            kept.tracked = next.clone();
        }
        self.schedule(upload.id, Some(lease_until));
        Admitted::Resumed { lease: intent.lease(next.revision, lease_until), upload: next.upload }
    }

    fn release(&mut self, upload: &Upload) {
        if let Some(ledger) = self.ledgers.get_mut(&(upload.principal, upload.policy.clone())) {
            ledger.release(upload.id.random());
        }
    }

    pub(super) fn schedule(&mut self, id: UploadId, due: Option<Timestamp>) {
        let Some(kept) = self.uploads.get_mut(&id) else { return };
        kept.overdue_since = None;
        if let Some(before) = std::mem::replace(&mut kept.due, due) {
            self.due.remove(&(before, id));
        }
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }

    fn remove(&mut self, id: UploadId) {
        self.schedule(id, None);
        self.deliveries.retain(|(_, other), _| *other != id);
        if let Some(Kept { tracked: Tracked { upload, .. }, .. }) = self.uploads.remove(&id)
            && let Some(index) = self.index.get_mut(&upload.principal)
        {
            index.remove(&Cursor::behind(upload.created_at, id));
            if index.is_empty() {
                self.index.remove(&upload.principal);
                self.owners.remove(&upload.principal);
            }
        }
    }

    fn forget_later(&mut self, at: Timestamp, what: Forgettable) {
        self.sequence += 1;
        self.forget.insert((at, self.sequence), what);
    }

    fn forget(&mut self, now: Timestamp) {
        for _ in 0..FORGET_AT_ONCE {
            let Some(first) = self.forget.first_entry().filter(|entry| entry.key().0 <= now) else { return };
            match first.remove() {
                // Whoever ended later than planned is forgotten later than planned.
                Forgettable::Upload(id) => {
                    let gone = self.uploads.get(&id).filter(|kept| kept.forget_at <= now);
                    if let Some(upload) = gone.map(|kept| kept.tracked.upload.clone()) {
                        self.remove(id);
                        let ledger = (upload.principal, upload.policy);
                        self.ledgers.get_mut(&ledger).into_iter().for_each(|ledger| ledger.release(id.random()));
                        if self.ledgers.get(&ledger).is_some_and(|ledger| ledger.is_idle(now)) {
                            self.ledgers.remove(&ledger);
                        }
                    }
                }
                Forgettable::Key(principal, key) => {
                    if self.keys.get(&(principal, key)).is_some_and(|remembered| remembered.forget_at <= now) {
                        self.keys.remove(&(principal, key));
                    }
                }
            }
        }
    }
}

impl<'a> Intent<'a> {
    fn claim(&'a self, upload: &Upload, lease_until: Timestamp, token: Token) -> Claim<'a> {
        Claim {
            id: upload.id.random(),
            bytes: countable(self.reserve),
            ends: millis(lease_until),
            limits: &self.limits,
            enforcement: self.enforcement,
            now: self.now,
            token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::*;
    use crate::model::upload::Evidence;

    #[tokio::test]
    async fn what_is_over_is_forgotten() {
        let store = memory();
        let Store::Memory(memory) = &store else { return };
        let tight = limits(Some(5), Some("9/1m"), Some(1 << 40));
        for number in 0..200_u8 {
            let upload = intent_of(user(number), 1, NOW);
            let key = (IdempotencyKey([1; 16]), Fingerprint([1; 16]));
            let tracked = store.create(&Intent { idempotency: Some(key), ..plain(&upload, tight) }).await;
            match number % 3 {
                0 => drop(store.end(&tracked, verified(1), NOW).await),
                1 => drop(store.end(&tracked, Evidence::CancelRequested, NOW.plus(SECONDS(86_400))).await),
                _ => {}
            }
        }
        assert!(memory.size() > 1_000);
        let much_later = NOW.plus(SECONDS(10 * 86_400));
        for _ in 0..80 {
            store.grant(&plain(&intent_of(user(201), 1, much_later), tight)).await;
        }
        assert_eq!(memory.size(), 6, "the one that is new: upload, ledger, index, owner, due, and when to forget it");
    }
}
