//! Configurations change while others are asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use upload_broker::clock::Clock;

use crate::support::stalls::Stalls;
use crate::support::user::request;
use crate::support::{Settings, User};

use super::scene::{Scene, policy, with_policies};

/// How often the configuration is changed.
const ROUNDS: usize = 30;

/// How many clients ask at once.
const CLIENTS: usize = 12;

/// One answer: when it was asked for, when it had come, and by which configuration it was decided.
struct Decided {
    begun: Instant,
    ended: Instant,
    by: usize,
}

/// How long after the signal the old configuration may decide on what is asked.
const BINDING: Duration = Duration::from_secs(1);

/// More bytes than the second configuration allows, and than those who make the load ever ask for.
const MANY: u64 = 1000;

/// A configuration that was put in force by a signal.
#[derive(Clone, Copy)]
struct Change {
    to: usize,
    /// When the signal was sent.
    told: Instant,
    /// When the first answer by it had come.
    seen: Instant,
}

/// The two configurations, as what a client sees of them.
const NAMES: [&str; 2] = ["one", "two"];

fn origin(name: &str) -> String {
    format!("https://{name}.example")
}

/// Creates uploads until `stop`, with the origin that only one of the configurations allows. Every part of an answer must
/// come from the same one.
async fn create_until(user: User, of: usize, stop: Arc<AtomicBool>) -> Vec<Decided> {
    let user = user.with("origin", Box::leak(origin(NAMES[of]).into_boxed_str()));
    let mut decided = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let created = user.create_from(request(10)).await.is(201);
        let policy = created.text("/policy");
        let by = NAMES.iter().position(|name| *name == policy).unwrap();
        assert!(created.text("/object").starts_with(&format!("{policy}/")), "{created:?}");
        let granted = created.header("access-control-allow-origin").is_some();
        assert_eq!(granted, by == of, "the origin of {} and the policy {policy}: {created:?}", NAMES[of]);
        decided.push(Decided { begun, ended: Instant::now(), by });
    }
    decided
}

/// Asks once for more than the second configuration allows: who decides.
async fn create_many(user: &User) -> Decided {
    let begun = Instant::now();
    let answer = user.create(MANY).await;
    let by = usize::from(answer.status == 422);
    if by == 1 {
        answer.is_problem(422, "policy-violation");
    } else {
        assert_eq!(answer.is(201).text("/policy"), NAMES[0]);
    }
    Decided { begun, ended: Instant::now(), by }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_decided_by_one_configuration_none_fails_and_the_new_one_binds_at_once() {
    let settings = Settings { origins: vec![origin("one")], ..with_policies(&policy("one", "")) };
    let scene = Scene::start(settings).await;
    let two = scene.good.replace("name = \"one\"", "name = \"two\"\nmax_size = 10");
    let two = two.replace("\"one/{id}\"", "\"two/{id}\"");
    let texts = [scene.good.clone(), two.replace(&origin("one"), &origin("two"))];
    let stop = Arc::new(AtomicBool::new(false));
    let stalls = Stalls::note();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            // As one user they would soon have as many uploads under way as one may have.
            let user = User::new(scene.ada.broker.clone(), &format!("client-{number}"), Clock::System.now());
            tokio::spawn(create_until(user, number % 2, Arc::clone(&stop)))
        })
        .collect();

    let begin = Instant::now();
    let (mut changes, mut decided) = (vec![Change { to: 0, told: begin, seen: begin }], Vec::new());
    for round in 1..=ROUNDS {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let to = round % 2;
        scene.write(&texts[to]);
        let told = Instant::now();
        scene.hang_up();
        let seen = loop {
            let by = create_many(&scene.ada).await;
            let ended = by.ended;
            decided.push(by);
            if decided.last().is_some_and(|last| last.by == to) {
                break ended;
            }
            assert!(told.elapsed() < Duration::from_secs(60), "it is not in force: {}", scene.broker.printed());
        };
        changes.push(Change { to, told, seen });
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        decided.extend(client.await.unwrap());
    }
    let mut within = 0;
    for Decided { begun, ended, by } in &decided {
        let last = changes.iter().rposition(|change| change.told <= *begun).unwrap_or_default();
        let Change { to, told, seen } = changes[last];
        // What was under way when the configuration changed may be decided by either.
        if changes.get(last + 1).is_some_and(|next| next.told < *ended) {
            continue;
        }
        within += usize::from(*begun >= seen);
        if *by != to {
            assert!(*begun < seen, "the old one is in force again");
            let took = (*begun - told).saturating_sub(stalls.within(told, *begun));
            assert!(took < BINDING, "the old one decides {took:?} after the signal");
        }
    }
    let count = decided.len();
    assert!(count > 10 * ROUNDS && within > ROUNDS, "{count} creates are no load, {within} of them between reloads");
    scene.metric("config_reloads_total{result=\"applied\"}", i64::try_from(ROUNDS).unwrap()).await;
    scene.metric("config_reloads_total{result=\"refused\"}", 0).await;
}
