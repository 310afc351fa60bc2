//! Secrets stay secret: planted wherever they can pass, and looked for wherever they could come out.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use upload_broker::clock::Clock;

use crate::support::broker::configuration;
use crate::support::collector::{Collector, attribute};
use crate::support::process::{Process, serve};
use crate::support::user::Answer;
use crate::support::{BUCKET, Settings, User, noise, redis};

/// What every access token of these tests begins with.
const ACCESS_TOKEN: &str = "ya29.planted-access-token-51c7e0";

/// A token server on loopback, and every assertion that it was given.
pub async fn token_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let assertions = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&assertions);
    let grant = async move |body: String| {
        let assertion = body.split('&').find_map(|pair| pair.strip_prefix("assertion=")).unwrap().to_owned();
        let mut kept = kept.lock().unwrap();
        kept.push(assertion);
        let token = format!("{ACCESS_TOKEN}-{}", kept.len());
        axum::Json(json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/token", axum::routing::post(grant));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, assertions)
}

/// Writes the key file of a service account, and gives its private key without line breaks.
pub fn service_account(file: &Path, token_uri: &str) -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
    let account = json!({
        "type": "service_account",
        "client_email": "broker@example.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": key,
        "token_uri": token_uri,
    });
    std::fs::write(file, account.to_string()).unwrap();
    key.lines().filter(|line| !line.starts_with("-----")).collect()
}

/// What the answers to clients said.
#[derive(Default)]
struct Told {
    /// All of them.
    anything: String,
    /// Those that are problems: no session is anybody's business there.
    problems: String,
}

impl Told {
    fn note(&mut self, answer: Answer) -> Answer {
        let text = format!("{:?} {}", answer.headers, answer.body);
        if answer.status >= 400 {
            self.problems += &text;
        }
        self.anything += &text;
        answer
    }
}

/// Session URIs under every kind of fault, so that whatever is said of failed calls is said.
async fn fail_on_sessions(ada: &User, storage: &str, told: &mut Told) -> Vec<String> {
    let faults = format!("{storage}/_emulator/faults");
    let reply = |status: u16| json!({"kind": "respond", "status": status});
    let mut secrets = Vec::new();
    for (action, count) in [
        (reply(503), Value::Null),
        (reply(401), Value::Null),
        (reply(400), Value::Null),
        (reply(307), Value::Null),
        (json!({"kind": "reset"}), Value::Null),
        (json!({"kind": "hold"}), Value::Null),
        (json!({"kind": "kill_session"}), json!(1)),
    ] {
        let created = ada.create(10).await.is(201);
        secrets.push(session_secret(&created));
        let operations = ["status", "cancel"];
        let set: Vec<Value> = operations
            .iter()
            .map(|operation| json!({"operation": operation, "count": count, "action": action}))
            .collect();
        ada.client.post(&faults).json(&set).send().await.unwrap().error_for_status().unwrap();
        let id = created.id();
        let failures = told.problems.len();
        told.note(ada.look(&id).await);
        told.note(ada.complete(&id).await);
        told.note(ada.cancel(&id).await);
        assert!(told.problems.len() > failures, "{action} is a failure");
        ada.client.delete(&faults).send().await.unwrap().error_for_status().unwrap();
        told.note(ada.cancel(&id).await);
    }
    secrets
}

/// The part of a session's URI that lets its bearer write.
fn session_secret(created: &Answer) -> String {
    let secret = created.uri().split("upload_id=").nth(1).unwrap().to_owned();
    assert!(secret.len() > 100, "a secret worth looking for");
    secret
}

/// Whether `text` holds a telling part of the secret: the first 24 characters of it, or of a part between dots, would
/// be as bad as all of them.
fn holds(text: &[u8], secret: &str) -> bool {
    let parts = secret.split('.').filter(|part| part.len() >= 16);
    parts.map(|part| &part.as_bytes()[..part.len().min(24)]).any(|part| memmem(text, part))
}

