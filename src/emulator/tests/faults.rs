use super::super::faults::{Action, Body, Fault, Reply, Which};
use super::super::journal::Operation;
use super::*;
use crate::model::time::Span;

/// What a `PUT` came to: its status, or `None` when the connection was reset.
async fn outcome(request: RequestBuilder) -> Option<u16> {
    match request.send().await {
        Ok(answer) => Some(answer.status().as_u16()),
        Err(error) => {
            assert!(error.is_request(), "{error:?}");
            None
        }
    }
}

#[tokio::test]
async fn an_answer_can_be_given_instead_of_acting() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    for (name, body, kind) in [
        ("text", Body::Text, Some("text/plain; charset=utf-8")),
        ("json", Body::Json, Some("application/json; charset=UTF-8")),
        ("html", Body::Html, Some("text/html; charset=UTF-8")),
        ("empty", Body::Empty, None),
    ] {
        let reply = Reply { status: 429, retry_after: Some(7), body };
        stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::Respond(reply)));
        let seen = stand.put(&uri, None, "hello").await;
        assert_eq!((seen.status, seen.header("retry-after")), (429, Some("7")), "{name}");
        assert_eq!(seen.header("content-type"), kind, "{name}");
        if body == Body::Json {
            assert_eq!(seen.reason(), "rateLimitExceeded");
        }
    }
    assert!(stand.bytes("o").is_none());
    assert_eq!(stand.put(&uri, None, "hello").await.status, 200);
    let faulty: Vec<_> = stand.emulator.journal().entries().iter().map(|entry| entry.faulty).collect();
    assert_eq!(faulty, [false, true, true, true, true, false]);
}

#[tokio::test]
async fn a_connection_can_be_reset_before_or_after_acting() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::Reset));
    assert_eq!(outcome(stand.client.put(&uri).body("hello")).await, None);
    assert!(stand.bytes("o").is_none());

    stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::ActThenReset));
    assert_eq!(outcome(stand.client.put(&uri).body("hello")).await, None);
    assert_eq!(stand.bytes("o").unwrap(), b"hello", "only the answer was lost");
    assert_eq!(stand.ask(&uri).await.status, 200);

    stand.emulator.faults().add(Fault::once(Operation::Initiate, Action::ActThenReset));
    assert_eq!(outcome(stand.initiation("name=p", "")).await, None);
    assert_eq!(stand.emulator.sessions(), 1, "a session that nobody knows");

    stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::ActThenRespond(Reply::status(500))));
    let uri = stand.session("q", None).await;
    assert_eq!(stand.put(&uri, None, "hello").await.status, 500);
    assert!(stand.bytes("q").is_some());
}

#[tokio::test]
async fn an_answer_can_be_held_after_acting() {
    let stand = stand().await;
    let (faults, journal) = (stand.emulator.faults(), stand.emulator.journal());
    let initiated = || journal.wait_for(|entry| entry.operation == Operation::Initiate && entry.status == Some(200));
    faults.add(Fault::once(Operation::Initiate, Action::ActThenHold));
    let held = tokio::spawn(stand.initiation("name=o", "").send());
    initiated().await;
    assert_eq!(stand.emulator.sessions(), 1, "the session exists");
    assert!(!held.is_finished(), "and nobody was told");
    faults.release();
    assert_eq!(stand.put(&location(&held.await.unwrap().unwrap()), None, "hello").await.status, 200);
    assert_eq!(journal.count(Operation::Initiate), 1, "one call is one entry");
}

