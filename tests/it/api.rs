//! What the interface promises to a client.

use reqwest::Method;
use serde_json::json;

use crate::support::user::{request, token};
use crate::support::{Broker, Settings, noise};

const MIB: u32 = 1 << 20;

#[tokio::test]
async fn an_upload_goes_from_admission_to_completion_through_an_interruption() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let bytes = noise(1_000_000, 1);
    let mut body = request(1_000_000);
    body["crc32c"] = json!(upload_broker::model::digest::Crc32c(crc32c::crc32c(&bytes)).to_string());
    body["metadata"] = json!({"album": "summer"});

    let created = ada.create_from(body).await.is_upload(201, "pending");
    let (id, uri) = (created.id(), created.uri());
    assert_eq!(created.header("location"), Some(&*format!("/v1/uploads/{id}")));
    assert_eq!(created.text("/object"), format!("videos/ada/{id}.mp4"));
    assert_eq!(created.text("/routing/served_by"), "europe-west1");
    assert_eq!(created.text("/transfer/chunk_multiple_bytes"), "262144");

    assert_eq!(ada.put(&uri, Some("bytes 0-524287/1000000"), bytes[..524_288].to_vec()).await, 308);
    let halfway = ada.complete(&id).await.is_problem(409, "not-complete");
    assert_eq!(halfway.text("/received_bytes"), "524288");
    ada.get(&format!("/v1/uploads/{id}")).await.is_upload(200, "uploading");

    assert_eq!(ada.put(&uri, Some("bytes 524288-999999/1000000"), bytes[524_288..].to_vec()).await, 200);
    let completed = ada.complete(&id).await.is_upload(200, "completed");
    assert_eq!(completed.text("/result/size_bytes"), "1000000");
    assert_eq!(completed.text("/result/evidence"), "client");
    assert!(completed.body.get("transfer").is_none(), "a completed upload hands out nothing");
    let again = ada.complete(&id).await.is_upload(200, "completed");
    assert_eq!(again.body, completed.body, "a repeat says the same");

    let object = broker.storage.object("media-eu", &completed.text("/object")).unwrap();
    assert_eq!(object.bytes.as_deref(), Some(&bytes[..]));
    assert_eq!(object.metadata["album"], "summer");
}

#[tokio::test]
async fn a_look_tells_what_storage_has_and_finds_the_end() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let created = ada.create(MIB.into()).await.is(201);
    let (id, uri) = (created.id(), created.uri());

    ada.look(&id).await.is_upload(200, "pending");
    ada.put(&uri, Some("bytes 0-262143/1048576"), noise(262_144, 2)).await;
    let known = ada.get(&format!("/v1/uploads/{id}")).await.is_upload(200, "pending");
    assert_eq!(known.text("/received_bytes"), "0", "nobody has looked");
    let seen = ada.look(&id).await.is_upload(200, "uploading");
    assert_eq!(seen.text("/received_bytes"), "262144");
    assert_eq!(seen.uri(), uri, "the owner can go on after losing everything");

    ada.put(&uri, Some("bytes 262144-1048575/1048576"), noise(786_432, 3)).await;
    ada.look(&id).await.is_upload(200, "completed");
}

#[tokio::test]
async fn a_broken_promise_is_rejected_and_its_object_deleted() {
    let broker = Broker::start_with(Settings {
        policies: "[[policies]]\nname = \"any\"\nobject = \"any/{id}\"\nmax_size = \"1MiB\"\nunknown_size = true\n"
            .to_owned(),
        ..Settings::default()
    })
    .await;
    let ada = broker.user("ada");
    // Storage cannot bound a session of unknown size, so what arrives decides.
    let body = json!({"filename": "f", "content_type": "video/mp4"});
    let created = ada.create_from(body).await.is(201);
    let (id, object) = (created.id(), created.text("/object"));
    assert!(created.body.get("size_bytes").is_none());
    assert_eq!(ada.put(&created.uri(), None, noise((1 << 20) + 1, 4)).await, 200);
    assert!(broker.storage.object("media-eu", &object).is_some());

    let rejected = ada.complete(&id).await.is_upload(200, "rejected");
    assert_eq!(rejected.text("/rejection/code"), "size-limit");
    assert!(broker.storage.object("media-eu", &object).is_none(), "the object is gone");
    ada.complete(&id).await.is_upload(200, "rejected");
    ada.cancel(&id).await.is_upload(200, "rejected");
}

