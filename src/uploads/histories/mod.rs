//! Any history of operations and faults, on both stores, held against a reference and the invariants of the design.
//!
//! A history is 200 steps that a seed decides: clients create, send, complete, cancel and renew, in part twice or at the
//! wrong time; notifications come right, twice, late, wrong or never; brokers sweep and deliver; time passes, from seconds
//! to days; storage loses answers, cuts connections and forgets sessions; and whoever asked goes away in the middle. A step
//! in whose way nothing stands must come to what the reference foretells (`reference.rs`); after every step, whatever has
//! happened, the invariants hold (`invariants.rs`); and at the end of a history sweeps alone bring everything to its end.
//!
//! With memory as the store, tokio's time is paused, so that pauses cost nothing. Redis is another process, whose answers
//! take real time.

mod inspect;
mod invariants;
mod perform;
mod play;
mod reference;
pub(super) mod steps;
pub(super) mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::model::endpoint::EndpointId;
use crate::model::idempotency::{Fingerprint, IdempotencyKey};
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::UploadState;
use crate::storage::Api;
use crate::store::testing::Server;
use crate::store::{self, FINAL_RETENTION};

use play::History;
use steps::{Chance, Odds, step};
use world::World;

/// After how many failures no more histories are begun: several tell more than one.
const FAILURES: usize = 3;

/// How often each thing happened.
type Tally = BTreeMap<String, u64>;

/// How long a history is.
const HISTORY: u64 = 200;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A number of the environment's.
fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Plays the history of `seed`; gives the step at which it went wrong, and how.
fn play(seed: u64, settings: &store::Settings, odds: Odds, is_paused: bool) -> Result<Tally, (u64, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(is_paused).build().unwrap();
    let trace = Mutex::new(Vec::new());
    let history = async {
        let api = if seed.is_multiple_of(2) { Api::Json } else { Api::Xml };
        let mut history = History::begin(World::open(seed, api, settings).await).await;
        let chance = Chance::new(seed);
        for _ in 0..HISTORY {
            let step = step(&chance, odds);
            trace.lock().unwrap().push(format!("{step:?}"));
            Box::pin(history.take(&step)).await?;
        }
        trace.lock().unwrap().push("the end, by sweeps alone".to_owned());
        history.settle().await?;
        Ok(history.tally)
    };
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(history)));
    let wrong = match played {
        Ok(Ok(tally)) => return Ok(tally),
        Ok(Err(wrong)) => wrong,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        }
    };
    let trace = trace.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let latest = trace.iter().enumerate().skip(trace.len().saturating_sub(12));
    let latest: Vec<_> = latest.map(|(number, step)| format!("  {number}: {step}")).collect();
    let text = format!("after step {} of the history of seed {seed}: {wrong}\n{}", trace.len() - 1, latest.join("\n"));
    Err((seed, text))
}

/// Plays histories of so many steps in all, on `threads` threads; each has a store of its own for each history.
fn play_all(
    name: &str,
    steps: u64,
    threads: u64,
    odds: Odds,
    store: impl Fn(u64, u64) -> Option<store::Settings> + Sync,
) {
    let (first, steps) = (number("MODEL_SEED").unwrap_or(1), number("MODEL_STEPS").unwrap_or(steps));
    let histories = steps.div_ceil(HISTORY);
    let (next, wrong, sum) = (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new(Tally::new()));
    std::thread::scope(|scope| {
        for thread in 0..threads.min(histories) {
            let (next, wrong, sum, store) = (&next, &wrong, &sum, &store);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= histories || wrong.lock().unwrap().len() >= FAILURES {
                        return;
                    }
                    let Some(settings) = store(thread, number) else { return };
                    let is_paused = settings.url == "memory";
                    match play(first + number, &settings, odds, is_paused) {
                        Ok(tally) => tally.into_iter().for_each(|(name, count)| {
                            *sum.lock().unwrap().entry(name).or_default() += count;
                        }),
                        Err((seed, found)) => wrong.lock().unwrap().push(format!(
                            "{found}\nagain: MODEL_SEED={seed} MODEL_STEPS={HISTORY} cargo test --lib uploads::histories::{name}"
                        )),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let sum = sum.into_inner().unwrap();
    #[expect(clippy::print_stderr, reason = "whoever runs the tests may want to see it")]
    {
        eprintln!("{} steps in {histories} histories; of those that were foretold: {sum:#?}", histories * HISTORY);
    }
    // Histories in which nothing happens would hold every promise.
    for happens in ["completed", "rejected", "cancelled", "expired"] {
        assert!(sum.is_empty() || steps < 1_000 || sum.contains_key(&format!("ended: {happens}")), "none {happens}");
    }
}

#[test]
fn any_history_in_memory_keeps_every_promise() {
    let odds = Odds { faults: 15, goes_away: 10, beside: 25, cuts: false };
    let memory = |_, _| Some(toml::from_str("url = \"memory\"").unwrap());
    play_all("any_history_in_memory_keeps_every_promise", 2_000, 2, odds, memory);
}

#[test]
fn any_history_in_redis_keeps_every_promise() {
    const THREADS: u64 = 6;
    let servers: Vec<Option<Server>> = (0..THREADS).map(|_| Server::start()).collect();
    let odds = Odds { faults: 5, goes_away: 10, beside: 25, cuts: true };
    let store = |thread: u64, number| {
        let server = servers[usize::try_from(thread).unwrap()].as_ref()?;
        Some(server.settings(&format!("h{number}")))
    };
    play_all("any_history_in_redis_keeps_every_promise", 800, THREADS, odds, store);
}
