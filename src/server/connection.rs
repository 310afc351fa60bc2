//! One connection, from its handshake to its close.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::Router;
use axum::http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::answer::{Streams, Tracked};
use super::framing::Coded;
use super::front::{self, Peer};
use super::limits::Limits;
use super::listener::IsProxy;
use super::stream::Watched;

/// The receive windows of HTTP/2. Request bodies are at most 64 KiB, so one stream never waits for its window, and a
/// connection cannot make the broker hold more than four such bodies that nobody reads.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// What one HTTP/2 stream may have in the send buffer: answers are small.
const SEND_BUFFER: usize = 64 * 1024;

/// What all connections of a listener share.
pub(super) struct Shared {
    /// The router for the next request. It may be another one each time.
    pub(super) router: Box<dyn Fn() -> Router + Send + Sync>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
    pub(super) is_proxy: IsProxy,
    pub(super) protocol: auto::Builder<Streams>,
    /// No new requests: those under way may finish.
    pub(super) shutdown: CancellationToken,
    /// No time left: close.
    pub(super) cut: CancellationToken,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By either side, between requests or because of an error of the client's.
    Closed,
    /// By us, with requests under way, when the time to drain was over.
    Cut,
}

/// The HTTP settings that bound what a connection may take.
pub(super) fn protocol(limits: &Limits) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's timer also runs while a kept connection is idle, where more time is given: `Activity` times both.
        .header_read_timeout(None)
        // hyper panics below its floor of 8 KiB.
        .max_buf_size(usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX).max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.pending_resets)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        // Finds peers that are gone while a request of theirs is under way.
        .keep_alive_interval(limits.idle_timeout / 2)
        .keep_alive_timeout(limits.write_timeout);
    builder
}

/// Speaks with one client until either side has enough. Errors are the client's and end only this connection.
pub(super) async fn serve(tcp: TcpStream, address: SocketAddr, shared: Arc<Shared>) -> End {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "a connection was lost at once");
        return End::Closed;
    }
    let peer = Peer { address, tls: shared.tls.is_some() };
    let Some(acceptor) = &shared.tls else { return speak(tcp, peer, &shared).await };
    let handshake = tokio::time::timeout(shared.limits.tls_handshake_timeout, acceptor.accept(tcp));
    tokio::select! {
        biased;
        () = shared.shutdown.cancelled() => End::Closed,
        outcome = handshake => match outcome {
            Ok(Ok(stream)) => speak(stream, peer, &shared).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                End::Closed
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                End::Closed
            }
        },
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, peer: Peer, shared: &Shared) -> End {
    let is_proxy = (shared.is_proxy)(peer.address.ip());
    let limits = if is_proxy { shared.limits.of_proxy() } else { shared.limits };
    let activity = Arc::new(Activity::new(Instant::now(), limits));
    let stream = Watched::new(stream, Arc::clone(&activity), limits.write_timeout);
    let service =
        service_fn(|request| answer(request, peer, Activity::begin(&activity), (shared.router)(), limits.body_timeout));
    let mut connection = pin!(shared.protocol.serve_connection(TokioIo::new(stream), service));
    let mut timer = pin!(tokio::time::sleep_until(activity.next_alarm()));
    // Made once: what is made for each turn enters and leaves a list that all connections share.
    let mut shutdown = pin!(shared.shutdown.cancelled());
    let mut cut = pin!(shared.cut.cancelled());
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    // Says what kind of error it was; requests are not part of it.
                    tracing::debug!(%error, "a connection ended with an error");
                }
                return End::Closed;
            }
            () = cut.as_mut() => {
                return if matches!(activity.wait(), Wait::Request(_)) { End::Cut } else { End::Closed };
            }
            () = shutdown.as_mut(), if !closing => {
                closing = true;
                activity.closing();
                connection.as_mut().graceful_shutdown();
            }
            () = activity.sooner.notified() => {}
            () = timer.as_mut() => match activity.wait() {
                Wait::Request(due) | Wait::Until(due, _) if due > Instant::now() => {}
                Wait::Request(_) => match activity.give_up() {
                    GivenUp::Streams(count) => {
                        tracing::debug!(count, "streams were reset because their clients took nothing of the answers");
                    }
                    GivenUp::Connection => {
                        tracing::debug!("a connection was closed because its client took nothing of an answer");
                        return End::Cut;
                    }
                },
                Wait::Until(_, Then::Close) if !closing => {
                    closing = true;
                    activity.closing();
                    connection.as_mut().graceful_shutdown();
                }
                Wait::Until(..) => {
                    tracing::debug!("a connection was closed because its client was silent");
                    return End::Closed;
                }
            },
        }
        let alarm = activity.next_alarm();
        if alarm != timer.deadline() {
            timer.as_mut().reset(alarm);
        }
    }
}

