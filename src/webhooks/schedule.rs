//! When an event is sent again, and when it is given up.

use std::time::Duration;

use crate::model::time::Timestamp;

/// The pauses after the first attempts, and after every later one the last of them.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(2 * 3600),
];

/// How long an event is tried for: a receiver may be down over a weekend.
pub(super) const TRIED_FOR: Duration = Duration::from_secs(72 * 3600);

/// How many attempts an event has at least, also one that is older than that: its receiver may have been repaired since.
pub(super) const LEAST_ATTEMPTS: u32 = 3;

/// The longest pause that a receiver can ask for.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The most that chance adds to a pause, as a part of it: enough to keep events that failed together from coming back
/// together.
const JITTER: f64 = 0.25;

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is sent again then.
    Again(Timestamp),
    /// It is kept, and sent again when an operator says so.
    Park,
}

/// What follows the failure at `now` of attempt number `attempt`, counted from 1, of an event of `happened_at`. `chance`
/// is a number in `0.0..1.0`.
pub(super) fn after_failure(
    attempt: u32,
    happened_at: Timestamp,
    now: Timestamp,
    retry_after: Option<Duration>,
    chance: f64,
) -> Next {
    if now.since(happened_at) >= TRIED_FOR && attempt >= LEAST_ATTEMPTS {
        return Next::Park;
    }
    let position = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX).min(PAUSES.len() - 1);
    let asked_for = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
    Next::Again(now.plus(PAUSES[position].max(asked_for).mul_f64(1.0 + JITTER * chance)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Timestamp = Timestamp::from_secs(1_000_000);
    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn pauses_grow_to_two_hours() {
        for (attempt, seconds) in
            [(0, 5), (1, 5), (2, 30), (3, 120), (4, 600), (5, 1800), (6, 3600), (7, 7200), (8, 7200), (u32::MAX, 7200)]
        {
            let expected = Next::Again(EVENT.plus(SECONDS(seconds)));
            assert_eq!(after_failure(attempt, EVENT, EVENT, None, 0.0), expected, "attempt {attempt}");
        }
    }

    #[test]
    fn chance_lengthens_a_pause_by_a_quarter_at_most() {
        assert_eq!(after_failure(2, EVENT, EVENT, None, 0.5), Next::Again(EVENT.plus(Duration::from_millis(33_750))));
    }

    #[test]
    fn a_receiver_can_ask_for_a_longer_pause_within_bounds() {
        for (name, asked, seconds) in
            [("a shorter one", 1, 30), ("a longer one", 90, 90), ("a day", 86_400, 3600), ("for ever", u64::MAX, 3600)]
        {
            let expected = Next::Again(EVENT.plus(SECONDS(seconds)));
            assert_eq!(after_failure(2, EVENT, EVENT, Some(SECONDS(asked)), 0.0), expected, "{name}");
        }
    }

    #[test]
    fn an_event_is_tried_for_72_hours_and_then_parked() {
        let just_before = EVENT.plus(TRIED_FOR).minus(Duration::from_millis(1));
        assert!(matches!(after_failure(40, EVENT, just_before, None, 0.9), Next::Again(_)));
        assert_eq!(after_failure(40, EVENT, EVENT.plus(TRIED_FOR), None, 0.9), Next::Park);
        // One that is replayed has a handful of attempts, however old it is.
        assert_eq!(
            after_failure(1, EVENT, EVENT.plus(TRIED_FOR), None, 0.0),
            Next::Again(EVENT.plus(TRIED_FOR + SECONDS(5)))
        );
        assert_eq!(after_failure(3, EVENT, EVENT.plus(TRIED_FOR), None, 0.9), Next::Park);
        // An instance whose clock is behind gives nothing up.
        assert!(matches!(after_failure(1, EVENT, EVENT.minus(TRIED_FOR), None, 0.9), Next::Again(_)));
    }

    #[test]
    fn an_event_is_never_left_alone_for_more_than_three_hours_until_it_is_parked() {
        let (mut now, mut attempt) = (EVENT, 1);
        while let Next::Again(at) = after_failure(attempt, EVENT, now, Some(LONGEST_RETRY_AFTER), 0.999) {
            assert!(at.since(now) <= SECONDS(3 * 3600), "attempt {attempt}");
            (now, attempt) = (at, attempt + 1);
        }
        assert!(now.since(EVENT) >= TRIED_FOR);
        assert!(attempt < 80, "{attempt} attempts");
    }
}
