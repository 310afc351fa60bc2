use super::super::faults::{Action, Fault, Reply};
use super::super::journal::{Entry, Operation};
use super::super::network::{Conditions, Link};
use super::*;
use crate::model::time::Span;
use tokio::time::Instant;

const BAD: Conditions = Conditions {
    latency: Span(Duration::ZERO),
    round_trip: Span(Duration::ZERO),
    bytes_per_second: None,
    drops: true,
    lost_answers: true,
    expired_session: false,
    link: Link::Up,
};

fn millis(millis: u64) -> Span {
    Span(Duration::from_millis(millis))
}

/// What came of a chunk.
#[derive(Debug, PartialEq)]
enum Came {
    Answer(u16),
    Nothing,
}

/// Sends a session's content from `offset` on, a chunk at most.
async fn chunk(stand: &Stand, uri: &str, content: &[u8], offset: usize) -> Came {
    let end = content.len().min(offset + Q);
    let range = format!("bytes {offset}-{}/{}", end - 1, content.len());
    let request = stand.client.put(uri).header("content-range", range).body(content[offset..end].to_vec());
    request.send().await.map_or(Came::Nothing, |answer| Came::Answer(answer.status().as_u16()))
}

#[tokio::test]
async fn an_upload_gets_over_a_bad_network_by_the_rules() {
    let stand = stand().await;
    stand.emulator.network().set(BAD);
    for name in ["a", "b", "c", "d"] {
        let content = bytes(12 * Q + 5);
        let uri = stand.session(name, Some(content.len())).await;
        let (mut offset, mut lost, mut attempts) = (0, 0, 0);
        loop {
            attempts += 1;
            assert!(attempts <= 60, "{name}: it never ends");
            lost += u32::from(chunk(&stand, &uri, &content, offset).await == Came::Nothing);
            let seen = stand.put(&uri, Some(&format!("bytes */{}", content.len())), "").await;
            if seen.status == 200 {
                break;
            }
            assert!(seen.persisted() >= offset, "{name}: what was persisted stays");
            offset = seen.persisted();
        }
        assert!(lost * 2 <= attempts && lost >= attempts / 4, "{name}: {lost} of {attempts}");
        assert!(stand.bytes(name).unwrap() == content, "{name}");
    }
    let journal = stand.emulator.journal().entries();
    let struck = |entry: &&Entry| entry.faulty;
    assert!(journal.iter().filter(struck).all(|entry| entry.operation == Operation::Chunk && entry.status.is_none()));
    // Some of what was cut lies between multiples of 256 KiB, and some on them.
    let persisted: Vec<u64> = journal.iter().filter(struck).filter_map(|entry| entry.persisted).collect();
    let is_aligned = |persisted: &u64| persisted.is_multiple_of(Q as u64);
    assert!(persisted.iter().any(is_aligned) && !persisted.iter().all(is_aligned), "{persisted:?}");
}

#[tokio::test]
async fn of_four_requests_one_is_cut_and_of_six_one_answer_lost() {
    for (drops, lost_answers, of) in [(true, false, 4), (false, true, 6)] {
        let stand = stand().await;
        stand.emulator.network().set(Conditions { drops, lost_answers, ..BAD });
        let content = bytes(24 * Q);
        let uri = stand.session("o", None).await;
        for run in 0..3 {
            let mut nothing = 0;
            for _ in 0..of {
                // The first chunk again and again: what is there is skipped.
                nothing += u32::from(chunk(&stand, &uri, &content, 0).await == Came::Nothing);
            }
            assert_eq!(nothing, 1, "run {run} of {of}");
        }
    }
}

#[tokio::test]
async fn one_session_expires_and_then_none() {
    let stand = stand().await;
    let mut gone = Vec::new();
    for name in ["a", "b"] {
        let uri = stand.session(name, None).await;
        stand.emulator.network().change(|conditions| conditions.expired_session = true);
        assert_eq!(stand.ask(&uri).await.status, 308, "a question takes no session");
        let status = stand.put(&uri, None, "hello").await.status;
        assert!(!stand.emulator.network().conditions().expired_session, "once");
        assert_eq!(stand.ask(&uri).await.status, status, "it stays gone");
        gone.push(status);
    }
    let next = stand.session("c", None).await;
    assert_eq!(stand.put(&next, None, "hello").await.status, 200);
    gone.sort_unstable();
    assert_eq!(gone, [404, 410]);
}

#[tokio::test]
async fn distance_concerns_clients_and_latency_everybody() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    stand.emulator.network().set(Conditions { round_trip: millis(40), ..Conditions::default() });
    let began = Instant::now();
    assert_eq!(stand.put(&uri, Some("bytes 0-262143/*"), bytes(Q)).await.persisted(), Q);
    // The request, and 14,600 · (2⁴ - 1) bytes are fewer than these: four acknowledgements.
    assert!(began.elapsed() >= Duration::from_millis(5 * 40));
    // An hour away, whoever has a token is near, and so is whoever only asks.
    stand.emulator.network().set(Conditions { round_trip: Span::seconds(3600), ..Conditions::default() });
    stand.session("p", None).await;
    assert_eq!(stand.ask(&uri).await.persisted(), Q);
    stand.emulator.network().set(Conditions { latency: millis(40), ..Conditions::default() });
    for round in 1..=2 {
        let began = Instant::now();
        stand.ask(&uri).await;
        assert!(began.elapsed() >= Duration::from_millis(40), "round {round}");
    }
}

#[tokio::test]
async fn nobody_gets_through_a_link_that_is_down() {
    let stand = stand().await;
    let network = stand.emulator.network();
    let uri = stand.session("o", None).await;
    stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::Hold));
    let under_way = tokio::spawn(stand.client.put(&uri).body("hello").send());
    while !stand.emulator.faults().list().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!under_way.is_finished());
    network.set(Conditions { link: Link::Down, ..Conditions::default() });
    assert!(under_way.await.unwrap().is_err());
    assert!(stand.initiation("name=p", "").send().await.is_err(), "nor can anybody begin");
    network.set(Conditions::default());
    assert_eq!(stand.put(&uri, None, "hello").await.status, 200, "everything is still there");
}

#[tokio::test]
async fn the_network_is_steered_from_outside_and_is_no_fault() {
    let stand = stand().await;
    let control = |method: Method| stand.client.request(method, format!("{}/_emulator/network", stand.emulator.url()));
    let set = send(control(Method::PUT).body(r#"{"latency": "1ms", "drops": true}"#)).await;
    assert_eq!((set.status, &set.json()["drops"], &set.json()["latency"]), (200, &true.into(), &"1ms".into()));
    stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::Respond(Reply::status(503))));
    stand.emulator.faults().clear();
    assert_eq!(send(control(Method::GET)).await.json(), set.json(), "clearing the one leaves the other");
    let wrong = send(control(Method::PUT).body(r#"{"drop": true}"#)).await;
    assert_eq!((wrong.status, wrong.reason().as_str()), (400, "invalid"));
    assert_eq!(send(control(Method::POST)).await.status, 405);
    assert_eq!(send(control(Method::PUT).body("{}")).await.json()["drops"], false);
    assert_eq!(stand.emulator.network().conditions(), Conditions::default());
}

#[tokio::test]
async fn a_fault_comes_before_the_network() {
    let stand = stand().await;
    stand.emulator.network().set(BAD);
    let uri = stand.session("o", None).await;
    for _ in 0..8 {
        stand.emulator.faults().add(Fault::once(Operation::Chunk, Action::Respond(Reply::status(503))));
        assert_eq!(stand.put(&uri, None, "hello").await.status, 503);
    }
}
