//! The connections to Redis: bounded in number, in what waits on them and in how long it waits.
//!
//! Every operation is idempotent, so one that failed with its connection is tried once more on a new one; a time-out is
//! not, since it has used up the caller's patience. When nothing is heard at all, one time-out is enough: what follows
//! fails at once (`silence.rs`) while each connection goes on asking in the background.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, Cmd, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError, ScriptInvocation,
    ServerErrorKind, Value,
};
use tokio::sync::Semaphore;
use url::Url;

use super::error::{Cause, Error, OpenError};
use super::metrics::Metrics;
use super::silence::Silence;

/// How many connections there are. Bursts of 4000 creates take as long with one, two or four; on one, the commands of
/// many creates share packets, which spares both ends system calls.
const LINKS: usize = 1;

/// How many operations may be under way. At a few hundred microseconds each on a loaded server, so many take two
/// seconds: more would only time out.
const IN_FLIGHT: usize = 8192;

/// How long an answer may take. Half a second, the client's default, failed one create in five in bursts of 4000.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long reaching the server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an operation may take, its second attempt included.
const DEADLINE: Duration = Duration::from_millis(2500);

/// After so many time-outs in a row a connection is made anew: the server may have moved behind its name.
const TIMEOUTS_IN_A_ROW: u32 = 3;

/// How long a connection rests before it asks a silent server once more.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// What can be asked of the server.
pub(super) enum Request<'a> {
    /// A script, loaded again should the server have forgotten it.
    Script(&'a ScriptInvocation<'a>),
    /// A command that reads.
    Command(&'a Cmd),
}

/// A few connections, used in turns.
pub(super) struct Connections {
    links: Vec<Arc<Link>>,
    silence: Arc<Silence>,
    next: AtomicUsize,
    permits: Semaphore,
}

impl Connections {
    /// Makes connections that are opened when they are first used.
    pub(super) fn new(url: &str, metrics: &Metrics) -> Result<Self, OpenError> {
        let client = client(url)?;
        let silence = Arc::new(Silence::new());
        let link = |_| Link::new(client.clone(), Arc::clone(&silence), metrics.clone()).map(Arc::new);
        let links = (0..LINKS).map(link).collect::<Result<_, _>>()?;
        Ok(Self { links, silence, next: AtomicUsize::new(0), permits: Semaphore::new(IN_FLIGHT) })
    }

    /// The server's answer.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Value, Error> {
        if self.silence.is_silent() {
            return Err(Error::Unavailable(Cause::new(Cause::SILENT)));
        }
        let Ok(_permit) = self.permits.try_acquire() else { return Err(Error::Overloaded) };
        let link = &self.links[self.next.fetch_add(1, Ordering::Relaxed) % self.links.len()];
        let answer = link.ask(&request).await;
        if matches!(answer, Err(Error::TimedOut(_))) && self.silence.missed() {
            // Any of them may be the first to hear it again.
            for link in &self.links {
                tokio::spawn(probe(Arc::downgrade(link)));
            }
        }
        answer
    }
}

/// One connection, which opens itself again when it is lost.
struct Link {
    client: Client,
    manager: ArcSwap<ConnectionManager>,
    timeouts: AtomicU32,
    silence: Arc<Silence>,
    metrics: Metrics,
}

impl Link {
    fn new(client: Client, silence: Arc<Silence>, metrics: Metrics) -> Result<Self, OpenError> {
        let manager = manager(&client, &metrics).map_err(|error| OpenError::Client(Cause::from(&error)))?;
        Ok(Self { client, manager: ArcSwap::from_pointee(manager), timeouts: AtomicU32::new(0), silence, metrics })
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Value, Error> {
        let manager = self.manager.load_full();
        let answer = tokio::time::timeout(DEADLINE, ask_twice(&manager, request)).await;
        let error = match answer {
            Ok(Ok(answer)) => {
                self.timeouts.store(0, Ordering::Relaxed);
                self.silence.heard();
                return Ok(answer);
            }
            Ok(Err(error)) if error.is_timeout() => Error::TimedOut(RESPONSE_TIMEOUT),
            Ok(Err(error)) => {
                if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
                    self.silence.heard();
                }
                if is_elsewhere(&error) {
                    self.replace(&manager);
                }
                Error::Unavailable(Cause::from(&error))
            }
            Err(_) => Error::TimedOut(DEADLINE),
        };
        if matches!(error, Error::TimedOut(_)) && self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_IN_A_ROW
        {
            self.replace(&manager);
        }
        Err(error)
    }

