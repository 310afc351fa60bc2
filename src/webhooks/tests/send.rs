//! Single attempts.

use std::sync::Arc;
use std::time::Duration;

use super::super::address::Reach;
use super::super::send::{ATTEMPT_TIME, Failure, Message, Sender};
use super::super::sign::Secrets;
use super::super::{Endpoint, MAX_ENDPOINTS, WebhookSettings};
use super::receiver::{Answer, Receiver};
use super::{OTHER_SECRET, SECRET};
use crate::model::time::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_763_805_600_999);

fn endpoint(receiver: &Receiver, secrets: &str) -> Arc<Endpoint> {
    let directory = tempfile::tempdir().unwrap();
    let section = receiver.section("backend", secrets, directory.path());
    Endpoint::open_all(&[section], &[], "upload-broker/0").unwrap().remove(0)
}

async fn send(endpoint: &Endpoint) -> Result<(), Failure> {
    let message = Message { id: "evt_3f".to_owned(), body: r#"{"type":"upload.completed"}"#.to_owned() };
    endpoint.sender.send(&message, NOW).await
}

fn told(result: Result<(), Failure>) -> String {
    result.map_or_else(|failure| failure.reason.to_string(), |()| "accepted".to_owned())
}

#[tokio::test]
async fn a_message_comes_as_the_specification_says() {
    let receiver = Receiver::start().await;
    send(&endpoint(&receiver, SECRET)).await.unwrap();
    let [request] = receiver.received().try_into().unwrap();
    assert_eq!(request.request_line, "POST /hooks?tenant=a HTTP/1.1");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), "upload-broker/0");
    assert_eq!(request.id(), "evt_3f");
    assert_eq!(request.header("webhook-timestamp"), "1763805600");
    assert_eq!(request.body, r#"{"type":"upload.completed"}"#);
    assert!(request.is_signed_with(SECRET));
    assert!(!request.is_signed_with(OTHER_SECRET));
}

#[tokio::test]
async fn during_a_rotation_a_message_bears_both_signatures() {
    let receiver = Receiver::start().await;
    send(&endpoint(&receiver, &format!("{SECRET}\n{OTHER_SECRET}\n"))).await.unwrap();
    let [request] = receiver.received().try_into().unwrap();
    assert!(request.is_signed_with(SECRET) && request.is_signed_with(OTHER_SECRET));
}

#[tokio::test]
async fn whatever_is_answered_is_a_success_or_a_failure_with_a_reason() {
    let receiver = Receiver::start().await;
    let elsewhere = Receiver::start().await;
    let redirect = |status| Answer::Status(status, format!("location: {}\r\n", elsewhere.url));
    let endless_head = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(200_000)].concat();
    let long_header = [b"HTTP/1.1 200 OK\r\na: ".to_vec(), vec![b'b'; 2_000_000]].concat();
    for (name, answer, expected) in [
        ("accepted", Answer::status(200), "accepted"),
        ("accepted without content", Answer::Bytes(b"HTTP/1.1 204 X\r\n\r\n".to_vec()), "accepted"),
        ("accepted for later", Answer::status(202), "accepted"),
        ("an error", Answer::status(500), "answered 500"),
        ("gone", Answer::status(410), "answered 410"),
        ("a redirect", redirect(302), "answered 302"),
        ("a redirect that repeats the request", redirect(307), "answered 307"),
        ("an endless body", Answer::Endless, "accepted"),
        ("garbage", Answer::Bytes(b"hello\r\n\r\n".to_vec()), "no valid answer"),
        ("half a head", Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), "no valid answer"),
        ("a head without end", Answer::Bytes(endless_head), "no valid answer"),
        ("a header without end", Answer::Bytes(long_header), "no valid answer"),
        ("half a body", Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok".to_vec()), "accepted"),
        ("no answer", Answer::Close, "no valid answer"),
    ] {
        receiver.says(answer);
        assert_eq!(told(send(&endpoint(&receiver, SECRET)).await), expected, "{name}");
    }
    assert!(elsewhere.received().is_empty(), "a redirect was followed");
}

