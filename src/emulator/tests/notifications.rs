use serde_json::{Value, json};

use super::super::faults::{Action, Fault, Reply};
use super::super::journal::Operation;
use super::super::{PushForm, SubscriptionSettings, SubscriptionStatus};
use super::receiver::Receiver;
use super::*;

pub(super) const AUDIENCE: &str = "https://eu.uploads.example.com/v1/notifications/storage";
pub(super) const ACCOUNT: &str = "push@acme.example";

impl Stand {
    pub(super) fn subscribe(&self, receiver: &Receiver, change: impl FnOnce(&mut SubscriptionSettings)) {
        let mut settings = SubscriptionSettings::to(&receiver.endpoint);
        change(&mut settings);
        self.emulator.subscriptions().add(settings).unwrap();
    }

    /// Waits until everything was pushed.
    pub(super) async fn pushed(&self) {
        let pushed = tokio::time::timeout(Duration::from_secs(30), self.emulator.subscriptions().delivered()).await;
        assert!(pushed.is_ok(), "{:?}", self.emulator.subscriptions().list());
    }

    pub(super) fn status(&self) -> SubscriptionStatus {
        self.emulator.subscriptions().list().swap_remove(0)
    }

    /// Uploads an object in one request, and gives its resource.
    pub(super) async fn upload(&self, name: &str) -> Value {
        let path = format!("/upload/storage/v1/b/media/o?uploadType=media&name={name}");
        let seen = send(self.request(Method::POST, &path).body("hello")).await;
        assert_eq!(seen.status, 200, "{seen:?}");
        seen.json()
    }

    pub(super) async fn delete(&self, name: &str) {
        let seen = send(self.request(Method::DELETE, &format!("/storage/v1/b/media/o/{name}"))).await;
        assert_eq!(seen.status, 204, "{seen:?}");
    }

    pub(super) async fn configure(&self, config: Value) -> Seen {
        let path = "/storage/v1/b/media/notificationConfigs";
        send(self.request(Method::POST, path).body(config.to_string())).await
    }
}

pub(super) fn events(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|(kind, object)| ((*kind).to_owned(), (*object).to_owned())).collect()
}

pub(super) fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

#[tokio::test]
async fn a_finished_session_is_pushed_as_pub_sub_does() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |_| {});
    let initiation = stand.initiation("name=videos/a.mp4", r#"{"metadata": {"upload": "u1"}}"#);
    let uri = location(&initiation.send().await.unwrap());
    assert!(receiver.pushes().is_empty());
    let resource = stand.put(&uri, None, "hello").await.json();
    stand.pushed().await;
    let [push] = &receiver.pushes()[..] else { panic!("{:?}", receiver.pushes()) };
    let message = &push.body["message"];
    assert_eq!(push.header("content-type"), "application/json");
    assert!(!push.headers.contains_key("authorization"));
    assert_eq!(push.body["subscription"], "projects/emulator/subscriptions/push-1");
    assert_eq!(
        message["attributes"],
        json!({
            "eventType": "OBJECT_FINALIZE",
            "eventTime": "2025-11-22T10:00:00.000Z",
            "bucketId": "media",
            "objectId": "videos/a.mp4",
            "objectGeneration": resource["generation"],
            "notificationConfig": "projects/_/buckets/media/notificationConfigs/0",
            "payloadFormat": "JSON_API_V1",
        })
    );
    assert_eq!((&message["messageId"], &message["message_id"]), (&json!("1"), &json!("1")));
    assert_eq!(message["publishTime"], "2025-11-22T10:00:00.000Z");
    assert_eq!(message["publish_time"], message["publishTime"]);
    assert_eq!(push.data(), resource);
    assert_eq!(resource["metadata"]["upload"], "u1");
    let status = stand.status();
    assert_eq!((status.queued, status.delivered, status.attempts, status.lost), (0, 1, 1, 0));
    assert_eq!(status.last.as_deref(), Some("204"));
}

