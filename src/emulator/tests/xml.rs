use super::super::faults::{Action, Fault, Reply};
use super::super::journal::Operation;
use super::*;

impl Stand {
    /// A request of the XML API for `/media/o` with a token.
    async fn xml(&self, method: Method, headers: &[(&str, &str)], body: &str) -> Seen {
        self.xml_at("/media/o", method, headers, body).await
    }

    async fn xml_at(&self, target: &str, method: Method, headers: &[(&str, &str)], body: &str) -> Seen {
        let has_body = !matches!(method, Method::GET | Method::HEAD);
        let mut request = self.request(method, target);
        if has_body {
            request = request.header("content-length", body.len()).body(body.to_owned());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }

    /// The URI of a new session of the XML API.
    async fn xml_session(&self, headers: &[(&str, &str)]) -> String {
        let headers: Vec<_> = headers.iter().copied().chain([("x-goog-resumable", "start")]).collect();
        let seen = self.xml(Method::POST, &headers, "").await;
        assert_eq!((seen.status, seen.body.as_str()), (201, ""), "{seen:?}");
        seen.header("location").unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_initiation_gives_a_session_that_answers_in_headers() {
    let stand = stand().await;
    let uri = stand
        .xml_session(&[
            ("content-type", "video/mp4"),
            ("cache-control", "no-store"),
            ("content-language", "de"),
            ("X-Goog-Meta-Owner", "someone"),
        ])
        .await;
    assert!(uri.starts_with(&format!("{}/media/o?upload_id=", stand.emulator.url())), "{uri}");
    let chunk = stand.put(&uri, Some("bytes 0-262143/*"), bytes(Q)).await;
    assert_eq!(chunk.persisted(), Q);
    assert_eq!(stand.ask(&uri).await.persisted(), Q);
    let last = stand.put(&uri, Some("bytes 262144-262146/262147"), "end").await;
    assert_eq!((last.status, last.body.as_str()), (200, ""), "{last:?}");
    let object = stand.emulator.object("media", "o").unwrap();
    let hash = format!("crc32c={},md5={}", object.crc32c, object.md5);
    for (name, expected) in [
        ("x-goog-generation", object.generation.to_string().as_str()),
        ("x-goog-metageneration", "1"),
        ("x-goog-hash", &hash),
        ("x-goog-stored-content-length", "262147"),
        ("x-goog-stored-content-encoding", "identity"),
    ] {
        assert_eq!(last.header(name), Some(expected), "{name}");
    }
    assert!(last.header("etag").is_some_and(|tag| tag.starts_with('"')));
    assert_eq!((object.content_type.as_str(), object.metadata["owner"].as_str()), ("video/mp4", "someone"));
    let later = stand.ask(&uri).await;
    assert_eq!(
        (later.status, later.header("x-goog-hash")),
        (200, Some(hash.as_str())),
        "a finished session says it again"
    );
    assert_eq!(stand.cancel(&uri).await, 499);
    assert!(stand.emulator.object("media", "o").is_some(), "the object stays");
}

#[tokio::test]
async fn an_initiation_is_refused_before_it_costs_anything() {
    let start = ("x-goog-resumable", "start");
    for (name, target, headers, body, status, code) in [
        ("nothing to start", "/media/o", &[][..], "", 400, "InvalidArgument"),
        ("another word", "/media/o", &[("x-goog-resumable", "begin")], "", 400, "InvalidArgument"),
        ("no bucket", "/other/o", &[start], "", 404, "NoSuchBucket"),
        ("a bad name", "/media/%0A", &[start], "", 400, "InvalidArgument"),
        ("a forbidden name", "/media/.well-known/acme-challenge/x", &[start], "", 400, "InvalidArgument"),
        ("a bad precondition", "/media/o", &[start, ("x-goog-if-generation-match", "x")], "", 400, "InvalidArgument"),
        ("a bad range", "/media/o", &[start, ("x-goog-content-length-range", "5")], "", 400, "InvalidArgument"),
        ("a turned range", "/media/o", &[start, ("x-goog-content-length-range", "5,4")], "", 400, "InvalidArgument"),
        ("a bad size", "/media/o", &[start, ("x-upload-content-length", "x")], "", 400, "InvalidArgument"),
        ("a bad acl", "/media/o", &[start, ("x-goog-acl", "everyone")], "", 400, "InvalidArgument"),
    ] {
        let stand = stand().await;
        let seen = stand.xml_at(target, Method::POST, headers, body).await;
        assert_eq!((seen.status, seen.code()), (status, code), "{name}: {seen:?}");
        assert_eq!(stand.emulator.sessions(), 0, "{name}");
    }
    let stand = stand().await;
    let seen = stand.xml(Method::POST, &[start], r#"{"name": "p", "contentType": "text/html"}"#).await;
    stand.put(seen.header("location").unwrap(), None, "x").await;
    let object = stand.emulator.object("media", "o").unwrap();
    assert_eq!(object.content_type, "application/octet-stream", "nothing is taken of a body");
    let host = stand.emulator.address();
    let head = format!("Host: {host}\r\nAuthorization: Bearer t\r\nConnection: close\r\n");
    for request in [
        format!("POST /media/o HTTP/1.1\r\n{head}x-goog-resumable: start\r\n\r\n"),
        format!(
            "POST /media/o HTTP/1.1\r\n{head}x-goog-resumable: start\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("PUT /media/o HTTP/1.1\r\n{head}\r\n"),
    ] {
        let answer = stand.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 411 ") && answer.contains("MissingContentLength"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn callers_need_a_token_or_a_signature() {
    let stand = stand().await;
    for (name, authorization, query, status, code) in [
        ("nothing", None, "", 403, "AccessDenied"),
        ("no bearer", Some("Basic abc"), "", 401, "AuthenticationRequired"),
        ("both", Some("Bearer t"), "?X-Goog-Signature=00", 400, "InvalidArgument"),
    ] {
        for method in [Method::PUT, Method::POST, Method::GET, Method::DELETE] {
            let mut request = stand.client.request(method.clone(), format!("{}/media/o{query}", stand.emulator.url()));
            request = request.header("content-length", 0).header("x-goog-resumable", "start");
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let seen = send(request).await;
            assert_eq!((seen.status, seen.code()), (status, code), "{name} {method}");
        }
    }
    let open = stand_with(|settings| settings.authorization = super::super::Authorization::Ignored).await;
    let put = |query: &str| open.client.put(format!("{}/media/o{query}", open.emulator.url())).body("x");
    assert_eq!(send(put("")).await.status, 200);
    assert_eq!(
        send(put("?X-Goog-Signature=00")).await.code(),
        "InvalidArgument",
        "signatures are looked at all the same"
    );
}

#[tokio::test]
async fn a_session_is_checked_at_its_end() {
    let absent = ("x-goog-if-generation-match", "0");
    for (name, headers, end, status, says) in [
        ("within", &[("x-goog-content-length-range", "1,5")][..], "hello", 200, ""),
        ("too large", &[("x-goog-content-length-range", "1,4")], "hello", 400, "EntityTooLarge"),
        ("too small", &[("x-goog-content-length-range", "6,9")], "hello", 400, "EntityTooSmall"),
        ("as declared", &[("x-upload-content-length", "5")], "hello", 200, ""),
        ("digests of the initiation bind nobody", &[("x-goog-hash", "crc32c=AAAAAA==")], "hello", 200, ""),
        ("more than declared", &[("x-upload-content-length", "4")], "hello", 400, "more bytes"),
        ("fewer than declared", &[("x-upload-content-length", "6")], "hello", 400, "were expected"),
        ("still absent", &[absent], "hello", 412, "PreconditionFailed"),
        ("of that metageneration", &[("x-goog-if-metageneration-match", "1")], "hello", 200, ""),
        ("of another metageneration", &[("x-goog-if-metageneration-match", "2")], "hello", 412, "PreconditionFailed"),
    ] {
        let stand = stand().await;
        let uri = stand.xml_session(headers).await;
        let put = stand.xml(Method::PUT, &[], "before").await;
        assert_eq!(put.status, 200);
        let seen = stand.put(&uri, None, end).await;
        assert_eq!(seen.status, status, "{name}: {seen:?}");
        assert!(seen.body.contains(says), "{name}: {seen:?}");
        let stored = if status == 200 { end } else { "before" };
        assert_eq!(stand.bytes("o").unwrap(), stored.as_bytes(), "{name}");
    }
    let stand = stand().await;
    let uri = stand.xml_session(&[]).await;
    let seen = stand.put_with(&uri, None, "hello", &[("x-goog-hash", "crc32c=AAAAAA==")]).await;
    assert_eq!((seen.status, seen.code()), (400, "BadDigest"));
    assert_eq!(stand.ask(&uri).await.status, 410);
}

#[tokio::test]
async fn a_session_belongs_to_its_object_and_its_interface() {
    let stand = stand().await;
    let uri = stand.xml_session(&[]).await;
    let id = uri.split_once("upload_id=").unwrap().1;
    let json = stand.session("o", None).await;
    let json_id = json.split_once("upload_id=").unwrap().1;
    for (name, target) in [
        ("another object", format!("/media/p?upload_id={id}")),
        ("the other interface", format!("/upload/storage/v1/b/media/o?uploadType=resumable&name=o&upload_id={id}")),
        ("one of the other interface", format!("/media/o?upload_id={json_id}")),
        ("none", "/media/o?upload_id=none".to_owned()),
    ] {
        let url = format!("{}{target}", stand.emulator.url());
        assert_eq!(stand.put(&url, None, "x").await.status, 404, "{name}");
        assert_eq!(stand.cancel(&url).await, 404, "{name}");
    }
    assert_eq!(stand.cancel(&uri).await, 499);
    assert_eq!(stand.ask(&uri).await.status, 499);
    let uri = stand.xml_session(&[]).await;
    stand.emulator.advance(Duration::from_secs(7 * 24 * 3600 + 1));
    assert_eq!(stand.ask(&uri).await.status, 404, "its week is over");
}

#[tokio::test]
async fn a_put_is_checked_as_a_whole() {
    let wrong_md5 = ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==");
    for (name, headers, status, code) in [
        ("plain", &[][..], 200, ""),
        ("right MD5", &[("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")], 200, ""),
        ("wrong MD5", &[wrong_md5], 400, "BadDigest"),
        ("no MD5", &[("content-md5", "abc")], 400, "InvalidDigest"),
        ("right CRC32C", &[("x-goog-hash", "crc32c=mnG7TA==")], 200, ""),
        ("wrong CRC32C", &[("x-goog-hash", "crc32c=AAAAAA==")], 400, "BadDigest"),
        ("right and wrong", &[("x-goog-hash", "crc32c=mnG7TA=="), wrong_md5], 400, "BadDigest"),
        ("as large as it may be", &[("x-goog-content-length-range", "0,5")], 200, ""),
        ("too large", &[("x-goog-content-length-range", "0,4")], 400, "EntityTooLarge"),
        ("too small", &[("x-goog-content-length-range", "6,6")], 400, "EntityTooSmall"),
        ("absent", &[("x-goog-if-generation-match", "0")], 200, ""),
        ("another generation", &[("x-goog-if-generation-match", "7")], 412, "PreconditionFailed"),
        ("too much metadata", &[("x-goog-meta-a", LONG)], 400, "InvalidArgument"),
    ] {
        let stand = stand().await;
        let seen = stand.xml(Method::PUT, headers, "hello").await;
        assert_eq!(seen.status, status, "{name}: {seen:?}");
        if status != 200 {
            assert_eq!(seen.code(), code, "{name}");
        }
        assert_eq!(stand.bytes("o").is_some(), status == 200, "{name}");
    }
    let stand = stand().await;
    let head = format!("PUT /media/o HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer t\r\n", stand.emulator.address());
    stand.cut(format!("{head}Content-Length: 10\r\n\r\nhello").as_bytes()).await;
    assert!(stand.bytes("o").is_none(), "a body that was cut leaves nothing");
    let chunked = format!(
        "{head}Connection: close\r\nx-goog-content-length-range: 0,4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    assert!(stand.raw(chunked.as_bytes()).await.contains("EntityTooLarge"), "also when the length is not said");
}

/// Longer than a value of custom metadata may be, shorter than what hyper takes of a header.
const LONG: &str = {
    const BYTES: [u8; 4097] = [b'a'; 4097];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("it is ASCII"),
    }
};

#[tokio::test]
async fn objects_are_read_and_removed_by_their_path() {
    let stand = stand_with(|settings| settings.keep_bytes = ByteCount(100)).await;
    let target = "/media/a%20b//c%C3%A9";
    let headers = [("content-type", "text/plain"), ("x-goog-meta-owner", "someone"), ("content-disposition", "inline")];
    let made = stand.xml_at(target, Method::PUT, &headers, "hello world").await;
    let generation = made.header("x-goog-generation").unwrap().to_owned();
    assert!(stand.bytes("a b//cé").is_some());

    let got = stand.xml_at(target, Method::GET, &[], "").await;
    assert_eq!((got.status, got.body.as_str(), got.header("content-type")), (200, "hello world", Some("text/plain")));
    let head = stand.xml_at(target, Method::HEAD, &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("11")));
    for seen in [&got, &head] {
        assert_eq!(seen.header("x-goog-generation"), Some(generation.as_str()));
        assert_eq!(seen.header("x-goog-hash"), made.header("x-goog-hash"));
        assert_eq!(seen.header("etag"), made.header("etag"));
        assert_eq!(seen.header("x-goog-meta-owner"), Some("someone"));
        assert_eq!(seen.header("content-disposition"), Some("inline"));
        assert_eq!(seen.header("last-modified"), Some("Sat, 22 Nov 2025 10:00:00 GMT"));
    }
    let part = stand.xml_at(target, Method::GET, &[("range", "bytes=6-")], "").await;
    assert_eq!((part.status, part.body.as_str(), part.header("content-range")), (206, "world", Some("bytes 6-10/11")));
    let beyond = stand.xml_at(target, Method::GET, &[("range", "bytes=11-")], "").await;
    assert_eq!((beyond.status, beyond.code()), (416, "InvalidRange"));
    let named = stand.xml_at(&format!("{target}?response-content-disposition=attachment"), Method::GET, &[], "").await;
    assert_eq!(named.header("content-disposition"), Some("attachment"));

    let other = [("x-goog-if-generation-match", "7")];
    for method in [Method::GET, Method::DELETE] {
        let seen = stand.xml_at(target, method, &other, "").await;
        assert_eq!((seen.status, seen.code()), (412, "PreconditionFailed"));
    }
    let old = stand.xml_at(&format!("{target}?generation=7"), Method::DELETE, &[], "").await;
    assert_eq!((old.status, old.code()), (404, "NoSuchKey"));
    assert_eq!(stand.xml_at(target, Method::DELETE, &[], "").await.status, 204);
    for (method, code) in
        [(Method::GET, "NoSuchKey"), (Method::DELETE, "NoSuchKey"), (Method::PATCH, "MethodNotAllowed")]
    {
        assert_eq!(stand.xml_at(target, method, &[], "").await.code(), code);
    }
    assert_eq!(stand.xml_at(target, Method::HEAD, &[], "").await.status, 404);

    stand.xml(Method::PUT, &[], &"x".repeat(101)).await;
    let large = stand.xml(Method::HEAD, &[], "").await;
    assert_eq!((large.status, large.header("content-length")), (200, Some("101")), "its bytes are not kept");
    let large = stand.xml(Method::GET, &[], "").await;
    assert_eq!((large.status, large.code()), (501, "NotImplemented"));
}

#[tokio::test]
async fn what_is_not_here_is_not_taken_for_something_else() {
    let stand = stand().await;
    for (method, target, headers) in [
        (Method::PUT, "/media/o", &[("x-goog-copy-source", "/media/p")][..]),
        (Method::PUT, "/media/o?partNumber=1&uploadId=x", &[]),
        (Method::POST, "/media/o?uploads", &[("x-goog-resumable", "start")]),
        (Method::GET, "/media/o?acl", &[]),
        (Method::GET, "/media", &[]),
        (Method::POST, "/media/", &[]),
    ] {
        let seen = stand.xml_at(target, method, headers, "").await;
        assert_eq!((seen.status, seen.code()), (501, "NotImplemented"), "{target}");
    }
    assert!(stand.bytes("o").is_none());
    assert_eq!(stand.emulator.sessions(), 0);
}

#[tokio::test]
async fn errors_are_well_formed_whatever_the_name() {
    let stand = stand().await;
    let seen = stand.xml_at("/media/%01%1F%EF%BF%BF%3C%26a%F0%9F%98%80", Method::GET, &[], "").await;
    assert_eq!((seen.status, seen.code()), (404, "NoSuchKey"));
    let expected = "<Details>No such object: \u{fffd}\u{fffd}\u{fffd}&lt;&amp;a\u{1f600}</Details>";
    assert!(seen.body.contains(expected), "{seen:?}");
}

#[tokio::test]
async fn a_host_can_name_the_bucket() {
    let stand = stand().await;
    let request = "PUT /a/b HTTP/1.1\r\nHost: media.localhost\r\nAuthorization: Bearer t\r\nConnection: close\r\n\
                   Content-Length: 5\r\n\r\nhello";
    assert!(stand.raw(request.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(stand.bytes("a/b").unwrap(), b"hello");
}

#[tokio::test]
async fn journal_and_faults_know_these_calls() {
    let stand = stand().await;
    let uri = stand.xml_session(&[("x-upload-content-length", "5")]).await;
    stand.ask(&uri).await;
    stand.put(&uri, None, "hello").await;
    stand.cancel(&uri).await;
    for method in [Method::PUT, Method::GET, Method::HEAD, Method::DELETE] {
        stand.xml(method, &[], "").await;
    }
    let entries = stand.emulator.journal().entries();
    let told: Vec<_> = entries.iter().map(|entry| (entry.operation, entry.status.unwrap(), entry.session)).collect();
    assert_eq!(
        told,
        [
            (Operation::Initiate, 201, Some(1)),
            (Operation::Status, 308, Some(1)),
            (Operation::Chunk, 200, Some(1)),
            (Operation::Cancel, 499, Some(1)),
            (Operation::Simple, 200, None),
            (Operation::Download, 200, None),
            (Operation::Get, 200, None),
            (Operation::Delete, 204, None),
        ]
    );
    assert!(
        entries.iter().all(|entry| entry.object.as_deref() == Some("o") && entry.bucket.as_deref() == Some("media"))
    );

    let faults = stand.emulator.faults();
    faults.add(serde_json::from_str(r#"{"action": {"kind": "respond", "status": 429, "body": "xml"}}"#).unwrap());
    assert_eq!(stand.xml(Method::PUT, &[], "x").await.code(), "SlowDown");
    faults.add(Fault::once(Operation::Simple, Action::ActThenReset));
    let lost = stand.request(Method::PUT, "/media/o").body("x").send().await;
    assert!(lost.is_err());
    assert_eq!(stand.bytes("o").unwrap(), b"x");
    faults.add(Fault::once(Operation::Initiate, Action::WrongLocation { host: "evil.example".into() }));
    assert!(stand.xml_session(&[]).await.starts_with("http://evil.example/media/o?upload_id="));
    let uri = stand.xml_session(&[]).await;
    let persist = Action::PersistThenRespond { bytes: 3, reply: Reply::status(503) };
    faults.add(Fault::once(Operation::Chunk, persist));
    assert_eq!(stand.put(&uri, None, "hello").await.status, 503);
    assert_eq!(stand.ask(&uri).await.persisted(), 3);
}