#[tokio::test]
async fn a_receiver_that_never_answers_costs_a_bounded_time() {
    for (name, answer, expected) in
        [("silence", Answer::Silence, "timed out"), ("a body that does not come", Answer::Stalled, "accepted")]
    {
        let receiver = Receiver::start().await;
        receiver.says(answer);
        let endpoint = endpoint(&receiver, SECRET);
        let attempt = tokio::spawn(async move { told(send(&endpoint).await) });
        receiver.arrivals(1).await;
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        assert_eq!(attempt.await.unwrap(), expected, "{name}");
        assert!(begun.elapsed() <= ATTEMPT_TIME + Duration::from_secs(1), "{name}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_pause_that_the_receiver_asks_for_is_told() {
    let receiver = Receiver::start().await;
    receiver.says(Answer::Status(503, "retry-after: 90\r\n".to_owned()));
    let failure = send(&endpoint(&receiver, SECRET)).await.unwrap_err();
    assert_eq!(failure.retry_after, Some(Duration::from_secs(90)));
}

#[tokio::test]
async fn who_cannot_be_found_reached_or_trusted_is_told_apart() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    let plain = Receiver::start().await;
    let by_name = plain.url.replace("127.0.0.1", "localhost");
    let (secured, certificate) = Receiver::start_with_tls().await;
    let directory = tempfile::tempdir().unwrap();
    for (name, url, trusted_ca, expected) in [
        ("nobody listens", closed.as_str(), &[][..], "could not connect"),
        ("no such name", "https://name.invalid/", &[], "could not resolve the name"),
        ("a name that leads here, where that is allowed", &by_name, &[], "accepted"),
        ("a certificate that nobody vouches for", &secured.url, &[], "could not connect"),
        ("a certificate of trusted_ca", &secured.url, &[certificate], "accepted"),
    ] {
        let section =
            WebhookSettings { url: url.parse().unwrap(), ..plain.section("backend", SECRET, directory.path()) };
        let endpoint = Endpoint::open_all(&[section], trusted_ca, "upload-broker/0").unwrap().remove(0);
        assert_eq!(told(send(&endpoint).await), expected, "{name}");
    }
}

#[tokio::test]
async fn a_name_that_leads_here_is_not_connected_to() {
    let receiver = Receiver::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut section = receiver.section("backend", SECRET, directory.path());
    section.url = receiver.url.replace("127.0.0.1", "localhost").parse().unwrap();
    let secrets = Secrets::parse(SECRET).unwrap();
    // As a name would that nobody can tell by its look.
    let sender =
        Sender::new(section.url.as_url().clone(), secrets, Reach::Public, Vec::new(), "upload-broker/0", 1).unwrap();
    let message = Message { id: "evt_3f".to_owned(), body: String::new() };
    assert_eq!(told(sender.send(&message, NOW).await), "refused address");
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn secrets_change_while_messages_go_out_and_a_bad_file_is_refused() {
    let receiver = Receiver::start().await;
    let directory = tempfile::tempdir().unwrap();
    let section = receiver.section("backend", SECRET, directory.path());
    let file = section.secret_file.clone();
    let open = || Endpoint::open_all(std::slice::from_ref(&section), &[], "upload-broker/0");
    let endpoint = open().unwrap().remove(0);
    for (name, text, is_taken, expected) in
        [("another secret", OTHER_SECRET, true, OTHER_SECRET), ("no secret", "whsec_", false, OTHER_SECRET)]
    {
        std::fs::write(&file, text).unwrap();
        let fresh = open();
        assert_eq!(fresh.is_ok(), is_taken, "{name}");
        if let Ok(fresh) = fresh {
            assert!(endpoint.is_like(&fresh[0]), "{name}");
            endpoint.take_secrets(&fresh[0]);
        }
        send(&endpoint).await.unwrap();
        assert!(receiver.received().pop().unwrap().is_signed_with(expected), "{name}");
    }
}

#[tokio::test]
async fn sections_that_cannot_be_used_are_named() {
    let receiver = Receiver::start().await;
    let directory = tempfile::tempdir().unwrap();
    let section = |name: &str| receiver.section(name, SECRET, directory.path());
    let inside = WebhookSettings { allow_private_addresses: false, ..section("inside") };
    let absent = WebhookSettings { secret_file: directory.path().join("absent"), ..section("absent") };
    let many = (0..=MAX_ENDPOINTS).map(|number| section(&format!("e{number}"))).collect();
    for (name, sections, expected) in [
        ("one name twice", vec![section("a"), section("b"), section("a")], "webhooks[2].name"),
        ("inside", vec![section("a"), inside], "webhooks[1].url"),
        ("no secrets", vec![absent], "webhooks[0].secret_file"),
        ("too many", many, "webhooks[16].url"),
    ] {
        let error = Endpoint::open_all(&sections, &[], "upload-broker/0").unwrap_err().to_string();
        assert!(error.starts_with(expected), "{name}: {error}");
    }
}
