use super::super::faults::{Action, Fault};
use super::super::journal::Operation;
use super::*;
use crate::model::time::Span;
use base64::Engine as _;
use serde_json::json;

#[tokio::test]
async fn the_journal_says_what_was_asked_and_no_secret() {
    let stand = stand().await;
    let initiation = stand.initiation("name=o&ifGenerationMatch=0", "").header("origin", "https://app.example.com");
    let uri = location(&initiation.send().await.unwrap());
    stand.put(&uri, Some("bytes 0-262143/*"), bytes(Q)).await;
    stand.ask(&uri).await;
    stand.put(&uri, Some("bytes */262144"), "").await;
    stand.cancel(&uri).await;
    let entries = stand.emulator.journal().entries();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.sequence, entry.operation, entry.status, entry.received, entry.persisted))
        .collect();
    let q = Q as u64;
    assert_eq!(
        told,
        [
            (1, Operation::Initiate, Some(200), 0, None),
            (2, Operation::Chunk, Some(308), q, Some(q)),
            (3, Operation::Status, Some(308), 0, Some(q)),
            (4, Operation::Status, Some(200), 0, None),
            (5, Operation::Cancel, Some(499), 0, None),
        ]
    );
    assert!(entries.iter().all(|entry| entry.session == Some(1) && entry.object.as_deref() == Some("o")));
    assert_eq!(entries[0].query, "uploadType=resumable&name=o&ifGenerationMatch=0");
    assert_eq!(entries[0].origin.as_deref(), Some("https://app.example.com"));
    assert_eq!(entries[1].content_range.as_deref(), Some("bytes 0-262143/*"));
    let id = uri.split_once("upload_id=").unwrap().1;
    assert!(!serde_json::to_string(&entries).unwrap().contains(&id[..40]));
    // The random bytes of the secret, as a map of bytes would show them.
    let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&id[6..38]).unwrap();
    let shown = format!("{:?}", stand.emulator);
    assert!(!shown.contains(&format!("{key:?}")) && !shown.contains(&id[38..]), "{shown}");
    assert_eq!(stand.emulator.journal().count(Operation::Status), 2);
}

#[tokio::test]
async fn the_journal_forgets_the_oldest() {
    let stand = stand_with(|settings| settings.journal_entries = 3).await;
    for _ in 0..5 {
        stand.session("o", None).await;
    }
    let sequences =
        |since| stand.emulator.journal().since(since).iter().map(|entry| entry.sequence).collect::<Vec<_>>();
    assert_eq!(sequences(0), [3, 4, 5]);
    assert_eq!(sequences(4), [5]);
    stand.emulator.journal().clear();
    stand.session("o", None).await;
    assert_eq!(sequences(0), [6]);
}

#[tokio::test]
async fn other_languages_can_steer_it() {
    let stand = stand().await;
    let control = |method: Method, place: &str, body: &str| {
        let url = format!("{}/_emulator/{place}", stand.emulator.url());
        send(stand.client.request(method, url).body(body.to_owned()))
    };
    let uri = stand.session("o", Some(7)).await;
    stand.put(&stand.session("p", None).await, None, "x").await;

    let sessions = control(Method::GET, "sessions", "").await.json();
    assert_eq!(sessions["live"], 1);
    assert_eq!(sessions["sessions"][1]["state"], "open");
    assert_eq!((&sessions["sessions"][1]["persisted"], &sessions["sessions"][1]["total"]), (&json!(0), &json!(7)));
    assert_eq!(sessions["sessions"][0]["state"], "completed");

    let faults = r#"[{"operation": "status", "action": {"kind": "respond", "status": 503}}]"#;
    assert_eq!(control(Method::POST, "faults", faults).await.json()["faults"][0]["seen"], 0);
    assert_eq!(stand.ask(&uri).await.status, 503);
    assert_eq!(control(Method::GET, "faults", "").await.json(), json!({"faults": []}));
    control(Method::POST, "faults", faults).await;
    assert_eq!(control(Method::DELETE, "faults", "").await.status, 204);
    assert_eq!(stand.ask(&uri).await.status, 308);
    assert_eq!(control(Method::POST, "faults/release", "").await.status, 204);

    let journal = control(Method::GET, "journal?since=3", "").await.json();
    assert_eq!((journal["entries"].as_array().unwrap().len(), &journal["latest"]), (2, &json!(5)));
    assert_eq!(journal["entries"][0]["operation"], "status");
    assert_eq!(control(Method::DELETE, "journal", "").await.status, 204);
    assert!(stand.emulator.journal().entries().is_empty());

    let clock = control(Method::POST, "clock", r#"{"advance": "8d"}"#).await.json();
    assert_eq!(clock["now"], "2025-11-30T10:00:00.000Z");
    assert_eq!(control(Method::GET, "clock", "").await.json(), clock);
    assert_eq!(stand.ask(&uri).await.status, 404);

    for (method, place, body, status) in [
        (Method::POST, "faults", "{}", 400),
        (Method::POST, "faults", r#"[{"action": {"kind": "explode"}}]"#, 400),
        (Method::POST, "clock", r#"{"advance": "soon"}"#, 400),
        (Method::GET, "journal?since=x", "", 400),
        (Method::PUT, "journal", "", 405),
        (Method::GET, "nothing", "", 404),
    ] {
        assert_eq!(control(method, place, body).await.status, status, "{place} {body}");
    }
}

#[tokio::test]
async fn a_stopped_emulator_is_gone() {
    let stand = stand().await;
    let address = stand.emulator.address();
    let idle = TcpStream::connect(address).await.unwrap();
    stand.session("o", None).await;
    stand.emulator.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);

    let Stand { emulator, .. } = super::stand().await;
    let address = emulator.address();
    drop(emulator);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_request_breaks_it() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    for request in [
        "\r\n\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", target(&uri)),
        format!("PUT {} HTTP/1.1\r\nhost: \"<x>\r\ncontent-length: 0\r\ncontent-range: \u{e9}\r\n\r\n", target(&uri)),
        "PUT /upload/storage/v1/b/%00/o?upload_id=%00 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a/".repeat(20_000)),
        format!(
            "GET /storage/v1/b/media?fields={} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\r\n",
            "a(".repeat(9000)
        ),
    ] {
        stand.cut(request.as_bytes()).await;
    }
    assert_eq!(stand.ask(&uri).await.status, 308);
}

