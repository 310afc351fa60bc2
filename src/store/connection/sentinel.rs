//! The master that Sentinels name.
//!
//! A master that was found is asked until it is away, hangs, or says that it is a replica; then Sentinels are asked
//! again. They are also asked every second: when a failover is ordered, the old master goes on as one until it is told
//! otherwise, which was seen to take ten seconds, and what it takes meanwhile is lost. What more than half of them name
//! is believed, and otherwise what most of those name that answer in time; and only if the server that is named says
//! itself that it is the master ("Guidelines for Redis clients with support for Redis Sentinel").

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::{ConnectionInfo, Value};
use tokio::task::JoinSet;

use super::super::error::{Cause, Error, OpenError};
use super::super::metrics::Metrics;
use super::Request;
use super::link::{Failure, Lead, Link, info_at};
use super::search::{PATIENCE, Search};

/// How often Sentinels are asked although the master seems well.
const WATCH: Duration = Duration::from_secs(1);

/// The Sentinels, and the link to the master that they named last.
pub(super) struct Sentinels {
    links: Vec<Arc<Link>>,
    name: String,
    template: ConnectionInfo,
    master: ArcSwapOption<Link>,
    search: Search,
    metrics: Metrics,
}

impl Sentinels {
    pub(super) fn new(
        sentinels: Vec<ConnectionInfo>,
        name: &str,
        template: ConnectionInfo,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, OpenError> {
        // Connections to Sentinels are not connections to the store: operators count those.
        let link = |info| Link::new(info, &Metrics::new());
        let sentinels = Arc::new(Self {
            links: sentinels.into_iter().map(link).collect::<Result<_, _>>()?,
            name: name.to_owned(),
            template,
            master: ArcSwapOption::empty(),
            search: Search::default(),
            metrics: metrics.clone(),
        });
        tokio::spawn(watch(Arc::downgrade(&sentinels)));
        Ok(sentinels)
    }

    /// The master's answer.
    pub(super) async fn ask(self: &Arc<Self>, request: &Request<'_>) -> Result<Value, Error> {
        let started = Instant::now();
        let master = match self.master.load_full() {
            Some(master) => master,
            None => self.find_master(started).await?,
        };
        let error = match master.ask(request).await {
            Err(Failure { error, lead: Lead::Elsewhere }) => error,
            answer => return answer.map_err(Failure::into_error),
        };
        if matches!(error, Error::TimedOut(_)) {
            // Patience is used up: whoever comes next finds the new master.
            self.search_behind();
            return Err(error);
        }
        let now = self.find_master(started).await?;
        if Arc::ptr_eq(&now, &master) {
            return Err(error);
        }
        now.ask(request).await.map_err(Failure::into_error)
    }

    /// The master that was named last.
    pub(super) fn master(&self) -> Option<Arc<Link>> {
        self.master.load_full()
    }

    async fn find_master(&self, since: Instant) -> Result<Arc<Link>, Error> {
        self.search.since(since, self.look()).await.map_err(Error::Unavailable)?;
        self.master.load_full().ok_or_else(|| Error::Unavailable(Cause::new(Cause::NO_MASTER)))
    }

    fn search_behind(self: &Arc<Self>) {
        if !self.search.is_fresh() {
            let sentinels = Arc::clone(self);
            tokio::spawn(async move { sentinels.search.since(Instant::now(), sentinels.look()).await });
        }
    }

    /// Makes the master the one that Sentinels name.
    async fn look(&self) -> Result<(), Cause> {
        let address = self.named().await?;
        let info = info_at(&self.template, &address).ok_or_else(|| Cause::new(Cause::NO_MASTER))?;
        let before = self.master.load_full();
        if before.as_ref().is_some_and(|master| master.address() == info.addr()) {
            return Ok(());
        }
        let master = Link::new(info, &self.metrics).map_err(|_| Cause::new(Cause::NO_MASTER))?;
        let role = redis::cmd("ROLE");
        let role = tokio::time::timeout(PATIENCE, master.ask(&Request::Command(&role))).await;
        match role {
            Ok(Ok(role)) if says_master(&role) => {}
            Ok(Err(failure)) => return Err(failure.cause()),
            _ => return Err(Cause::new(Cause::NO_MASTER)),
        }
        if before.is_some() {
            tracing::warn!(server.address = %address, "the store has another master");
            self.metrics.reconnects.inc();
        }
        self.master.store(Some(master));
        Ok(())
    }

    /// The address that most Sentinels name.
    async fn named(&self) -> Result<String, Cause> {
        let mut asked = JoinSet::new();
        for sentinel in &self.links {
            let (sentinel, name) = (Arc::clone(sentinel), self.name.clone());
            asked.spawn(async move {
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
                sentinel.within(PATIENCE, sentinel.ask(&Request::Command(&command))).await
            });
        }
        let mut votes = BTreeMap::<String, usize>::new();
        let mut cause = Cause::new(Cause::NO_MASTER);
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Some(Ok(answer))) => {
                    let Ok((host, port)) = redis::from_redis_value::<(String, u16)>(answer) else { continue };
                    let count = votes.entry(format!("{host}:{port}")).or_default();
                    *count += 1;
                    if *count > self.links.len() / 2 {
                        break;
                    }
                }
                Ok(Some(Err(failure))) => cause = failure.cause(),
                _ => {}
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(address, _)| address).ok_or(cause)
    }
}

/// Follows the master until nobody has the Sentinels any more.
async fn watch(sentinels: Weak<Sentinels>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let Some(sentinels) = sentinels.upgrade() else { return };
        // Whoever asks for the master and does not get it says so.
        let _ = sentinels.search.since(Instant::now(), sentinels.look()).await;
    }
}

/// Whether this answer of `ROLE` is a master's.
fn says_master(role: &Value) -> bool {
    match role {
        Value::Array(role) => matches!(role.first(), Some(Value::BulkString(role)) if role == b"master"),
        _ => false,
    }
}
