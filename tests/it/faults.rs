//! Storage and Redis failing, on purpose.

use std::time::{Duration, Instant};

use upload_broker::emulator::faults::{Action, Fault, Reply};
use upload_broker::emulator::journal::Operation;

use crate::support::{Broker, Settings, noise, redis};

fn tight() -> Settings {
    let policies = "[[policies]]\nname = \"videos\"\nobject = \"videos/{sub}/{id}\"\nmax_active = 1\n".to_owned();
    Settings { policies, ..Settings::default() }
}

/// What storage can do to an initiation, and what the client is told. `max_active` is 1: whatever fails must free it.
#[tokio::test]
async fn a_failed_initiation_is_told_and_its_reservation_freed() {
    let fails = |action: Action| Fault { count: None, ..Fault::once(Operation::Initiate, action) };
    let status = |status| Action::Respond(Reply::status(status));
    for (name, fault, expected) in [
        ("refused", fails(status(400)), (502, "storage-error")),
        ("forbidden", fails(status(403)), (502, "storage-error")),
        ("no such bucket", fails(status(404)), (502, "storage-error")),
        ("down, and then silent", fails(Action::Hold), (503, "storage-unavailable")),
        ("down", fails(status(503)), (503, "storage-unavailable")),
        ("busy", fails(status(429)), (503, "storage-unavailable")),
        ("cut", fails(Action::Reset), (503, "storage-unavailable")),
        ("silent", fails(Action::Hold), (504, "storage-timeout")),
        ("without Location", fails(Action::OmitLocation), (502, "storage-error")),
        ("elsewhere", fails(Action::WrongLocation { host: "evil.example.com".to_owned() }), (502, "storage-error")),
    ] {
        let broker = Broker::start_with(tight()).await;
        if name == "down, and then silent" {
            broker.storage.faults().add(Fault::once(Operation::Initiate, status(503)));
        }
        broker.storage.faults().add(fault);
        let answer = broker.user("ada").create(10).await;
        let told = (answer.status, answer.text("/code"));
        assert_eq!(told, (expected.0, expected.1.to_owned()), "{name}");
        assert!(!answer.body.to_string().contains("evil"), "{name}: {}", answer.body);
        broker.storage.faults().clear();
        broker.user("ada").create(10).await.is(201);
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again() {
    for (name, action, tries) in [
        ("503", Action::Respond(Reply::status(503)), 2),
        ("429", Action::Respond(Reply::status(429)), 2),
        ("408", Action::Respond(Reply::status(408)), 2),
        ("a reset", Action::Reset, 2),
        ("a lost answer", Action::ActThenReset, 2),
        ("401, once", Action::Respond(Reply::status(401)), 2),
    ] {
        let broker = Broker::start().await;
        broker.storage.faults().add(Fault::once(Operation::Initiate, action));
        let created = broker.user("ada").create(10).await.is(201);
        assert_eq!(broker.storage.journal().count(Operation::Initiate), tries, "{name}");
        assert_eq!(broker.user("ada").put(&created.uri(), None, noise(10, 1)).await, 200, "{name}");
        broker.user("ada").complete(&created.id()).await.is_upload(200, "completed");
    }
}

#[tokio::test]
async fn nothing_is_final_while_storage_cannot_be_asked() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    ada.put(&created.uri(), None, noise(10, 2)).await;
    let down = |operation| Fault { count: None, ..Fault::once(operation, Action::Respond(Reply::status(503))) };
    for operation in [Operation::Status, Operation::Cancel, Operation::Get] {
        broker.storage.faults().add(down(operation));
    }
    ada.complete(&created.id()).await.is_problem(503, "storage-unavailable");
    ada.cancel(&created.id()).await.is_problem(503, "storage-unavailable");
    ada.look(&created.id()).await.is_problem(503, "storage-unavailable");
    ada.get(&format!("/v1/uploads/{}", created.id())).await.is_upload(200, "pending");
    broker.storage.faults().clear();
    ada.complete(&created.id()).await.is_upload(200, "completed");
}

#[tokio::test]
async fn without_redis_nothing_is_opened_and_with_it_everything_goes_on() {
    let Some(mut redis) = redis::start().await else { return };
    let broker = Broker::start_with(Settings { store: redis.url(), ..Settings::default() }).await;
    let ada = broker.user("ada");
    ada.create(10).await.is(201);
    let opened = broker.storage.journal().count(Operation::Initiate);

    redis.kill();
    for _ in 0..5 {
        let begun = Instant::now();
        ada.create(10).await.is_problem(503, "store-unavailable");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    assert_eq!(broker.storage.journal().count(Operation::Initiate), opened, "a session was opened for nothing");
    let (status, reason) = broker.operator_get("/readyz").await;
    assert_eq!(status, 503);
    assert!(reason.contains("the store"), "{reason}");

    redis.restart().await;
    ada.create(10).await.is(201);
    assert_eq!(broker.operator_get("/readyz").await.0, 200);
}

/// Redis stops in the one moment in which a session exists that it does not know of.
#[tokio::test]
async fn a_redis_that_stops_while_storage_works_gives_the_session_to_nobody_but_its_owner() {
    let Some(redis) = redis::start().await else { return };
    let broker = Broker::start_with(Settings { store: redis.url(), ..tight() }).await;
    broker.storage.faults().add(Fault::once(Operation::Initiate, Action::ActThenHold));
    let keyed = broker.user("ada").with("idempotency-key", "once");
    let creating = tokio::spawn({
        let keyed = keyed.clone();
        async move { keyed.create(10).await }
    });
    broker.storage.journal().wait_for(|entry| entry.operation == Operation::Initiate).await;
    assert_eq!(broker.storage.sessions(), 1);
    redis.signal("STOP");
    broker.storage.faults().release();
    let refused = creating.await.unwrap().is_problem(503, "store-unavailable");
    assert!(!refused.body.to_string().contains("upload_id"), "{}", refused.body);
    redis.signal("CONT");
    broker.ready().await;

    // Whether the record came to be is open; the owner's key leads to one working session either way.
    let mut repeated = keyed.create(10).await;
    if repeated.status != 201 {
        repeated.is_problem(409, "idempotency-in-progress");
        broker.clock.advance(Duration::from_secs(60));
        repeated = keyed.create(10).await;
    }
    let created = repeated.is(201);
    broker.user("ada").create(10).await.is_problem(429, "quota-exceeded");
    assert_eq!(keyed.put(&created.uri(), None, noise(10, 5)).await, 200);
    keyed.complete(&created.id()).await.is_upload(200, "completed");
    broker.user("ada").create(10).await.is(201);
}

/// As above, but what Redis was to be told is lost for certain: it takes no writes for that long.
#[tokio::test]
async fn a_session_that_could_not_be_recorded_is_known_to_nobody_and_its_reservation_ends_with_the_lease() {
    let Some(redis) = redis::start().await else { return };
    let broker = Broker::start_with(Settings { store: redis.url(), ..tight() }).await;
    broker.storage.faults().add(Fault::once(Operation::Initiate, Action::ActThenHold));
    let ada = broker.user("ada");
    let creating = tokio::spawn({
        let ada = ada.clone();
        async move { ada.create(10).await }
    });
    broker.storage.journal().wait_for(|entry| entry.operation == Operation::Initiate).await;
    assert_eq!(broker.storage.sessions(), 1);
    redis.set("min-replicas-to-write", "1").await;
    broker.storage.faults().release();
    let refused = creating.await.unwrap().is_problem(503, "store-unavailable");
    assert!(!refused.body.to_string().contains("upload_id"), "{}", refused.body);
    redis.set("min-replicas-to-write", "0").await;

    // Nobody can get at the session, and it counts as long as somebody could still come and record it.
    let listed = ada.get("/v1/uploads").await.is(200);
    assert!(!listed.body.to_string().contains("upload_id"), "{}", listed.body);
    ada.create(10).await.is_problem(429, "quota-exceeded");
    broker.clock.advance(Duration::from_secs(8));
    let created = ada.create(10).await.is(201);
    assert_eq!(broker.storage.sessions(), 2);
    assert_eq!(ada.put(&created.uri(), None, noise(10, 6)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
}

/// The same upload, from both sides at once, many times: one final state, and no object without a completed upload.
#[tokio::test]
async fn complete_and_cancel_at_once_end_in_one_final_state() {
    let Some(redis) = redis::start().await else { return };
    let broker = Broker::start_with(Settings { store: redis.url(), ..Settings::default() }).await;
    for round in 0..40 {
        let ada = broker.user("ada");
        let created = ada.create(10).await.is(201);
        let (id, uri) = (created.id(), created.uri());
        let (stored, cancelled, completed) =
            tokio::join!(ada.put(&uri, None, noise(10, round)), ada.cancel(&id), ada.complete(&id));
        let state = ada.get(&format!("/v1/uploads/{id}")).await.is(200).text("/state");
        assert!(["completed", "cancelled"].contains(&&*state), "{state}");
        assert_eq!(cancelled.text("/state"), state, "the cancel was told something else");
        if completed.status == 200 {
            assert_eq!(completed.text("/state"), state, "the client was told something else");
        }
        let object = broker.storage.object("media-eu", &created.text("/object"));
        if state == "completed" {
            assert!(object.is_some());
        } else {
            assert!(object.is_none(), "round {round}: stored with {stored}, and cancelled");
        }
    }
}
