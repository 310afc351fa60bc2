//! What a request must pass before anything is done for it: load, transport, representation, and a deadline.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::arrival::TrustedProxies;
use super::events;
use super::problem::{Code, Problem};
use crate::server::Peer;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether session URIs may be given over plain HTTP to this machine itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS, by the broker or by a trusted proxy.
    HttpsOnly,
    /// Also plain HTTP between loopback addresses: for development.
    PlainOnLoopback,
}

/// What the layer needs.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Whose `x-forwarded-proto` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether plain HTTP will do.
    pub transport: Transport,
    /// One permit for each request that may be answered at once.
    pub permits: Arc<Semaphore>,
    /// How long a request may take.
    pub patience: Duration,
}

/// When the request must be answered. Operations on storage take no longer.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// Lets a request in, or refuses it at once.
///
/// # Errors
/// The refusal: there is too much to do, the connection can be read along, what the answer would be written in is not
/// acceptable, or time ran out.
pub async fn gate(State(gate): State<Gate>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let Ok(_permit) = gate.permits.try_acquire() else {
        return Err(Problem::new(Code::Overloaded).retry_after(Duration::from_secs(1)));
    };
    let peer = request.extensions().get::<Peer>().copied();
    if !peer.is_some_and(|peer| gate.is_private(peer, request.headers())) {
        return Err(Problem::new(Code::HttpsRequired).detail("call this over HTTPS"));
    }
    let form = Form::of(&request);
    if !form.is_accepted(request.headers()) {
        let detail = format!("answers are {}; accept that", form.media_ranges()[0]);
        return Err(Problem::new(Code::NotAcceptable).detail(detail));
    }
    let deadline = Instant::now() + gate.patience;
    let late = late(request.method(), path(&request), request.uri().query());
    request.extensions_mut().insert(Deadline(deadline));
    // Both end with the head of the answer: a stream of events is bounded by those who listen, not by this.
    match tokio::time::timeout_at(deadline, next.run(request)).await {
        Ok(mut response) => {
            // Answers are one caller's own, and most hold a session URI.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        Err(_) => Err(Problem::new(late).retry_after(Duration::from_secs(5))),
    }
}

/// What to call it when time runs out: by whom the operation waits for. Most changes need storage; replaying deliveries and
/// reading are matters of the store, but for a look at storage that was asked for.
fn late(method: &Method, path: Option<&str>, query: Option<&str>) -> Code {
    let refreshes = || query.is_some_and(|query| query.split('&').any(|pair| pair == "refresh=true"));
    match (method, path) {
        // They wait for nobody, so too much is going on.
        (&Method::GET, Some("/v1/route" | "/v1/admin/webhooks")) => Code::Overloaded,
        (&Method::GET, Some("/v1/uploads/{id}")) if refreshes() => Code::StorageTimeout,
        (&Method::POST, Some(path)) if path.starts_with("/v1/admin/webhooks/") => Code::StoreUnavailable,
        (&Method::GET, _) => Code::StoreUnavailable,
        _ => Code::StorageTimeout,
    }
}

/// The route that the request has come to.
fn path(request: &Request) -> Option<&str> {
    request.extensions().get::<MatchedPath>().map(MatchedPath::as_str)
}

impl Gate {
    /// Whether nobody between the client and the broker can read along.
    fn is_private(&self, peer: Peer, headers: &HeaderMap) -> bool {
        let address = peer.address.ip().to_canonical();
        // A proxy that speaks TLS to us may have been spoken to in the clear: what it says of that comes first.
        if self.trusted_proxies.include(address)
            && let Some(secured) = forwarded_over_https(headers)
        {
            return secured;
        }
        peer.tls || (self.transport == Transport::PlainOnLoopback && address.is_loopback())
    }
}

/// Whether every hop that the proxies speak of was HTTPS, if they speak of any.
pub(super) fn forwarded_over_https(headers: &HeaderMap) -> Option<bool> {
    let mut hops = headers
        .get_all(FORWARDED_PROTO)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .peekable();
    hops.peek()?;
    Some(hops.all(|protocol| protocol.eq_ignore_ascii_case("https")))
}

/// What the answer to a request is written in, where it is no problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    EventStream,
}

impl Form {
    fn of(request: &Request) -> Self {
        if path(request) == Some(events::PATH) { Self::EventStream } else { Self::Json }
    }

