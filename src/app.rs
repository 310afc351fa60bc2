//! Wiring, to be read from top to bottom: a configuration becomes a service that listens, serves and drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::clock::{Clock, Randomness};
use crate::config::{self, Config, ConfigError, OwnRegion, RegionSettings};
use crate::geo::{Candidate, Database};
use crate::http::arrival::TrustedProxies;
use crate::http::extract::AllowedOrigins;
use crate::http::gate::{Gate, Transport};
use crate::http::operations::{self, Operations};
use crate::http::push::Receiver;
use crate::http::readiness::Readiness;
use crate::http::{self, Observer, Services, Tracing};
use crate::identity::Identity;
use crate::live;
use crate::machine::{self, Machine};
use crate::model::chain;
use crate::model::id::Partition;
use crate::model::section::SectionError;
use crate::policy::{Policies, PolicySettings};
use crate::routing::{self, Routing};
use crate::server::{Limits, Listener, TlsCertificate, TlsError};
use crate::storage::{self, Signing, Storage};
use crate::store::{self, Store};
use crate::telemetry::trace::Tracer;
use crate::telemetry::{self, Exporter};
use crate::uploads::{self, Recent, Region, Uploads, WatchLimits, Watchers};
use crate::webhooks::{self, Endpoint, Webhooks};

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

