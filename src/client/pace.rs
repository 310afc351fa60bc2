//! How long to wait between attempts, and when to stop trying.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Randomness;

use super::error::{Error, Trouble};
use super::progress::{Event, Watch};

/// How stubborn a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The first pause, to which jitter of up to the same length is added; it doubles with each failure.
    pub first_pause: Duration,
    /// The longest pause. A longer `Retry-After` is honoured all the same.
    pub longest_pause: Duration,
    /// How long to go on without progress.
    pub give_up_after: Duration,
    /// A connection on which neither bytes nor an answer moves for this long is given up.
    pub stalled_after: Duration,
}

impl Default for Patience {
    /// The constants of the storage documentation, "Retry strategy": 1 s, doubled up to 32 s, with up to 1 s of jitter.
    fn default() -> Self {
        Self {
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(32),
            give_up_after: Duration::from_secs(600),
            stalled_after: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The pause after the failure number `failures`, counted from zero; `jitter` is in `0.0..1.0`.
    fn pause(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = 2_u32.checked_pow(failures).and_then(|factor| self.first_pause.checked_mul(factor));
        let pause = doubled.map_or(self.longest_pause, |pause| pause.saturating_add(self.first_pause.mul_f64(jitter)));
        pause.min(self.longest_pause)
    }

    /// How long to wait after a failure, or `None` if the end of that wait lies beyond the end of patience.
    fn next(&self, pause: Duration, retry_after: Option<Duration>, since_progress: Duration) -> Option<Duration> {
        let pause = pause.max(retry_after.unwrap_or_default());
        (since_progress.saturating_add(pause) <= self.give_up_after).then_some(pause)
    }
}

/// Counts the failures since the last progress.
pub(super) struct Pace<'a> {
    patience: Patience,
    randomness: &'a Randomness,
    watch: Watch<'a>,
    failures: u32,
    progress_at: Instant,
}

impl<'a> Pace<'a> {
    pub(super) fn new(patience: Patience, randomness: &'a Randomness, watch: Watch<'a>) -> Self {
        Self { patience, randomness, watch, failures: 0, progress_at: Instant::now() }
    }

    /// A pace that gives up at the first trouble.
    pub(super) fn hasty(patience: Patience, randomness: &'a Randomness, watch: Watch<'a>) -> Self {
        Self::new(Patience { give_up_after: Duration::ZERO, ..patience }, randomness, watch)
    }

    pub(super) const fn patience(&self) -> &Patience {
        &self.patience
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        (self.watch)(event);
    }

    /// Something was gained: the next failure is the first again.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.progress_at = Instant::now();
    }

    /// Waits after `trouble`.
    ///
    /// # Errors
    /// [`Error::GaveUp`], at once, when the end of the wait lies beyond the end of patience.
    pub(super) async fn pause(&mut self, trouble: Trouble, retry_after: Option<Duration>) -> Result<(), Error> {
        let pause = self.patience.pause(self.failures, self.randomness.fraction());
        let Some(pause) = self.patience.next(pause, retry_after, self.progress_at.elapsed()) else {
            return Err(Error::GaveUp { patience: self.patience.give_up_after, trouble });
        };
        self.tell(Event::Interrupted { trouble: &trouble, pause });
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let patience = Patience::default();
        for (failures, jitter, expected) in [
            (0, 0.0, seconds(1)),
            (0, 0.5, Duration::from_millis(1500)),
            (1, 0.0, seconds(2)),
            (4, 0.0, seconds(16)),
            (5, 0.9, seconds(32)),
            (31, 0.0, seconds(32)),
            (u32::MAX, 0.9, seconds(32)),
        ] {
            assert_eq!(patience.pause(failures, jitter), expected, "failure {failures}, jitter {jitter}");
        }
    }

    #[test]
    fn patience_ends_when_nothing_is_gained() {
        let patience = Patience::default();
        for (name, pause, retry_after, since_progress, expected) in [
            ("the first failure", 1, None, 0, Some(1)),
            ("at the very end", 32, None, 568, Some(32)),
            ("beyond the end", 32, None, 569, None),
            ("the server asks for more", 1, Some(120), 0, Some(120)),
            ("the server asks for less", 16, Some(1), 0, Some(16)),
            ("no point in waiting for what comes after the end", 1, Some(86_400), 0, None),
            ("a server that wants eternity", 1, Some(u64::MAX), 1, None),
        ] {
            let next = patience.next(seconds(pause), retry_after.map(seconds), seconds(since_progress));
            assert_eq!(next, expected.map(seconds), "{name}");
        }
    }

    #[tokio::test]
    async fn progress_renews_patience_and_haste_has_none() {
        let randomness = Randomness::seeded(1);
        let patience = Patience { first_pause: Duration::from_millis(1), ..Patience::default() };
        let mut pace = Pace::new(patience, &randomness, &|_| {});
        for failures in 0..3 {
            assert_eq!(pace.failures, failures);
            pace.pause(Trouble::StorageSilent, None).await.unwrap();
        }
        pace.progressed();
        assert_eq!(pace.failures, 0);
        let mut hasty = Pace::hasty(patience, &randomness, &|_| {});
        assert!(matches!(hasty.pause(Trouble::StorageSilent, None).await, Err(Error::GaveUp { .. })));
    }
}
