//! Secrets stay secret: planted wherever they can pass, and looked for wherever they could come out.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use upload_broker::clock::Clock;

use crate::support::broker::configuration;
use crate::support::process::Process;
use crate::support::{Settings, User, noise, redis};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_metric_error_or_redis_value() {
    let Some(redis) = redis::start().await else { return };
    let (_storage, storage_url) = Process::emulator();
    let folder = TempDir::new().unwrap();
    let settings = Settings {
        store: redis.url(),
        policies: "[[policies]]\nname = \"any\"\nobject = \"any/{id}\"\nmax_active = 2\n".to_owned(),
        ..Settings::default()
    };
    let text = configuration(folder.path(), &storage_url, &settings);
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let (broker, address, operations) = Process::serve(&folder.path().join("broker.toml"), "trace");
    let ada = User::new(format!("http://{address}"), "ada", Clock::System.now());

    let mut seen_by_clients = String::new();
    let created = ada.create(10).await.is(201);
    let secret = created.uri().split("upload_id=").nth(1).unwrap().to_owned();
    assert!(secret.len() > 100, "a secret worth looking for");
    ada.look(&created.id()).await.is(200);
    ada.complete(&created.id()).await.is(409);
    ada.put(&created.uri(), None, noise(10, 1)).await;
    ada.complete(&created.id()).await.is_upload(200, "completed");
    let other = ada.create(10).await.is(201);
    let second_secret = other.uri().split("upload_id=").nth(1).unwrap().to_owned();
    ada.cancel(&other.id()).await.is(200);
    let kept = ada.create(10).await.is(201);
    let kept_secret = kept.uri().split("upload_id=").nth(1).unwrap().to_owned();

    // A client that puts secrets where they do not belong.
    let planted = "planted-3f9a0c51e2b7d84f-secret";
    for body in [
        json!({"filename": "f", "size_bytes": planted}),
        json!({"filename": planted.repeat(20), "size_bytes": 1}),
        json!({"filename": "f", "size_bytes": 1, "policy": planted}),
        json!({"filename": "f", "size_bytes": 1, "md5": planted}),
        json!({"filename": "f", "size_bytes": 1, planted: 1}),
    ] {
        seen_by_clients += &ada.create_from(body).await.body.to_string();
    }
    for path in [format!("/v1/uploads/{planted}"), format!("/{planted}"), format!("/v1/uploads?cursor={planted}")] {
        seen_by_clients += &ada.get(&path).await.body.to_string();
    }
    let forged = format!("{planted}.{planted}.{planted}");
    seen_by_clients += &ada.clone().bearing(forged).get("/v1/uploads").await.body.to_string();
    seen_by_clients += &ada.clone().with("x-request-id", planted).get("/v1/uploads").await.body.to_string();
    let metrics = reqwest::get(format!("http://{operations}/metrics")).await.unwrap().text().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;

    let log = broker.printed();
    assert!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the log is at its most talkative");
    let key = "0123456789012345678901";
    let stored = redis.everything().await;
    let sinks = [("the log", log.as_bytes()), ("the metrics", metrics.as_bytes()), ("Redis", &stored[..])];
    let secrets = [
        ("a session's id", &secret),
        ("a cancelled session's id", &second_secret),
        ("an open session's id", &kept_secret),
        ("a token", &ada.token),
        ("what a client planted", &planted.to_owned()),
        ("the sealing key", &key.to_owned()),
        ("the sealing key in base64", &"MDEyMzQ1Njc4OTAxMjM0NTY3".to_owned()),
    ];
    for (sink, bytes) in sinks {
        for (name, secret) in &secrets {
            // The first 24 characters would be as bad as all of them.
            let part = &secret.as_bytes()[..secret.len().min(24)];
            assert!(!bytes.windows(part.len()).any(|window| window == part), "{name} is in {sink}");
        }
    }
    assert!(!seen_by_clients.contains(planted), "{seen_by_clients}");
}
