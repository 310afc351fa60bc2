use std::collections::BTreeSet;

use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};

use super::super::{SubscriptionError, SubscriptionSettings};
use super::notifications::{ACCOUNT, AUDIENCE, events, sorted};
use super::receiver::Receiver;
use super::*;
use crate::model::time::Span;

#[tokio::test]
async fn what_is_not_acknowledged_comes_again() {
    let stand = stand().await;
    for answers in [vec![], vec![200], vec![201], vec![202], vec![500, 404, 302, 401, 203]] {
        let receiver = Receiver::start(answers.clone()).await;
        stand.subscribe(&receiver, |_| {});
        stand.upload("o").await;
        stand.pushed().await;
        let tries = if answers.len() > 1 { 6 } else { 1 };
        let pushes = receiver.pushes();
        let finalized: Vec<_> = pushes.iter().filter(|push| push.what().0 == "OBJECT_FINALIZE").collect();
        assert_eq!(finalized.len(), tries, "{answers:?}");
        assert!(finalized.iter().all(|push| push.body == finalized[0].body), "the same message with the same id");
        assert_eq!((stand.status().attempts, stand.status().delivered), (tries as u64, 1), "{answers:?}");
        stand.emulator.subscriptions().clear();
        stand.delete("o").await;
    }
}

#[tokio::test]
async fn a_receiver_that_comes_back_gets_everything() {
    let stand = stand().await;
    // Bound but not listening: whoever connects is refused.
    let place = TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = place.local_addr().unwrap();
    stand.emulator.subscriptions().add(SubscriptionSettings::to(format!("http://{address}/push"))).unwrap();
    for number in 0..40 {
        stand.upload(&format!("o{number}")).await;
    }
    while stand.status().attempts < 40 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((stand.status().delivered, stand.status().queued), (0, 40));
    let receiver = Receiver::on(place.listen(128).unwrap(), []);
    stand.pushed().await;
    let names: BTreeSet<_> = receiver.what().into_iter().map(|(_, name)| name).collect();
    assert_eq!((names.len(), stand.status().delivered), (40, 40));
}

#[tokio::test]
async fn copies_come_each_until_acknowledged() {
    let (stand, receiver) = (stand().await, Receiver::start([503]).await);
    stand.subscribe(&receiver, |settings| settings.copies = 5);
    stand.upload("o").await;
    stand.pushed().await;
    assert_eq!(receiver.pushes().len(), 6);
    assert_eq!((stand.status().delivered, stand.status().attempts), (5, 6));
}

#[tokio::test]
async fn the_lost_are_never_pushed_and_a_seed_decides_which() {
    let mut seen = Vec::new();
    for seed in [7, 7, 8] {
        let stand = stand_with(|settings| settings.randomness = Randomness::seeded(seed)).await;
        let receiver = Receiver::start([]).await;
        stand.subscribe(&receiver, |settings| settings.lose = 0.5);
        for number in 0..60 {
            stand.upload(&format!("o{number}")).await;
        }
        stand.pushed().await;
        let pushed = sorted(receiver.what());
        assert_eq!(stand.status().lost + pushed.len() as u64, 60);
        assert!((10..50).contains(&pushed.len()), "{}", pushed.len());
        seen.push(pushed);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |settings| settings.lose = 1.0);
    stand.upload("o").await;
    stand.pushed().await;
    assert_eq!((receiver.pushes().len(), stand.status().lost), (0, 1));
}

#[tokio::test]
async fn held_messages_wait_and_shuffled_ones_come_in_another_order() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |settings| (settings.hold, settings.shuffle) = (true, 1000));
    for number in 0..200 {
        stand.upload(&format!("o{number:03}")).await;
    }
    assert_eq!((receiver.pushes().len(), stand.status().queued, stand.status().attempts), (0, 200, 0));
    stand.emulator.subscriptions().release();
    stand.pushed().await;
    let order: Vec<_> = receiver.what().into_iter().map(|(_, name)| name).collect();
    assert_eq!(sorted(order.clone()).len(), 200);
    // Without a shuffle, what is pushed 32 at a time comes in about its order.
    let early = order[..50].iter().filter(|name| name.as_str() >= "o100").count();
    assert!(early > 5, "{order:?}");
}

#[tokio::test]
async fn a_few_shuffled_messages_do_not_wait_for_more() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |settings| settings.shuffle = 1000);
    stand.upload("a").await;
    stand.upload("b").await;
    stand.pushed().await;
    assert_eq!(sorted(receiver.what()), events(&[("OBJECT_FINALIZE", "a"), ("OBJECT_FINALIZE", "b")]));
}

#[tokio::test]
async fn delayed_messages_come_later() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    stand.subscribe(&receiver, |settings| settings.delay = Span(Duration::from_millis(300)));
    let began = tokio::time::Instant::now();
    stand.upload("o").await;
    stand.pushed().await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(receiver.pushes().len(), 1);
}

