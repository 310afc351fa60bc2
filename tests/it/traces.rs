//! Traces, and the log lines that bear their ids.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use upload_broker::app::Ended;
use upload_broker::clock::Clock;
use upload_broker::model::time::Timestamp;

use crate::support::broker::{configuration, emulator_of};
use crate::support::collector::{Collector, attribute};
use crate::support::crossing::{Crossing, Side};
use crate::support::process::Process;
use crate::support::{Broker, Settings, User};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

async fn traced() -> (Collector, Broker) {
    let collector = Collector::start().await;
    let broker = Broker::start_with(Settings { more: collector.section(), ..Settings::default() }).await;
    (collector, broker)
}

fn is_root(span: &Value) -> bool {
    span["parentSpanId"].is_null()
}

#[tokio::test]
async fn a_create_is_one_trace_of_all_that_was_done_for_it() {
    let (collector, broker) = traced().await;
    let created = broker.user("ada-lovelace").create(10).await.is(201);
    let request = collector.named("POST /v1/uploads").await;
    assert!(is_root(&request) && request["kind"] == 2 && request["links"].is_null(), "{request:#}");
    let id = created.id();
    for (key, expected) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/uploads"),
        ("http.response.status_code", "201"),
        ("url.scheme", "http"),
        ("server.address", "eu.uploads.example.com"),
        ("network.protocol.version", "1.1"),
        ("request.id", created.header("x-request-id").unwrap()),
        ("upload.id", &id),
        ("upload.policy", "videos"),
    ] {
        assert_eq!(attribute(&request, key).as_deref(), Some(expected), "{key}");
    }
    for (name, kind, key, expected) in [
        ("store admit", 1, "db.system.name", "memory"),
        ("storage initiate", 3, "http.response.status_code", "200"),
        ("store attach", 1, "db.system.name", "memory"),
    ] {
        let span = collector.named(name).await;
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&request["traceId"], &request["spanId"]), "{name}");
        assert_eq!(span["kind"], kind, "{name}");
        assert_eq!(attribute(&span, key).as_deref(), Some(expected), "{name}");
        let time = |span: &Value, edge: &str| span[edge].as_str().unwrap().parse::<u128>().unwrap();
        assert!(time(&request, "startTimeUnixNano") <= time(&span, "startTimeUnixNano"), "{name} began first");
        assert!(time(&span, "endTimeUnixNano") <= time(&request, "endTimeUnixNano"), "{name} ended last");
    }
    assert!(!String::from_utf8(collector.bytes()).unwrap().contains("ada-lovelace"), "spans say who a user is");
}

#[tokio::test]
async fn a_span_holds_neither_paths_nor_queries_and_says_what_failed() {
    let (collector, broker) = traced().await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    ada.look(&created.id()).await.is(200);
    let looked = collector.named("GET /v1/uploads/{id}").await;
    assert_eq!(attribute(&looked, "upload.id"), Some(created.id()));
    let look = collector.named("storage look").await;
    assert_eq!(look["parentSpanId"], looked["spanId"]);
    ada.get("/v1/uploads/no-such-upload?limit=1").await.is_problem(404, "not-found");
    let missing = |span: &Value| attribute(span, "http.response.status_code").as_deref() == Some("404");
    let missing = collector.span("404", missing).await;
    assert!(missing["status"].is_null(), "a client's mistake is no failure: {missing:#}");
    let text = String::from_utf8(collector.bytes()).unwrap();
    for part in ["?", "refresh", "no-such-upload", "upload_id", "authorization", "Bearer"] {
        assert!(!text.contains(part), "{part} is in {text}");
    }

    let fault = json!([{"operation": "initiate", "action": {"kind": "respond", "status": 400}}]);
    let faults = format!("{}/_emulator/faults", broker.storage.url());
    ada.client.post(&faults).json(&fault).send().await.unwrap().error_for_status().unwrap();
    ada.create(10).await.is_problem(502, "storage-error");
    let failed = |span: &Value| attribute(span, "error.type").as_deref() == Some("storage-error");
    let failed = collector.span("failed request", failed).await;
    assert_eq!((&failed["status"]["code"], &failed["name"]), (&json!(2), &json!("POST /v1/uploads")));
    let cause = |span: &Value| span["parentSpanId"] == failed["spanId"] && span["status"]["code"] == 2;
    let cause = collector.span("cause", cause).await;
    assert_eq!(cause["name"], "storage initiate");
    assert_eq!(attribute(&cause, "error.type").as_deref(), Some("refused"));
}

