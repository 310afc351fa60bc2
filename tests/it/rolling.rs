//! Instances are replaced one by one, under load, behind a proxy that asks whether they are ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::JoinSet;
use upload_broker::clock::Clock;

use crate::support::broker::{Settings, configuration};
use crate::support::process::Process;
use crate::support::redis;
use crate::support::user::{User, request};

/// How many instances there are.
const INSTANCES: usize = 3;

/// Creates a second.
const RATE: u32 = 200;

/// How long an instance may take to end, as Kubernetes would give it.
const GRACE: Duration = Duration::from_secs(30);

/// Sends each request to an instance that was ready when it was last asked.
struct Proxy {
    instances: [Instance; INSTANCES],
    next: AtomicUsize,
}

#[derive(Default)]
struct Instance {
    address: std::sync::Mutex<(String, String)>,
    is_ready: AtomicBool,
}

impl Proxy {
    /// The address of an instance for one request.
    fn pick(&self) -> String {
        let begun = Instant::now();
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let ready = (0..INSTANCES)
                .map(|offset| &self.instances[(turn + offset) % INSTANCES])
                .find(|instance| instance.is_ready.load(Ordering::Relaxed));
            if let Some(instance) = ready {
                return instance.address.lock().unwrap().0.clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "nobody is ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks each instance, several times a second, as load balancers ask less often and for longer.
    async fn probe(self: Arc<Self>) {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap();
        loop {
            for instance in &self.instances {
                let operations = instance.address.lock().unwrap().1.clone();
                let answer = client.get(format!("http://{operations}/readyz")).send().await;
                instance.is_ready.store(answer.is_ok_and(|answer| answer.status() == 200), Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// How late a timer may fire on a machine that is well. On another, Redis or storage may take longer than a create waits.
const STALL: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_fails_no_request() {
    for attempt in 1.. {
        let watching = tokio::spawn(longest_stall());
        let Some((created, failures)) = roll().await else { return };
        watching.abort();
        let stalled = LONGEST_STALL.swap(0, Ordering::Relaxed);
        if failures.is_empty() {
            assert!(created > 1_000, "{created} creates are no load");
            return;
        }
        // What the machine itself held up is no failure of a restart; a second and a third time it would be.
        let excused = attempt < 3 && u128::from(stalled) > STALL.as_millis();
        assert!(excused, "{} of {created} creates failed: {:?}", failures.len(), &failures[..1]);
    }
}

/// In milliseconds.
static LONGEST_STALL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Notes how late a timer fires at the most.
async fn longest_stall() {
    loop {
        let asked = Instant::now();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let late = asked.elapsed().saturating_sub(Duration::from_millis(10)).as_millis();
        LONGEST_STALL.fetch_max(u64::try_from(late).unwrap(), Ordering::Relaxed);
    }
}

/// Replaces every instance once, under load: how many creates there were, and which failed.
async fn roll() -> Option<(usize, Vec<String>)> {
    let redis = redis::start().await?;
    let folder = TempDir::new().unwrap();
    let (_storage, endpoint) = Process::emulator();
    let policies = "[[policies]]\nname = \"videos\"\nobject = \"videos/{id}\"\n".to_owned();
    let settings = Settings { store: redis.url(), policies, storage_timeout: "10s", ..Settings::default() };
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, configuration(folder.path(), &endpoint, &settings)).unwrap();

    let proxy = Arc::new(Proxy { instances: Default::default(), next: AtomicUsize::new(0) });
    let mut processes = Vec::new();
    for instance in &proxy.instances {
        let (process, address, operations) = Process::serve(&file, "info");
        *instance.address.lock().unwrap() = (address, operations);
        processes.push(process);
    }
    let probing = tokio::spawn(Arc::clone(&proxy).probe());

    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(creates(Arc::clone(&proxy), Arc::clone(&stop)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (instance, process) in proxy.instances.iter().zip(&mut processes) {
        process.signal("TERM");
        let begun = Instant::now();
        let (replacement, address, operations) = Process::serve(&file, "info");
        let mut old = std::mem::replace(process, replacement);
        let status = tokio::task::spawn_blocking(move || old.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        assert!(begun.elapsed() < GRACE, "it took {:?} to end", begun.elapsed());
        *instance.address.lock().unwrap() = (address, operations);
        while !instance.is_ready.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (created, failures) = load.await.unwrap();
    probing.abort();
    Some((created, failures))
}

/// Creates at a steady pace until told to stop: how many there were, and what went wrong.
async fn creates(proxy: Arc<Proxy>, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    // Processes have no other clock than the system's.
    let now = Clock::System.now();
    let users: Vec<User> = (0..20).map(|number| User::new(String::new(), &format!("user-{number}"), now)).collect();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let (mut running, mut created, mut failures) = (JoinSet::new(), 0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let user = users[created % users.len()].at(format!("http://{}", proxy.pick()));
        created += 1;
        running.spawn(async move {
            match user.try_call(reqwest::Method::POST, "/v1/uploads", Some(&request(10))).await {
                Ok(answer) if answer.status == 201 => None,
                Ok(answer) => Some(format!("{} {}", answer.status, answer.body)),
                Err(error) => Some(format!("{error:?}")),
            }
        });
        while let Some(outcome) = running.try_join_next() {
            failures.extend(outcome.unwrap());
        }
    }
    while let Some(outcome) = running.join_next().await {
        failures.extend(outcome.unwrap());
    }
    (created, failures)
}
