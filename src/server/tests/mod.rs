//! Listeners on loopback, and clients that misbehave.

mod connections;
mod draining;
mod requests;
mod secured;
mod windows;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::routing::{get, post};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{BodyTimedOut, Drained, Limits, Listener, Peer, TlsCertificate};

/// Shorter than any test would wait, longer than any answer takes.
const SOON: Duration = Duration::from_millis(250);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// Where a trusted proxy is.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What a silent client would run into only after the test has failed.
fn patient() -> Limits {
    Limits {
        connections: 100,
        tls_handshake_timeout: LONG,
        header_timeout: LONG,
        body_timeout: LONG,
        write_timeout: LONG,
        stall_timeout: LONG,
        idle_timeout: LONG,
        proxy_idle_timeout: LONG,
        closing_timeout: LONG,
        drain: LONG,
        ..Limits::default()
    }
}

/// A listener that serves, and the handles that its tests pull.
struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Drained>,
    /// Told by `/wait` when it has begun.
    begun: Arc<Semaphore>,
    /// Lets `/wait` answer.
    release: Arc<Notify>,
}

impl Served {
    async fn start(limits: Limits) -> Self {
        Self::start_with(limits, None).await
    }

    async fn start_with(limits: Limits, tls: Option<TlsCertificate>) -> Self {
        let (begun, release) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let wait = {
            let (begun, release) = (Arc::clone(&begun), Arc::clone(&release));
            move || async move {
                begun.add_permits(1);
                release.notified().await;
                "waited"
            }
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route(
                "/peer",
                get(|Extension(peer): Extension<Peer>| async move { format!("{} {}", peer.address, peer.tls) }),
            )
            .route("/wait", get(wait))
            .route("/large", get(|| async { Bytes::from(vec![0; 32 << 20]) }))
            .route("/endless", get(|| async { Body::new(Endless) }))
            .route(
                "/beats",
                get(|| async { Body::new(Beats { left: 12, next: Box::pin(tokio::time::sleep(SOON / 2)) }) }),
            )
            .route("/echo", post(echo))
            .route(
                "/late-echo",
                post(|request| async {
                    tokio::time::sleep(2 * SOON).await;
                    echo(request).await
                }),
            );
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), tls, limits).await.unwrap();
        let address = listener.local_addr();
        let listener = listener.with_proxies(|address| address == PROXY);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(listener.serve(move || router.clone(), shutdown.clone()));
        Self { address, shutdown, task, begun, release }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// A connection of the trusted proxy.
    async fn connect_by_proxy(&self) -> Client {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((PROXY, 0).into()).unwrap();
        Client(socket.connect(self.address).await.unwrap())
    }

    /// Waits until `/wait` has begun once more.
    async fn request_under_way(&self) {
        soon("the request begins", self.begun.acquire()).await.unwrap().forget();
    }

    async fn drained(self) -> Drained {
        soon("the listener drains", self.task).await.unwrap()
    }
}

/// A body in parts, of which there is always one more.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 16 * 1024])))))
    }
}

/// A body of so many bytes, one after each pause.
struct Beats {
    left: usize,
    next: Pin<Box<tokio::time::Sleep>>,
}

impl hyper::body::Body for Beats {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::ready!(self.next.as_mut().poll(cx));
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.next = Box::pin(tokio::time::sleep(SOON / 2));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}

async fn echo(request: axum::extract::Request) -> Result<Bytes, StatusCode> {
    axum::body::to_bytes(request.into_body(), 1 << 20).await.map_err(|error| {
        if BodyTimedOut::caused(&error) { StatusCode::REQUEST_TIMEOUT } else { StatusCode::BAD_REQUEST }
    })
}

/// A client that writes what it likes.
struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// What comes until the server closes; a reset closes, too.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = soon("the server closes", self.0.read_to_end(&mut bytes)).await;
        String::from_utf8(bytes).unwrap()
    }

    /// What comes until `end` is seen.
    async fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let byte = soon("an answer comes", self.0.read_u8()).await;
            text.push(char::from(byte.unwrap_or_else(|error| panic!("{error} after {text:?}"))));
        }
        text
    }

    /// Asks for `/` and leaves the connection open.
    async fn greet(&mut self) {
        self.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(self.until("hello").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

/// What the future gives; a test that waits for ever fails here instead.
async fn soon<F: IntoFuture>(what: &str, future: F) -> F::Output {
    let outcome = tokio::time::timeout(Duration::from_secs(10), future).await;
    outcome.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
