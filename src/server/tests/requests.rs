//! Requests that are malformed, too large, or never complete.

use super::*;

fn assert_refused(name: &str, answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{name}: {answer:?}"));
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 400 bad request"), "{name}: {answer}");
    assert!(head.contains("content-type: application/problem+json"), "{name}: {answer}");
    assert!(head.contains("connection: close"), "{name}: {answer}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(problem["code"], "invalid-request", "{name}");
    assert_eq!(problem["status"], 400, "{name}");
    let id = problem["request_id"].as_str().unwrap();
    assert!(head.contains(&format!("x-request-id: {id}")), "{name}: {answer}");
    assert_eq!(id.len(), 16, "{name}");
    assert!(head.contains("x-content-type-options: nosniff"), "{name}: {answer}");
    assert_eq!(problem["type"], "urn:upload-broker:problem:invalid-request", "{name}");
    let error = &problem["errors"][0];
    let detail = format!("{}: {}", error["pointer"].as_str().unwrap(), error["detail"].as_str().unwrap());
    assert_eq!(problem["detail"], detail, "{name}");
}

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused_and_the_connection_closed() {
    let served = Served::start(patient()).await;
    for (name, request) in [
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("the same Host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (
            "a length, then a coding",
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a coding, then a length",
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        ("another coding", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("an absolute target of another host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an absolute target of another port", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut client = served.connect().await;
        client.send(request).await;
        assert_refused(name, &client.rest().await);
    }
}

#[tokio::test]
async fn two_framings_are_found_after_other_requests_and_in_small_pieces() {
    let served = Served::start(patient()).await;
    let mut client = served.connect().await;
    client.greet().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    assert!(client.until("body").await.starts_with("HTTP/1.1 200 OK"));
    for piece in
        ["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Le", "ngth: 5\r", "\nTransfer-Encoding: chu", "nked\r\n\r\n"]
    {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_refused("in pieces", &client.rest().await);

    let mut pipelined = served.connect().await;
    pipelined
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .await;
    assert!(pipelined.until("hello").await.starts_with("HTTP/1.1 200 OK"));
    assert_refused("behind another", &pipelined.rest().await);
}

#[tokio::test]
async fn a_chunked_body_is_read_and_its_connection_closed() {
    let served = Served::start(patient()).await;
    let mut client = served.connect().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("body"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn an_absolute_target_of_the_same_host_is_served() {
    let served = Served::start(patient()).await;
    let mut client = served.connect().await;
    client.send("GET http://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.until("hello").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn an_oversized_header_is_refused() {
    let served = Served::start(patient()).await;
    for (name, request, status) in [
        ("one long field", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(17 * 1024)), "431"),
        ("one field that never ends", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(64 * 1024)), "431"),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: x\r\n".repeat(101)), "431"),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 * 1024)), "431"),
    ] {
        let mut client = served.connect().await;
        // The server may close before it has read all of it.
        let _ = client.0.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let mut chunk = [0; 1024];
        while let Ok(read @ 1..) = soon(name, client.0.read(&mut chunk)).await {
            answer.extend_from_slice(&chunk[..read]);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer}");
        assert!(!answer.is_empty() || request.len() > 32 * 1024, "{name}: no answer");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_times_out() {
    let served = Served::start(Limits { body_timeout: SOON, ..patient() }).await;
    for (name, body) in [("no body", ""), ("half a body", "half ")] {
        let mut client = served.connect().await;
        client.send(&format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{body}")).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_there_is_not_late_however_late_it_is_read() {
    let served = Served::start(Limits { body_timeout: SOON, ..patient() }).await;
    for (name, body, expected) in
        [("all is there", "whole body", "HTTP/1.1 200"), ("half is there", "half ", "HTTP/1.1 408")]
    {
        let mut client = served.connect().await;
        client.send("POST /late-echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n").await;
        client.send(body).await;
        let answer = client.rest().await;
        assert!(answer.starts_with(expected), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_gets_no_more_time() {
    let served = Served::start(Limits { body_timeout: SOON, ..patient() }).await;
    let mut client = served.connect().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n").await;
    let (mut reader, mut writer) = client.0.split();
    let trickle = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 12];
    tokio::select! {
        () = trickle => {}
        read = soon("the answer", reader.read_exact(&mut answer)) => { read.unwrap(); }
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn every_request_knows_where_it_came_from() {
    let served = Served::start(patient()).await;
    let mut client = served.connect().await;
    let own = client.0.local_addr().unwrap();
    client.send("GET /peer HTTP/1.0\r\n\r\n").await;
    assert!(client.rest().await.ends_with(&format!("{own} false")));
}