#[tokio::test]
async fn whatever_changes_an_object_is_told() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |_| {});
    stand.upload("media").await;
    let multipart = "--b\r\n\r\n{\"name\": \"multipart\"}\r\n--b\r\n\r\nhello\r\n--b--";
    let request = stand.request(Method::POST, "/upload/storage/v1/b/media/o?uploadType=multipart");
    let request = request.header("content-type", "multipart/related; boundary=b").body(multipart);
    assert_eq!(send(request).await.status, 200);
    assert_eq!(send(stand.request(Method::PUT, "/media/xml").body("hello")).await.status, 200);
    let patch = stand.request(Method::PATCH, "/storage/v1/b/media/o/media").body(r#"{"metadata": {"k": "v"}}"#);
    let patched = send(patch).await.json();
    stand.delete("media").await;
    assert_eq!(send(stand.request(Method::DELETE, "/media/xml")).await.status, 204);
    stand.pushed().await;
    let expected = events(&[
        ("OBJECT_DELETE", "media"),
        ("OBJECT_DELETE", "xml"),
        ("OBJECT_FINALIZE", "media"),
        ("OBJECT_FINALIZE", "multipart"),
        ("OBJECT_FINALIZE", "xml"),
        ("OBJECT_METADATA_UPDATE", "media"),
    ]);
    assert_eq!(sorted(receiver.what()), expected);
    let pushes = receiver.pushes();
    let updated = pushes.iter().find(|push| push.what().0 == "OBJECT_METADATA_UPDATE").unwrap();
    assert_eq!(updated.data(), patched);
    assert!(pushes.iter().all(|push| push.attribute("overwrittenByGeneration").is_none()));
}

#[tokio::test]
async fn an_overwrite_gives_both_events() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    let first = stand.upload("o").await;
    stand.subscribe(&receiver, |_| {});
    let second = stand.upload("o").await;
    stand.pushed().await;
    assert_eq!(sorted(receiver.what()), events(&[("OBJECT_DELETE", "o"), ("OBJECT_FINALIZE", "o")]));
    for push in receiver.pushes() {
        let other = match push.what().0.as_str() {
            "OBJECT_FINALIZE" => ("overwroteGeneration", "overwrittenByGeneration", &second, &first),
            _ => ("overwrittenByGeneration", "overwroteGeneration", &first, &second),
        };
        let (named, absent, subject, counterpart) = other;
        assert_eq!(push.attribute("objectGeneration"), subject["generation"].as_str());
        assert_eq!(push.attribute(named), counterpart["generation"].as_str());
        assert_eq!(push.attribute(absent), None);
        assert_eq!(&push.data(), subject);
    }
}

#[tokio::test]
async fn what_fails_or_is_cancelled_says_nothing() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |_| {});
    let cancelled = stand.session("cancelled", None).await;
    stand.put(&cancelled, Some("bytes 0-262143/*"), bytes(Q)).await;
    assert_eq!(stand.cancel(&cancelled).await, 499);
    let wrong = stand.initiation("name=wrong", r#"{"md5Hash": "XrY7u+Ae7tCTyyK7j1rNww=="}"#);
    let wrong = location(&wrong.send().await.unwrap());
    assert_eq!(stand.put(&wrong, None, "x").await.status, 400);
    let unmet = location(&stand.initiation("name=unmet&ifGenerationMatch=1", "").send().await.unwrap());
    assert_eq!(stand.put(&unmet, None, "x").await.status, 412);
    stand.emulator.faults().add(Fault::once(Operation::Simple, Action::Respond(Reply::status(503))));
    let request = stand.request(Method::POST, "/upload/storage/v1/b/media/o?uploadType=media&name=fault");
    assert_eq!(send(request.body("x")).await.status, 503);
    let missing = stand.request(Method::DELETE, "/storage/v1/b/media/o/none");
    assert_eq!(send(missing).await.status, 404);
    // An answer that is lost does not undo what it was to tell.
    stand.emulator.faults().add(Fault::once(Operation::Simple, Action::ActThenReset));
    let request = stand.request(Method::POST, "/upload/storage/v1/b/media/o?uploadType=media&name=there");
    assert!(request.body("x").send().await.is_err());
    stand.pushed().await;
    assert_eq!(receiver.what(), events(&[("OBJECT_FINALIZE", "there")]));
}

