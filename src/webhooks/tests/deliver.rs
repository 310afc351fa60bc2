//! What is recorded reaches its receivers, whatever these do.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock::Randomness;
use crate::model::endpoint::EndpointId;
use crate::telemetry;

use super::super::deliver::{GRACE, JITTER, LEASE, POLL};
use super::super::endpoint::ATTEMPTS_AT_ONCE;
use super::super::event_id;
use super::super::schedule::TRIED_FOR;
use super::receiver::{Answer, Receiver};
use super::scene::{START, Scene, endpoints};
use super::{OTHER_SECRET, SECRET};

#[tokio::test]
async fn an_end_is_told_to_everyone_who_is_to_be_told() {
    let scene = Scene::new().await;
    let (one, other) = (Receiver::start().await, Receiver::start().await);
    let instance = scene.tell(&[("one", &one), ("other", &other)]);
    let id = scene.cancelled_upload(1, &["one", "other"]).await;
    scene.clock.advance(Duration::from_secs(2));
    instance.notice(id).await;
    for receiver in [&one, &other] {
        receiver.arrivals(1).await;
        let [request] = receiver.received().try_into().unwrap();
        assert_eq!(request.id(), event_id(id));
        assert_eq!(request.header("webhook-timestamp"), "1763805602");
        let expected = json!({
            "type": "upload.cancelled",
            "timestamp": START,
            "data": {"upload": {"id": id.to_string(), "state": "cancelled"}},
        });
        assert_eq!(request.body.parse::<Value>().unwrap(), expected);
    }
    instance.shows(r#"webhook_deliveries_total{endpoint="one",result="accepted"} 1"#).await;
    instance.shows(r#"webhook_delivery_lag_seconds_bucket{le="1.0",endpoint="other"} 0"#).await;
    instance.shows(r#"webhook_delivery_lag_seconds_bucket{le="2.5",endpoint="other"} 1"#).await;
}

#[tokio::test]
async fn a_receiver_is_told_of_the_trace_if_there_is_one() {
    let mut scene = Scene::new().await;
    let receiver = Receiver::start().await;
    let settings = toml::from_str("otlp_endpoint = \"http://127.0.0.1:9\"").unwrap();
    let traced = telemetry::open(&settings, scene.clock.clone(), Randomness::seeded(3), "here", Vec::new()).unwrap();
    for (number, tracer) in [(1, None), (2, Some(traced.unwrap().0))] {
        let is_traced = tracer.is_some();
        scene.tracer = tracer;
        let instance = scene.tell(&[("backend", &receiver)]);
        let id = scene.cancelled_upload(number, &["backend"]).await;
        instance.notice(id).await;
        receiver.arrivals(1).await;
        instance.end().await;
        let traceparent = receiver.received().last().unwrap().header("traceparent").to_owned();
        assert_eq!(traceparent.len() == 55 && traceparent.ends_with("-01"), is_traced, "{traceparent:?}");
    }
}

#[tokio::test]
async fn endpoints_come_and_go_and_who_stays_keeps_its_connections_and_gets_its_new_secrets() {
    let scene = Scene::new().await;
    let (stays, goes, comes) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let section = |name: &str, receiver: &Receiver, secret| receiver.section(name, secret, scene.directory());
    let instance = scene.start(&[section("stays", &stays, SECRET), section("goes", &goes, SECRET)]);
    let kept = instance.webhooks.endpoints.borrow()[0].clone();
    let id = scene.cancelled_upload(1, &["stays", "goes"]).await;
    instance.notice(id).await;
    for receiver in [&stays, &goes] {
        receiver.arrivals(1).await;
        assert!(receiver.received().pop().unwrap().is_signed_with(SECRET));
    }
    let later = [section("stays", &stays, OTHER_SECRET), section("comes", &comes, SECRET)];
    instance.webhooks.tell(endpoints(&later));
    assert!(std::sync::Arc::ptr_eq(&kept, &instance.webhooks.endpoints.borrow()[0]));
    // For whom nobody is there waits, until somebody is.
    let id = scene.cancelled_upload(2, &["stays", "goes", "comes"]).await;
    instance.notice(id).await;
    stays.arrivals(1).await;
    comes.arrivals(1).await;
    assert!(stays.received().pop().unwrap().is_signed_with(OTHER_SECRET));
    assert_eq!(goes.received().len(), 1);
    instance.webhooks.tell(endpoints(&[section("goes", &goes, SECRET)]));
    goes.arrivals(1).await;
    instance.end().await;
    assert_eq!((stays.received().len(), comes.received().len()), (2, 1));
}

#[tokio::test]
async fn of_many_instances_one_tells() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    let instances = [(); 3].map(|()| scene.tell(&[("backend", &receiver)]));
    let mut expected = HashSet::new();
    for number in 0..60 {
        let id = scene.cancelled_upload(number, &["backend"]).await;
        expected.insert(event_id(id));
        for instance in &instances {
            instance.notice(id).await;
        }
    }
    receiver.arrivals(60).await;
    for instance in instances {
        instance.end().await;
    }
    let requests = receiver.received();
    assert_eq!(requests.len(), 60);
    assert_eq!(requests.iter().map(|request| request.id().to_owned()).collect::<HashSet<_>>(), expected);
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_no_other_and_takes_up_its_own_share_only() {
    let scene = Scene::new().await;
    let (dead, healthy) = (Receiver::start().await, Receiver::start().await);
    dead.says(Answer::Silence);
    let instance = scene.tell(&[("dead", &dead), ("healthy", &healthy)]);
    for number in 0..60 {
        let id = scene.cancelled_upload(number, &["dead", "healthy"]).await;
        instance.notice(id).await;
    }
    healthy.arrivals(60).await;
    dead.arrivals(16).await;
    instance.shows(r#"webhook_deliveries_total{endpoint="healthy",result="accepted"} 60"#).await;
    assert_eq!(dead.received().len(), ATTEMPTS_AT_ONCE);
}

#[tokio::test]
async fn what_was_not_accepted_comes_again_the_same_after_a_pause() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    let instance = scene.tell(&[("backend", &receiver)]);
    let id = scene.cancelled_upload(1, &["backend"]).await;
    for (failures, answer) in [
        (1, Answer::status(500)),
        (2, Answer::Status(307, "location: http://127.0.0.1:1/\r\n".to_owned())),
        (3, Answer::Bytes(b"nonsense\r\n\r\n".to_vec())),
    ] {
        receiver.says(answer);
        instance.notice(id).await;
        receiver.arrivals(1).await;
        instance.shows(&format!(r#"webhook_deliveries_total{{endpoint="backend",result="failed"}} {failures}"#)).await;
        assert!(scene.take_due(id.partition(), "backend").await.is_empty(), "no pause after failure {failures}");
        scene.clock.advance(Duration::from_secs(180));
    }
    receiver.says(Answer::status(200));
    instance.notice(id).await;
    receiver.arrivals(1).await;
    instance.shows(r#"webhook_deliveries_total{endpoint="backend",result="accepted"} 1"#).await;
    let requests = receiver.received();
    assert_eq!(requests.len(), 4);
    for request in &requests[1..] {
        assert_eq!((request.id(), &request.body), (requests[0].id(), &requests[0].body));
        assert_ne!(request.header("webhook-signature"), requests[0].header("webhook-signature"));
    }
}

#[tokio::test]
async fn an_instance_that_dies_before_the_answer_leaves_the_event_to_another() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    receiver.says(Answer::Silence);
    let instance = scene.tell(&[("backend", &receiver)]);
    let id = scene.cancelled_upload(1, &["backend"]).await;
    instance.notice(id).await;
    receiver.arrivals(1).await;
    instance.die().await;

    receiver.says(Answer::status(200));
    scene.clock.advance(LEASE.saturating_sub(Duration::from_millis(1)));
    assert!(scene.take_due(id.partition(), "backend").await.is_empty(), "it is not to be sent twice at a time");
    scene.clock.advance(Duration::from_millis(1));
    let _another = scene.tell(&[("backend", &receiver)]);
    receiver.arrivals(1).await;
    let [first, second] = receiver.received().try_into().unwrap();
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
}

#[tokio::test]
async fn after_72_hours_an_event_is_parked_and_an_operator_can_have_it_sent() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    receiver.says(Answer::status(503));
    let instance = scene.tell(&[("backend", &receiver)]);
    let endpoint = EndpointId::of("backend");
    let id = scene.cancelled_upload(1, &["backend"]).await;
    let other = scene.cancelled_upload(2, &["backend"]).await;
    for (after, failed, parked) in [(Duration::ZERO, 2, 0), (TRIED_FOR / 2, 4, 0), (TRIED_FOR / 2, 4, 2)] {
        scene.clock.advance(after);
        instance.notice(id).await;
        instance.notice(other).await;
        receiver.arrivals(2).await;
        instance.shows(&format!(r#"webhook_deliveries_total{{endpoint="backend",result="failed"}} {failed}"#)).await;
        instance.shows(&format!(r#"webhook_deliveries_total{{endpoint="backend",result="parked"}} {parked}"#)).await;
    }
    let page = scene.store.parked(endpoint, None, 1).await.unwrap();
    let [first] = page.parked.try_into().unwrap();
    assert_eq!((first.id, first.since), (id, scene.clock.now()));
    assert_eq!((first.failures.count, first.failures.last.as_str()), (3, "answered 503"));
    assert_eq!(scene.store.parked(endpoint, page.next, 9).await.unwrap().parked[0].id, other);
    scene.clock.advance(TRIED_FOR);
    assert!(scene.take_due(id.partition(), "backend").await.is_empty(), "what is parked is sent by itself");

    receiver.says(Answer::status(200));
    assert!(scene.store.replay(id, endpoint, scene.clock.now()).await.unwrap());
    instance.notice(id).await;
    receiver.arrivals(1).await;
    instance.shows(r#"webhook_deliveries_total{endpoint="backend",result="accepted"} 1"#).await;
    assert_eq!(receiver.received().pop().unwrap().id(), event_id(id));
    assert!(!scene.store.replay(id, endpoint, scene.clock.now()).await.unwrap(), "it was accepted");
}

#[tokio::test]
async fn what_nobody_gave_notice_of_is_found_by_looking() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    let earlier = scene.cancelled_upload(1, &["backend"]).await;
    let instance = scene.tell(&[("backend", &receiver)]);
    receiver.arrivals(1).await;
    assert_eq!(receiver.received()[0].id(), event_id(earlier));
    instance.shows(r#"webhook_deliveries_total{endpoint="backend",result="accepted"} 1"#).await;

    let later = scene.cancelled_upload(2, &["backend"]).await;
    tokio::time::pause();
    tokio::time::sleep(POLL.mul_f64(1.0 + JITTER) + Duration::from_secs(1)).await;
    assert!(scene.take_due(later.partition(), "backend").await.is_empty(), "nobody has looked");
}

#[tokio::test]
async fn an_endpoint_that_has_left_the_configuration_is_told_nothing_until_it_is_back() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    let instance = scene.tell(&[("other", &receiver)]);
    let id = scene.cancelled_upload(1, &["backend", "other"]).await;
    instance.notice(id).await;
    receiver.arrivals(1).await;
    instance.end().await;
    assert_eq!(receiver.received().len(), 1);
    let _back = scene.tell(&[("backend", &receiver)]);
    receiver.arrivals(1).await;
    assert_eq!(receiver.received()[1].id(), event_id(id));
}

#[tokio::test]
async fn an_end_waits_for_attempts_under_way_but_not_for_ever() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    receiver.says(Answer::Silence);
    let instance = scene.tell(&[("backend", &receiver)]);
    let id = scene.cancelled_upload(1, &["backend"]).await;
    instance.notice(id).await;
    receiver.arrivals(1).await;
    tokio::time::pause();
    let begun = Instant::now();
    instance.end().await;
    assert!((GRACE..GRACE + Duration::from_secs(1)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}
