//! Reads everything after a step, and holds it against the invariants.

use super::invariants::*;
use super::perform::Sent;
use super::play::History;
use super::reference::{Used, is_late};
use super::steps::{Does, Step};
use super::world::{POLICY_NAMES, Snapshot, Truth};
use super::*;
use crate::model::upload::TransferKind;

impl History {
    /// Checks everything that must hold now.
    pub(super) async fn inspect(&mut self, step: &Step) -> Verdict {
        let snapshot = self.world.snapshot().await;
        let now = snapshot.now;
        for (name, object) in &snapshot.objects {
            self.made.entry((name.clone(), object.generation)).or_insert_with(|| object.clone());
        }
        self.count_late(&snapshot);
        final_states_stay(&self.last.records, &snapshot.records)?;
        nothing_is_forgotten_early(&self.last.records, &snapshot.records, now)?;
        live_uploads_are_due(&snapshot)?;
        for Tracked { upload, .. } in snapshot.records.values() {
            times_are_sound(upload, now)?;
            completed_is_true(upload, &self.made)?;
            what_was_made_counts(upload, &self.made)?;
        }
        self.check_usage(step, &snapshot)?;
        self.find_out(step, &snapshot);
        self.reconcile(step, &snapshot);
        for endpoint in &self.world.brokers[0].endpoints {
            ends_are_told_once(endpoint, &snapshot, &self.done)?;
        }
        let changed: Vec<UploadId> = snapshot
            .records
            .iter()
            .filter(|(id, tracked)| self.last.records.get(id).is_none_or(|was| was.revision != tracked.revision))
            .map(|(id, _)| *id)
            .collect();
        self.last = snapshot;
        self.check_sessions(|sent| changed.contains(&sent.id)).await
    }

    fn count_late(&mut self, snapshot: &Snapshot) {
        for (id, Tracked { upload, .. }) in &snapshot.records {
            let UploadState::Completed { object, at, .. } = &upload.state else { continue };
            let Some(before) = self.last.records.get(id).filter(|was| !was.upload.state.is_final()) else { continue };
            if is_late(&before.upload, *at) {
                let key = (upload.principal, upload.policy.to_string(), at.utc_day());
                *self.late.entry(key).or_default() += object.size.0;
            }
        }
    }

    fn check_usage(&mut self, step: &Step, snapshot: &Snapshot) -> Verdict {
        let now = snapshot.now;
        let limits: Vec<_> = self.world.policies().map(Policy::limits).collect();
        for (&(user, policy), usage) in &snapshot.usage {
            let principal = self.world.users[user].id;
            let whose = |fault| format!("{} under {}: {fault}", self.world.users[user].subject, POLICY_NAMES[policy]);
            let theirs = snapshot.records.values().filter(|tracked| {
                tracked.upload.principal == principal && tracked.upload.policy.as_str() == POLICY_NAMES[policy]
            });
            usage_is_what_records_say(theirs, usage, now).map_err(whose)?;
            let late = self.late.get(&(principal, POLICY_NAMES[policy].to_owned(), now.utc_day()));
            limits_hold(&limits[policy], usage, late.copied().unwrap_or_default()).map_err(whose)?;
            let Some(bucket) = self.buckets.get_mut(&(user, policy)) else { continue };
            let (expected, told) = (bucket.left(now), usage.rate_left.unwrap());
            let is_right = if step.is_clean() { told == expected } else { told <= expected && told + 2 >= expected };
            if !is_right {
                return Err(whose(format!("the rate has {told} left, where {expected} was foretold")));
            }
            bucket.believe(usage, now);
        }
        Ok(())
    }

    /// What a create has left of which nobody heard what it came to.
    fn find_out(&mut self, step: &Step, snapshot: &Snapshot) {
        let (Does::Create(wish), None) = (&step.does, &step.beside) else { return };
        let Some((key, _)) = wish.key.filter(|_| !step.is_clean()) else { return };
        let owner = self.world.users[wish.user].id;
        let is_new = |tracked: &&Tracked| {
            tracked.upload.principal == owner && !self.last.records.contains_key(&tracked.upload.id)
        };
        let left = snapshot.records.values().find(is_new).map(|new| (new.upload.id, new.upload.created_at));
        let before = self.keys.get(&(wish.user, key)).copied();
        match (left, before) {
            (Some(left), _) => {
                let used = Used { fingerprint: wish.fingerprint(), upload: Some(left) };
                self.keys.insert((wish.user, key), used);
            }
            // It came to nothing, or to what was there before.
            (None, Some(Used { upload: Some((id, _)), .. })) if snapshot.records.contains_key(&id) => {}
            (None, Some(Used { upload: None, .. })) => {}
            (None, _) => drop(self.keys.remove(&(wish.user, key))),
        }
    }

    /// Where it could not be known whether a delivery was taken, the store is believed.
    fn reconcile(&mut self, step: &Step, snapshot: &Snapshot) {
        let delivers = |does: &Does| matches!(does, Does::Deliver { .. });
        if step.is_clean() || ![Some(&step.does), step.beside.as_ref()].into_iter().flatten().any(delivers) {
            return;
        }
        for (endpoint, id) in self.told.keys() {
            if !snapshot.outboxes[endpoint].contains(id) {
                self.done.insert((*endpoint, *id));
            }
        }
    }

    /// Asks the sessions that were given out for uploads of `which`.
    async fn check_sessions(&mut self, which: impl Fn(&Sent) -> bool) -> Verdict {
        for sent in self.sent.iter().filter(|sent| which(sent)) {
            let Some(tracked) = self.last.records.get(&sent.id) else { continue };
            if tracked.upload.transfer != TransferKind::Resumable {
                continue;
            }
            let mut given = Vec::new();
            for session in sent.sessions().filter(|session| !self.dead.contains(session.expose())) {
                given.push((session.clone(), self.world.ask(session).await));
            }
            let dead = given.iter().filter(|(_, truth)| *truth == Truth::Dead);
            self.dead.extend(dead.map(|(session, _)| session.expose().to_owned()));
            one_session_is_deliverable(tracked, &given)?;
        }
        Ok(())
    }

    /// Whatever has happened: sweeps alone bring everything to its end, and leave nothing behind.
    pub(super) async fn settle(&mut self) -> Verdict {
        const DAY: u64 = 86_400;
        for seconds in [130, 130, 3_600, 7_200, DAY, DAY, DAY, DAY, DAY, DAY, DAY, 3_700, DAY] {
            self.world.clock.advance(Duration::from_secs(seconds));
            let round = self.world.brokers[0].sweep().await;
            if round.failed > 0 {
                return Err(format!("a sweep failed at the end: {round:?}"));
            }
            let sweep =
                Step { does: Does::Sweep { broker: 0 }, beside: None, yields: 0, faults: Vec::new(), polls: None };
            self.inspect(&sweep).await?;
            self.check_sessions(|_| true).await?;
        }
        for (id, Tracked { upload, .. }) in &self.last.records {
            *self.tally.entry(format!("ended: {}", upload.state.name())).or_default() += 1;
            if !upload.state.is_final() {
                return Err(format!("{id} never ended: {:?}", upload.state));
            }
            no_object_is_left(upload, self.last.objects.get(upload.object.as_str()))?;
        }
        let held: u32 = self.last.usage.values().map(|usage| usage.active).sum();
        if held > 0 { Err(format!("{held} reservations stayed")) } else { Ok(()) }
    }
}
