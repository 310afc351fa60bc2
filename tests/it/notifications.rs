//! Storage's notifications: what they end, and what they cannot do.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Map, Value, json};
use upload_broker::emulator::faults::{Action, Fault, Reply};
use upload_broker::emulator::journal::Operation;
use upload_broker::identity::development::DevelopmentKey;

use crate::support::pusher::{PATH, Pusher, SECTION, claims, finalized, message, resource};
use crate::support::user::{Answer, token};
use crate::support::{BUCKET, Broker, ISSUER, Settings, User, issuer_key, join_all, noise, push_key};

async fn start() -> Broker {
    Broker::start_with(Settings { more: SECTION.to_owned(), ..Settings::default() }).await
}

/// An upload whose bytes are all there, and that nobody has told the broker of.
async fn finished(broker: &Broker, user: &User) -> Answer {
    let created = user.create(10).await.is(201);
    assert_eq!(user.put(&created.uri(), None, noise(10, 1)).await, 200);
    assert!(broker.storage.object(BUCKET, &created.text("/object")).is_some());
    created
}

async fn state(user: &User, created: &Answer) -> String {
    user.get(&format!("/v1/uploads/{}", created.id())).await.is(200).text("/state")
}

/// How many notifications came to this.
async fn counted(broker: &Broker, result: &str) -> u64 {
    number(broker, &format!("upload_broker_notifications_total{{result=\"{result}\"}} ")).await
}

