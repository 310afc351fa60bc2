//! What happens without anybody asking: the sweeper brings every upload to its end, and leaves nothing behind.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use upload_broker::emulator::faults::{Action, Fault, Reply};
use upload_broker::emulator::journal::Operation;

use crate::support::user::Answer;
use crate::support::{BUCKET, Broker, Settings, User, join_all, noise, redis};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Longer than an upload may be silent.
const IDLE: Duration = Duration::from_secs(15 * 60);

const POLICIES: &str = "[[policies]]\nname = \"files\"\nobject = \"files/{sub}/{id}\"\nmax_size = \"64MiB\"\n\
                        unknown_size = true\nmax_active = 2\nsession_lifetime = \"2d\"\n\
                        transfers = [\"resumable\", \"simple\", \"signed_resumable\"]\n";

async fn broker() -> Broker {
    let storage = "credentials = { file = \"sa.json\" }".to_owned();
    Broker::start_with(Settings { policies: POLICIES.to_owned(), storage, ..Settings::default() }).await
}

fn path(created: &Answer) -> String {
    format!("/v1/uploads/{}", created.id())
}

fn is_there(broker: &Broker, created: &Answer) -> bool {
    broker.storage.object(BUCKET, &created.text("/object")).is_some()
}

/// How often storage was asked to do this.
fn asked(broker: &Broker, operation: Operation) -> usize {
    broker.storage.journal().since(0).iter().filter(|entry| entry.operation == operation).count()
}

async fn create(user: &User, kind: &str) -> Answer {
    let body = json!({"filename": "f", "content_type": "video/mp4", "size_bytes": 10, "transfer_kind": kind});
    user.create_from(body).await.is_upload(201, "pending")
}