    /// What a client may accept to be given this; its own name comes first.
    const fn media_ranges(self) -> &'static [&'static str] {
        match self {
            Self::Json => &["application/json", "application/problem+json", "application/*", "*/*"],
            Self::EventStream => &["text/event-stream", "text/*", "*/*"],
        }
    }

    /// Whether the client can take it (RFC 9110, section 12.5.1).
    fn is_accepted(self, headers: &HeaderMap) -> bool {
        let mut ranges = headers
            .get_all(ACCEPT)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .map(str::trim)
            .filter(|range| !range.is_empty())
            .peekable();
        ranges.peek().is_none()
            || ranges.any(|range| {
                let (essence, parameters) = range.split_once(';').unwrap_or((range, ""));
                let essence = essence.trim().to_ascii_lowercase();
                let refused =
                    parameters.split(';').map(str::trim).any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
                self.media_ranges().contains(&&essence[..]) && !refused
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Transport::{HttpsOnly, PlainOnLoopback};
    use super::*;
    use axum::body::Body;
    use axum::routing::any;
    use tokio::io::AsyncWriteExt as _;
    use tokio_util::io::ReaderStream;
    use tower::ServiceExt as _;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_what_nobody_can_read_along_is_private() {
        let gate = |transport| Gate {
            trusted_proxies: TrustedProxies(["10.0.0.0/8".parse().unwrap()].into()),
            transport,
            permits: Arc::new(Semaphore::new(1)),
            patience: Duration::from_secs(1),
        };
        let forwarded = headers(&[(FORWARDED_PROTO, "https")]);
        let mixed = headers(&[(FORWARDED_PROTO, "https, http")]);
        let clear = headers(&[(FORWARDED_PROTO, "http")]);
        let nothing = HeaderMap::new();
        for (name, transport, address, tls, headers, expected) in [
            ("TLS", HttpsOnly, "203.0.113.7:1", true, &nothing, true),
            ("plain", HttpsOnly, "203.0.113.7:1", false, &nothing, false),
            ("plain from loopback", HttpsOnly, "127.0.0.1:1", false, &nothing, false),
            ("plain from loopback in development", PlainOnLoopback, "127.0.0.1:1", false, &nothing, true),
            ("plain from IPv6 loopback in development", PlainOnLoopback, "[::1]:1", false, &nothing, true),
            ("plain from elsewhere in development", PlainOnLoopback, "203.0.113.7:1", false, &nothing, false),
            ("a trusted proxy that had HTTPS", HttpsOnly, "10.1.2.3:1", false, &forwarded, true),
            ("the same, written as IPv6", HttpsOnly, "[::ffff:10.1.2.3]:1", false, &forwarded, true),
            ("a trusted proxy that says nothing", HttpsOnly, "10.1.2.3:1", false, &nothing, false),
            ("a trusted proxy behind a plain hop", HttpsOnly, "10.1.2.3:1", false, &mixed, false),
            ("a trusted proxy with TLS behind a plain hop", HttpsOnly, "10.1.2.3:1", true, &clear, false),
            ("the same behind two", HttpsOnly, "10.1.2.3:1", true, &mixed, false),
            ("a trusted proxy with TLS that says nothing", HttpsOnly, "10.1.2.3:1", true, &nothing, true),
            ("a trusted proxy in development behind a plain hop", PlainOnLoopback, "10.1.2.3:1", false, &clear, false),
            ("anyone with TLS who claims plain HTTP", HttpsOnly, "203.0.113.7:1", true, &clear, true),
            ("anyone who claims HTTPS", HttpsOnly, "203.0.113.7:1", false, &forwarded, false),
        ] {
            let peer = Peer { address: address.parse().unwrap(), tls };
            assert_eq!(gate(transport).is_private(peer, headers), expected, "{name}");
        }
    }

    const REPLAY: &str = "/v1/admin/webhooks/{name}/replay";

    fn open_gate(permits: usize) -> Gate {
        Gate {
            trusted_proxies: TrustedProxies([].into()),
            transport: HttpsOnly,
            permits: Arc::new(Semaphore::new(permits)),
            patience: Duration::from_secs(1),
        }
    }

    /// What the gate answers to a request that is private, and whose handler does `work` first.
    async fn ask(gate: Gate, method: Method, target: &str, work: Duration) -> Response {
        send(gate, async move || tokio::time::sleep(work).await, method, target).await
    }

    async fn send<H, T>(gate: Gate, handler: H, method: Method, target: &str) -> Response
    where
        H: axum::handler::Handler<T, ()>,
        T: 'static,
    {
        let layer = axum::middleware::from_fn_with_state(gate, super::gate);
        let router = axum::Router::new().route("/", any(handler.clone())).route(REPLAY, any(handler)).layer(layer);
        let mut request = Request::builder().method(method).uri(target).body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer { address: "203.0.113.7:1".parse().unwrap(), tls: true });
        router.oneshot(request).await.unwrap()
    }

    fn code(response: &Response) -> Option<Code> {
        response.extensions().get::<Problem>().map(Problem::code)
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_too_many_is_refused_before_anything_is_done() {
        let gate = open_gate(0);
        let response = ask(gate.clone(), Method::GET, "/", Duration::ZERO).await;
        assert_eq!(code(&response), Some(Code::Overloaded));
        gate.permits.add_permits(1);
        for round in 0..2 {
            let response = ask(gate.clone(), Method::GET, "/", Duration::ZERO).await;
            assert_eq!(code(&response), None, "the permit is given back, round {round}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_holds_no_permit_and_outlives_the_deadline() {
        let gate = open_gate(1);
        let stream = async || {
            let (reading, mut writing) = tokio::io::duplex(64);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                writing.write_all(b"alive").await
            });
            Body::from_stream(ReaderStream::new(reading))
        };
        let response = send(gate.clone(), stream, Method::GET, "/").await;
        assert_eq!(gate.permits.available_permits(), 1);
        assert_eq!(axum::body::to_bytes(response.into_body(), 64).await.unwrap(), "alive");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_has_waited_for_the_route_s_own_reason() {
        for (method, target, expected) in [
            (Method::POST, "/", Code::StorageTimeout),
            (Method::GET, "/", Code::StoreUnavailable),
            (Method::POST, "/v1/admin/webhooks/backend/replay", Code::StoreUnavailable),
        ] {
            let response = ask(open_gate(1), method.clone(), target, Duration::from_secs(2)).await;
            assert_eq!(code(&response), Some(expected), "{method} {target}");
        }
    }

    /// By the document, an operation that can answer `storage-timeout` asks storage, and no other does.
    #[test]
    fn what_a_late_answer_is_called_is_what_the_document_says() {
        let (_, document) = super::super::openapi::operations();
        let mut asking_storage = 0;
        for (path, item) in &document.paths.paths {
            for (method, operation) in
                [(Method::GET, &item.get), (Method::POST, &item.post), (Method::DELETE, &item.delete)]
            {
                let Some(operation) = operation else { continue };
                let late = late(&method, Some(path), Some("limit=1&refresh=true"));
                let asks_storage = operation.responses.responses.contains_key("504");
                assert_eq!(late == Code::StorageTimeout, asks_storage, "{method} {path}: {late:?}");
                asking_storage += usize::from(asks_storage);
            }
        }
        assert_eq!(asking_storage, 7);
        for (name, method, path, query, expected) in [
            ("not refreshed", Method::GET, "/v1/uploads/{id}", None, Code::StoreUnavailable),
            ("nor here", Method::GET, "/v1/uploads/{id}", Some("refresh=false"), Code::StoreUnavailable),
            ("read from the store", Method::GET, "/v1/policies", None, Code::StoreUnavailable),
            ("asks nobody", Method::GET, "/v1/route", None, Code::Overloaded),
            ("asks nobody, either", Method::GET, "/v1/admin/webhooks", None, Code::Overloaded),
        ] {
            assert_eq!(late(&method, Some(path), query), expected, "{name}");
        }
    }

    #[test]
    fn what_is_answered_must_be_acceptable() {
        for (accept, json, events) in [
            (None, true, true),
            (Some("*/*"), true, true),
            (Some("application/json"), true, false),
            (Some("text/event-stream"), false, true),
            (Some("text/html, application/*;q=0.8"), true, false),
            (Some("application/xml, text/*;q=0.8"), false, true),
            (Some("Application/JSON"), true, false),
            (Some("Text/Event-Stream"), false, true),
            (Some(""), true, true),
            (Some("text/html"), false, false),
            (Some("application/json;q=0"), false, false),
            (Some("text/event-stream;q=0"), false, false),
            (Some("application/xml"), false, false),
        ] {
            let headers: HeaderMap = accept.map(|value| (ACCEPT, value.parse().unwrap())).into_iter().collect();
            assert_eq!(Form::Json.is_accepted(&headers), json, "JSON for {accept:?}");
            assert_eq!(Form::EventStream.is_accepted(&headers), events, "events for {accept:?}");
        }
    }
}