#[tokio::test]
async fn a_trusted_proxy_decides_on_a_trace_and_nobody_else_does() {
    let collector = Collector::start().await;
    let settings = |server: &str| Settings {
        more: format!("{}trace_ratio = 1.0\n", collector.section()),
        server: server.to_owned(),
        ..Settings::default()
    };
    let stranger = Broker::start_with(settings("")).await;
    stranger.user("ada").with("traceparent", &format!("{CALLER}-00")).get("/v1/policies").await.is(200);
    let linked = collector.named("GET /v1/policies").await;
    let (trace, span) = (&CALLER[3..35], &CALLER[36..]);
    assert!(is_root(&linked) && linked["traceId"] != trace, "{linked:#}");
    assert_eq!(linked["links"], json!([{"traceId": trace, "spanId": span}]));

    let proxied = Broker::start_with(settings("trusted_proxies = [\"127.0.0.0/8\"]")).await;
    let ada = proxied.user("ada");
    ada.clone().with("traceparent", &format!("{CALLER}-00")).get("/v1/policies").await.is(200);
    ada.with("traceparent", &format!("{CALLER}-01")).get("/v1/uploads").await.is(200);
    let continued = collector.named("GET /v1/uploads").await;
    assert_eq!((&continued["traceId"], &continued["parentSpanId"]), (&json!(trace), &json!(span)));
    assert_eq!(proxied.stop().await, Ended::Drained);
    let policies = collector.spans().into_iter().filter(|span| span["name"] == "GET /v1/policies");
    assert_eq!(policies.count(), 1, "what the proxy does not record is not recorded here either");
}

#[tokio::test]
async fn what_another_region_did_is_in_the_same_trace() {
    const ASIA: &str = "asia-southeast1";
    let collector = Collector::start().await;
    let (here, there) = (Crossing::new().await, Crossing::new().await);
    let settings = |region, bucket, ways: [&Crossing; 2], other: &str| Settings {
        region,
        bucket,
        url: ways[0].url(),
        more_regions: format!("[[regions]]\n{other}\nurl = \"{}\"\n", ways[1].url()),
        server: "trusted_proxies = [\"127.0.0.0/8\"]".to_owned(),
        more: format!("{}[routing]\ngeo_header = \"x-client-geo\"\nmisdirected = \"forward\"\n", collector.section()),
        ..Settings::default()
    };
    let asia = settings(ASIA, "media-asia", [&there, &here], "name = \"europe-west1\"\nbucket = \"media-eu\"");
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let asia = Broker::start_beside(emulator_of("media-asia", ASIA, clock.clone()).await, clock.clone(), asia).await;
    there.lead_to(Side::Server(asia.address));
    let europe =
        settings("europe-west1", "media-eu", [&here, &there], &format!("name = \"{ASIA}\"\nbucket = \"media-asia\""));
    let storage = emulator_of("media-eu", "europe-west1", clock.clone()).await;
    let europe = Broker::start_beside(storage, clock, europe).await;
    here.lead_to(Side::Server(europe.address));

    let user = europe.user("ada").with("x-client-geo", "JP");
    let created = user.create(10).await.is(201);
    assert_eq!(created.text("/region"), ASIA);
    let forward = collector.named("region forward").await;
    assert_eq!((&forward["kind"], &forward["status"]), (&json!(3), &Value::Null), "{forward:#}");
    for (key, expected) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "201"),
        ("server.address", "127.0.0.1"),
        ("routing.peer", ASIA),
    ] {
        assert_eq!(attribute(&forward, key).as_deref(), Some(expected), "{key}");
    }
    let answered = |span: &Value| span["name"] == "POST /v1/uploads" && span["parentSpanId"] == forward["spanId"];
    let answered = collector.span("the request there", answered).await;
    let asked = |span: &Value| span["name"] == "POST /v1/uploads" && span["spanId"] == forward["parentSpanId"];
    let asked = collector.span("the request here", asked).await;
    assert!(is_root(&asked), "{asked:#}");
    for part in [&forward, &answered] {
        assert_eq!(part["traceId"], asked["traceId"]);
    }

    // One that fails says so, and by which of the reasons that metrics count.
    there.lead_to(Side::Nothing);
    user.create(10).await.is(201);
    let failed = |span: &Value| span["name"] == "region forward" && span["status"]["code"] == 2;
    let failed = collector.span("a forward that failed", failed).await;
    assert_eq!(attribute(&failed, "error.type").as_deref(), Some("no_connection"), "{failed:#}");
    let text = String::from_utf8(collector.bytes()).unwrap();
    assert!(!text.contains("Bearer") && !text.contains("upload_id"), "a secret is in {text}");
}

