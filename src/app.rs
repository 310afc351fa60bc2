//! Wiring, to be read from top to bottom: a configuration becomes a service that listens, serves and drains.

mod files;
mod open;
mod reload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use open::compile_policies;
pub use reload::Reloader;

use crate::clock::{Clock, Randomness};
use crate::config::{self, Config, ConfigError};
use crate::http;
use crate::http::gate::Transport;
use crate::http::operations::{self, Operations};
use crate::live;
use crate::model::id::Partition;
use crate::notifications;
use crate::routing::Routing;
use crate::server::{Limits, Listener, TlsCertificate, TlsError};
use crate::storage;
use crate::store::{self, Store};
use crate::telemetry::{self, Exporter};
use crate::uploads::{Region, Uploads, WatchLimits};
use crate::webhooks::{self, Webhooks};
use files::Contents;
use open::{
    Lasting, Opened, Present, USER_AGENT, extra_roots, open_endpoints, open_identity, open_receiver, open_storage,
    region,
};
use reload::Parts;

/// How many requests may be answered at once, those that only read included: as many as the operations that storage
/// takes on, and far fewer than the store does. One more is refused here, before anything is reserved for it. Only
/// creates whose client has gone work on without being counted.
const REQUESTS_AT_ONCE: usize = 1024;

/// How long the body of a request may take to arrive: 64 KiB at most, over a bad mobile network, or 1 MiB from Google's.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request may take beyond its body and one operation of storage: for the store, and for a second operation.
///
/// With the longest `storage.timeout`, a request whose body has come is answered within the listener's `drain`, and any
/// request long before its `stall_timeout`; a test holds the three together.
const PATIENCE_MARGIN: Duration = Duration::from_secs(10);

/// How long it takes to drain at most, from the end of the notice on: requests, then webhooks, then traces. A little is
/// left for what none of these counts.
pub(crate) const LONGEST_DRAIN: Duration =
    Limits::DRAIN.saturating_add(webhooks::GRACE).saturating_add(telemetry::FLUSH);

/// How long an outgoing connection to an issuer may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What a service takes from the process that it runs in.
#[derive(Clone, Debug)]
pub struct World {
    /// Tells the time.
    pub clock: Clock,
    /// Makes ids and nonces.
    pub randomness: Randomness,
    /// Where credentials are looked for.
    pub environment: storage::Environment,
    /// Whether plain HTTP will do.
    pub transport: Transport,
    /// Who has work done that no request asks for.
    pub background: Background,
    /// How closely uploads are watched for those who listen.
    pub watching: WatchLimits,
}

/// Who has the work done that no request asks for: sweeps, and probes of other regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// The service itself, round by round.
    ByItself,
    /// Whoever has the service in hand: tests, which decide when time passes.
    OnDemand,
}

impl World {
    /// The real one.
    pub fn of_this_process(transport: Transport) -> Self {
        Self {
            clock: Clock::System,
            randomness: Randomness::System,
            environment: config::storage_environment(),
            transport,
            background: Background::ByItself,
            watching: WatchLimits::default(),
        }
    }
}

