//! Metrics are what their documentation says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use upload_broker::clock::Clock;

use crate::reload::scene::{Scene, policy, with_policies};
use crate::support::broker::emulator;
use crate::support::collector::Collector;
use crate::support::user::request;
use crate::support::{Broker, Settings};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// The type and the labels of every family, by its name.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

fn in_ticks(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn documented() -> Families {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (name, kind) = (cells[0].trim_end_matches('`'), cells[1]);
        let family = if kind == "counter" { name.strip_suffix("_total").unwrap() } else { name };
        (family.to_owned(), (kind.to_owned(), in_ticks(cells[2])))
    })
    .collect()
}

/// What a broker shows, whose families all have a sample.
fn exported(text: &str) -> Families {
    let mut families = Families::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            name.clone_into(&mut family);
            families.insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#')
            && let Some((_, labels)) = line.split_once('{')
        {
            // No value in these tests has a quotation mark in it.
            let labels =
                labels.split('"').step_by(2).filter_map(|part| part.trim_matches(['}', ',']).strip_suffix('='));
            let (_, known) = families.get_mut(&family).unwrap();
            known.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    families
}

#[tokio::test]
async fn every_metric_has_the_type_and_the_labels_that_are_documented() {
    let collector = Collector::start().await;
    let clock = Clock::manual(upload_broker::model::time::Timestamp::from_secs(1_800_000_000));
    let storage = emulator(clock.clone()).await;
    let policies = "[[policies]]\nname = \"one\"\nobject = \"{id}\"\nmax_active = 1\n";
    let settings = Settings { more: collector.section(), policies: policies.to_owned(), ..Settings::default() };
    let broker = Broker::start_beside(storage, clock, settings).await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    ada.create(10).await.is_problem(429, "quota-exceeded");
    ada.complete(&created.id()).await.is(409);
    ada.call(reqwest::Method::POST, &format!("/v1/uploads/{}/renew", created.id()), None).await.is(200);
    broker.pass(Duration::from_secs(16 * 60));
    broker.sweep().await;
    ada.cancel(&created.id()).await.is(200);

    let documented = documented();
    let exported = exported(&broker.operator_get("/metrics").await.1);
    assert!(exported.len() > 15, "{exported:#?}");
    for (family, found) in &exported {
        let told = documented.get(family).unwrap_or_else(|| panic!("{family} is not in docs/metrics.md"));
        assert_eq!(&told.0, &found.0, "the type of {family}");
        assert_eq!(&told.1, &found.1, "the labels of {family}");
    }
    for family in ["upload_broker_uploads_ended", "upload_broker_limit_refusals", "upload_broker_telemetry_spans"] {
        assert!(exported.contains_key(family), "{family} was provoked");
    }
}

/// The series of the broker's own counters of policies, peers and issuers, whose value is not zero.
fn counted(text: &str) -> Vec<&str> {
    let of_these = |line: &&str| {
        line.contains("_total{") && ["policy=", "peer=", "issuer="].iter().any(|label| line.contains(label))
    };
    text.lines().filter(of_these).filter(|line| !line.ends_with(" 0")).collect()
}

/// Every series that there is under a policy, and for a peer, before anything has happened.
fn of_policy(name: &str) -> Vec<String> {
    let mut series: Vec<_> = ["created", "renewed", "restored", "recalled"]
        .map(|what| format!("uploads_{what}_total{{policy=\"{name}\",region=\"europe-west1\"}}"))
        .into();
    series.extend(["completed", "rejected", "cancelled", "expired"].map(|outcome| {
        format!("uploads_ended_total{{policy=\"{name}\",region=\"europe-west1\",outcome=\"{outcome}\"}}")
    }));
    series
}

fn of_peer(name: &str) -> Vec<String> {
    ["created", "refused", "failed", "disagreed", "timed_out", "no_connection", "overloaded"]
        .map(|result| format!("forwards_total{{peer=\"{name}\",result=\"{result}\"}}"))
        .into()
}

/// Alerts take increases and shares of these. A series whose first value is 1 has no increase.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_of_policies_and_peers_begin_at_zero_at_the_start_and_after_a_reload() {
    let region = |name: &str| {
        format!("[[regions]]\nname = \"{name}\"\nbucket = \"media\"\nurl = \"https://{name}.uploads.example.com\"\n")
    };
    let limited = "max_active = 1\nrate = \"5/1m\"\ndaily_bytes = \"1GiB\"";
    let settings = with_policies(&(policy("one", limited) + &policy("tried", "max_active = 1\nreport_only = true")));
    let scene = Scene::start(Settings { more_regions: region("us-central1"), ..settings }).await;
    let refusals = ["max_active", "rate", "daily_bytes"]
        .map(|limit| format!("limit_refusals_total{{policy=\"one\",limit=\"{limit}\"}}"));
    for series in [of_policy("one"), of_policy("tried"), of_peer("us-central1"), refusals.clone().into()].concat() {
        assert_eq!(scene.value(&series).await, 0, "{series}");
    }
    for series in [
        "store_operations_total{operation=\"Find\",result=\"Corrupt\"}",
        "storage_calls_total{operation=\"sign\",class=\"free\",result=\"throttled\"}",
        "storage_retries_total{operation=\"initiate\"}",
        "storage_token_refreshes_total{result=\"failed\"}",
        "identity_key_fetches_total{issuer=\"https://issuer.example\",result=\"failure\"}",
    ] {
        assert_eq!(scene.value(series).await, 0, "{series}");
    }
    let (_, text) = scene.operator_get("/metrics").await;
    assert_eq!(counted(&text), [""; 0], "{text}");
    assert!(!text.contains("limit_refusals_total{policy=\"tried\""), "what only reports refuses nothing");

    let mut body = request(10);
    body["policy"] = "one".into();
    scene.ada.create_from(body).await.is(201);
    let more = scene.text().replace(
        "[[policies]]\nname = \"tried\"",
        &format!("{}\n{}\n[[policies]]\nname = \"tried\"", policy("two", "max_active = 1"), region("asia-southeast1")),
    );
    scene.reload(&more).await;
    let refusal = "limit_refusals_total{policy=\"two\",limit=\"max_active\"}".to_owned();
    for series in [of_policy("two"), of_peer("asia-southeast1"), vec![refusal]].concat() {
        assert_eq!(scene.value(&series).await, 0, "{series}");
    }
    // What was counted before goes on.
    let (_, text) = scene.operator_get("/metrics").await;
    assert_eq!(counted(&text), ["upload_broker_uploads_created_total{policy=\"one\",region=\"europe-west1\"} 1"]);
    assert!(!text.contains("limit_refusals_total{policy=\"two\",limit=\"rate\"}"), "it has no such limit");
}
