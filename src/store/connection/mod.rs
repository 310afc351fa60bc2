//! The connections to Redis: bounded in number, in what waits on them and in how long it waits.
//!
//! A [`Link`] leads to one server. Behind Sentinels there is one link, to whoever is master; in a cluster
//! there is one to each node. Who serves is found by code of our own rather than by the client's: that of version 1.8
//! never reads the topology again after a time-out, loads a script on every master or not at all, and while it reads the
//! topology it holds back the requests to all nodes.

mod address;
mod cluster;
mod inspection;
mod link;
mod search;
mod sentinel;
pub(super) mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, ScriptInvocation, TlsCertificates, Value};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::error::{Error, OpenError};
use super::metrics::Metrics;
use address::Address;
use cluster::Cluster;
use link::{Failure, Link};
use sentinel::Sentinels;

pub(super) use address::wrong_with_hosts;
pub use inspection::ServerFacts;

/// How many operations may be under way. At a few hundred microseconds each on a loaded server, so many take two
/// seconds: more would only time out.
const IN_FLIGHT: usize = 8192;

/// How long an operation may take, its second attempt included.
const DEADLINE: Duration = Duration::from_millis(2500);

/// What can be asked of the server.
pub(super) enum Request<'a> {
    /// A script, loaded again should the server have forgotten it.
    Script(&'a ScriptInvocation<'a>),
    /// A command that reads.
    Command(&'a Cmd),
}

/// The way to whoever serves, and a bound on who waits there.
pub(super) struct Connections {
    servers: Servers,
    permits: Semaphore,
    /// Whether operators were told what is amiss with the servers.
    is_inspected: AtomicBool,
}

enum Servers {
    One(Arc<Link>),
    Sentinels(Arc<Sentinels>),
    Cluster(Arc<Cluster>),
}

impl Connections {
    /// Makes connections that are opened when they are first used.
    pub(super) fn new(url: &str, certificates: Option<&TlsCertificates>, metrics: &Metrics) -> Result<Self, OpenError> {
        let servers = match Address::parse(url)?.with(certificates)? {
            Address::Server(info) => Servers::One(Link::new(info, metrics)?),
            Address::Sentinels { sentinels, master, server } => {
                Servers::Sentinels(Sentinels::new(sentinels, &master, server, metrics)?)
            }
            Address::Cluster(nodes) => Servers::Cluster(Cluster::new(nodes, metrics)?),
        };
        Ok(Self { servers, permits: Semaphore::new(IN_FLIGHT), is_inspected: AtomicBool::new(false) })
    }

    /// The answer of the server that has the keys; all keys of a request are in one slot of a cluster.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Value, Error> {
        let Ok(_permit) = self.permits.try_acquire() else { return Err(Error::Overloaded) };
        let answer = match &self.servers {
            Servers::One(link) => link.ask(&request).await.map_err(Failure::into_error),
            // Boxed: most of a search is never needed, and would make every operation's future larger.
            Servers::Sentinels(sentinels) => in_time(Box::pin(sentinels.ask(&request))).await,
            Servers::Cluster(cluster) => in_time(Box::pin(cluster.ask(&request))).await,
        };
        if answer.is_ok() && !self.is_inspected.load(Ordering::Relaxed) {
            self.inspect();
        }
        answer
    }

    /// Tells operators once what is amiss with the servers, which answer.
    fn inspect(&self) {
        if !self.is_inspected.swap(true, Ordering::Relaxed) {
            tokio::spawn(inspection::inspect(self.masters()));
        }
    }

    /// What the masters tell of themselves, as far as they are known and answer.
    pub(super) async fn facts(&self) -> Vec<ServerFacts> {
        let mut asked = JoinSet::new();
        for server in self.masters() {
            asked.spawn(async move { inspection::ask(&server).await });
        }
        let mut facts = asked.join_all().await;
        facts.sort_unstable_by(|one, other| one.address.cmp(&other.address));
        facts
    }

    fn masters(&self) -> Vec<Arc<Link>> {
        match &self.servers {
            Servers::One(link) => vec![Arc::clone(link)],
            Servers::Sentinels(sentinels) => sentinels.master().into_iter().collect(),
            Servers::Cluster(cluster) => cluster.masters(),
        }
    }

    /// Whether writes are served: `write` is one that changes nothing. A cluster serves while one of its masters does:
    /// the partitions of the others fail one by one.
    pub(super) async fn probe(&self, write: &Cmd) -> Result<(), Error> {
        match &self.servers {
            Servers::One(_) | Servers::Sentinels(_) => self.ask(Request::Command(write)).await.map(drop),
            Servers::Cluster(cluster) => {
                in_time(Box::pin(cluster.probe(write))).await?;
                self.inspect();
                Ok(())
            }
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(DEADLINE, asked).await.unwrap_or(Err(Error::TimedOut(DEADLINE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_can_be_served_is_refused_at_once() {
        let connections = Connections::new("redis+unix:///nonexistent/s", None, &Metrics::new()).unwrap();
        let ping = redis::cmd("PING");
        let away = connections.ask(Request::Command(&ping)).await;
        assert!(matches!(away, Err(Error::Unavailable(_))), "{away:?}");
        let _all = connections.permits.acquire_many(u32::try_from(IN_FLIGHT).unwrap()).await.unwrap();
        let refused = connections.ask(Request::Command(&ping)).await;
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    }
}