#[tokio::test]
async fn a_cancelled_upload_is_revoked_at_storage() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let created = ada.create(MIB.into()).await.is(201);
    let (id, uri) = (created.id(), created.uri());
    assert_eq!(broker.storage.sessions(), 1);

    let cancelled = ada.cancel(&id).await.is_upload(200, "cancelled");
    assert!(cancelled.body.get("transfer").is_none());
    assert_eq!(broker.storage.sessions(), 0, "the capability is revoked, not only forgotten");
    assert!(ada.put(&uri, None, noise(1 << 20, 5)).await.is_client_error());
    ada.cancel(&id).await.is_upload(200, "cancelled");
    ada.complete(&id).await.is_problem(409, "invalid-state");
}

#[tokio::test]
async fn a_cancel_that_lost_to_the_last_byte_says_completed() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    assert_eq!(ada.put(&created.uri(), None, noise(10, 6)).await, 200);
    ada.cancel(&created.id()).await.is_upload(200, "completed");
}

#[tokio::test]
async fn time_runs_out_and_what_arrived_in_time_counts() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let (silent, done) = (ada.create(10).await.is(201), ada.create(10).await.is(201));
    ada.put(&done.uri(), None, noise(10, 7)).await;
    broker.clock.advance(std::time::Duration::from_secs(24 * 3600));
    let ada = broker.user("ada");
    ada.get(&format!("/v1/uploads/{}", silent.id())).await.is_upload(200, "expired");
    assert!(ada.put(&silent.uri(), None, noise(10, 8)).await.is_client_error(), "the session went with it");
    ada.complete(&silent.id()).await.is_problem(409, "invalid-state");
    ada.complete(&done.id()).await.is_upload(200, "completed");
}

#[tokio::test]
async fn a_lost_session_is_told_from_an_unfinished_one() {
    let broker = Broker::start_with(Settings {
        policies: "[[policies]]\nname = \"slow\"\nobject = \"slow/{id}\"\nsession_lifetime = \"7d\"\n".to_owned(),
        ..Settings::default()
    })
    .await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    // Behind the broker's back.
    assert_eq!(ada.client.delete(created.uri()).header("content-length", "0").send().await.unwrap().status(), 499);
    ada.complete(&created.id()).await.is_problem(409, "session-lost");
    ada.look(&created.id()).await.is_upload(200, "pending");
}

