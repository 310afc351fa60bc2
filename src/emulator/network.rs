//! What lies between clients and storage: distance, a narrow line, and everything that a bad network does to uploads.
//!
//! [`super::faults`] make one thing go wrong with one call, as a test wants it; these are conditions that last, and both
//! work at once. They are a model: see [`Conditions`] for what it leaves out.
//!
//! What goes wrong is decided by the number of the session and by how many requests with bytes it has had, so that it is
//! the same in every run, and so that no session has bad luck for ever: of four such requests in a row one is cut, and of
//! six one loses its answer.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::faults::Action;
use super::journal::Operation;
use super::session::{QUANTUM, State};
use super::sessions::Entry;
use crate::model::time::Span;

/// What a sender may have on its way before the first byte is acknowledged: ten segments (RFC 6928) of 1460 bytes.
const FIRST_WINDOW: u64 = 10 * 1460;

/// What it may have at most: the default of Linux for a sender's buffer (`net.ipv4.tcp_wmem`).
const LARGEST_WINDOW: u64 = 4 << 20;

/// What a connection takes before its first request, in round trips: one for TCP, and one for TLS 1.3.
pub const HANDSHAKES: u32 = 2;

/// Of so many requests with bytes in a session, one is cut.
const DROP_ONE_OF: u64 = 4;

/// Of so many, one is carried out and its answer lost.
const LOSE_ONE_OF: u64 = 6;

/// How many bytes of a request of unknown length come before it is cut.
const CUT_OF_UNKNOWN: u64 = 100_000;

/// The network. As JSON: `{"latency": "300ms", "drops": true}`, where what is left out is as it is by default: good.
///
/// Distance concerns requests without a token that carry bytes, open a session or are preflights: those of clients. Status
/// queries and cancellations are made by the services beside a bucket as well, and as nothing tells the two apart, they
/// are not delayed. A connection costs two round trips and each request one more. A body comes in windows, one a round
/// trip, of 14,600 bytes at first and then twice as many each time, up to what the line carries in a round trip and to
/// 4 MiB. No packets are lost, windows never shrink, also not after a pause, and each connection has the line to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Added to every call, whoever makes it.
    pub latency: Span,
    /// How long it takes from a client to storage and back.
    pub round_trip: Span,
    /// What the line of a client carries; `None` sets no limit.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Whether connections break in the middle of bytes, of which some are persisted, at a multiple of 256 KiB or not.
    pub drops: bool,
    /// Whether answers to bytes get lost after the deed, also the one that says that the object is there.
    pub lost_answers: bool,
    /// Whether the next request with bytes finds its session gone. Then this is false again.
    pub expired_session: bool,
    /// Whether anybody gets through at all.
    pub link: Link,
}

/// Whether anybody gets through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// As well as the other conditions allow.
    #[default]
    Up,
    /// Nobody: calls under way are cut, and all that come.
    Down,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            latency: Span(Duration::ZERO),
            round_trip: Span(Duration::ZERO),
            bytes_per_second: None,
            drops: false,
            lost_answers: false,
            expired_session: false,
            link: Link::Up,
        }
    }
}

/// The network of one emulator. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Network {
    conditions: Arc<watch::Sender<Conditions>>,
}

impl Network {
    pub(super) fn new() -> Self {
        Self { conditions: Arc::new(watch::Sender::new(Conditions::default())) }
    }

    /// What it is like.
    pub fn conditions(&self) -> Conditions {
        *self.conditions.borrow()
    }

    /// Makes it otherwise, also for calls that are under way.
    pub fn set(&self, conditions: Conditions) {
        self.conditions.send_replace(conditions);
    }

    /// Changes a part of it.
    pub fn change(&self, change: impl FnOnce(&mut Conditions)) {
        self.conditions.send_modify(change);
    }

