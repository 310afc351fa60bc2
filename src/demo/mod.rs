//! The whole product in one process: a broker, an edge and a storage emulator for each of several regions, an issuer, and a
//! page to upload from.
//!
//! Nothing here is used by the service. The brokers of the demo are those of `serve`, wired by the same [`App`], and they
//! know each other by their configurations as brokers in different places would; only what stands around them is made up.
//!
//! ```text
//! page ── site.rs (issuer, files of the page) ── switches.rs, view.rs (/demo/…) ── globe.rs (the world: client, network, regions)
//!   │                                                                        │ distance.rs (what it costs)
//!   ├─── edge.rs ── App ──┐                                                   │
//!   └──────────── Emulator┴── one of each in every region, told by the globe ─┘
//! ```
//!
//! [`Demo::upload_samples`] (`samples.rs`) shows what clients get over, and [`Demo::tour`] (`tour.rs`) what distance costs.

mod configuration;
mod distance;
mod edge;
mod globe;
mod samples;
mod site;
mod switches;
mod table;
mod tour;
mod view;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use samples::{Expected, Row, table};
pub use tour::{CAPTION, Journey, Leg, tour_table};

use crate::app::{App, Background, Ended, World};
use crate::clock::{Clock, Randomness};
use crate::config;
use crate::emulator::{self, BucketSettings, Emulator};
use crate::geo::Country;
use crate::http::gate::Transport;
use crate::storage;
use crate::uploads::WatchLimits;
use configuration::{Deployment, configuration};
use edge::{Edge, Way};
use globe::{Globe, Region};
use site::Site;

/// A region that can be played.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: &'static str,
    bucket: &'static str,
}

/// The regions, in the order in which there are more of them.
const PLACES: [Place; MOST_REGIONS] = [
    Place { name: "europe-west1", bucket: "media-eu" },
    Place { name: "us-central1", bucket: "media-us" },
    Place { name: "asia-northeast1", bucket: "media-asia" },
];

/// How many regions there can be.
pub const MOST_REGIONS: usize = 3;

/// How a demo is to be.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The port of the page, on the loopback address; 0 takes a free one. Everything else is wherever there is room.
    pub port: u16,
    /// How many regions there are, 1 to [`MOST_REGIONS`].
    pub regions: usize,
    /// Where the client is at first.
    pub country: Country,
    /// Where the keys are put that URLs are signed with. Others should not be able to read it.
    pub folder: &'a Path,
}

/// A running demo.
pub struct Demo {
    site: Site,
    globe: Arc<Globe>,
    storages: Vec<Emulator>,
    operations: Vec<SocketAddr>,
    stop: CancellationToken,
    serving: JoinSet<Ended>,
}

impl Demo {
    /// Starts everything.
    ///
    /// # Errors
    /// When an address cannot be had, or a key cannot be written.
    pub async fn start(settings: Settings<'_>) -> anyhow::Result<Self> {
        let Settings { port, regions, country, folder } = settings;
        let places = &PLACES[..regions.clamp(1, MOST_REGIONS)];
        let mut site = Site::bind(loopback(port)).await.with_context(|| format!("cannot listen on port {port}"))?;
        let (mut storages, mut edges, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for place in places {
            storages.push(storage_of(place).await.context("a storage emulator cannot listen")?);
            let edge = Edge::bind().await.context("an edge cannot listen")?;
            named.push((*place, edge.url()));
            edges.push(edge);
        }
        let (issuer, origins) = (site.url(), site.origins());
        let deployment = Deployment { issuer: &issuer, origins: &origins, regions: &named };

        let mut apps = Vec::new();
        for (own, storage) in named.iter().zip(&storages) {
            let key = folder.join(format!("{}.json", own.0.name));
            let text = storage.service_account_key().context("the storage emulator has no service account")?;
            tokio::fs::write(&key, text).await.with_context(|| format!("{} cannot be written", key.display()))?;
            let text = configuration(&deployment, own, &storage.url(), &key);
            let config = config::load(&text, "demo.toml".as_ref(), std::iter::empty())
                .map_err(|errors| anyhow::anyhow!("the demo's own configuration: {errors}"))?;
            apps.push(App::bind(&config, world()).await?);
        }
        let operations = apps.iter().map(App::operations_addr).collect();

        let stop = CancellationToken::new();
        let mut played = Vec::new();
        for (((place, url), (edge, app)), storage) in named.into_iter().zip(edges.into_iter().zip(&apps)).zip(&storages)
        {
            let (candidate, town) = globe::candidate(place.name).context("a region is not one of Google's")?;
            let way = watch::Sender::new(Way { country, round_trip: Duration::ZERO, running: true });
            edge.serve(app.public_addr(), way.subscribe(), stop.clone());
            let (storage, network) = (storage.url(), storage.network());
            played.push(Region { candidate, place: town, bucket: place.bucket, broker: url, storage, way, network });
        }
        let globe = Arc::new(Globe::new(played, country));
        site.serve(&globe, stop.clone());
        let mut serving = JoinSet::new();
        for app in apps {
            serving.spawn(app.serve(stop.clone(), Duration::ZERO));
        }
        Ok(Self { site, globe, storages, operations, stop, serving })
    }

    /// The page to upload from.
    pub fn page(&self) -> String {
        self.site.url()
    }

    /// What clients call each region's broker: its name, and the address of its edge.
    pub fn brokers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.globe.regions().iter().map(|region| (region.candidate.name.as_str(), region.broker.as_str()))
    }

    /// The brokers' listeners for operators, in the order of the regions.
    pub fn operations(&self) -> impl Iterator<Item = String> {
        self.operations.iter().map(|address| format!("http://{address}"))
    }

    /// The storage emulators, in the order of the regions.
    pub fn storages(&self) -> &[Emulator] {
        &self.storages
    }

    /// A token for `subject`, good for an hour.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn token(&self, subject: &str) -> anyhow::Result<String> {
        self.site.token(subject)
    }

    /// Stops everything.
    pub async fn stop(self) {
        let Self { storages, stop, mut serving, .. } = self;
        stop.cancel();
        // The demo ends with its process: how well it drained is nobody's concern.
        while serving.join_next().await.is_some() {}
        for storage in storages {
            storage.stop().await;
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The storage of a region, with its bucket.
async fn storage_of(place: &Place) -> std::io::Result<Emulator> {
    Emulator::start(emulator::Settings {
        listen: loopback(0),
        buckets: vec![BucketSettings {
            name: place.bucket.to_owned(),
            location: place.name.to_owned(),
            ..BucketSettings::default()
        }],
        clock: Clock::System,
        randomness: Randomness::System,
        ..emulator::Settings::default()
    })
    .await
}

/// What the brokers take from this process.
fn world() -> World {
    World {
        clock: Clock::System,
        randomness: Randomness::System,
        environment: storage::Environment::default(),
        transport: Transport::PlainOnLoopback,
        background: Background::ByItself,
        watching: WatchLimits::default(),
    }
}
