//! Whether the server has fallen silent: it is neither known to be away nor does it answer.
//!
//! A server that was killed refuses connections at once; one that hangs costs whoever asks it a whole time-out. So the
//! first time-out speaks for all operations that follow, until the server is heard again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For how long nothing may have been heard. A busy server may be too late for one operation while it answers others.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the server was last heard.
pub(super) struct Silence {
    began: Instant,
    /// Milliseconds after the beginning.
    heard_at: AtomicU64,
    is_silent: AtomicBool,
}

impl Silence {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), heard_at: AtomicU64::new(0), is_silent: AtomicBool::new(false) }
    }

    /// Whether there is no use in asking.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Acquire)
    }

    /// The server has answered, whatever it said.
    pub(super) fn heard(&self) {
        self.heard_after(self.began.elapsed());
    }

    /// The server has not answered in time. Returns whether it has fallen silent with that.
    pub(super) fn missed(&self) -> bool {
        self.missed_after(self.began.elapsed())
    }

    fn heard_after(&self, now: Duration) {
        self.heard_at.fetch_max(millis(now), Ordering::AcqRel);
        // Every answer comes along here, and the flag is seldom set.
        if self.is_silent() && self.is_silent.swap(false, Ordering::AcqRel) {
            tracing::info!("the store answers again");
        }
    }

    fn missed_after(&self, now: Duration) -> bool {
        let quiet = millis(now).saturating_sub(self.heard_at.load(Ordering::Acquire));
        let fell = quiet >= millis(PATIENCE) && !self.is_silent.swap(true, Ordering::AcqRel);
        if fell {
            tracing::warn!("the store has stopped answering; operations fail until it does");
        }
        fell
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_with_one_time_out_and_ends_with_one_answer() {
        let silence = Silence::new();
        let at = Duration::from_millis;
        silence.heard_after(at(10_000));
        assert!(!silence.missed_after(at(10_999)), "another operation was answered just now");
        assert!(!silence.is_silent());
        assert!(silence.missed_after(at(11_000)));
        assert!(!silence.missed_after(at(11_001)), "it falls silent once");
        assert!(silence.is_silent());
        silence.heard_after(at(12_000));
        assert!(!silence.is_silent());
        silence.heard_after(at(5));
        assert!(!silence.missed_after(at(12_500)), "an answer that is told late changes nothing");
        assert!(silence.missed_after(at(13_000)), "again");
    }
}