#[tokio::test]
async fn a_sweep_is_a_trace_of_what_it_settled() {
    let (collector, broker) = traced().await;
    let created = broker.user("ada").create(10).await.is(201);
    broker.pass(Duration::from_secs(16 * 60));
    assert_eq!(broker.sweep().await.due, 1);
    let round = collector.named("sweep").await;
    assert!(is_root(&round) && attribute(&round, "sweep.due").as_deref() == Some("1"), "{round:#}");
    let settled = collector.named("sweep settle").await;
    assert_eq!(settled["parentSpanId"], round["spanId"]);
    assert_eq!(attribute(&settled, "upload.id"), Some(created.id()));
    assert_eq!(collector.named("storage look").await["parentSpanId"], settled["spanId"]);
    let claims = collector.spans().into_iter().filter(|span| span["name"] == "store claim");
    assert_eq!(claims.count(), 0, "256 partitions would bury it");
}

#[tokio::test]
async fn what_ended_before_the_end_is_delivered_and_a_silent_collector_holds_nobody_up() {
    let (collector, broker) = traced().await;
    broker.user("ada").get("/v1/policies").await.is(200);
    assert_eq!(broker.stop().await, Ended::Drained);
    let names: Vec<_> = collector.spans().iter().map(|span| span["name"].clone()).collect();
    assert!(names.contains(&json!("GET /v1/policies")), "{names:?}");

    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = format!("[telemetry]\notlp_endpoint = \"http://{}\"\n", silent.local_addr().unwrap());
    let broker = Broker::start_with(Settings { more, ..Settings::default() }).await;
    let ada = broker.user("ada");
    for _ in 0..3 {
        ada.create(10).await.is(201);
    }
    assert_eq!(broker.stop().await, Ended::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_collector_a_broker_serves_on_and_says_so_once() {
    let (_storage, storage) = Process::emulator();
    let collector = Collector::start().await;
    collector.refuse(Some(503));
    let folder = TempDir::new().unwrap();
    let settings = Settings { more: collector.section(), ..Settings::default() };
    std::fs::write(folder.path().join("broker.toml"), configuration(folder.path(), &storage, &settings)).unwrap();
    let (broker, address, operations) = Process::serve(&folder.path().join("broker.toml"), "warn,upload_broker=info");
    let ada = User::new(format!("http://{address}"), "ada", Clock::System.now());
    // More spans than may wait.
    for _ in 0..2100 / 2 {
        ada.get("/v1/policies").await.is(200);
    }
    while collector.refusals() < 2 {
        ada.get("/v1/policies").await.is(200);
    }
    let counted = async || {
        let text = reqwest::get(format!("http://{operations}/metrics")).await.unwrap().text().await.unwrap();
        move |result: &str| -> u64 {
            let name = format!("upload_broker_telemetry_spans_total{{result=\"{result}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&*name)).unwrap().parse().unwrap()
        }
    };
    // Each request has two spans, its own and that of the store; all but those of a queue and a batch are gone.
    for _ in 0..600 {
        ada.get("/v1/policies").await.is(200);
    }
    let before = counted().await;
    assert_eq!(before("exported"), 0);
    assert!(before("overflowed") > 0, "the queue has no end");
    collector.refuse(None);
    broker.line_with("the collector takes traces again");
    collector.named("GET /v1/policies").await;
    assert_eq!(broker.printed().matches("traces cannot be delivered").count(), 1, "{}", broker.printed());
    while counted().await("exported") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_and_cancellations_are_on_record_under_any_filter_and_bear_the_ids_of_their_trace() {
    let (_storage, storage) = Process::emulator();
    let collector = Collector::start().await;
    let folder = TempDir::new().unwrap();
    let issuer = "admin_when = 'claims.sub == \"root\"'".to_owned();
    let settings = Settings { more: collector.section(), issuer, ..Settings::default() };
    std::fs::write(folder.path().join("broker.toml"), configuration(folder.path(), &storage, &settings)).unwrap();
    let config = folder.path().join("broker.toml");
    let (broker, address, _) = Process::serve(&config, "error,upload_broker::cli=info");
    let ada = User::new(format!("http://{address}"), "ada", Clock::System.now()).with("idempotency-key", "once");
    let created = ada.create(10).await.is(201);
    assert_eq!(ada.create(10).await.is(201).id(), created.id());
    let path = format!("/v1/uploads/{}/renew", created.id());
    ada.call(reqwest::Method::POST, &path, None).await.is(200);
    ada.cancel(&created.id()).await.is(200);
    ada.cancel(&"0".repeat(34)).await.is(404);
    let other = User::new(ada.broker.clone(), "ada", Clock::System.now()).create(10).await.is(201);
    let root = User::new(ada.broker.clone(), "root", Clock::System.now());
    let path = format!("/v1/admin/uploads/{}", other.id());
    root.call(reqwest::Method::DELETE, &path, None).await.is(200);
    root.get(&path).await.is(200);
    root.get(&format!("/v1/admin/uploads/{}", "0".repeat(34))).await.is(404);
    root.get("/v1/admin/uploads?subject=ada").await.is(200);
    root.get("/v1/admin/usage").await.is(200);
    broker.line_with("\"action\":\"usage\"");

    let log = broker.printed();
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["target"] == "upload_broker::audit")
        .collect();
    let told: Vec<_> = lines.iter().map(|line| (line["action"].clone(), line["outcome"].clone())).collect();
    let expected = [
        ("create", "granted"),
        ("create", "repeated"),
        ("renew", "granted"),
        ("cancel", "cancelled"),
        ("create", "granted"),
        ("cancel", "cancelled"),
        ("read", "read"),
        ("read", "not found"),
        ("list", "read"),
        ("usage", "read"),
    ];
    assert_eq!(told, expected.map(|(action, outcome)| (json!(action), json!(outcome))), "{log}");
    let first = &lines[0];
    for (field, value) in [
        ("upload.id", json!(created.id())),
        ("policy", json!("videos")),
        ("bucket", json!("media-eu")),
        ("transfer", json!("resumable")),
        ("size_bytes", json!(10)),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!(first["principal"].as_str().unwrap().len(), 32);
    assert!(lines[5]["administrator"].is_string() && lines[5]["principal"].is_null());
    for forbidden in ["upload_id=", "holiday", "http://", "/ada/"] {
        let audit = lines.iter().map(Value::to_string).collect::<String>();
        assert!(!audit.contains(forbidden), "{forbidden} is in {audit}");
    }
    let request = collector.named("POST /v1/uploads").await;
    assert_eq!(first["span"]["trace_id"], request["traceId"]);
    assert_eq!(first["span"]["span_id"], request["spanId"]);
    assert_eq!(first["span"]["request.id"], created.header("x-request-id").unwrap());
}
