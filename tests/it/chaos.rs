//! What is promised whatever is lost: many uploads, while brokers die, notifications go astray and clients vanish.
//!
//! Everything is a process of its own: the brokers, which `kill -9` meets in the middle of whatever they do, Redis, and the
//! emulator with its notifications. Only the clock is not the system's: minutes of silence are passed over (`support/ahead`).

mod clients;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use upload_broker::clock::{Clock, Randomness};

use self::clients::{Client, Habit, Known, POLICIES, Troubles};
use self::verdict::Verdict;
use crate::support::User;
use crate::support::backend::{Health, Hooks};
use crate::support::fleet::{BROKERS, Fleet};

/// How many uploads there are for one user.
const UPLOADS_EACH: u64 = 20;

/// Longer than a silence, a short upload, a claim of a dead sweeper and a lease of a dead sender.
const LONG: Duration = Duration::from_secs(190);

/// Uploads by many users at once.
struct Load {
    fleet: Arc<Fleet>,
    uploads: u64,
    seed: u64,
    habit: Habit,
    troubles: Arc<Troubles>,
}

impl Load {
    fn users(&self) -> Vec<User> {
        let count = self.uploads.div_ceil(UPLOADS_EACH);
        (0..count).map(|number| self.fleet.user(&format!("u{number}"), &[])).collect()
    }

    /// Everything that clients do; gives what they know of their uploads in the end.
    async fn run(&self) -> Vec<Known> {
        let (users, next) = (Arc::new(self.users()), Arc::new(AtomicU64::new(0)));
        let mut workers = JoinSet::new();
        for _ in 0..(self.uploads / 20).clamp(8, 96) {
            let (users, next) = (Arc::clone(&users), Arc::clone(&next));
            let (uploads, seed, habit, troubles) = (self.uploads, self.seed, self.habit, Arc::clone(&self.troubles));
            workers.spawn(async move {
                let mut known = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= uploads {
                        return known;
                    }
                    let user = users[usize::try_from(number / UPLOADS_EACH).unwrap()].clone();
                    let chance = Randomness::seeded(seed ^ (number << 32));
                    let client = Client { user, number, chance, troubles: Arc::clone(&troubles) };
                    known.extend(client.upload(habit).await);
                }
            });
        }
        workers.join_all().await.into_iter().flatten().collect()
    }
}

/// Kills one broker after the other, and starts each again, until `stop`. Gives how many were killed. Time goes on meanwhile,
/// faster than elsewhere.
async fn kill_brokers(fleet: Arc<Fleet>, chance: Randomness, stop: CancellationToken) -> u64 {
    let mut killed = 0;
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(Duration::from_secs(1).mul_f64(0.7 + 2.5 * chance.fraction())) => {}
        }
        let [place] = chance.bytes::<1>();
        let place = usize::from(place) % BROKERS;
        fleet.kill(place);
        killed += 1;
        tokio::time::sleep(Duration::from_secs(1).mul_f64(chance.fraction())).await;
        fleet.revive(place).await;
        fleet.ahead.pass(Duration::from_secs(10));
    }
    killed
}

/// Keeps the users who have uploads that have not ended.
async fn with_something_open(users: Vec<User>) -> Vec<User> {
    let mut open = Vec::new();
    for some in users.chunks(32) {
        let asking = some.iter().cloned().map(|user| async move {
            // Nothing is ended by being listed.
            let page = user.get("/v1/uploads?limit=200").await.is(200);
            let uploads = page.body["uploads"].as_array().unwrap().clone();
            uploads.iter().any(is_open).then_some(user)
        });
        open.extend(crate::support::join_all(asking).await.into_iter().flatten());
    }
    open
}

fn is_open(upload: &Value) -> bool {
    upload["state"] == "pending" || upload["state"] == "uploading"
}

