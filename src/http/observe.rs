//! The outermost layer: every request gets an id, is counted and timed, and its refusal is written out.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tracing::{Instrument as _, Span, debug, error_span};

use super::problem::{Code, Problem};
use super::{docs, gate};
use crate::clock::Randomness;
use crate::server::Peer;
use crate::telemetry::Traceparent;
use crate::telemetry::trace::{self, Active, Kind, Origin, Tracer};

/// Names a request in logs and answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Upper bounds of the duration histogram, in seconds: those of the HTTP semantic conventions of OpenTelemetry.
const DURATION_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Durations and numbers of requests.
#[derive(Debug)]
pub struct Metrics {
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    under_way: Gauge<i64, AtomicI64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the names are those of the HTTP semantic conventions")]
struct RequestLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            under_way: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "http_server_request_duration",
            "Time from the head of a request to the head of its response",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register("http_server_active_requests", "Requests being answered", self.under_way.clone());
    }

    /// How many requests are being answered.
    pub fn under_way(&self) -> i64 {
        self.under_way.get()
    }
}

/// What the layer needs.
#[derive(Clone)]
pub struct Observer {
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// Makes request ids.
    pub randomness: Randomness,
    /// Where requests are traced, if they are.
    pub tracing: Option<Tracing>,
}

/// What spans of requests are made of.
#[derive(Clone)]
pub struct Tracing {
    /// Begins traces.
    pub tracer: Arc<Tracer>,
    /// The networks whose `traceparent` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The host that clients know: not what they say in `Host`.
    pub server_address: Arc<str>,
}

impl Tracing {
    /// The span of a request, with the attributes of the HTTP semantic conventions that cannot hold a secret: neither
    /// path nor query, no header, no address.
    fn begin(&self, request: &Request, method: &'static str, route: Option<&str>, id: &RequestId) -> Active {
        let peer = request.extensions().get::<Peer>().copied();
        let address = peer.map(|peer| peer.address.ip().to_canonical());
        let trusted = address.is_some_and(|address| self.trusted_proxies.iter().any(|net| net.contains(&address)));
        let origin = match Traceparent::of(request.headers()) {
            Some(caller) if trusted => Origin::Continued(caller),
            Some(caller) => Origin::Linked(caller),
            None => Origin::Here,
        };
        // Conventions: "{method} {route}", or "HTTP" for a method of the client's making.
        let method_name = if method == OTHER_METHOD { "HTTP" } else { method };
        let name = route.map_or_else(|| method_name.to_owned(), |route| format!("{method_name} {route}"));
        let span = self.tracer.begin(origin, name, Kind::Server);
        span.record("http.request.method", method);
        if let Some(route) = route {
            span.record("http.route", route.to_owned());
        }
        let forwarded = trusted.then(|| gate::forwarded_over_https(request.headers())).flatten();
        let secured = forwarded.unwrap_or(peer.is_some_and(|peer| peer.tls));
        span.record("url.scheme", if secured { "https" } else { "http" });
        span.record("server.address", self.server_address.to_string());
        span.record("network.protocol.version", if request.version() == Version::HTTP_2 { "2" } else { "1.1" });
        span.record("request.id", id.as_str().to_owned());
        span
    }
}

/// Counts one request for as long as it lives, also when its client goes away.
struct UnderWay<'a>(&'a Gauge<i64, AtomicI64>);

