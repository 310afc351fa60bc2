//! When a try is repeated: which failures, after how long, and how many in all.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use tokio::time::Instant;

use super::json::Answer;

/// What an answer means for the call as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the answer.
    Final,
    /// Storage is busy or away: another try may do better.
    Again {
        /// How long storage asks to be left alone.
        after: Option<Duration>,
    },
    /// The token was not accepted: once more with a new one.
    Refresh,
}

/// Judges by the status: 408, 429 and 5xx are passing, and 403 where it says that a rate limit was hit (storage
/// documentation, "Retry strategy" and "HTTP status and error codes for JSON"). All the operations here can be repeated.
pub(super) fn judge(answer: &Answer) -> Verdict {
    let passing = match answer.status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::UNAUTHORIZED => return Verdict::Refresh,
        StatusCode::FORBIDDEN => {
            matches!(answer.reason().as_deref(), Some("rateLimitExceeded" | "userRateLimitExceeded"))
        }
        status => status.is_server_error(),
    };
    if passing { Verdict::Again { after: retry_after(answer) } } else { Verdict::Final }
}

/// The seconds form of `Retry-After`, up to an hour. The date form is passed over: storage does not send it, and it would
/// tie a pause to the difference of two clocks.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let seconds: u64 = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

/// Truncated exponential backoff: `min(first · 2ⁿ + random(0..first), cap)`, the shape that storage documents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The first pause, and the most that chance adds to any.
    pub(super) first: Duration,
    /// No pause is longer, unless storage asks for it.
    pub(super) cap: Duration,
}

impl Backoff {
    /// For calls that a person waits for: storage's own guidance begins with a second, which fits a program that has
    /// minutes; most hiccups are over sooner, and the retry budget protects storage from the hurry.
    pub(super) const CALLS: Self = Self { first: Duration::from_millis(250), cap: Duration::from_secs(4) };

    /// For a token source whose last try failed. Nobody waits for it, and half a minute is a tolerable delay of recovery.
    pub(super) const TOKENS: Self = Self { first: Duration::from_secs(1), cap: Duration::from_secs(30) };

    /// The pause after the try with the number `tried`, counted from 0; `chance` is in `0.0..1.0`.
    pub(super) fn pause(self, tried: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(tried).unwrap_or(u32::MAX));
        doubled.saturating_add(self.first.mul_f64(chance.clamp(0.0, 1.0))).min(self.cap)
    }

    /// The same, but not before storage wants to be asked again. Chance comes on top of that: those who were told the
    /// same time must not all come back in the same moment.
    pub(super) fn pause_until(self, tried: u32, chance: f64, asked: Option<Duration>) -> Duration {
        let asked = asked.map(|asked| asked.saturating_add(self.first.mul_f64(chance.clamp(0.0, 1.0))));
        self.pause(tried, chance).max(asked.unwrap_or_default())
    }
}

/// How long one try may take of the `remaining` time: half of it, so that a connection into nowhere leaves room for
/// another, and at least a second, below which a healthy answer would be cut off too.
pub(super) fn patience(remaining: Duration) -> Duration {
    (remaining / 2).max(Duration::from_secs(1)).min(remaining)
}

/// Bounds the retries of all calls together, so that an outage is not met with several times the usual load.
///
/// A token bucket: every call puts in a fifth of a token and time puts in one a second, a retry takes one out.
#[derive(Debug)]
pub(super) struct Budget {
    state: Mutex<BudgetState>,
}

#[derive(Debug)]
struct BudgetState {
    tokens: f64,
    at: Instant,
}

impl Budget {
    /// Retries for each call, in a long outage.
    const SHARE: f64 = 0.2;
    /// Retries a second that are always granted, so that a quiet broker can retry as well.
    const FLOOR: f64 = 1.0;
    /// What can be saved up: a short hiccup under load is ridden out in full.
    const MOST: f64 = 50.0;

    pub(super) fn new(now: Instant) -> Self {
        Self { state: Mutex::new(BudgetState { tokens: Self::MOST, at: now }) }
    }

    /// Counts a call.
    pub(super) fn earn(&self, now: Instant) {
        self.change(now, |tokens| (tokens + Self::SHARE, ()));
    }

    /// Whether a retry may be made; if so, it is counted.
    pub(super) fn spend(&self, now: Instant) -> bool {
        self.change(now, |tokens| if tokens >= 1.0 { (tokens - 1.0, true) } else { (tokens, false) })
    }