/// Time passes, and every broker sweeps once, from beginning to end; or enough of them that nothing is open any more. Gives
/// who has something open after that.
async fn sweep(fleet: &Fleet, mut users: Vec<User>) -> Vec<User> {
    fleet.ahead.pass(LONG);
    let before = fleet.rounds().await;
    loop {
        let rounds = fleet.rounds().await;
        users = with_something_open(users).await;
        // The round that is under way may have passed by what is due only now.
        if users.is_empty() || rounds.iter().zip(&before).all(|(after, before)| *after >= before + 2) {
            return users;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Waits until every event was accepted, while time passes.
async fn events_arrive(fleet: &Fleet, hooks: &Hooks, mut events: Vec<String>) {
    let mut patience = Patience::new();
    loop {
        events.retain(|event| !hooks.has_accepted(event));
        if events.is_empty() {
            return;
        }
        patience.with(events.len() as u64, || format!("events do not come: {events:?}"));
        fleet.ahead.pass(Duration::from_secs(5));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until storage has pushed all that it was not told to lose; gives what it says of that.
async fn pushes_end(fleet: &Fleet) -> Value {
    let mut patience = Patience::new();
    loop {
        let subscriptions = fleet.emulator(Method::GET, "subscriptions", None).await;
        let subscription = &subscriptions["subscriptions"][0];
        let queued = subscription["queued"].as_u64().unwrap();
        if queued == 0 {
            return subscription.clone();
        }
        patience.with(queued, || format!("pushes do not end: {subscription}"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Waits for as long as something becomes less.
struct Patience {
    least: u64,
    since: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { least: u64::MAX, since: Instant::now() }
    }

    fn with(&mut self, left: u64, complaint: impl FnOnce() -> String) {
        if left < self.least {
            *self = Self { least: left, since: Instant::now() };
        }
        assert!(self.since.elapsed() < Duration::from_secs(120), "{}", complaint());
    }
}

/// What storage does not answer, or refuses to do at first: one call in some, of those that brokers make. Gives how many
/// answers to initiations are lost, each of which leaves a session that nobody knows.
async fn spoil_storage(fleet: &Fleet, uploads: u64, chance: &Randomness) -> u64 {
    let (mut faults, mut lost) = (Vec::new(), 0);
    for _ in 0..uploads / 15 {
        let [operation, action] = chance.bytes::<2>();
        let operation = ["initiate", "status", "cancel", "delete", "get"][usize::from(operation) % 5];
        let action =
            [json!({"kind": "act_then_reset"}), json!({"kind": "reset"}), json!({"kind": "respond", "status": 503})]
                [usize::from(action) % 3]
                .clone();
        lost += u64::from(operation == "initiate" && action["kind"] == "act_then_reset");
        let skip = u64::from(u32::from_le_bytes(chance.bytes())) % (uploads / 2);
        faults.push(json!({"operation": operation, "skip": skip, "action": action}));
    }
    fleet.emulator(Method::POST, "faults", Some(&Value::Array(faults))).await;
    lost
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?.into_string().unwrap();
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[expect(clippy::print_stderr, reason = "long runs are read by people, and a failure needs its seed")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// How often each kind of line stands in the brokers' logs.
fn kinds(lines: &[String]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for line in lines {
        let parsed: Value = serde_json::from_str(line).unwrap_or_default();
        let kind = parsed["message"].as_str().map_or_else(|| line.clone(), str::to_owned);
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

fn day(ahead: Duration) -> i64 {
    Clock::System.now().plus(ahead).as_secs() / 86_400
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_and_is_lost_every_upload_ends_as_storage_shows_and_is_told() {
    let uploads = number("CHAOS_UPLOADS").unwrap_or(300);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(u32::from_le_bytes(Randomness::System.bytes())));
    say(&format!("CHAOS_UPLOADS={uploads} CHAOS_SEED={seed}"));
    let (begun, first_day) = (Instant::now(), day(Duration::ZERO));
    let hooks = Hooks::start(Health::Ill(seed)).await;
    let Some(fleet) = Fleet::start(POLICIES, |folder| hooks.section(folder)).await else { return };
    fleet.subscribe(&json!({"copies": 5, "lose": 0.2, "shuffle": 1000})).await;
    let lost_sessions = spoil_storage(&fleet, uploads, &Randomness::seeded(!seed)).await;

    let stop = CancellationToken::new();
    let killing = tokio::spawn(kill_brokers(Arc::clone(&fleet), Randomness::seeded(seed), stop.clone()));
    let troubles = Arc::new(Troubles::default());
    let load = Load { fleet: Arc::clone(&fleet), uploads, seed, habit: Habit::Talk, troubles };
    let known = load.run().await;
    stop.cancel();
    let killed = killing.await.unwrap();
    let loaded = begun.elapsed();
    let unspoilt = fleet.emulator(Method::GET, "faults", None).await["faults"].as_array().unwrap().len() as u64;
    fleet.emulator(Method::DELETE, "faults", None).await;

    let after_one = sweep(&fleet, load.users()).await;
    let after_two = sweep(&fleet, after_one.clone()).await;
    let swept = begun.elapsed();
    let verdict = Verdict::read(&fleet).await;
    verdict.is_true(&known);
    events_arrive(&fleet, &hooks, verdict.events()).await;
    let pushes = pushes_end(&fleet).await;

    // All copies of all notifications have come by now, and changed nothing.
    let verdict = Verdict::read(&fleet).await;
    verdict.is_true(&known);
    verdict.has_no_stray_object();
    verdict.was_told(&hooks);
    verdict.left_nothing_reserved(&fleet, first_day == day(fleet.ahead.so_far())).await;
    let unknown = Verdict::left_no_session(&fleet, &known, &load.troubles, lost_sessions).await;
    let unusual = fleet.unusual();
    assert!(!unusual.iter().any(|line| line.contains("panicked")), "{unusual:#?}");
    assert!(after_two.is_empty(), "two sweeps leave uploads open");

    let told: Vec<u32> = hooks.events().values().map(|told| told.deliveries).collect();
    let deliveries: u32 = told.iter().sum();
    say(&format!(
        "{uploads} uploads in {:.0?}, {killed} brokers killed; swept after {:.0?}, all told and checked after {:.0?}; \
         the clock went {:.0?} ahead\n\
         requests that were repeated: {} for a session, {} others; calls of storage that were spoilt: {}\n\
         in the end: {:?}; completed by {:?}; users with open uploads after one sweep: {}, after two: {}\n\
         notifications: {} lost, {} copies acknowledged, {} pushes\n\
         events: {}, {deliveries} deliveries, at most {} of one\n\
         sessions that nobody was told of: {unknown}\n\
         logged: {:#?}",
        loaded,
        swept.saturating_sub(loaded),
        begun.elapsed(),
        fleet.ahead.so_far(),
        load.troubles.openings.load(Ordering::Relaxed),
        load.troubles.others.load(Ordering::Relaxed),
        uploads / 15 - unspoilt,
        verdict.counts(|upload| upload["state"].as_str()),
        verdict.counts(|upload| upload["result"]["evidence"].as_str()),
        after_one.len(),
        after_two.len(),
        pushes["lost"],
        pushes["delivered"],
        pushes["attempts"],
        told.len(),
        told.iter().max().unwrap_or(&0),
        kinds(&unusual),
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_notification_comes_and_no_client_talks_the_sweepers_end_everything() {
    let hooks = Hooks::start(Health::Well).await;
    let Some(fleet) = Fleet::start(POLICIES, |folder| hooks.section(folder)).await else { return };
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(u32::from_le_bytes(Randomness::System.bytes())));
    say(&format!("CHAOS_SEED={seed}"));
    let first_day = day(Duration::ZERO);
    let troubles = Arc::new(Troubles::default());
    let load = Load { fleet: Arc::clone(&fleet), uploads: 120, seed, habit: Habit::Silence, troubles };
    let known = load.run().await;
    let after_one = sweep(&fleet, load.users()).await;
    let after_two = sweep(&fleet, after_one).await;
    assert!(after_two.is_empty(), "two sweeps leave uploads open");
    let verdict = Verdict::read(&fleet).await;
    verdict.is_true(&known);
    let evidence = verdict.counts(|upload| upload["result"]["evidence"].as_str());
    assert_eq!(evidence.keys().copied().collect::<Vec<_>>(), ["sweep"], "{evidence:?}");
    events_arrive(&fleet, &hooks, verdict.events()).await;
    verdict.has_no_stray_object();
    verdict.was_told(&hooks);
    verdict.left_nothing_reserved(&fleet, first_day == day(fleet.ahead.so_far())).await;
    Verdict::left_no_session(&fleet, &known, &load.troubles, 0).await;
    let unusual = fleet.unusual();
    assert!(!unusual.iter().any(|line| line.contains("panicked")), "{unusual:#?}");
}
