use super::super::journal::Operation;
use super::*;

#[tokio::test]
async fn an_object_can_be_sent_in_each_documented_way() {
    let content = bytes(2 * Q + 1000);
    let n = content.len();
    let total = |text: &str| text.replace('N', &n.to_string()).replace('L', &(n - 1).to_string());
    // Ranges with the part of the content that goes with each.
    let (one, two) = (format!("bytes 0-{}", Q - 1), format!("bytes {Q}-L/N"));
    for (name, declared, requests) in [
        ("at once", Some(n), vec![(None, 0..n)]),
        ("at once, undeclared", None, vec![(None, 0..n)]),
        ("at once, with a range", None, vec![(Some("bytes 0-L/N".to_owned()), 0..n)]),
        ("chunks, total known", Some(n), vec![(Some(format!("{one}/N")), 0..Q), (Some(two.clone()), Q..n)]),
        ("chunks, total last", None, vec![(Some(format!("{one}/*")), 0..Q), (Some(two.clone()), Q..n)]),
        ("declared, never said", Some(n), vec![(Some(format!("{one}/*")), 0..Q), (Some(two.replace('N', "*")), Q..n)]),
        ("overlapping", Some(n), vec![(Some(format!("{one}/N")), 0..Q), (Some("bytes 0-L/N".to_owned()), 0..n)]),
        ("whole over a part", Some(n), vec![(Some(format!("{one}/N")), 0..Q), (None, 0..n)]),
        ("a stream", None, vec![(Some("bytes 0-*/*".to_owned()), 0..n)]),
        ("a stream, total known", Some(n), vec![(Some("bytes 0-*/N".to_owned()), 0..n)]),
        ("a stream that resumes", None, vec![(Some(format!("{one}/*")), 0..Q), (Some(format!("bytes {Q}-*/*")), Q..n)]),
    ] {
        let stand = stand().await;
        let uri = stand.session("o", declared).await;
        let last = requests.len() - 1;
        for (index, (range, part)) in requests.into_iter().enumerate() {
            let range = range.as_deref().map(total);
            let seen = stand.put(&uri, range.as_deref(), &content[part]).await;
            if index < last {
                assert_eq!(seen.persisted(), Q, "{name}");
            } else {
                assert_eq!((seen.status, seen.json()["size"].as_str()), (200, Some(n.to_string().as_str())), "{name}");
            }
        }
        assert!(stand.bytes("o").unwrap() == content, "{name}: the bytes differ");
        assert_eq!(stand.emulator.sessions(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_taken_as_a_stream() {
    let stand = stand().await;
    let content = bytes(Q + 5);
    for (name, declared, range, status) in [
        ("a stream", None, Some("bytes 0-*/*"), 200),
        ("whole", None, None, 200),
        ("whole, declared", Some(Q + 5), None, 200),
        ("whole, too short", Some(Q + 6), None, 400),
        ("whole, too long", Some(Q + 4), None, 400),
        ("a stream, too short", None, Some("bytes 0-*/262150"), 400),
        ("a stream, too long", None, Some("bytes 0-*/262148"), 400),
        ("a chunk", None, Some("bytes 0-262148/262149"), 200),
        ("a chunk, too short", None, Some("bytes 0-262149/262150"), 400),
        ("a chunk, too long", None, Some("bytes 0-262147/262148"), 400),
    ] {
        let uri = stand.session("o", declared).await;
        let range = range.map(|range| format!("content-range: {range}\r\n")).unwrap_or_default();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{range}transfer-encoding: chunked\r\n\r\n",
            target(&uri)
        );
        let mut request = head.into_bytes();
        for piece in content.chunks(1000) {
            request.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            request.extend(piece);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        let answer = stand.raw(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
    }
}

#[tokio::test]
async fn only_what_a_308_says_counts() {
    let content = bytes(4 * Q);
    for (name, declared, range, length, persisted) in [
        ("a multiple", None, "bytes 0-524287/*", 2 * Q, 2 * Q),
        ("no multiple", None, "bytes 0-524297/*", 2 * Q + 10, 2 * Q),
        ("no multiple, just above the least", None, "bytes 0-262144/*", Q + 1, Q),
        ("already there, again", None, "bytes 0-262143/*", Q, Q),
        ("a total in a chunk", None, "bytes 0-262143/1048576", Q, Q),
        ("with a declaration", Some(4 * Q), "bytes 0-262143/1048576", Q, Q),
    ] {
        let stand = stand().await;
        let uri = stand.session("o", declared).await;
        assert_eq!(stand.ask(&uri).await.header("range"), None, "{name}: nothing is there yet");
        for _ in 0..2 {
            assert_eq!(stand.put(&uri, Some(range), &content[..length]).await.persisted(), persisted, "{name}");
            assert_eq!(stand.ask(&uri).await.persisted(), persisted, "{name}");
        }
        assert!(stand.bytes("o").is_none(), "{name}");
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_and_harm_nothing() {
    let content = bytes(4 * Q);
    // Each finds 256 KiB persisted of a session of that declared size.
    for (name, declared, range, length, status, text) in [
        ("a gap", None, Some("bytes 262145-524288/*"), Q, 503, "the upload offset is 262145 byte(s), which exceeds"),
        ("a gap in a stream", None, Some("bytes 262145-*/*"), 10, 503, "already uploaded size of 262144 byte(s)"),
        ("a small chunk", None, Some("bytes 262144-262153/*"), 10, 400, "except for the final request"),
        ("a small chunk of more", None, Some("bytes 262144-262153/999999"), 10, 400, "262144"),
        ("another total", Some(4 * Q), Some("bytes 262144-524287/999999"), Q, 400, "disagrees"),
        ("another total, asked", Some(4 * Q), Some("bytes */999999"), 0, 400, "disagrees"),
        ("less than is there", None, Some("bytes */1000"), 0, 400, "262144"),
        ("more than declared", Some(2 * Q), Some("bytes 262144-786431/*"), 2 * Q, 400, "more bytes"),
        ("whole, more than declared", Some(2 * Q), None, 3 * Q, 400, "more bytes"),
        ("whole, fewer than declared", Some(3 * Q), None, 2 * Q, 400, "complete at"),
        ("whole, empty", None, None, 0, 400, "complete at"),
        ("stream, fewer than declared", Some(3 * Q), Some("bytes 262144-*/*"), Q, 400, "complete at"),
        ("a long body", None, Some("bytes 262144-524287/*"), 2 * Q, 400, "request body"),
        ("status with a body", None, Some("bytes */*"), 5, 400, "Client sent query request with a non-empty body."),
        ("no range", None, Some("bytes 0-0/0"), 0, 400, "Failed to parse Content-Range header."),
        ("nonsense", None, Some("pages 1-2"), 3, 400, "Failed to parse Content-Range header."),
        ("6 TiB", None, Some("bytes 262144-6597069766655/6597069766656"), 10, 400, "at most"),
        ("6 TiB, total open", None, Some("bytes 262144-6597069766655/*"), 10, 400, "at most"),
    ] {
        let stand = stand().await;
        let uri = stand.session("o", declared).await;
        assert_eq!(stand.put(&uri, Some("bytes 0-262143/*"), &content[..Q]).await.persisted(), Q, "{name}");
        let body = content[..length].to_vec();
        let seen = stand.put(&uri, range, body).await;
        assert_eq!(seen.status, status, "{name}: {}", seen.body);
        assert!(seen.header("content-type").unwrap().starts_with("text/plain"), "{name}");
        assert!(seen.body.contains(text), "{name}: {}", seen.body);
        assert_eq!(stand.ask(&uri).await.persisted(), Q, "{name}");
        let size = declared.unwrap_or(Q + 10);
        let rest = format!("bytes {Q}-{}/{size}", size - 1);
        assert_eq!(stand.put(&uri, Some(&rest), &content[Q..size]).await.status, 200, "{name}");
        assert!(stand.bytes("o").unwrap() == content[..size], "{name}: the bytes differ");
    }
}

#[tokio::test]
async fn a_total_that_a_chunk_names_binds_later_ones() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    let content = bytes(2 * Q);
    assert_eq!(stand.put(&uri, Some("bytes 0-262143/524288"), &content[..Q]).await.persisted(), Q);
    assert_eq!(stand.put(&uri, Some("bytes 262144-524287/600000"), &content[Q..]).await.status, 400);
    assert_eq!(stand.put(&uri, Some("bytes */524288"), "").await.persisted(), Q);
    assert_eq!(stand.put(&uri, Some("bytes 262144-524287/*"), &content[Q..]).await.status, 200);
}

#[tokio::test]
async fn a_status_query_with_the_total_finishes_what_is_all_there() {
    let content = bytes(2 * Q);
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    assert_eq!(stand.put(&uri, Some("bytes 0-524287/*"), content.clone()).await.persisted(), 2 * Q);
    assert_eq!(stand.ask(&uri).await.persisted(), 2 * Q);
    assert_eq!(stand.put(&uri, Some("bytes */999999"), "").await.persisted(), 2 * Q, "a question binds nobody");
    assert_eq!(stand.put(&uri, Some("bytes */524288"), "").await.status, 200);
    assert!(stand.bytes("o").unwrap() == content);
}

#[tokio::test]
async fn an_empty_object_is_made_only_on_request() {
    for (name, declared, range) in [
        ("no range", None, None),
        ("no range, declared", Some(0), None),
        ("total of nothing", None, Some("bytes */0")),
        ("total of nothing, declared", Some(0), Some("bytes */0")),
        ("an empty stream", None, Some("bytes 0-*/*")),
    ] {
        let stand = stand().await;
        let uri = stand.session("o", declared).await;
        assert_eq!(stand.ask(&uri).await.persisted(), 0, "{name}");
        let object = stand.put(&uri, range, "").await.json();
        assert_eq!((&object["size"], &object["crc32c"]), (&"0".into(), &"AAAAAA==".into()), "{name}");
        assert_eq!(object["md5Hash"], "1B2M2Y8AsgTpgAmY7PhCfg==", "{name}");
    }
}

#[tokio::test]
async fn what_a_cut_connection_sent_counts_down_to_a_multiple() {
    let content = bytes(3 * Q);
    for (name, range, length, sent, persisted) in [
        ("a chunk", Some("bytes 0-786431/786432"), 3 * Q, 2 * Q + 100, 2 * Q),
        ("whole", None, 3 * Q, Q + 1, Q),
        ("less than the least", None, 3 * Q, Q - 1, 0),
        ("shorter than the range, by its length", Some("bytes 0-786431/786432"), Q + 9, Q + 9, Q),
    ] {
        let stand = stand().await;
        let uri = stand.session("o", Some(3 * Q)).await;
        let range = range.map(|range| format!("content-range: {range}\r\n")).unwrap_or_default();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{range}content-length: {length}\r\n\r\n",
            target(&uri)
        );
        let request = [head.as_bytes(), &content[..sent]].concat();
        let answer = if sent < length { stand.cut(&request).await } else { stand.raw(&request).await };
        let entry = stand.emulator.journal().wait_for(|entry| entry.operation == Operation::Chunk).await;
        assert_eq!((entry.received, entry.persisted), (sent as u64, Some(persisted as u64)), "{name}");
        if sent < length {
            assert_eq!((answer.as_str(), entry.status), ("", None), "{name}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
        }
        assert_eq!(stand.ask(&uri).await.persisted(), persisted, "{name}");
        let rest = format!("bytes {persisted}-786431/786432");
        assert_eq!(stand.put(&uri, Some(&rest), &content[persisted..]).await.status, 200, "{name}");
        assert!(stand.bytes("o").unwrap() == content, "{name}: the bytes differ");
    }
}

#[tokio::test]
async fn a_later_request_takes_the_session_over() {
    let stand = stand().await;
    let content = bytes(2 * Q);
    let uri = stand.session("o", Some(2 * Q)).await;
    let mut slow = TcpStream::connect(stand.emulator.address()).await.unwrap();
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", target(&uri), 2 * Q);
    slow.write_all(&[head.as_bytes(), &content[..Q + 100]].concat()).await.unwrap();
    while stand.ask(&uri).await.persisted() < Q {
        tokio::task::yield_now().await;
    }
    let rest = format!("bytes {Q}-{}/{}", 2 * Q - 1, 2 * Q);
    // Asking did not disturb it; writing does.
    assert_eq!(stand.put(&uri, Some(&rest), &content[Q..]).await.status, 200);
    slow.write_all(&content[Q + 100..]).await.unwrap();
    let mut answer = vec![0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200", "the object is complete, whoever sent it");
    assert!(stand.bytes("o").unwrap() == content);

    let uri = stand.session("p", Some(3 * Q)).await;
    let mut slow = TcpStream::connect(stand.emulator.address()).await.unwrap();
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", target(&uri), 3 * Q);
    slow.write_all(&[head.as_bytes(), &content[..Q + 100]].concat()).await.unwrap();
    while stand.ask(&uri).await.persisted() < Q {
        tokio::task::yield_now().await;
    }
    let next = format!("bytes {Q}-{}/*", 2 * Q - 1);
    assert_eq!(stand.put(&uri, Some(&next), &content[Q..]).await.persisted(), 2 * Q);
    slow.write_all(&bytes(2 * Q - 100)).await.unwrap();
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 503");
    assert_eq!(stand.ask(&uri).await.persisted(), 2 * Q);
}

#[tokio::test]
async fn a_308_can_be_had_as_a_200() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    let no_308 = [("x-guploader-no-308", "yes")];
    for range in ["bytes 0-262143/*", "bytes */*"] {
        let body = if range.contains("*/*") { Vec::new() } else { bytes(Q) };
        let seen = stand.put_with(&uri, Some(range), body, &no_308).await;
        assert_eq!((seen.status, seen.header("x-http-status-code-override")), (200, Some("308")), "{range}");
        assert_eq!(seen.header("range"), Some("bytes=0-262143"), "{range}");
    }
    let last = stand.put_with(&uri, Some("bytes */262144"), "", &no_308).await;
    assert_eq!((last.status, last.header("x-http-status-code-override")), (200, None));
}

#[tokio::test]
async fn post_does_what_put_does_and_lengths_are_required() {
    let stand = stand().await;
    let uri = stand.session("o", None).await;
    let posted = send(stand.client.post(&uri).body("hello")).await;
    assert_eq!((posted.status, stand.bytes("o")), (200, Some(b"hello".to_vec())));
    let uri = stand.session("o", None).await;
    for range in ["", "content-range: bytes */*\r\n"] {
        let request = format!("PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{range}\r\n", target(&uri));
        let answer = stand.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    }
    let status = format!(
        "PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-range: bytes */*\r\ncontent-length: 0\r\n\r\n",
        target(&uri)
    );
    let answer = stand.raw(status.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 308 Resume Incomplete\r\n"), "{answer}");
}

#[tokio::test]
async fn large_objects_cost_no_memory() {
    let stand = stand_with(|settings| settings.keep_bytes = ByteCount::kib(300)).await;
    let content = bytes(Q);
    let uri = stand.session("large", None).await;
    for part in 0..8 {
        let range = format!("bytes {}-{}/*", part * Q, (part + 1) * Q - 1);
        assert_eq!(stand.put(&uri, Some(&range), &content[..]).await.persisted(), (part + 1) * Q);
    }
    assert_eq!(stand.put(&uri, Some("bytes */2097152"), "").await.status, 200);
    let object = stand.emulator.object("media", "large").unwrap();
    assert_eq!((object.size, object.crc32c.0), (8 * Q as u64, crc32c::crc32c(&content.repeat(8))));
    assert!(object.bytes.is_none());
    let seen = send(stand.request(Method::GET, "/storage/v1/b/media/o/large?alt=media")).await;
    assert_eq!((seen.status, seen.reason().as_str()), (501, "notImplemented"));
}
