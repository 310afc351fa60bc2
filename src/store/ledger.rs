//! What one principal uses under one policy, and whether one more upload fits.
//!
//! Reservations are members named by their upload, not counters, so nothing counts one twice and none stays behind: a
//! reservation has an end of its own. The token bucket is one instant, the one at which it is full again (the generic
//! cell rate algorithm, ITU-T I.371, annex A). `lua/ledger.lua` and `lua/admit.lua` have the same rules for Redis.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::limits::{Enforcement, Limits, Rate};
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::Upload;

use super::keys::ACTIVE_CEILING;
use super::record::{LARGEST, millis};
use super::{LimitHit, Usage};

/// When to try again, at the latest, if all places are taken: one may become free at any time.
const ACTIVE_HINT: Duration = Duration::from_secs(60);

/// How long after its upload expired a reservation ends by itself: until then, the end is noticed and releases it.
const RESERVATION_GRACE: Duration = Duration::from_secs(300);

/// When the reservation of an upload with a session ends by itself, ms.
pub(super) fn reservation_end(upload: &Upload) -> u64 {
    millis(upload.expires_at.plus(RESERVATION_GRACE))
}

/// `bytes` as a ledger has them.
pub(super) fn countable(bytes: ByteCount) -> u64 {
    bytes.0.min(LARGEST)
}

/// A rate in whole microseconds.
#[derive(Clone, Copy)]
pub(super) struct Bucket {
    /// How many tokens it holds.
    pub(super) tokens: u64,
    /// What one token takes to come back, rounded up: never more than the rate allows.
    pub(super) interval: u64,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        let tokens = u64::from(rate.events.max(1));
        let per = u64::try_from(rate.per.as_micros()).unwrap_or(u64::MAX).min(LARGEST);
        Self { tokens, interval: per.div_ceil(tokens).max(1) }
    }

    /// When it is full again after one more token, or how long until there is one. All in microseconds.
    fn take(self, full_at: u64, now: u64) -> Result<u64, u64> {
        let spent = self.spent(full_at, now);
        match spent.checked_sub(self.interval * (self.tokens - 1)) {
            Some(wait) if wait > 0 => Err(wait),
            _ => Ok(now + spent + self.interval),
        }
    }

    /// How far from full it is, in microseconds; never further than empty, whatever an earlier configuration left.
    fn spent(self, full_at: u64, now: u64) -> u64 {
        full_at.saturating_sub(now).min(self.interval * self.tokens)
    }
}

impl LimitHit {
    pub(super) fn rate(limit: Rate, wait: u64) -> Self {
        Self::Rate { limit, retry_after: Duration::from_micros(wait) }
    }

    /// `earliest` is when the first of the reservations ends, ms; 0 when there is none.
    pub(super) fn active(limit: u32, earliest: u64, now: Timestamp) -> Self {
        let wait = Duration::from_millis(earliest.saturating_sub(millis(now)));
        let retry_after = if earliest == 0 { ACTIVE_HINT } else { wait.clamp(Duration::from_secs(1), ACTIVE_HINT) };
        Self::Active { limit, retry_after }
    }

    pub(super) fn daily(limit: ByteCount, used: u64, now: Timestamp) -> Self {
        let midnight = Timestamp::start_of_utc_day(now.utc_day().saturating_add(1));
        let left = ByteCount(limit.0.saturating_sub(used));
        Self::DailyBytes { limit, left, retry_after: midnight.since(now) }
    }
}

impl Usage {
    /// `full_at` is when the bucket is full again, in microseconds.
    pub(super) fn new(active: u64, bytes: u64, full_at: u64, limits: &Limits, now: Timestamp) -> Self {
        let now_us = millis(now) * 1000;
        let rate = limits.rate.map(|rate| {
            let bucket = Bucket::new(rate);
            let spent = bucket.spent(full_at, now_us);
            let left = (bucket.interval * bucket.tokens - spent) / bucket.interval;
            (u32::try_from(left).unwrap_or(u32::MAX), now.plus(Duration::from_millis(spent.div_ceil(1000))))
        });
        Self {
            active: u32::try_from(active).unwrap_or(u32::MAX),
            bytes_today: ByteCount(bytes),
            rate_left: rate.map(|(left, _)| left),
            rate_resets_at: rate.map(|(_, resets_at)| resets_at),
        }
    }
}

/// One more upload that wants to be counted.
pub(super) struct Claim<'a> {
    pub(super) id: [u8; 16],
    pub(super) bytes: u64,
    /// When its reservation ends, ms.
    pub(super) ends: u64,
    pub(super) limits: &'a Limits,
    pub(super) enforcement: Enforcement,
    pub(super) now: Timestamp,
    pub(super) token: Token,
}

/// Whether a claim takes a token of the rate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// A new upload does.
    Take,
    /// One that was counted before does not.
    Taken,
}

/// The ledger of the memory store.
#[derive(Default)]
pub(super) struct Ledger {
    reservations: HashMap<[u8; 16], Reservation>,
    full_at: u64,
    day: i64,
    settled: u64,
}

struct Reservation {
    bytes: u64,
    ends: u64,
}

