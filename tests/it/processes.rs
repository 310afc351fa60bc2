//! Real processes: brokers, Redis and the emulator, killed where it hurts.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use upload_broker::clock::Clock;

use crate::support::broker::configuration;
use crate::support::process::{Process, command, serve};
use crate::support::user::{Answer, token};
use crate::support::{Broker, Settings, User, join_all, noise, redis};

/// The files of a deployment.
struct Deployment {
    folder: TempDir,
    storage: Process,
    storage_url: String,
    redis: redis::RedisServer,
}

impl Deployment {
    async fn start(policies: &str) -> Option<Self> {
        Self::start_with(Settings { policies: policies.to_owned(), storage_timeout: "1s", ..Settings::default() }).await
    }

    async fn start_with(settings: Settings) -> Option<Self> {
        let redis = redis::start().await?;
        let (storage, storage_url) = Process::emulator();
        let folder = TempDir::new().unwrap();
        let settings = Settings { store: redis.url(), ..settings };
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

    /// Uploads these bytes as `upload` does, once for each call.
    fn upload_of(&self, bytes: &[u8], chunk: &'static str, broker: &str) -> impl Fn() -> Process + use<> {
        let file = self.folder.path().join("film.bin");
        std::fs::write(&file, bytes).unwrap();
        let token_file = self.folder.path().join("ada.token");
        std::fs::write(&token_file, token("ada", Clock::System.now(), &[])).unwrap();
        let ca = Some(self.folder.path().join("tls.crt")).filter(|_| broker.starts_with("https:"));
        let broker = broker.to_owned();
        move || {
            let mut command = command();
            command.arg("upload").arg(&file).args(["--broker", &broker, "--chunk-size", chunk, "--token-file"]);
            command.arg(&token_file).args(ca.iter().flat_map(|ca| [OsStr::new("--ca"), ca.as_os_str()]));
            Process::spawn(command)
        }
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
    let policies = "[[policies]]\nname = \"one\"\nobject = \"{id}\"\nmax_active = 1\n".to_owned();
    let settings = Settings { policies, storage_timeout: "3s", ..Settings::default() };
    let Some(deployment) = Deployment::start_with(settings).await else { return };
    let (mut first, ada, _) = deployment.serve("info");
    let hold = json!([{"operation": "initiate", "action": {"kind": "act_then_hold"}}]);
    deployment.emulator("faults", Some(hold)).await;
    let keyed = ada.clone().with("idempotency-key", "once");
    let creating = tokio::spawn(async move {
        keyed.try_call(reqwest::Method::POST, "/v1/uploads", Some(&json!({"filename": "f", "size_bytes": 10}))).await
    });
    deployment.called("initiate", 1).await;
    first.kill();
    assert!(creating.await.unwrap().is_err(), "the broker died before it could answer");
    let before = deployment.emulator("sessions", None).await;
    assert_eq!(before["live"], 1, "the session exists: {before}");
    deployment.emulator("faults/release", Some(json!({}))).await;

    let (_second, ada, _) = deployment.serve("info");
    let keyed = ada.clone().with("idempotency-key", "once");
    let body = json!({"filename": "f", "size_bytes": 10});
    let waiting = keyed.create_from(body.clone()).await.is_problem(409, "idempotency-in-progress");
    let wait: u64 = waiting.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 9, "the lease is storage's time and a margin: {wait}");
    ada.create_from(body.clone()).await.is_problem(429, "quota-exceeded");
    tokio::time::sleep(Duration::from_secs(wait)).await;

    let created = keyed.create_from(body.clone()).await.is(201);
    let repeated = keyed.create_from(body).await.is(201);
    assert_eq!((repeated.id(), repeated.uri()), (created.id(), created.uri()));
    assert_eq!(ada.put(&created.uri(), None, noise(10, 2)).await, 200);
    ada.complete(&created.id()).await.is_upload(200, "completed");
    // The URI is that of another session, for the same object; the first one never gets a byte.
    let after = deployment.emulator("sessions", None).await;
    let session = |number: u64| {
        let sessions = after["sessions"].as_array().unwrap();
        sessions.iter().find(|session| session["session"] == number).unwrap_or_else(|| panic!("{after}"))
    };
    assert_eq!(after["sessions"].as_array().unwrap().len(), 2, "{after}");
    assert_eq!((&session(1)["state"], &session(2)["state"]), (&json!("open"), &json!("completed")));
    assert_eq!(session(1)["object"], session(2)["object"]);
    ada.create(10).await.is(201);
}

/// `count` creates at once, every other one at the other broker.
async fn create_at_both(users: [User; 2], count: usize) -> Vec<Answer> {
    let creates = (0..count).map(|position| {
        let user = users[position % 2].clone();
        async move { user.create(10).await }
    });
    join_all(creates).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_creates_at_two_processes_stop_exactly_at_the_limit() {
    let policies = "[[policies]]\nname = \"ten\"\nobject = \"{id}\"\nmax_active = 10\n".to_owned();
    let settings = Settings { policies, storage_timeout: "10s", ..Settings::default() };
    let Some(deployment) = Deployment::start_with(settings).await else { return };
    let (_first, one, _) = deployment.serve("info");
    let (_second, two, _) = deployment.serve("info");
    let answers = create_at_both([one.clone(), two.clone()], 200).await;
    let (created, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!(created.len(), 10);
    for answer in refused {
        answer.is_problem(429, "quota-exceeded");
    }
    assert_eq!(deployment.calls("initiate").await, 10, "no session was opened for a refusal");
    one.cancel(&created[0].id()).await.is_upload(200, "cancelled");
    two.create(10).await.is(201);
    one.create(10).await.is_problem(429, "quota-exceeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_creates_with_one_key_at_two_processes_make_one_upload() {
    let settings = Settings { policies: ANY.to_owned(), storage_timeout: "10s", ..Settings::default() };
    let Some(deployment) = Deployment::start_with(settings).await else { return };
    let (_first, one, _) = deployment.serve("info");
    let (_second, two, _) = deployment.serve("info");
    let keyed = [one, two].map(|user| user.with("idempotency-key", "one"));
    let answers = create_at_both(keyed.clone(), 50).await;
    let (created, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    for answer in refused {
        answer.is_problem(409, "idempotency-in-progress");
    }
    let [one, two] = keyed;
    let known = one.create(10).await.is(201);
    assert!(!created.is_empty());
    for answer in created.iter().chain([&two.create(10).await.is(201)]) {
        assert_eq!((answer.id(), answer.uri()), (known.id(), known.uri()));
    }
    assert_eq!(deployment.calls("initiate").await, 1);
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
    let bytes = noise(24 << 20, 3);
    let upload = deployment.upload_of(&bytes, "1MiB", &ada.broker);
    deployment
        .emulator(
            "faults",
            Some(json!([{"operation": "chunk", "count": null, "action": {"kind": "delay", "for": "100ms"}}])),
        )
        .await;
    let mut first = upload();
    deployment.called("chunk", 6).await;
    first.kill();
    let before = deployment.calls("chunk").await;
    let mut second = upload();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_https_an_upload_survives_kill_minus_nine() {
    let tls = "tls = { certificate = \"tls.crt\", key = \"tls.key\" }".to_owned();
    let settings = Settings { policies: ANY.to_owned(), server: tls, storage_timeout: "5s", ..Settings::default() };
    let Some(deployment) = Deployment::start_with(settings).await else { return };
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(deployment.folder.path().join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(deployment.folder.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let (_broker, address, _) = Process::listening(serve(&deployment.config(), "info"));

    // The pattern is no divisor of a chunk, so that no chunk passes for another.
    let bytes: Vec<u8> = noise((1 << 20) + 7, 4).into_iter().cycle().take(64 << 20).collect();
    let upload = deployment.upload_of(&bytes, "4MiB", &format!("https://{address}"));
    let delay = json!([{"operation": "chunk", "count": null, "action": {"kind": "delay", "for": "100ms"}}]);
    deployment.emulator("faults", Some(delay)).await;
    let mut first = upload();
    deployment.called("chunk", 4).await;
    first.kill();
    let before = deployment.calls("chunk").await;
    assert!(before < 16, "it was done before it could be killed");
    let mut second = upload();
    assert_eq!(second.wait().code(), Some(0), "{}", second.printed());
    assert!(second.printed().contains("resumed at"), "{}", second.printed());
    let after = deployment.calls("chunk").await - before;
    assert!(after < 16, "{after} of 16 chunks were sent again");

    let certificate = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let mut ada = User::new(format!("https://{address}"), "ada", Clock::System.now());
    ada.client = Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap();
    let listed = ada.get("/v1/uploads").await.is(200);
    assert_eq!(listed.body["uploads"].as_array().unwrap().len(), 1, "one upload, not two");
    let upload = &listed.body["uploads"][0];
    assert_eq!((&upload["state"], &upload["size_bytes"]), (&json!("completed"), &json!(64 << 20)));
    let expected = upload_broker::model::digest::Crc32c(crc32c::crc32c(&bytes)).to_string();
    assert_eq!(upload["result"]["crc32c"], expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_plain_http_nothing_is_given_out() {
    let Some(deployment) = Deployment::start(ANY).await else { return };
    let (_broker, address, _) = Process::listening(serve(&deployment.config(), "info"));
    let ada = User::new(format!("http://{address}"), "ada", Clock::System.now());
    ada.create(10).await.is_problem(403, "https-required");
    ada.get("/v1/uploads").await.is_problem(403, "https-required");
    // Nor does anybody's word for it help, who is no trusted proxy.
    let claiming = ada.with("x-forwarded-proto", "https");
    claiming.create(10).await.is_problem(403, "https-required");
    assert_eq!(deployment.calls("initiate").await, 0);
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up() {
    let broker = Broker::start().await;
    let mut stream = TcpStream::connect(broker.address).await.unwrap();
    let head = format!(
        "POST /v1/uploads HTTP/1.1\r\nhost: broker\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n",
        broker.user("ada").token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let trickle = async {
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if writing.write_all(b" ").await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = trickle => {}
        _ = reading.read_to_end(&mut answer) => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("no end: {}", String::from_utf8_lossy(&answer)),
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"request-timeout\""), "{answer}");
    assert_eq!(broker.storage.sessions(), 0);
}
