//! Webhooks as administrators meet them, over HTTP and beside a store in which deliveries were given up.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::clock::Randomness;
use crate::http::arrival::TrustedProxies;
use crate::http::extract::AllowedOrigins;
use crate::http::gate::{Gate, Transport};
use crate::http::readiness::Readiness;
use crate::http::{Observer, Services, router};
use crate::identity::Identity;
use crate::identity::development::DevelopmentKey;
use crate::model::endpoint::EndpointId;
use crate::model::id::{Partition, UploadId};
use crate::model::upload::StateKind;
use crate::server::Peer;
use crate::store::{Attempted, Failures, Wanted};
use crate::uploads::tests::{ada, create, soon, uploads};
use crate::uploads::{Endpoint, Uploads};

/// A service with two webhooks, of which the second is not told of cancellations.
struct Service {
    uploads: Arc<Uploads>,
    router: Router,
    token: String,
    _emulator: crate::emulator::Emulator,
}

impl Service {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (emulator, uploads) = uploads().await;
        let mut uploads = Arc::into_inner(uploads).unwrap();
        let endpoint = |name: &str, states: &[StateKind]| Endpoint {
            id: EndpointId::of(name),
            name: name.to_owned(),
            host: format!("{name}.example.com"),
            states: states.to_vec(),
        };
        uploads.endpoints = vec![
            endpoint("all", &[StateKind::Completed, StateKind::Cancelled]),
            endpoint("some", &[StateKind::Completed]),
        ];

        let (files, key) = (TempDir::new().unwrap(), DevelopmentKey::generate().unwrap());
        let jwks = files.path().join("jwks.json");
        std::fs::write(&jwks, key.key_set().to_string()).unwrap();
        let issuer = json!({
            "issuer": "https://issuer.example",
            "audiences": ["broker"],
            "jwks_file": jwks,
            "algorithms": ["ES256"],
            "admin_when": "claims.role == \"admin\"",
        });
        let client = reqwest::Client::builder().build().unwrap();
        let issuers = [serde_json::from_value(issuer).unwrap()];
        let identity = Arc::new(Identity::new(&issuers, uploads.clock.clone(), client).unwrap());
        let now = uploads.clock.now().as_secs();
        let claims = json!({
            "iss": "https://issuer.example", "aud": "broker", "sub": "root", "role": "admin", "iat": now, "exp": now + 600,
        });
        let token = key.sign(&claims.as_object().cloned().unwrap_or_else(Map::new)).unwrap();

        let uploads = Arc::new(uploads);
        let services = Services {
            uploads: Arc::clone(&uploads),
            identity,
            receiver: None,
            allowed_origins: AllowedOrigins([].into()),
            readiness: Arc::new(Readiness::new(Arc::clone(&uploads.store), Arc::clone(&uploads.storage))),
            trusted_proxies: TrustedProxies([].into()),
        };
        let gate = Gate {
            trusted_proxies: TrustedProxies([].into()),
            transport: Transport::HttpsOnly,
            permits: Arc::new(Semaphore::new(1)),
            patience: Duration::from_secs(10),
        };
        let observer = Observer { metrics: Arc::default(), randomness: Randomness::System, tracing: None };
        let router = router(services, gate, observer).unwrap();
        Self { uploads, router, token, _emulator: emulator }
    }

    async fn call(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(format!("/v1/admin/webhooks{path}"));
        let mut request =
            request.header("authorization", format!("Bearer {}", self.token)).body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer { address: "203.0.113.7:1".parse().unwrap(), tls: true });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// How many deliveries are due for an endpoint, all of which are claimed.
    async fn due(&self, name: &str, partition: Partition) -> Vec<UploadId> {
        let now = self.uploads.clock.now();
        let wanted = [Wanted { endpoint: EndpointId::of(name), limit: 100 }];
        let claimed = self.uploads.store.claim_deliveries(partition, &wanted, now, now.plus(Duration::from_secs(60)));
        claimed.await.unwrap().into_iter().map(|delivery| delivery.id).collect()
    }

    /// Cancels an upload, and gives up telling "all" of it.
    async fn parked(&self) -> UploadId {
        let id = create(&self.uploads).await.upload.id;
        self.uploads.cancel(&ada(), id, soon()).await.unwrap();
        let failures = Failures { count: 9, last: "it answered with status 500".to_owned() };
        let given_up = Attempted::GivenUp { failures, at: self.uploads.clock.now() };
        self.uploads.store.settle_delivery(id, EndpointId::of("all"), &given_up).await.unwrap();
        id
    }
}

