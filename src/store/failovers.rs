//! Masters that are lost: behind Sentinels and in a cluster, killed, hanging and demoted.
//!
//! `STORE_FAILOVERS=5 cargo test --lib store::failovers -- --nocapture --test-threads 1` is the long form: each master of
//! a cluster killed in turn, one stopped for a minute, five failovers behind Sentinels; it prints what it measures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fleet::{Fleet, NODE_TIMEOUT, until};
use super::load::{Load, Numbers, in_millis, load};
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
    /// For so long.
    Hanging(Duration),
}

/// How often in a row, where somebody wants to know.
fn rounds() -> Option<u32> {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    std::env::var("STORE_FAILOVERS").ok().and_then(|rounds| rounds.parse().ok())
}

/// How long a partition of a lost master may be away. A machine that does other work at the same time may need more.
fn patience() -> Duration {
    NODE_TIMEOUT + if rounds().is_some() { SECONDS(4) } else { SECONDS(6) }
}

/// One line of a table: what a loss did to the partitions that had no part in it, and to those that had.
fn report(name: &str, load: &Load, others: &Numbers, back: Duration, lost: usize) {
    let failed = load.attempts.iter().filter(|one| !one.is_ok).count();
    let [p50, p99, longest] = [500, 990, 1000].map(|per_mille| in_millis(others.quantile(per_mille)));
    #[expect(clippy::print_stderr, reason = "the numbers are the result")]
    {
        eprintln!(
            "| {name} | {} | {p50} | {p99} | {longest} | {:.2} | {failed} of {} | {lost} of {} |",
            others.count(),
            back.as_secs_f64(),
            load.attempts.len(),
            load.acknowledged.len(),
        );
    }
}

fn report_head() {
    #[expect(clippy::print_stderr, reason = "the numbers are the result")]
    {
        eprintln!(
            "| lost | writes elsewhere | p50, ms | p99, ms | longest, ms | back after, s | writes that failed | \
             uploads behind what was acknowledged |\n|---|---|---|---|---|---|---|---|"
        );
    }
}

/// Under load, the cluster loses a master of each of `groups` in turn; who was killed comes back as a replica. The
/// partitions of the others go on, those of the lost one are soon back, and nothing is there in parts.
async fn a_cluster_loses(groups: &[usize], loss: Loss) {
    let Some(mut fleet) = Fleet::cluster() else { return };
    let store = Arc::new(fleet.store().await);
    store.ping().await.unwrap();
    let partitions: Vec<u8> = (0..24).map(|number| number * 10).collect();
    let master_of = |fleet: &Fleet, group: usize| if fleet.is_master(group) { group } else { group + 3 };
    report_head();
    for &group in groups {
        let victim = master_of(&fleet, group);
        let is_lost: Vec<bool> = (0..=255).map(|partition| fleet.owner((group + 1) % 3, partition) == group).collect();
        let gone = Instant::now() + SECONDS(1);
        let away = match loss {
            Loss::Killed => Duration::ZERO,
            Loss::Hanging(time) => time,
        };
        let end = gone + away.max(patience()) + SECONDS(1);
        let writing = {
            let (store, partitions) = (Arc::clone(&store), partitions.clone());
            tokio::spawn(async move { load(&store, &partitions, end).await })
        };
        tokio::time::sleep_until(gone.into()).await;
        match loss {
            Loss::Killed => fleet.kill(victim),
            Loss::Hanging(_) => fleet.hang(victim),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.ping().await.expect("a cluster serves while one of its masters does");
        if matches!(loss, Loss::Hanging(_)) {
            tokio::time::sleep_until((gone + away).into()).await;
            fleet.go_on(victim);
        }
        let load = writing.await.unwrap();

        let (others, own) = (load.of(|one| !is_lost[usize::from(one)]), load.of(|one| is_lost[usize::from(one)]));
        let (back, behind) = (load.back(gone), load.lost(&store).await);
        report(&format!("{loss:?}, {victim}"), &load, &others, back, behind.len());
        assert!(own.failed > 0, "nothing was lost");
        assert_eq!(others.failed, 0, "other partitions have no part in this");
        assert!(others.quantile(990) < SECONDS(2), "{:?}", others.quantile(990));
        assert!(own.quantile(1000) < LONGEST, "{:?}", own.quantile(1000));
        assert!(back < patience(), "back after {back:?}");
        let stayed: Vec<_> = behind.iter().filter(|id| !is_lost[usize::from(id.partition().0)]).collect();
        assert!(stayed.is_empty(), "lost by servers that were never away: {stayed:?}");
        match loss {
            Loss::Killed => fleet.restart(victim, (victim + 3) % 6),
            // Who was master is told that it is not any more.
            Loss::Hanging(_) => fleet.in_step(victim),
        }
        let masters = [0, 1, 2].map(|group| master_of(&fleet, group));
        assert_eq!(store.contradictions(&fleet.keys(&masters)).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_replaces_masters_that_are_killed() {
    a_cluster_loses(if rounds().is_some() { &[0, 1, 2] } else { &[1] }, Loss::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_replaces_a_master_that_hangs() {
    let time = if rounds().is_some() { SECONDS(60) } else { NODE_TIMEOUT + SECONDS(4) };
    a_cluster_loses(&[0], Loss::Hanging(time)).await;
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

/// Under load, each server is killed when it is master, and comes back as the other's replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_master_that_is_killed() {
    let Some(mut fleet) = Fleet::sentinels() else { return };
    let store = Arc::new(fleet.store().await);
    store.ping().await.unwrap();
    fleet.hurry();
    report_head();
    for (master, replica) in [(0, 1), (1, 0)].into_iter().cycle().take(rounds().unwrap_or(1) as usize) {
        let gone = Instant::now() + SECONDS(1);
        let end = gone + SECONDS(8);
        let writing = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { load(&store, &[0, 50, 100, 150, 200, 250], end).await })
        };
        tokio::time::sleep_until(gone.into()).await;
        fleet.kill(master);
        let load = writing.await.unwrap();
        let (back, behind, all) = (load.back(gone), load.lost(&store).await, load.of(|_| true));
        report(&format!("Sentinel, {master}"), &load, &load.of(|_| false), back, behind.len());
        assert!(all.failed > 0, "nothing was lost");
        assert!(all.quantile(1000) < LONGEST, "{:?}", all.quantile(1000));
        assert!(back < SECONDS(7), "back after {back:?}");
        assert!(fleet.is_master(replica));
        fleet.restart(master, replica);
        fleet.wait_for_replica();
        assert_eq!(store.contradictions(&fleet.keys(&[replica])).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_master_that_is_demoted_and_one_that_hangs() {
    for _ in 0..rounds().unwrap_or(1) {
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
        fleet.hurry();
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