/// How often certificate files are compared with what is served. Kubernetes swaps links, which no file watch sees.
const CERTIFICATE_POLL: Duration = Duration::from_secs(30);

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
    certificate: Option<TlsCertificate>,
    public_router: axum::Router,
    operator_state: Arc<Operations>,
    identity: Arc<Identity>,
    receiver: Option<Arc<Receiver>>,
    uploads: Arc<Uploads>,
    routing: Arc<Routing>,
    webhooks: Arc<Webhooks>,
    endings: mpsc::Receiver<Partition>,
    exporter: Option<Exporter>,
    background: Background,
    public_url: url::Url,
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
    #[expect(clippy::too_many_lines, reason = "wiring is read from top to bottom, each part once")]
    pub async fn bind(config: &Config, world: World) -> Result<Self, StartError> {
        let extra_roots = extra_roots(config)?;
        let identity = Arc::new(open_identity(config, &world, &extra_roots)?);
        let receiver = open_receiver(config, &identity)?.map(Arc::new);
        let policies = compile_policies(config)?;
        let store = Arc::new(Store::open(&config.store, world.randomness.clone()).await?);
        let endpoints = open_endpoints(config, &extra_roots)?;
        let (tracer, exporter) = open_tracing(config, &world, &extra_roots)?.unzip();
        let own = own_region(config, &world).await?;
        let routing = Arc::new(open_routing(config, own, &world, &extra_roots)?);
        let storage = open_storage(config, &world, extra_roots).await?;
        let certificate = config.server.tls.as_ref().map(TlsCertificate::load).transpose()?;

        let regions: Vec<Region> = config.regions.iter().map(region).collect();
        let region = region(own);
        let told_endpoints = endpoints.iter().map(|endpoint| told(endpoint)).collect();
        let (ended, endings) = mpsc::channel(webhooks::ENDINGS_AT_ONCE);
        let webhooks = Arc::new(Webhooks {
            clock: world.clock.clone(),
            randomness: world.randomness.clone(),
            store: Arc::clone(&store),
            endpoints,
            render: http::wire::as_event,
            tracer: tracer.clone(),
            metrics: webhooks::Metrics::default(),
        });
        let uploads = Arc::new(Uploads {
            clock: world.clock.clone(),
            randomness: world.randomness.clone(),
            policies,
            store,
            storage,
            region,
            regions,
            routing: Arc::clone(&routing),
            endpoints: told_endpoints,
            ended,
            storage_timeout: config.storage.timeout.0,
            sweeper: config.sweeper,
            watchers: Watchers::new(world.watching),
            recent: Recent::default(),
            tracer: tracer.clone(),
            metrics: crate::uploads::Metrics::default(),
        });

        let http_metrics = Arc::new(http::Metrics::default());
        let mut registry = Registry::default();
        // These have the names of the HTTP semantic conventions of OpenTelemetry; all others are the broker's own.
        http_metrics.register(&mut registry);
        let own = registry.sub_registry_with_prefix("upload_broker");
        uploads.metrics.register(own);
        uploads.store.metrics().register(own);
        uploads.storage.metrics().register(own);
        identity.metrics().register(own);
        webhooks.metrics.register(own);
        routing.metrics.register(own);
        if let Some(receiver) = &receiver {
            receiver.metrics.register(own);
        }
        if let Some(exporter) = &exporter {
            exporter.metrics.register(own);
        }

        let trusted_proxies = TrustedProxies(config.server.trusted_proxies.clone().into());
        let gate = Gate {
            trusted_proxies: trusted_proxies.clone(),
            transport: world.transport,
            permits: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)),
            patience: BODY_TIMEOUT + config.storage.timeout.0 + PATIENCE_MARGIN,
        };
        let readiness = Arc::new(Readiness::new(Arc::clone(&uploads)));
        let services = Services {
            uploads: Arc::clone(&uploads),
            identity: Arc::clone(&identity),
            receiver: receiver.clone(),
            allowed_origins: AllowedOrigins(config.server.allowed_origins.clone().into()),
            readiness: Arc::clone(&readiness),
            trusted_proxies,
        };
        let tracing = tracer.map(|tracer| Tracing {
            tracer,
            trusted_proxies: config.server.trusted_proxies.clone().into(),
            server_address: config.server.public_url.host_str().unwrap_or_default().into(),
        });
        let observer = Observer { metrics: http_metrics, randomness: world.randomness.clone(), tracing };
        let public_router = http::router(services, gate, observer)?;
        let operator_state = Arc::new(Operations { uploads: Arc::clone(&uploads), readiness, registry });
        routing.refresh_database().await;

        let public = bind(config.server.listen, certificate.clone()).await?;
        let operations = bind(config.server.admin_listen, None).await?;
        let background = world.background;
        Ok(Self {
            public,
            operations,
            certificate,
            public_router,
            operator_state,
            identity,
            receiver,
            uploads,
            routing,
            webhooks,
            endings,
            exporter,
            background,
            public_url: config.server.public_url.clone(),
        })
    }

    /// The region that is served.
    pub fn region(&self) -> &Region {
        &self.uploads.region
    }

    /// Where clients reach the service.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Where operators reach it.
    pub fn operations_addr(&self) -> SocketAddr {
        self.operations.local_addr()
    }

    /// The domain service, for whoever has background work done by hand.
    pub fn uploads(&self) -> Arc<Uploads> {
        Arc::clone(&self.uploads)
    }

    /// Where clients are sent, for whoever has regions probed and the database read by hand.
    pub fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing)
    }

    /// Whoever is told of ends, for whoever has secrets read again.
    pub fn webhooks(&self) -> Arc<Webhooks> {
        Arc::clone(&self.webhooks)
    }

    /// The certificate that clients are shown, to be reloaded when somebody asks for it. None without TLS.
    pub fn certificate(&self) -> Option<TlsCertificate> {
        self.certificate.clone()
    }

    /// Serves until `shutdown` is cancelled, then answers what is under way and returns.
    ///
    /// Not ready from the first moment of `shutdown` on; new connections are still taken for `notice`, since whoever
    /// sends clients here learns of it late.
    pub async fn serve(self, shutdown: CancellationToken, notice: Duration) -> Ended {
        let stop_public = CancellationToken::new();
        let stop_operations = CancellationToken::new();
        if let Some(certificate) = &self.certificate {
            tokio::spawn(certificate.clone().watch(CERTIFICATE_POLL, stop_public.clone()));
        }
        let stop_webhooks = CancellationToken::new();
        let webhooks = tokio::spawn(self.webhooks.run(self.endings, stop_webhooks.clone()));
        let stop_exporter = CancellationToken::new();
        let exporter = self.exporter.map(|exporter| tokio::spawn(exporter.run(stop_exporter.clone())));
        let identity = Arc::clone(&self.identity);
        tokio::spawn(async move { identity.warm_up().await });
        if self.background == Background::ByItself {
            let (uploads, certificate, stop) =
                (Arc::clone(&self.uploads), self.certificate.clone(), stop_public.clone());
            let public_url = self.public_url;
            tokio::spawn(
                async move { stop.run_until_cancelled(look(&uploads, certificate.as_ref(), &public_url)).await },
            );
            tokio::spawn(self.uploads.keep_sweeping(stop_public.clone()));
            tokio::spawn(self.routing.keep_watching(stop_public.clone()));
        }
        if let Some(receiver) = self.receiver {
            tokio::spawn(async move { receiver.warm_up().await });
        }
        let operations = tokio::spawn(
            self.operations.serve(operations::router(Arc::clone(&self.operator_state)), stop_operations.clone()),
        );
        let public = tokio::spawn(self.public.serve(self.public_router, stop_public.clone()));

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

/// Says in the log whether what the service stands on is as it must be. Nothing depends on it.
async fn look(uploads: &Uploads, certificate: Option<&TlsCertificate>, public_url: &url::Url) {
    let Uploads { clock, region, storage, .. } = uploads;
    live::check_at_start(&live::Essentials { clock, region, storage, public_url, certificate }).await.log();
}

/// The section of the region that is served: the one that is named, or that of the machine.
async fn own_region<'a>(config: &'a Config, world: &World) -> Result<&'a RegionSettings, StartError> {
    let refuse = |reason: String| StartError::from(config.error("region", None, "", reason));
    let name = match &config.region {
        OwnRegion::Named(name) => name.clone(),
        OwnRegion::OfMachine => {
            let unknown = |error: machine::Error| refuse(format!("\"auto\": {}", chain(&error)));
            let machine = Machine::new(world.environment.gce_metadata_host.as_deref()).map_err(unknown)?;
            machine.region().await.map_err(unknown)?
        }
    };
    let found = config.region_named(&name);
    found.ok_or_else(|| refuse(format!("\"{name}\" is not the name of any [[regions]] section")))
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
        receiver: open_receiver(config, &identity)?,
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
        Ok(identity) => mistakes.extend(open_receiver(config, &identity).err()),
        Err(mistake) => mistakes.push(mistake),
    }
    mistakes.extend(compile_policies(config).err());
    mistakes.extend(open_endpoints(config, &roots).err());
    mistakes.extend(Store::open(&config.store, world.randomness.clone()).await.err().map(StartError::from));
    mistakes.extend(open_storage(config, world, roots).await.err());
    mistakes.extend(config.server.tls.as_ref().and_then(|tls| TlsCertificate::load(tls).err()).map(StartError::from));
    mistakes
}