/// Answers one request: refuses it at the front, or gives it to the router.
async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    begun: Begun,
    router: Router,
    body_timeout: std::time::Duration,
) -> Result<Response<Tracked>, Infallible> {
    let (coded, guard) = begun;
    let coded = coded.filter(|_| request.version() < Version::HTTP_2);
    if request.version() == Version::HTTP_2 {
        guard.is_stream(Streams::end_of_this());
    }
    let response = front::answer(request, peer, coded, router, body_timeout).await;
    Ok(response.map(|body| Tracked::new(body, guard)))
}

/// What a connection is doing: written by its stream and its requests, read by its task.
pub(super) struct Activity {
    state: Mutex<State>,
    limits: Limits,
    /// The connection, or a request, may now have to end before its task looks again by itself.
    sooner: Notify,
    coded: OnceLock<Coded>,
}

struct State {
    /// Requests that have begun and whose answers are not all written, by their number.
    under_way: HashMap<u64, UnderWay>,
    /// Requests begun so far.
    requests: u64,
    /// Whether a request came by HTTP/2, where bytes between requests say nothing.
    http2: bool,
    /// When the connection stood, or its last request ended.
    idle_since: Instant,
    /// When the next request's first byte came, if that was between requests.
    head_since: Option<Instant>,
    /// When the connection was asked to close.
    closing_since: Option<Instant>,
    /// When the connection's task looks again by itself.
    alarm: Instant,
}

/// A request under way. Each is timed by itself: clients of HTTP/2 can keep others going all the while.
struct UnderWay {
    /// When it began, or a part of its answer was last written.
    moved: Instant,
    /// Ends it alone, where that can be: on HTTP/2, while hyper has not been given all of its answer.
    end: Option<CancellationToken>,
}

/// What had to end because of a request that does not go on.
#[derive(Debug, PartialEq, Eq)]
enum GivenUp {
    /// So many streams.
    Streams(usize),
    /// The connection: nothing less ends an HTTP/1 answer, or what HTTP/2 still holds of one that hyper is done with.
    Connection,
}

/// What a connection's task waits for.
#[derive(Debug, PartialEq, Eq)]
enum Wait {
    /// For the request under way that has not moved for longest, until then. Handlers have shorter deadlines of their own;
    /// this one is for HTTP/2 clients that grant no window, which no write notices.
    Request(Instant),
    /// For the client, until then.
    Until(Instant, Then),
}

/// What happens when the client stays silent.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// The connection is closed as the protocol wants it: on HTTP/2, with GOAWAY.
    Close,
    /// The connection is dropped.
    Drop,
}

impl State {
    fn wait(&self, limits: &Limits) -> Wait {
        if let Some(moved) = self.under_way.values().map(|request| request.moved).min() {
            Wait::Request(moved + limits.stall_timeout)
        } else if let Some(since) = self.closing_since {
            Wait::Until(since.max(self.idle_since) + limits.closing_timeout, Then::Drop)
        } else if let Some(since) = self.head_since {
            Wait::Until(since + limits.header_timeout, Then::Drop)
        } else if self.requests == 0 {
            Wait::Until(self.idle_since + limits.header_timeout, Then::Drop)
        } else {
            Wait::Until(self.idle_since + limits.idle_timeout, Then::Close)
        }
    }

