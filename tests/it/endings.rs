//! How uploads end, where storage, the store or the client make that hard.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use upload_broker::clock::Clock;
use upload_broker::emulator::faults::{Action, Fault, Reply};
use upload_broker::emulator::journal::Operation;

use crate::support::broker::configuration;
use crate::support::process::Process;
use crate::support::user::{Answer, request};
use crate::support::{BUCKET, Broker, Settings, User, noise, redis};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A policy whose uploads all have one name and replace each other. Unknown sizes let broken objects come about.
async fn replacing() -> Broker {
    let policies = "[[policies]]\nname = \"latest\"\nobject = \"latest/{sub}\"\noverwrite = true\n\
                    unknown_size = true\nmin_size = 5\nmax_size = 100\n";
    Broker::start_with(Settings { policies: policies.to_owned(), ..Settings::default() }).await
}

/// A broker whose uploads have names of their own, and one where they share one.
async fn both() -> [(&'static str, Broker); 2] {
    let policies = "[[policies]]\nname = \"own\"\nobject = \"own/{id}\"\nunknown_size = true\nmax_size = 100\n";
    let own = Broker::start_with(Settings { policies: policies.to_owned(), ..Settings::default() }).await;
    [("a name of its own", own), ("a name for all", replacing().await)]
}

/// Creates an upload of unknown size.
async fn create_unsized(user: &User) -> Answer {
    user.create_from(json!({"filename": "f", "content_type": "video/mp4"})).await.is(201)
}

/// Sends everything at once, and writes over the mark that tells whose object it is.
async fn put_unmarked(user: &User, uri: &str, bytes: Vec<u8>) -> StatusCode {
    let request = user.client.put(uri).header("x-goog-meta-upload-broker-id", "nobody").body(bytes);
    request.send().await.unwrap().status()
}

fn is_there(broker: &Broker, created: &Answer) -> bool {
    broker.storage.object(BUCKET, &created.text("/object")).is_some()
}

/// Deletes the object behind the broker's back.
async fn remove_object(broker: &Broker, created: &Answer) {
    let name = created.text("/object").replace('/', "%2F");
    let address = format!("{}/storage/v1/b/{BUCKET}/o/{name}", broker.storage.url());
    let client = broker.user("nobody").client;
    let response = client.delete(address).bearer_auth("any").header("content-length", "0").send().await.unwrap();
    assert_eq!(response.status(), 204);
}

fn path(created: &Answer) -> String {
    format!("/v1/uploads/{}", created.id())
}

fn always(operation: Operation, status: u16) -> Fault {
    Fault { count: None, ..Fault::once(operation, Action::Respond(Reply::status(status))) }
}

/// Waits until every fault has met its call.
async fn all_met(broker: &Broker) {
    while !broker.storage.faults().list().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_completed() {
    for (name, broker) in both().await {
        let ada = broker.user("ada");
        let created = create_unsized(&ada).await;
        assert_eq!(ada.put(&created.uri(), None, noise(10, 1)).await, 200);
        remove_object(&broker, &created).await;
        let told = ada.complete(&created.id()).await.is_problem(409, "session-lost");
        assert!(!is_there(&broker, &created), "{name}: {told:?}");
        ada.cancel(&created.id()).await.is_upload(200, "cancelled");
    }
}

/// As if the broker had died between the deletion of a broken object and the record of it.
#[tokio::test]
async fn a_broken_object_that_is_gone_already_is_rejected_whoever_ends_the_upload() {
    for (name, broker) in both().await {
        for end in ["complete", "cancel", "time"] {
            let ada = broker.user("ada");
            let created = create_unsized(&ada).await;
            assert_eq!(ada.put(&created.uri(), None, noise(101, 2)).await, 200);
            remove_object(&broker, &created).await;
            let ended = match end {
                "complete" => ada.complete(&created.id()).await,
                "cancel" => ada.cancel(&created.id()).await,
                _ => {
                    broker.clock.advance(DAY);
                    broker.user("ada").get(&path(&created)).await
                }
            };
            assert_eq!((name, end, &*ended.text("/state")), (name, end, "rejected"));
        }
    }
}

#[tokio::test]
async fn an_object_without_its_mark_is_judged_all_the_same() {
    let broker = replacing().await;
    for (name, size, end, expected) in [
        ("kept, completed", 10, "complete", "completed"),
        ("kept, cancelled", 10, "cancel", "completed"),
        ("broken, completed", 101, "complete", "rejected"),
        ("broken, cancelled", 101, "cancel", "rejected"),
    ] {
        let ada = broker.user("ada");
        let created = create_unsized(&ada).await;
        assert_eq!(put_unmarked(&ada, &created.uri(), noise(size, 3)).await, 200, "{name}");
        let ended = match end {
            "complete" => ada.complete(&created.id()).await,
            _ => ada.cancel(&created.id()).await,
        };
        assert_eq!(ended.is(200).text("/state"), expected, "{name}");
        assert_eq!(is_there(&broker, &created), expected == "completed", "{name}");
    }
}

/// The last byte arrives between the look at the session and its cancellation.
#[tokio::test]
async fn an_object_without_its_mark_that_wins_over_the_cancel_counts() {
    let broker = replacing().await;
    let ada = broker.user("ada");
    let created = create_unsized(&ada).await;
    broker.storage.faults().add(Fault::once(Operation::Cancel, Action::Hold));
    let cancelling = tokio::spawn({
        let (ada, id) = (ada.clone(), created.id());
        async move { ada.cancel(&id).await }
    });
    all_met(&broker).await;
    assert_eq!(put_unmarked(&ada, &created.uri(), noise(10, 4)).await, 200);
    broker.storage.faults().release();
    cancelling.await.unwrap().is_upload(200, "completed");
}

#[tokio::test]
async fn an_upload_whose_object_was_replaced_is_completed_by_its_own() {
    let broker = replacing().await;
    let ada = broker.user("ada");
    let (first, second) = (create_unsized(&ada).await, create_unsized(&ada).await);
    ada.put(&first.uri(), None, noise(10, 5)).await;
    let generation = broker.storage.object(BUCKET, &first.text("/object")).unwrap().generation;
    ada.put(&second.uri(), None, noise(20, 6)).await;
    let completed = ada.complete(&first.id()).await.is_upload(200, "completed");
    assert_eq!(completed.text("/result/generation"), generation.to_string());
    assert_eq!(completed.text("/result/size_bytes"), "10");
    let live = ada.complete(&second.id()).await.is_upload(200, "completed");
    assert_eq!(live.text("/result/size_bytes"), "20");

    // Also when its owner cancels.
    let (cancelled, successor) = (create_unsized(&ada).await, create_unsized(&ada).await);
    ada.put(&cancelled.uri(), None, noise(10, 5)).await;
    ada.put(&successor.uri(), None, noise(20, 6)).await;
    ada.cancel(&cancelled.id()).await.is_upload(200, "completed");

    // And the rejection of a replaced one leaves its successor alone.
    let rejected = create_unsized(&ada).await;
    ada.put(&rejected.uri(), None, noise(101, 7)).await;
    let third = create_unsized(&ada).await;
    ada.put(&third.uri(), None, noise(30, 8)).await;
    ada.complete(&rejected.id()).await.is_upload(200, "rejected");
    assert_eq!(broker.storage.object(BUCKET, &third.text("/object")).unwrap().size, 30);
}

#[tokio::test]
async fn a_refused_cancel_ends_the_upload_unless_its_session_lives() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let (open, finished, gone) =
        (ada.create(10).await.is(201), ada.create(10).await.is(201), ada.create(10).await.is(201));
    ada.put(&finished.uri(), None, noise(10, 9)).await;
    ada.client.delete(gone.uri()).header("content-length", "0").send().await.unwrap();
    broker.storage.faults().add(always(Operation::Cancel, 403));
    ada.cancel(&open.id()).await.is_problem(502, "storage-error");
    ada.get(&path(&open)).await.is_upload(200, "pending");
    ada.cancel(&finished.id()).await.is_upload(200, "completed");
    ada.cancel(&gone.id()).await.is_upload(200, "cancelled");
    broker.storage.faults().clear();

    // A session that cannot be asked is cancelled all the same, and the object decides.
    broker.storage.faults().add(always(Operation::Status, 403));
    ada.cancel(&open.id()).await.is_upload(200, "cancelled");
    assert_eq!(broker.storage.sessions(), 0);
}

#[tokio::test]
async fn a_broken_object_that_storage_holds_is_rejected_and_stays() {
    let broker = replacing().await;
    let ada = broker.user("ada");
    let created = create_unsized(&ada).await;
    ada.put(&created.uri(), None, noise(101, 10)).await;
    broker.storage.faults().add(always(Operation::Delete, 503));
    ada.complete(&created.id()).await.is_problem(503, "storage-unavailable");
    ada.get(&path(&created)).await.is_upload(200, "pending");
    broker.storage.faults().clear();
    broker.storage.faults().add(always(Operation::Delete, 403));
    let rejected = ada.complete(&created.id()).await.is_upload(200, "rejected");
    assert_eq!(rejected.text("/rejection/code"), "size-limit");
    assert!(is_there(&broker, &created));
}

#[tokio::test]
async fn an_unknown_size_is_held_to_both_bounds() {
    let broker = replacing().await;
    for (size, expected) in [(4, "rejected"), (5, "completed"), (100, "completed"), (101, "rejected")] {
        let ada = broker.user("ada");
        let created = create_unsized(&ada).await;
        ada.put(&created.uri(), None, noise(size, 11)).await;
        let ended = ada.complete(&created.id()).await.is_upload(200, expected);
        if expected == "rejected" {
            assert_eq!(ended.text("/rejection/code"), "size-limit", "{size}");
        }
        assert_eq!(is_there(&broker, &created), expected == "completed", "{size}");
    }
}

/// Between the two, a broker can die; and without what it had, a dead session tells nobody why it is dead.
#[tokio::test]
async fn what_outgrew_its_limit_is_rejected_by_anybody_once_its_session_is_revoked() {
    for (name, broker) in both().await {
        let ada = broker.user("ada");
        let created = create_unsized(&ada).await;
        let size = 256 * 1024;
        ada.put(&created.uri(), Some(&format!("bytes 0-{}/*", size - 1)), noise(size, 14)).await;
        broker.storage.faults().add(Fault::once(Operation::Cancel, Action::ActThenHold));
        let (first, id) = (ada.clone(), created.id());
        let revoking = tokio::spawn(async move { first.complete(&id).await });
        all_met(&broker).await;
        let rejected = ada.complete(&created.id()).await;
        assert_eq!((rejected.status, rejected.text("/state")), (200, "rejected".to_owned()), "{name}: {rejected:?}");
        assert_eq!(rejected.text("/rejection/code"), "size-limit", "{name}");
        broker.storage.faults().release();
        assert_eq!(revoking.await.unwrap().is(200).body, rejected.body, "{name}");
        assert_eq!(broker.storage.sessions(), 0, "{name}");
    }
}

#[tokio::test]
async fn an_upload_whose_time_is_over_is_shown_without_a_session_while_storage_is_away() {
    let broker = Broker::start().await;
    let created = broker.user("ada").create(10).await.is(201);
    let listed = broker.user("ada").get("/v1/uploads").await.is(200);
    assert_eq!(listed.text("/uploads/0/transfer/uri"), created.uri());

    for operation in [Operation::Status, Operation::Cancel] {
        broker.storage.faults().add(always(operation, 503));
    }
    broker.clock.advance(DAY);
    let ada = broker.user("ada");
    let shown = ada.get(&path(&created)).await.is_upload(200, "pending");
    assert!(shown.body.get("transfer").is_none(), "{}", shown.body);
    let listed = ada.get("/v1/uploads").await.is(200);
    assert_eq!(listed.text("/uploads/0/id"), created.id());
    assert!(listed.body.pointer("/uploads/0/transfer").is_none(), "{}", listed.body);
    ada.look(&created.id()).await.is_problem(503, "storage-unavailable");

    broker.storage.faults().clear();
    ada.get(&path(&created)).await.is_upload(200, "expired");
}

#[tokio::test]
async fn a_replay_after_the_upload_s_time_hands_out_no_session() {
    let policies = "[[policies]]\nname = \"short\"\nobject = \"short/{id}\"\nsession_lifetime = \"1h\"\n".to_owned();
    let broker = Broker::start_with(Settings { policies, ..Settings::default() }).await;
    let keyed = |key| broker.user("ada").with("idempotency-key", key);
    let (first, second) = (keyed("first").create(10).await.is(201), keyed("second").create(10).await.is(201));
    broker.clock.advance(Duration::from_secs(3600));

    let replayed = keyed("first").create(10).await.is_upload(201, "expired");
    assert_eq!((replayed.id(), replayed.header("idempotent-replayed")), (first.id(), Some("true")));
    assert!(replayed.body.get("transfer").is_none(), "{}", replayed.body);
    assert!(broker.user("ada").put(&first.uri(), None, noise(10, 12)).await.is_client_error());

    broker.storage.faults().add(always(Operation::Status, 503));
    let replayed = keyed("second").create(10).await.is_upload(201, "pending");
    assert_eq!(replayed.id(), second.id());
    assert!(replayed.body.get("transfer").is_none(), "{}", replayed.body);
}

#[tokio::test]
async fn a_session_that_comes_after_the_cancel_is_revoked() {
    let broker = Broker::start().await;
    broker.storage.faults().add(Fault::once(Operation::Initiate, Action::Hold));
    let ada = broker.user("ada");
    let creating = tokio::spawn({
        let ada = ada.clone();
        async move { ada.create_from(request(10)).await }
    });
    all_met(&broker).await;
    let listed = ada.get("/v1/uploads").await.is(200);
    ada.cancel(&listed.text("/uploads/0/id")).await.is_upload(200, "cancelled");
    broker.storage.faults().release();
    let answer = creating.await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(broker.storage.journal().count(Operation::Initiate), 1);
    assert_eq!(broker.storage.sessions(), 0, "a session that nobody knows is alive");
}

/// Redis says nothing for longer than the broker waits for an answer, and then does all that it was asked.
#[tokio::test]
async fn a_lost_answer_to_the_recording_of_a_session_is_asked_for_again() {
    let Some(redis) = redis::start().await else { return };
    let broker = Broker::start_with(Settings { store: redis.url(), ..Settings::default() }).await;
    broker.storage.faults().add(Fault::once(Operation::Initiate, Action::Hold));
    let ada = broker.user("ada");
    let creating = tokio::spawn({
        let ada = ada.clone();
        async move { ada.create(10).await }
    });
    all_met(&broker).await;
    redis.pause(Duration::from_secs(3)).await;
    broker.storage.faults().release();
    let created = creating.await.unwrap().is_upload(201, "pending");
    assert_eq!(ada.put(&created.uri(), None, noise(10, 13)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
}

/// A creation goes on when its client is gone, and its log lines still name the request.
#[tokio::test]
async fn what_a_creation_logs_names_its_request() {
    let (_storage, storage) = Process::emulator();
    let folder = TempDir::new().unwrap();
    let policies = "[[policies]]\nname = \"small\"\nobject = \"{id}\"\nmax_size = 1\nreport_only = true\n".to_owned();
    let config = folder.path().join("broker.toml");
    let settings = Settings { policies, ..Settings::default() };
    std::fs::write(&config, configuration(folder.path(), &storage, &settings)).unwrap();
    let (broker, address, _) = Process::serve(&config, "upload_broker=debug");
    let created = User::new(format!("http://{address}"), "ada", Clock::System.now()).create(10).await.is(201);
    let line = broker.line_with("the policy would refuse this upload");
    let id = created.header("x-request-id").unwrap();
    assert!(serde_json::from_str::<Value>(&line).is_ok() && line.contains(id), "{line}");
}