const USER_AGENT: &str = concat!("upload-broker/", env!("CARGO_PKG_VERSION"));

fn open_identity(
    config: &Config,
    world: &World,
    extra_roots: &[CertificateDer<'static>],
) -> Result<Identity, StartError> {
    let roots: Result<Vec<_>, _> = extra_roots.iter().map(|root| reqwest::Certificate::from_der(root)).collect();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tls_certs_merge(roots?)
        .user_agent(USER_AGENT)
        .build()?;
    Identity::new(&config.issuers, world.clock.clone(), client).map_err(|error| at(config, error))
}

/// The same with the file and the line.
fn at(config: &Config, error: SectionError) -> StartError {
    config.error(error.section, Some(error.index), error.key, error.reason).into()
}

fn open_receiver(config: &Config, identity: &Identity) -> Result<Option<Receiver>, StartError> {
    let receiver = config.notifications.as_ref().map(|settings| Receiver::new(settings, identity)).transpose();
    receiver.map_err(|error| config.error("notifications", None, error.key, error.reason).into())
}

fn compile_policies(config: &Config) -> Result<Policies, StartError> {
    Policies::new(&config.policies).map_err(|error| at(config, error))
}

fn open_endpoints(config: &Config, extra_roots: &[CertificateDer<'static>]) -> Result<Vec<Arc<Endpoint>>, StartError> {
    Endpoint::open_all(&config.webhooks, extra_roots, USER_AGENT).map_err(|error| match error {
        webhooks::OpenError::Settings(error) => at(config, error),
        webhooks::OpenError::Client(error) => error.into(),
    })
}

fn open_routing(
    config: &Config,
    own: &RegionSettings,
    world: &World,
    extra_roots: &[CertificateDer<'static>],
) -> Result<Routing, StartError> {
    let roots: Result<Vec<_>, _> = extra_roots.iter().map(|root| reqwest::Certificate::from_der(root)).collect();
    let candidate = |region: &config::RegionSettings| Candidate {
        name: region.name.clone(),
        coordinates: region.coordinates(),
        countries: region.countries.clone(),
    };
    let settings = routing::Settings {
        own: own.name.clone(),
        regions: config.regions.iter().map(|region| (candidate(region), region.url.clone())).collect(),
        misdirected: config.routing.misdirected,
        header: config.routing.geo_header.clone(),
        database: config.routing.geoip_database.clone().map(Database::new),
        trusted_ca: roots?,
        user_agent: USER_AGENT,
    };
    Ok(Routing::new(settings, world.clock.clone(), world.randomness.clone())?)
}

/// What uploads know of an endpoint.
fn told(endpoint: &Endpoint) -> uploads::Endpoint {
    uploads::Endpoint {
        id: endpoint.id(),
        name: endpoint.name().to_string(),
        host: endpoint.host().to_owned(),
        states: endpoint.states().collect(),
    }
}

async fn open_storage(
    config: &Config,
    world: &World,
    extra_roots: Vec<CertificateDer<'static>>,
) -> Result<Storage, StartError> {
    let asks_for_signatures = config.policies.iter().any(PolicySettings::asks_for_signatures);
    let options = storage::Options {
        randomness: world.randomness.clone(),
        trusted_ca: extra_roots,
        environment: world.environment.clone(),
        user_agent: USER_AGENT.to_owned(),
        signing: if asks_for_signatures { Signing::Wanted } else { Signing::Unused },
    };
    Ok(Storage::open(&config.storage, options).await?)
}

fn open_tracing(
    config: &Config,
    world: &World,
    extra_roots: &[CertificateDer<'static>],
) -> Result<Option<(Arc<Tracer>, Exporter)>, StartError> {
    let roots: Result<Vec<_>, _> = extra_roots.iter().map(|root| reqwest::Certificate::from_der(root)).collect();
    let (clock, randomness) = (world.clock.clone(), world.randomness.clone());
    Ok(telemetry::open(&config.telemetry, clock, randomness, config.region.as_str(), roots?)?)
}

/// The certificates of `trusted_ca`.
fn extra_roots(config: &Config) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let Some(path) = &config.trusted_ca else { return Ok(Vec::new()) };
    let refuse = |reason: String| StartError::TrustedCa { path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let roots = roots.map_err(|_| refuse("is not PEM".to_owned()))?;
    if roots.is_empty() { Err(refuse("holds no certificate".to_owned())) } else { Ok(roots) }
}

fn region(settings: &config::RegionSettings) -> Region {
    Region { name: settings.name.clone(), bucket: settings.bucket.clone(), url: settings.url.clone() }
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