    fn change<T>(&self, now: Instant, change: impl FnOnce(f64) -> (f64, T)) -> T {
        // Nothing panics while the lock is held, and numbers cannot be left half-way.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(state.at).as_secs_f64() * Self::FLOOR;
        let (tokens, result) = change((state.tokens + earned).min(Self::MOST));
        *state = BudgetState { tokens: tokens.min(Self::MOST), at: now.max(state.at) };
        result
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::super::json::Body;
    use super::*;

    fn answer(status: u16, body: &str, retry_after: Option<&'static str>) -> Answer {
        let headers: HeaderMap =
            retry_after.map(|text| (RETRY_AFTER, HeaderValue::from_static(text))).into_iter().collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Body::Whole(body.into()) }
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let reason = |reason: &str| format!(r#"{{"error":{{"code":403,"errors":[{{"reason":"{reason}"}}]}}}}"#);
        let again = |seconds: Option<u64>| Verdict::Again { after: seconds.map(Duration::from_secs) };
        for (name, answer, expected) in [
            ("200", answer(200, "", None), Verdict::Final),
            ("308", answer(308, "", None), Verdict::Final),
            ("400", answer(400, "", Some("1")), Verdict::Final),
            ("401", answer(401, "", None), Verdict::Refresh),
            ("403", answer(403, "", None), Verdict::Final),
            ("403 for want of permission", answer(403, &reason("forbidden"), None), Verdict::Final),
            ("403 for a rate", answer(403, &reason("rateLimitExceeded"), None), again(None)),
            ("403 for a user's rate", answer(403, &reason("userRateLimitExceeded"), None), again(None)),
            ("404", answer(404, "", None), Verdict::Final),
            ("408", answer(408, "", None), again(None)),
            ("410", answer(410, "", None), Verdict::Final),
            ("410 around a 503", answer(410, r#"{"error":{"code":503}}"#, None), Verdict::Final),
            ("412", answer(412, "", None), Verdict::Final),
            ("429", answer(429, "", Some("7")), again(Some(7))),
            ("429 for days", answer(429, "", Some("864000")), again(Some(3600))),
            ("429 until a date", answer(429, "", Some("Fri, 31 Dec 1999 23:59:59 GMT")), again(None)),
            ("429 for minus one", answer(429, "", Some("-1")), again(None)),
            ("499", answer(499, "", None), Verdict::Final),
            ("500", answer(500, "", None), again(None)),
            ("502 with a page", answer(502, "<html>", None), again(None)),
            ("503", answer(503, "", Some("2")), again(Some(2))),
            ("504", answer(504, "", None), again(None)),
            ("507", answer(507, "", None), again(None)),
        ] {
            assert_eq!(judge(&answer), expected, "{name}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_cap_with_a_share_of_chance() {
        let backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(1) };
        for (tried, chance, millis) in
            [(0, 0.0, 100), (0, 0.5, 150), (1, 0.0, 200), (2, 0.9, 490), (3, 0.0, 800), (4, 0.0, 1000), (99, 0.9, 1000)]
        {
            assert_eq!(backoff.pause(tried, chance), Duration::from_millis(millis), "try {tried}, chance {chance}");
        }
    }

    #[test]
    fn no_pause_is_shorter_than_storage_asks_for() {
        let backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(1) };
        for (name, tried, chance, asked, millis) in [
            ("nothing asked", 1, 0.5, None, 250),
            ("at once", 1, 0.5, Some(0), 250),
            ("less than the pause", 3, 0.0, Some(0), 800),
            ("more than the pause", 0, 0.0, Some(2), 2000),
            ("more, and chance", 0, 0.5, Some(2), 2050),
            ("more than the cap", 99, 0.5, Some(60), 60_050),
        ] {
            let pause = backoff.pause_until(tried, chance, asked.map(Duration::from_secs));
            assert_eq!(pause, Duration::from_millis(millis), "{name}");
        }
    }

    #[test]
    fn a_try_leaves_room_for_another() {
        for (remaining, expected) in [(10_000, 5_000), (1_500, 1_000), (400, 400), (0, 0)] {
            assert_eq!(patience(Duration::from_millis(remaining)), Duration::from_millis(expected), "{remaining} ms");
        }
    }

    #[test]
    fn retries_are_a_fifth_of_the_calls_and_one_a_second() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let spend_all = |at| (0..1000).filter(|_| budget.spend(at)).count();
        assert_eq!(spend_all(start), 50, "what was saved up");
        (0..101).for_each(|_| budget.earn(start));
        assert_eq!(spend_all(start), 20, "a fifth of the calls");
        assert_eq!(spend_all(start + Duration::from_secs(5)), 5, "one a second");
        assert_eq!(spend_all(start + Duration::from_secs(3600)), 50, "no more than can be saved up");
        assert_eq!(spend_all(start), 0, "time that seems to go back earns nothing");
    }
}