impl Ledger {
    /// Reserves for `claim`, and tells what it would be refused for if limits only report; or changes nothing and
    /// tells what it is refused for.
    pub(super) fn claim(&mut self, claim: &Claim<'_>) -> Result<Option<LimitHit>, LimitHit> {
        let enforced = claim.enforcement == Enforcement::Enforce;
        let (mut hit, mut full_at) = (None, self.full_at);
        if let (Some(rate), Token::Take) = (claim.limits.rate, claim.token) {
            match Bucket::new(rate).take(self.full_at, millis(claim.now) * 1000) {
                Ok(next) => full_at = next,
                Err(wait) if enforced => return Err(LimitHit::rate(rate, wait)),
                Err(wait) => hit = Some(LimitHit::rate(rate, wait)),
            }
        }
        if self.must_count(claim.limits) {
            match self.obstacle(claim) {
                Some((obstacle, always)) if enforced || always => return Err(obstacle),
                obstacle => hit = hit.or(obstacle.map(|(obstacle, _)| obstacle)),
            }
            let now = millis(claim.now);
            self.reservations.retain(|_, reservation| reservation.ends > now);
        }
        self.full_at = full_at;
        self.reservations.insert(claim.id, Reservation { bytes: claim.bytes, ends: claim.ends });
        Ok(hit)
    }

    fn must_count(&self, limits: &Limits) -> bool {
        limits.max_active.is_some()
            || limits.daily_bytes.is_some()
            || self.reservations.len() >= ACTIVE_CEILING as usize
    }

    /// What stands in the way, and whether it does so even where limits only report.
    fn obstacle(&self, claim: &Claim<'_>) -> Option<(LimitHit, bool)> {
        let (live, bytes, earliest) = self.live(claim.now, Some(claim.id));
        let active = |limit| LimitHit::active(limit, earliest, claim.now);
        if live >= u64::from(ACTIVE_CEILING) {
            return Some((active(ACTIVE_CEILING), true));
        }
        if let Some(limit) = claim.limits.max_active.filter(|limit| live >= u64::from(*limit)) {
            return Some((active(limit), false));
        }
        let used = self.settled(claim.now).saturating_add(bytes);
        let limit = claim.limits.daily_bytes.filter(|limit| used.saturating_add(claim.bytes) > limit.0)?;
        Some((LimitHit::daily(limit, used, claim.now), false))
    }

    /// How many reservations there are, their bytes, and the earliest end among them.
    fn live(&self, now: Timestamp, without: Option<[u8; 16]>) -> (u64, u64, u64) {
        let now = millis(now);
        let live = self.reservations.iter().filter(|(id, held)| held.ends > now && Some(**id) != without);
        live.fold((0, 0, 0), |(count, bytes, earliest), (_, held)| {
            (count + 1, bytes + held.bytes, if earliest == 0 { held.ends } else { earliest.min(held.ends) })
        })
    }

    /// The bytes settled today. A day that lies ahead was written by someone whose clock is: it counts.
    fn settled(&self, now: Timestamp) -> u64 {
        if self.day >= now.utc_day() { self.settled } else { 0 }
    }

    /// Moves the end of a reservation; `false` when it is gone.
    pub(super) fn prolong(&mut self, id: [u8; 16], ends: u64) -> bool {
        self.reservations.get_mut(&id).map(|held| held.ends = ends).is_some()
    }

    /// Reserves whatever the limits say: for what was reserved before, and lost.
    pub(super) fn restore(&mut self, id: [u8; 16], bytes: u64, ends: u64) {
        self.reservations.insert(id, Reservation { bytes, ends });
    }

    pub(super) fn release(&mut self, id: [u8; 16]) {
        self.reservations.remove(&id);
    }

    /// Counts bytes as used, on the day on which that happens, in place of the reservation if it is still there.
    pub(super) fn settle(&mut self, id: [u8; 16], bytes: u64, now: Timestamp) {
        self.reservations.remove(&id);
        self.settled = self.settled(now).saturating_add(bytes);
        self.day = self.day.max(now.utc_day());
    }

    pub(super) fn usage(&self, limits: &Limits, now: Timestamp) -> Usage {
        let (live, bytes, _) = self.live(now, None);
        Usage::new(live, bytes.saturating_add(self.settled(now)), self.full_at, limits, now)
    }

    /// Whether nothing in it can matter any more.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.reservations.is_empty() && self.full_at <= millis(now) * 1000 && self.settled(now) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_tokens_at_once_and_then_evenly() {
        let bucket = Bucket::new("3/1s".parse().unwrap());
        let now = 1_000_000_000;
        let mut full_at = 0;
        for taken in 0..3 {
            full_at = bucket.take(full_at, now).unwrap_or_else(|wait| panic!("{taken}: {wait}"));
        }
        assert_eq!(bucket.take(full_at, now), Err(333_334));
        assert!(bucket.take(full_at, now + 333_333).is_err(), "not a microsecond early");
        assert!(bucket.take(full_at, now + 333_334).is_ok());
    }

    #[test]
    fn a_slower_rate_of_an_earlier_configuration_is_forgotten_within_the_new_span() {
        let bucket = Bucket::new("2/1s".parse().unwrap());
        let now = 1_000_000_000;
        let far = now + 86_400_000_000;
        assert_eq!(bucket.take(far, now), Err(500_000), "as if it were empty");
    }

    #[test]
    fn extreme_rates_neither_overflow_nor_divide_by_nothing() {
        for (name, events, per) in [
            ("none in no time", 0, Duration::ZERO),
            ("many in no time", u32::MAX, Duration::from_nanos(1)),
            ("one for ever", 1, Duration::MAX),
            ("many for ever", u32::MAX, Duration::MAX),
        ] {
            let bucket = Bucket::new(Rate { events, per });
            assert!(bucket.take(0, LARGEST * 1000).is_ok(), "{name}");
            assert!(bucket.take(u64::MAX, 0).is_err(), "{name}");
        }
    }
}