    /// Whether the connection, or a request, may have to end before its task looks again by itself.
    fn ends_sooner(&self, limits: &Limits) -> bool {
        let (Wait::Request(due) | Wait::Until(due, _)) = self.wait(limits);
        due < self.alarm
    }
}

/// A request that has begun: what the scanner found in its head, and what ends it when dropped.
pub(super) type Begun = (Option<Coded>, InFlight);

impl Activity {
    fn new(now: Instant, limits: Limits) -> Self {
        let state = State {
            under_way: HashMap::new(),
            requests: 0,
            http2: false,
            idle_since: now,
            head_since: None,
            closing_since: None,
            alarm: now,
        };
        Self { state: Mutex::new(state), limits, sooner: Notify::new(), coded: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> Wait {
        self.lock().wait(&self.limits)
    }

    /// When to look again, which is noted. Neither a request nor its end moves an alarm that is early enough: that there
    /// is more time is found out when it goes off, so that a busy connection rarely touches its timer.
    fn next_alarm(&self) -> Instant {
        let mut state = self.lock();
        let (Wait::Request(due) | Wait::Until(due, _)) = state.wait(&self.limits);
        if due < state.alarm || state.alarm <= Instant::now() {
            state.alarm = due;
        }
        state.alarm
    }

    /// Gives up the requests whose time is over.
    fn give_up(&self) -> GivenUp {
        let mut state = self.lock();
        let now = Instant::now();
        let mut streams = 0;
        for request in state.under_way.values_mut().filter(|request| request.moved + self.limits.stall_timeout <= now) {
            let Some(end) = request.end.take() else { return GivenUp::Connection };
            end.cancel();
            // The stream ends in a moment. Should it not, the connection is next.
            request.moved = now;
            streams += 1;
        }
        GivenUp::Streams(streams)
    }

    /// Notes that the connection was asked to close.
    fn closing(&self) {
        self.lock().closing_since = Some(Instant::now());
    }

    /// Notes that bytes came in, and what the scanner found among them.
    pub(super) fn bytes_read(&self, coded: Option<Coded>) {
        if let Some(coded) = coded {
            // The scanner finds at most one.
            let _ = self.coded.set(coded);
        }
        let mut state = self.lock();
        if state.under_way.is_empty() && state.requests > 0 && !state.http2 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
            let sooner = state.ends_sooner(&self.limits);
            drop(state);
            if sooner {
                self.sooner.notify_one();
            }
        }
    }

    fn begin(this: &Arc<Self>) -> Begun {
        let mut state = this.lock();
        let number = state.requests;
        state.requests += 1;
        state.under_way.insert(number, UnderWay { moved: Instant::now(), end: None });
        state.head_since = None;
        // Idle connections of proxies are kept for longer than requests.
        let sooner = state.ends_sooner(&this.limits);
        drop(state);
        if sooner {
            this.sooner.notify_one();
        }
        let coded = this.coded.get().copied().filter(|coded| coded.request == number);
        (coded, InFlight { activity: Arc::clone(this), number })
    }
}

/// One request under way, until it is dropped.
pub(super) struct InFlight {
    activity: Arc<Activity>,
    number: u64,
}

impl InFlight {
    /// Notes that the request came by HTTP/2, and what ends its stream.
    fn is_stream(&self, end: Option<CancellationToken>) {
        let mut state = self.activity.lock();
        state.http2 = true;
        if let Some(request) = state.under_way.get_mut(&self.number) {
            request.end = end;
        }
    }

    /// Notes that a part of the answer was written.
    pub(super) fn moves(&self) {
        if let Some(request) = self.activity.lock().under_way.get_mut(&self.number) {
            request.moved = Instant::now();
        }
    }

