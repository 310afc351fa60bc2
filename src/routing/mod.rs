//! Which region should take an upload, and what becomes of a request that came to another one.
//!
//! A session stays in the region that opened it, so each upload should begin in the one that is nearest to its client.
//! `geo` knows distances, and this module what follows from them: it joins the order of regions with their health, the
//! residency of policies and the operator's wish, and it talks to the brokers of the other regions.
//!
//! ```text
//! decide.rs    here, there, or a refusal: pure
//! peer.rs      the broker of another region: asked whether it is up, and to take an upload
//! watch.rs     what goes on all the time: probes, and looks at the database
//! metrics.rs   what came of it, in numbers
//! ```
//!
//! Residency comes first everywhere: a region that a policy does not name is never chosen, whatever is near, down, or
//! configured.

mod decide;
mod metrics;
mod peer;
mod watch;

use std::sync::Arc;

use reqwest::Certificate;
use tracing::{debug, info};
use url::Url;

pub use decide::{Arrival, Choice, Hop, Placed, Question};
pub use metrics::Metrics;
pub use peer::{FORWARDED, Forward, Forwarded, LOCATED_BY, LOCATION, Relay};

use self::metrics::ForwardResult;
use self::peer::{Peer, client};
use crate::clock::{Clock, Randomness};
use crate::geo::{Candidate, Database, HeaderName, Location, Locator, Misdirected, Ranked, Wanted, nearest};
use crate::model::name::RegionName;

/// What [`Routing`] is made of.
pub struct Settings<'a> {
    /// The region of this broker.
    pub own: RegionName,
    /// All regions, in the order of the configuration, each with the address of its broker.
    pub regions: Vec<(Candidate, Url)>,
    /// What becomes of requests that another region is nearer for.
    pub misdirected: Misdirected,
    /// The header in which a trusted proxy tells where its client is.
    pub header: Option<HeaderName>,
    /// The database that addresses are looked up in.
    pub database: Option<Database>,
    /// Authorities to be trusted besides the system's.
    pub trusted_ca: Vec<Certificate>,
    /// What other brokers see as the user agent.
    pub user_agent: &'a str,
}

impl Settings<'_> {
    /// Those of a deployment that has one region.
    pub fn of_one_region(own: RegionName, url: Url) -> Self {
        let region = Candidate { name: own.clone(), coordinates: None, countries: Vec::new() };
        Settings {
            own,
            regions: vec![(region, url)],
            misdirected: Misdirected::default(),
            header: None,
            database: None,
            trusted_ca: Vec::new(),
            user_agent: "upload-broker",
        }
    }
}

/// Where clients are sent, as one region sees it.
pub struct Routing {
    /// Says where a client is.
    pub locator: Locator,
    /// What came of it.
    pub metrics: Metrics,
    clock: Clock,
    randomness: Randomness,
    own: RegionName,
    candidates: Vec<Candidate>,
    urls: Vec<Url>,
    peers: Vec<Peer>,
    client: reqwest::Client,
    misdirected: Misdirected,
}

impl Routing {
    /// Nothing is asked of the network or read from disk yet. Every region counts as up until probes say otherwise.
    ///
    /// # Errors
    /// When no HTTP client can be set up.
    pub fn new(settings: Settings<'_>, clock: Clock, randomness: Randomness) -> Result<Self, reqwest::Error> {
        let Settings { own, regions, misdirected, header, database, trusted_ca, user_agent } = settings;
        let metrics = Metrics::default();
        let others = regions.iter().filter(|(region, _)| region.name != own);
        let peers: Vec<_> = others.map(|(region, url)| Peer::new(region.name.clone(), url.clone())).collect();
        for peer in &peers {
            metrics.observe_health(&peer.name, true);
        }
        let (candidates, urls) = regions.into_iter().unzip();
        let locator = Locator { header, database: database.map(Arc::new) };
        let client = client(trusted_ca, user_agent)?;
        Ok(Self { locator, metrics, clock, randomness, own, candidates, urls, peers, client, misdirected })
    }

    /// The region of this broker.
    pub fn own(&self) -> &RegionName {
        &self.own
    }

    /// Whether there is another region of this name.
    pub fn knows_other(&self, region: &RegionName) -> bool {
        self.peers.iter().any(|peer| peer.name == *region)
    }

    /// All regions in the order in which a client there is sent to them, each with the address of its broker.
    pub fn order(&self, location: &Location) -> Vec<(Ranked<'_>, &Url)> {
        let order = nearest(&self.candidates, &self.wanted(location, None));
        let with_url = |ranked: Ranked<'_>| {
            let at = self.candidates.iter().position(|candidate| candidate.name == ranked.region.name)?;
            self.urls.get(at)
        };
        order.into_iter().filter_map(|ranked| Some((ranked, with_url(ranked)?))).collect()
    }

    /// Decides where an upload goes that is bound to `residency`. `None` when it may be nowhere.
    pub fn place(&self, arrival: &Arrival, residency: Option<&[RegionName]>) -> Option<Placed<'_>> {
        let wanted = self.wanted(&arrival.located.location, residency);
        Question { wanted, misdirected: self.misdirected, hop: arrival.hop }.answer(&self.candidates)
    }

    /// Asks the broker of another region to take an upload, and gives up by the forward's deadline.
    ///
    /// Dropped, or after a failure, it may have been taken there all the same: then nobody is told its session.
    pub async fn forward(&self, region: &RegionName, forward: Forward) -> Forwarded {
        let Some(peer) = self.peers.iter().find(|peer| peer.name == *region) else { return Forwarded::Failed };
        match peer.forward(&self.client, &self.own, forward).await {
            Ok(relay) => {
                self.metrics.observe_forward(region, ForwardResult::of(relay.status));
                let there = relay.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
                debug!(region = region.as_str(), status = relay.status.as_u16(), there, "a nearer region has answered");
                Forwarded::Answered(relay)
            }
            Err(result) => {
                self.metrics.observe_forward(region, result);
                info!(
                    region = region.as_str(),
                    result = result.name(),
                    "a nearer region could not decide on an upload"
                );
                Forwarded::Failed
            }
        }
    }

    /// Whether the region is up. Its own broker, which asks this, is.
    fn is_up(&self, region: &RegionName) -> bool {
        self.peers.iter().find(|peer| peer.name == *region).is_none_or(Peer::is_up)
    }

    fn wanted<'a>(
        &'a self,
        location: &'a Location,
        residency: Option<&'a [RegionName]>,
    ) -> Wanted<'a, impl Fn(&RegionName) -> bool> {
        Wanted { location, serving: &self.own, residency, healthy: |region: &RegionName| self.is_up(region) }
    }
}
