//! Accepts connections up to a number, and drains them at the end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{self, End, Shared};
use super::limits::Limits;
use super::tls::TlsCertificate;

/// How long to wait when the system has no descriptor or memory for one more connection: until others have closed.
const PAUSE: Duration = Duration::from_millis(100);

/// Faults that repeat are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// An address that connections are accepted at.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsCertificate>,
    limits: Limits,
    is_proxy: IsProxy,
}

/// Whether a trusted proxy is at the address. Asked once for each connection.
pub(super) type IsProxy = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What became of the connections that stood when the listener closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Those that ended with all their requests answered.
    pub finished: usize,
    /// Those that were cut with requests under way, because the time was over.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
}

impl Listener {
    /// Takes the address. Connections queue in the system from now on, and are accepted by [`Listener::serve`].
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr, tls: Option<TlsCertificate>, limits: Limits) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, tls, limits, is_proxy: Box::new(|_| false) })
    }

    /// Keeps idle connections of these proxies for longer: see [`Limits::proxy_idle_timeout`].
    #[must_use]
    pub fn with_proxies(self, is_proxy: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { is_proxy: Box::new(is_proxy), ..self }
    }

    /// The address taken, with the port that the system chose if it was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled, each request by the router that `router` gives for it; then refuses new
    /// connections, closes idle ones, lets the requests under way finish, and returns when all have, or when
    /// [`Limits::drain`] has passed and the rest were cut.
    ///
    /// Dropping the future ends all connections at once.
    pub async fn serve(
        self,
        router: impl Fn() -> Router + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> Drained {
        let Self { socket, tls, limits, is_proxy, .. } = self;
        let shared = Arc::new(Shared {
            router: Box::new(router),
            tls: tls.map(|certificate| certificate.acceptor()),
            limits,
            is_proxy,
            protocol: connection::protocol(&limits),
            shutdown: shutdown.clone(),
            cut: CancellationToken::new(),
        });
        let mut connections = JoinSet::new();
        let permits = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let (mut refused, mut failed) = (Rare::default(), Rare::default());
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // Takes the finished tasks out, whose number is bounded by the permits.
                Some(_) = connections.join_next() => continue,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((tcp, address)) => {
                    let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                        if let Some(count) = refused.happened() {
                            tracing::warn!(count, limit = limits.connections, "connections were refused at the limit");
                        }
                        continue;
                    };
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        let end = connection::serve(tcp, address, shared).await;
                        drop(permit);
                        end
                    });
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if let Some(count) = failed.happened() {
                        tracing::error!(count, %error, "connections could not be accepted");
                    }
                    if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                        break;
                    }
                }
            }
        }
        // New connections are refused by the system from here on.
        drop(socket);
        drain(connections, &shared).await
    }
}

async fn drain(mut connections: JoinSet<End>, shared: &Shared) -> Drained {
    let start = Instant::now();
    let limit = tokio::time::sleep(shared.limits.drain);
    tokio::pin!(limit);
    let mut drained = Drained { finished: 0, cut: 0, took: Duration::ZERO };
    loop {
        let end = tokio::select! {
            biased;
            end = connections.join_next() => end,
            () = &mut limit, if !shared.cut.is_cancelled() => {
                shared.cut.cancel();
                continue;
            }
        };
        match end {
            None => break,
            Some(Ok(End::Closed)) => drained.finished += 1,
            // A task that panicked has answered nothing more, either.
            Some(Ok(End::Cut) | Err(_)) => drained.cut += 1,
        }
    }
    drained.took = start.elapsed();
    drained
}

/// Whether the error is of a connection that ended before it was accepted, so that the next can be accepted at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts what happens often, and says now and then how often it has.
#[derive(Default)]
struct Rare {
    count: u64,
    last: Option<Instant>,
}

impl Rare {
    /// Counts one more, and gives the number since the last time when it is time to log.
    fn happened(&mut self) -> Option<u64> {
        self.count += 1;
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}
