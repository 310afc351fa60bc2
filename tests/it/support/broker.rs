//! A whole service in this process, through the same `App` as `serve`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use upload_broker::app::{App, Background, Ended, World};
use upload_broker::clock::{Clock, Randomness};
use upload_broker::config;
use upload_broker::emulator::{self, BucketSettings, Emulator};
use upload_broker::http::gate::Transport;
use upload_broker::model::time::Timestamp;
use upload_broker::routing::Routing;
use upload_broker::uploads::{Round, Uploads, WatchLimits};

use super::{AUDIENCE, BUCKET, ISSUER, User, issuer_key, push_key};

/// What a test wants to be otherwise.
pub struct Settings {
    /// `region`, and the first of the `[[regions]]`, with its bucket and address.
    pub region: &'static str,
    pub bucket: &'static str,
    pub url: String,
    /// `store.url`.
    pub store: String,
    /// The `[[policies]]` sections.
    pub policies: String,
    /// `server.allowed_origins`.
    pub origins: Vec<String>,
    /// `storage.timeout`.
    pub storage_timeout: &'static str,
    /// More `[[regions]]` sections.
    pub more_regions: String,
    /// More of the `[server]` section.
    pub server: String,
    /// `storage.endpoint`, where it is not the emulator itself.
    pub endpoint: Option<String>,
    /// More of the `[storage]` section. `sa.json` is the emulator's own service account, which can sign.
    pub storage: String,
    /// The `[notifications]` section, and any others. `push.json` has the keys of `push_key`.
    pub more: String,
    /// More of the `[[issuers]]` section.
    pub issuer: String,
    /// How closely uploads are watched.
    pub watching: WatchLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "europe-west1",
            bucket: BUCKET,
            url: "https://eu.uploads.example.com".to_owned(),
            store: "memory".to_owned(),
            policies: "[[policies]]\nname = \"videos\"\nobject = \"videos/{sub}/{id}.{ext}\"\nmax_size = \"64MiB\"\n"
                .to_owned(),
            origins: vec!["https://app.example.com".to_owned()],
            storage_timeout: "2s",
            more_regions: String::new(),
            server: String::new(),
            endpoint: None,
            storage: String::new(),
            more: String::new(),
            issuer: String::new(),
            watching: WatchLimits::default(),
        }
    }
}

/// A running service with an emulator of its own, or that of another broker.
pub struct Broker {
    pub storage: Arc<Emulator>,
    pub clock: Clock,
    pub address: SocketAddr,
    pub operations: SocketAddr,
    uploads: Arc<Uploads>,
    routing: Arc<Routing>,
    stop: CancellationToken,
    serving: JoinHandle<Ended>,
    _files: TempDir,
}

/// The time at which every test begins.
const BEGIN: Timestamp = Timestamp::from_secs(1_800_000_000);

impl Broker {
    /// A service with memory as its store, and one policy that lets everybody in.
    pub async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// A service that a test has its wishes for.
    pub async fn start_with(settings: Settings) -> Self {
        let clock = Clock::manual(BEGIN);
        let storage = emulator(clock.clone()).await;
        Self::start_beside(storage, clock, settings).await
    }

    /// Another service beside the same storage.
    pub async fn start_beside(storage: Arc<Emulator>, clock: Clock, settings: Settings) -> Self {
        let files = TempDir::new().unwrap();
        let endpoint = settings.endpoint.clone().unwrap_or_else(|| storage.url());
        let text = configuration(files.path(), &endpoint, &settings);
        if settings.storage.contains("sa.json") {
            std::fs::write(files.path().join("sa.json"), storage.service_account_key().unwrap()).unwrap();
        }
        let config = config::load(&text, &files.path().join("broker.toml"), std::iter::empty())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let world = World {
            clock: clock.clone(),
            randomness: Randomness::System,
            environment: upload_broker::storage::Environment::default(),
            transport: Transport::PlainOnLoopback,
            background: Background::OnDemand,
            watching: settings.watching,
        };
        let app = App::bind(&config, world).await.unwrap();
        let (address, operations) = (app.public_addr(), app.operations_addr());
        let (uploads, routing) = (app.uploads(), app.routing());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(app.serve(stop.clone(), Duration::ZERO));
        let broker = Self { storage, clock, address, operations, uploads, routing, stop, serving, _files: files };
        broker.ready().await;
        broker
    }

