//! `check --live`, what `serve` looks at when it starts, and the region of the machine.

mod cases;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use upload_broker::app::{self, World};
use upload_broker::clock::Randomness;
use upload_broker::config;
use upload_broker::emulator::faults::{Action, Fault, Reply};
use upload_broker::emulator::journal::Operation;
use upload_broker::emulator::{self, BucketSettings, CorsRule, Emulator};
use upload_broker::http::gate::Transport;
use upload_broker::live;
use upload_broker::live::report::{Report, Status};

use cases::Case;

use crate::support::crossing::{Crossing, Side};
use crate::support::process::{Process, command, serve};
use crate::support::redis::{self, RedisServer};
use crate::support::surroundings::{Metadata, Outside, TOKEN};
use crate::support::{BUCKET, issuer_key, push_key, pusher};

const WEBHOOK_SECRET: &str = "whsec_czNjcmV0LW9mLXRoZS13ZWJob29rLTEyMzQ1Njc4";
const SESSION_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Everything around a broker but its storage, which each case has for itself.
struct Scene {
    outside: Outside,
    redis: RedisServer,
}

impl Scene {
    async fn start() -> Option<Self> {
        let redis = redis::start().await?;
        redis.set("save", "3600 1").await;
        Some(Self { outside: Outside::start(issuer_key().key_set()).await, redis })
    }

