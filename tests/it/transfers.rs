//! The ways that bytes travel, by either interface of storage: who may take which, what is enforced where.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use upload_broker::clock::Clock;
use upload_broker::emulator::Emulator;
use upload_broker::emulator::faults::{Action, Fault, Reply};
use upload_broker::emulator::journal::Operation;

use crate::support::broker::emulator;
use crate::support::user::Answer;
use crate::support::{BUCKET, Broker, Settings, User, noise};

const POLICIES: &str = "[[policies]]\nname = \"files\"\nobject = \"files/{sub}/{id}.{ext}\"\nmax_size = \"1MiB\"\n\
                        transfers = [\"resumable\", \"simple\", \"signed_resumable\"]\nsimple_max_size = \"512KiB\"\n\
                        unknown_size = true\ncache_control = \"private\"\nmetadata = { source = \"mobile\" }\n\
                        max_active = 3\n";

const KEY: &str = "credentials = { file = \"sa.json\" }";

async fn signing() -> Broker {
    Broker::start_with(Settings { policies: POLICIES.to_owned(), storage: KEY.to_owned(), ..Settings::default() }).await
}

fn body(kind: &str, size: Option<u64>) -> Value {
    let mut body = json!({"filename": "a b.mp4", "content_type": "video/mp4", "transfer_kind": kind,
                          "metadata": {"album": "summer 26"}});
    if let Some(size) = size {
        body["size_bytes"] = json!(size);
    }
    body
}

async fn create(user: &User, kind: &str, size: u64) -> Answer {
    user.create_from(body(kind, Some(size))).await.is_upload(201, "pending")
}

/// Sends the first request as the broker says, less the header `without`.
async fn first(user: &User, created: &Answer, bytes: Vec<u8>, without: Option<&str>) -> Response {
    let method: Method = created.text("/transfer/method").parse().unwrap();
    let headers = created.body["transfer"]["headers"].as_object().unwrap();
    let mut request = user.client.request(method, created.uri()).header("content-length", bytes.len()).body(bytes);
    for (name, value) in headers.iter().filter(|(name, _)| Some(name.as_str()) != without) {
        request = request.header(name, value.as_str().unwrap());
    }
    request.send().await.unwrap()
}

async fn send(user: &User, created: &Answer, bytes: Vec<u8>) -> StatusCode {
    first(user, created, bytes, None).await.status()
}

async fn renew(user: &User, id: &str) -> Answer {
    user.call(Method::POST, &format!("/v1/uploads/{id}/renew"), None).await
}

async fn active(user: &User) -> String {
    user.get("/v1/policies").await.is(200).text("/policies/0/active")
}

fn bytes_of(broker: &Broker, created: &Answer) -> Option<Vec<u8>> {
    let object = broker.storage.object(BUCKET, &created.text("/object"))?;
    assert_eq!(object.content_type, "video/mp4");
    assert_eq!(object.metadata["source"], "mobile");
    assert_eq!(object.metadata["album"], "summer 26");
    assert_eq!(object.metadata["upload-broker-id"], created.id());
    Some(object.bytes.unwrap().to_vec())
}

#[tokio::test]
async fn a_small_file_goes_by_one_signed_put() {
    let broker = signing().await;
    let ada = broker.user("ada");
    let bytes = noise(1000, 1);
    let created = create(&ada, "simple", 1000).await;
    assert_eq!(created.text("/transfer/kind"), "simple");
    assert_eq!(created.text("/transfer/method"), "PUT");
    assert!(created.body["transfer"].get("chunk_bytes").is_none());
    assert_eq!(created.header("cache-control"), Some("no-store"));
    assert_eq!(created.text("/transfer/headers/x-goog-content-length-range"), "1000,1000");
    let begun = broker.storage.journal().since(0);
    assert!(begun.iter().all(|entry| entry.operation == Operation::Token), "signing asks storage nothing: {begun:?}");

    ada.complete(&created.id()).await.is_problem(409, "not-complete");
    assert_eq!(send(&ada, &created, bytes.clone()).await, 200);
    assert_eq!(bytes_of(&broker, &created), Some(bytes.clone()));
    let done = ada.complete(&created.id()).await.is_upload(200, "completed");
    assert_eq!(done.text("/result/size_bytes"), "1000");
    assert!(done.body.get("transfer").is_none());
    assert_eq!(active(&ada).await, "0");
    assert_eq!(send(&ada, &created, bytes).await, 412, "the object is there");
}