#[tokio::test]
async fn the_journal_has_the_true_time_besides_the_emulator_s() {
    let stand = stand().await;
    let delay = Action::Delay { by: Span(Duration::from_millis(30)) };
    stand.emulator.faults().add(Fault { skip: 1, ..Fault::once(Operation::Get, delay) });
    for _ in 0..2 {
        send(stand.request(Method::GET, "/storage/v1/b/media/o/none")).await;
    }
    let entries = stand.emulator.journal().entries();
    assert!(entries[1].elapsed_ms >= entries[0].elapsed_ms + 29, "{entries:?}");
    assert_eq!(entries[0].at, entries[1].at, "the manual clock stood still");
}

#[tokio::test]
async fn what_is_kept_of_a_call_is_bounded() {
    let stand = stand().await;
    let path = format!("/media/x{}?x={}", "%C3%A4".repeat(3000), "b".repeat(9000));
    let request = stand.request(Method::GET, &path).header("content-range", &*path);
    assert_eq!(send(request).await.status, 404);
    let entries = stand.emulator.journal().entries();
    let entry = &entries[0];
    let texts = [Some(&entry.path), Some(&entry.query), entry.object.as_ref(), entry.content_range.as_ref()];
    let object = Some(4095);
    // The last character of the name would have ended behind the border.
    assert_eq!(texts.map(|text| text.map(String::len)), [Some(4096), Some(4096), object, Some(4096)]);
}

#[tokio::test]
async fn time_ends_in_the_year_9999_and_breaks_nothing() {
    let stand = stand().await;
    let uri = stand.session("late", None).await;
    for _ in 0..2 {
        stand.emulator.advance(Duration::MAX);
    }
    assert_eq!(stand.emulator.now().to_string(), "9999-12-30T22:00:00.999Z");
    assert_eq!(stand.ask(&uri).await.status, 404);
    let mut generations = Vec::new();
    for _ in 0..3 {
        let uri = stand.session("o", None).await;
        assert_eq!(stand.put(&uri, None, "x").await.status, 200);
        generations.push(stand.emulator.object("media", "o").unwrap().generation);
    }
    assert!(generations.is_sorted_by(|earlier, later| earlier < later), "{generations:?}");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let stand = stand().await;
    for (name, line, hosts, status) in [
        ("one", "GET /storage/v1/b/media HTTP/1.1", &["h"][..], 200),
        ("none in HTTP/1.0", "GET /storage/v1/b/media HTTP/1.0", &[], 200),
        ("none", "GET /storage/v1/b/media HTTP/1.1", &[], 400),
        ("the same twice", "GET /storage/v1/b/media HTTP/1.1", &["h", "h"], 400),
        ("two", "GET /storage/v1/b/media HTTP/1.1", &["h", "other"], 400),
        ("the same in the target", "GET http://H:1/storage/v1/b/media HTTP/1.1", &["h:1"], 200),
        ("another in the target", "GET http://other/storage/v1/b/media HTTP/1.1", &["h"], 400),
    ] {
        let hosts: Vec<String> = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        let hosts = hosts.concat();
        let request = format!("{line}\r\n{hosts}Authorization: Bearer t\r\nConnection: close\r\n\r\n");
        let answer = stand.raw(request.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{name}: {answer}");
    }
}
