//! The demo of several regions, as its page and its clients meet it.

use std::time::Duration;

use reqwest::{Client as Web, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use upload_broker::client::{ChunkSize, Client, FinalState, Http, Order, Patience, Token};
use upload_broker::clock::Randomness;
use upload_broker::demo::{Demo, Settings};
use upload_broker::emulator::journal::Operation;
use upload_broker::model::secret::SecretText;
use upload_broker::model::size::ByteCount;

use crate::support::noise;

const EU: &str = "europe-west1";
const US: &str = "us-central1";
const ASIA: &str = "asia-northeast1";

/// A running demo, and somebody who looks at its page.
struct Scene {
    demo: Demo,
    web: Web,
    folder: TempDir,
}

impl Scene {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let country = "DE".parse().unwrap();
        let demo = Demo::start(Settings { port: 0, regions: 3, country, folder: folder.path() }).await.unwrap();
        let web = Web::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { demo, web, folder }
    }

    async fn world(&self) -> Value {
        self.web.get(format!("{}/demo/world", self.demo.page())).send().await.unwrap().json().await.unwrap()
    }

    async fn try_put(&self, place: &str, body: &Value) -> Response {
        let request = self.web.put(format!("{}/demo/{place}", self.demo.page())).body(body.to_string());
        request.send().await.unwrap()
    }

    /// Switches something; gives the world as it is then.
    async fn put(&self, place: &str, body: Value) -> Value {
        let answer = self.try_put(place, &body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{place} {body}");
        let world: Value = answer.json().await.unwrap();
        assert_eq!(world, self.world().await, "what is answered is what is");
        world
    }

    fn broker(&self, region: &str) -> &str {
        self.demo.brokers().find(|(name, _)| *name == region).unwrap().1
    }

    async fn create(&self, broker: &str, policy: &str) -> Response {
        let body = json!({"policy": policy, "filename": "a.mp4", "content_type": "video/mp4", "size_bytes": 5});
        let token = self.demo.token("ada").unwrap();
        self.web.post(format!("{broker}/v1/uploads")).bearer_auth(token).json(&body).send().await.unwrap()
    }

    /// The reference client, at the broker of a region.
    fn client(&self, region: &str) -> Client {
        Client {
            http: Http::new(&[]).unwrap(),
            broker: self.broker(region).parse().unwrap(),
            token: Token::Fixed(SecretText::new(self.demo.token("ada").unwrap())),
            patience: Patience { first_pause: Duration::from_millis(5), ..Patience::default() },
            randomness: Randomness::seeded(7),
        }
    }
}

/// What the geo-DNS of that world answers: the region, and its address.
fn sent(world: &Value) -> (String, String) {
    let region = world["dns"]["region"].as_str().unwrap().to_owned();
    let found = world["regions"].as_array().unwrap().iter().find(|found| found["name"] == region).unwrap();
    (region, found["broker"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_five_countries_get_a_session_in_the_nearest_region() {
    let scene = Scene::start().await;
    for (country, nearest) in [("DE", EU), ("BR", US), ("JP", ASIA), ("ZA", EU), ("AU", ASIA)] {
        let world = scene.put("client", json!({"country": country})).await;
        let (region, broker) = sent(&world);
        assert_eq!(region, nearest, "{country}");
        let created = scene.create(&broker, "videos").await;
        assert_eq!(created.status(), StatusCode::CREATED, "{country}");
        let upload: Value = created.json().await.unwrap();
        let expected = json!({"served_by": nearest, "nearest": nearest, "located_by": "header"});
        assert_eq!(upload["routing"], expected, "{country}");
        let found = world["regions"].as_array().unwrap().iter().find(|found| found["name"] == region).unwrap();
        assert_eq!(upload["bucket"], found["bucket"], "{country}");
        assert!(upload["transfer"]["uri"].as_str().unwrap().starts_with(found["storage"].as_str().unwrap()));
    }
    let sessions = scene.demo.storages().iter().map(|storage| storage.journal().count(Operation::Initiate));
    assert_eq!(sessions.collect::<Vec<_>>(), [2, 1, 2]);
    // The same page elsewhere: who comes astray is served, and told.
    let upload: Value = scene.create(scene.broker(US), "videos").await.json().await.unwrap();
    assert_eq!(upload["routing"], json!({"served_by": US, "nearest": ASIA, "located_by": "header"}));
    scene.demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_stay_in_europe_is_referred_there_and_nobody_can_pretend_to_be_elsewhere() {
    let scene = Scene::start().await;
    scene.put("client", json!({"country": "JP"})).await;
    let referred = scene.create(scene.broker(ASIA), "european").await;
    assert_eq!(referred.status(), StatusCode::MISDIRECTED_REQUEST);
    let problem: Value = referred.json().await.unwrap();
    assert_eq!((&problem["region"], &problem["url"]), (&json!(EU), &json!(scene.broker(EU))));
    let upload: Value = scene.create(scene.broker(EU), "european").await.json().await.unwrap();
    assert_eq!(upload["routing"], json!({"served_by": EU, "nearest": EU, "located_by": "header"}));
    let request = scene.web.get(format!("{}/v1/route", scene.broker(ASIA)));
    let spoofed = request.header("x-client-geo", "DE").header("x-forwarded-for", "192.0.2.1");
    let route: Value = spoofed.send().await.unwrap().json().await.unwrap();
    assert_eq!((&route["country"], &route["regions"][0]["name"]), (&json!("JP"), &json!(ASIA)));
    scene.demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_stopped_is_passed_over_and_comes_back_with_what_it_had() {
    let scene = Scene::start().await;
    scene.put("client", json!({"country": "JP"})).await;
    let created: Value = scene.create(scene.broker(ASIA), "videos").await.json().await.unwrap();
    let uri = created["transfer"]["uri"].as_str().unwrap();

    let world = scene.put("regions/asia-northeast1", json!({"running": false})).await;
    assert_eq!(sent(&world).0, EU);
    assert_eq!(world["regions"][2]["running"], false);
    assert_eq!(scene.create(scene.broker(ASIA), "videos").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(scene.web.put(uri).body("hello").send().await.is_err(), "its storage is away, too");
    assert_eq!(scene.create(&sent(&world).1, "videos").await.status(), StatusCode::CREATED);
    // The other brokers find it out by themselves.
    let passes_over = async {
        loop {
            let route = scene.web.get(format!("{}/v1/route", scene.broker(EU))).send().await.unwrap();
            let route: Value = route.json().await.unwrap();
            if route["regions"][2]["healthy"] == false {
                break route;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let route = tokio::time::timeout(Duration::from_secs(60), passes_over).await.unwrap();
    assert_eq!((&route["regions"][0]["name"], &route["regions"][2]["name"]), (&json!(EU), &json!(ASIA)));

    let world = scene.put("regions/asia-northeast1", json!({"running": true})).await;
    assert_eq!(sent(&world).0, ASIA);
    assert_eq!(scene.web.put(uri).body("hello").send().await.unwrap().status(), StatusCode::OK);
    let token = scene.demo.token("ada").unwrap();
    let path = format!("{}/v1/uploads/{}/complete", scene.broker(ASIA), created["id"].as_str().unwrap());
    let completed: Value = scene.web.post(path).bearer_auth(token).send().await.unwrap().json().await.unwrap();
    assert_eq!(completed["state"], "completed", "{completed}");
    scene.demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_is_played_by_storage_and_survived_by_the_client() {
    let scene = Scene::start().await;
    let bad = json!({"latency_ms": 3, "drops": true, "lost_answers": true, "expired_session": true});
    assert_eq!(scene.put("network", bad.clone()).await["network"], bad);
    let content = noise(6_500_000, 1);
    let file = scene.folder.path().join("holiday.mp4");
    std::fs::write(&file, &content).unwrap();
    let order = Order {
        policy: Some("videos".parse().unwrap()),
        chunk: Some(ChunkSize::new(ByteCount::kib(512)).unwrap()),
        ..Order::default()
    };
    let report = scene.client(EU).upload(&file, &order, &|_| {}).await.unwrap();
    assert_eq!((&report.state, report.bytes), (&FinalState::Completed, 6_500_000));
    assert!(report.renewals == 1 && report.resumes >= 3, "{report:?}");
    let object = scene.demo.storages()[0].object("media-eu", &report.object).unwrap();
    assert_eq!((object.crc32c, object.size), (report.crc32c, report.bytes));
    assert!(object.bytes.unwrap() == content, "what is stored is the file");
    let network = &scene.world().await["network"];
    assert_eq!((&network["expired_session"], &network["drops"]), (&json!(false), &json!(true)), "once");
    let journal = scene.demo.storages()[0].journal().entries();
    assert!(journal.iter().filter(|entry| entry.faulty).all(|entry| entry.operation == Operation::Chunk));
    // What was cut was never sent from beyond what storage had: no gap was ever refused.
    assert!(journal.iter().all(|entry| entry.status != Some(503)), "{journal:?}");
    scene.demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_site_is_for_this_machine_alone_and_says_what_cannot_be() {
    let scene = Scene::start().await;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/token?sub=ada"),
        (Method::GET, "/demo/world"),
        (Method::PUT, "/demo/client"),
        (Method::PUT, "/demo/network"),
        (Method::PUT, "/demo/regions/europe-west1"),
    ] {
        let request = scene.web.request(method.clone(), format!("{}{path}", scene.demo.page()));
        let refused = request.header("host", "rebound.example").body("{}").send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{method} {path}");
    }
    let before = scene.world().await;
    for (place, body, detail) in [
        ("client", json!({"country": "XX"}), "\"XX\" is no country code"),
        ("client", json!({}), "country"),
        ("client", json!({"country": "DE", "city": "Berlin"}), "city"),
        ("network", json!({"latency_ms": 5001}), "at most 5000"),
        ("network", json!({"latency_ms": -1}), "-1"),
        ("network", json!({"drops": "often"}), "often"),
        ("regions/moon", json!({"running": false}), "moon"),
        ("regions/us-central1", json!({"running": "no"}), "no"),
    ] {
        let refused = scene.try_put(place, &body).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{place} {body}");
        assert_eq!(refused.headers()["content-type"], "application/problem+json", "{place} {body}");
        let problem: Value = refused.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{place} {body}: {problem}");
    }
    assert_eq!(scene.world().await, before, "nothing of it has happened");
    let page = scene.web.get(scene.demo.page()).send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    scene.demo.stop().await;
}