    /// A configuration in which all is well, with its files.
    fn configuration(&self, folder: &Path, storage: &str) -> String {
        let (outside, store, pushes) = (self.outside.url(), self.redis.url(), pusher::SECTION);
        for (name, text) in [
            ("jwks.json", issuer_key().key_set().to_string()),
            ("push.json", push_key().key_set().to_string()),
            ("session.key", SESSION_KEY.to_owned()),
            ("webhook.secret", WEBHOOK_SECRET.to_owned()),
            ("ca.pem", self.outside.certificate.clone()),
            ("tls.key", self.outside.key.clone()),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        format!(
            r#"
region = "europe-west1"
trusted_ca = "ca.pem"

[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
public_url = "https://eu.uploads.example.com"
tls = {{ certificate = "ca.pem", key = "tls.key" }}
allowed_origins = ["https://app.example.com"]

[store]
url = "{store}"
encryption_keys = [{{ id = "k1", file = "session.key" }}]

[storage]
endpoint = "{storage}"
timeout = "5s"

[[issuers]]
issuer = "{outside}"
audiences = ["upload-broker"]
algorithms = ["ES256"]

[[regions]]
name = "europe-west1"
bucket = "{BUCKET}"
url = "https://eu.uploads.example.com"

[[regions]]
name = "us-east1"
bucket = "media-us"
url = "{outside}"

[[policies]]
name = "videos"
object = "videos/{{sub}}/{{id}}.{{ext}}"
transfers = ["resumable", "simple"]
{pushes}
[[webhooks]]
url = "{outside}/s3cret-path"
name = "backend"
secret_file = "webhook.secret"
allow_private_addresses = true
"#
        )
    }
}

/// A bucket in which all is well.
fn bucket() -> BucketSettings {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let cors = CorsRule {
        origin: texts(&["https://app.example.com"]),
        method: texts(&["PUT", "POST"]),
        response_header: texts(&["content-type", "content-range", "range", "location", "x-goog-*"]),
        max_age_seconds: None,
    };
    let (name, location) = (BUCKET.to_owned(), "europe-west1".to_owned());
    BucketSettings { name, location, cors: vec![cors], ..BucketSettings::default() }
}

async fn storage(bucket: BucketSettings, notification: Option<Value>) -> Emulator {
    let settings = emulator::Settings { buckets: vec![bucket], ..emulator::Settings::default() };
    let emulator = Emulator::start(settings).await.unwrap();
    if let Some(config) = notification {
        let url = format!("{}/storage/v1/b/{BUCKET}/notificationConfigs", emulator.url());
        let made = reqwest::Client::builder()
            .build()
            .unwrap()
            .post(url)
            .bearer_auth("t")
            .body(config.to_string())
            .send()
            .await
            .unwrap();
        assert!(made.status().is_success(), "{made:?}");
    }
    emulator
}

fn finalize() -> Value {
    json!({"topic": "//pubsub.googleapis.com/projects/acme/topics/uploads", "event_types": ["OBJECT_FINALIZE"],
           "payload_format": "JSON_API_V1"})
}

fn world(metadata: &str, iam: &str) -> World {
    let environment = upload_broker::storage::Environment {
        gce_metadata_host: Some(metadata.to_owned()),
        iam_credentials: Some(iam.to_owned()),
        ..upload_broker::storage::Environment::default()
    };
    World { environment, randomness: Randomness::System, ..World::of_this_process(Transport::HttpsOnly) }
}

async fn check(folder: &Path, text: &str, world: &World) -> Report {
    let config = config::load(text, &folder.join("broker.toml"), []).unwrap_or_else(|errors| panic!("{errors}"));
    let subject = Box::pin(app::live_subject(&config, world)).await.unwrap();
    Box::pin(live::check(&subject)).await
}

/// The first of its kind in the text, replaced.
fn edit(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1)
}

fn withhold(bucket: &mut BucketSettings, permission: &str) {
    bucket.withheld.push(permission.to_owned());
}

#[tokio::test]
async fn each_fault_is_found_and_hides_nothing_else() {
    let Some(scene) = Scene::start().await else { return };
    for case in cases::all() {
        let Case { name, zone, notification, redis, fault, expected, .. } = case;
        let folder = TempDir::new().unwrap();
        let mut bucket = bucket();
        (case.bucket)(&mut bucket);
        let is_readable = !bucket.withheld.iter().any(|one| one == "storage.buckets.get");
        let storage = storage(bucket, notification.filter(|_| is_readable)).await;
        if let Some((operation, status)) = fault {
            let reply = Reply { body: emulator::faults::Body::Json, ..Reply::status(status) };
            let fault = Fault::once(operation, Action::Respond(reply));
            storage.faults().add(Fault { count: None, ..fault });
        }
        for (setting, value) in redis {
            scene.redis.set(setting, value).await;
        }
        let text = (case.config)(scene.configuration(folder.path(), &storage.url()));
        let metadata = Metadata::of(zone).await;
        let report = check(folder.path(), &text, &world(&metadata.host, &storage.url())).await;
        scene.redis.set("maxmemory-policy", "noeviction").await;
        scene.redis.set("save", "3600 1").await;

        let table = report.table();
        let amiss: Vec<_> = report.checks.iter().filter(|row| row.status != Status::Ok).collect();
        assert_eq!(amiss.len(), expected.len(), "{name}:\n{table}");
        for (row, (kind, status, part)) in amiss.iter().zip(expected) {
            assert_eq!((row.name, row.status), (*kind, *status), "{name}:\n{table}");
            assert!(row.found.contains(part), "{name}:\n{table}");
            let has_remedy = matches!(row.status, Status::Warning | Status::Failed);
            assert_eq!(row.remedy.is_some(), has_remedy, "{name}:\n{table}");
        }
        let worst = expected.iter().map(|(_, status, _)| *status).max().unwrap_or(Status::Ok);
        assert_eq!(report.status, worst.max(Status::Ok), "{name}");
        assert!(!table.contains(TOKEN) && !table.contains("s3cret"), "{name}:\n{table}");
    }
}

#[tokio::test]
async fn what_answers_for_another_region_is_told_apart() {
    let Some(scene) = Scene::start().await else { return };
    let (metadata, way) = (Metadata::of("europe-west1-b").await, Crossing::new().await);
    let storage = storage(bucket(), Some(finalize())).await;
    let problem = |code: &str| format!("application/problem+json\n\n{{\"code\": \"{code}\", \"status\": 503}}");
    for (name, says, status, part) in [
        ("a broker", "200 OK\ncontent-type: application/json\n\n{\"region\": \"us-east1\"}".to_owned(), Status::Ok, ""),
        (
            "a broker that is not ready",
            format!("503 Service Unavailable\ncontent-type: {}", problem("store-unavailable")),
            Status::Warning,
            "answers, and takes no uploads: store-unavailable",
        ),
        (
            "a load balancer without a broker",
            "503 Service Unavailable\ncontent-type: text/plain\n\nno healthy upstream".to_owned(),
            Status::Warning,
            "as no broker does",
        ),
        (
            "what is no word of ours",
            format!("503 Service Unavailable\ncontent-type: {}", problem("<script>")),
            Status::Warning,
            "as no broker does",
        ),
        ("a page", "200 OK\ncontent-type: text/html\n\n<html>".to_owned(), Status::Warning, "is no broker"),
        ("a gateway", "404 Not Found\ncontent-type: text/html\n\n<html>".to_owned(), Status::Warning, "gave 404"),
    ] {
        way.lead_to(Side::Says(says));
        let folder = TempDir::new().unwrap();
        let text = scene.configuration(folder.path(), &storage.url());
        let from = format!("bucket = \"media-us\"\nurl = \"{}", scene.outside.url());
        let text = edit(&text, &from, &format!("bucket = \"media-us\"\nurl = \"{}", way.url()));
        let report = check(folder.path(), &text, &world(&metadata.host, &storage.url())).await;
        let row = report.checks.iter().find(|row| row.name == "broker").unwrap();
        assert_eq!((row.subject.as_str(), row.status), ("us-east1", status), "{name}: {}", row.found);
        assert!(row.found.contains(part), "{name}: {}", row.found);
    }
}

#[tokio::test]
async fn programs_read_the_result_and_the_exit_code() {
    let Some(scene) = Scene::start().await else { return };
    let (folder, metadata) = (TempDir::new().unwrap(), Metadata::of("europe-west1-b").await);
    let storage = storage(bucket(), Some(finalize())).await;
    let good = scene.configuration(folder.path(), &storage.url());
    let bad = edit(&good, "algorithms = [\"ES256\"]", "algorithms = [\"RS256\"]");
    let none = edit(&good, "region = \"europe-west1\"", "region = \"mars\"");
    for (name, text, code, status) in
        [("good", good, 0, "ok"), ("bad", bad, 1, "failed"), ("unusable", none, 2, "failed")]
    {
        let file = folder.path().join("broker.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = command();
        command.args(["check", "--live", "--format", "json", "--config"]).arg(&file);
        command.env("GCE_METADATA_HOST", &metadata.host);
        command.env("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS", storage.url());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {printed}");
        let report: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(report["status"], status, "{name}: {printed}");
        let rows = report["checks"].as_array().unwrap();
        let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        if code == 2 {
            assert_eq!(names, ["configuration"], "{printed}");
            assert!(rows[0]["found"].as_str().unwrap().contains("broker.toml:2:1: region"), "{printed}");
            continue;
        }
        let expected = [
            "configuration",
            "instance",
            "regions",
            "credentials",
            "clock",
            "location",
            "permissions",
            "cors",
            "retention",
            "notifications",
            "signing",
            "store",
            "issuer",
            "push issuer",
            "webhook",
            "broker",
            "certificate",
        ];
        assert_eq!(names, expected, "{name}");
        for row in rows {
            let keys: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
            let is_good = matches!(row["status"].as_str(), Some("ok" | "skipped"));
            let all = ["found", "name", "remedy", "status", "subject"];
            let expected: Vec<_> = all.into_iter().filter(|key| !(is_good && *key == "remedy")).collect();
            assert_eq!(keys, expected, "{row}");
        }
    }
}

#[tokio::test]
async fn no_secret_is_printed_even_where_everything_fails() {
    let Some(scene) = Scene::start().await else { return };
    let (folder, metadata) = (TempDir::new().unwrap(), Metadata::of("europe-west1-b").await);
    let storage = storage(bucket(), None).await;
    let reply = Reply::status(401);
    storage.faults().add(Fault { count: None, ..Fault::once(Operation::TestPermissions, Action::Respond(reply)) });
    let text = scene.configuration(folder.path(), &storage.url());
    let text = edit(&text, &scene.redis.url(), "redis://user:s3cret-password@127.0.0.1:1");
    let text =
        edit(&text, &format!("{}/s3cret-path", scene.outside.url()), "https://localhost:1/s3cret-path?key=s3cret");
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, text).unwrap();
    for format in ["text", "json"] {
        let mut command = command();
        command.args(["check", "--live", "--format", format, "--config"]).arg(&file);
        command.env("GCE_METADATA_HOST", &metadata.host).env("RUST_LOG", "debug");
        command.env("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS", storage.url());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{printed}");
        for (row, part) in [("store", "refused"), ("webhook", "refused"), ("permissions", "does not accept")] {
            assert!(printed.contains(row) && printed.contains(part), "{row}: {printed}");
        }
        for secret in ["s3cret", TOKEN, SESSION_KEY, &WEBHOOK_SECRET[6..], "PRIVATE KEY"] {
            assert!(!printed.contains(secret), "{secret} is in {printed}");
        }
    }
}

#[tokio::test]
async fn a_check_ends_in_time_whoever_hangs() {
    // It listens, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let Some(scene) = Scene::start().await else { return };
    let folder = TempDir::new().unwrap();
    let text = scene.configuration(folder.path(), &format!("http://{address}"));
    let text = text.replace(&scene.outside.url(), &format!("https://{address}"));
    let text = edit(&text, &scene.redis.url(), &format!("redis://{address}"));
    let world = world(&address.to_string(), &format!("http://{address}"));
    // From here on, what is waited for in vain costs no time.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let report = check(folder.path(), &text, &world).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let table = report.table();
    for name in ["credentials", "store", "issuer", "webhook"] {
        let row = report.checks.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no {name} in {table}"));
        assert_eq!(row.status, Status::Failed, "{table}");
    }
    let certificate = report.checks.iter().find(|row| row.name == "certificate").unwrap();
    assert_eq!(certificate.status, Status::Ok, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_what_is_amiss_and_serves_all_the_same() {
    const ELSEWHERE: [(&str, &str); 1] =
        [("instance", "this machine is in europe-west4: sessions that it opens are bound to that region")];
    let Some(scene) = Scene::start().await else { return };
    let mut bucket = bucket();
    bucket.location = "US-EAST1".into();
    withhold(&mut bucket, "storage.objects.get");
    let storage = storage(bucket, None).await;
    let of_storage = [("location", "every byte makes a detour"), ("permissions", "no upload can end")];
    for (region, zone, of_place, counts) in [
        ("auto", "europe-west1-b", &[][..], "2 ok, 0 with a warning, 2 failed, 0 skipped"),
        ("europe-west1", "europe-west4-a", &ELSEWHERE[..], "1 ok, 0 with a warning, 3 failed, 0 skipped"),
    ] {
        let (folder, metadata) = (TempDir::new().unwrap(), Metadata::of(zone).await);
        let file = folder.path().join("broker.toml");
        let text = scene.configuration(folder.path(), &storage.url());
        std::fs::write(&file, edit(&text, "region = \"europe-west1\"", &format!("region = \"{region}\""))).unwrap();
        let mut command = serve(&file, "info");
        command.env("GCE_METADATA_HOST", &metadata.host);
        tokio::task::spawn_blocking(move || {
            let (mut broker, ..) = Process::listening(command);
            assert!(broker.line_with("\"listening\"").contains("\"region\":\"europe-west1\""));
            for (check, part) in of_place.iter().chain(&of_storage) {
                let line: Value = serde_json::from_str(&broker.line_with(part)).unwrap();
                assert_eq!((line["level"].as_str(), line["check"].as_str()), (Some("WARN"), Some(*check)), "{line}");
            }
            broker.line_with(&format!("the set-up was looked at: {counts}"));
            broker.signal("TERM");
            assert_eq!(broker.wait().code(), Some(0), "{}", broker.printed());
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_in_no_region_does_not_serve_and_says_where_it_is() {
    let Some(scene) = Scene::start().await else { return };
    let (folder, metadata) = (TempDir::new().unwrap(), Metadata::of("asia-east1-a").await);
    let storage = storage(bucket(), None).await;
    let file = folder.path().join("broker.toml");
    let text = scene.configuration(folder.path(), &storage.url());
    std::fs::write(&file, edit(&text, "region = \"europe-west1\"", "region = \"auto\"")).unwrap();
    for (host, part) in [
        (metadata.host.as_str(), "broker.toml:2:1: region: \"asia-east1\" is not the name of any [[regions]]"),
        ("127.0.0.1:1", "broker.toml:2:1: region: \"auto\": the metadata server 127.0.0.1:1 cannot be reached"),
    ] {
        let mut command = serve(&file, "info");
        command.env("GCE_METADATA_HOST", host);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(part), "{told}");
    }
}
