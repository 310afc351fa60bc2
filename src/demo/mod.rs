//! The whole product in one process: broker, storage emulator, issuer, and a page to upload from.
//!
//! Nothing here is used by the service. The broker of the demo is the one of `serve`, wired by the same [`App`]; only
//! what stands around it is made up.

mod issuer;
mod samples;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use samples::{Expected, Row, table};

use crate::app::{App, Background, Ended, World};
use crate::clock::{Clock, Randomness};
use crate::config;
use crate::emulator::{self, BucketSettings, Emulator};
use crate::http::gate::Transport;
use crate::storage;
use crate::uploads::WatchLimits;
use issuer::Issuer;

/// The region that the demo plays.
const REGION: &str = "europe-west1";

/// Its bucket.
const BUCKET: &str = "media-eu";

/// A running demo.
pub struct Demo {
    issuer: Issuer,
    storage: Emulator,
    broker: SocketAddr,
    operations: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Ended>,
}

impl Demo {
    /// Starts everything. The page is on `port` of the loopback address, and the rest wherever there is room. The key
    /// that URLs are signed with is put into `folder`, which others should not be able to read.
    ///
    /// # Errors
    /// When an address cannot be had, or the key cannot be written.
    pub async fn start(port: u16, folder: &Path) -> anyhow::Result<Self> {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let storage = Emulator::start(emulator::Settings {
            listen: loopback(0),
            buckets: vec![BucketSettings {
                name: BUCKET.to_owned(),
                location: REGION.to_owned(),
                ..BucketSettings::default()
            }],
            clock: Clock::System,
            randomness: Randomness::System,
            ..emulator::Settings::default()
        })
        .await
        .context("the storage emulator cannot listen")?;
        let issuer = Issuer::bind(loopback(port)).await.with_context(|| format!("cannot listen on port {port}"))?;
        let key = folder.join("service-account.json");
        let text = storage.service_account_key().context("the storage emulator has no service account")?;
        tokio::fs::write(&key, text).await.with_context(|| format!("{} cannot be written", key.display()))?;
        let text = configuration(&issuer.url(), &issuer.origins(), &storage.url(), &key);
        let config = config::load(&text, "demo.toml".as_ref(), std::iter::empty())
            .map_err(|errors| anyhow::anyhow!("the demo's own configuration: {errors}"))?;
        let world = World {
            clock: Clock::System,
            randomness: Randomness::System,
            environment: storage::Environment::default(),
            transport: Transport::PlainOnLoopback,
            background: Background::ByItself,
            watching: WatchLimits::default(),
        };
        let app = App::bind(&config, world).await?;
        let (broker, operations) = (app.public_addr(), app.operations_addr());
        let stop = CancellationToken::new();
        issuer.serve(format!("http://{broker}"), stop.clone());
        let serving = tokio::spawn(app.serve(stop.clone(), Duration::ZERO));
        Ok(Self { issuer, storage, broker, operations, stop, serving })
    }

    /// The page to upload from.
    pub fn page(&self) -> String {
        self.issuer.url()
    }

    /// The broker.
    pub fn broker(&self) -> String {
        format!("http://{}", self.broker)
    }

    /// The broker's listener for operators.
    pub fn operations(&self) -> String {
        format!("http://{}", self.operations)
    }

    /// The storage emulator.
    pub fn storage(&self) -> &Emulator {
        &self.storage
    }

    /// A token for `subject`, good for an hour.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn token(&self, subject: &str) -> anyhow::Result<String> {
        self.issuer.token(subject)
    }

    /// Stops everything.
    pub async fn stop(self) {
        self.stop.cancel();
        // The demo ends with its process: how well it drained is nobody's concern.
        let _ = self.serving.await;
        self.storage.stop().await;
    }
}

/// The broker's configuration, as an operator would write it.
fn configuration(issuer: &str, origins: &[String], storage: &str, key: &Path) -> String {
    let key = key.display().to_string();
    format!(
        r#"
region = "{REGION}"

[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
public_url = "http://127.0.0.1"
allowed_origins = {origins:?}

[store]
url = "memory"

[storage]
endpoint = "{storage}"
credentials = {{ file = {key:?} }}

[[issuers]]
issuer = "{issuer}"
audiences = ["demo"]
algorithms = ["ES256"]

[[regions]]
name = "{REGION}"
bucket = "{BUCKET}"
url = "http://127.0.0.1"

[[policies]]
name = "videos"
when = '"creator" in claims.roles'
object = "videos/{{sub}}/{{id}}.{{ext}}"
content_types = ["video/*"]
max_size = "2GiB"
max_active = 5
rate = "60/1m"
daily_bytes = "20GiB"

[[policies]]
name = "notes"
object = "notes/{{date}}/{{shard}}/{{id}}"
content_types = ["text/*", "image/*", "application/*"]
max_size = "256MiB"
max_active = 10
transfers = ["resumable", "simple", "signed_resumable"]

[[policies]]
name = "streams"
object = "streams/{{sub}}/{{id}}.{{ext}}"
unknown_size = true
max_size = "4MiB"
max_active = 5
"#
    )
}