#[tokio::test]
async fn storage_itself_holds_a_signed_put_to_what_was_declared() {
    let broker = signing().await;
    let ada = broker.user("ada");
    let created = create(&ada, "simple", 1000).await;
    for (name, size, status) in [("too few bytes", 999, 400), ("too many", 1001, 400)] {
        assert_eq!(send(&ada, &created, noise(size, 2)).await, status, "{name}");
    }
    let headers = created.body["transfer"]["headers"].as_object().unwrap();
    for name in headers.keys() {
        let status = first(&ada, &created, noise(1000, 2), Some(name)).await.status();
        assert!(status.is_client_error(), "without {name}: {status}");
    }
    let mut elsewhere = Answer { status: 201, headers: created.headers.clone(), body: created.body.clone() };
    let path = created.uri().replacen(&created.id(), &"0".repeat(34), 1);
    elsewhere.body["transfer"]["uri"] = json!(path);
    assert_eq!(send(&ada, &elsewhere, noise(1000, 2)).await, 403, "another name");
    assert!(broker.storage.object(BUCKET, &created.text("/object")).is_none());
    ada.cancel(&created.id()).await.is_upload(200, "cancelled");

    let digests = json!({"md5": "XrY7u+Ae7tCTyyK7j1rNww==", "crc32c": "yZRlqg=="});
    for (name, declared) in [("MD5", vec!["md5"]), ("CRC32C", vec!["crc32c"]), ("both", vec!["md5", "crc32c"])] {
        let mut wanted = body("simple", Some(11));
        for digest in declared {
            wanted[digest] = digests[digest].clone();
        }
        let created = ada.create_from(wanted).await.is(201);
        assert_eq!(send(&ada, &created, b"hello earth".to_vec()).await, 400, "{name}");
        assert_eq!(send(&ada, &created, b"hello world".to_vec()).await, 200, "{name}");
        ada.complete(&created.id()).await.is_upload(200, "completed");
    }
}

#[tokio::test]
async fn what_one_put_cannot_carry_is_refused() {
    let broker = signing().await;
    let ada = broker.user("ada");
    for (name, body, limit) in [
        ("too large", body("simple", Some(524_289)), "simple_max_size"),
        ("larger than the policy allows", body("simple", Some(1_048_577)), "max_size"),
    ] {
        let refused = ada.create_from(body).await.is_problem(422, "policy-violation");
        assert_eq!(refused.text("/violations/0/limit"), limit, "{name}");
    }
    let mut umlaut = body("simple", Some(1));
    umlaut["metadata"] = json!({"album": "Süden"});
    let refused = ada.create_from(umlaut.clone()).await.is_problem(422, "policy-violation");
    assert_eq!(refused.text("/violations/0/limit"), "metadata");
    umlaut["transfer_kind"] = json!("resumable");
    ada.create_from(umlaut).await.is(201);
    // The session of the last one is all that there is.
    assert_eq!((broker.storage.sessions(), active(&ada).await), (1, "1".to_owned()));
}