#[tokio::test]
async fn control_makes_shows_releases_and_removes_subscriptions() {
    let (stand, receiver) = (stand().await, Receiver::start([]).await);
    let url = |place: &str| format!("{}/_emulator/{place}", stand.emulator.url());
    let wish = json!({
        "push_endpoint": receiver.endpoint, "form": "eventarc", "audience": AUDIENCE, "service_account": ACCOUNT,
        "copies": 2, "lose": 0.0, "shuffle": 3, "delay": "1ms", "hold": true,
    });
    let made = send(stand.client.post(url("subscriptions")).body(wish.to_string())).await;
    assert_eq!(made.status, 200, "{made:?}");
    stand.upload("o").await;
    let listed = send(stand.client.get(url("subscriptions"))).await.json();
    let shown = json!({
        "name": "projects/emulator/subscriptions/push-1", "push_endpoint": receiver.endpoint, "form": "eventarc",
        "queued": 2, "delivered": 0, "attempts": 0, "lost": 0, "overflowed": 0,
    });
    assert_eq!(listed["subscriptions"], json!([shown]));
    assert_eq!(send(stand.client.post(url("subscriptions/release"))).await.status, 204);
    stand.pushed().await;
    assert_eq!(receiver.pushes().len(), 2);
    let two = json!({"push_endpoint": receiver.endpoint, "hold": true});
    send(stand.client.post(url("subscriptions")).body(two.to_string())).await;
    stand.upload("p").await;
    assert_eq!(send(stand.client.delete(url("subscriptions"))).await.status, 204);
    assert_eq!(send(stand.client.get(url("subscriptions"))).await.json(), json!({"subscriptions": []}));
    assert_eq!(send(stand.client.put(url("subscriptions"))).await.status, 405);
    assert_eq!(send(stand.client.get(url("subscriptions/release"))).await.status, 405);
    for (name, wrong) in [
        ("no endpoint", json!({})),
        ("plain http beyond loopback", json!({"push_endpoint": "http://example.com/push"})),
        ("an unknown field", json!({"push_endpoint": receiver.endpoint, "copy": 2})),
        ("no copies", json!({"push_endpoint": receiver.endpoint, "copies": 0})),
        ("more than all lost", json!({"push_endpoint": receiver.endpoint, "lose": 1.5})),
        ("no topic", json!({"push_endpoint": receiver.endpoint, "topic": "t"})),
        ("no such file", json!({"push_endpoint": receiver.endpoint, "ca": "/nowhere/ca.pem"})),
    ] {
        let seen = send(stand.client.post(url("subscriptions")).body(wrong.to_string())).await;
        assert_eq!((seen.status, seen.reason().as_str()), (400, "invalid"), "{name}: {seen:?}");
    }
}

#[tokio::test]
async fn a_subscription_is_there_from_the_start_or_the_emulator_is_not() {
    let receiver = Receiver::start([]).await;
    let settings = SubscriptionSettings::to(&receiver.endpoint);
    let stand = stand_with(|stand| stand.subscriptions = vec![settings.clone()]).await;
    stand.upload("o").await;
    stand.pushed().await;
    assert_eq!(receiver.pushes().len(), 1);
    let name = stand.status().name;
    let again = stand.emulator.subscriptions().add(SubscriptionSettings { name: Some(name), ..settings });
    assert!(matches!(again, Err(SubscriptionError::Taken(_))), "{again:?}");
    let wrong = SubscriptionSettings::to("ftp://127.0.0.1/");
    let refused = Emulator::start(Settings { subscriptions: vec![wrong], ..Settings::default() }).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn pushes_end_with_the_emulator() {
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stand = stand().await;
    let endpoint = format!("http://{}/push", silent.local_addr().unwrap());
    stand.emulator.subscriptions().add(SubscriptionSettings::to(endpoint)).unwrap();
    stand.upload("o").await;
    let (mut held, _) = silent.accept().await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(5), stand.emulator.stop()).await;
    assert!(stopped.is_ok());
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), held.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection is closed with it");
}

#[tokio::test]
async fn only_the_given_authority_is_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}/push", listener.local_addr().unwrap().port());
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut first = [0; 1024];
            let read = stream.read(&mut first).await.unwrap_or(0);
            if read > 0 {
                let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        }
    });
    let stand = stand().await;
    let settings = SubscriptionSettings::to(endpoint);
    stand.emulator.subscriptions().add(SubscriptionSettings { ca: Some(file.clone()), ..settings.clone() }).unwrap();
    stand.upload("o").await;
    stand.pushed().await;
    assert_eq!(stand.status().delivered, 1);
    std::fs::write(&file, "no certificate").unwrap();
    let empty = SubscriptionSettings { ca: Some(file), ..settings };
    assert!(stand.emulator.subscriptions().add(empty).is_err());
}
