//! A stand-in for Cloud Storage that opens sessions and nothing else, so fast that it is not what is measured.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, LOCATION};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The bucket that all sessions are for.
pub(crate) const BUCKET: &str = "media-eu";

/// Serves on a free port until the process is killed.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::announce(listener.local_addr()?)?;
    let sessions = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        let sessions = Arc::clone(&sessions);
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, Arc::clone(&sessions)));
            // Ends with an error when the client goes away, which concerns nobody.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// The answer to an initiation in the JSON form: `200`, no body, and a `Location` that repeats the query and adds an
/// `upload_id` of the length that storage gives (storage documentation, "Resumable uploads").
async fn answer(request: Request<Incoming>, sessions: Arc<AtomicU64>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // Read to the end, or the connection could not be used again.
    let read = body.collect().await.is_ok();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let mut response = Response::new(Empty::new());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    let location = match (&head.method, host, head.uri.path_and_query()) {
        (&Method::POST, Some(host), Some(target)) if read && target.path().starts_with("/upload/storage/v1/b/") => {
            let session = sessions.fetch_add(1, Ordering::Relaxed);
            HeaderValue::try_from(format!("http://{host}{target}&upload_id=ABPnzm{session:0>174x}")).ok()
        }
        _ => None,
    };
    match location {
        Some(location) => {
            response.headers_mut().insert(LOCATION, location);
        }
        None => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}
