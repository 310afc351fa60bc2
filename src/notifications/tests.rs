use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;

const ID: &str = "3f00112233445566778899aabbccddeeff";
const NAME: &str = "videos/u-17/0198 ä.mp4";

fn resource() -> Value {
    json!({
        "kind": "storage#object", "bucket": "media-eu", "name": NAME, "generation": "1763805600123456",
        "metageneration": "1", "size": "3", "contentType": "video/mp4", "metadata": {"album": "x", "upload-broker-id": ID},
    })
}

/// A push with every field that Pub/Sub documents, with `data` as it stands.
fn push(data: &str) -> Value {
    json!({
        "message": {
            "attributes": {
                "eventType": "OBJECT_FINALIZE", "bucketId": "media-eu", "objectId": NAME,
                "objectGeneration": "1763805600123456", "payloadFormat": "JSON_API_V1", "custom": "1",
                "notificationConfig": "projects/_/buckets/media-eu/notificationConfigs/3",
                "eventTime": "2026-11-22T10:00:00.123456Z", "overwroteGeneration": "1",
            },
            "data": data, "messageId": "1234", "message_id": "1234", "publishTime": "2026-11-22T10:00:00.5Z",
            "publish_time": "2026-11-22T10:00:00.5Z", "orderingKey": "k",
        },
        "subscription": "projects/P/subscriptions/S", "deliveryAttempt": 1, "new": {"field": []},
    })
}

fn full() -> Value {
    push(&STANDARD.encode(resource().to_string()))
}

