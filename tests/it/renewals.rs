//! Sessions that are lost, and the ones that take their place.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;
use upload_broker::emulator::faults::{Action, Fault, Reply};
use upload_broker::emulator::journal::Operation;

use crate::support::user::Answer;
use crate::support::{BUCKET, Broker, Settings, User, join_all, noise};

async fn renew(user: &User, id: &str) -> Answer {
    user.call(Method::POST, &format!("/v1/uploads/{id}/renew"), None).await
}

/// What the user has of the one policy: uploads under way, and bytes.
async fn used(user: &User) -> (String, String) {
    let policies = user.get("/v1/policies").await.is(200);
    (policies.text("/policies/0/active"), policies.text("/policies/0/bytes_today"))
}

#[tokio::test]
async fn a_lost_session_is_replaced_and_counted_once() {
    const SIZE: usize = 300_000;
    for (name, loss, status) in
        [("forgotten", Action::ForgetSession, 404), ("ended before its time", Action::KillSession, 410)]
    {
        let broker = Broker::start().await;
        let ada = broker.user("ada");
        let created = ada.create(SIZE as u64).await.is(201);
        let bytes = noise(SIZE, 5);
        let first = ada.put(&created.uri(), Some("bytes 0-262143/300000"), bytes[..262_144].to_vec()).await;
        assert_eq!(first, 308, "{name}");
        broker.storage.faults().add(Fault::once(Operation::Chunk, loss));
        let rest = ada.put(&created.uri(), Some("bytes 262144-299999/300000"), bytes[262_144..].to_vec()).await;
        assert_eq!(rest, status, "{name}");
        ada.complete(&created.id()).await.is_problem(409, "session-lost");

        let before = used(&ada).await;
        let renewed = renew(&ada, &created.id()).await.is_upload(200, "pending");
        assert_eq!(used(&ada).await, before, "{name}: counted twice");
        for same in ["/id", "/object", "/created_at", "/expires_at"] {
            assert_eq!(renewed.text(same), created.text(same), "{name}");
        }
        assert_eq!(renewed.text("/received_bytes"), "0", "{name}");
        assert_ne!(renewed.uri(), created.uri(), "{name}");
        assert_eq!(ada.put(&renewed.uri(), None, bytes.clone()).await, 200, "{name}");
        ada.complete(&created.id()).await.is_upload(200, "completed");
        let object = broker.storage.object(BUCKET, &created.text("/object")).unwrap();
        assert_eq!(object.bytes.as_deref(), Some(&bytes[..]), "{name}");
    }
}

#[tokio::test]
async fn a_session_that_works_is_cancelled_before_another_one_is_opened() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    let renewed = renew(&ada, &created.id()).await.is_upload(200, "pending");
    assert_eq!(ada.put(&created.uri(), None, noise(10, 1)).await, 499, "the old one takes nothing more");
    assert_eq!(broker.storage.sessions(), 1);
    let operations: Vec<Operation> = broker.storage.journal().since(0).iter().map(|entry| entry.operation).collect();
    let at = |operation| operations.iter().rposition(|seen| *seen == operation).unwrap();
    assert!(operations.iter().position(|seen| *seen == Operation::Cancel).unwrap() < at(Operation::Initiate));
    assert_eq!(ada.put(&renewed.uri(), None, noise(10, 1)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
}

#[tokio::test]
async fn a_session_that_had_finished_is_believed() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    assert_eq!(ada.put(&created.uri(), None, noise(10, 1)).await, 200);
    let renewed = renew(&ada, &created.id()).await.is_upload(200, "completed");
    assert!(renewed.body.get("transfer").is_none());
    assert_eq!(broker.storage.sessions(), 0);

    // Also where only the object is left to tell of it.
    let created = ada.create(10).await.is(201);
    assert_eq!(ada.put(&created.uri(), None, noise(10, 1)).await, 200);
    broker.storage.faults().add(Fault::once(Operation::Status, Action::ForgetSession));
    renew(&ada, &created.id()).await.is_upload(200, "completed");
}

#[tokio::test]
async fn what_is_over_is_not_renewed() {
    let broker = Broker::start().await;
    let (ada, bob) = (broker.user("ada"), broker.user("bob"));
    let created = ada.create(10).await.is(201);
    renew(&bob, &created.id()).await.is_problem(404, "not-found");
    renew(&ada, &"0".repeat(34)).await.is_problem(404, "not-found");
    ada.cancel(&created.id()).await.is_upload(200, "cancelled");
    renew(&ada, &created.id()).await.is_problem(409, "invalid-state");

    let done = ada.create(10).await.is(201);
    assert_eq!(ada.put(&done.uri(), None, noise(10, 1)).await, 200);
    ada.complete(&done.id()).await.is_upload(200, "completed");
    renew(&ada, &done.id()).await.is_problem(409, "invalid-state");

    let late = ada.create(10).await.is(201);
    broker.clock.advance(Duration::from_secs(24 * 3600));
    renew(&broker.user("ada"), &late.id()).await.is_problem(409, "invalid-state");
    assert_eq!(broker.storage.sessions(), 0, "and nothing is left open");
}