/// Why a service could not start. `Display`, with the sources, names what to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is refused; the text says where it stands.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `trusted_ca` cannot be read.
    #[error("trusted_ca {}: {reason}", path.display())]
    TrustedCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate cannot be used.
    #[error("server.tls")]
    Tls(#[from] TlsError),
    /// The store cannot be set up. It being out of reach is no reason.
    #[error("store")]
    Store(#[from] store::OpenError),
    /// Storage cannot be set up. It being out of reach is no reason.
    #[error("storage")]
    Storage(#[from] storage::OpenError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[from] reqwest::Error),
    /// Others cannot be asked anything.
    #[error(transparent)]
    Outside(#[from] live::OutsideError),
    /// The OpenAPI document cannot be written.
    #[error("the OpenAPI document cannot be written")]
    Document(#[from] serde_json::Error),
}

/// A service that listens, and serves once told to.
pub struct App {
    public: Listener,
    operations: Listener,
    present: Arc<ArcSwap<Present>>,
    operator_state: Arc<Operations>,
    webhooks: Arc<Webhooks>,
    endings: mpsc::Receiver<Partition>,
    reloader: Arc<Reloader>,
    exporter: Option<Exporter>,
    background: Background,
    surroundings: Surroundings,
}

/// How a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Drained,
    /// The time to drain was over, and requests were cut.
    Cut,
}

impl App {
    /// Builds the service and binds both listeners. Nothing is asked of the network yet, but where this machine is if the
    /// configuration leaves the region to it.
    ///
    /// # Errors
    /// When the configuration, a file that it names, or an address cannot be used.
    pub async fn bind(config: &Config, world: World) -> Result<Self, StartError> {
        // Before anything is read: what changes from here on is noticed as a change.
        let contents = Contents::of(config.files());
        let (ended, endings) = mpsc::channel(webhooks::ENDINGS_AT_ONCE);
        let (lasting, exporter) = Lasting::open(config, world, ended).await?;
        let lasting = Arc::new(lasting);
        let Opened { present, endpoints } = lasting.present(config, None)?;
        let certificate = config.server.tls.as_ref().map(TlsCertificate::load).transpose()?;
        let webhooks = Arc::new(Webhooks {
            clock: lasting.world.clock.clone(),
            randomness: lasting.world.randomness.clone(),
            store: Arc::clone(&lasting.store),
            endpoints: watch::Sender::new(endpoints),
            render: http::wire::as_event,
            tracer: lasting.tracer.clone(),
            metrics: webhooks::Metrics::default(),
        });
        let (uploads, identity) = (Arc::clone(&present.uploads), Arc::clone(&present.identity));
        let routing = Arc::clone(&uploads.routing);
        present.introduce();
        let present = Arc::new(ArcSwap::from_pointee(present));
        let parts = Parts {
            lasting: Arc::clone(&lasting),
            present: Arc::clone(&present),
            webhooks: Arc::clone(&webhooks),
            certificate: certificate.clone(),
        };
        let reloader = Arc::new(Reloader::new(parts, config.clone(), contents));

        let mut registry = Registry::default();
        // These have the names of the HTTP semantic conventions of OpenTelemetry; all others are the broker's own.
        lasting.http_metrics.register(&mut registry);
        let own = registry.sub_registry_with_prefix("upload_broker");
        lasting.upload_metrics.register(own);
        lasting.store.metrics().register(own);
        lasting.storage.metrics().register(own);
        identity.metrics().register(own);
        webhooks.metrics.register(own);
        routing.metrics.register(own);
        lasting.notification_metrics.register(own);
        reloader.metrics().register(own);
        if let Some(exporter) = &exporter {
            exporter.metrics.register(own);
        }
        let operator_state = Arc::new(Operations { uploads, readiness: Arc::clone(&lasting.readiness), registry });
        routing.refresh_database().await;

        let public = bind(config.server.listen, certificate.clone()).await?;
        let operations = bind(config.server.admin_listen, None).await?;
        let background = lasting.world.background;
        Ok(Self {
            public,
            operations,
            present,
            operator_state,
            webhooks,
            endings,
            reloader,
            exporter,
            background,
            surroundings: Surroundings {
                certificate,
                public_url: config.server.public_url.clone(),
                metadata_host: lasting.world.environment.gce_metadata_host.clone(),
            },
        })
    }

    /// The region that is served.
    pub fn region(&self) -> &Region {
        &self.operator_state.uploads.region
    }

    /// Where clients reach the service.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Where operators reach it.
    pub fn operations_addr(&self) -> SocketAddr {
        self.operations.local_addr()
    }

    /// The domain service under the configuration that is in force, for whoever has background work done by hand.
    pub fn uploads(&self) -> Arc<Uploads> {
        Arc::clone(&self.present.load().uploads)
    }

    /// Where clients are sent under that configuration, for whoever has regions probed and the database read by hand.
    pub fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.present.load().uploads.routing)
    }

    /// Puts other configurations in force. Nobody does who was not asked to [watch](Reloader::watch).
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// Serves until `shutdown` is cancelled, then answers what is under way and returns.
    ///
    /// Not ready from the first moment of `shutdown` on; new connections are still taken for `notice`, since whoever
    /// sends clients here learns of it late.
    pub async fn serve(self, shutdown: CancellationToken, notice: Duration) -> Ended {
        let stop_public = CancellationToken::new();
        let stop_operations = CancellationToken::new();
        let stop_webhooks = CancellationToken::new();
        let webhooks = tokio::spawn(self.webhooks.run(self.endings, stop_webhooks.clone()));
        let stop_exporter = CancellationToken::new();
        let exporter = self.exporter.map(|exporter| tokio::spawn(exporter.run(stop_exporter.clone())));
        let present = self.present.load_full();
        tokio::spawn(async move { present.warm_up().await });
        if self.background == Background::ByItself {
            let uploads = Arc::clone(&self.present.load().uploads);
            let (surroundings, stop) = (self.surroundings, stop_public.clone());
            tokio::spawn(async move { Box::pin(stop.run_until_cancelled(surroundings.look(&uploads))).await });
            let present = Arc::clone(&self.present);
            let uploads = move || Arc::clone(&present.load().uploads);
            let present = Arc::clone(&self.present);
            let routing = move || Arc::clone(&present.load().uploads.routing);
            tokio::spawn(Uploads::keep_sweeping(uploads, stop_public.clone()));
            tokio::spawn(Routing::keep_watching(routing, stop_public.clone()));
        }
        let for_operators = operations::router(Arc::clone(&self.operator_state));
        let operations = tokio::spawn(self.operations.serve(move || for_operators.clone(), stop_operations.clone()));
        let present = self.present;
        let proxies = Arc::clone(&present);
        let public = self.public.with_proxies(move |address| proxies.load().trusted_proxies.include(address));
        let public = tokio::spawn(public.serve(move || present.load().router.clone(), stop_public.clone()));

        shutdown.cancelled().await;
        self.operator_state.readiness.drain();
        info!(notice_ms = u64::try_from(notice.as_millis()).unwrap_or(u64::MAX), "draining");
        tokio::time::sleep(notice).await;
        // They would last longer than the drain. Whoever listened comes back at once, and now to another instance.
        self.operator_state.uploads.watchers.close();
        stop_public.cancel();
        let drained = public.await;
        // The last requests may have ended uploads: what is not told by then is told by another instance.
        stop_webhooks.cancel();
        let _ = webhooks.await;
        // Behind all that is traced.
        stop_exporter.cancel();
        if let Some(exporter) = exporter {
            let _ = exporter.await;
        }
        stop_operations.cancel();
        let _ = operations.await;
        match drained {
            Ok(drained) if drained.cut == 0 => Ended::Drained,
            Ok(_) | Err(_) => Ended::Cut,
        }
    }
}

/// What is looked at when the service starts, beside what it works with.
struct Surroundings {
    certificate: Option<TlsCertificate>,
    public_url: url::Url,
    metadata_host: Option<String>,
}

impl Surroundings {
    /// Says in the log whether what the service stands on is as it must be. Nothing depends on it.
    async fn look(&self, uploads: &Uploads) {
        let Uploads { clock, region, storage, .. } = uploads;
        let Self { certificate, public_url, metadata_host } = self;
        let (certificate, metadata_host) = (certificate.as_ref(), metadata_host.as_deref());
        let essentials = live::Essentials { clock, region, metadata_host, storage, public_url, certificate };
        live::check_at_start(&essentials).await.log();
    }
}

/// What `check --live` looks at.
///
/// # Errors
/// As [`App::bind`], but for addresses that cannot be listened on and a region that nobody tells.
pub async fn live_subject(config: &Config, world: &World) -> Result<live::Subject, StartError> {
    let extra_roots = extra_roots(config)?;
    let identity = open_identity(config, world, &extra_roots)?;
    let mut transfers = Vec::new();
    for transfer in config.policies.iter().flat_map(|policy| &policy.transfers) {
        if !transfers.contains(&transfer.kind()) {
            transfers.push(transfer.kind());
        }
    }
    Ok(live::Subject {
        clock: world.clock.clone(),
        randomness: world.randomness.clone(),
        metadata_host: world.environment.gce_metadata_host.clone(),
        own: config.own_region().map(region),
        regions: config.regions.iter().map(region).collect(),
        public_url: config.server.public_url.clone(),
        allowed_origins: config.server.allowed_origins.clone(),
        certificate: config.server.tls.as_ref().map(TlsCertificate::load).transpose()?,
        api: config.storage.api,
        transfers,
        store: Store::open(&config.store, world.randomness.clone()).await?,
        receiver: open_receiver(config, &identity, notifications::Metrics::default())?,
        identity,
        endpoints: open_endpoints(config, &extra_roots)?,
        outside: live::Outside::new(&extra_roots, USER_AGENT)?,
        storage: open_storage(config, world, extra_roots).await?,
    })
}

/// Everything about `config` that a service could not start with, as far as this machine can tell without the network.
pub async fn mistakes(config: &Config, world: &World) -> Vec<StartError> {
    let (roots, mut mistakes) = match extra_roots(config) {
        Ok(roots) => (roots, Vec::new()),
        Err(mistake) => (Vec::new(), vec![mistake]),
    };
    match open_identity(config, world, &roots) {
        Ok(identity) => mistakes.extend(open_receiver(config, &identity, notifications::Metrics::default()).err()),
        Err(mistake) => mistakes.push(mistake),
    }
    mistakes.extend(compile_policies(config).err());
    mistakes.extend(open_endpoints(config, &roots).err());
    mistakes.extend(Store::open(&config.store, world.randomness.clone()).await.err().map(StartError::from));
    mistakes.extend(open_storage(config, world, roots).await.err());
    mistakes.extend(config.server.tls.as_ref().and_then(|tls| TlsCertificate::load(tls).err()).map(StartError::from));
    mistakes
}

async fn bind(address: SocketAddr, certificate: Option<TlsCertificate>) -> Result<Listener, StartError> {
    let listener =
        Listener::bind(address, certificate, Limits { body_timeout: BODY_TIMEOUT, ..Limits::default() }).await;
    listener.map_err(|source| StartError::Listen { address, source })
}

#[cfg(test)]
mod documented;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_request_ends_by_itself() {
        let limits = Limits::default();
        let answer = config::check::LONGEST_TIMEOUT.0 + PATIENCE_MARGIN;
        assert!(answer <= limits.drain, "a request is cut although its body had come");
        assert!(BODY_TIMEOUT + answer < limits.stall_timeout, "a request is taken for one that hangs");
    }

    #[test]
    fn a_stream_of_events_never_looks_like_one_that_hangs() {
        let limits = Limits::default();
        // Any time a heartbeat or two may be late.
        assert!(3 * WatchLimits::default().heartbeat < limits.stall_timeout);
    }
}
