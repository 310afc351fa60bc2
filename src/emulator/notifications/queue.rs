//! What a subscription has still to deliver: at least once each, in any order, with pauses after failures.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Message;
use crate::clock::Randomness;

/// How many deliveries wait at most; beyond that new ones are refused, and counted.
const LIMIT: usize = 200_000;

/// The pause after a first failure. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, so that tests end. With Pub/Sub the shortest that can be set is as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long a shuffled delivery waits for others to be shuffled with.
const GATHERING: Duration = Duration::from_millis(100);

/// A message on its way to the receiver.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    failures: u32,
}

/// What has come of a subscription so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// How many deliveries wait or are being tried.
    pub(super) queued: usize,
    pub(super) delivered: u64,
    pub(super) attempts: u64,
    pub(super) overflowed: u64,
}

/// The queue of one subscription.
#[derive(Debug)]
pub(super) struct Queue {
    /// In how wide a window the order is random; 0 and 1 leave it.
    shuffle: usize,
    randomness: Randomness,
    state: Mutex<State>,
    /// There may be something to deliver.
    more: Notify,
    /// Nothing is left to deliver.
    empty: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_held: bool,
    /// By when they are due, and in the order in which they came.
    later: BTreeMap<(Instant, u64), Delivery>,
    /// Due, each with when it became so.
    ready: VecDeque<(Instant, Delivery)>,
    order: u64,
    counts: Counts,
}

enum Next {
    Now(Delivery),
    At(Instant),
    /// When something changes.
    Unknown,
}

impl Queue {
    pub(super) fn new(shuffle: usize, is_held: bool, randomness: Randomness) -> Self {
        let state = Mutex::new(State { is_held, ..State::default() });
        Self { shuffle, randomness, state, more: Notify::new(), empty: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Queues the message `copies` times, to be delivered no earlier than after `delay`.
    pub(super) fn push(&self, message: &Arc<Message>, copies: u32, delay: Duration) {
        let due = Instant::now() + delay;
        let mut state = self.lock();
        for _ in 0..copies {
            if state.counts.queued >= LIMIT {
                state.counts.overflowed += 1;
                continue;
            }
            state.counts.queued += 1;
            state.wait(due, Delivery { message: Arc::clone(message), failures: 0 });
        }
        drop(state);
        self.more.notify_one();
    }

    /// The next delivery, as soon as one is due. It counts as queued until it is settled.
    pub(super) async fn next(&self) -> Delivery {
        loop {
            let next = self.lock().next(self.shuffle, &self.randomness);
            match next {
                Next::Now(delivery) => {
                    // Whoever waits by an older state learns of what is left.
                    self.more.notify_one();
                    return delivery;
                }
                Next::At(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.more.notified() => {}
                    }
                }
                Next::Unknown => self.more.notified().await,
            }
        }
    }

    /// The receiver has acknowledged it.
    pub(super) fn delivered(&self, delivery: Delivery) {
        drop(delivery);
        let mut state = self.lock();
        state.counts.attempts += 1;
        state.counts.delivered += 1;
        // It may have been closed in between.
        state.counts.queued = state.counts.queued.saturating_sub(1);
        if state.counts.queued == 0 {
            self.empty.notify_waiters();
        }
    }

    /// It is to be tried once more, after a pause.
    pub(super) fn failed(&self, mut delivery: Delivery) {
        let pause = FIRST_PAUSE.saturating_mul(1 << delivery.failures.min(16)).min(LONGEST_PAUSE);
        delivery.failures += 1;
        let mut state = self.lock();
        state.counts.attempts += 1;
        state.wait(Instant::now() + pause, delivery);
        drop(state);
        self.more.notify_one();
    }

    /// Lets held deliveries go.
    pub(super) fn release(&self) {
        self.lock().is_held = false;
        self.more.notify_one();
    }

    /// Forgets what is queued.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.later.clear();
        state.ready.clear();
        state.counts.queued = 0;
        self.empty.notify_waiters();
    }

    /// Waits until everything that was queued is delivered.
    pub(super) async fn emptied(&self) {
        loop {
            let mut emptied = pin!(self.empty.notified());
            // From here on no call is missed.
            emptied.as_mut().enable();
            if self.lock().counts.queued == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl State {
    fn wait(&mut self, due: Instant, delivery: Delivery) {
        self.order += 1;
        self.later.insert((due, self.order), delivery);
    }

    fn next(&mut self, shuffle: usize, randomness: &Randomness) -> Next {
        if self.is_held {
            return Next::Unknown;
        }
        let now = Instant::now();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let due = entry.key().0;
            self.ready.push_back((due, entry.remove()));
        }
        let later = self.later.first_key_value().map(|((due, _), _)| *due);
        let gathered = self.ready.front().map(|(since, _)| *since + GATHERING);
        if let Some(gathered) = gathered.filter(|gathered| *gathered > now && (1..shuffle).contains(&self.ready.len()))
        {
            return Next::At(later.map_or(gathered, |later| later.min(gathered)));
        }
        let window = self.ready.len().min(shuffle.max(1));
        if let Some((_, delivery)) = self.ready.remove(pick(window, randomness)) {
            return Next::Now(delivery);
        }
        later.map_or(Next::Unknown, Next::At)
    }
}

/// A random place below `window`; 0 when there is no choice.
fn pick(window: usize, randomness: &Randomness) -> usize {
    let window = u64::try_from(window).unwrap_or(1);
    if window < 2 {
        return 0;
    }
    // The bias of the remainder is far below what a test could see.
    usize::try_from(u64::from_le_bytes(randomness.bytes()) % window).unwrap_or(0)
}