#[tokio::test]
async fn an_unknown_size_is_bounded_by_the_signature() {
    let broker = signing().await;
    let ada = broker.user("ada");
    let created = ada.create_from(body("simple", None)).await.is(201);
    assert_eq!(created.text("/transfer/headers/x-goog-content-length-range"), "0,524288");
    assert_eq!(send(&ada, &created, noise(524_289, 3)).await, 400);
    assert_eq!(send(&ada, &created, noise(524_288, 3)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
}

#[tokio::test]
async fn a_client_opens_a_session_with_a_signed_post() {
    let broker = signing().await;
    let ada = broker.user("ada");
    let bytes = noise(600_000, 4);
    let created = create(&ada, "signed_resumable", 600_000).await;
    assert_eq!(created.text("/transfer/method"), "POST");
    assert_eq!(created.text("/transfer/chunk_multiple_bytes"), "262144");
    let opened = first(&ada, &created, Vec::new(), None).await;
    assert_eq!(opened.status(), 201);
    let session = opened.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(ada.put(&session, Some("bytes 0-262143/600000"), bytes[..262_144].to_vec()).await, 308);
    ada.complete(&created.id()).await.is_problem(409, "not-complete");
    assert_eq!(ada.put(&session, Some("bytes 262144-599999/600000"), bytes[262_144..].to_vec()).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
    assert_eq!(bytes_of(&broker, &created), Some(bytes));
}

#[tokio::test]
async fn a_signed_url_that_ended_is_renewed() {
    let broker = signing().await;
    for kind in ["simple", "signed_resumable"] {
        let ada = broker.user("ada");
        let created = create(&ada, kind, 10).await;
        let until = created.text("/transfer/expires_at");
        assert!(until < created.text("/expires_at"), "{kind}: {until}");
        broker.clock.advance(Duration::from_secs(15 * 60 + 1));
        broker.storage.advance(Duration::ZERO);
        let ended = if kind == "simple" { noise(10, 5) } else { Vec::new() };
        assert_eq!(send(&ada, &created, ended.clone()).await, 400, "{kind}");
        let ada = broker.user("ada");
        // Only of a single request can be said that it is over: a session may live on.
        let code = if kind == "simple" { "session-lost" } else { "not-complete" };
        ada.complete(&created.id()).await.is_problem(409, code);
        let renewed = renew(&ada, &created.id()).await.is_upload(200, "pending");
        assert_ne!(renewed.uri(), created.uri(), "{kind}");
        assert!(send(&ada, &renewed, ended).await.is_success(), "{kind}");
        ada.cancel(&created.id()).await;
    }
}

#[tokio::test]
async fn a_signed_upload_ends_like_any_other() {
    let broker = signing().await;
    let ada = broker.user("ada");
    let arrived = create(&ada, "simple", 10).await;
    assert_eq!(send(&ada, &arrived, noise(10, 6)).await, 200);
    ada.cancel(&arrived.id()).await.is_upload(200, "completed");

    let unwanted = create(&ada, "simple", 10).await;
    ada.cancel(&unwanted.id()).await.is_upload(200, "cancelled");
    renew(&ada, &unwanted.id()).await.is_problem(409, "invalid-state");

    let oversized = ada.create_from(body("signed_resumable", None)).await.is(201);
    let opened = first(&ada, &oversized, Vec::new(), None).await;
    let session = opened.headers()["location"].to_str().unwrap().to_owned();
    let status = ada.put(&session, None, noise(2 << 20, 7)).await;
    if status == 200 {
        let rejected = ada.complete(&oversized.id()).await.is_upload(200, "rejected");
        assert_eq!(rejected.text("/rejection/code"), "size-limit");
    } else {
        assert_eq!(status, 400, "storage may hold a session to the range that was signed");
    }
    assert!(broker.storage.object(BUCKET, &oversized.text("/object")).is_none());

    let late = create(&ada, "simple", 10).await;
    broker.clock.advance(Duration::from_secs(24 * 3600));
    let ada = broker.user("ada");
    ada.get(&format!("/v1/uploads/{}", late.id())).await.is_upload(200, "expired");
}

/// There is no session to cancel: the URL is the client's, and nothing is sent to it.
#[tokio::test]
async fn what_cannot_be_looked_up_leaves_the_signed_url_alone() {
    let broker = signing().await;
    let ada = broker.user("ada");
    let created = create(&ada, "simple", 10).await;
    for _ in 0..3 {
        broker.storage.faults().add(Fault::once(Operation::Get, Action::Respond(Reply::status(403))));
    }
    let reason = ada.complete(&created.id()).await.is_problem(502, "storage-error").text("/detail");
    for answer in [ada.cancel(&created.id()).await, renew(&ada, &created.id()).await] {
        assert_eq!(answer.is_problem(502, "storage-error").text("/detail"), reason);
    }
    let asked: Vec<Operation> = broker.storage.journal().since(0).iter().map(|entry| entry.operation).collect();
    assert_eq!(asked.iter().filter(|seen| **seen != Operation::Token).collect::<Vec<_>>(), [&Operation::Get; 3]);
    ada.cancel(&created.id()).await.is_upload(200, "cancelled");
}

#[tokio::test]
async fn a_repeat_is_told_the_same_url() {
    let broker = signing().await;
    let ada = broker.user("ada").with("idempotency-key", "k1");
    let created = create(&ada, "simple", 10).await;
    let repeated = create(&ada, "simple", 10).await;
    assert_eq!(created.body["transfer"], repeated.body["transfer"]);
    assert_eq!(repeated.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn a_policy_without_it_signs_nothing() {
    let broker = Broker::start().await;
    for kind in ["simple", "signed_resumable"] {
        let refused = broker.user("ada").create_from(body(kind, Some(1))).await.is_problem(422, "policy-violation");
        assert_eq!(refused.text("/violations/0/limit"), "transfers");
        assert_eq!(refused.text("/violations/0/allowed"), "resumable");
    }
}

/// A broker whose sessions are opened by the XML interface.
async fn by_xml() -> Broker {
    let storage = format!("api = \"xml\"\n{KEY}");
    Broker::start_with(Settings { policies: POLICIES.to_owned(), storage, ..Settings::default() }).await
}

#[tokio::test]
async fn the_xml_interface_opens_sessions_that_end_in_the_same_way() {
    let broker = by_xml().await;
    let ada = broker.user("ada");
    let bytes = noise(600_000, 8);
    let created = create(&ada, "resumable", 600_000).await;
    assert!(created.uri().contains("/media-eu/files/ada/"), "an address of the XML interface");
    assert_eq!(ada.put(&created.uri(), Some("bytes 0-262143/600000"), bytes[..262_144].to_vec()).await, 308);
    ada.look(&created.id()).await.is_upload(200, "uploading");
    assert_eq!(ada.put(&created.uri(), Some("bytes 262144-599999/600000"), bytes[262_144..].to_vec()).await, 200);
    let done = ada.complete(&created.id()).await.is_upload(200, "completed");
    assert_eq!(done.text("/result/size_bytes"), "600000");
    assert_eq!(bytes_of(&broker, &created), Some(bytes));

    let cancelled = create(&ada, "resumable", 10).await;
    ada.cancel(&cancelled.id()).await.is_upload(200, "cancelled");
    assert!(ada.put(&cancelled.uri(), None, noise(10, 8)).await.is_client_error());
    let lost = create(&ada, "resumable", 10).await;
    let renewed = renew(&ada, &lost.id()).await.is_upload(200, "pending");
    assert!(ada.put(&lost.uri(), None, noise(10, 8)).await.is_client_error());
    assert_eq!(ada.put(&renewed.uri(), None, noise(10, 8)).await, 200);
    ada.complete(&lost.id()).await.is_upload(200, "completed");
    assert_eq!(broker.storage.sessions(), 0);
}

/// The XML interface does not check what was declared of the content, so the broker must.
#[tokio::test]
async fn a_digest_that_storage_does_not_check_is_checked_at_the_end() {
    let broker = by_xml().await;
    let ada = broker.user("ada");
    for digest in [json!({"md5": "XrY7u+Ae7tCTyyK7j1rNww=="}), json!({"crc32c": "yZRlqg=="})] {
        let mut wanted = body("resumable", Some(11));
        wanted.as_object_mut().unwrap().extend(digest.as_object().unwrap().clone());
        let created = ada.create_from(wanted).await.is(201);
        assert_eq!(ada.put(&created.uri(), None, b"hello earth".to_vec()).await, 200);
        let rejected = ada.complete(&created.id()).await.is_upload(200, "rejected");
        assert_eq!(rejected.text("/rejection/code"), "digest-mismatch");
        assert!(broker.storage.object(BUCKET, &created.text("/object")).is_none());
    }
}

/// The key stays with Google: the broker acts as another account, and IAM Credentials signs.
#[tokio::test]
async fn iam_credentials_signs_where_there_is_no_key() {
    let storage: Arc<Emulator> =
        emulator(Clock::manual(upload_broker::model::time::Timestamp::from_secs(1_800_000_000))).await;
    let source: Value = serde_json::from_str(&storage.service_account_key().unwrap()).unwrap();
    let account = source["client_email"].as_str().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken", storage.url());
    let credentials = json!({"type": "impersonated_service_account", "service_account_impersonation_url": url,
                             "source_credentials": source, "delegates": []});
    std::fs::write(file.path(), credentials.to_string()).unwrap();
    let settings = Settings {
        policies: POLICIES.to_owned(),
        storage: format!("credentials = {{ file = {:?} }}", file.path()),
        ..Settings::default()
    };
    let clock = Clock::manual(upload_broker::model::time::Timestamp::from_secs(1_800_000_000));
    let broker = Broker::start_beside(storage, clock, settings).await;
    let ada = broker.user("ada");
    let created = create(&ada, "simple", 10).await;
    assert_eq!(send(&ada, &created, noise(10, 9)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
    let signed = broker.storage.journal().since(0);
    assert_eq!(signed.iter().filter(|entry| entry.operation == Operation::SignBlob).count(), 1);
}
