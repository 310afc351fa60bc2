//! An issuer's server that misbehaves on demand, and what becomes of tokens meanwhile.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::*;
use crate::model::address::UpstreamUrl;

const KEYS: &str = "/keys";
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// What the server says at one path.
#[derive(Clone)]
enum Answer {
    /// A JSON document, fresh for so many seconds.
    Json(Value, u64),
    /// A document of this media type.
    Text(&'static str, String),
    Status(u16),
    Redirect(&'static str),
    /// A document as soon as the test lets it go.
    Held(Value),
    /// Never.
    Silence,
}

struct KeyServer {
    address: SocketAddr,
    script: Arc<Script>,
}

struct Script {
    answers: Mutex<HashMap<&'static str, Answer>>,
    requests: Mutex<Vec<String>>,
    arrived: Semaphore,
    released: Semaphore,
}

impl KeyServer {
    async fn start() -> Self {
        let script = Arc::new(Script {
            answers: Mutex::default(),
            requests: Mutex::default(),
            arrived: Semaphore::new(0),
            released: Semaphore::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, script }
    }

    fn says(&self, path: &'static str, answer: Answer) {
        self.script.answers.lock().unwrap().insert(path, answer);
    }

    /// Publishes these keys at the usual path, fresh for ten minutes.
    fn publishes(&self, keys: &[Value]) {
        self.says(KEYS, Answer::Json(json!({"keys": keys}), 600));
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn key_url(&self) -> UpstreamUrl {
        self.url(KEYS).parse().unwrap()
    }

    fn requests(&self) -> usize {
        self.script.requests.lock().unwrap().len()
    }

    fn requests_for(&self, path: &str) -> usize {
        self.script.requests.lock().unwrap().iter().filter(|one| *one == path).count()
    }

    /// An issuer whose keys are at the usual path. Its tokens may live for a week.
    fn settings(&self) -> IssuerSettings {
        IssuerSettings {
            jwks_url: Some(self.key_url()),
            max_lifetime: Span::seconds(7 * 86_400),
            ..issuer_settings(ISSUER)
        }
    }

    fn identity(&self) -> (Arc<Identity>, Clock) {
        identity(&[self.settings()])
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let answer = script.answers.lock().unwrap().get(path.as_str()).cloned();
    script.requests.lock().unwrap().push(path);
    script.arrived.add_permits(1);
    let json = |document: &Value, fresh: u64| {
        Response::builder()
            .header(CONTENT_TYPE, "application/json; charset=UTF-8")
            .header(CACHE_CONTROL, format!("public, max-age={fresh}"))
            .body(Body::from(document.to_string()))
            .unwrap()
    };
    match answer {
        Some(Answer::Json(document, fresh)) => json(&document, fresh),
        Some(Answer::Text(media_type, text)) => {
            Response::builder().header(CONTENT_TYPE, media_type).body(Body::from(text)).unwrap()
        }
        Some(Answer::Status(status)) => Response::builder().status(status).body(Body::empty()).unwrap(),
        Some(Answer::Redirect(target)) => {
            Response::builder().status(302).header(LOCATION, target).body(Body::empty()).unwrap()
        }
        Some(Answer::Held(document)) => {
            script.released.acquire().await.unwrap().forget();
            json(&document, 600)
        }
        Some(Answer::Silence) => std::future::pending().await,
        None => Response::builder().status(404).body(Body::empty()).unwrap(),
    }
}

fn identity(settings: &[IssuerSettings]) -> (Arc<Identity>, Clock) {
    let clock = clock();
    (Arc::new(Identity::new(settings, clock.clone(), client()).unwrap()), clock)
}

fn e1() -> Value {
    P256.jwk(json!({"kid": "e1"}))
}

fn e2() -> Value {
    OTHER_P256.jwk(json!({"kid": "e2"}))
}

/// A token of `e1` that lives for five days.
fn long_token() -> String {
    P256.token("e1", &claims_with(json!({"exp": NOW + 5 * 86_400})))
}

fn unavailable(outcome: &Result<Arc<Principal>, Error>) -> bool {
    matches!(outcome, Err(Error::KeysUnavailable { .. }))
}

/// Verifies all of these at once.
async fn verify_all(identity: &Arc<Identity>, tokens: Vec<String>) -> Vec<Result<Arc<Principal>, Error>> {
    let mut checks = JoinSet::new();
    for token in tokens {
        let identity = Arc::clone(identity);
        checks.spawn(async move { identity.verify(&token).await });
    }
    checks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_under_load_asks_once() {
    let server = KeyServer::start().await;
    server.says(KEYS, Answer::Held(json!({"keys": [e1()]})));
    let (identity, _) = server.identity();
    let tokens = (0..100).map(|n| P256.token("e1", &claims_with(json!({"sub": n.to_string()})))).collect();
    let all = tokio::spawn({
        let identity = Arc::clone(&identity);
        async move { verify_all(&identity, tokens).await }
    });
    server.script.arrived.acquire().await.unwrap().forget();
    server.script.released.add_permits(100);
    assert!(all.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_answer_along() {
    let server = KeyServer::start().await;
    server.says(KEYS, Answer::Held(json!({"keys": [e1()]})));
    let (identity, _) = server.identity();
    let first = tokio::spawn({
        let identity = Arc::clone(&identity);
        async move { identity.verify(&long_token()).await }
    });
    server.script.arrived.acquire().await.unwrap().forget();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    server.script.released.add_permits(1);
    assert!(identity.verify(&long_token()).await.is_ok());
    assert_eq!(server.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_key_ids_is_no_flood_for_the_issuer() {
    let server = KeyServer::start().await;
    server.publishes(&[e1()]);
    let (identity, clock) = server.identity();
    let flood = || (0..1000).map(|n| OTHER_P256.token(&format!("k{n}"), &claims())).collect::<Vec<_>>();

    let outcomes = verify_all(&identity, flood()).await;
    assert!(outcomes.into_iter().all(|outcome| refusal(&outcome) == Some(Reason::UnknownKey)));
    assert_eq!(server.requests(), 1, "cold");

    clock.advance(Duration::from_secs(29));
    verify_all(&identity, flood()).await;
    assert_eq!(server.requests(), 1, "within the cool-down");

    clock.advance(Duration::from_secs(1));
    let outcomes = verify_all(&identity, flood()).await;
    assert!(outcomes.into_iter().all(|outcome| refusal(&outcome) == Some(Reason::UnknownKey)));
    assert_eq!(server.requests(), 2, "after the cool-down");
    assert!(identity.verify(&long_token()).await.is_ok());
}

#[tokio::test]
async fn a_new_key_is_found_by_its_first_token_and_a_withdrawn_one_ends_its_tokens() {
    let server = KeyServer::start().await;
    server.publishes(&[e1()]);
    let (identity, clock) = server.identity();
    let (old, new) = (long_token(), OTHER_P256.token("e2", &claims_with(json!({"exp": NOW + 5 * 86_400}))));
    assert!(identity.verify(&old).await.is_ok());

    server.publishes(&[e1(), e2()]);
    clock.advance(Duration::from_secs(31));
    assert!(identity.verify(&new).await.is_ok(), "the new key");
    assert!(identity.verify(&old).await.is_ok(), "the old key is published still");
    assert_eq!(identity.metrics().remembered.get(), 1);

    server.publishes(&[e2()]);
    clock.advance(Duration::from_secs(599));
    assert!(identity.verify(&old).await.is_ok());
    identity.issuers[0].keys.settled().await;
    assert_eq!(server.requests(), 2, "the keys are fresh");

    clock.advance(Duration::from_secs(1));
    assert!(identity.verify(&old).await.is_ok(), "stale keys serve while they are being refreshed");
    identity.issuers[0].keys.settled().await;
    assert_eq!(server.requests(), 3);
    assert_eq!(refusal(&identity.verify(&old).await), Some(Reason::UnknownKey), "remembered, but withdrawn");
    assert!(identity.verify(&new).await.is_ok());
}

#[tokio::test]
async fn a_name_given_to_another_key_does_not_keep_old_tokens_alive() {
    let server = KeyServer::start().await;
    server.publishes(&[e1()]);
    let (identity, clock) = server.identity();
    assert!(identity.verify(&long_token()).await.is_ok());
    server.publishes(&[OTHER_P256.jwk(json!({"kid": "e1"}))]);
    clock.advance(Duration::from_secs(600));
    assert!(identity.verify(&long_token()).await.is_ok());
    identity.issuers[0].keys.settled().await;
    assert_eq!(refusal(&identity.verify(&long_token()).await), Some(Reason::Signature));
}

#[tokio::test]
async fn known_keys_serve_through_an_outage_of_a_day_and_then_nothing_is_said_of_tokens() {
    let server = KeyServer::start().await;
    server.publishes(&[e1()]);
    let (identity, clock) = server.identity();
    assert!(identity.verify(&long_token()).await.is_ok());

    server.says(KEYS, Answer::Status(500));
    for hour in 1..=24 {
        clock.advance(Duration::from_secs(3600));
        assert!(identity.verify(&long_token()).await.is_ok(), "remembered, hour {hour}");
        identity.issuers[0].keys.settled().await;
        let unseen = P256.token("e1", &claims_with(json!({"exp": NOW + 5 * 86_400, "hour": hour})));
        assert!(identity.verify(&unseen).await.is_ok(), "not seen before, hour {hour}");
        let strange = identity.verify(&OTHER_P256.token("e2", &claims_with(json!({"exp": NOW + 5 * 86_400})))).await;
        assert!(unavailable(&strange), "the issuer cannot be asked about e2, hour {hour}");
    }
    assert_eq!(server.requests(), 25, "one attempt an hour, since nothing came in between");

    clock.advance(Duration::from_secs(1));
    let outcome = identity.verify(&long_token()).await;
    assert_eq!(outcome.err(), Some(Error::KeysUnavailable { retry_after: Duration::from_secs(29) }));
    let outcome = identity.verify(&P256.token("e1", &claims())).await;
    assert_eq!(refusal(&outcome), Some(Reason::Expired), "what is refused anyhow needs no key");

    server.publishes(&[e1()]);
    clock.advance(Duration::from_secs(28));
    assert!(unavailable(&identity.verify(&long_token()).await), "within the cool-down");
    clock.advance(Duration::from_secs(1));
    assert!(identity.verify(&long_token()).await.is_ok(), "the issuer is back");
}

#[tokio::test]
async fn an_issuer_that_never_answered_is_asked_again_after_the_cool_down() {
    let server = KeyServer::start().await;
    server.says(KEYS, Answer::Status(503));
    let (identity, clock) = server.identity();
    identity.warm_up().await;
    for _ in 0..10 {
        let outcome = identity.verify(&long_token()).await;
        assert_eq!(outcome.err(), Some(Error::KeysUnavailable { retry_after: Duration::from_secs(30) }));
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(identity.metrics().keys_unavailable.get(), 10);
    server.publishes(&[e1()]);
    clock.advance(Duration::from_secs(30));
    assert!(identity.verify(&long_token()).await.is_ok());
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn answers_that_are_no_key_set_of_the_issuer_are_not_used() {
    let good = json!({"keys": [e1()]}).to_string();
    let huge = format!("{good}{}", " ".repeat(1024 * 1024));
    for (name, answer) in [
        ("an error", Answer::Status(500)),
        ("no content", Answer::Status(204)),
        ("nothing there", Answer::Status(404)),
        ("a redirect to good keys", Answer::Redirect("/elsewhere")),
        ("a page", Answer::Text("text/html", good.clone())),
        ("no media type", Answer::Text("", good.clone())),
        ("more than a mebibyte", Answer::Text("application/json", huge)),
        ("half of it", Answer::Text("application/json", good[..good.len() / 2].to_owned())),
        ("no keys", Answer::Json(json!({"keys": []}), 600)),
        ("only keys of no use", Answer::Json(json!({"keys": [P384.jwk]}), 600)),
        ("keys by name", Answer::Json(json!({"e1": "-----BEGIN CERTIFICATE-----"}), 600)),
        ("more keys than anyone has", Answer::Json(json!({"keys": vec![e1(); 257]}), 600)),
    ] {
        let server = KeyServer::start().await;
        server.says(KEYS, answer.clone());
        server.says("/elsewhere", Answer::Json(json!({"keys": [e1()]}), 600));
        let (identity, _) = server.identity();
        assert!(unavailable(&identity.verify(&long_token()).await), "{name}");
        assert_eq!(server.requests_for("/elsewhere"), 0, "{name}");

        server.publishes(&[e1()]);
        let (identity, clock) = server.identity();
        assert!(identity.verify(&long_token()).await.is_ok(), "{name}");
        server.says(KEYS, answer);
        clock.advance(Duration::from_secs(700));
        assert!(identity.verify(&long_token()).await.is_ok(), "{name}");
        identity.issuers[0].keys.settled().await;
        assert!(identity.verify(&long_token()).await.is_ok(), "{name}: the keys from before are kept");
    }
}

#[tokio::test]
async fn media_types_built_on_json_are_json() {
    let server = KeyServer::start().await;
    server.says(KEYS, Answer::Text("application/jwk-set+json", json!({"keys": [e1()]}).to_string()));
    let (identity, _) = server.identity();
    assert!(identity.verify(&long_token()).await.is_ok());
}

#[tokio::test]
async fn a_client_that_follows_redirects_does_no_harm() {
    let server = KeyServer::start().await;
    server.says(KEYS, Answer::Redirect("/elsewhere"));
    server.says("/elsewhere", Answer::Json(json!({"keys": [e1()]}), 600));
    let following = reqwest::Client::builder().no_proxy().build().unwrap();
    let identity = Identity::new(&[server.settings()], clock(), following).unwrap();
    assert!(unavailable(&identity.verify(&long_token()).await));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let server = KeyServer::start().await;
    server.says(KEYS, Answer::Silence);
    let surroundings = Surroundings {
        clock: clock(),
        client: client(),
        metrics: Metrics::new(),
        answer_time: Duration::from_millis(50),
    };
    let identity = Identity::assemble(&[server.settings()], surroundings, &[]).unwrap();
    let outcome = tokio::time::timeout(Duration::from_secs(5), identity.verify(&long_token())).await;
    assert!(unavailable(&outcome.unwrap()));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_an_outage() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    drop(listener);
    let settings = IssuerSettings { jwks_url: Some(url.parse().unwrap()), ..issuer_settings(ISSUER) };
    let (identity, _) = identity(&[settings]);
    assert!(unavailable(&identity.verify(&P256.token("e1", &claims())).await));
}

#[tokio::test]
async fn discovery_finds_the_keys_of_the_issuer_and_of_nobody_else() {
    for (name, path, document, expected) in [
        ("as it should be", "", json!({"issuer": "SELF", "jwks_uri": "SELF/keys"}), true),
        ("an issuer with a path", "/realms/a", json!({"issuer": "SELF", "jwks_uri": "ROOT/keys"}), true),
        ("a closing slash", "/", json!({"issuer": "SELF", "jwks_uri": "ROOT/keys"}), true),
        ("another issuer", "", json!({"issuer": "https://evil.example", "jwks_uri": "SELF/keys"}), false),
        ("a slash more", "", json!({"issuer": "SELF/", "jwks_uri": "SELF/keys"}), false),
        ("no issuer", "", json!({"jwks_uri": "SELF/keys"}), false),
        ("no address", "", json!({"issuer": "SELF"}), false),
        ("plain http to elsewhere", "", json!({"issuer": "SELF", "jwks_uri": "http://id.example/keys"}), false),
        ("the metadata server", "", json!({"issuer": "SELF", "jwks_uri": "http://169.254.169.254/"}), false),
        ("a file", "", json!({"issuer": "SELF", "jwks_uri": "file:///etc/hosts"}), false),
    ] {
        let server = KeyServer::start().await;
        let (root, issuer) = (server.url(""), server.url(path));
        let document = document.to_string().replace("SELF", &issuer).replace("ROOT", &root);
        let at = match path {
            "/realms/a" => "/realms/a/.well-known/openid-configuration",
            _ => DISCOVERY,
        };
        server.says(at, Answer::Json(serde_json::from_str(&document).unwrap(), 600));
        server.publishes(&[e1()]);
        let (identity, _) = identity(&[issuer_settings(&issuer)]);
        let outcome = identity.verify(&P256.token("e1", &claims_with(json!({"iss": issuer})))).await;
        assert_eq!(outcome.is_ok(), expected, "{name}: {outcome:?}");
        assert_eq!(unavailable(&outcome), !expected, "{name}: {outcome:?}");
        assert_eq!(server.requests_for(KEYS), usize::from(expected), "{name}");
    }
}

#[tokio::test]
async fn tokens_that_are_refused_anyhow_ask_nothing_of_anyone() {
    let server = KeyServer::start().await;
    server.publishes(&[e1()]);
    let (identity, _) = server.identity();
    let elsewhere = server.url("/attack");
    let header = json!({"alg": "ES256", "kid": "e1", "jku": elsewhere, "x5u": elsewhere});
    let bad = claims_with(json!({"aud": "billing"}));
    assert_eq!(refusal(&identity.verify(&P256.token("e9", &bad)).await), Some(Reason::Audience));
    assert_eq!(server.requests(), 0);
    assert!(identity.verify(&P256.sign(&header.to_string(), &claims().to_string())).await.is_ok());
    assert_eq!((server.requests(), server.requests_for("/attack")), (1, 0));
}

#[tokio::test]
async fn a_clock_set_back_does_not_keep_keys_from_being_read() {
    let server = KeyServer::start().await;
    server.says(KEYS, Answer::Status(500));
    let (identity, clock) = server.identity();
    clock.advance(Duration::from_secs(86_400));
    identity.warm_up().await;
    let Clock::Manual(millis) = &clock else { panic!("a manual clock") };
    millis.store(NOW * 1000, std::sync::atomic::Ordering::SeqCst);
    server.publishes(&[e1()]);
    assert!(identity.verify(&P256.token("e1", &claims())).await.is_ok());
}

#[tokio::test]
async fn a_new_configuration_keeps_the_keys_that_still_hold_and_the_metrics() {
    let server = KeyServer::start().await;
    server.publishes(&[e1()]);
    let (before, _) = server.identity();
    assert!(before.verify(&long_token()).await.is_ok());

    server.says(KEYS, Answer::Status(500));
    let narrowed = IssuerSettings { audiences: vec!["other".to_owned()], ..server.settings() };
    let after = before.reconfigured(&[issuer_settings("https://more.example"), narrowed]).unwrap();
    assert_eq!(refusal(&after.verify(&long_token()).await), Some(Reason::Audience), "nothing is remembered");
    let other = P256.token("e1", &claims_with(json!({"aud": "other"})));
    assert!(after.verify(&other).await.is_ok());
    assert_eq!(server.requests(), 1);
    assert_eq!(before.metrics().verified.get(), 2);

    let restricted = IssuerSettings { algorithms: vec![Algorithm::RS256], ..server.settings() };
    let after = before.reconfigured(&[restricted]).unwrap();
    assert_eq!(refusal(&after.verify(&long_token()).await), Some(Reason::Algorithm));
}
