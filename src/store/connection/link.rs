//! One connection to one server, which opens itself again when it is lost.
//!
//! Every operation is idempotent, so one that failed with its connection is tried once more on a new one; a time-out is
//! not, since it has used up the caller's patience. When nothing is heard at all, one time-out is enough: what follows
//! fails at once (`silence.rs`) while the connection goes on asking in the background.
//!
//! There is one connection a server. Bursts of 4000 creates take as long with one, two or four; on one, the commands of
//! many creates share packets, which spares both ends system calls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value,
};

use super::super::error::{Cause, Error, OpenError};
use super::super::metrics::Metrics;
use super::super::silence::Silence;
use super::{DEADLINE, Request};

/// How long an answer may take. Half a second, the client's default, failed one create in five in bursts of 4000.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long reaching the server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// After so many time-outs in a row a connection is made anew: the server may have moved behind its name.
const TIMEOUTS_IN_A_ROW: u32 = 3;

/// How long a connection rests before it asks a silent server once more.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// Why a server did not do what it was asked, and who may.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) lead: Lead,
}

/// Where to ask instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nowhere: the request is to blame, or the server for all requests.
    Nowhere,
    /// Wherever the master is by now: this server is away, hangs, or is a replica.
    Elsewhere,
    /// At this address of a cluster, from now on.
    Moved(String),
    /// At this address of a cluster, this once: the slot is on its way there.
    Ask(String),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        self.error
    }

    pub(super) fn cause(self) -> Cause {
        match self.error {
            Error::Unavailable(cause) => cause,
            error => Cause::new(error.to_string()),
        }
    }
}

/// One connection.
pub(super) struct Link {
    client: Client,
    manager: ArcSwap<ConnectionManager>,
    timeouts: AtomicU32,
    silence: Silence,
    metrics: Metrics,
}

impl Link {
    /// Makes a connection that is opened when it is first used.
    pub(super) fn new(info: ConnectionInfo, metrics: &Metrics) -> Result<Arc<Self>, OpenError> {
        let refused = |error: RedisError| OpenError::Client(Cause::from(&error));
        let client = Client::open(info).map_err(refused)?;
        let manager = ArcSwap::from_pointee(manager(&client, metrics).map_err(refused)?);
        let metrics = metrics.clone();
        Ok(Arc::new(Self { client, manager, timeouts: AtomicU32::new(0), silence: Silence::new(), metrics }))
    }

    /// Where it leads.
    pub(super) fn address(&self) -> &ConnectionAddr {
        self.client.get_connection_info().addr()
    }

    /// The server's answer.
    pub(super) async fn ask(self: &Arc<Self>, request: &Request<'_>) -> Result<Value, Failure> {
        if self.silence.is_silent() {
            let error = Error::Unavailable(Cause::new(Cause::SILENT));
            return Err(Failure { error, lead: Lead::Elsewhere });
        }
        let answer = self.ask_aloud(request).await;
        if matches!(&answer, Err(Failure { error: Error::TimedOut(_), .. })) && self.silence.missed() {
            tokio::spawn(probe(Arc::downgrade(self)));
        }
        answer
    }

    /// What is `asked` of this link, or `None` if that takes longer than `patience`. That counts as a time-out of the
    /// connection: who is only ever asked so, as a Sentinel is, would keep one that leads nowhere.
    pub(super) async fn within<T>(&self, patience: Duration, asked: impl Future<Output = T>) -> Option<T> {
        let manager = self.manager.load_full();
        let answer = tokio::time::timeout(patience, asked).await.ok();
        if answer.is_none() {
            self.missed(&manager);
        }
        answer
    }

    /// The answer of a server that a slot is on its way to: not all of its keys may be there yet.
    pub(super) async fn ask_asking(&self, request: &Request<'_>) -> Result<Value, Failure> {
        let mut manager = ConnectionManager::clone(&self.manager.load());
        let asked = async {
            let mut pipeline = redis::pipe();
            pipeline.cmd("ASKING").ignore();
            match request {
                Request::Script(script) => {
                    script.load_async(&mut manager).await?;
                    pipeline.invoke_script(script)
                }
                Request::Command(command) => pipeline.add_command((*command).clone()),
            };
            let (answer,): (Value,) = pipeline.query_async(&mut manager).await?;
            answer.extract_error()
        };
        asked.await.map_err(|error| self.failure(&error))
    }

