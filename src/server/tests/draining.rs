//! Listeners that close.

use super::*;

#[tokio::test]
async fn draining_lets_requests_finish_and_nothing_else_begin() {
    let served = Served::start(patient()).await;
    let (mut busy, mut idle, mut silent) = (served.connect().await, served.connect().await, served.connect().await);
    idle.greet().await;
    silent.send("GET /").await;
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    served.request_under_way().await;

    served.shutdown.cancel();
    assert_eq!(idle.rest().await, "", "an idle connection is closed");
    drop(silent);
    let address = served.address;
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    soon("new connections are refused", refused).await;
    assert!(!served.task.is_finished(), "the request is still under way");

    served.release.notify_one();
    let answer = busy.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("waited"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    let drained = served.drained().await;
    assert_eq!((drained.finished, drained.cut), (3, 0), "{drained:?}");
    assert!(drained.took < LONG);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    let served = Served::start(Limits { drain: SOON, ..patient() }).await;
    let mut stuck = served.connect().await;
    stuck.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    served.request_under_way().await;
    served.shutdown.cancel();
    assert_eq!(stuck.rest().await, "");
    let drained = served.drained().await;
    assert_eq!((drained.finished, drained.cut), (0, 1), "{drained:?}");
    assert!(drained.took >= SOON);
}

#[tokio::test]
async fn half_a_header_does_not_hold_the_drain_up() {
    let served = Served::start(Limits { closing_timeout: SOON, ..patient() }).await;
    let mut client = served.connect().await;
    client.greet().await;
    client.send("GET / HTTP/1.1\r\nX: ").await;
    tokio::time::sleep(SOON / 2).await;
    served.shutdown.cancel();
    assert_eq!(served.drained().await.cut, 0);
}

#[tokio::test]
async fn http_2_streams_finish_while_draining() {
    let served = Served::start(patient()).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let url = format!("http://{}/wait", served.address);
    let response = tokio::spawn(client.get(url).send());
    served.request_under_way().await;
    served.shutdown.cancel();
    served.release.notify_one();
    let response = soon("the answer", response).await.unwrap().unwrap();
    assert_eq!(response.version(), axum::http::Version::HTTP_2);
    assert_eq!(response.text().await.unwrap(), "waited");
    assert_eq!(served.drained().await.cut, 0);
}

#[tokio::test]
async fn nothing_to_drain_takes_no_time() {
    let served = Served::start(patient()).await;
    served.shutdown.cancel();
    let drained = served.drained().await;
    assert_eq!((drained.finished, drained.cut), (0, 0));
}