    /// Comes back when nobody gets through.
    pub(super) async fn down(&self) {
        let mut conditions = self.conditions.subscribe();
        // The sender lives as long as this handle, so that an error cannot come.
        if conditions.wait_for(|conditions| conditions.link == Link::Down).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the network does to a call.
    pub(super) fn plan(&self, operation: Operation, session: Option<&Entry>, length: Option<u64>) -> Option<Action> {
        let entry = session.filter(|_| operation == Operation::Chunk)?;
        let (number, persisted) = {
            let session = entry.lock();
            let State::Open { .. } = session.state else { return None };
            (session.number, session.persisted().unwrap_or(0))
        };
        let attempt = entry.next_attempt();
        let Conditions { drops, lost_answers, .. } = self.conditions();
        if self.takes_a_session() {
            return Some(if number % 2 == 0 { Action::ForgetSession } else { Action::KillSession });
        }
        if drops && is_the_one(number, attempt, DROP_ONE_OF) {
            let cut = cut(scatter(number, attempt), persisted, length);
            return Some(Action::PersistThenReset { bytes: cut });
        }
        (lost_answers && is_the_one(number, attempt, LOSE_ONE_OF)).then_some(Action::ActThenReset)
    }

    /// Whether this call is the one that finds its session gone.
    fn takes_a_session(&self) -> bool {
        self.conditions.send_if_modified(|conditions| std::mem::take(&mut conditions.expired_session))
    }
}

/// Whether it strikes this attempt: exactly one in each run of `of`, and not the same one in every session.
fn is_the_one(session: u64, attempt: u64, of: u64) -> bool {
    scatter(session ^ of, attempt / of) % of == attempt % of
}

/// How many bytes of a request come through, of which each eighth is as likely as another. Every other time they end at a
/// multiple of 256 KiB of the object, and may be none.
fn cut(chance: u64, persisted: u64, length: Option<u64>) -> u64 {
    let bytes = length.map_or(CUT_OF_UNKNOWN, |length| length / 8 * (1 + chance % 7));
    if chance & 8 == 0 {
        return bytes;
    }
    let end = persisted.saturating_add(bytes);
    (end - end % QUANTUM).saturating_sub(persisted)
}

/// A number that looks like chance and is always the same (the finalizer of `SplitMix64`).
fn scatter(session: u64, round: u64) -> u64 {
    let mut mixed = session.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(round.wrapping_mul(0xD1B5_4A32_D192_ED03));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// One connection, as far as distance matters to it.
#[derive(Debug, Default)]
pub(super) struct Wire {
    state: Mutex<Flow>,
}

#[derive(Debug, Default)]
struct Flow {
    /// Whether a request from afar has come.
    is_open: bool,
    /// How much its sender may have on its way: 0 before there was anything to send.
    window: u64,
    /// How much of that has not been sent yet.
    left: u64,
    /// When the window that is being sent is acknowledged.
    acknowledged: Option<Instant>,
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the head of a request from afar takes, and its answer, and the handshakes before the first one.
    pub(super) fn distance(&self, conditions: &Conditions) -> Duration {
        let mut flow = self.lock();
        let trips = if flow.is_open { 1 } else { 1 + HANDSHAKES };
        flow.is_open = true;
        // What was sent for an earlier request is acknowledged with its answer.
        flow.acknowledged = None;
        flow.left = flow.window;
        conditions.round_trip.0 * trips
    }

    /// When the sender may go on, after so many more bytes of a body have come. `None` is at once.
    pub(super) fn pass(&self, conditions: &Conditions, bytes: u64, now: Instant) -> Option<Instant> {
        let round_trip = conditions.round_trip.0;
        if round_trip.is_zero() && conditions.bytes_per_second.is_none() {
            return None;
        }
        let carries = |rate: NonZeroU64| rate.get().saturating_mul(as_millis(round_trip)) / 1000;
        let most = conditions.bytes_per_second.map_or(LARGEST_WINDOW, carries).clamp(FIRST_WINDOW, LARGEST_WINDOW);
        let mut flow = self.lock();
        if flow.window == 0 {
            (flow.window, flow.left) = (FIRST_WINDOW, FIRST_WINDOW);
        }
        let mut wait = None;
        let mut bytes = bytes;
        while bytes > flow.left {
            bytes -= flow.left;
            let sending = conditions.bytes_per_second.map_or(Duration::ZERO, |rate| {
                Duration::from_micros(flow.window.saturating_mul(1_000_000) / rate.get())
            });
            let at = flow.acknowledged.unwrap_or(now) + round_trip.max(sending);
            (flow.acknowledged, wait) = (Some(at), Some(at));
            flow.window = flow.window.saturating_mul(2).min(most);
            flow.left = flow.window;
        }
        flow.left -= bytes;
        wait
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(millis: u64, rate: Option<u64>) -> Conditions {
        Conditions {
            round_trip: Span(Duration::from_millis(millis)),
            bytes_per_second: rate.and_then(NonZeroU64::new),
            ..Conditions::default()
        }
    }

    /// How long a body takes that comes in pieces of 10,000 bytes, after its head.
    fn body(wire: &Wire, conditions: &Conditions, bytes: u64) -> Duration {
        let begin = Instant::now();
        let mut now = begin;
        for _ in 0..bytes / 10_000 {
            now = wire.pass(conditions, 10_000, now).unwrap_or(now);
        }
        now - begin
    }

    #[tokio::test]
    async fn a_body_takes_the_rounds_of_slow_start_and_a_later_one_on_the_same_connection_fewer() {
        let (wire, conditions) = (Wire::default(), far(100, None));
        assert_eq!(wire.distance(&conditions), Duration::from_millis(300), "handshakes, and the request");
        // 14,600 · (2⁶ - 1) bytes are 919,800: a million need a seventh window, so six acknowledgements.
        assert_eq!(body(&wire, &conditions, 1_000_000), Duration::from_millis(600));
        assert_eq!(wire.distance(&conditions), Duration::from_millis(100), "the request alone");
        // The seventh window has 934,400 bytes.
        assert_eq!(body(&wire, &conditions, 1_000_000), Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_line_carries_what_it_carries() {
        let (wire, conditions) = (Wire::default(), far(10, Some(1_000_000)));
        wire.distance(&conditions);
        let took = body(&wire, &conditions, 5_000_000);
        assert!((4_900..=5_050).contains(&as_millis(took)), "{took:?}");
        let (wire, conditions) = (Wire::default(), far(0, Some(1_000_000)));
        assert_eq!(wire.distance(&conditions), Duration::ZERO);
        let took = body(&wire, &conditions, 5_000_000);
        assert!((4_900..=5_050).contains(&as_millis(took)), "{took:?}");
    }

    #[test]
    fn nearby_nothing_waits() {
        let wire = Wire::default();
        assert_eq!(wire.distance(&Conditions::default()), Duration::ZERO);
        assert_eq!(wire.pass(&Conditions::default(), 1 << 40, Instant::now()), None);
    }

    #[test]
    fn of_each_run_of_attempts_exactly_one_is_struck() {
        let mut places = std::collections::BTreeSet::new();
        for session in 0..50 {
            for of in [DROP_ONE_OF, LOSE_ONE_OF] {
                for run in 0..20 {
                    let struck: Vec<u64> = (0..of).filter(|at| is_the_one(session, run * of + at, of)).collect();
                    assert_eq!(struck.len(), 1, "session {session}, run {run} of {of}");
                    places.insert((of, struck[0]));
                }
            }
        }
        assert_eq!(places.len() as u64, DROP_ONE_OF + LOSE_ONE_OF, "any of them may be");
    }

    #[test]
    fn a_request_is_cut_within_its_bytes_at_multiples_and_elsewhere() {
        let (mut at_multiples, mut elsewhere) = (0, 0);
        for chance in (0..1000).map(|round| scatter(1, round)) {
            let bytes = cut(chance, 100, Some(2 << 20));
            assert!(bytes < 2 << 20, "{bytes}");
            *(if (100 + bytes).is_multiple_of(QUANTUM) { &mut at_multiples } else { &mut elsewhere }) += 1;
        }
        assert!(at_multiples > 300 && elsewhere > 300, "{at_multiples} {elsewhere}");
        assert_eq!((cut(0, 0, None), cut(8, 0, None)), (CUT_OF_UNKNOWN, 0));
    }

    #[test]
    fn conditions_read_as_documented() {
        let read = |text: &str| serde_json::from_str::<Conditions>(text);
        assert_eq!(read("{}").unwrap(), Conditions::default());
        let expected = Conditions { latency: Span(Duration::from_millis(300)), drops: true, ..Conditions::default() };
        assert_eq!(read(r#"{"latency": "300ms", "drops": true}"#).unwrap(), expected);
        let written = serde_json::to_string(&far(7, Some(3))).unwrap();
        assert_eq!(read(&written).unwrap(), far(7, Some(3)));
        for wrong in [r#"{"latency": 300}"#, r#"{"drop": true}"#, r#"{"link": "away"}"#, r#"{"bytes_per_second": 0}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