#[tokio::test]
async fn an_end_is_recorded_for_those_who_are_told_of_it() {
    let service = Service::start().await;
    let created = create(&service.uploads).await;
    let (id, partition) = (created.upload.id, created.upload.id.partition());
    assert_eq!(service.due("all", partition).await, []);
    service.uploads.cancel(&ada(), id, soon()).await.unwrap();
    assert_eq!(service.due("all", partition).await, [id]);
    assert_eq!(service.due("some", partition).await, [], "is not told of cancellations");
}

#[tokio::test]
async fn webhooks_are_listed_without_their_addresses() {
    let service = Service::start().await;
    let expected = json!({"webhooks": [
        {"name": "all", "url_host": "all.example.com", "events": ["upload.completed", "upload.cancelled"]},
        {"name": "some", "url_host": "some.example.com", "events": ["upload.completed"]},
    ]});
    assert_eq!(service.get("").await, expected);
}

#[tokio::test]
async fn what_was_given_up_is_listed_in_pages_and_replayed_once() {
    let service = Service::start().await;
    let mut parked = Vec::new();
    for _ in 0..3 {
        parked.push(service.parked().await);
        service.uploads.clock.advance(Duration::from_secs(1));
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/all/parked?limit=2{cursor}")).await;
        seen.extend(page["deliveries"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(seen.len(), 2);
        cursor = format!("&cursor={next}");
    }
    let ids: Vec<_> = seen.iter().map(|delivery| delivery["upload_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, parked.iter().map(ToString::to_string).collect::<Vec<_>>());
    let first = parked[0];
    let expected = json!({
        "event_id": format!("evt_{first}"),
        "upload_id": first.to_string(),
        "type": "upload.cancelled",
        "parked_at": "2027-01-15T08:00:00.000Z",
        "attempts": 9,
        "last_error": "it answered with status 500",
    });
    assert_eq!(seen[0], expected);
    assert_eq!(service.get("/some/parked").await, json!({"deliveries": []}));

    let replay = format!("/all/parked/evt_{first}/replay");
    assert_eq!(service.call(Method::POST, &replay).await.0, StatusCode::ACCEPTED);
    assert_eq!(service.call(Method::POST, &replay).await.0, StatusCode::NOT_FOUND, "it is not parked any more");
    assert_eq!(service.due("all", first.partition()).await, [first]);

    let (status, rest) = service.call(Method::POST, "/all/replay").await;
    assert_eq!((status, rest), (StatusCode::ACCEPTED, json!({"replayed": 2, "remaining": false})));
    assert_eq!(service.get("/all/parked").await, json!({"deliveries": []}));
    assert_eq!(service.due("all", first.partition()).await.len(), 2);
}

#[tokio::test]
async fn a_webhook_or_a_delivery_that_is_not_there_is_not_found() {
    let service = Service::start().await;
    let id = service.parked().await;
    for (method, path) in [
        (Method::GET, "/none/parked".to_owned()),
        (Method::GET, "/%FF/parked".to_owned()),
        (Method::POST, "/none/replay".to_owned()),
        (Method::POST, format!("/none/parked/evt_{id}/replay")),
        (Method::POST, format!("/some/parked/evt_{id}/replay")),
        (Method::POST, format!("/all/parked/{id}/replay")),
        (Method::POST, "/all/parked/evt_/replay".to_owned()),
        (Method::POST, "/all/parked/%FF/replay".to_owned()),
        (Method::POST, format!("/all/parked/evt_{}/replay", "0".repeat(34))),
    ] {
        let (status, problem) = service.call(method, &path).await;
        assert_eq!((status, problem["code"].as_str()), (StatusCode::NOT_FOUND, Some("not-found")), "{path}");
    }
    for query in ["limit=0", "limit=201", "cursor=x", "cursor=", "page=1"] {
        let (status, problem) = service.call(Method::GET, &format!("/all/parked?{query}")).await;
        assert_eq!((status, problem["code"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid-request")), "{query}");
    }
}