    async fn ask_aloud(&self, request: &Request<'_>) -> Result<Value, Failure> {
        let manager = self.manager.load_full();
        let answer = tokio::time::timeout(DEADLINE, ask_twice(&manager, request)).await;
        let failure = match answer {
            Ok(Ok(answer)) => {
                self.timeouts.store(0, Ordering::Relaxed);
                self.silence.heard();
                return Ok(answer);
            }
            Ok(Err(error)) => {
                if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
                    self.silence.heard();
                }
                // A node of a cluster that is down is known by its address: another connection leads to it again.
                if is_elsewhere(&error) && error.kind() != ErrorKind::Server(ServerErrorKind::ClusterDown) {
                    self.replace(&manager);
                }
                self.failure(&error)
            }
            Err(_) => Failure { error: Error::TimedOut(DEADLINE), lead: Lead::Elsewhere },
        };
        if matches!(failure.error, Error::TimedOut(_)) {
            self.missed(&manager);
        }
        Err(failure)
    }

    /// Counts a time-out of `manager`.
    fn missed(&self, manager: &Arc<ConnectionManager>) {
        if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_IN_A_ROW {
            self.replace(manager);
        }
    }

    fn failure(&self, error: &RedisError) -> Failure {
        if error.is_timeout() {
            return Failure { error: Error::TimedOut(RESPONSE_TIMEOUT), lead: Lead::Elsewhere };
        }
        let lead = match error.redirect_node() {
            Some((node, _)) => {
                let address = complete(node, self.address());
                let is_moved = error.kind() == ErrorKind::Server(ServerErrorKind::Moved);
                if is_moved { Lead::Moved(address) } else { Lead::Ask(address) }
            }
            None if is_elsewhere(error) || error.is_io_error() || error.is_unrecoverable_error() => Lead::Elsewhere,
            None => Lead::Nowhere,
        };
        Failure { error: Error::Unavailable(Cause::from(error)), lead }
    }

    /// Asks a silent server whether it is there; whatever it says ends the silence.
    async fn probe(&self) {
        let manager = self.manager.load_full();
        let answer = self.ask_aloud(&Request::Command(&redis::cmd("PING"))).await;
        // After an operation, a probe too was in vain: perhaps it is only this connection that leads nowhere.
        if matches!(answer, Err(Failure { error: Error::TimedOut(_), .. })) {
            self.replace(&manager);
        }
    }

    /// Connects anew, so that the server's name is resolved again; once, of all who found the same connection bad.
    fn replace(&self, bad: &Arc<ConnectionManager>) {
        if let Ok(fresh) = manager(&self.client, &self.metrics) {
            let before = self.manager.compare_and_swap(bad, Arc::new(fresh));
            if Arc::ptr_eq(&before, bad) {
                self.timeouts.store(0, Ordering::Relaxed);
                self.metrics.reconnects.inc();
            }
        }
    }
}

/// The address that a node of a cluster is known by. A node that does not know its own name leaves the host out, and
/// means the one that it was reached at.
pub(super) fn complete(node: &str, reached_at: &ConnectionAddr) -> String {
    let (host, port) = node.rsplit_once(':').unwrap_or((node, "6379"));
    match reached_at {
        ConnectionAddr::Tcp(reached, _) | ConnectionAddr::TcpTls { host: reached, .. } if host.is_empty() => {
            format!("{reached}:{port}")
        }
        _ => format!("{host}:{port}"),
    }
}

/// How to reach `address`, a host and a port, otherwise as in `template`.
pub(super) fn info_at(template: &ConnectionInfo, address: &str) -> Option<ConnectionInfo> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|_| !host.is_empty())?;
    let mut addr = template.addr().clone();
    match &mut addr {
        ConnectionAddr::Tcp(of, at) | ConnectionAddr::TcpTls { host: of, port: at, .. } => {
            host.clone_into(of);
            *at = port;
        }
        _ => return None,
    }
    Some(template.clone().set_addr(addr))
}

/// Probes until the server is heard, or nobody has the connection any more.
async fn probe(link: Weak<Link>) {
    while let Some(link) = link.upgrade().filter(|link| link.silence.is_silent()) {
        link.probe().await;
        drop(link);
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

async fn ask_twice(manager: &ConnectionManager, request: &Request<'_>) -> Result<Value, RedisError> {
    let started = Instant::now();
    match ask_once(manager, request).await {
        // The attempt may also have found the failure of an earlier one to connect; the second one connects itself.
        Err(error) if is_lost(&error, started.elapsed()) => ask_once(manager, request).await,
        answer => answer,
    }
}

async fn ask_once(manager: &ConnectionManager, request: &Request<'_>) -> Result<Value, RedisError> {
    let mut manager = manager.clone();
    match request {
        Request::Script(script) => script.invoke_async(&mut manager).await,
        Request::Command(command) => command.query_async(&mut manager).await,
    }
}

/// Whether the connection failed, so that another one may do better. A time-out that took no time is an old one.
fn is_lost(error: &RedisError, took: Duration) -> bool {
    let is_old = took < CONNECT_TIMEOUT / 10;
    (error.is_io_error() || error.is_unrecoverable_error()) && (is_old || !error.is_timeout())
}

/// Whether the server says that it is not, or not yet, the one to ask: a replica now, without its master, or loading.
fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
    matches!(error.kind(), ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly))
        // Before version 7, a server wrapped what stopped a script into an error of its own.
        || error.detail().is_some_and(|detail| detail.contains("-READONLY") || detail.contains("-MASTERDOWN"))
}

