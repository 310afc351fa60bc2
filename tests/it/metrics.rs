//! Metrics are what their documentation says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use upload_broker::clock::Clock;

use crate::support::broker::emulator;
use crate::support::collector::Collector;
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