    /// Asks a silent server whether it is there; whatever it says ends the silence.
    async fn probe(&self) {
        let manager = self.manager.load_full();
        let answer = self.ask(&Request::Command(&redis::cmd("PING"))).await;
        // After an operation, a probe too was in vain: perhaps it is only this connection that leads nowhere.
        if matches!(answer, Err(Error::TimedOut(_))) {
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

fn client(url: &str) -> Result<Client, OpenError> {
    let url = Url::parse(url).map_err(|_| OpenError::Url)?;
    match url.scheme() {
        "redis" | "rediss" | "unix" | "redis+unix" => {}
        "redis+cluster" => return Err(OpenError::Unsupported("redis+cluster")),
        "redis+sentinel" => return Err(OpenError::Unsupported("redis+sentinel")),
        _ => return Err(OpenError::Url),
    }
    // The one fragment that the client knows switches the verification of certificates off.
    if url.fragment().is_some() {
        return Err(OpenError::Url);
    }
    let refused = |error: RedisError| OpenError::Client(Cause::from(&error));
    let info = url.into_connection_info().map_err(refused)?;
    // With RESP3 the client notices a lost connection at once, not at the next command.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings)).map_err(refused)
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
    async fn more_than_can_be_served_is_refused_at_once() {
        let connections = Connections::new("redis+unix:///nonexistent/s", &Metrics::new()).unwrap();
        let ping = redis::cmd("PING");
        let away = connections.ask(Request::Command(&ping)).await;
        assert!(matches!(away, Err(Error::Unavailable(_))), "{away:?}");
        let _all = connections.permits.acquire_many(u32::try_from(IN_FLIGHT).unwrap()).await.unwrap();
        let refused = connections.ask(Request::Command(&ping)).await;
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    }

    #[test]
    fn a_replica_is_known_by_its_refusal() {
        for (name, code, detail, expected) in [
            ("as it is", "READONLY", "You can't write against a read only replica.", true),
            (
                "of a script before version 7",
                "ERR",
                "Error running script: @user_script:9: -READONLY You can't write",
                true,
            ),
            ("loading", "LOADING", "Redis is loading the dataset in memory", true),
            ("without its master", "MASTERDOWN", "Link with MASTER is down", true),
            ("out of memory", "OOM", "command not allowed when used memory > 'maxmemory'", false),
        ] {
            let line = format!("-{code} {detail}\r\n");
            let Ok(Value::ServerError(error)) = redis::parse_redis_value(line.as_bytes()) else { panic!("{name}") };
            let error = RedisError::from(error);
            assert_eq!(is_elsewhere(&error), expected, "{name}: {error}");
        }
    }

    #[test]
    fn addresses_are_taken_or_refused_without_being_repeated() {
        for (name, url, refusal) in [
            ("plain", "redis://127.0.0.1:6379", None),
            ("with a password and a database", "redis://:s3cret@127.0.0.1/2", None),
            ("TLS", "rediss://cache.example.com", None),
            ("a socket", "redis+unix:///run/redis.sock", None),
            ("a socket, short", "unix:///run/redis.sock", None),
            ("a cluster", "redis+cluster://:s3cret@a,b", Some("does not support redis+cluster")),
            ("sentinels", "redis+sentinel://:s3cret@a/main", Some("does not support redis+sentinel")),
            ("no verification", "rediss://:s3cret@cache.example.com/#insecure", Some("store.url must be")),
            ("another scheme", "http://:s3cret@cache.example.com", Some("store.url must be")),
            ("no address", "s3cret", Some("store.url must be")),
            ("a database that is no number", "redis://:s3cret@127.0.0.1/x", Some("cannot be used")),
        ] {
            let error = client(url).err().map(|error| format!("{error} {error:?}"));
            match (error, refusal) {
                (None, None) => {}
                (Some(error), Some(refusal)) => {
                    assert!(error.contains(refusal) && !error.contains("s3cret"), "{name}: {error}");
                }
                (error, _) => panic!("{name}: {error:?}"),
            }
        }
    }
}