#[tokio::test]
async fn eventarc_gets_a_cloud_event() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |settings| settings.form = PushForm::Eventarc);
    let resource = stand.upload("videos/caf%C3%A9%20%25.mp4").await;
    stand.pushed().await;
    stand.delete("videos%2Fcaf%C3%A9%20%25.mp4").await;
    stand.pushed().await;
    let [finalized, deleted] = &receiver.pushes()[..] else { panic!("{:?}", receiver.pushes()) };
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-type", "google.cloud.storage.object.v1.finalized"),
        ("ce-source", "//storage.googleapis.com/projects/_/buckets/media"),
        ("ce-subject", "objects/videos/caf%C3%A9%20%25.mp4"),
        ("ce-bucket", "media"),
        ("ce-time", "2025-11-22T10:00:00.000Z"),
        ("ce-id", "1"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(finalized.header(name), value, "{name}");
    }
    assert_eq!(finalized.body, resource);
    assert_eq!(deleted.header("ce-type"), "google.cloud.storage.object.v1.deleted");
    assert_ne!(deleted.header("ce-id"), finalized.header("ce-id"));
}

#[tokio::test]
async fn the_token_is_one_that_the_key_set_checks() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |settings| {
        settings.audience = Some(AUDIENCE.into());
        settings.service_account = Some(ACCOUNT.into());
    });
    let get = |path: &str| send(stand.client.get(format!("{}{path}", stand.emulator.url())));
    let discovery = get("/.well-known/openid-configuration").await.json();
    assert_eq!(discovery["issuer"], stand.emulator.url());
    assert_eq!(discovery["jwks_uri"], format!("{}/oauth2/v3/certs", stand.emulator.url()));
    let served = get("/oauth2/v3/certs").await;
    assert_eq!(served.header("cache-control"), Some("public, max-age=3600, must-revalidate"));
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&served.body).unwrap();
    assert_eq!(stand.emulator.journal().count(Operation::SigningKeys), 2);

    let now = stand.emulator.now().as_secs();
    for (name, advance, expected) in [
        ("at first", 0, now),
        ("used again", 3299, now),
        ("a new one in time", 1, now + 3300),
        ("long after", 360_000, now + 363_300),
    ] {
        stand.emulator.advance(Duration::from_secs(advance));
        stand.upload("o").await;
        stand.pushed().await;
        let push = receiver.pushes().pop().unwrap();
        let token = push.bearer();
        assert!(!format!("{:?}", stand.emulator).contains(token), "{name}");
        let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        let mut wanted = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        wanted.set_audience(&[AUDIENCE]);
        wanted.set_issuer(&[stand.emulator.url()]);
        wanted.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The emulator's clock is not the system's.
        wanted.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(token, &key, &wanted).unwrap().claims;
        assert_eq!((&claims["email"], &claims["email_verified"]), (&json!(ACCOUNT), &json!(true)), "{name}");
        assert_eq!(claims["iat"], expected, "{name}");
        assert_eq!(claims["exp"], expected + 3600, "{name}");
        let number = claims["sub"].as_str().unwrap();
        assert!(number.len() == 21 && number.bytes().all(|digit| digit.is_ascii_digit()), "{name}: {number}");
        assert_eq!(claims["azp"], claims["sub"], "{name}");
        wanted.set_audience(&["https://other.example"]);
        assert!(jsonwebtoken::decode::<Value>(token, &key, &wanted).is_err());
    }
}

#[tokio::test]
async fn a_config_says_what_goes_to_its_topic() {
    let (stand, everything, topical) = (stand().await, Receiver::start([]).await, Receiver::start([]).await);
    stand.subscribe(&everything, |_| {});
    stand.subscribe(&topical, |settings| {
        settings.topic = Some("projects/p/topics/t".into());
        settings.name = Some("projects/p/subscriptions/s".into());
    });
    let config = json!({
        "topic": "//pubsub.googleapis.com/projects/p/topics/t",
        "event_types": ["OBJECT_FINALIZE"],
        "object_name_prefix": "videos/",
        "payload_format": "NONE",
        "custom_attributes": {"k": "v", "eventType": "not this"},
    });
    let made = stand.configure(config).await.json();
    assert_eq!((&made["id"], &made["payload_format"]), (&json!("1"), &json!("NONE")));
    stand.upload("videos/a").await;
    stand.upload("images/a").await;
    stand.delete("videos%2Fa").await;
    let elsewhere = json!({"topic": "//pubsub.googleapis.com/projects/p/topics/other"});
    assert_eq!(stand.configure(elsewhere).await.status, 200);
    stand.upload("videos/b").await;
    stand.pushed().await;
    assert_eq!(everything.pushes().len(), 4, "one each, however many configs there are");
    let finalized = events(&[("OBJECT_FINALIZE", "videos/a"), ("OBJECT_FINALIZE", "videos/b")]);
    assert_eq!(sorted(topical.what()), finalized);
    let push = topical.pushes().swap_remove(0);
    assert_eq!(push.body["message"].get("data"), None);
    assert_eq!(push.body["subscription"], "projects/p/subscriptions/s");
    assert_eq!((push.attribute("k"), push.attribute("payloadFormat")), (Some("v"), Some("NONE")));
    assert_eq!(push.attribute("notificationConfig"), Some("projects/_/buckets/media/notificationConfigs/1"));
}