/// The sum of the metrics whose line begins like this.
async fn number(broker: &Broker, line: &str) -> u64 {
    let metrics = broker.operator_get("/metrics").await.1;
    let values = metrics.lines().filter_map(|found| found.strip_prefix(line)?.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

/// What the broker has asked of storage and of its store so far.
async fn asked(broker: &Broker) -> (usize, u64) {
    let calls = broker.storage.journal().entries().len();
    (calls, number(broker, "upload_broker_store_operations_total{").await)
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_notification_completes_its_upload_in_every_form() {
    let broker = start().await;
    let (ada, storage) = (broker.user("ada"), Pusher::new(&broker));
    for form in ["Pub/Sub", "Pub/Sub without a payload", "CloudEvents, binary", "CloudEvents, structured"] {
        let created = finished(&broker, &ada).await;
        let object = created.text("/object");
        let subject = format!("objects/{object}");
        let told = match form {
            "Pub/Sub" => storage.push(&finalized(&broker, &created)).await,
            "Pub/Sub without a payload" => {
                let mut bare = finalized(&broker, &created);
                bare["message"]["attributes"]["payloadFormat"] = json!("NONE");
                bare["message"].as_object_mut().unwrap().remove("data");
                storage.push(&bare).await
            }
            "CloudEvents, binary" => {
                let event = [
                    JSON,
                    ("ce-specversion", "1.0"),
                    ("ce-type", "google.cloud.storage.object.v1.finalized"),
                    ("ce-bucket", BUCKET),
                    ("ce-subject", &subject),
                ];
                storage.send(headers(&event), resource(&object, 1, None).to_string()).await
            }
            _ => {
                let event = json!({
                    "specversion": "1.0", "type": "google.cloud.storage.object.v1.finalized", "id": "1",
                    "source": "//storage.googleapis.com/projects/_/buckets/media-eu", "data": resource(&object, 1, None),
                });
                storage.send(headers(&[("content-type", "application/cloudevents+json")]), event.to_string()).await
            }
        };
        told.is(204);
        let shown = ada.get(&format!("/v1/uploads/{}", created.id())).await.is_upload(200, "completed");
        assert_eq!(shown.text("/result/evidence"), "notification", "{form}");
        let generation = broker.storage.object(BUCKET, &object).unwrap().generation;
        assert_eq!(shown.text("/result/generation"), generation.to_string(), "{form}: what storage says");
    }
    assert_eq!(counted(&broker, "completed").await, 4);
}

#[tokio::test]
async fn what_broke_its_promise_is_rejected_and_deleted() {
    let policies =
        "[[policies]]\nname = \"streams\"\nobject = \"{id}\"\nunknown_size = true\nmax_size = 5\n".to_owned();
    let settings = Settings { more: SECTION.to_owned(), policies, ..Settings::default() };
    let broker = Broker::start_with(settings).await;
    let ada = broker.user("ada");
    let created = ada.create_from(json!({"filename": "f", "content_type": "video/mp4"})).await.is(201);
    assert_eq!(ada.put(&created.uri(), None, noise(10, 1)).await, 200);
    Pusher::new(&broker).push(&finalized(&broker, &created)).await.is(204);
    assert_eq!(state(&ada, &created).await, "rejected");
    assert!(broker.storage.object(BUCKET, &created.text("/object")).is_none());
    assert_eq!(counted(&broker, "rejected").await, 1);
}

#[tokio::test]
async fn notifications_come_many_times_in_any_order_and_late() {
    let broker = start().await;
    let ada = broker.user("ada");
    let created = finished(&broker, &ada).await;
    let finalize = finalized(&broker, &created);
    let about = resource(&created.text("/object"), 1, Some(&created.id()));
    let storage = Pusher::new(&broker);
    for event in ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE", "OBJECT_OF_THE_FUTURE"] {
        storage.push(&message(event, &about)).await.is(204);
    }
    assert_eq!(state(&ada, &created).await, "pending");
    assert_eq!(counted(&broker, "ignored").await, 4);

    let pushes = (0..5).map(|_| {
        let (storage, finalize) = (Pusher::new(&broker), finalize.clone());
        async move { storage.push(&finalize).await.status }
    });
    assert_eq!(join_all(pushes).await, [204; 5]);
    assert_eq!(state(&ada, &created).await, "completed");
    let first = ada.get(&format!("/v1/uploads/{}", created.id())).await.is(200);
    assert_eq!(counted(&broker, "completed").await + counted(&broker, "unchanged").await, 5);

    broker.clock.advance(Duration::from_secs(24 * 3600));
    let before = counted(&broker, "unchanged").await;
    Pusher::new(&broker).push(&finalize).await.is(204);
    assert_eq!(counted(&broker, "unchanged").await, before + 1, "a day later");
    let late = broker.user("ada").get(&format!("/v1/uploads/{}", created.id())).await.is(200);
    assert_eq!(late.body, first.body);
}

#[tokio::test]
async fn what_the_client_completed_before_stays_the_clients() {
    let broker = start().await;
    let ada = broker.user("ada");
    let created = finished(&broker, &ada).await;
    let completed = ada.complete(&created.id()).await.is_upload(200, "completed");
    let before = broker.storage.journal().entries().len();
    Pusher::new(&broker).push(&finalized(&broker, &created)).await.is(204);
    let shown = ada.get(&format!("/v1/uploads/{}", created.id())).await.is(200);
    assert_eq!(shown.body, completed.body);
    assert_eq!(shown.text("/result/evidence"), "client");
    assert_eq!(broker.storage.journal().entries().len(), before, "storage need not be asked");
    assert_eq!(counted(&broker, "unchanged").await, 1);
}

#[tokio::test]
async fn a_notification_of_an_object_that_is_not_there_changes_nothing() {
    let broker = start().await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    Pusher::new(&broker).push(&finalized(&broker, &created)).await.is(204);
    assert_eq!(state(&ada, &created).await, "pending");
    assert_eq!(ada.put(&created.uri(), None, noise(10, 1)).await, 200, "and its session works");
    Pusher::new(&broker).push(&finalized(&broker, &created)).await.is(204);
    assert_eq!(state(&ada, &created).await, "completed");
    assert_eq!((counted(&broker, "unchanged").await, counted(&broker, "completed").await), (1, 1));
}

#[tokio::test]
async fn the_hint_finds_the_record_and_proves_nothing() {
    let broker = start().await;
    let (ada, eve) = (broker.user("ada"), broker.user("eve"));
    let (created, other) = (finished(&broker, &ada).await, eve.create(10).await.is(201));
    let object = created.text("/object");
    let storage = Pusher::new(&broker);
    let mut foreign = finalized(&broker, &created);
    foreign["message"]["attributes"]["bucketId"] = json!("media-us");
    for (name, push, result) in [
        ("another bucket", foreign, "foreign"),
        ("another object", message("OBJECT_FINALIZE", &resource("videos/x.mp4", 1, Some(&created.id()))), "unknown"),
        ("no upload", message("OBJECT_FINALIZE", &resource(&"f".repeat(34), 1, Some(&"e".repeat(34)))), "unknown"),
    ] {
        let calls = broker.storage.journal().entries().len();
        let count = counted(&broker, result).await;
        storage.push(&push).await.is(204);
        assert_eq!(counted(&broker, result).await, count + 1, "{name}");
        assert_eq!(broker.storage.journal().entries().len(), calls, "{name}: storage is not asked");
        assert_eq!(state(&ada, &created).await, "pending", "{name}");
    }
    // Its owner can write into the metadata what it likes.
    storage.push(&message("OBJECT_FINALIZE", &resource(&object, 1, Some(&other.id())))).await.is(204);
    assert_eq!((state(&ada, &created).await, state(&eve, &other).await), ("completed".into(), "pending".into()));
    let unmarked = finished(&broker, &ada).await;
    storage.push(&message("OBJECT_FINALIZE", &resource(&unmarked.text("/object"), 1, None))).await.is(204);
    assert_eq!(state(&ada, &unmarked).await, "completed");
}

#[tokio::test]
async fn where_objects_replace_each_other_the_hint_finds_the_upload() {
    let policies = "[[policies]]\nname = \"latest\"\nobject = \"latest/{sub}\"\noverwrite = true\n".to_owned();
    let settings = Settings { more: SECTION.to_owned(), policies, ..Settings::default() };
    let broker = Broker::start_with(settings).await;
    let ada = broker.user("ada");
    let (first, second) = (finished(&broker, &ada).await, finished(&broker, &ada).await);
    assert_eq!(first.text("/object"), second.text("/object"));
    let storage = Pusher::new(&broker);
    for created in [&second, &first] {
        storage.push(&finalized(&broker, created)).await.is(204);
        assert_eq!(state(&ada, created).await, "completed");
    }
}

/// Claims that a bad token has, and what its bearer is told.
fn bad_claims(broker: &Broker) -> Vec<(&'static str, Map<String, Value>, u16, &'static str)> {
    let good = claims(broker.clock.now());
    let now = broker.clock.now().as_secs();
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        if value.is_null() {
            claims.remove(name)
        } else {
            claims.insert(name.to_owned(), value)
        };
        claims
    };
    let mut expired = with("exp", json!(now - 31));
    expired.insert("iat".to_owned(), json!(now - 3_631));
    vec![
        ("expired", expired, 401, "unauthenticated"),
        ("of the future", with("iat", json!(now + 3_000)), 401, "unauthenticated"),
        ("too long a life", with("exp", json!(now + 86_400)), 401, "unauthenticated"),
        (
            "another audience",
            with("aud", json!("https://us.uploads.example.com/v1/notifications/storage")),
            401,
            "unauthenticated",
        ),
        ("no audience", with("aud", Value::Null), 401, "unauthenticated"),
        ("another issuer", with("iss", json!("https://accounts.google.com")), 401, "unauthenticated"),
        ("the users' issuer", with("iss", json!(ISSUER)), 401, "unauthenticated"),
        ("another account", with("email", json!("push@evil.iam.gserviceaccount.com")), 403, "forbidden"),
        ("an account in capitals", with("email", json!("Push@acme.iam.gserviceaccount.com")), 403, "forbidden"),
        ("a list of accounts", with("email", json!(["push@acme.iam.gserviceaccount.com"])), 403, "forbidden"),
        ("no account", with("email", Value::Null), 403, "forbidden"),
        ("an unverified address", with("email_verified", json!(false)), 403, "forbidden"),
        ("an address verified in words", with("email_verified", json!("true")), 403, "forbidden"),
        ("an address of which nothing is said", with("email_verified", Value::Null), 403, "forbidden"),
    ]
}

#[tokio::test]
async fn without_the_right_token_nothing_is_changed_and_nobody_is_asked() {
    let broker = start().await;
    let ada = broker.user("ada");
    let created = finished(&broker, &ada).await;
    let push = finalized(&broker, &created);
    let before = asked(&broker).await;
    let mut refused = 0;
    for (name, claims, status, code) in bad_claims(&broker) {
        for body in [&push, &json!("?")] {
            let told = Pusher::signed(&broker, push_key(), &claims).push(body).await;
            assert_eq!((told.status, told.text("/code")), (status, code.to_owned()), "{name}");
            refused += 1;
        }
    }
    let good = claims(broker.clock.now());
    let stranger = DevelopmentKey::generate().unwrap();
    for (name, key) in [("a forged signature", &stranger), ("the key of users' tokens", issuer_key())] {
        let told = Pusher::signed(&broker, key, &good).push(&push).await;
        assert_eq!((told.status, told.text("/code")), (401, "unauthenticated".to_owned()), "{name}");
        refused += 1;
    }
    ada.call(reqwest::Method::POST, PATH, Some(&push)).await.is_problem(401, "unauthenticated");
    let url = format!("http://{}{PATH}", broker.address);
    let bare = Answer::of(ada.client.post(url).json(&push).send().await.unwrap()).await.unwrap();
    assert!(bare.is_problem(401, "unauthenticated").header("www-authenticate").is_some());
    assert_eq!(asked(&broker).await, before, "neither storage nor the store was asked for anything");
    assert_eq!(counted(&broker, "unauthenticated").await, refused + 2);
    assert_eq!(state(&ada, &created).await, "pending");

    // The right token opens this door and no other.
    let account = ada.clone().bearing(push_key().sign(&good).unwrap());
    account.get("/v1/uploads").await.is_problem(401, "unauthenticated");
    account.call(reqwest::Method::POST, PATH, Some(&push)).await.is(204);
    assert_eq!(state(&ada, &created).await, "completed");
}

#[tokio::test]
async fn googles_tokens_are_accepted_by_both_names_of_their_issuer() {
    let more = SECTION.replace("issuer = \"https://push.example\"\n", "");
    let broker = Broker::start_with(Settings { more, ..Settings::default() }).await;
    let ada = broker.user("ada");
    for (issuer, status) in
        [("https://accounts.google.com", 204), ("accounts.google.com", 204), ("https://push.example", 401)]
    {
        let created = finished(&broker, &ada).await;
        let mut claims = claims(broker.clock.now());
        claims.insert("iss".to_owned(), json!(issuer));
        let told = Pusher::signed(&broker, push_key(), &claims).push(&finalized(&broker, &created)).await;
        assert_eq!(told.status, status, "{issuer}");
        let expected = if status == 204 { "completed" } else { "pending" };
        assert_eq!(state(&ada, &created).await, expected, "{issuer}");
    }
}

#[tokio::test]
async fn a_user_with_the_accounts_address_is_still_a_user() {
    let broker = start().await;
    let more = [("email", json!("push@acme.iam.gserviceaccount.com")), ("email_verified", json!(true))];
    let eve = broker.user("eve").bearing(token("eve", broker.clock.now(), &more));
    eve.get("/v1/uploads").await.is(200);
    eve.call(reqwest::Method::POST, PATH, Some(&json!({}))).await.is_problem(401, "unauthenticated");
}

#[tokio::test]
async fn what_can_never_be_read_is_acknowledged_and_what_is_set_up_wrongly_is_not() {
    let broker = start().await;
    let ada = broker.user("ada");
    let created = finished(&broker, &ada).await;
    let about = resource(&created.text("/object"), 1, Some(&created.id()));
    let storage = Pusher::new(&broker);
    let before = asked(&broker).await;
    let mut spoilt = finalized(&broker, &created);
    spoilt["message"]["data"] = json!("???");
    let mut large = finalized(&broker, &created);
    large["message"]["attributes"]["note"] = json!("x".repeat(1024 * 1024));
    for (name, body) in [
        ("no JSON", "{\"message\": {".to_owned()),
        ("nothing", String::new()),
        ("data that is no base64", spoilt.to_string()),
        ("somebody's own message", json!({"message": {"data": "aGVsbG8=", "attributes": {}}}).to_string()),
        ("too large", large.to_string()),
    ] {
        let told = storage.send(headers(&[JSON]), body).await;
        assert_eq!(told.status, 204, "{name}: {told:?}");
    }
    let unwrapped = storage.push(&about).await.is_problem(400, "invalid-request");
    assert!(unwrapped.text("/detail").contains("noWrapper"), "{unwrapped:?}");
    let with_metadata = headers(&[JSON, ("x-goog-pubsub-subscription-name", "projects/acme/subscriptions/uploads-eu")]);
    storage.send(with_metadata, about.to_string()).await.is_problem(400, "invalid-request");
    assert_eq!(asked(&broker).await, before, "nobody was asked for anything");
    assert_eq!(counted(&broker, "malformed").await, 7);
    assert_eq!(state(&ada, &created).await, "pending");

    // With all the metadata that an object can have, it is read.
    let mut largest = about;
    largest["metadata"]["note"] = json!("x".repeat(64 * 1024));
    storage.push(&message("OBJECT_FINALIZE", &largest)).await.is(204);
    assert_eq!(state(&ada, &created).await, "completed");
}

#[tokio::test]
async fn what_may_succeed_later_is_not_acknowledged() {
    let broker = start().await;
    let ada = broker.user("ada");
    let created = finished(&broker, &ada).await;
    let push = finalized(&broker, &created);
    let storage = Pusher::new(&broker);
    for (status, expected, code) in [(503, 503, "storage-unavailable"), (403, 502, "storage-error")] {
        for operation in [Operation::Status, Operation::Get] {
            let fault = Fault::once(operation, Action::Respond(Reply::status(status)));
            broker.storage.faults().add(Fault { count: None, ..fault });
        }
        storage.push(&push).await.is_problem(expected, code);
        assert_eq!(state(&ada, &created).await, "pending");
        broker.storage.faults().clear();
    }
    assert_eq!(counted(&broker, "failed").await, 2);
    storage.push(&push).await.is(204);
    assert_eq!(state(&ada, &created).await, "completed");
}

#[tokio::test]
async fn only_the_subscriptions_that_are_named_may_push() {
    let more = format!("{SECTION}subscriptions = [\"projects/acme/subscriptions/uploads-eu\"]\n");
    let broker = Broker::start_with(Settings { more, ..Settings::default() }).await;
    let ada = broker.user("ada");
    let created = finished(&broker, &ada).await;
    let good = finalized(&broker, &created);
    let storage = Pusher::new(&broker);
    for subscription in [json!("projects/evil/subscriptions/uploads-eu"), json!("uploads-eu"), Value::Null] {
        let mut push = good.clone();
        push["subscription"] = subscription;
        storage.push(&push).await.is_problem(403, "forbidden");
    }
    assert_eq!(state(&ada, &created).await, "pending");
    storage.push(&good).await.is(204);
    assert_eq!(state(&ada, &created).await, "completed");
}

#[tokio::test]
async fn where_nothing_is_configured_nobody_may_push() {
    let broker = Broker::start().await;
    Pusher::new(&broker).push(&json!({})).await.is_problem(404, "not-found");
}
