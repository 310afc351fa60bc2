//! Real processes: brokers, Redis and the emulator, killed where it hurts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use upload_broker::clock::Clock;

use crate::support::broker::configuration;
use crate::support::process::{Process, command};
use crate::support::user::token;
use crate::support::{Settings, User, noise, redis};

/// The files of a deployment.
struct Deployment {
    folder: TempDir,
    storage: Process,
    storage_url: String,
    redis: redis::RedisServer,
}

impl Deployment {
    async fn start(policies: &str) -> Option<Self> {
        let redis = redis::start().await?;
        let (storage, storage_url) = Process::emulator();
        let folder = TempDir::new().unwrap();
        let settings = Settings {
            store: redis.url(),
            policies: policies.to_owned(),
            storage_timeout: "1s",
            ..Settings::default()
        };
        std::fs::write(folder.path().join("broker.toml"), configuration(folder.path(), &storage_url, &settings))
            .unwrap();
        Some(Self { folder, storage, storage_url, redis })
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("broker.toml")
    }

    /// A broker process and somebody who talks to it.
    fn serve(&self, log: &str) -> (Process, User, String) {
        let (process, address, operations) = Process::serve(&self.config(), log);
        let user = User::new(format!("http://{address}"), "ada", Clock::System.now());
        (process, user, operations)
    }

    async fn emulator(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/_emulator/{path}", self.storage_url);
        let client = Client::new_for_tests();
        let request = match body {
            Some(body) => client.post(url).json(&body),
            None => client.get(url),
        };
        let response = request.send().await.unwrap().error_for_status().unwrap();
        response.json().await.unwrap_or(Value::Null)
    }

    /// Waits until every fault has met its call.
    async fn faults_are_used_up(&self) {
        for _ in 0..1000 {
            if self.emulator("faults", None).await["faults"] == json!([]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a fault met no call");
    }

    /// Waits until storage has had so many calls of this kind.
    async fn called(&self, operation: &str, times: usize) {
        for _ in 0..1000 {
            if self.calls(operation).await >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("storage had fewer than {times} calls of {operation}");
    }

    /// How many calls of this kind storage has had.
    async fn calls(&self, operation: &str) -> usize {
        let journal = self.emulator("journal", None).await;
        let entries = journal["entries"].as_array().unwrap();
        entries.iter().filter(|entry| entry["operation"] == operation).count()
    }
}

/// A client without proxies or redirects.
trait ForTests {
    fn new_for_tests() -> Client;
}

impl ForTests for Client {
    fn new_for_tests() -> Client {
        Self::builder().no_proxy().build().unwrap()
    }
}

const ANY: &str = "[[policies]]\nname = \"any\"\nobject = \"any/{id}\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_broker_created_another_completes() {
    let Some(deployment) = Deployment::start(ANY).await else { return };
    let (mut first, ada, _) = deployment.serve("info");
    let created = ada.create(10).await.is(201);
    first.kill();
    let (_second, ada, _) = deployment.serve("info");
    assert_eq!(ada.put(&created.uri(), None, noise(10, 1)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_between_session_and_record_loses_nothing_for_good() {
    let Some(deployment) = Deployment::start("[[policies]]\nname = \"one\"\nobject = \"{id}\"\nmax_active = 1\n").await
    else {
        return;
    };
    let (mut first, ada, _) = deployment.serve("info");
    let hold = json!([{"operation": "initiate", "action": {"kind": "hold"}}]);
    deployment.emulator("faults", Some(hold)).await;
    let keyed = ada.clone().with("idempotency-key", "once");
    let creating = tokio::spawn(async move {
        keyed.try_call(reqwest::Method::POST, "/v1/uploads", Some(&json!({"filename": "f", "size_bytes": 10}))).await
    });
    deployment.faults_are_used_up().await;
    first.kill();
    assert!(creating.await.unwrap().is_err(), "the broker died before it could answer");
    deployment.emulator("faults/release", Some(json!({}))).await;

    let (_second, ada, _) = deployment.serve("info");
    let keyed = ada.clone().with("idempotency-key", "once");
    let body = json!({"filename": "f", "size_bytes": 10});
    let waiting = keyed.create_from(body.clone()).await.is_problem(409, "idempotency-in-progress");
    let wait: u64 = waiting.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 7, "the lease is storage's time and a margin: {wait}");
    ada.create_from(body.clone()).await.is_problem(429, "quota-exceeded");
    tokio::time::sleep(Duration::from_secs(wait)).await;

    let created = keyed.create_from(body.clone()).await.is(201);
    assert_eq!(keyed.create_from(body).await.is(201).id(), created.id());
    assert_eq!(ada.put(&created.uri(), None, noise(10, 2)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
    ada.create(10).await.is(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_answers_what_is_under_way_and_leaves_in_good_order() {
    let Some(deployment) = Deployment::start(ANY).await else { return };
    let (mut broker, ada, operations) = deployment.serve("info");
    ada.create(10).await.is(201);
    deployment
        .emulator("faults", Some(json!([{"operation": "initiate", "action": {"kind": "delay", "for": "800ms"}}])))
        .await;
    let slow = tokio::spawn({
        let ada = ada.clone();
        async move { ada.create(10).await }
    });
    deployment.faults_are_used_up().await;
    broker.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ready = reqwest::get(format!("http://{operations}/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("draining"));
    slow.await.unwrap().is(201);
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.printed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_client_survives_kill_minus_nine() {
    let Some(deployment) = Deployment::start(ANY).await else { return };
    let (_broker, ada, _) = deployment.serve("info");
    let file = deployment.folder.path().join("film.bin");
    let bytes = noise(24 << 20, 3);
    std::fs::write(&file, &bytes).unwrap();
    let token_file = deployment.folder.path().join("ada.token");
    std::fs::write(&token_file, token("ada", Clock::System.now(), &[])).unwrap();
    let upload = |file: &Path| {
        let mut command = command();
        command
            .arg("upload")
            .arg(file)
            .args(["--broker", &ada.broker, "--chunk-size", "1MiB", "--token-file"])
            .arg(&token_file);
        Process::spawn(command)
    };
    deployment
        .emulator(
            "faults",
            Some(json!([{"operation": "chunk", "count": null, "action": {"kind": "delay", "for": "100ms"}}])),
        )
        .await;
    let mut first = upload(&file);
    deployment.called("chunk", 6).await;
    first.kill();
    let before = deployment.calls("chunk").await;
    let mut second = upload(&file);
    assert_eq!(second.wait().code(), Some(0), "{}", second.printed());
    let printed = second.printed();
    assert!(printed.contains("resumed at"), "{printed}");
    assert!(printed.contains("completed"), "{printed}");
    let after = deployment.calls("chunk").await - before;
    assert!(after < 24, "{after} of 24 chunks were sent again");

    let listed = ada.get("/v1/uploads").await.is(200);
    assert_eq!(listed.body["uploads"].as_array().unwrap().len(), 1, "one upload, not two");
    let upload = &listed.body["uploads"][0];
    assert_eq!(upload["state"], "completed");
    let expected = upload_broker::model::digest::Crc32c(crc32c::crc32c(&bytes)).to_string();
    assert_eq!(upload["result"]["crc32c"], expected);
    assert!(!deployment.storage.printed().contains("panicked"));
    let _ = &deployment.redis;
}