fn manager(client: &Client, metrics: &Metrics) -> Result<ConnectionManager, RedisError> {
    let reconnects = metrics.reconnects.clone();
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        // A server that is away is reported at once; the next operation tries again.
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(50))
        .set_pipeline_buffer_size(1024)
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                reconnects.inc();
            }
            Ok::<(), std::convert::Infallible>(())
        });
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_to_ask_instead_is_read_from_the_refusal() {
        let at = |address: &str| address.to_owned();
        for (name, code, detail, expected) in [
            ("as it is", "READONLY", "You can't write against a read only replica.", Lead::Elsewhere),
            (
                "of a script before version 7",
                "ERR",
                "Error running script: @user_script:9: -READONLY You can't write",
                Lead::Elsewhere,
            ),
            ("loading", "LOADING", "Redis is loading the dataset in memory", Lead::Elsewhere),
            ("without its master", "MASTERDOWN", "Link with MASTER is down", Lead::Elsewhere),
            ("a cluster with a hole", "CLUSTERDOWN", "Hash slot not served", Lead::Elsewhere),
            ("a slot that moved", "MOVED", "3999 10.0.0.7:6381", Lead::Moved(at("10.0.0.7:6381"))),
            ("on a host that knows no name", "MOVED", "3999 :6381", Lead::Moved(at("first.example:6381"))),
            ("over IPv6", "MOVED", "3999 fd00::7:6381", Lead::Moved(at("fd00::7:6381"))),
            ("a slot on its way", "ASK", "3999 10.0.0.7:6381", Lead::Ask(at("10.0.0.7:6381"))),
            ("out of memory", "OOM", "command not allowed when used memory > 'maxmemory'", Lead::Nowhere),
        ] {
            let line = format!("-{code} {detail}\r\n");
            let Ok(Value::ServerError(error)) = redis::parse_redis_value(line.as_bytes()) else { panic!("{name}") };
            let info = redis::IntoConnectionInfo::into_connection_info("redis://first.example?protocol=resp3").unwrap();
            let first = Link::new(info, &Metrics::new()).unwrap();
            assert_eq!(first.failure(&RedisError::from(error)).lead, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_never_waited_for_is_connected_to_anew() {
        let info = redis::IntoConnectionInfo::into_connection_info("redis://first.example?protocol=resp3").unwrap();
        let metrics = Metrics::new();
        let link = Link::new(info, &metrics).unwrap();
        let before = link.manager.load_full();
        for _ in 1..TIMEOUTS_IN_A_ROW {
            assert!(link.within(Duration::ZERO, std::future::pending::<()>()).await.is_none());
        }
        assert_eq!(link.within(Duration::ZERO, std::future::ready(1)).await, Some(1));
        assert!(Arc::ptr_eq(&before, &link.manager.load_full()), "too early");
        assert!(link.within(Duration::ZERO, std::future::pending::<()>()).await.is_none());
        assert!(!Arc::ptr_eq(&before, &link.manager.load_full()));
        assert_eq!(metrics.reconnects.get(), 1);
    }

    #[test]
    fn an_address_takes_everything_else_from_its_template() {
        let info = |url: &str| redis::IntoConnectionInfo::into_connection_info(url).unwrap();
        let template = info("rediss://ada:s3cret@seed.example:6379");
        let at = info_at(&template, "fd00::7:6381").unwrap();
        let ConnectionAddr::TcpTls { host, port, insecure: false, .. } = at.addr() else { panic!("not TLS") };
        assert_eq!((host.as_str(), *port), ("fd00::7", 6381));
        assert_eq!((at.redis_settings().username(), at.redis_settings().password()), (Some("ada"), Some("s3cret")));
        for (name, address) in [("no port", "host"), ("no host", ":6379"), ("no number", "host:x")] {
            assert!(info_at(&template, address).is_none(), "{name}");
        }
        assert!(info_at(&info("unix:///s"), "host:1").is_none(), "a socket has no port");
    }
}
