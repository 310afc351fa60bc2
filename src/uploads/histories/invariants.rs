//! What must hold after every step, whatever has happened: one predicate for each invariant, free of effects.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Snapshot, Truth};
use super::*;
use crate::emulator::ObjectSnapshot;
use crate::model::limits::Limits;
use crate::model::upload::{Promise, PromisedSize};

/// How long after its creation an upload is listed. Where nobody has swept for weeks, one may have ended only just before.
const LISTED: Duration = Duration::from_secs(24 * 86_400);

/// How long after its upload expired a reservation ends by itself.
const RESERVATION_GRACE: Duration = Duration::from_secs(300);

pub(super) type Verdict = Result<(), String>;

fn unless(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// When what is reserved for an upload that has not ended ends by itself.
pub(super) fn reserved_until(upload: &Upload) -> Timestamp {
    match upload.state {
        UploadState::Admitted { lease_until } => lease_until,
        _ => upload.expires_at.plus(RESERVATION_GRACE),
    }
}

/// What a user has under way and has used today under a policy, by the records alone.
pub(super) fn used_by_records<'a>(records: impl Iterator<Item = &'a Tracked>, now: Timestamp) -> (u32, u64) {
    let (mut active, mut bytes) = (0, 0);
    for Tracked { upload, .. } in records {
        match &upload.state {
            UploadState::Completed { object, at, .. } if at.utc_day() == now.utc_day() => bytes += object.size.0,
            state if !state.is_final() && reserved_until(upload) > now => {
                active += 1;
                bytes += upload.promise.size.reserve().0;
            }
            _ => {}
        }
    }
    (active, bytes)
}

/// Invariant 2: every reservation is there exactly while its upload is, and what is stored counts at its true size.
pub(super) fn usage_is_what_records_say<'a>(
    records: impl Iterator<Item = &'a Tracked>,
    usage: &Usage,
    now: Timestamp,
) -> Verdict {
    let expected = used_by_records(records, now);
    let told = (usage.active, usage.bytes_today.0);
    unless(told == expected, || format!("usage is {told:?}, where the records say {expected:?}"))
}

/// Invariant 2: nobody has more than the policy allows. `late` bytes came after their reservation had ended.
pub(super) fn limits_hold(limits: &Limits, usage: &Usage, late: u64) -> Verdict {
    unless(limits.max_active.is_none_or(|most| usage.active <= most), || format!("{} are active", usage.active))?;
    let most = limits.daily_bytes.map(|most| most.0 + late);
    unless(most.is_none_or(|most| usage.bytes_today.0 <= most), || {
        format!("{} bytes are used today, {late} of them late", usage.bytes_today.0)
    })
}

/// Invariant 3: what has ended stays what it is, in every detail, for as long as it is remembered.
pub(super) fn final_states_stay(before: &BTreeMap<UploadId, Tracked>, after: &BTreeMap<UploadId, Tracked>) -> Verdict {
    for (id, was) in before.iter().filter(|(_, was)| was.upload.state.is_final()) {
        let is = after.get(id);
        unless(is.is_none_or(|is| is == was), || format!("{id} was {:?}, and is {is:?}", was.upload.state))?;
    }
    Ok(())
}

/// Nothing is forgotten while it is under way or has just ended, but an intent whose session could not be opened.
pub(super) fn nothing_is_forgotten_early(
    before: &BTreeMap<UploadId, Tracked>,
    after: &BTreeMap<UploadId, Tracked>,
    now: Timestamp,
) -> Verdict {
    for (id, was) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
        let upload = &was.upload;
        let may_go = match &upload.state {
            UploadState::Admitted { .. } => true,
            UploadState::Pending | UploadState::Uploading { .. } => upload.expires_at.plus(FINAL_RETENTION) <= now,
            state => is_over(state, now),
        };
        unless(may_go || upload.created_at.plus(LISTED) <= now, || {
            format!("{id} is forgotten, which was {:?}", upload.state)
        })?;
    }
    Ok(())
}

/// Whether an upload in this state has ended so long ago that it may be forgotten.
pub(super) fn is_over(state: &UploadState, now: Timestamp) -> bool {
    match state {
        UploadState::Admitted { .. } | UploadState::Pending | UploadState::Uploading { .. } => false,
        UploadState::Completed { at, .. }
        | UploadState::Rejected { at, .. }
        | UploadState::Cancelled { at, .. }
        | UploadState::Expired { at, .. } => at.plus(FINAL_RETENTION) <= now,
    }
}

/// Invariant 4: each end has one delivery for everyone who is to be told, until that is `done`, and none after. What was
/// parked may be forgotten when its upload may be.
pub(super) fn ends_are_told_once(
    endpoint: &Endpoint,
    snapshot: &Snapshot,
    done: &BTreeSet<(EndpointId, UploadId)>,
) -> Verdict {
    let waiting = &snapshot.outboxes[&endpoint.id];
    for (id, Tracked { upload, .. }) in &snapshot.records {
        let is_told = upload.state.is_final() && endpoint.states.contains(&upload.state.kind());
        let expected = is_told && !done.contains(&(endpoint.id, *id));
        let may_go = !waiting.contains(id) && is_over(&upload.state, snapshot.now);
        unless(waiting.contains(id) == expected || may_go, || {
            format!("{id} is {:?}, and a delivery to {} waits: {}", upload.state, endpoint.name, waiting.contains(id))
        })?;
    }
    Ok(())
}