#[tokio::test]
async fn a_reset_is_a_tcp_reset() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    stand.emulator.faults().add(Fault::once(Operation::Status, Action::Reset));
    let mut stream = TcpStream::connect(stand.emulator.address()).await.unwrap();
    let request =
        format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-range: bytes */*\r\ncontent-length: 0\r\n\r\n", target(&uri));
    stream.write_all(request.as_bytes()).await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_chunk_can_be_persisted_in_part() {
    let stand = stand().await;
    let content = bytes(2 * Q);
    let uri = stand.session("o", Some(2 * Q)).await;
    let range = |first: usize| format!("bytes {first}-{}/{}", 2 * Q - 1, 2 * Q);
    let partly = Action::PersistThenRespond { bytes: 100, reply: Reply::status(503) };
    stand.emulator.faults().add(Fault::once(Operation::Chunk, partly));
    assert_eq!(stand.put(&uri, Some(&range(0)), content.clone()).await.status, 503);
    assert_eq!(stand.ask(&uri).await.persisted(), 100);

    stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::PersistThenReset { bytes: Q as u64 }));
    let request = stand.client.put(&uri).header("content-range", range(100)).body(content[100..].to_vec());
    assert_eq!(outcome(request).await, None);
    assert_eq!(stand.ask(&uri).await.persisted(), 100 + Q);
    // Aligned chunks go on to work: what is there is skipped, and the next multiple counts.
    assert_eq!(stand.put(&uri, Some("bytes 262144-524287/524288"), &content[Q..]).await.status, 200);
    assert!(stand.bytes("o").unwrap() == content);

    // Everything arrives, and the fault is still in the way of the object.
    let uri = stand.session("p", Some(2 * Q)).await;
    let all = Action::PersistThenRespond { bytes: 9 * Q as u64, reply: Reply::status(500) };
    stand.emulator.faults().add(Fault::once(Operation::Chunk, all));
    assert_eq!(stand.put(&uri, Some(&range(0)), content.clone()).await.status, 500);
    assert!(stand.bytes("p").is_none());
    assert_eq!(stand.ask(&uri).await.status, 200, "the declared size is reached");
}

#[tokio::test]
async fn answers_can_lack_what_they_need() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::OmitRange));
    let seen = stand.put(&uri, Some("bytes 0-262143/*"), bytes(Q)).await;
    assert_eq!((seen.status, seen.header("range")), (308, None));
    assert_eq!(stand.ask(&uri).await.persisted(), Q);

    stand.emulator.faults().add(Fault::once(Operation::Initiate, Action::OmitLocation));
    let seen = send(stand.initiation("name=o", "")).await;
    assert_eq!((seen.status, seen.header("location")), (200, None));
    let elsewhere = Action::WrongLocation { host: "evil.example:81".into() };
    stand.emulator.faults().add(Fault::once(Operation::Initiate, elsewhere));
    let seen = send(stand.initiation("name=o", "")).await;
    assert!(seen.header("location").unwrap().starts_with("http://evil.example:81/upload/storage/v1/b/media/o?"));
}

#[tokio::test]
async fn a_session_can_be_lost() {
    for (action, status) in [(Action::ForgetSession, 404), (Action::KillSession, 410)] {
        let stand = stand().await;
        let uri = stand.session("o", None).await;
        let later = Fault { skip: 1, ..Fault::once(Operation::Chunk, action) };
        stand.emulator.faults().add(later);
        assert_eq!(stand.put(&uri, Some("bytes 0-262143/*"), bytes(Q)).await.status, 308);
        assert_eq!(stand.put(&uri, Some("bytes 262144-524287/*"), bytes(Q)).await.status, status);
        assert_eq!(stand.ask(&uri).await.status, status);
        assert_eq!(stand.cancel(&uri).await, status);
        assert_eq!(stand.emulator.sessions(), 0);
    }
}

#[tokio::test]
async fn faults_find_their_object() {
    let stand = stand().await;
    for (name, initiation, hit) in [
        ("in the query", stand.initiation("name=videos%2Fa", ""), true),
        ("in the body", stand.initiation("", r#"{"name": "videos/a"}"#), true),
        ("another", stand.initiation("name=other", ""), false),
    ] {
        let reply = Action::Respond(Reply::status(503));
        let fault =
            Fault { operation: Which::Any, object: Some("videos/".into()), ..Fault::once(Operation::Get, reply) };
        stand.emulator.faults().clear();
        stand.emulator.faults().add(fault);
        assert_eq!(send(initiation).await.status, if hit { 503 } else { 200 }, "{name}");
    }
}

#[tokio::test]
async fn calls_can_be_held_and_delayed() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    let held = Fault { count: None, ..Fault::once(Operation::Chunk, Action::Hold) };
    stand.emulator.faults().add(held);
    for (round, release) in [(1, false), (2, true)] {
        let request = tokio::spawn(stand.client.put(&uri).body("hello").send());
        while stand.emulator.faults().list().first().is_none_or(|fault| fault.seen < round) {
            tokio::task::yield_now().await;
        }
        assert!(!request.is_finished());
        if release {
            stand.emulator.faults().clear();
        } else {
            stand.emulator.faults().release();
        }
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    let delay = Action::Delay { by: Span(Duration::from_millis(30)) };
    stand.emulator.faults().add(Fault::once(Operation::Status, delay));
    let began = tokio::time::Instant::now();
    assert_eq!(stand.ask(&uri).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(30));
}
