//! Masters that are lost: behind Sentinels and in a cluster, killed, hanging and demoted.
//!
//! `STORE_FAILOVERS` is how often in a row, once unless it is set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fleet::{Fleet, NODE_TIMEOUT, until};
use super::testing::*;
use super::*;
use crate::model::limits::Limits;

const UNLIMITED: Limits = Limits { max_active: None, rate: None, daily_bytes: None };

/// How long an operation may take: its deadline, and what a loaded machine adds.
const LONGEST: Duration = Duration::from_secs(4);

/// How the master of a partition is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    Hanging,
}

fn rounds() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    std::env::var("STORE_FAILOVERS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// One write of a client, and how it went.
struct Attempt {
    partition: u8,
    began: Instant,
    took: Duration,
    is_ok: bool,
}

/// A user whose keys are in `partition`.
fn user_in(partition: u8) -> PrincipalId {
    let mut id = [7; 16];
    id[0] = partition;
    PrincipalId(id)
}

/// Writes into `partitions` from now until `end`.
async fn load(store: &Arc<Store>, partitions: &[u8], end: Instant) -> Vec<Attempt> {
    let mut writers = tokio::task::JoinSet::new();
    for &partition in partitions {
        let store = Arc::clone(store);
        writers.spawn(async move {
            let mut attempts = Vec::new();
            // Each load has uploads of its own.
            let mut number = u32::from_be_bytes(Randomness::System.bytes());
            while Instant::now() < end {
                number = number.wrapping_add(1);
                let began = Instant::now();
                let upload = intent_of(user_in(partition), number, NOW);
                let is_ok = store.admit(&plain(&upload, UNLIMITED)).await.is_ok();
                attempts.push(Attempt { partition, began, took: began.elapsed(), is_ok });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            attempts
        });
    }
    writers.join_all().await.into_iter().flatten().collect()
}

/// A cluster goes on but for the partitions of the master that is lost, and with those soon.
async fn a_master_is_lost(loss: Loss) {
    let partitions: Vec<u8> = (0..24).map(|number| number * 10).collect();
    for round in 0..rounds() {
        let Some(mut fleet) = Fleet::cluster() else { return };
        let victim = usize::try_from(round % 3).unwrap();
        let store = Arc::new(fleet.store().await);
        store.ping().await.unwrap();
        let patience = NODE_TIMEOUT + SECONDS(6);
        let gone = Instant::now() + Duration::from_millis(500);
        let end = gone + patience + SECONDS(1);
        let writing = {
            let (store, partitions) = (Arc::clone(&store), partitions.clone());
            tokio::spawn(async move { load(&store, &partitions, end).await })
        };
        tokio::time::sleep_until(gone.into()).await;
        match loss {
            Loss::Killed => fleet.kill(victim),
            Loss::Hanging => fleet.hang(victim),
        }
        let asked = (victim + 1) % 3;
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.ping().await.expect("a cluster serves while one of its masters does");
        let attempts = writing.await.unwrap();
        let owner: Vec<usize> = (0..=255).map(|partition| fleet.owner(asked, partition)).collect();
        let mut back = Duration::ZERO;
        let mut failures = 0;
        for Attempt { partition, began, took, is_ok } in &attempts {
            if owner[usize::from(*partition)] == victim {
                assert!(*took < LONGEST, "{loss:?}, round {round}: {took:?}");
                if !is_ok {
                    failures += 1;
                    back = back.max((*began + *took).saturating_duration_since(gone));
                }
            } else {
                assert!(is_ok, "{loss:?}, round {round}: partition {partition} had no part in this");
                assert!(*took < SECONDS(2), "{loss:?}, round {round}: {took:?}");
            }
        }
        for &partition in partitions.iter().filter(|partition| owner[usize::from(**partition)] != victim) {
            let writes = attempts.iter().filter(|attempt| attempt.partition == partition).count();
            let counted = store.used(user_in(partition), UNLIMITED, NOW).await.active;
            assert_eq!(usize::try_from(counted).unwrap(), writes, "{loss:?}, round {round}: partition {partition}");
        }
        #[expect(clippy::print_stderr, reason = "the number is a result")]
        {
            eprintln!("{loss:?}: back after {back:?}, with {failures} of {} writes failed", attempts.len());
        }
        assert!(failures > 0, "{loss:?}, round {round}: nothing was lost");
        assert!(back < patience, "{loss:?}, round {round}: back after {back:?}");
        if matches!(loss, Loss::Hanging) {
            // Who was master is told that it is not any more.
            fleet.go_on(victim);
            until("the one that hung is a replica", || !fleet.is_master(victim));
            let attempts = load(&store, &partitions, Instant::now() + SECONDS(1)).await;
            assert!(attempts.iter().all(|attempt| attempt.is_ok), "round {round}: after it went on");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_replaces_a_master_that_is_killed() {
    a_master_is_lost(Loss::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_replaces_a_master_that_hangs() {
    a_master_is_lost(Loss::Hanging).await;
}

/// Writes until a write succeeds, and tells how long that took.
async fn until_it_writes(store: &Store, number: u32) -> Duration {
    let started = Instant::now();
    for number in number.. {
        let upload = intent_of(user(1), number, NOW);
        let asked = Instant::now();
        let answer = store.admit(&plain(&upload, UNLIMITED)).await;
        assert!(asked.elapsed() < LONGEST, "{:?}", asked.elapsed());
        if answer.is_ok() {
            break;
        }
        assert!(started.elapsed() < SECONDS(60), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_master_that_is_killed() {
    for _ in 0..rounds() {
        let Some(mut fleet) = Fleet::sentinels() else { return };
        let store = fleet.store().await;
        store.ping().await.unwrap();
        fleet.kill(0);
        until_it_writes(&store, 0).await;
        assert!(fleet.is_master(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_master_that_is_demoted_and_one_that_hangs() {
    for _ in 0..rounds() {
        let Some(fleet) = Fleet::sentinels() else { return };
        let store = fleet.store().await;
        store.ping().await.unwrap();
        let order = ["SENTINEL", "FAILOVER", "main"];
        until("Sentinels take an order", || fleet.try_ask::<()>(2, &order).is_ok());
        until("the replica is a master", || fleet.is_master(1));
        // The old master goes on for a while, as if nothing had happened.
        let (ordered, size) = (Instant::now(), || fleet.ask::<u64>(1, &["DBSIZE"]));
        let before = size();
        for number in 0.. {
            assert!(ordered.elapsed() < SECONDS(8), "the store goes on writing to the old master");
            until_it_writes(&store, number).await;
            if size() > before {
                break;
            }
        }
        for sentinel in 2..5 {
            let _: () = fleet.ask(sentinel, &["SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200"]);
        }
        let is_in_step = || fleet.ask::<String>(0, &["INFO", "replication"]).contains("master_link_status:up");
        until("the old master is a replica", is_in_step);
        fleet.hang(1);
        until_it_writes(&store, 1_000).await;
        assert!(fleet.is_master(0));
    }
}

#[tokio::test]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    for (name, server, sentinel, serves) in [
        ("both", ":s3+cret%2F@", "?sentinel_password=g%75+ard", true),
        ("the other way round", ":gu+ard@", "?sentinel_password=s3+cret%2F", false),
        ("none for the Sentinel", ":s3+cret%2F@", "", false),
        ("none for the server", "", "?sentinel_password=gu+ard", false),
    ] {
        let Some(mut fleet) = Fleet::guarded_sentinel("s3+cret/", "gu+ard") else { return };
        fleet.at(|at| format!("redis+sentinel://{server}{at}{sentinel}"));
        let answer = fleet.store().await.ping().await;
        assert_eq!(answer.is_ok(), serves, "{name}: {answer:?}");
        let told = format!("{answer:?}");
        assert!(!told.contains("s3+cret") && !told.contains("gu+ard"), "{name}: {told}");
    }
}

#[tokio::test]
async fn a_store_opens_without_its_sentinels_and_without_its_cluster() {
    for url in ["redis+sentinel://127.0.0.1:1,127.0.0.1:2/main", "redis+cluster://127.0.0.1:1,127.0.0.1:2"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            url: url.to_owned(),
            key_prefix: "t".to_owned(),
            tls: None,
            trusted_ca: None,
            encryption_keys: vec![super::seal::tests::key_file(directory.path(), "k1", 1)],
        };
        let store = Store::open(&settings, Randomness::System).await.unwrap();
        let started = Instant::now();
        for answer in
            [store.ping().await.err(), store.admit(&plain(&intent_of(user(1), 1, NOW), UNLIMITED)).await.err()]
        {
            assert!(matches!(answer, Some(Error::Unavailable(_))), "{url}: {answer:?}");
        }
        assert!(started.elapsed() < SECONDS(2), "{url}: {:?}", started.elapsed());
    }
}
