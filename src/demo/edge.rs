//! What stands before the broker of each region: a load balancer, as far as clients can tell, and the way to it.
//!
//! It says where its clients are, in a header that the broker believes of it alone, and takes as long as the way from there
//! takes. Bodies stream through it both ways, so that events come as they happen.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::emulator::network::HANDSHAKES;
use crate::geo::Country;

/// The header that says where a client is.
pub(super) const GEO_HEADER: HeaderName = HeaderName::from_static("x-client-geo");

/// What concerns one connection alone (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How long accepting rests after it failed, for instance for want of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// The way from the clients to a region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Way {
    /// Where the clients are.
    pub(super) country: Country,
    /// How long it takes there and back.
    pub(super) round_trip: Duration,
    /// Whether there is a region at its end.
    pub(super) running: bool,
}

/// An edge that has its address, and leads nowhere yet.
pub(super) struct Edge {
    listener: TcpListener,
    address: SocketAddr,
}

struct Front {
    way: watch::Receiver<Way>,
    client: Client<HttpConnector, Incoming>,
    broker: Authority,
    stop: CancellationToken,
}

impl Edge {
    /// An edge on the loopback address, wherever there is room.
    pub(super) async fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// What clients call the region's broker.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Leads to the broker until `stop` is cancelled.
    pub(super) fn serve(self, broker: SocketAddr, way: watch::Receiver<Way>, stop: CancellationToken) {
        // An address with its port always is one.
        let Ok(broker) = Authority::try_from(broker.to_string()) else { return };
        let client = Client::builder(TokioExecutor::new()).build_http();
        let front = Arc::new(Front { way, client, broker, stop: stop.clone() });
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&front).converse(stream))),
                    Err(_) => tokio::time::sleep(REST).await,
                }
            }
        }));
    }
}

impl Front {
    async fn converse(self: Arc<Self>, stream: TcpStream) {
        // Without it small answers may wait for the client's acknowledgement; with an error they only do so.
        let _ = stream.set_nodelay(true);
        let is_open = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request| {
            let (front, is_open) = (Arc::clone(&self), Arc::clone(&is_open));
            async move {
                let handshakes = if is_open.swap(true, Ordering::Relaxed) { 0 } else { HANDSHAKES };
                Ok::<_, Infallible>(front.pass_on(request, 1 + handshakes).await)
            }
        });
        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // Who breaks a connection off knows it.
            _ = connection => {}
            () = self.stop.cancelled() => {}
            () = gone(self.way.clone()) => {}
        }
    }

    async fn pass_on(&self, request: Request<Incoming>, round_trips: u32) -> Response<Body> {
        let way = *self.way.borrow();
        tokio::time::sleep(way.round_trip * round_trips).await;
        if !self.way.borrow().running {
            let mut away = refusal(StatusCode::SERVICE_UNAVAILABLE, "this region is away\n");
            away.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return away;
        }
        let (mut head, body) = request.into_parts();
        let Some(uri) = self.uri(&head.uri) else {
            return refusal(StatusCode::BAD_REQUEST, "a request is for a path\n");
        };
        head.uri = uri;
        head.version = Version::HTTP_11;
        introduce(&mut head.headers, way.country);
        match self.client.request(Request::from_parts(head, body)).await {
            Ok(mut response) => {
                drop_hop_by_hop(response.headers_mut());
                response.map(Body::new)
            }
            Err(_) => refusal(StatusCode::BAD_GATEWAY, "the broker of this region does not answer\n"),
        }
    }

    /// The same place at the broker.
    fn uri(&self, asked: &Uri) -> Option<Uri> {
        let path = asked.path_and_query().filter(|path| path.as_str().starts_with('/'))?;
        let (authority, path): (_, PathAndQuery) = (self.broker.clone(), path.clone());
        Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build().ok()
    }
}

