use super::*;
use serde_json::json;

/// Digests of `hello`, and of `hello world`.
const HELLO: (&str, &str) = ("mnG7TA==", "XUFAKrxLKna5cZ2REBfFkg==");
const WORLD: (&str, &str) = ("yZRlqg==", "XrY7u+Ae7tCTyyK7j1rNww==");

#[tokio::test]
async fn digests_are_checked_at_the_end() {
    let hash = |crc32c: &str, md5: &str| format!("crc32c={crc32c},md5={md5}");
    for (name, declared, sent, holds) in [
        ("none", json!({}), None, true),
        ("declared", json!({"crc32c": HELLO.0, "md5Hash": HELLO.1}), None, true),
        ("another crc32c declared", json!({"crc32c": WORLD.0}), None, false),
        ("another md5 declared", json!({"md5Hash": WORLD.1}), None, false),
        ("sent", json!({}), Some(hash(HELLO.0, HELLO.1)), true),
        ("another crc32c sent", json!({}), Some(hash(WORLD.0, HELLO.1)), false),
        ("another md5 sent", json!({}), Some(hash(HELLO.0, WORLD.1)), false),
        ("one sent", json!({}), Some(format!("md5={}", WORLD.1)), false),
        (
            "the right one sent after a wrong one declared",
            json!({"crc32c": WORLD.0}),
            Some(hash(HELLO.0, HELLO.1)),
            false,
        ),
    ] {
        let stand = stand().await;
        let uri = location(&stand.initiation("name=o", &declared.to_string()).send().await.unwrap());
        let headers: Vec<_> = sent.iter().map(|sent| ("x-goog-hash", sent.as_str())).collect();
        let seen = stand.put_with(&uri, None, "hello", &headers).await;
        if holds {
            assert_eq!(seen.status, 200, "{name}");
            continue;
        }
        assert_eq!((seen.status, seen.reason().as_str()), (400, "invalid"), "{name}");
        assert!(stand.bytes("o").is_none(), "{name}");
        assert_eq!(stand.ask(&uri).await.status, 410, "{name}: the session is dead");
        assert_eq!(stand.put(&uri, None, "hello").await.status, 410, "{name}");
        assert_eq!(stand.cancel(&uri).await, 410, "{name}");
    }
}

#[tokio::test]
async fn a_digest_counts_only_with_the_last_request() {
    let stand = stand().await;
    let content = bytes(Q + 5);
    let uri = stand.session("o", None).await;
    let wrong = [("x-goog-hash", "crc32c=AAAAAA==")];
    let range = "bytes 0-262143/*";
    assert_eq!(stand.put_with(&uri, Some(range), &content[..Q], &wrong).await.persisted(), Q);
    let right = format!("crc32c={}", crate::model::digest::Crc32c(crc32c::crc32c(&content)));
    let range = "bytes 262144-262148/262149";
    assert_eq!(stand.put_with(&uri, Some(range), &content[Q..], &[("x-goog-hash", &right)]).await.status, 200);
}

#[tokio::test]
async fn preconditions_are_checked_at_the_end_only() {
    let stand = stand().await;
    stand.put(&stand.session("o", None).await, None, "first").await;
    let first = stand.emulator.object("media", "o").unwrap().generation;
    for (name, query, status) in [
        ("absent", "ifGenerationMatch=0".to_owned(), 412),
        ("another", "ifGenerationMatch=5".to_owned(), 412),
        ("not this", format!("ifGenerationNotMatch={first}"), 412),
        ("this", format!("ifGenerationMatch={first}"), 200),
    ] {
        let uri = location(&stand.initiation(&format!("name=o&{query}"), "").send().await.unwrap());
        let seen = stand.put(&uri, None, name).await;
        assert_eq!(seen.status, status, "{name}");
        if status == 412 {
            assert_eq!(seen.reason(), "conditionNotMet");
            assert_eq!(stand.bytes("o").unwrap(), b"first", "{name}");
            assert_eq!(stand.ask(&uri).await.status, 410, "{name}");
        }
    }
    let second = stand.emulator.object("media", "o").unwrap();
    assert_eq!(second.bytes.as_deref(), Some(&b"this"[..]));
    assert_eq!(second.generation, first + 1, "generations grow though the clock stands still");

    // Two sessions for one new object: the one that ends later loses, whatever was initiated first.
    let new = || async { location(&stand.initiation("name=n&ifGenerationMatch=0", "").send().await.unwrap()) };
    let (one, two) = (new().await, new().await);
    assert_eq!(stand.put(&two, None, "two").await.status, 200);
    assert_eq!(stand.put(&one, None, "one").await.status, 412);
    // Whoever holds the URI cannot drop the precondition from it.
    let three = new().await.replace("&ifGenerationMatch=0", "").replace("name=n", "name=m");
    assert_eq!(stand.put(&three, None, "three").await.status, 412);
    assert!(stand.bytes("m").is_none());
}

#[tokio::test]
async fn metadata_of_the_last_request_is_set() {
    let stand = stand().await;
    let body = r#"{"metadata": {"kept": "1", "changed": "1"}}"#;
    let uri = location(&stand.initiation("name=o", body).send().await.unwrap());
    let early = [("x-goog-meta-early", "1")];
    stand.put_with(&uri, Some("bytes 0-262143/*"), bytes(Q), &early).await;
    let late = [("x-goog-meta-changed", "2"), ("x-goog-meta-new", "2")];
    let object = stand.put_with(&uri, Some("bytes */262144"), "", &late).await.json();
    assert_eq!(object["metadata"], json!({"kept": "1", "changed": "2", "new": "2"}));

    let uri = stand.session("p", None).await;
    let long = "v".repeat(4097);
    assert_eq!(stand.put_with(&uri, None, "x", &[("x-goog-meta-long", long.as_str())]).await.status, 400);
    assert!(stand.bytes("p").is_none());
}

