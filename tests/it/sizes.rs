//! Uploads whose size nobody knows before their end.

use serde_json::json;
use upload_broker::emulator::journal::Operation;

use crate::support::user::Answer;
use crate::support::{BUCKET, Broker, Settings, User, noise};

/// What a stream may come to.
const MOST: u64 = 600_000;

async fn streaming() -> Broker {
    let policies = format!(
        "[[policies]]\nname = \"streams\"\nobject = \"streams/{{id}}\"\nunknown_size = true\nmin_size = 5\n\
         max_size = {MOST}\nmax_active = 2\ndaily_bytes = 1500000\n"
    );
    Broker::start_with(Settings { policies, ..Settings::default() }).await
}

async fn create(user: &User) -> Answer {
    user.create_from(json!({"filename": "f", "content_type": "video/mp4"})).await
}

async fn used(user: &User) -> (String, String) {
    let policies = user.get("/v1/policies").await.is(200);
    (policies.text("/policies/0/active"), policies.text("/policies/0/bytes_today"))
}

fn both(active: u32, bytes: u64) -> (String, String) {
    (active.to_string(), bytes.to_string())
}

#[tokio::test]
async fn the_most_is_reserved_and_the_true_size_settled() {
    let broker = streaming().await;
    let ada = broker.user("ada");
    let created = create(&ada).await.is(201);
    assert!(created.body.get("size_bytes").is_none());
    assert_eq!(used(&ada).await, both(1, MOST));
    let bytes = noise(300_000, 1);
    assert_eq!(ada.put(&created.uri(), Some("bytes 0-262143/*"), bytes[..262_144].to_vec()).await, 308);
    assert_eq!(ada.look(&created.id()).await.is_upload(200, "uploading").text("/received_bytes"), "262144");
    assert_eq!(ada.put(&created.uri(), Some("bytes 262144-299999/300000"), bytes[262_144..].to_vec()).await, 200);
    let done = ada.complete(&created.id()).await.is_upload(200, "completed");
    assert_eq!(done.text("/result/size_bytes"), "300000");
    assert_eq!(used(&ada).await, both(0, 300_000));

    // Two more may come to 600 000 bytes each, which is as much as is left; a third has no place.
    create(&ada).await.is(201);
    create(&ada).await.is(201);
    create(&ada).await.is_problem(429, "quota-exceeded");
}

/// A policy that only reports would else report every such upload, whatever its limits.
#[tokio::test]
async fn what_only_reports_reserves_what_it_would_allow() {
    let policies = "[[policies]]\nname = \"streams\"\nobject = \"{id}\"\nunknown_size = true\nmax_size = 1000\n\
                    daily_bytes = 2000\nreport_only = true\n";
    let broker = Broker::start_with(Settings { policies: policies.to_owned(), ..Settings::default() }).await;
    let ada = broker.user("ada");
    let created = create(&ada).await.is(201);
    assert_eq!(used(&ada).await, both(1, 1000));
    create(&ada).await.is(201);
    assert!(!broker.operator_get("/metrics").await.1.contains("policy_reports_total{"), "reported too early");
    create(&ada).await.is(201);
    let reported = "policy_reports_total{policy=\"streams\",limit=\"daily_bytes\"} 1";
    assert!(broker.operator_get("/metrics").await.1.contains(reported));
    // And nothing is deleted for its size.
    assert_eq!(ada.put(&created.uri(), None, noise(1500, 5)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
    assert_eq!(used(&ada).await, both(2, 3500));
}

#[tokio::test]
async fn what_is_beyond_the_limit_at_the_end_is_rejected_and_deleted() {
    let broker = streaming().await;
    let ada = broker.user("ada");
    for (name, size, detail) in [
        ("too many", 600_001, "600001 bytes arrived, where 600000 are allowed"),
        ("too few", 4, "4 bytes arrived, where 5 are the least"),
    ] {
        let created = create(&ada).await.is(201);
        assert_eq!(ada.put(&created.uri(), None, noise(size, 2)).await, 200, "{name}");
        let rejected = ada.complete(&created.id()).await.is_upload(200, "rejected");
        assert_eq!(rejected.text("/rejection/code"), "size-limit", "{name}");
        assert_eq!(rejected.text("/rejection/detail"), detail, "{name}");
        assert!(broker.storage.object(BUCKET, &created.text("/object")).is_none(), "{name}");
        assert_eq!(used(&ada).await, both(0, 0), "{name}");
    }
}

/// A session of unknown size has no bound at storage, so a look that shows more than there may be ends it.
#[tokio::test]
async fn a_look_beyond_the_limit_cancels_the_session_at_once() {
    for by in ["refresh", "complete"] {
        let broker = streaming().await;
        let ada = broker.user("ada");
        let created = create(&ada).await.is(201);
        assert_eq!(ada.put(&created.uri(), Some("bytes 0-786431/*"), noise(786_432, 3)).await, 308);
        let looked = if by == "refresh" { ada.look(&created.id()).await } else { ada.complete(&created.id()).await };
        let rejected = looked.is_upload(200, "rejected");
        assert_eq!(rejected.text("/rejection/code"), "size-limit", "{by}");
        assert_eq!(rejected.text("/received_bytes"), "786432", "{by}");
        assert!(rejected.body.get("transfer").is_none(), "{by}");
        assert_eq!(ada.put(&created.uri(), Some("bytes 786432-786440/786441"), noise(9, 4)).await, 499, "{by}");
        assert!(broker.storage.object(BUCKET, &created.text("/object")).is_none(), "{by}");
        assert_eq!(used(&ada).await, both(0, 0), "{by}");
        let journal = broker.storage.journal().since(0);
        assert_eq!(journal.iter().filter(|entry| entry.operation == Operation::Cancel).count(), 1, "{by}");
    }
}

#[tokio::test]
async fn a_size_may_be_left_out_only_where_the_policy_says_so() {
    let broker = Broker::start().await;
    let refused = create(&broker.user("ada")).await.is_problem(422, "policy-violation");
    assert_eq!(refused.text("/violations/0/limit"), "size_bytes");
}