impl<'a> UnderWay<'a> {
    fn enter(gauge: &'a Gauge<i64, AtomicI64>) -> Self {
        gauge.inner().fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.inner().fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says of a response that the broker of another region has made it, under this id.
#[derive(Clone, Debug)]
pub struct AnsweredElsewhere(pub HeaderValue);

/// Wraps the whole router. The id is always made here: one that a client chose could forge another request's lines.
pub async fn observe(State(observer): State<Observer>, request: Request, next: Next) -> Response {
    let id = RequestId::new(observer.randomness.bytes());
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let traced = observer.tracing.as_ref().map(|tracing| tracing.begin(&request, method, route, &id));
    // Of the highest level, so that no filter takes the ids from the lines of errors.
    let span = if let Some(traced) = &traced {
        let (trace_id, span_id) = (traced.trace_id(), traced.span_id());
        error_span!("request", request.id = id.as_str(), %trace_id, %span_id)
    } else {
        error_span!("request", request.id = id.as_str())
    };
    let seen = Seen { id, method, route: route.unwrap_or("unmatched"), span };
    trace::run(traced, answer(&observer.metrics, seen, request, next)).await
}

/// What is known of a request before it is answered.
struct Seen<'a> {
    id: RequestId,
    method: &'static str,
    route: &'a str,
    span: Span,
}

async fn answer(metrics: &Metrics, seen: Seen<'_>, request: Request, next: Next) -> Response {
    let Seen { id, method, route, span } = seen;
    let begun = Instant::now();
    let _under_way = UnderWay::enter(&metrics.under_way);
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // What the client got wrong is no failure of the server's (HTTP semantic conventions, "Status").
        if problem.code().status().is_server_error() {
            trace::fail(problem.code().as_str());
        }
        let outer = std::mem::take(response.headers_mut());
        if problem.code() == Code::InternalError {
            tracing::error!(parent: &span, "the request failed because of a defect");
        }
        let mut rendered = problem.render(id.as_str());
        // What inner layers said, an `Allow` or a CORS grant for instance, stays said.
        for name in outer.keys() {
            if !rendered.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
                for value in outer.get_all(name) {
                    rendered.headers_mut().append(name, value.clone());
                }
            }
        }
        response = rendered;
    }
    let elsewhere = response.extensions_mut().remove::<AnsweredElsewhere>();
    response.headers_mut().insert(REQUEST_ID, elsewhere.map_or_else(|| id.header(), |AnsweredElsewhere(id)| id));
    harden(response.headers_mut());
    let labels = RequestLabels {
        http_request_method: method,
        http_route: route.to_owned(),
        http_response_status_code: response.status().as_u16(),
    };
    trace::record("http.response.status_code", || labels.http_response_status_code);
    let elapsed = begun.elapsed();
    metrics.durations.get_or_create(&labels).observe(elapsed.as_secs_f64());
    // Only the route's pattern: a path may hold an id, and a query anything.
    debug!(
        parent: &span,
        http.request.method = method,
        http.route = route,
        http.response.status_code = labels.http_response_status_code,
        duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    response
}

/// What every response bears, so that no browser makes more of it than it is.
fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(docs::CONTENT_SECURITY_POLICY));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
}

/// A request's id: 64 random bits as 16 hexadecimal digits.
struct RequestId([u8; 16]);

impl RequestId {
    fn new(random: [u8; 8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 16];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// What a method is called that is none of HTTP's own (HTTP semantic conventions).
const OTHER_METHOD: &str = "_OTHER";

/// The method, if it is one that the broker knows: a label must not be of the client's making.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER_METHOD,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::http::header::VARY;
    use axum::response::{AppendHeaders, IntoResponse};
    use axum::routing::get;
    use tower::ServiceExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::storage::{Error, Outage, Upstream};
    use crate::telemetry::testing::Log;

    async fn ask<H, T>(handler: H) -> Response
    where
        H: axum::handler::Handler<T, ()>,
        T: 'static,
    {
        let observer = Observer { metrics: Arc::default(), randomness: Randomness::System, tracing: None };
        let router =
            axum::Router::new().route("/", get(handler)).layer(axum::middleware::from_fn_with_state(observer, observe));
        router.oneshot(Request::new(Body::empty())).await.unwrap()
    }

    #[tokio::test]
    async fn what_inner_layers_said_stays_said_each_time() {
        let handler = async || {
            (AppendHeaders([(VARY, "origin"), (VARY, "accept")]), Problem::new(Code::NotFound)).into_response()
        };
        let response = ask(handler).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let vary: Vec<_> = response.headers().get_all(VARY).iter().collect();
        assert_eq!(vary, ["origin", "accept"]);
    }

    #[tokio::test]
    async fn a_failure_is_logged_with_its_request_and_its_causes() {
        // While there is only one, `tracing` asks the subscriber of whichever thread comes first, also one without any.
        let _another = tracing::Dispatch::new(tracing_subscriber::registry());
        let log = Log::default();
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
        let filter = tracing_subscriber::EnvFilter::new("info");
        let subscriber = tracing_subscriber::registry().with(filter).with(layer.with_writer(log.clone()));
        let subscriber = tracing::subscriber::set_default(subscriber);
        let failing = async || {
            let whom = Upstream::Storage;
            Problem::from(Error::Unavailable { whom, cause: Outage::Answered(503), retry_after: None })
        };
        let response = ask(failing).await;
        drop(subscriber);
        let id = response.headers()[REQUEST_ID].to_str().unwrap();
        let lines = log.text();
        assert!(lines.contains("storage is not available: it answered with status 503"), "{lines}");
        assert!(lines.contains(&format!("\"request.id\":\"{id}\"")), "{lines}");
    }
}