#[tokio::test]
async fn a_finished_session_keeps_answering_with_its_object() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    let object = stand.put(&uri, None, "hello").await.json();
    for (name, range, body) in [
        ("status", Some("bytes */*"), ""),
        ("status with the total", Some("bytes */5"), ""),
        ("the same again", None, "hello"),
        ("something else", None, "other bytes"),
        ("a gap", Some("bytes 900-904/905"), "other"),
    ] {
        let seen = stand.put(&uri, range, body).await;
        assert_eq!((seen.status, seen.json()), (200, object.clone()), "{name}");
    }
    assert_eq!(stand.cancel(&uri).await, 499);
    assert_eq!(stand.bytes("o").unwrap(), b"hello", "the object stays");
    assert_eq!(stand.ask(&uri).await.status, 200);
}

#[tokio::test]
async fn a_cancelled_session_takes_nothing_more() {
    let stand = stand().await;
    let uri = stand.session("o", Some(2 * Q)).await;
    stand.put(&uri, Some("bytes 0-262143/524288"), bytes(Q)).await;
    assert_eq!(stand.cancel(&uri).await, 499);
    assert_eq!(stand.emulator.sessions(), 0);
    assert_eq!(stand.ask(&uri).await.status, 499);
    assert_eq!(stand.put(&uri, None, bytes(2 * Q)).await.status, 499);
    assert_eq!(stand.cancel(&uri).await, 499);
    assert!(stand.bytes("o").is_none());
}

#[tokio::test]
async fn a_session_that_is_cancelled_under_a_writer_stays_cancelled() {
    let stand = stand().await;
    let uri = stand.session("o", Some(2 * Q)).await;
    let mut slow = TcpStream::connect(stand.emulator.address()).await.unwrap();
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", target(&uri), 2 * Q);
    slow.write_all(&[head.as_bytes(), &bytes(Q)].concat()).await.unwrap();
    while stand.ask(&uri).await.persisted() < Q {
        tokio::task::yield_now().await;
    }
    assert_eq!(stand.cancel(&uri).await, 499);
    slow.write_all(&bytes(Q)).await.unwrap();
    let mut answer = vec![0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 499");
    assert!(stand.bytes("o").is_none());
}

#[tokio::test]
async fn a_session_lives_a_week() {
    let stand = stand().await;
    let (open, finished) = (stand.session("o", None).await, stand.session("p", None).await);
    stand.put(&finished, None, "x").await;
    let week = Duration::from_secs(7 * 24 * 3600);
    stand.emulator.advance(week);
    assert_eq!((stand.ask(&open).await.status, stand.ask(&finished).await.status), (308, 200));
    assert_eq!(stand.emulator.sessions(), 1);
    stand.emulator.advance(Duration::from_millis(1));
    assert_eq!((stand.ask(&open).await.status, stand.ask(&finished).await.status), (404, 404));
    assert_eq!((stand.put(&open, None, "x").await.status, stand.cancel(&open).await), (404, 404));
    assert_eq!(stand.emulator.sessions(), 0);
    assert!(stand.bytes("p").is_some());
}

#[tokio::test]
async fn a_session_is_found_by_its_whole_secret_only() {
    let stand = stand_with(|settings| {
        let other = BucketSettings { name: "other".into(), location: "EU".into(), ..BucketSettings::default() };
        settings.buckets.push(other);
    })
    .await;
    let uri = stand.session("o", None).await;
    let (before, id) = uri.split_once("&upload_id=").unwrap();
    for (name, uri, status) in [
        ("itself", uri.clone(), 308),
        ("none", before.to_owned(), 400),
        ("empty", format!("{before}&upload_id="), 404),
        ("unknown", format!("{before}&upload_id=ABPnzm{}", "A".repeat(172)), 404),
        ("cut", format!("{before}&upload_id={}", &id[..177]), 404),
        ("another end", format!("{before}&upload_id={}A_", &id[..176]), 404),
        ("another bucket", uri.replace("/b/media/", "/b/other/"), 404),
        ("another path", uri.replace("/upload/", "/resumable/upload/"), 308),
    ] {
        let seen = stand.ask(&uri).await;
        assert_eq!(seen.status, status, "{name}");
        if status != 308 {
            assert!(seen.header("content-type").unwrap().starts_with("text/plain"), "{name}");
        }
        assert!(seen.header("x-guploader-uploadid").is_some(), "{name}");
    }
    assert_eq!(stand.cancel(before).await, 400);
}

#[tokio::test]
async fn sessions_and_objects_are_bounded() {
    let stand = stand_with(|settings| {
        settings.max_sessions = 32;
        settings.max_objects = 2;
    })
    .await;
    let first = stand.session("o", None).await;
    for _ in 0..400 {
        stand.session("o", None).await;
    }
    assert!(stand.emulator.sessions() <= 32);
    assert_eq!(stand.ask(&first).await.status, 404, "the oldest go first");
    for (name, status) in [("a", 200), ("b", 200), ("c", 503), ("a", 200)] {
        assert_eq!(stand.put(&stand.session(name, None).await, None, "x").await.status, status, "{name}");
    }
}
