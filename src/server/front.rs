//! Each request before the router: whom it came from, whether it can be read in two ways, and how long its body may
//! take.
//!
//! What is refused here could mean one thing to us and another to a proxy before us (RFC 9112, sections 3.2, 6.1 and
//! 11.2; RFC 9113, section 8.3.1), so the answer does not go through the router, and the connection is closed.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use super::framing::Coded;
use crate::clock::Randomness;

/// Where a request came from; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the connection: the client, or a proxy.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

/// A request's body did not arrive in time. The error of the request's body, to be answered with 408.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's body did not arrive in time")]
pub struct BodyTimedOut;

impl BodyTimedOut {
    /// Whether `error` is this one, or was caused by it.
    pub fn caused(error: &(dyn Error + 'static)) -> bool {
        std::iter::successors(Some(error), |error| (*error).source()).any(<dyn Error>::is::<Self>)
    }
}

/// Refuses the request or gives it to the router.
pub(super) async fn answer(
    mut request: Request<Incoming>,
    peer: Peer,
    coded: Option<Coded>,
    router: Router,
    body_timeout: Duration,
) -> Response<Body> {
    let version = request.version();
    let mut response = match check(version, request.uri(), request.headers(), coded) {
        Ok(()) => {
            request.extensions_mut().insert(peer);
            let deadline = Instant::now() + body_timeout;
            let request = request.map(|body| timed(body, deadline));
            match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(fault) => refusal(fault),
    };
    // HTTP/2 has no such field. There a stream is refused alone: its framing cannot be mistaken.
    if version < Version::HTTP_2 && (coded.is_some() || response.extensions().get::<Refused>().is_some()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A part of a request, and what is wrong with it.
type Fault = (&'static str, &'static str);

/// Why the request could be read in two ways, if it could.
fn check(version: Version, target: &Uri, headers: &HeaderMap, coded: Option<Coded>) -> Result<(), Fault> {
    let host_form = ("Host", "must name a host, and perhaps a port");
    if coded.is_some_and(|coded| coded.with_length) {
        return Err(("Transfer-Encoding", "excludes Content-Length"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err(("Transfer-Encoding", "must be chunked, once")),
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => return Err(("Host", "is missing")),
        (None, _) if version == Version::HTTP_2 && target.authority().is_none() => {
            return Err((":authority", "is missing"));
        }
        (None, _) => return Ok(()),
        (Some(_), Some(_)) => return Err(("Host", "must be there only once")),
        (Some(host), None) => host,
    };
    let host: Authority = match host.to_str().map(str::parse) {
        Ok(Ok(host)) => host,
        _ => return Err(host_form),
    };
    if host.as_str().contains('@') {
        return Err(host_form);
    }
    match target.authority() {
        Some(authority) if !same_authority(authority, &host, target.scheme()) => {
            Err(("Host", "must name the same host as the request's target"))
        }
        _ => Ok(()),
    }
}

/// Whether both name the same host and port, where the scheme's default port may be left out.
fn same_authority(one: &Authority, other: &Authority, scheme: Option<&Scheme>) -> bool {
    let default = match scheme {
        Some(scheme) if *scheme == Scheme::HTTPS => Some(443),
        Some(scheme) if *scheme == Scheme::HTTP => Some(80),
        _ => None,
    };
    let port = |authority: &Authority| authority.port_u16().or(default);
    !one.as_str().contains('@') && one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

/// Marks the answers of this module.
#[derive(Clone, Copy)]
struct Refused;

/// The problem document (RFC 9457) for a request that the router never sees.
/// It has the form of those that the router gives.
fn refusal((pointer, detail): Fault) -> Response<Body> {
    let id = u64::from_be_bytes(Randomness::System.bytes());
    let id = format!("{id:016x}");
    let problem = serde_json::json!({
        "type": "urn:upload-broker:problem:invalid-request",
        "title": "The request is malformed",
        "status": 400,
        "detail": format!("{pointer}: {detail}"),
        "code": "invalid-request",
        "request_id": id,
        "errors": [{ "pointer": pointer, "detail": detail }],
    });
    let mut response = Response::new(Body::from(problem.to_string()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response.extensions_mut().insert(Refused);
    response
}

fn timed(body: Incoming, deadline: Instant) -> Body {
    if hyper::body::Body::is_end_stream(&body) {
        Body::empty()
    } else {
        Body::new(Timed { body: Some(body), deadline, timer: None })
    }
}

/// How long a body may keep its reader waiting that begins to read after the deadline: what lies in the socket is not
/// late, and HTTP/1 fetches it only when it is asked for.
const FETCH: Duration = Duration::from_millis(100);

/// A request's body that fails with [`BodyTimedOut`] when its reader has to wait for it at its deadline.
///
/// What is there is given after the deadline, too: a handler may take long before it reads. A client that sends faster
/// than the handler reads is not slow, and the handler's own limit ends its body.
struct Timed {
    /// `None` after the error, so that nothing more is read.
    body: Option<Incoming>,
    deadline: Instant,
    /// Runs from the first time that the body keeps its reader waiting; most bodies come with their header.
    timer: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for Timed {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = this.deadline;
        // Set once, so that a client that sends byte by byte gets no more time.
        let timer =
            this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.max(Instant::now() + FETCH))));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.body = None;
        Poll::Ready(Some(Err(BodyTimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, the version, the target, the fields, what the scanner found, and whether the request is accepted.
    type Row = (&'static str, Version, &'static str, &'static [(&'static str, &'static str)], Option<Coded>, bool);

    #[test]
    fn requests_that_can_be_read_in_two_ways_are_refused() {
        let with_length = Some(Coded { request: 0, with_length: true });
        let without = Some(Coded { request: 0, with_length: false });
        let (h1, h10, h2) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
        let rows: &[Row] = &[
            ("a plain request", h1, "/", &[("host", "a.example")], None, true),
            ("no Host", h1, "/", &[], None, false),
            ("no Host before HTTP/1.1", h10, "/", &[], None, true),
            ("two Hosts", h1, "/", &[("host", "a.example"), ("host", "a.example")], None, false),
            ("an empty Host", h1, "/", &[("host", "")], None, false),
            ("a Host with a path", h1, "/", &[("host", "a.example/x")], None, false),
            ("a Host with a user", h1, "/", &[("host", "a@a.example")], None, false),
            ("a Host with a port", h1, "/", &[("host", "a.example:8443")], None, true),
            ("absolute form", h1, "http://a.example/", &[("host", "a.example")], None, true),
            ("absolute form, other case", h1, "http://A.example/", &[("host", "a.Example")], None, true),
            ("absolute form, default port", h1, "http://a.example:80/", &[("host", "a.example")], None, true),
            ("absolute form, other host", h1, "http://b.example/", &[("host", "a.example")], None, false),
            ("absolute form, other port", h1, "http://a.example:81/", &[("host", "a.example")], None, false),
            ("absolute form, a user", h1, "http://a@a.example/", &[("host", "a.example")], None, false),
            ("chunked", h1, "/", &[("host", "a"), ("transfer-encoding", "chunked")], without, true),
            ("Chunked", h1, "/", &[("host", "a"), ("transfer-encoding", "Chunked")], without, true),
            ("another coding", h1, "/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")], without, false),
            (
                "chunked twice",
                h1,
                "/",
                &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                without,
                false,
            ),
            ("two framings", h1, "/", &[("host", "a"), ("transfer-encoding", "chunked")], with_length, false),
            ("HTTP/2", h2, "https://a.example/", &[], None, true),
            ("HTTP/2 without an authority", h2, "/", &[], None, false),
            ("HTTP/2 with a Host", h2, "https://a.example/", &[("host", "a.example")], None, true),
            ("HTTP/2 with another Host", h2, "https://a.example/", &[("host", "b.example")], None, false),
        ];
        for (name, version, target, fields, coded, accepted) in rows {
            let mut headers = HeaderMap::new();
            for (field, value) in *fields {
                headers.append(*field, HeaderValue::from_static(value));
            }
            let outcome = check(*version, &Uri::from_static(target), &headers, *coded);
            assert_eq!(outcome.is_ok(), *accepted, "{name}: {outcome:?}");
        }
    }

    #[test]
    fn a_timed_out_body_is_recognised_through_its_wrappers() {
        let wrapped = axum::Error::new(axum::Error::new(BodyTimedOut));
        assert!(BodyTimedOut::caused(&wrapped));
        assert!(!BodyTimedOut::caused(&std::io::Error::other("something else")));
    }
}
