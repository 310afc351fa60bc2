//! Requests on the wire, retries, deadlines and limits.

use super::*;
use crate::model::chain;

#[tokio::test]
async fn an_initiation_has_the_documented_form_on_the_wire() {
    let server = Scripted::start([opened()]).await;
    let storage = client(&server).await;
    let (promise, metadata) = (full_promise(), full_metadata());
    let initiation = Initiation {
        note: None,
        id: UploadId::new(Partition(0x3f), [7; 16]),
        bucket: &bucket(),
        object: &object(),
        promise: &promise,
        metadata: &metadata,
        cache_control: Some("private"),
        overwrite: Overwrite::Forbidden,
        origin: Some("https://app.example.com"),
    };
    let opened = storage.initiate(&initiation, soon()).await.unwrap();
    let expected = format!("http://{}/upload/storage/v1/b/media-eu/o?upload_id=s3cret", server.address);
    assert_eq!(opened.expose(), expected);

    let body = concat!(
        r#"{"contentType":"video/mp4","md5Hash":"XrY7u+Ae7tCTyyK7j1rNww==","crc32c":"yZRlqg==","cacheControl":"private","#,
        r#""metadata":{"album":"\"summer\"","upload-broker-id":"3f07070707070707070707070707070707"}}"#,
    );
    let length = format!("content-length: {}", body.len());
    let target = "/upload/storage/v1/b/media-eu/o?uploadType=resumable&name=videos%2Fu%2017%2F%C3%A4.mp4";
    assert_eq!(
        sorted(&server.seen()[0]),
        [
            &format!("POST {target}&ifGenerationMatch=0 HTTP/1.1"),
            "accept: */*",
            "authorization: Bearer stand-in",
            &length,
            "content-type: application/json; charset=UTF-8",
            "origin: https://app.example.com",
            "user-agent: upload-broker/test",
            "x-upload-content-length: 73400320",
            "x-upload-content-type: video/mp4",
            body,
        ]
    );

    let bounds = PromisedSize::Between { least: ByteCount::ZERO, most: ByteCount(5) };
    let bare = Promise { size: bounds, md5: None, crc32c: None, ..promise.clone() };
    let none = BTreeMap::new();
    let initiation = Initiation {
        promise: &bare,
        metadata: &none,
        cache_control: None,
        overwrite: Overwrite::Allowed,
        origin: None,
        ..initiation
    };
    storage.initiate(&initiation, soon()).await.unwrap();
    let body = r#"{"contentType":"video/mp4","metadata":{"upload-broker-id":"3f07070707070707070707070707070707"}}"#;
    let length = format!("content-length: {}", body.len());
    assert_eq!(
        sorted(&server.seen()[1]),
        [
            &format!("POST {target} HTTP/1.1"),
            "accept: */*",
            "authorization: Bearer stand-in",
            &length,
            "content-type: application/json; charset=UTF-8",
            "user-agent: upload-broker/test",
            "x-upload-content-type: video/mp4",
            body,
        ]
    );
}