    /// Waits until the broker is ready: the first storage token is there, and the store answers.
    pub async fn ready(&self) {
        for _ in 0..200 {
            if self.operator_get("/readyz").await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the broker is not ready: {}", self.operator_get("/readyz").await.1);
    }

    /// Somebody with a token that names no more than the subject.
    pub fn user(&self, subject: &str) -> User {
        User::new(format!("http://{}", self.address), subject, self.clock.now())
    }

    /// Settles all that is due now, as an instance does every few seconds by itself.
    pub async fn sweep(&self) -> Round {
        self.uploads.sweep().await
    }

    /// Probes the other regions once, as an instance does every few seconds by itself.
    pub async fn probe(&self) {
        self.routing.probe().await;
    }

    /// Looks at the database of addresses, as an instance does every half minute by itself.
    pub async fn look_at_database(&self) {
        self.routing.refresh_database().await;
    }

    /// Moves the time of the broker and of storage.
    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Asks on the operators' listener.
    pub async fn operator_get(&self, path: &str) -> (u16, String) {
        /// Made once, since that takes longer than what it is for. It keeps no connection: each belongs to a runtime.
        static CLIENT: LazyLock<reqwest::Client> =
            LazyLock::new(|| reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap());
        let response = CLIENT.get(format!("http://{}{path}", self.operations)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Drains it, and tells whether every request was answered.
    pub async fn stop(self) -> Ended {
        self.stop.cancel();
        self.serving.await.unwrap()
    }
}

/// A storage emulator with the one bucket.
pub async fn emulator(clock: Clock) -> Arc<Emulator> {
    emulator_of(BUCKET, "europe-west1", clock).await
}

/// A storage emulator with a bucket in a region.
pub async fn emulator_of(bucket: &str, location: &str, clock: Clock) -> Arc<Emulator> {
    let settings = emulator::Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        buckets: vec![BucketSettings {
            name: bucket.to_owned(),
            location: location.to_owned(),
            ..BucketSettings::default()
        }],
        clock,
        randomness: Randomness::System,
        ..emulator::Settings::default()
    };
    Arc::new(Emulator::start(settings).await.unwrap())
}

/// The configuration file of a broker, with the files that it names beside it.
pub fn configuration(folder: &Path, endpoint: &str, settings: &Settings) -> String {
    std::fs::write(folder.join("jwks.json"), issuer_key().key_set().to_string()).unwrap();
    std::fs::write(folder.join("push.json"), push_key().key_set().to_string()).unwrap();
    // Every broker of a test run seals with the same key, as the instances of a deployment do.
    std::fs::write(folder.join("session.key"), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").unwrap();
    let Settings { region, bucket, url, .. } = settings;
    let Settings { store, policies, origins, storage_timeout, more_regions, server, storage, more, issuer, .. } =
        settings;
    format!(
        r#"
region = "{region}"

[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
public_url = "https://eu.uploads.example.com"
allowed_origins = {origins:?}
{server}

[store]
url = "{store}"
encryption_keys = [{{ id = "k1", file = "session.key" }}]

[storage]
endpoint = "{endpoint}"
timeout = "{storage_timeout}"
{storage}

[[issuers]]
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
jwks_file = "jwks.json"
algorithms = ["ES256"]
{issuer}

[[regions]]
name = "{region}"
bucket = "{bucket}"
url = "{url}"

{more_regions}

{policies}

{more}
"#
    )
}
