//! What goes on all the time: the other regions are probed, and the database is looked at.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Routing;
use crate::geo::{Refreshed, Switch};
use crate::model::chain;

/// How long after one round of probes the next one begins, on average. With two failures to go down, each within the
/// probe's time-out, clients are sent elsewhere 12 s after a region was lost, at the latest.
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// How often the database's file is compared with what was read. Kubernetes swaps links, which no file watch sees.
const DATABASE_EVERY: Duration = Duration::from_secs(30);

impl Routing {
    /// Probes the other regions and looks at the database, again and again until `stop`, each time under the configuration
    /// that `present` gives for it.
    pub async fn keep_watching(present: impl Fn() -> Arc<Self>, stop: CancellationToken) {
        let probing = async {
            loop {
                let routing = present();
                routing.probe().await;
                // A quarter more or less, so that the instances of a region do not walk in step.
                tokio::time::sleep(PROBE_EVERY.mul_f64(0.75 + routing.randomness.fraction() / 2.0)).await;
            }
        };
        let looking = async {
            loop {
                tokio::time::sleep(DATABASE_EVERY).await;
                present().refresh_database().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = probing => {}
            () = looking => {}
        }
    }

    /// One round: probes every other region, all at once.
    pub async fn probe(self: &Arc<Self>) {
        let mut probes: JoinSet<()> = (0..self.peers.len())
            .map(|index| {
                let routing = Arc::clone(self);
                async move { routing.probe_one(index).await }
            })
            .collect();
        while probes.join_next().await.is_some() {}
    }

    async fn probe_one(&self, index: usize) {
        let Some(peer) = self.peers.get(index) else { return };
        let found = peer.probe(&self.client).await;
        let region = peer.name.as_str();
        match peer.observe(found.is_ok(), self.clock.now()) {
            Some(Switch::Down) => {
                let reason = found.err().map(|reason| reason.to_string()).unwrap_or_default();
                warn!(region, reason, "a region is passed over: its broker does not say that it is ready");
            }
            Some(Switch::Up) => info!(region, "a region is used again"),
            None => return,
        }
        self.metrics.observe_health(&peer.name, peer.is_up());
    }

    /// Reads the database, if there is one and its file has changed. One that cannot be used is told once, and what was
    /// read before is used on.
    pub async fn refresh_database(&self) {
        let Some(database) = self.locator.database.clone() else { return self.metrics.forget_database() };
        let kept = Arc::clone(&database);
        match tokio::task::spawn_blocking(move || database.reload_if_changed()).await {
            Ok(Ok(Refreshed::Unchanged)) => {}
            Ok(Ok(Refreshed::Changed)) => {
                if let Some(description) = kept.description() {
                    info!(kind = description.kind, built_at = %description.built_at, "the database of addresses was read");
                }
            }
            Ok(Err(error)) => {
                let instead =
                    if kept.description().is_some() { "the old one is used on" } else { "addresses say nothing" };
                warn!(error = chain(&error), "the database of addresses cannot be used: {instead}");
            }
            Err(error) => warn!(error = chain(&error), "the database of addresses was not read"),
        }
        self.metrics.observe_database(kept.description().as_ref());
    }
}