#[tokio::test]
async fn the_other_operations_have_the_documented_form_on_the_wire() {
    let server = Scripted::start([
        answer(308, &["range: bytes=0-99"], ""),
        answer(499, &[], ""),
        answer(404, &[], ""),
        answer(204, &[], ""),
    ])
    .await;
    let storage = client(&server).await;
    let session = session(&server);
    assert_eq!(storage.look(&session, soon()).await.unwrap(), Progress::Persisted(ByteCount(100)));
    assert_eq!(storage.cancel(&session, soon()).await.unwrap(), Cancelled::Ended);
    assert_eq!(storage.read_back(&bucket(), &object(), soon()).await.unwrap(), None);
    assert_eq!(storage.delete(&bucket(), &object(), 1_712, soon()).await.unwrap(), Deleted::Gone);

    let name = "/storage/v1/b/media-eu/o/videos%2Fu%2017%2F%C3%A4.mp4";
    let fields = "fields=bucket,name,generation,size,md5Hash,crc32c,contentType,metadata";
    let user_agent = "user-agent: upload-broker/test";
    let uri = "/upload/storage/v1/b/media-eu/o?name=a%2Fb&upload_id=s3cret";
    let (read, delete) = (
        format!("GET {name}?{fields} HTTP/1.1"),
        format!("DELETE {name}?generation=1712&ifGenerationMatch=1712 HTTP/1.1"),
    );
    let (look, cancel) = (format!("PUT {uri} HTTP/1.1"), format!("DELETE {uri} HTTP/1.1"));
    let token = "authorization: Bearer stand-in";
    let expected: [&[&str]; 4] = [
        // The URI is the credential: a token has no business there.
        &[&look, "accept: */*", "content-length: 0", "content-range: bytes */*", user_agent, ""],
        &[&cancel, "accept: */*", "content-length: 0", user_agent, ""],
        &[&read, "accept: */*", token, user_agent, ""],
        &[&delete, "accept: */*", token, "content-length: 0", user_agent, ""],
    ];
    for (seen, expected) in server.seen().iter().zip(expected) {
        assert_eq!(sorted(seen), expected);
    }
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again_and_nothing_else() {
    let rate = r#"{"error":{"errors":[{"reason":"rateLimitExceeded"}]}}"#;
    let forbidden = r#"{"error":{"errors":[{"reason":"forbidden"}]}}"#;
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nlocation: /?upload_id=A\r\n\r\n123".to_owned();
    let moved = "location: https://evil.example/?upload_id=s3cret";
    let cases: [(&str, Vec<Step>, usize, &str); 18] = [
        ("500", vec![answer(500, &[], "")], 2, "ok"),
        ("503 twice", vec![answer(503, &[], ""), answer(503, &[], "<html>")], 3, "ok"),
        ("408", vec![answer(408, &[], "")], 2, "ok"),
        ("429, at once", vec![answer(429, &["retry-after: 0"], "")], 2, "ok"),
        ("429 until a date", vec![answer(429, &["retry-after: Fri, 31 Dec 2099 23:59:59 GMT"], "")], 2, "ok"),
        ("403 for a rate", vec![answer(403, &[], rate)], 2, "ok"),
        ("cut off before the answer", vec![Step::Close], 2, "ok"),
        ("cut off within the answer", vec![Step::Last(cut)], 2, "ok"),
        ("no HTTP", vec![Step::Last("SSH-2.0-OpenSSH_9.2\r\n".to_owned())], 2, "ok"),
        ("400", vec![answer(400, &[], "")], 1, "storage refused with status 400"),
        ("403", vec![answer(403, &[], forbidden)], 1, "storage refused with status 403, forbidden"),
        ("404", vec![answer(404, &[], "")], 1, "storage refused with status 404"),
        ("412", vec![answer(412, &[], "")], 1, "storage refused with status 412"),
        ("413 with a long page", vec![answer(413, &[], &"x".repeat(100_000))], 1, "storage refused with status 413"),
        ("a redirect", vec![answer(307, &[moved], "")], 1, "a status that does not belong to the request"),
        ("a page", vec![answer(200, &[], "<html>Sign in</html>")], 1, "a session was opened without a Location"),
        ("another host", vec![answer(200, &[moved], "")], 1, "the session URI leads to a foreign host"),
        ("401 twice", vec![answer(401, &[], ""), answer(401, &[], "")], 2, "does not accept the broker's token"),
    ];
    for (name, mut steps, requests, expected) in cases {
        steps.push(opened());
        let server = Scripted::start(steps).await;
        let told = match initiate(&client(&server).await, soon()).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => {
                assert!(!format!("{error:?}").contains("s3cret"), "{name}");
                chain(&error)
            }
        };
        assert!(told.ends_with(expected) && !told.contains("s3cret"), "{name}: {told}");
        assert_eq!(server.count(), requests, "{name}");
    }
}

#[tokio::test]
async fn every_operation_is_repeated() {
    let server = Scripted::start([answer(503, &[], ""), answer(404, &[], "")]).await;
    let storage = client(&server).await;
    assert_eq!(storage.look(&session(&server), soon()).await.unwrap(), Progress::Gone);
    let server = Scripted::start([Step::Close, answer(404, &[], "")]).await;
    let storage = client(&server).await;
    assert_eq!(storage.cancel(&session(&server), soon()).await.unwrap(), Cancelled::WasGone);
    let server = Scripted::start([answer(429, &[], ""), answer(404, &[], "")]).await;
    let storage = client(&server).await;
    assert_eq!(storage.read_back(&bucket(), &object(), soon()).await.unwrap(), None);
    // The first one may have done it: then there is nothing left, and that is what was wanted.
    let server = Scripted::start([Step::Close, answer(404, &[], "")]).await;
    let storage = client(&server).await;
    assert_eq!(storage.delete(&bucket(), &object(), 1, soon()).await.unwrap(), Deleted::WasGone);
}