/// `value` with something else at `pointer`; `null` takes it away.
fn with(mut value: Value, pointer: &str, other: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if other.is_null() {
        parent.remove(key)
    } else {
        parent.insert(key.to_owned(), other)
    };
    value
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

fn json_headers() -> HeaderMap {
    headers(&[("content-type", "application/json")])
}

fn event_headers() -> HeaderMap {
    headers(&[
        ("content-type", "application/json; charset=utf-8"),
        ("ce-specversion", "1.0"),
        ("ce-type", "google.cloud.storage.object.v1.finalized"),
        ("ce-source", "//storage.googleapis.com/projects/_/buckets/media-eu"),
        ("ce-subject", "objects/videos/u-17/0198%20%C3%A4.mp4"),
        ("ce-bucket", "media-eu"),
        ("ce-id", "1"),
        ("ce-time", "2026-11-22T10:00:00.123456Z"),
    ])
}

fn event() -> Value {
    json!({
        "specversion": "1.0", "type": "google.cloud.storage.object.v1.finalized", "id": "1", "bucket": "media-eu",
        "source": "//storage.googleapis.com/projects/_/buckets/media-eu", "subject": format!("objects/{NAME}"),
        "datacontenttype": "application/json", "data": resource(),
    })
}

fn notice() -> ObjectNotice {
    ObjectNotice {
        bucket: "media-eu".parse().unwrap(),
        object: NAME.parse().unwrap(),
        generation: Some(1_763_805_600_123_456),
        hint: Some(ID.parse().unwrap()),
    }
}

fn read_json(headers: &HeaderMap, body: &Value) -> Result<Option<ObjectNotice>, Unreadable> {
    read(headers, body.to_string().as_bytes()).map(|delivery| delivery.notice)
}

#[test]
fn a_push_names_its_object_with_and_without_a_payload() {
    let bare = ObjectNotice { hint: None, ..notice() };
    let unmarked = STANDARD.encode(with(resource(), "/metadata", Value::Null).to_string());
    let spoilt = STANDARD.encode(with(resource(), "/metadata/upload-broker-id", json!("../x")).to_string());
    let odd = STANDARD.encode(with(resource(), "/metadata/upload-broker-id", json!(7)).to_string());
    for (name, body, expected) in [
        ("with everything", full(), notice()),
        ("without metadata", push(&unmarked), bare.clone()),
        ("with a hint that is no id", push(&spoilt), bare.clone()),
        ("with a hint that is no text", push(&odd), bare.clone()),
        (
            "no payload",
            with(with(full(), "/message/data", Value::Null), "/message/attributes/payloadFormat", json!("NONE")),
            bare.clone(),
        ),
        ("an empty payload", push(""), bare.clone()),
        (
            "a payload of a form to come",
            with(push("?"), "/message/attributes/payloadFormat", json!("JSON_API_V2")),
            bare.clone(),
        ),
        (
            "no generation",
            with(full(), "/message/attributes/objectGeneration", Value::Null),
            ObjectNotice { generation: None, ..notice() },
        ),
        ("no subscription", with(full(), "/subscription", Value::Null), notice()),
    ] {
        assert_eq!(read_json(&json_headers(), &body), Ok(Some(expected)), "{name}");
    }
    let delivery = read(&json_headers(), full().to_string().as_bytes()).unwrap();
    assert_eq!(delivery.subscription.as_deref(), Some("projects/P/subscriptions/S"));
    // What Pub/Sub says of the body counts for nothing; some proxies lose it.
    assert_eq!(read_json(&HeaderMap::new(), &full()), Ok(Some(notice())));
}

#[test]
fn an_event_names_its_object_in_either_mode() {
    let numeric = with(resource(), "/generation", json!(1_763_805_600_123_456_i64));
    let unnamed = with(with(resource(), "/name", Value::Null), "/bucket", Value::Null);
    let structured = headers(&[("content-type", "Application/CloudEvents+JSON; charset=utf-8")]);
    for (name, headers, body, expected) in [
        ("binary", event_headers(), resource(), notice()),
        ("binary, an integer as a number", event_headers(), numeric.clone(), notice()),
        ("binary, named by its headers alone", event_headers(), unnamed.clone(), notice()),
        (
            "binary, an integer that is none",
            event_headers(),
            with(resource(), "/generation", json!(1.5)),
            ObjectNotice { generation: None, ..notice() },
        ),
        ("structured", structured.clone(), event(), notice()),
        ("structured, an integer as a number", structured.clone(), with(event(), "/data", numeric), notice()),
        ("structured, named by its attributes alone", structured.clone(), with(event(), "/data", unnamed), notice()),
        (
            "structured, without data",
            structured.clone(),
            with(event(), "/data", Value::Null),
            ObjectNotice { generation: None, hint: None, ..notice() },
        ),
    ] {
        assert_eq!(read_json(&headers, &body), Ok(Some(expected)), "{name}");
    }
    let mut protobuf = event_headers();
    protobuf.insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    let expected = ObjectNotice { generation: None, hint: None, ..notice() };
    assert_eq!(read(&protobuf, b"\x0a\xff").map(|delivery| delivery.notice), Ok(Some(expected)), "protobuf");
}

#[test]
fn what_is_no_new_object_is_about_nothing() {
    for kind in ["OBJECT_METADATA_UPDATE", "OBJECT_DELETE", "OBJECT_ARCHIVE", "OBJECT_INITIALIZE", "OBJECT_DREAMT"] {
        // Not even its payload is looked at.
        let body = with(push("?"), "/message/attributes/eventType", json!(kind));
        assert_eq!(read_json(&json_headers(), &body), Ok(None), "{kind}");
    }
    for kind in ["google.cloud.storage.object.v1.deleted", "google.cloud.audit.log.v1.written", ""] {
        let mut headers = event_headers();
        headers.insert("ce-type", kind.parse().unwrap());
        assert_eq!(read_json(&headers, &json!("?")), Ok(None), "{kind}");
    }
}

#[test]
fn what_can_never_be_read_is_told_from_what_is_set_up_wrongly() {
    let structured = headers(&[("content-type", "application/cloudevents+json")]);
    let metadata = headers(&[("content-type", "application/json"), ("x-goog-pubsub-message-id", "1")]);
    let untyped = headers(&[("ce-specversion", "1.0")]);
    let url_safe = URL_SAFE_NO_PAD.encode("{\"name\":\"???>>>\"}");
    for (name, headers, body, unwrapped) in [
        ("nothing", json_headers(), String::new(), false),
        ("no JSON", json_headers(), "{".to_owned(), false),
        ("a list", json_headers(), "[]".to_owned(), false),
        ("no message", json_headers(), "{}".to_owned(), false),
        ("no attributes", json_headers(), with(full(), "/message/attributes", Value::Null).to_string(), false),
        (
            "somebody's own message",
            json_headers(),
            with(full(), "/message/attributes", json!({"a": "b"})).to_string(),
            false,
        ),
        ("no bucket", json_headers(), with(full(), "/message/attributes/bucketId", Value::Null).to_string(), false),
        ("no object", json_headers(), with(full(), "/message/attributes/objectId", Value::Null).to_string(), false),
        (
            "a bucket that none can be",
            json_headers(),
            with(full(), "/message/attributes/bucketId", json!("../x")).to_string(),
            false,
        ),
        (
            "an object that none can be",
            json_headers(),
            with(full(), "/message/attributes/objectId", json!("a\nb")).to_string(),
            false,
        ),
        (
            "an attribute that is no text",
            json_headers(),
            with(full(), "/message/attributes/objectId", json!(7)).to_string(),
            false,
        ),
        ("data that is no base64", json_headers(), push("???").to_string(), false),
        ("data in another base64", json_headers(), push(&url_safe).to_string(), false),
        ("data that is no JSON", json_headers(), push(&STANDARD.encode("{")).to_string(), false),
        ("data that is no resource", json_headers(), push(&STANDARD.encode("[[]]")).to_string(), false),
        ("a key twice", json_headers(), full().to_string().replacen('{', "{\"message\":{},", 1), false),
        ("a resource alone", json_headers(), resource().to_string(), true),
        ("a resource with the message's headers", metadata.clone(), resource().to_string(), true),
        ("nothing with the message's headers", metadata, String::new(), true),
        ("an event without a type", untyped, resource().to_string(), false),
        ("an event without a resource", event_headers(), "?".to_owned(), false),
        ("an event that is no JSON", structured.clone(), "?".to_owned(), false),
        ("a batch of events", structured, json!([event()]).to_string(), false),
    ] {
        let refused = read(&headers, body.as_bytes()).unwrap_err();
        assert_eq!(refused == Unreadable::Unwrapped, unwrapped, "{name}: {refused}");
    }
}

#[test]
fn no_depth_and_no_length_of_a_body_is_too_much() {
    let deep = format!("{{\"message\":{}", "[".repeat(MAX_BODY));
    assert!(read(&json_headers(), deep.as_bytes()).is_err());
    let deep = push(&STANDARD.encode(format!("{{\"metadata\":{}", "{\"a\":".repeat(100_000))));
    assert!(read_json(&json_headers(), &deep).is_err());
    let long = with(full(), "/new", json!("x".repeat(MAX_BODY)));
    assert_eq!(read_json(&json_headers(), &long), Ok(Some(notice())));
}

/// One of the good deliveries.
fn good() -> impl Strategy<Value = (HeaderMap, Vec<u8>)> {
    let structured = headers(&[("content-type", "application/cloudevents+json")]);
    let all = vec![(json_headers(), full()), (event_headers(), resource()), (structured, event())];
    proptest::sample::select(all).prop_map(|(headers, body)| (headers, body.to_string().into_bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is cut, put in and overwritten: it is read or refused, and what is read is about one object.
    #[test]
    fn no_damage_makes_the_reader_panic(
        (headers, body) in good(),
        cut in any::<prop::sample::Index>(),
        wound in prop::collection::vec(any::<u8>(), 0..6),
        length in 0_usize..9,
    ) {
        let at = cut.index(body.len());
        let mut damaged = body;
        damaged.splice(at..(at + length).min(damaged.len()), wound);
        let _ = read(&headers, &damaged);
        let _ = read(&json_headers(), &damaged);
    }

    /// The headers, too, are whatever somebody sent.
    #[test]
    fn no_header_makes_the_reader_panic(subject in "[ -~\u{80}-\u{ff}]{0,40}", bucket in "%?[ -~]{0,8}") {
        let mut headers = event_headers();
        for (name, value) in [("ce-subject", format!("objects/{subject}")), ("ce-bucket", bucket)] {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        }
        let _ = read(&headers, b"{}");
    }
}
