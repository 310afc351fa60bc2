//! Limits, under any concurrency, on memory and on a real Redis.

use std::time::Duration;

use serde_json::json;

use crate::support::user::Answer;
use crate::support::user::request;
use crate::support::{Broker, Settings, join_all, redis};

fn policy(limits: &str) -> String {
    format!("[[policies]]\nname = \"videos\"\nobject = \"videos/{{id}}\"\nmax_size = \"1GiB\"\n{limits}\n")
}

#[tokio::test]
async fn parallel_creates_on_two_brokers_stop_exactly_at_the_limit() {
    let Some(redis) = redis::start().await else { return };
    let settings = || Settings { store: redis.url(), policies: policy("max_active = 10"), ..Settings::default() };
    let one = Broker::start_with(settings()).await;
    let two = Broker::start_beside(one.storage.clone(), one.clock.clone(), settings()).await;
    let attempts = (0..200).map(|position| {
        let user = if position % 2 == 0 { one.user("ada") } else { two.user("ada") };
        async move { user.create(10).await }
    });
    let answers = join_all(attempts).await;
    let created: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(created.len(), 10);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!((answer.status, answer.text("/code").as_str()), (429, "quota-exceeded"));
        assert_eq!(answer.text("/limit"), "max_active");
        assert!(answer.header("ratelimit").is_some() && answer.header("ratelimit-policy").is_some());
    }
    assert_eq!(one.storage.sessions(), 10, "no session was opened for a refusal");

    // A cancel on one broker makes room on the other.
    one.user("ada").cancel(&created[0].id()).await.is_upload(200, "cancelled");
    two.user("ada").create(10).await.is(201);
    two.user("ada").create(10).await.is_problem(429, "quota-exceeded");
    two.user("bob").create(10).await.is(201);
}

#[tokio::test]
async fn parallel_creates_with_one_key_make_one_upload() {
    let Some(redis) = redis::start().await else { return };
    for store in [redis.url(), "memory".to_owned()] {
        let broker = Broker::start_with(Settings { store, ..Settings::default() }).await;
        let ada = broker.user("ada").with("idempotency-key", "one");
        let creates = (0..50).map(|_| {
            let ada = ada.clone();
            async move { ada.create(10).await }
        });
        let answers = join_all(creates).await;
        let mut ids: Vec<_> = answers.iter().filter(|answer| answer.status == 201).map(Answer::id).collect();
        assert!(!ids.is_empty());
        ids.dedup();
        assert_eq!(ids.len(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            assert_eq!((answer.status, answer.text("/code").as_str()), (409, "idempotency-in-progress"));
        }
        assert_eq!(broker.storage.sessions(), 1);

        let again = ada.create(10).await.is(201);
        assert_eq!((again.id(), again.header("idempotent-replayed")), (ids[0].clone(), Some("true")));
        ada.create(11).await.is_problem(422, "idempotency-mismatch");
        let eve = broker.user("eve").with("idempotency-key", "one").create(10).await.is(201);
        assert_ne!(eve.id(), ids[0], "a key is one principal's own");
        broker.clock.advance(Duration::from_secs(24 * 3600 + 1));
        let forgotten = broker.user("ada").with("idempotency-key", "one").create(10).await.is(201);
        assert_ne!(forgotten.id(), ids[0], "keys are remembered for a day");
    }
}

#[tokio::test]
async fn a_rate_lets_a_burst_through_and_refills() {
    let broker = Broker::start_with(Settings { policies: policy("rate = \"3/1m\""), ..Settings::default() }).await;
    for _ in 0..3 {
        broker.user("ada").create(1).await.is(201);
    }
    let refused = broker.user("ada").create(1).await.is_problem(429, "rate-limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    let (_, metrics) = broker.operator_get("/metrics").await;
    let refusals = "upload_broker_limit_refusals_total{policy=\"videos\",limit=\"rate\"} 1";
    assert!(metrics.contains(refusals), "{metrics}");
    broker.clock.advance(Duration::from_secs(wait));
    broker.user("ada").create(1).await.is(201);
    broker.user("ada").create(1).await.is_problem(429, "rate-limited");
}

#[tokio::test]
async fn bytes_are_reserved_settled_and_free_again_at_midnight() {
    let broker =
        Broker::start_with(Settings { policies: policy("daily_bytes = \"1000\""), ..Settings::default() }).await;
    let ada = broker.user("ada");
    let first = ada.create(600).await.is(201);
    let refused = ada.create(500).await.is_problem(429, "quota-exceeded");
    assert_eq!(refused.text("/limit"), "daily_bytes");
    ada.cancel(&first.id()).await.is(200);
    let second = ada.create(500).await.is(201);
    ada.put(&second.uri(), None, vec![0; 500]).await;
    ada.complete(&second.id()).await.is_upload(200, "completed");
    ada.create(501).await.is_problem(429, "quota-exceeded");

    let left = ada.get("/v1/policies").await.is(200);
    assert_eq!(left.body["policies"][0]["daily_bytes_left"], 500);
    broker.clock.advance(Duration::from_secs(24 * 3600));
    broker.user("ada").create(1000).await.is(201);
}

#[tokio::test]
async fn what_a_policy_does_not_allow_is_told_limit_by_limit() {
    let policies = "[[policies]]\nname = \"videos\"\nobject = \"videos/{sub}/{id}\"\ncontent_types = [\"video/*\"]\nmin_size = 2\n\
        max_size = 100\ndigest = \"required\"\n"
        .to_owned();
    let broker = Broker::start_with(Settings { policies, ..Settings::default() }).await;
    let ada = broker.user("ada");
    let body = json!({"filename": "a.txt", "content_type": "text/plain", "size_bytes": 101, "transfer_kind": "simple"});
    let refused = ada.create_from(body).await.is_problem(422, "policy-violation");
    let mut limits: Vec<_> =
        refused.body["violations"].as_array().unwrap().iter().map(|v| v["limit"].as_str().unwrap()).collect();
    limits.sort_unstable();
    assert_eq!(limits, ["content_types", "digest", "max_size", "transfers"]);
    let unsized_ = json!({"filename": "a.mp4", "content_type": "video/mp4", "crc32c": "AAAAAA=="});
    let refused = ada.create_from(unsized_).await.is_problem(422, "policy-violation");
    assert_eq!(refused.text("/violations/0/limit"), "size_bytes");
    let mut named = request(50);
    named["policy"] = json!("photos");
    ada.create_from(named).await.is_problem(403, "policy-denied");
    let plain = json!({"filename": "a", "content_type": "video/mp4", "size_bytes": 2, "crc32c": "AAAAAA=="});
    let odd = broker.user("../root").create_from(plain).await;
    assert_eq!(odd.is_problem(422, "policy-violation").text("/violations/0/limit"), "object");
    assert_eq!(broker.storage.sessions(), 0);
}

#[tokio::test]
async fn a_policy_that_only_reports_refuses_nothing_and_counts() {
    let policies = policy("max_active = 1\ncontent_types = [\"image/*\"]\nreport_only = true");
    let broker = Broker::start_with(Settings { policies, ..Settings::default() }).await;
    for _ in 0..3 {
        broker.user("ada").create(1).await.is(201);
    }
    let (_, metrics) = broker.operator_get("/metrics").await;
    assert!(
        metrics.contains("upload_broker_policy_reports_total{policy=\"videos\",limit=\"max_active\"} 2"),
        "{metrics}"
    );
    assert!(
        metrics.contains("upload_broker_policy_reports_total{policy=\"videos\",limit=\"content_types\"} 3"),
        "{metrics}"
    );
}
