//! Storage as it is in production: TLS and HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;

#[tokio::test]
async fn calls_are_spread_over_a_few_connections() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (config, authority) = scripted::tls(&[b"h2"]);
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let counter = Arc::clone(&connections);
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut served = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
            served.spawn(async move {
                let socket = acceptor.accept(socket).await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service_fn(resume_incomplete));
                // It ends when the client goes, in whatever way.
                let _ = connection.await;
            });
        }
    }));

    let trusting = Options { trusted_ca: vec![authority], ..options() };
    let storage = Storage::open_with(&settings(&endpoint, Duration::from_secs(5)), trusting, QUICK).await.unwrap();
    let session = SessionUri::parse(&format!("{endpoint}/upload?name=a%2Fb&upload_id=s3cret")).unwrap();
    for _ in 0..20 {
        assert_eq!(storage.look(&session, soon()).await.unwrap(), Progress::Persisted(ByteCount(7)));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 4);
}

/// Answers a look of the right form with seven bytes.
async fn resume_incomplete(request: hyper::Request<Incoming>) -> Result<hyper::Response<Empty<Bytes>>, Infallible> {
    let right = request.version() == hyper::Version::HTTP_2
        && request.uri().path_and_query().is_some_and(|target| target == "/upload?name=a%2Fb&upload_id=s3cret")
        && request.headers().get("content-range").is_some_and(|range| range == "bytes */*")
        && !request.headers().contains_key("authorization");
    let mut response = hyper::Response::new(Empty::new());
    *response.status_mut() = hyper::StatusCode::from_u16(if right { 308 } else { 400 }).unwrap();
    response.headers_mut().insert("range", "bytes=0-6".parse().unwrap());
    Ok(response)
}
