//! The domain service: what can be done with uploads, and in which order things happen so that nothing is lost.
//!
//! It joins the leaves, which do not know each other: policy decides, the store remembers, storage holds the bytes.
//! Every operation is safe to drop at any await and safe to repeat. What is written is written by one atomic step of
//! the store, and what storage was asked to do by then is either unknown to any client or found again by looking.

mod administer;
mod audit;
mod cancel;
mod clean_up;
mod complete;
mod create;
mod endpoints;
mod error;
#[cfg(test)]
#[cfg(feature = "demo")]
mod histories;
mod lag;
mod metrics;
mod notify;
#[cfg(test)]
#[cfg(feature = "demo")]
mod races;
mod recent;
mod renew;
mod sweep;
#[cfg(test)]
#[cfg(feature = "demo")]
pub(crate) mod tests;
mod transfer;
mod usage;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::info;

pub use administer::{MOST_PRINCIPALS, Owned, OwnedListing, Place, Selection, Whom};
pub use create::{CreateContext, Created, Creation};
pub use endpoints::{Endpoint, ParkedDeliveries, ParkedDelivery, Replayed};
pub use error::Error;
pub use metrics::Metrics;
pub use notify::Noticed;
pub use recent::Recent;
pub use sweep::{Round, SweepSettings};
pub use transfer::Offer;
pub use usage::{Sum, SumBy, SumOf, UsagePage, UsageRow, sums};
pub use watch::{Listener, Sight, Told, WatchLimits, Watchers};

use crate::clock::{Clock, Randomness};
use crate::model::id::{Partition, UploadId};
use crate::model::name::{BucketName, RegionName};
use crate::model::principal::Principal;
use crate::model::upload::{Evidence, Upload, Witness};
use crate::policy::{Policies, Policy};
use crate::routing::Routing;
use crate::storage::Storage;
use crate::store::{Advanced, Listing, Page, Store, Tracked, Usage};
use crate::telemetry::trace::{self, Tracer};

/// How often a transition is tried anew after another request came first. Each loser has seen the winner's state,
/// so a handful is plenty.
const TRANSITION_ATTEMPTS: usize = 5;

/// How often a session is recorded before the request fails. A store that is away says so at once by then, so that this
/// many pauses and one time-out stay within the margin of the lease.
const ATTACH_ATTEMPTS: usize = 6;

/// How long to wait in between: about as long as a store that answers again takes to be noticed.
const ATTACH_PAUSE: Duration = Duration::from_millis(300);

/// The uploads of this region, under one configuration.
///
/// Another configuration is another value, which shares the store, storage, the watchers and the metrics with the one
/// before it. An operation that has begun goes on under the configuration that it began with.
pub struct Uploads {
    /// Tells the time.
    pub clock: Clock,
    /// Makes ids.
    pub randomness: Randomness,
    /// Who may upload what.
    pub policies: Policies,
    /// What is known.
    pub store: Arc<Store>,
    /// Where the bytes go.
    pub storage: Arc<Storage>,
    /// The region that this broker serves.
    pub region: Region,
    /// All regions of the deployment, this one included.
    pub regions: Vec<Region>,
    /// Which of them should take an upload.
    pub routing: Arc<Routing>,
    /// Who is told how uploads end.
    pub endpoints: Vec<Endpoint>,
    /// Hears of the partitions in which somebody is to be told now; others find it later.
    pub ended: mpsc::Sender<Partition>,
    /// How long one operation of storage may take. Leases are made of it.
    pub storage_timeout: Duration,
    /// When uploads are looked at that nobody asks for.
    pub sweeper: SweepSettings,
    /// Who listens to which upload.
    pub watchers: Arc<Watchers>,
    /// What the store may still lose.
    pub recent: Arc<Recent>,
    /// Where sweeps are traced, if they are.
    pub tracer: Option<Arc<Tracer>>,
    /// What happened.
    pub metrics: Metrics,
}

/// One deployment of the broker, beside its bucket.
#[derive(Clone, Debug)]
pub struct Region {
    /// What it is called.
    pub name: RegionName,
    /// The bucket beside it.
    pub bucket: BucketName,
    /// Where its broker is.
    pub url: url::Url,
}

/// Whether storage is asked before an upload is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What is known is good enough.
    Known,
    /// Storage is asked how many bytes it has.
    Refreshed,
}

/// A policy that a caller may use, and what is left of its limits.
pub struct Allowance<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// What the caller has used.
    pub usage: Usage,
}

impl Uploads {
    /// Shows in metrics what happens to uploads of each policy.
    pub fn introduce_policies(&self) {
        for policy in self.policies.all() {
            self.metrics.introduce(policy, &self.region.name);
        }
    }