pub fn memmem(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_metric_error_or_redis_value() {
    let Some(redis) = redis::start().await else { return };
    let (_storage, storage_url) = Process::emulator();
    let (token_uri, assertions) = token_server().await;
    let collector = Collector::start().await;
    let folder = TempDir::new().unwrap();
    let private_key = service_account(&folder.path().join("account.json"), &token_uri);
    let settings = Settings {
        store: redis.url(),
        policies: "[[policies]]\nname = \"any\"\nobject = \"any/{id}\"\nmax_active = 3\n".to_owned(),
        storage_timeout: "1s",
        more: collector.section(),
        ..Settings::default()
    };
    let text = configuration(folder.path(), &storage_url, &settings);
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let mut command = serve(&folder.path().join("broker.toml"), "trace");
    command.arg("--insecure-loopback").env("GOOGLE_APPLICATION_CREDENTIALS", folder.path().join("account.json"));
    let (broker, address, operations) = Process::listening(command);
    let ada = User::new(format!("http://{address}"), "ada", Clock::System.now());

    let mut told = Told::default();
    let created = told.note(ada.create(10).await.is(201));
    let mut sessions = vec![session_secret(&created)];
    told.note(ada.look(&created.id()).await.is(200));
    told.note(ada.complete(&created.id()).await.is(409));
    ada.put(&created.uri(), None, noise(10, 1)).await;
    told.note(ada.complete(&created.id()).await.is_upload(200, "completed"));
    let other = told.note(ada.create(10).await.is(201));
    sessions.push(session_secret(&other));
    told.note(ada.cancel(&other.id()).await.is(200));
    let kept = told.note(ada.create(10).await.is(201));
    sessions.push(session_secret(&kept));
    sessions.extend(fail_on_sessions(&ada, &storage_url, &mut told).await);

    // Storage refuses the token once: the broker gets another, and says so.
    let refuse = json!([{"operation": "initiate", "action": {"kind": "respond", "status": 401}}]);
    let faults = format!("{storage_url}/_emulator/faults");
    ada.client.post(&faults).json(&refuse).send().await.unwrap().error_for_status().unwrap();
    let renewed = told.note(ada.create(10).await.is(201));
    sessions.push(session_secret(&renewed));

    // A client that puts secrets where they do not belong.
    let planted = "planted-3f9a0c51e2b7d84f-secret";
    for body in [
        json!({"filename": "f", "size_bytes": planted}),
        json!({"filename": planted.repeat(20), "size_bytes": 1}),
        json!({"filename": "f", "size_bytes": 1, "policy": planted}),
        json!({"filename": "f", "size_bytes": 1, "md5": planted}),
        json!({"filename": "f", "size_bytes": 1, planted: 1}),
    ] {
        told.note(ada.create_from(body).await);
    }
    for path in [format!("/v1/uploads/{planted}"), format!("/{planted}"), format!("/v1/uploads?cursor={planted}")] {
        told.note(ada.get(&path).await);
    }
    let forged = format!("{planted}.{planted}.{planted}");
    told.note(ada.clone().bearing(forged).get("/v1/uploads").await);
    told.note(ada.clone().with("x-request-id", planted).get("/v1/uploads").await);
    told.note(ada.clone().with("traceparent", planted).with("tracestate", planted).get("/v1/policies").await);
    // The last trace: what it is behind is delivered once it is.
    let last = |span: &Value| attribute(span, "http.route").as_deref() == Some("/v1/policies");
    collector.span("last trace", last).await;
    let traces = collector.bytes();
    let metrics = reqwest::get(format!("http://{operations}/metrics")).await.unwrap().text().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;

    // The search finds what is there.
    let log = broker.printed();
    assert!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the log is at its most talkative");
    assert!(log.contains("storage is asked again"), "failures on sessions are in the log");
    assert!(log.contains("a capability was granted"), "so is the audit");
    assert!(
        memmem(&traces, b"storage initiate") && memmem(&traces, b"timed_out"),
        "traces tell of calls, and of failures"
    );
    let stored = redis.everything().await;
    assert!(memmem(&stored, BUCKET.as_bytes()), "records can be read as they are");
    let assertions = assertions.lock().unwrap().clone();
    assert!(assertions.len() >= 2, "a token at the start, and one after the refusal");

    let mut secrets: Vec<(&str, &str)> = vec![
        ("a client's token", &ada.token),
        ("the private key", &private_key),
        ("the private key's fourteenth line", &private_key[13 * 64..]),
        ("the access token", ACCESS_TOKEN),
        ("what a client planted", planted),
        ("the sealing key", "0123456789012345678901"),
        ("the sealing key in base64", "MDEyMzQ1Njc4OTAxMjM0NTY3"),
    ];
    secrets.extend(assertions.iter().map(|assertion| ("an assertion", &**assertion)));
    let told_anything = told.anything.as_bytes();
    for (name, secret) in &secrets {
        assert!(!holds(told_anything, secret), "{name} was told to a client");
    }
    secrets.extend(sessions.iter().map(|session| ("a session's id", &**session)));
    for (sink, bytes) in [
        ("the log", log.as_bytes()),
        ("the metrics", metrics.as_bytes()),
        ("the traces", &traces[..]),
        ("Redis", &stored[..]),
        ("a problem", told.problems.as_bytes()),
    ] {
        for (name, secret) in &secrets {
            assert!(!holds(bytes, secret), "{name} is in {sink}");
        }
    }
    assert!(sessions.iter().any(|session| holds(told_anything, session)), "whoever may know a session is told it");
}