/// A session answers one web origin, so a page of another one needs a session of its own.
#[tokio::test]
async fn the_origin_of_the_renewal_is_the_one_that_counts() {
    let origins = ["https://app.example.com", "https://beta.example.com"].map(str::to_owned).to_vec();
    let broker = Broker::start_with(Settings { origins, ..Settings::default() }).await;
    let page = |origin| broker.user("ada").with("origin", origin);
    let (first, second) = (page("https://app.example.com"), page("https://beta.example.com"));
    let created = first.create(10).await.is(201);
    let renewed = renew(&second, &created.id()).await.is_upload(200, "pending");
    let status = second.client.put(renewed.uri()).header("content-length", "0").header("content-range", "bytes */*");
    let granted = status.send().await.unwrap().headers().get("access-control-allow-origin").cloned();
    assert_eq!(granted, Some(HeaderValue::from_static("https://beta.example.com")));
    let stranger = renew(&page("https://evil.example.com"), &created.id()).await.is_upload(200, "pending");
    let status = second.client.put(stranger.uri()).header("content-length", "0").header("content-range", "bytes */*");
    assert_eq!(status.send().await.unwrap().headers().get("access-control-allow-origin"), None);
}

#[tokio::test]
async fn of_many_renewals_at_once_one_session_is_left() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    for round in 0..5 {
        let created = ada.create(10).await.is(201);
        let answers = join_all((0..8).map(|_| {
            let (ada, id) = (ada.clone(), created.id());
            async move { renew(&ada, &id).await }
        }))
        .await;
        for answer in answers {
            assert!(matches!(answer.status, 200 | 503), "round {round}: {answer:?}");
        }
        assert_eq!(broker.storage.sessions(), 1, "round {round}");
        let left = ada.get(&format!("/v1/uploads/{}", created.id())).await.is_upload(200, "pending");
        assert_eq!(ada.put(&left.uri(), None, noise(10, 1)).await, 200, "round {round}");
        ada.complete(&created.id()).await.is_upload(200, "completed");
    }
}

#[tokio::test]
async fn a_cancel_and_a_renewal_at_once_leave_nothing_open() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    for round in 0..20 {
        let created = ada.create(10).await.is(201);
        let id = created.id();
        let (cancelled, renewed) = tokio::join!(ada.cancel(&id), renew(&ada, &id));
        assert!(matches!(cancelled.status, 200 | 503), "round {round}: {cancelled:?}");
        assert!(matches!(renewed.status, 200 | 409 | 503), "round {round}: {renewed:?}");
        ada.cancel(&id).await.is_upload(200, "cancelled");
        assert_eq!(broker.storage.sessions(), 0, "round {round}");
        assert_eq!(used(&ada).await, ("0".to_owned(), "0".to_owned()), "round {round}");
    }
}

#[tokio::test]
async fn a_renewal_that_fails_can_be_made_again() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    let refuse = |operation, status| Fault::once(operation, Action::Respond(Reply::status(status)));
    broker.storage.faults().add(refuse(Operation::Initiate, 403));
    renew(&ada, &created.id()).await.is_problem(502, "storage-error");
    let path = format!("/v1/uploads/{}", created.id());
    ada.get(&path).await.is_upload(200, "pending");
    assert_eq!(used(&ada).await.0, "1", "it still is under way");
    let renewed = renew(&ada, &created.id()).await.is_upload(200, "pending");
    assert_eq!(ada.put(&renewed.uri(), None, noise(10, 1)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
}

/// To be told that the session is lost, the client would renew once more, and cancel the session that works.
#[tokio::test]
async fn who_asked_the_old_session_is_told_of_the_new_one() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    for by in ["complete", "refresh"] {
        let created = ada.create(10).await.is(201);
        broker.storage.faults().add(Fault::once(Operation::Status, Action::Hold));
        let asking = tokio::spawn({
            let (ada, id) = (ada.clone(), created.id());
            async move { if by == "complete" { ada.complete(&id).await } else { ada.look(&id).await } }
        });
        while !broker.storage.faults().list().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let renewed = renew(&ada, &created.id()).await.is_upload(200, "pending");
        broker.storage.faults().release();
        let told = asking.await.unwrap();
        if by == "complete" {
            told.is_problem(409, "not-complete");
        } else {
            assert_eq!(told.is_upload(200, "pending").uri(), renewed.uri());
        }
        assert_eq!(ada.put(&renewed.uri(), None, noise(10, 1)).await, 200, "{by}");
        ada.complete(&created.id()).await.is_upload(200, "completed");
    }
}

/// Metadata and the rest are told to storage again.
#[tokio::test]
async fn the_object_of_a_renewed_upload_is_made_as_the_first_would_have_been() {
    let policies = "[[policies]]\nname = \"videos\"\nobject = \"videos/{id}\"\nmetadata = { source = \"mobile\" }\n\
                    cache_control = \"private\"\n";
    let broker = Broker::start_with(Settings { policies: policies.to_owned(), ..Settings::default() }).await;
    let ada = broker.user("ada");
    let body = json!({"filename": "f", "content_type": "video/mp4", "size_bytes": 10, "metadata": {"album": "Süden"}});
    let created = ada.create_from(body).await.is(201);
    let renewed = renew(&ada, &created.id()).await.is(200);
    assert_eq!(ada.put(&renewed.uri(), None, noise(10, 1)).await, 200);
    let object = broker.storage.object(BUCKET, &created.text("/object")).unwrap();
    let metadata: Vec<(&str, &str)> = object.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    let id = created.id();
    assert_eq!(metadata, [("album", "Süden"), ("source", "mobile"), ("upload-broker-id", &*id)]);
    let address = format!("{}/storage/v1/b/{BUCKET}/o/{}", broker.storage.url(), object_path(&created));
    let resource = ada.client.get(address).bearer_auth("any").send().await.unwrap().text().await.unwrap();
    assert!(resource.contains("\"cacheControl\":\"private\""), "{resource}");
}

fn object_path(created: &Answer) -> String {
    created.text("/object").replace('/', "%2F")
}
