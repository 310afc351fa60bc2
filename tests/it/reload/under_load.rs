//! Configurations change while others are asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_decided_by_one_configuration_none_fails_and_the_new_one_binds_at_once() {
    let settings = Settings { origins: vec![origin("one")], ..with_policies(&policy("one", "")) };
    let scene = Scene::start(settings).await;
    let two = scene.good.replace("name = \"one\"", "name = \"two\"").replace("\"one/{id}\"", "\"two/{id}\"");
    let texts = [scene.good.clone(), two.replace(&origin("one"), &origin("two"))];
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(create_until(scene.ada.clone(), number % 2, Arc::clone(&stop))))
        .collect();

    // From when to when only one of them was in force.
    let mut periods = Vec::new();
    let mut waits = Vec::new();
    let mut in_force = (0, Instant::now());
    for round in 1..=ROUNDS {
        tokio::time::sleep(Duration::from_millis(150)).await;
        scene.write(&texts[round % 2]);
        let told = Instant::now();
        periods.push((in_force.0, in_force.1, told));
        scene.hang_up();
        loop {
            if scene.ada.create(10).await.is(201).body["policy"] == NAMES[round % 2] {
                in_force = (round % 2, Instant::now());
                break;
            }
            assert!(told.elapsed() < Duration::from_secs(60), "it is not in force: {}", scene.broker.printed());
        }
        waits.push(told.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let (mut count, mut within) = (0, 0);
    for client in clients {
        for Decided { begun, ended, by } in client.await.unwrap() {
            count += 1;
            // What was under way when the configuration changed may be decided by either.
            if let Some((name, ..)) = periods.iter().find(|(_, from, to)| *from <= begun && ended <= *to) {
                within += 1;
                assert_eq!(by, *name);
            }
        }
    }
    assert!(count > 10 * ROUNDS && within > ROUNDS, "{count} creates are no load, {within} of them between reloads");
    // The half of them, so that a machine that stops for a moment proves nothing.
    waits.sort();
    assert!(waits[ROUNDS / 2] < Duration::from_secs(1), "{waits:?}");
    scene.metric("config_reloads_total{result=\"applied\"}", i64::try_from(ROUNDS).unwrap()).await;
    scene.metric("config_reloads_total{result=\"refused\"}", 0).await;
}
