//! Clients that say little, or take nothing, or are too many.

use super::*;

#[tokio::test]
async fn silent_connections_are_closed() {
    let limits = Limits { header_timeout: SOON, ..patient() };
    for (name, sent) in [
        ("nothing", ""),
        ("half a request line", "GET /"),
        ("half a header", "GET / HTTP/1.1\r\nHost: a\r\nX"),
        ("half a preface of HTTP/2", "PRI * HTTP/2"),
        ("HTTP/2 without a request", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"),
    ] {
        let served = Served::start(limits).await;
        let mut client = served.connect().await;
        client.send(sent).await;
        let begun = tokio::time::Instant::now();
        let mut answer = Vec::new();
        let _ = soon(name, client.0.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{name}");
        assert!(begun.elapsed() >= SOON / 2, "{name}: closed before its time");
    }
}

#[tokio::test]
async fn a_header_that_trickles_in_gets_no_more_time() {
    let served = Served::start(Limits { header_timeout: SOON, ..patient() }).await;
    let mut client = served.connect().await;
    client.send("GET / HTTP/1.1\r\nX: ").await;
    let trickle = async {
        loop {
            if client.0.write_all(b"x").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the trickle is cut", trickle).await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_then_closed() {
    let limits = Limits { header_timeout: SOON, idle_timeout: 3 * SOON, ..patient() };
    let served = Served::start(limits).await;
    let mut client = served.connect().await;
    client.greet().await;
    // Longer than a header may take: between requests there is no header to wait for.
    tokio::time::sleep(SOON + SOON / 2).await;
    client.greet().await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_of_a_proxy_is_kept_for_longer() {
    let served = Served::start(Limits { idle_timeout: SOON, proxy_idle_timeout: 5 * SOON, ..patient() }).await;
    let (mut client, mut proxy) = (served.connect().await, served.connect_by_proxy().await);
    client.greet().await;
    proxy.greet().await;
    assert_eq!(client.rest().await, "");
    proxy.greet().await;
    assert_eq!(proxy.rest().await, "");
}

#[tokio::test]
async fn a_later_header_has_no_more_time_than_the_first() {
    let served = Served::start(Limits { header_timeout: SOON, ..patient() }).await;
    let mut client = served.connect().await;
    client.greet().await;
    client.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed_but_not_during_a_request() {
    let served = Served::start(Limits { header_timeout: SOON, idle_timeout: SOON, ..patient() }).await;
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    let request = axum::http::Request::get(format!("http://{}/wait", served.address));
    let response = sender.send_request(request.body(axum::body::Body::empty()).unwrap());
    served.request_under_way().await;
    tokio::time::sleep(2 * SOON).await;
    served.release.notify_one();
    assert_eq!(soon("the answer", response).await.unwrap().status(), 200);
    let ended = soon("the idle connection ends", connection).await.unwrap();
    assert!(ended.is_ok(), "closed with GOAWAY, not cut: {ended:?}");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let served = Served::start(Limits { write_timeout: SOON, ..patient() }).await;
    let mut client = served.connect().await;
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(4 * SOON).await;
    let mut taken = Vec::new();
    let _ = soon("the server closes", client.0.read_to_end(&mut taken)).await;
    assert!(taken.len() < 32 << 20, "all of it came");
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_is_given_whole() {
    let served = Served::start(Limits { write_timeout: 2 * SOON, ..patient() }).await;
    let mut client = served.connect().await;
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let (mut taken, mut buffer) = (0, vec![0; 4 << 20]);
    loop {
        let read = soon("more of the answer", client.0.read(&mut buffer)).await.unwrap();
        if read == 0 {
            break;
        }
        taken += read;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(taken > 32 << 20, "{taken}");
}

#[tokio::test]
async fn an_answer_that_comes_bit_by_bit_outlives_every_timeout() {
    // Three times the longest of them, with a bit at every quarter of that.
    let limits = Limits {
        header_timeout: SOON,
        body_timeout: SOON,
        write_timeout: SOON,
        idle_timeout: SOON,
        stall_timeout: 2 * SOON,
        closing_timeout: SOON,
        ..patient()
    };
    let served = Served::start(limits).await;
    let client = || reqwest::Client::builder().no_proxy();
    for (name, client) in [("HTTP/1.1", client().http1_only()), ("HTTP/2", client().http2_prior_knowledge())] {
        let url = format!("http://{}/beats", served.address);
        let response = client.build().unwrap().get(url).send().await.unwrap();
        assert_eq!(soon(name, response.text()).await.unwrap(), ".".repeat(12), "{name}");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let served = Served::start(Limits { connections: 2, ..patient() }).await;
    let (mut first, mut second) = (served.connect().await, served.connect().await);
    first.greet().await;
    second.greet().await;
    assert_eq!(served.connect().await.rest().await, "");
    second.greet().await;
    drop(first);
    // The server learns of the end a moment later.
    let again = async {
        loop {
            let mut third = served.connect().await;
            let _ = third.0.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            if third.rest().await.ends_with("hello") {
                break;
            }
        }
    };
    soon("the place is free again", again).await;
}
