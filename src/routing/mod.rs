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
use tracing::info;
use url::Url;

pub use decide::{Arrival, Choice, Hop, Placed, Question};
pub use metrics::Metrics;
pub use peer::{FORWARDED, Forward, Forwarded, Relay, Unready, region_of};

use self::metrics::ForwardResult;
use self::peer::{Peer, client};
use crate::clock::{Clock, Randomness};
use crate::geo::{Candidate, Database, HeaderName, Location, Locator, Misdirected, Ranked, Wanted, nearest};
use crate::model::name::RegionName;
use crate::telemetry::trace::{self, Kind};

/// What [`Routing`] is made of.
pub struct Settings<'a> {
    /// The region of this broker.
    pub own: RegionName,
    /// What a reload may replace.
    pub map: Map,
    /// Authorities to be trusted besides the system's.
    pub trusted_ca: Vec<Certificate>,
    /// What other brokers see as the user agent.
    pub user_agent: &'a str,
}

/// What [`Routing`] knows of regions and clients.
pub struct Map {
    /// All regions, in the order of the configuration, each with the address of its broker.
    pub regions: Vec<(Candidate, Url)>,
    /// What becomes of requests that another region is nearer for.
    pub misdirected: Misdirected,
    /// The header in which a trusted proxy tells where its client is.
    pub header: Option<HeaderName>,
    /// The database that addresses are looked up in.
    pub database: Option<Arc<Database>>,
}

impl Settings<'_> {
    /// Those of a deployment that has one region.
    pub fn of_one_region(own: RegionName, url: Url) -> Self {
        let region = Candidate { name: own.clone(), coordinates: None, countries: Vec::new() };
        Settings {
            own,
            map: Map {
                regions: vec![(region, url)],
                misdirected: Misdirected::default(),
                header: None,
                database: None,
            },
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
    peers: Vec<Arc<Peer>>,
    client: reqwest::Client,
    misdirected: Misdirected,
}

impl Routing {
    /// Nothing is asked of the network or read from disk yet. Every region counts as up until probes say otherwise.
    ///
    /// # Errors
    /// When no HTTP client can be set up.
    pub fn new(settings: Settings<'_>, clock: Clock, randomness: Randomness) -> Result<Self, reqwest::Error> {
        let Settings { own, map, trusted_ca, user_agent } = settings;
        let client = client(trusted_ca, user_agent)?;
        Ok(Self::of(map, own, &[], client, Metrics::default(), clock, randomness))
    }

    /// The same under another map. What probes found stays with the regions whose broker is where it was.
    #[must_use]
    pub fn reconfigured(&self, map: Map) -> Self {
        let Self { own, peers, client, metrics, clock, randomness, .. } = self;
        Self::of(map, own.clone(), peers, client.clone(), metrics.clone(), clock.clone(), randomness.clone())
    }

    fn of(
        map: Map,
        own: RegionName,
        known: &[Arc<Peer>],
        client: reqwest::Client,
        metrics: Metrics,
        clock: Clock,
        randomness: Randomness,
    ) -> Self {
        let Map { regions, misdirected, header, database } = map;
        let others = regions.iter().filter(|(region, _)| region.name != own);
        let kept_or_new = |(region, url): &(Candidate, Url)| {
            let kept = known.iter().find(|peer| peer.is_at(&region.name, url)).map(Arc::clone);
            kept.unwrap_or_else(|| Arc::new(Peer::new(region.name.clone(), url.clone())))
        };
        let peers = others.map(kept_or_new).collect();
        let (candidates, urls) = regions.into_iter().unzip();
        let locator = Locator { header, database };
        Self { locator, metrics, clock, randomness, own, candidates, urls, peers, client, misdirected }
    }

    /// Shows in metrics which of the other regions are up, and of no others; and what came of forwards to them.
    pub fn introduce_peers(&self) {
        self.metrics.forget_health();
        for peer in &self.peers {
            self.metrics.introduce_forwards(&peer.name);
            self.metrics.observe_health(&peer.name, peer.is_up());
        }
    }

    /// The region of this broker.
    pub fn own(&self) -> &RegionName {
        &self.own
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
        let asking = peer.forward(&self.client, &self.own, forward);
        let asked = trace::child_told("region forward", Kind::Client, asking, |span, outcome| {
            if let Err(result) = outcome {
                span.fail(result.name());
            }
        });
        match asked.await {
            Ok(relay) => {
                self.metrics.observe_forward(region, ForwardResult::of(relay.status));
                // What the broker there calls the request is the only thread from one region's log to the other's.
                let there = relay.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
                info!(region = region.as_str(), status = relay.status.as_u16(), there, "a nearer region has answered");
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
        self.peers.iter().find(|peer| peer.name == *region).is_none_or(|peer| peer.is_up())
    }

    fn wanted<'a>(
        &'a self,
        location: &'a Location,
        residency: Option<&'a [RegionName]>,
    ) -> Wanted<'a, impl Fn(&RegionName) -> bool> {
        Wanted { location, serving: &self.own, residency, healthy: |region: &RegionName| self.is_up(region) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(others: &[(&str, &str)]) -> Map {
        let region = |(name, url): &(&str, &str)| {
            let candidate = Candidate { name: name.parse().unwrap(), coordinates: None, countries: Vec::new() };
            (candidate, url.parse().unwrap())
        };
        let regions = [("here", "https://here.example")].iter().chain(others).map(region).collect();
        Map { regions, misdirected: Misdirected::Serve, header: None, database: None }
    }

    #[test]
    fn another_map_keeps_what_is_known_of_brokers_that_are_where_they_were() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let before =
            map(&[("stays", "https://a.example"), ("moves", "https://b.example"), ("goes", "https://c.example")]);
        let settings =
            Settings { own: "here".parse().unwrap(), map: before, trusted_ca: Vec::new(), user_agent: "test" };
        let before = Routing::new(settings, Clock::System, Randomness::seeded(1)).unwrap();
        let at = Clock::System.now();
        for peer in &before.peers {
            while peer.is_up() {
                peer.observe(false, at);
            }
        }
        let after = before.reconfigured(map(&[
            ("moves", "https://d.example"),
            ("stays", "https://a.example"),
            ("comes", "https://c.example"),
        ]));
        for (name, up) in [("here", true), ("stays", false), ("moves", true), ("comes", true)] {
            assert_eq!(after.is_up(&name.parse().unwrap()), up, "{name}");
        }
        after.introduce_peers();
        let mut registry = prometheus_client::registry::Registry::default();
        before.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let shown = |region: &str| text.contains(&format!("region_healthy{{peer=\"{region}\"}}"));
        assert!(shown("stays") && shown("comes") && !shown("goes"), "{text}");
    }
}