    /// Notes that hyper has been given the whole answer: it cannot be ended alone any more.
    pub(super) fn given(&self) {
        if let Some(request) = self.activity.lock().under_way.get_mut(&self.number) {
            request.end = None;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.under_way.remove(&self.number);
        state.idle_since = Instant::now();
        let sooner = state.ends_sooner(&self.activity.limits);
        drop(state);
        if sooner {
            self.activity.sooner.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_connection_waits_for_its_client_as_long_as_its_state_allows() {
        let limits = Limits::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let under_way = |moved: &[u64]| {
            let requests = moved.iter().map(|moved| UnderWay { moved: at(*moved), end: None });
            (0..).zip(requests).collect()
        };
        let state = || State {
            under_way: HashMap::new(),
            requests: 3,
            http2: false,
            idle_since: at(100),
            head_since: None,
            closing_since: None,
            alarm: at(100),
        };
        for (name, state, expected) in [
            ("a request is under way", State { under_way: under_way(&[80]), ..state() }, Wait::Request(at(200))),
            ("one of several", State { under_way: under_way(&[95, 80, 90]), ..state() }, Wait::Request(at(200))),
            ("the first header", State { requests: 0, ..state() }, Wait::Until(at(110), Then::Drop)),
            ("a later header", State { head_since: Some(at(150)), ..state() }, Wait::Until(at(160), Then::Drop)),
            ("idle", state(), Wait::Until(at(175), Then::Close)),
            ("closing while idle", State { closing_since: Some(at(170)), ..state() }, Wait::Until(at(175), Then::Drop)),
            (
                "closing while a request ended",
                State { closing_since: Some(at(90)), ..state() },
                Wait::Until(at(105), Then::Drop),
            ),
            (
                "closing with a request under way",
                State { under_way: under_way(&[80]), closing_since: Some(at(90)), ..state() },
                Wait::Request(at(200)),
            ),
        ] {
            assert_eq!(state.wait(&limits), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_is_brought_forward_and_otherwise_left_to_go_off() {
        let limits = Limits::default();
        let pass = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        let sooner = |activity: &Activity| activity.lock().ends_sooner(&limits);
        let start = Instant::now();
        let activity = Arc::new(Activity::new(start, limits));
        assert_eq!(activity.next_alarm(), start + limits.header_timeout);
        for _ in 0..3 {
            pass(1).await;
            let (_, request) = Activity::begin(&activity);
            drop(request);
            activity.bytes_read(None);
            assert!(!sooner(&activity));
            assert_eq!(activity.next_alarm(), start + limits.header_timeout, "a busy connection's stays");
        }
        let (_, request) = Activity::begin(&activity);
        pass(10).await;
        assert_eq!(activity.next_alarm(), start + Duration::from_secs(3) + limits.stall_timeout, "it went off");
        drop(request);
        assert!(sooner(&activity));
        assert_eq!(activity.next_alarm(), Instant::now() + limits.idle_timeout, "idle");
        activity.bytes_read(None);
        assert!(sooner(&activity));
        assert_eq!(activity.next_alarm(), Instant::now() + limits.header_timeout, "the next head");
    }

    #[test]
    fn bytes_between_requests_begin_a_header_except_on_http_2() {
        let activity = Arc::new(Activity::new(Instant::now(), Limits::default()));
        activity.bytes_read(None);
        assert_eq!(activity.lock().head_since, None, "the first header is timed from the start");
        let (_, first) = Activity::begin(&activity);
        activity.bytes_read(None);
        assert_eq!(activity.lock().head_since, None, "these may be its body");
        drop(first);
        activity.bytes_read(None);
        assert!(activity.lock().head_since.is_some());
        let (_, second) = Activity::begin(&activity);
        activity.lock().http2 = true;
        drop(second);
        activity.bytes_read(None);
        assert_eq!(activity.lock().head_since, None);
    }
}