#[tokio::test]
async fn somebody_elses_upload_does_not_exist() {
    let broker = Broker::start().await;
    let id = broker.user("ada").create(10).await.is(201).id();
    let eve = broker.user("eve");
    eve.get(&format!("/v1/uploads/{id}")).await.is_problem(404, "not-found");
    eve.complete(&id).await.is_problem(404, "not-found");
    eve.cancel(&id).await.is_problem(404, "not-found");
    assert_eq!(eve.get("/v1/uploads").await.is(200).body["uploads"], json!([]));
    for nonsense in ["x", "%2e%2e", &"0".repeat(34), &format!("{id}0")] {
        eve.get(&format!("/v1/uploads/{nonsense}")).await.is_problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_list_is_newest_first_in_pages_and_by_state() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(ada.create(10).await.is(201).id());
        broker.clock.advance(std::time::Duration::from_secs(1));
    }
    ids.reverse();
    ada.cancel(&ids[1]).await.is(200);

    let (mut listed, mut path) = (Vec::new(), "/v1/uploads?limit=2".to_owned());
    loop {
        let page = ada.get(&path).await.is(200);
        let uploads = page.body["uploads"].as_array().unwrap().clone();
        assert!(uploads.len() <= 2);
        listed.extend(uploads.iter().map(|upload| upload["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        path = format!("/v1/uploads?limit=2&cursor={cursor}");
    }
    assert_eq!(listed, ids);
    let cancelled = ada.get("/v1/uploads?state=cancelled").await.is(200);
    assert_eq!(cancelled.body["uploads"].as_array().unwrap().len(), 1);
    for query in ["limit=0", "limit=201", "limit=x", "state=lost", "cursor=%00", "page=2", "limit=1&limit=2"] {
        ada.get(&format!("/v1/uploads?{query}")).await.is_problem(400, "invalid-request");
    }
}

#[tokio::test]
async fn malformed_requests_are_told_where_they_are_wrong() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let secret = "c2VjcmV0LXZhbHVl-do-not-repeat";
    for (name, body, pointer) in [
        ("an unknown field", json!({"filename": "a", "size": 1}), "/size"),
        ("a missing field", json!({"size_bytes": 1}), "/filename"),
        ("a negative size", json!({"filename": "a", "size_bytes": -1}), "/size_bytes"),
        ("a fractional size", json!({"filename": "a", "size_bytes": 1.5}), "/size_bytes"),
        ("a size beyond storage", json!({"filename": "a", "size_bytes": 5_497_558_138_881_u64}), "/size_bytes"),
        ("a size in text", json!({"filename": "a", "size_bytes": secret}), "/size_bytes"),
        ("an empty file name", json!({"filename": "", "size_bytes": 1}), "/filename"),
        ("a file name with a path", json!({"filename": format!("../{secret}"), "size_bytes": 1}), "/filename"),
        ("no media type", json!({"filename": "a", "size_bytes": 1, "content_type": secret}), "/content_type"),
        ("no digest", json!({"filename": "a", "size_bytes": 1, "md5": secret}), "/md5"),
        ("a short digest", json!({"filename": "a", "size_bytes": 1, "crc32c": "AAA="}), "/crc32c"),
        ("metadata that is no map", json!({"filename": "a", "size_bytes": 1, "metadata": secret}), "/metadata"),
        ("metadata that is no text", json!({"filename": "a", "size_bytes": 1, "metadata": {"k": 1}}), "/metadata/k"),
        (
            "too much metadata",
            json!({"filename": "a", "size_bytes": 1, "metadata": {"k": "v".repeat(5000)}}),
            "/metadata",
        ),
        ("no transfer", json!({"filename": "a", "size_bytes": 1, "transfer_kind": "pigeon"}), "/transfer_kind"),
        ("no policy name", json!({"filename": "a", "size_bytes": 1, "policy": "No Such"}), "/policy"),
        ("no object", json!(["filename"]), ""),
    ] {
        let answer = ada.create_from(body).await.is_problem(400, "invalid-request");
        assert_eq!(answer.text("/errors/0/pointer"), pointer, "{name}");
        assert!(!answer.body.to_string().contains(secret), "{name} is repeated");
    }
    for (name, body) in [
        ("no JSON", "filename=a".to_owned()),
        ("a key twice", r#"{"filename": "a", "filename": "b", "size_bytes": 1}"#.to_owned()),
        ("a metadata key twice", r#"{"filename": "a", "size_bytes": 1, "metadata": {"k": "1", "k": "2"}}"#.to_owned()),
        ("an integer beyond 64 bits", r#"{"filename": "a", "size_bytes": 99999999999999999999}"#.to_owned()),
        ("two documents", r#"{"filename": "a", "size_bytes": 1} {}"#.to_owned()),
        ("broken UTF-8", "{\"filename\": \"\u{fffd}".to_owned()),
        ("deep nesting", "[".repeat(10_000)),
    ] {
        let status = raw_create(&ada, "application/json", body).await;
        assert_eq!(status, (400, "invalid-request".to_owned()), "{name}");
    }
    let twice = ada.clone().with("idempotency-key", &"k".repeat(256));
    twice.create(1).await.is_problem(400, "invalid-request");
    assert_eq!(broker.storage.sessions(), 0, "nothing was opened for any of these");
}

async fn raw_create(user: &crate::support::User, content_type: &str, body: String) -> (u16, String) {
    let request = user.client.post(format!("{}/v1/uploads", user.broker)).bearer_auth(&user.token);
    let response = request.header("content-type", content_type).body(body).send().await.unwrap();
    let status = response.status().as_u16();
    let problem: serde_json::Value = response.json().await.unwrap();
    (status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_http_itself_can_get_wrong_has_a_code_each() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    assert_eq!(raw_create(&ada, "text/plain", "{}".to_owned()).await, (415, "unsupported-media-type".to_owned()));
    let large = format!("{{\"filename\": \"{}\"}}", "a".repeat(70_000));
    assert_eq!(raw_create(&ada, "application/json", large).await, (413, "body-too-large".to_owned()));
    ada.call(Method::PUT, "/v1/uploads", None).await.is_problem(405, "method-not-allowed");
    ada.call(Method::POST, "/openapi.json", None).await.is_problem(405, "method-not-allowed");
    ada.get("/v2/uploads").await.is_problem(404, "not-found");
    ada.clone().with("accept", "text/html").get("/v1/uploads").await.is_problem(406, "not-acceptable");

    let nobody = ada.client.get(format!("{}/v1/uploads", broker.user("x").broker)).send().await.unwrap();
    assert_eq!((nobody.status().as_u16(), nobody.headers()["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    let expired = token("ada", broker.clock.now().minus(std::time::Duration::from_secs(7200)), &[]);
    let refused = ada.clone().bearing(expired).get("/v1/uploads").await.is_problem(401, "unauthenticated");
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""));
}

#[tokio::test]
async fn only_allowed_origins_get_a_grant_from_the_broker_and_from_the_session() {
    let broker = Broker::start().await;
    let (allowed, foreign) = ("https://app.example.com", "https://evil.example.com");
    for (origin, granted) in [(allowed, true), (foreign, false), ("null", false)] {
        let ada = broker.user("ada").with("origin", origin);
        let created = ada.create(10).await.is(201);
        let expected = granted.then_some(origin);
        assert_eq!(created.header("access-control-allow-origin"), expected, "{origin}");
        let refusal = ada.get("/v1/uploads/x").await.is_problem(404, "not-found");
        assert_eq!(refusal.header("access-control-allow-origin"), expected, "a refusal must be readable: {origin}");

        let stored = ada.client.put(created.uri()).header("origin", origin).body(noise(10, 9)).send().await.unwrap();
        assert_eq!(stored.headers().contains_key("access-control-allow-origin"), granted, "{origin}");

        let preflight = ada
            .client
            .request(Method::OPTIONS, format!("{}/v1/uploads", ada.broker))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,idempotency-key");
        let preflight = preflight.send().await.unwrap();
        assert_eq!(preflight.headers().contains_key("access-control-allow-origin"), granted, "{origin}");
        assert!(preflight.headers().contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn a_policy_that_lives_elsewhere_says_where() {
    let broker = Broker::start_with(Settings {
        more_regions:
            "[[regions]]\nname = \"us-east1\"\nbucket = \"media-us\"\nurl = \"https://us.uploads.example.com\"\n"
                .to_owned(),
        policies: "[[policies]]\nname = \"us-only\"\nobject = \"{id}\"\nregions = [\"us-east1\"]\n".to_owned(),
        ..Settings::default()
    })
    .await;
    let refused = broker.user("ada").create(1).await.is_problem(421, "misdirected");
    assert_eq!(refused.text("/region"), "us-east1");
    assert_eq!(refused.text("/url"), "https://us.uploads.example.com");
}

#[tokio::test]
async fn operators_see_whether_it_lives_is_ready_and_what_it_counts() {
    let broker = Broker::start().await;
    let subject = "subject-7f3a";
    broker.user(subject).create(10).await.is(201);
    assert_eq!(broker.operator_get("/livez").await.0, 200);
    assert_eq!(broker.operator_get("/readyz").await.0, 200);
    let (status, nothing) = broker.operator_get("/nothing").await;
    assert!(status == 404 && nothing.contains("urn:upload-broker:problem:not-found"), "{status} {nothing}");
    let (status, metrics) = broker.operator_get("/metrics").await;
    assert_eq!(status, 200);
    for name in [
        "http_server_request_duration_seconds_bucket",
        "upload_broker_uploads_created_total",
        "upload_broker_store_operations_total",
        "upload_broker_storage_calls_total",
        "upload_broker_identity_token_checks_total",
    ] {
        assert!(metrics.contains(name), "no {name} in {metrics}");
    }
    assert!(!metrics.contains(subject), "a user in a label");
    assert_eq!(broker.stop().await, upload_broker::app::Ended::Drained);
}
