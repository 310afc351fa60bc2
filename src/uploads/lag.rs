//! How far sweeping lags behind, as far as one instance knows.
//!
//! What a round finds due tells that while rounds come to everything and succeed. While they do not, nobody knows: then it is
//! what has not been looked at, or not been settled, that may have waited since.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::sweep::{CLAIM, ROUND_EVERY, Round};
use crate::model::time::Timestamp;

/// How long what failed is taken to wait: until it has come back, to this instance or to another, which then says so.
const HELD: Duration = CLAIM.saturating_add(ROUND_EVERY.saturating_mul(3));

/// What is known of earlier rounds. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lag {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the last round ended that came to everything; before there was one, the first.
    complete_at: Option<Timestamp>,
    /// What failed and had been due for longest: since when, and until when that says something.
    failed: Option<(Timestamp, Timestamp)>,
}

impl Lag {
    /// How far sweeping lags behind after this round, which has just ended.
    pub(super) fn after(&self, round: &Round, now: Timestamp) -> Duration {
        // A panic in between would be a defect of ours; what is known stays worth more than nothing.
        let known = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if round.unseen == 0 {
            known.complete_at = Some(now);
        }
        let complete_at = *known.complete_at.get_or_insert(now);
        known.failed = known.failed.filter(|(_, until)| *until > now);
        if let Some(since) = round.failed_since
            && known.failed.is_none_or(|(oldest, _)| since <= oldest)
        {
            known.failed = Some((since, now.plus(HELD)));
        }
        let failed = known.failed.map_or(Duration::ZERO, |(since, _)| now.since(since));
        round.oldest.max(failed).max(now.since(complete_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn what_was_not_looked_at_or_not_settled_grows_older() {
        let at = |seconds| NOW.plus(Duration::from_secs(seconds));
        let nothing = Round::default();
        let blind = Round { unseen: 3, ..nothing };
        let late = Round { due: 1, oldest: Duration::from_secs(40), ..nothing };
        let failed = |since| Round { due: 1, failed: 1, failed_since: Some(at(since)), ..nothing };
        let lag = Lag::default();
        for (name, now, round, expected) in [
            ("away from the beginning", 0, blind, 0),
            ("and still", 700, blind, 700),
            ("there again", 710, nothing, 0),
            ("something was late", 720, late, 40),
            ("and is settled", 730, nothing, 0),
            ("away again", 790, blind, 60),
            ("there", 800, nothing, 0),
            ("something fails", 810, failed(800), 10),
            ("something younger fails as well", 820, failed(820), 20),
            ("it is claimed", 900, nothing, 100),
            ("it fails again", 940, failed(800), 140),
            ("it is claimed, and others are not looked at", 1000, blind, 200),
            ("it was not seen for long: somebody has settled it", 1100, nothing, 0),
        ] {
            assert_eq!(lag.after(&round, at(now)), Duration::from_secs(expected), "{name}");
        }
    }
}
