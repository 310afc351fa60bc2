//! Storage, or what passes for it, answering what makes no sense: told, logged, and without a secret in either.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use upload_broker::clock::Clock;
use upload_broker::emulator::faults::{Action, Body, Fault, Reply};
use upload_broker::emulator::journal::Operation;

use crate::support::broker::{configuration, emulator};
use crate::support::door::Door;
use crate::support::process::Process;
use crate::support::{Settings, User};

fn reply(status: u16, body: Body) -> Action {
    Action::Respond(Reply { status, retry_after: None, body })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_makes_no_sense_is_logged_without_its_secrets_and_reserves_nothing() {
    let storage = emulator(Clock::System).await;
    let door = Door::shut();
    let settings = Settings {
        policies: "[[policies]]\nname = \"any\"\nobject = \"any/{id}\"\nmax_active = 1\n".to_owned(),
        ..Settings::default()
    };
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("broker.toml");
    std::fs::write(&config, configuration(folder.path(), &door.url(), &settings)).unwrap();
    let storage_heard = door.open(storage.address());
    let (broker, address, _) = Process::serve(&config, "trace");
    let ada = User::new(format!("http://{address}"), "ada", Clock::System.now());

    let elsewhere = Action::WrongLocation { host: "evil.example.com".to_owned() };
    let sense = "the exchange with storage makes no sense: ";
    for (name, action, detail) in [
        ("no Location", Action::OmitLocation, format!("{sense}a session was opened without a Location")),
        ("another host", elsewhere, format!("{sense}the session URI is not https")),
        ("a page", reply(200, Body::Html), format!("{sense}a session was opened without a Location")),
        ("created, and a page", reply(201, Body::Html), format!("{sense}a session was opened without a Location")),
        ("nothing", reply(204, Body::Empty), format!("{sense}a status that does not belong to the request")),
        ("not to be resumed", reply(308, Body::Empty), format!("{sense}a status that does not belong to the request")),
        ("a redirect", reply(302, Body::Html), format!("{sense}a status that does not belong to the request")),
        ("no bucket", reply(404, Body::Json), "storage refused with status 404, notFound".to_owned()),
        ("no permission", reply(403, Body::Json), "storage refused with status 403, forbidden".to_owned()),
        ("a condition", reply(412, Body::Text), "storage refused with status 412".to_owned()),
    ] {
        storage.faults().add(Fault::once(Operation::Initiate, action));
        let tries = storage.journal().count(Operation::Initiate);
        let told = ada.create(10).await.is_problem(502, "storage-error");
        assert_eq!(told.text("/detail"), detail, "{name}");
        assert_eq!(storage.journal().count(Operation::Initiate), tries + 1, "{name} is not asked for again");
        let logged = broker.line_with(&format!("{detail}\""));
        assert!(logged.contains("\"WARN\""), "{name}: {logged}");
        let text = format!("{:?} {}", told.headers, told.body);
        assert!(!text.contains("evil") && !text.contains("upload_id="), "{name}: {text}");
        let policies = ada.get("/v1/policies").await.is(200);
        assert_eq!(policies.body["policies"][0]["active"], json!(0), "{name}: the reservation is free");
    }
    let created = ada.create(10).await.is(201);
    tokio::time::sleep(Duration::from_millis(200)).await;

    // Two sessions were opened for nobody, and a third for its owner; the broker was told of two of these.
    let heard = storage_heard.answered();
    let mut secrets: Vec<_> = heard
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with("x-guploader-uploadid: "))
        .map(|line| &line[22..])
        .collect();
    secrets.dedup();
    assert!(secrets.len() >= 3 && secrets.iter().all(|secret| secret.len() > 100), "{} secrets", secrets.len());
    assert!(secrets.iter().any(|secret| created.uri().ends_with(secret)), "the search finds what is there");
    let log = broker.printed();
    assert!(log.contains("\"DEBUG\""), "the log is talkative");
    for secret in secrets {
        let part = &secret[..24];
        assert!(!log.contains(part), "a session's secret is in the log");
    }
    assert!(!log.contains("evil.example.com"), "storage's word for an address is in the log");
}