/// The first request of a transfer, with exactly the headers that were told.
async fn send(user: &User, created: &Answer, bytes: Vec<u8>) -> reqwest::Response {
    let method: Method = created.text("/transfer/method").parse().unwrap();
    let mut request = user.client.request(method, created.uri()).header("content-length", bytes.len()).body(bytes);
    for (name, value) in created.body["transfer"]["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    request.send().await.unwrap()
}

async fn active(broker: &Broker, subject: &str) -> u64 {
    let policies = broker.user(subject).get("/v1/policies").await.is(200);
    let active = policies.body["policies"][0]["active"].clone();
    active.as_u64().unwrap_or_else(|| panic!("{}", policies.body))
}

#[tokio::test]
async fn an_upload_whose_client_never_came_back_is_completed() {
    let broker = broker().await;
    for kind in ["resumable", "simple"] {
        let ada = broker.user("ada");
        let created = create(&ada, kind).await;
        assert_eq!(send(&ada, &created, noise(10, 1)).await.status(), 200, "{kind}");
        assert_eq!(broker.sweep().await.due, 0, "{kind}: it is not due yet");
        broker.pass(IDLE);
        let round = broker.sweep().await;
        assert_eq!((round.due, round.failed), (1, 0), "{kind}");
        let found = broker.user("ada").get(&path(&created)).await.is_upload(200, "completed");
        assert_eq!(found.text("/result/evidence"), "sweep", "{kind}");
        broker.pass(DAY);
        assert_eq!(broker.sweep().await.due, 0, "{kind}: nothing is left to do");
    }
}

#[tokio::test]
async fn a_silent_upload_is_looked_at_and_its_progress_seen() {
    let broker = broker().await;
    let ada = broker.user("ada");
    let created = ada.create(600_000).await.is(201);
    ada.put(&created.uri(), Some("bytes 0-262143/600000"), noise(262_144, 1)).await;
    broker.pass(IDLE);
    broker.sweep().await;
    let seen = ada.get(&path(&created)).await.is_upload(200, "uploading");
    assert_eq!(seen.body["received_bytes"], 262_144);
    let looks = asked(&broker, Operation::Status);
    broker.pass(IDLE.saturating_sub(MINUTE));
    broker.sweep().await;
    assert_eq!(asked(&broker, Operation::Status), looks, "it is not asked about before it was silent again");
    broker.pass(MINUTE);
    broker.sweep().await;
    assert_eq!(asked(&broker, Operation::Status), looks + 1);
}

#[tokio::test]
async fn what_ran_out_expires_and_is_revoked_and_frees_what_it_held() {
    let broker = broker().await;
    let ada = broker.user("ada");
    let created = [create(&ada, "resumable").await, create(&ada, "simple").await];
    assert_eq!(active(&broker, "ada").await, 2);
    broker.pass(2 * DAY);
    let round = broker.sweep().await;
    assert_eq!((round.due, round.failed), (2, 0));
    for created in &created {
        broker.user("ada").get(&path(created)).await.is_upload(200, "expired");
    }
    assert_eq!(active(&broker, "ada").await, 0);
    assert_eq!(broker.storage.sessions(), 0);
}

#[tokio::test]
async fn what_outgrew_its_policy_is_stopped_soon() {
    let broker = broker().await;
    let ada = broker.user("ada");
    let created = ada.create_from(json!({"filename": "f", "content_type": "video/mp4"})).await.is(201);
    let size = 65 << 20;
    ada.put(&created.uri(), Some(&format!("bytes 0-{}/*", size - 1)), vec![0; size]).await;
    broker.pass(MINUTE);
    broker.sweep().await;
    let found = ada.get(&path(&created)).await.is_upload(200, "rejected");
    assert_eq!(found.text("/rejection/code"), "size-limit");
    assert_eq!(broker.storage.sessions(), 0);
}

/// A URL that was signed cannot be taken back, and what it writes comes after the end.
#[tokio::test]
async fn an_object_that_comes_after_the_end_is_deleted() {
    let broker = broker().await;
    let ada = broker.user("ada");
    let cancelled = create(&ada, "simple").await;
    ada.cancel(&cancelled.id()).await.is_upload(200, "cancelled");
    broker.pass(MINUTE);
    broker.sweep().await;
    assert_eq!(send(&ada, &cancelled, noise(10, 2)).await.status(), 200);
    assert!(is_there(&broker, &cancelled));
    broker.pass(15 * MINUTE);
    broker.sweep().await;
    assert!(!is_there(&broker, &cancelled));
    broker.user("ada").get(&path(&cancelled)).await.is_upload(200, "cancelled");
    broker.pass(2 * HOUR);
    broker.sweep().await;
    broker.pass(6 * DAY);
    assert_eq!(broker.sweep().await.due, 0, "nothing can come any more");
}

/// Nor can the sessions that a client opened with such a URL: they live for a week.
#[tokio::test]
async fn an_object_of_a_session_that_nobody_knew_is_deleted_days_later() {
    let broker = broker().await;
    let ada = broker.user("ada");
    let created = create(&ada, "signed_resumable").await;
    let opened = send(&ada, &created, Vec::new()).await;
    let session = opened.headers()["location"].to_str().unwrap().to_owned();
    ada.cancel(&created.id()).await.is_upload(200, "cancelled");
    for _ in 0..6 {
        broker.pass(DAY);
        assert_eq!(broker.sweep().await.failed, 0);
    }
    assert_eq!(ada.put(&session, None, noise(10, 3)).await, 200);
    assert!(is_there(&broker, &created));
    let looks = asked(&broker, Operation::Get);
    for _ in 0..3 {
        broker.pass(DAY.saturating_sub(MINUTE));
        broker.sweep().await;
    }
    assert!(!is_there(&broker, &created));
    assert!(asked(&broker, Operation::Get) - looks <= 3, "a look a day is enough");
    broker.pass(HOUR);
    assert_eq!(broker.sweep().await.due, 0, "the session's week is over");
}

#[tokio::test]
async fn an_object_that_storage_holds_back_is_not_asked_for_for_ever() {
    let broker = broker().await;
    let ada = broker.user("ada");
    let created = create(&ada, "simple").await;
    ada.cancel(&created.id()).await.is_upload(200, "cancelled");
    send(&ada, &created, noise(10, 4)).await;
    for _ in 0..100 {
        broker.storage.faults().add(Fault::once(Operation::Delete, Action::Respond(Reply::status(403))));
    }
    for _ in 0..100 {
        broker.pass(HOUR);
        broker.sweep().await;
    }
    assert!(is_there(&broker, &created));
    assert!((1..=5).contains(&asked(&broker, Operation::Delete)), "{}", asked(&broker, Operation::Delete));
}

#[tokio::test]
async fn what_fails_is_due_again_and_harms_nothing_else() {
    let broker = broker().await;
    let ada = broker.user("ada");
    let created = create(&ada, "resumable").await;
    send(&ada, &created, noise(10, 5)).await;
    broker.pass(IDLE);
    for _ in 0..30 {
        broker.storage.faults().add(Fault::once(Operation::Status, Action::Respond(Reply::status(503))));
    }
    let round = broker.sweep().await;
    assert_eq!((round.due, round.failed), (1, 1));
    assert_eq!(round.oldest, Duration::ZERO);
    broker.storage.faults().clear();
    assert_eq!(broker.sweep().await.due, 0, "its claim lasts");
    broker.pass(2 * MINUTE);
    let round = broker.sweep().await;
    assert_eq!((round.due, round.failed), (1, 0));
    ada.get(&path(&created)).await.is_upload(200, "completed");
}

/// However many sweep, and whatever they do at the same time, each upload ends once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sweepers_end_each_upload_once() {
    let Some(server) = redis::start().await else { return };
    let settings = || Settings { store: server.url(), ..Settings::default() };
    let one = Broker::start_with(settings()).await;
    let other = Broker::start_beside(one.storage.clone(), one.clock.clone(), settings()).await;
    let mut uploads = Vec::new();
    for number in 0..60 {
        let user = one.user(&format!("user-{number}"));
        let created = user.create(10).await.is(201);
        if number % 3 != 0 {
            assert_eq!(user.put(&created.uri(), None, noise(10, number)).await, 200);
        }
        uploads.push((number, created));
    }
    one.pass(DAY);
    let (first, second) = tokio::join!(one.sweep(), other.sweep());
    assert_eq!((first.failed, second.failed), (0, 0));
    for (number, created) in &uploads {
        let state = if number % 3 == 0 { "expired" } else { "completed" };
        other.user(&format!("user-{number}")).get(&path(created)).await.is_upload(200, state);
    }
    let mut ended = 0;
    for broker in [&one, &other] {
        let metrics = broker.operator_get("/metrics").await.1;
        let counts = metrics.lines().filter(|line| line.starts_with("upload_broker_uploads_ended_total{"));
        ended += counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum::<u32>();
    }
    assert_eq!(ended, 60, "each end is counted where it was recorded, and nowhere else");
    assert_eq!(one.storage.sessions(), 0);
    let checks = uploads.iter().map(|(number, _)| {
        let user = one.user(&format!("user-{number}"));
        async move { user.get("/v1/policies").await.is(200).body["policies"][0]["active"].clone() }
    });
    for left in join_all(checks.collect::<Vec<_>>()).await {
        assert_eq!(left, 0);
    }
}