/// Comes back when the region that was there is not any more.
async fn gone(mut way: watch::Receiver<Way>) {
    for running in [true, false] {
        if way.wait_for(|way| way.running == running).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Drops what only a load balancer may say of a client, and says it.
fn introduce(headers: &mut HeaderMap, country: Country) {
    drop_hop_by_hop(headers);
    // The body is asked for as soon as the broker wants it. Whom a request was for is the edge's name.
    headers.remove(EXPECT);
    let is_a_proxys = |name: &HeaderName| name.as_str().starts_with("x-forwarded-") || name == "forwarded";
    let forged: Vec<_> = headers.keys().filter(|name| is_a_proxys(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    headers.insert(GEO_HEADER, HeaderValue::from_static(country.code()));
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Nobody gets rid of the host in this way.
        .filter(|name| name != HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An edge before a broker that gives back what it is sent as it comes, and says whose the request was.
    async fn scene() -> (String, watch::Sender<Way>, CancellationToken) {
        let echo = async |request: Request| {
            let told = request.headers().get_all(GEO_HEADER).iter().map(|value| value.to_str().unwrap().to_owned());
            let told: Vec<_> = told.collect();
            ([("x-told", told.join("+"))], request.into_body())
        };
        let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = broker.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(broker, Router::new().fallback(echo)).await });
        let edge = Edge::bind().await.unwrap();
        let (url, stop) = (edge.url(), CancellationToken::new());
        let country = Country::of("BR").unwrap();
        let way = watch::Sender::new(Way { country, round_trip: Duration::ZERO, running: true });
        edge.serve(address, way.subscribe(), stop.clone());
        (url, way, stop)
    }

    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    #[tokio::test]
    async fn a_client_cannot_say_where_it_is() {
        let (url, way, _stop) = scene().await;
        let ask = async || {
            let request = client().post(format!("{url}/any?x=1")).header("x-client-geo", "JP").body("hello");
            let answer = request.send().await.unwrap();
            let told = answer.headers()["x-told"].to_str().unwrap().to_owned();
            (told, answer.text().await.unwrap())
        };
        assert_eq!(ask().await, ("BR".to_owned(), "hello".to_owned()));
        way.send_modify(|way| way.country = Country::of("KE").unwrap());
        assert_eq!(ask().await, ("KE".to_owned(), "hello".to_owned()));
    }

    #[tokio::test]
    async fn bodies_stream_both_ways_until_the_region_goes_away() {
        let (url, way, _stop) = scene().await;
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let (mut seen, mut piece) = (String::new(), [0; 1024]);
        for word in ["first", "second"] {
            // The next word is sent when the one before it has come back.
            stream.write_all(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).await.unwrap();
            while !seen.contains(word) {
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "{seen}");
                seen += std::str::from_utf8(&piece[..read]).unwrap();
            }
        }
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        way.send_modify(|way| way.running = false);
        // The end, or a reset.
        assert_eq!(stream.read(&mut piece).await.unwrap_or(0), 0);
        let refused = client().get(&url).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["retry-after"], "5");
        way.send_modify(|way| way.running = true);
        assert_eq!(client().get(&url).send().await.unwrap().status(), StatusCode::OK, "it is back");
    }

    #[test]
    fn where_a_client_is_nobody_says_but_the_edge() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-client-geo", "JP"),
            ("x-client-geo", "US"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-anything", "x"),
            ("forwarded", "for=203.0.113.7"),
            ("connection", "keep-alive, x-private, host"),
            ("keep-alive", "timeout=5"),
            ("x-private", "x"),
            ("transfer-encoding", "chunked"),
            ("host", "127.0.0.1:1"),
            ("authorization", "Bearer x"),
            ("x-upload-broker-forwarded", "us-central1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        introduce(&mut headers, Country::of("BR").unwrap());
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "authorization: Bearer x",
                "host: 127.0.0.1:1",
                "x-client-geo: BR",
                "x-upload-broker-forwarded: us-central1"
            ]
        );
    }
}
