//! Instances are replaced one by one, under load, behind a proxy that asks whether they are ready.

mod load;
mod proxy;

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::broker::{Settings, configuration};
use crate::support::process::Process;
use crate::support::redis;
use crate::support::stalls::Stalls;
use load::{Failure, Load, RATE, creates};
use proxy::Proxy;

/// How many instances there are.
const INSTANCES: usize = 3;

/// How long an instance may take to end, as Kubernetes gives it where nobody says otherwise.
const GRACE: Duration = Duration::from_secs(30);

/// How long there is load before the first instance is replaced, and after the last one was.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// How often it is tried on a machine that holds it up. What a restart breaks fails at the first try.
const TRIES: usize = 5;

/// An instance, from when it was ready until it was told to end.
struct Life {
    address: String,
    ready: Instant,
    told: Option<Instant>,
}

impl Life {
    /// Whether all of this time is well within its life: no part of the restart.
    fn has_the_middle_at(&self, begun: Instant, ended: Instant) -> bool {
        begun >= self.ready + UNDISTURBED && self.told.is_none_or(|told| ended < told)
    }
}

/// What came of replacing all.
struct Rolled {
    load: Load,
    lives: Vec<Life>,
    ends: Vec<(ExitStatus, Duration)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_fails_no_request() {
    for attempt in 1.. {
        let stalls = Stalls::note();
        let Some(rolled) = roll().await else { return };
        let Rolled { load, lives, ends } = rolled;
        for (status, took) in &ends {
            assert!(status.success(), "{status}");
            assert!(*took < GRACE, "it took {took:?} to end");
        }
        assert_eq!((ends.len(), lives.len()), (INSTANCES, 2 * INSTANCES));
        let was_held_up = |begun, ended| stalls.within(begun, ended) >= load::HELD_UP;
        let of = |failure: &Failure| lives.iter().find(|life| life.address == failure.address).unwrap();
        let is_of_the_machine =
            |failure: &&Failure| failure.is_of_slowness && was_held_up(failure.begun, failure.ended);
        // What the machine held up is no failure of a restart, if it befell an instance that nobody touched at the same time.
        let is_untouched = |failure: &&Failure| of(failure).has_the_middle_at(failure.begun, failure.ended);
        let elsewhere: Vec<_> = load.failures.iter().filter(is_of_the_machine).filter(is_untouched).collect();
        let is_excused = |failure: &&Failure| {
            let at_that_time = |other: &&Failure| other.begun < failure.ended && failure.begun < other.ended;
            is_of_the_machine(failure) && elsewhere.iter().any(at_that_time)
        };
        let unexcused: Vec<_> = load.failures.iter().filter(|failure| !is_excused(failure)).collect();
        if let Some(first) = unexcused.first() {
            let when = of(first)
                .told
                .map(|told| (first.begun.saturating_duration_since(told), first.ended.saturating_duration_since(told)));
            let (count, sent, what) = (unexcused.len(), load.sent, &first.what);
            panic!("{count} of {sent} creates failed, such as {when:?} after its instance was told to end: {what}");
        }
        for Life { address, .. } in &lives {
            let served = load.served.get(address).copied().unwrap_or_default();
            assert!(served > RATE as usize / 6, "{address} has served {served} creates only");
        }
        let is_load = load.rate() > f64::from(RATE) * 0.95;
        if is_load && load.failures.is_empty() {
            return;
        }
        let excused = attempt < TRIES && was_held_up(load.begun, load.ended);
        assert!(excused, "{} creates a second; {:?} failed", load.rate(), load.failures);
        #[expect(clippy::print_stderr, reason = "a test that tries again must say so")]
        {
            eprintln!("again: {} creates a second; {:?} failed on a busy machine", load.rate(), load.failures);
        }
    }
}

/// Replaces every instance once, under load.
async fn roll() -> Option<Rolled> {
    let redis = redis::start().await?;
    let folder = TempDir::new().unwrap();
    let (_storage, endpoint) = Process::emulator();
    let policies = "[[policies]]\nname = \"videos\"\nobject = \"videos/{id}\"\n".to_owned();
    let settings = Settings { store: redis.url(), policies, storage_timeout: "10s", ..Settings::default() };
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, configuration(folder.path(), &endpoint, &settings)).unwrap();
    let start = async || {
        let file = file.clone();
        tokio::task::spawn_blocking(move || Process::serve(&file, "info")).await.unwrap()
    };

    let (users, proxy) = (load::users(), Arc::new(Proxy::default()));
    let (mut processes, mut lives) = (Vec::new(), Vec::new());
    for number in 0..INSTANCES {
        let (process, address, operations) = start().await;
        lives.push(proxy.lead_to(number, address, operations).await);
        processes.push(process);
    }
    let load = tokio::spawn(creates(users, Arc::clone(&proxy)));
    tokio::time::sleep(UNDISTURBED).await;
    let mut ends = Vec::new();
    for (number, mut old) in processes.drain(..).enumerate().collect::<Vec<_>>() {
        old.signal("TERM");
        let told = Instant::now();
        lives[number].told = Some(told);
        let ended = tokio::task::spawn_blocking(move || (old.wait(), told.elapsed()));
        let (replacement, address, operations) = start().await;
        ends.push(ended.await.unwrap());
        lives.push(proxy.lead_to(number, address, operations).await);
        processes.push(replacement);
    }
    tokio::time::sleep(UNDISTURBED).await;
    proxy.close();
    Some(Rolled { load: load.await.unwrap(), lives, ends })
}