#[tokio::test]
async fn a_pause_that_storage_asks_for_is_kept_or_passed_on() {
    let server = Scripted::start([answer(503, &["retry-after: 1"], ""), opened()]).await;
    let begun = Instant::now();
    initiate(&client(&server).await, soon()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    let server = Scripted::start([answer(429, &["retry-after: 60"], "")]).await;
    let begun = Instant::now();
    let error = initiate(&client(&server).await, soon()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for what comes too late");
    let minute = Some(Duration::from_secs(60));
    assert!(
        matches!(error, Error::Unavailable { cause: Outage::Answered(429), retry_after, .. } if retry_after == minute)
    );
}

#[tokio::test]
async fn a_try_into_nowhere_leaves_time_for_another() {
    let server = Scripted::start([Step::Stall, opened()]).await;
    let begun = Instant::now();
    initiate(&client(&server).await, begun + Duration::from_secs(3)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn nothing_takes_longer_than_it_may() {
    let slow = Step::Later(Duration::from_secs(60), String::new());
    let trickle = Step::Answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\nlocation: /?upload_id=A\r\n\r\n1".to_owned());
    for (name, step) in [("silence", Step::Stall), ("slowness", slow), ("half an answer", trickle)] {
        let server = Scripted::start([step]).await;
        let storage = client_with_timeout(&server, Duration::from_millis(300)).await;
        let begun = Instant::now();
        let error = initiate(&storage, soon()).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { whom: Upstream::Storage }), "{name}: {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{name}: {:?}", begun.elapsed());
    }
    let server = Scripted::start([opened()]).await;
    let storage = client(&server).await;
    initiate(&storage, soon()).await.unwrap();
    assert!(
        matches!(initiate(&storage, Instant::now()).await, Err(Error::TimedOut { whom: Upstream::Storage })),
        "a deadline that is over"
    );
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{}", "{\"a\":".repeat(20_000));
    let server = Scripted::start([Step::Answer(endless)]).await;
    let error = client(&server).await.read_back(&bucket(), &object(), soon()).await.unwrap_err();
    assert!(matches!(error, Error::Nonsense("an object resource without an end")), "{error:?}");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn an_outage_is_not_multiplied() {
    let server = Scripted::start([answer(503, &[], "")]).await;
    let storage = client(&server).await;
    let begun = Instant::now();
    for _ in 0..200 {
        let error = storage.look(&session(&server), soon()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { cause: Outage::Answered(503), .. }), "{error:?}");
    }
    let allowed = 200 + 50 + 40 + begun.elapsed().as_secs() + 1;
    assert!((200 + 50 + 30..=allowed).contains(&(server.count() as u64)), "{} requests", server.count());
}

#[tokio::test]
async fn too_much_at_once_is_shed_without_asking_storage() {
    let server = Scripted::start([opened()]).await;
    let storage = client_with_timeout(&server, Duration::from_millis(100)).await;
    let calls = storage.caller.limits.hold_calls(CALLS).await;
    assert!(matches!(initiate(&storage, soon()).await, Err(Error::Overloaded)), "no call is free in time");
    drop(calls);
    let operations = storage.caller.limits.hold_operations();
    assert!(matches!(initiate(&storage, soon()).await, Err(Error::Overloaded)), "too many operations");
    assert_eq!(server.count(), 0);
    drop(operations);
    initiate(&storage, soon()).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_an_outage_with_its_cause() {
    let server = Scripted::start([opened()]).await;
    let (storage, session) = (client(&server).await, session(&server));
    drop(server);
    // The listener ends with its task, a moment after the drop.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = storage.look(&session, soon()).await.unwrap_err();
    let told = chain(&error);
    assert!(matches!(error, Error::Unavailable { cause: Outage::NoConnection(_), .. }), "{told}");
    assert!(told.starts_with("storage is not available: no connection came about: "), "{told}");
    assert!(told.contains("refused") && !told.contains("s3cret") && !format!("{error:?}").contains("s3cret"), "{told}");
}

#[tokio::test]
async fn tls_is_trusted_by_the_configured_authority_only() {
    let (server, authority) = Scripted::start_tls([opened()]).await;
    let endpoint = format!("https://localhost:{}", server.address.port());
    let settings = settings(&endpoint, Duration::from_secs(5));
    let file = tempfile::NamedTempFile::new().unwrap();
    let (tokens, key) = key_for(&file, [answer(200, &[], &token_answer("t"))]).await;
    let settings = Settings { credentials: key, ..settings };
    let trusting = Options { trusted_ca: vec![authority], ..options() };
    let storage = Storage::open_with(&settings, trusting, QUICK).await.unwrap();
    assert!(initiate(&storage, soon()).await.unwrap().expose().starts_with(&endpoint));
    let storage = Storage::open_with(&settings, options(), QUICK).await.unwrap();
    let told = chain(&initiate(&storage, soon()).await.unwrap_err());
    assert!(told.contains("no connection came about") && told.contains("certificate"), "{told}");
    assert_eq!((server.count(), tokens.count()), (1, 2));
}