#[tokio::test]
async fn configs_are_kept_as_storage_keeps_them() {
    let stand = stand().await;
    let path = "/storage/v1/b/media/notificationConfigs";
    let get = |path: String| send(stand.request(Method::GET, &path));
    let topic = "//pubsub.googleapis.com/projects/p/topics/t";
    assert_eq!(get(path.into()).await.json(), json!({"kind": "storage#notifications"}));
    let made = stand.configure(json!({"topic": topic, "event_types": ["OBJECT_DELETE"], "kind": "x"})).await.json();
    let expected = json!({
        "kind": "storage#notification", "id": "1", "etag": "1", "topic": topic, "payload_format": "JSON_API_V1",
        "event_types": ["OBJECT_DELETE"], "selfLink": format!("{}{path}/1", stand.emulator.url()),
    });
    assert_eq!(made, expected);
    assert_eq!(get(format!("{path}/1")).await.json(), made);
    assert_eq!(get(path.into()).await.json()["items"], json!([made]));
    let full = json!({"topic": topic, "object_name_prefix": "a/", "custom_attributes": {"k": "v"}});
    let full = stand.configure(full).await.json();
    assert_eq!((&full["object_name_prefix"], &full["custom_attributes"]["k"]), (&json!("a/"), &json!("v")));
    let delete = |id: &str| send(stand.request(Method::DELETE, &format!("{path}/{id}")));
    assert_eq!((delete("1").await.status, delete("1").await.status, delete("x").await.status), (204, 404, 404));
    assert_eq!(get(format!("{path}/1")).await.status, 404);
    assert_eq!(get(format!("{path}/02")).await.status, 404);
    assert_eq!(stand.configure(json!({"topic": topic})).await.json()["id"], "3", "an id is not given again");

    let long = "k".repeat(257);
    let many: serde_json::Map<_, _> = (0..6).map(|number| (number.to_string(), json!("v"))).collect();
    for (name, config, reason) in [
        ("no topic", json!({}), "required"),
        ("a topic without its service", json!({"topic": "projects/p/topics/t"}), "invalid"),
        ("half a topic", json!({"topic": "//pubsub.googleapis.com/projects/p"}), "invalid"),
        ("an unknown type", json!({"topic": topic, "event_types": ["OBJECT_EATEN"]}), "invalid"),
        ("an unknown payload", json!({"topic": topic, "payload_format": "XML"}), "invalid"),
        ("a long key", json!({"topic": topic, "custom_attributes": {long: "v"}}), "invalid"),
        ("many attributes", json!({"topic": topic, "custom_attributes": many}), "invalid"),
        ("a long prefix", json!({"topic": topic, "object_name_prefix": "a".repeat(1025)}), "invalid"),
    ] {
        let seen = stand.configure(config).await;
        assert_eq!((seen.status, seen.reason().as_str()), (400, reason), "{name}");
    }
    let nowhere = stand.request(Method::POST, "/storage/v1/b/none/notificationConfigs").body("{}");
    assert_eq!(send(nowhere).await.status, 404);
    let anonymous = stand.client.get(format!("{}{path}", stand.emulator.url()));
    assert_eq!(send(anonymous).await.status, 401);
    for _ in 0..8 {
        assert_eq!(stand.configure(json!({"topic": topic})).await.status, 200);
    }
    assert_eq!(stand.configure(json!({"topic": topic})).await.status, 400, "ten for a type of event");
    let journal = stand.emulator.journal();
    assert_eq!(journal.count(Operation::CreateNotificationConfig), 21);
    assert_eq!(journal.count(Operation::DeleteNotificationConfig), 3);
}