    /// The caller's upload, as it is known or as storage has it.
    ///
    /// # Errors
    /// [`Error::NotFound`] also for another principal's; [`Error::Store`] and [`Error::Storage`] when these fail.
    pub async fn find(
        &self,
        principal: &Principal,
        id: UploadId,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<Tracked, Error> {
        let tracked = self.owned(principal, id).await?;
        match freshness {
            Freshness::Known => self.ended_in_time(tracked, deadline).await,
            Freshness::Refreshed if self.has_run_out(&tracked.upload) => {
                self.end(tracked, Evidence::TimeRanOut, Witness::Client, deadline).await
            }
            Freshness::Refreshed => self.refresh(tracked, deadline).await,
        }
    }

    /// The upload, ended if its time is over. While storage cannot do its part in that it is given as it is known, but
    /// without its session: that is not to be used any more.
    async fn ended_in_time(&self, tracked: Tracked, deadline: Instant) -> Result<Tracked, Error> {
        if !self.has_run_out(&tracked.upload) {
            return Ok(tracked);
        }
        match self.end(tracked.clone(), Evidence::TimeRanOut, Witness::Client, deadline).await {
            Err(Error::Storage(error)) => {
                info!(upload.id = %tracked.upload.id, error = %error, "an upload whose time is over is not ended yet");
                Ok(Tracked { session: None, ..tracked })
            }
            ended => ended,
        }
    }

    /// The caller's uploads, newest first. Those whose time is over and that nothing has ended are without a session.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn list(&self, principal: &Principal, page: &Page) -> Result<Listing, Error> {
        let mut listing = self.store.list(principal.id, page, self.clock.now()).await?;
        for tracked in &mut listing.uploads {
            if self.has_run_out(&tracked.upload) {
                tracked.session = None;
            }
        }
        Ok(listing)
    }

    /// The policies that admit the caller, in configuration order, with what is left of each limit.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn allowances<'a>(&'a self, principal: &'a Principal) -> Result<Vec<Allowance<'a>>, Error> {
        let admitting: Vec<&Policy> = self.policies.admitting(principal).collect();
        let limits: Vec<_> = admitting.iter().map(|policy| (policy.name(), policy.limits())).collect();
        let usage = self.store.usage(principal.id, &limits, self.clock.now()).await?;
        Ok(admitting.into_iter().zip(usage).map(|(policy, usage)| Allowance { policy, usage }).collect())
    }

    /// The upload, if it is the caller's.
    async fn owned(&self, principal: &Principal, id: UploadId) -> Result<Tracked, Error> {
        trace::record("upload.id", || id.to_string());
        // An id of another partition cannot be the caller's; the store need not be asked.
        if id.partition() != principal.id.partition() {
            return Err(Error::NotFound);
        }
        let tracked = self.store.find(id).await?.ok_or(Error::NotFound)?;
        if tracked.upload.principal != principal.id {
            return Err(Error::NotFound);
        }
        trace::record("upload.policy", || tracked.upload.policy.to_string());
        Ok(tracked)
    }

    /// Whether the upload's time is over although nothing has ended it.
    fn has_run_out(&self, upload: &Upload) -> bool {
        !upload.state.is_final() && upload.expires_at <= self.clock.now()
    }

    /// Records what `evidence` makes of the upload, once, whoever else is at it.
    ///
    /// Gives the upload as it then is: with this evidence, or with what came first and made it final.
    async fn record(&self, mut tracked: Tracked, evidence: Evidence) -> Result<Tracked, Error> {
        for _ in 0..TRANSITION_ATTEMPTS {
            let session = tracked.session.clone();
            match self.attempt(tracked, evidence.clone()).await? {
                Attempt::Settled(settled) => return Ok(settled),
                Attempt::Overtaken(current) if current.session != session && !current.upload.state.is_final() => {
                    // What a session had says nothing of the one that has replaced it.
                    if matches!(evidence, Evidence::Persisted(_)) {
                        return Ok(current);
                    }
                    // An object ends the upload, and so the session that a renewal has opened meanwhile.
                    if let Some(other) = &current.session {
                        self.discard(&current.upload, other).await;
                    }
                    tracked = current;
                }
                Attempt::Overtaken(current) => tracked = current,
            }
        }
        Err(Error::Contended)
    }

    /// Has deliveries about the upload made now. Where too many others are waiting, they are found a little later.
    fn hint_at(&self, id: UploadId) {
        let _ = self.ended.try_send(id.partition());
    }

    /// Records what `evidence` makes of the upload, unless someone else has changed it since it was read.
    async fn attempt(&self, tracked: Tracked, evidence: Evidence) -> Result<Attempt, Error> {
        let now = self.clock.now();
        let Ok(next) = tracked.upload.state.after(evidence, now) else { return Ok(Attempt::Settled(tracked)) };
        if next == tracked.upload.state {
            return Ok(Attempt::Settled(tracked));
        }
        let due = self.next_look(&tracked.upload, &next);
        let tell = endpoints::told_of(&self.endpoints, &next);
        match self.store.advance(&tracked, next, due, &tell, now).await? {
            Advanced::Done(advanced) => {
                self.metrics.observe_transition(&tracked.upload.state, &advanced.upload);
                if advanced.upload.state.is_final() {
                    self.remember(&advanced);
                }
                if !tell.is_empty() {
                    self.hint_at(advanced.upload.id);
                }
                self.watchers.nudge(advanced.upload.id);
                Ok(Attempt::Settled(advanced))
            }
            Advanced::Conflict(current) => Ok(Attempt::Overtaken(current)),
            Advanced::Vanished => Err(Error::NotFound),
        }
    }
}

/// What became of an attempt to record something.
enum Attempt {
    /// The upload is as given: changed by this, or beyond change.
    Settled(Tracked),
    /// Another request came first; this is what it made of the upload.
    Overtaken(Tracked),
}
