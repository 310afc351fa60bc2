//! Clients of HTTP/2 that grant no window, or hardly any, and keep other requests going on the same connection.

use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

/// A client whose streams may each be sent `window` bytes, and no more before they are read; and its connection.
async fn connect(served: &Served, window: u32) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let stream = TokioIo::new(TcpStream::connect(served.address).await.unwrap());
    let mut builder = Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(window).handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// Asks for `path`, and gives the body of the answer.
async fn ask(served: &Served, sender: &mut SendRequest<Body>, path: &str) -> hyper::body::Incoming {
    let request = axum::http::Request::get(format!("http://{}{path}", served.address));
    let response = sender.send_request(request.body(Body::empty()).unwrap());
    let response = soon("the answer begins", response).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// Begins one request after the other. None has an answer that must wait for a window.
async fn keep_going(served: &Served, mut sender: SendRequest<Body>) {
    loop {
        drop(ask(served, &mut sender, "/").await);
        tokio::time::sleep(SOON / 10).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_reset_alone_whatever_else_goes_on() {
    let limits = Limits { header_timeout: SOON, stall_timeout: 2 * SOON, ..patient() };
    let served = Arc::new(Served::start(limits).await);
    let (mut sender, connection) = connect(&served, 0).await;
    let begun = tokio::time::Instant::now();
    let mut refused = Vec::new();
    for path in ["/", "/large", "/endless", "/beats"] {
        refused.push((path, ask(&served, &mut sender, path).await));
    }
    let going = tokio::spawn({
        let (served, sender) = (Arc::clone(&served), sender.clone());
        async move { keep_going(&served, sender).await }
    });
    for (path, mut body) in refused {
        let error = soon(path, body.frame()).await.expect("it has not ended").unwrap_err();
        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(reason.ends_with("stream no longer needed"), "{path}: reset with CANCEL, and not {reason}");
        assert!(begun.elapsed() >= 2 * SOON, "{path}: given up before its time");
    }
    assert!(!connection.is_finished() && !going.is_finished(), "the connection goes on");
}

#[tokio::test]
async fn an_answer_after_a_long_pause_has_no_more_time() {
    let limits = Limits { header_timeout: SOON, stall_timeout: 2 * SOON, idle_timeout: LONG, ..patient() };
    let served = Served::start(limits).await;
    let (mut sender, _connection) = connect(&served, 0).await;
    drop(ask(&served, &mut sender, "/").await);
    // The connection's task now means to look again when its idle time is over.
    tokio::time::sleep(3 * SOON).await;
    let mut body = ask(&served, &mut sender, "/endless").await;
    assert!(soon("it is reset", body.frame()).await.expect("it has not ended").is_err());
}

#[tokio::test]
async fn an_answer_that_was_begun_to_be_taken_ends_where_it_stops() {
    let limits = Limits { header_timeout: SOON, stall_timeout: 2 * SOON, ..patient() };
    let served = Arc::new(Served::start(limits).await);
    let (mut sender, connection) = connect(&served, 1).await;
    let mut endless = ask(&served, &mut sender, "/endless").await;
    let going = tokio::spawn({
        let (served, sender) = (Arc::clone(&served), sender.clone());
        async move { keep_going(&served, sender).await }
    });
    let is_reset = async {
        while let Some(Ok(_)) = endless.frame().await {
            tokio::time::sleep(SOON / 10).await;
        }
    };
    let in_vain = tokio::time::timeout(4 * SOON, is_reset).await;
    assert!(in_vain.is_err(), "it is taken, though slowly");
    tokio::time::sleep(3 * SOON).await;
    let is_reset = async { while let Some(Ok(_)) = endless.frame().await {} };
    soon("it is reset", is_reset).await;
    assert!(!connection.is_finished() && !going.is_finished(), "the connection goes on");

    // All of this one was given to the connection, and nothing but the connection can be ended any more.
    let short = ask(&served, &mut sender, "/").await;
    let _ = soon("the connection ends", connection).await.unwrap();
    drop(short);
    going.abort();
}

#[tokio::test]
async fn an_answer_that_is_taken_byte_by_byte_is_given_whole() {
    let served = Served::start(Limits { header_timeout: SOON, stall_timeout: SOON, ..patient() }).await;
    let (mut sender, _connection) = connect(&served, 1).await;
    let mut body = ask(&served, &mut sender, "/").await;
    let mut taken = Vec::new();
    while let Some(frame) = soon("more of the answer", body.frame()).await {
        taken.extend(frame.unwrap().into_data().unwrap());
        tokio::time::sleep(SOON / 2).await;
    }
    assert_eq!(taken, b"hello");
}