/// Whether the object is what was promised, by the contract alone.
pub(super) fn keeps(promise: &Promise, object: &ObjectSnapshot) -> bool {
    let fits = match promise.size {
        PromisedSize::Exactly(size) => object.size == size.0,
        PromisedSize::Between { least, most } => (least.0..=most.0).contains(&object.size),
    };
    fits && promise.md5.is_none_or(|md5| md5 == object.md5)
        && promise.crc32c.is_none_or(|crc32c| crc32c == object.crc32c)
        && promise.content_type.as_str() == object.content_type
}

/// Completed means: an object of that generation was there, and it keeps every promise. `made` is every object that ever
/// was seen, by name and generation.
pub(super) fn completed_is_true(upload: &Upload, made: &BTreeMap<(String, i64), ObjectSnapshot>) -> Verdict {
    let UploadState::Completed { object, .. } = &upload.state else { return Ok(()) };
    let found = made.get(&(upload.object.to_string(), object.generation));
    unless(found.is_some_and(|found| keeps(&upload.promise, found) && found.size == object.size.0), || {
        format!("{} is {:?}, where storage had {found:?}", upload.id, upload.state)
    })
}

/// What storage has told a client is there is not lost to a cancel or to time: a session of the broker's is revoked before
/// either is recorded, so what it made came first. Signed URLs cannot be revoked, and of names that repeat nothing is known.
pub(super) fn what_was_made_counts(upload: &Upload, made: &BTreeMap<(String, i64), ObjectSnapshot>) -> Verdict {
    let name = upload.object.to_string();
    let can_tell = !upload.transfer.is_signed() && name.contains(&upload.id.to_string());
    let is_called_off = matches!(upload.state, UploadState::Cancelled { .. } | UploadState::Expired { .. });
    let was_made = || made.range((name.clone(), i64::MIN)..=(name.clone(), i64::MAX)).next().is_some();
    unless(!can_tell || !is_called_off || !was_made(), || {
        format!("{} is {:?}, and its object was there", upload.id, upload.state)
    })
}

/// Invariant 8: of an upload that ended otherwise than completed there is no object, where its name is its own.
pub(super) fn no_object_is_left(upload: &Upload, object: Option<&ObjectSnapshot>) -> Verdict {
    let is_own = upload.object.as_str().contains(&upload.id.to_string());
    let ended_otherwise = upload.state.is_final() && !matches!(upload.state, UploadState::Completed { .. });
    unless(!is_own || !ended_otherwise || object.is_none(), || {
        format!("{} is {:?}, and its object is there: {object:?}", upload.id, upload.state)
    })
}

/// Invariants 1 and 8: of the sessions that were given out for an upload, none takes bytes but the one in its record, and
/// that only while the upload is under way.
pub(super) fn one_session_is_deliverable(tracked: &Tracked, given: &[(SessionUri, Truth)]) -> Verdict {
    let own = tracked.session.as_ref().filter(|_| !tracked.upload.state.is_final());
    for (session, _) in given.iter().filter(|(_, truth)| matches!(truth, Truth::Open(_))) {
        unless(own == Some(session), || {
            format!("{} is {:?}, and a session works that is not its own", tracked.upload.id, tracked.upload.state)
        })?;
    }
    Ok(())
}

/// Invariant 1: what a client is given to send bytes with stands in the store.
pub(super) fn capability_is_recorded(given: &Tracked, record: Option<&Tracked>) -> Verdict {
    let recorded = record.is_some_and(|record| record.session == given.session);
    unless(given.session.is_none() || recorded, || format!("{} was given out without a record", given.upload.id))
}

/// What has not ended will be looked at, and within the claim of a sweeper after its end at the latest.
pub(super) fn live_uploads_are_due(snapshot: &Snapshot) -> Verdict {
    for (id, Tracked { upload, .. }) in snapshot.records.iter().filter(|(_, kept)| !kept.upload.state.is_final()) {
        let latest = upload.expires_at.max(snapshot.now).plus(Duration::from_secs(120));
        let due = snapshot.due.get(id);
        unless(due.is_some_and(|due| *due <= latest), || {
            format!("{id} is {:?} and ends at {:?}, and is due at {due:?}", upload.state, upload.expires_at)
        })?;
    }
    Ok(())
}

/// No time lies ahead, and an upload ends after it began.
pub(super) fn times_are_sound(upload: &Upload, now: Timestamp) -> Verdict {
    let ended_at = match upload.state {
        UploadState::Admitted { .. } | UploadState::Pending | UploadState::Uploading { .. } => upload.created_at,
        UploadState::Completed { at, .. }
        | UploadState::Rejected { at, .. }
        | UploadState::Cancelled { at, .. }
        | UploadState::Expired { at, .. } => at,
    };
    let is_sound = upload.created_at <= ended_at && ended_at <= now;
    let expired_early = matches!(upload.state, UploadState::Expired { at, .. } if at < upload.expires_at);
    unless(is_sound && !expired_early, || format!("{} is {:?} at {now:?}", upload.id, upload.state))
}
