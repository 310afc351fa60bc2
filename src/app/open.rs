//! From a configuration to the parts of a service: what lives as long as the process, and what the configuration decides.
//!
//! A reload makes a new [`Present`] beside the old one and puts it in place with one step. A request is answered by the
//! router that is in force when it comes, to its end, so everything about it is decided by one configuration.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::{Semaphore, mpsc};

use super::{BODY_TIMEOUT, CONNECT_TIMEOUT, PATIENCE_MARGIN, REQUESTS_AT_ONCE, StartError, World};
use crate::config::{Config, OwnRegion, RegionSettings};
use crate::geo::{Candidate, Database};
use crate::http::arrival::TrustedProxies;
use crate::http::extract::AllowedOrigins;
use crate::http::gate::Gate;
use crate::http::push::Receiver;
use crate::http::readiness::Readiness;
use crate::http::{self, Observer, Services, Tracing};
use crate::identity::Identity;
use crate::machine::{self, Machine};
use crate::model::chain;
use crate::model::id::Partition;
use crate::model::name::RegionName;
use crate::model::section::SectionError;
use crate::notifications;
use crate::policy::{Policies, PolicySettings};
use crate::routing::{self, Routing};
use crate::storage::{self, Signing, Storage};
use crate::store::Store;
use crate::telemetry::trace::Tracer;
use crate::telemetry::{self, Exporter};
use crate::uploads::{self, Recent, Region, Uploads, Watchers};
use crate::webhooks::{self, Endpoint};

/// What others see as the user agent.
pub(super) const USER_AGENT: &str = concat!("upload-broker/", env!("CARGO_PKG_VERSION"));

/// What lives as long as the process, under whatever configuration.
pub(super) struct Lasting {
    pub(super) world: World,
    /// The region that is served. Where the machine tells it, nobody asks it twice.
    own: RegionName,
    pub(super) store: Arc<Store>,
    pub(super) storage: Arc<Storage>,
    /// Whether storage was opened to sign URLs.
    signing: Signing,
    extra_roots: Vec<CertificateDer<'static>>,
    permits: Arc<Semaphore>,
    watchers: Arc<Watchers>,
    recent: Arc<Recent>,
    pub(super) readiness: Arc<Readiness>,
    ended: mpsc::Sender<Partition>,
    pub(super) tracer: Option<Arc<Tracer>>,
    pub(super) http_metrics: Arc<http::Metrics>,
    pub(super) upload_metrics: uploads::Metrics,
    pub(super) notification_metrics: notifications::Metrics,
}

/// What a configuration decides, as it is in force.
pub(super) struct Present {
    pub(super) router: axum::Router,
    pub(super) uploads: Arc<Uploads>,
    pub(super) identity: Arc<Identity>,
    pub(super) receiver: Option<Arc<Receiver>>,
    pub(super) trusted_proxies: TrustedProxies,
}

impl Present {
    /// The issuers whose keys it reads.
    pub(super) fn issuers(&self) -> impl Iterator<Item = &str> {
        let of_pushes = self.receiver.iter().flat_map(|receiver| receiver.issuers());
        self.identity.issuers().chain(of_pushes)
    }

    /// Shows in metrics what is counted of its policies, regions and issuers, also where nothing has happened yet.
    pub(super) fn introduce(&self) {
        self.uploads.introduce_policies();
        self.uploads.routing.introduce_peers();
        self.identity.introduce_issuers();
        if let Some(receiver) = &self.receiver {
            receiver.introduce_issuers();
        }
    }

    /// Reads keys that are not known yet, so that the first request that needs them does not wait.
    pub(super) async fn warm_up(&self) {
        let of_pushes = async {
            if let Some(receiver) = &self.receiver {
                receiver.warm_up().await;
            }
        };
        tokio::join!(self.identity.warm_up(), of_pushes);
    }
}

/// What a configuration makes, before it is in force.
pub(super) struct Opened {
    pub(super) present: Present,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
}

impl Lasting {
    /// Opens what is opened once, and who sends traces away, if anybody does. `ended` hears of the partitions in which
    /// somebody is to be told that an upload ended.
    pub(super) async fn open(
        config: &Config,
        world: World,
        ended: mpsc::Sender<Partition>,
    ) -> Result<(Self, Option<Exporter>), StartError> {
        let extra_roots = extra_roots(config)?;
        let store = Arc::new(Store::open(&config.store, world.randomness.clone()).await?);
        let own = own_region(config, &world).await?;
        let (tracer, exporter) = open_tracing(config, &own, &world, &extra_roots)?.unzip();
        let storage = Arc::new(open_storage(config, &world, extra_roots.clone()).await?);
        let lasting = Self {
            own,
            readiness: Arc::new(Readiness::new(Arc::clone(&store), Arc::clone(&storage))),
            store,
            storage,
            signing: signing(config),
            extra_roots,
            permits: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)),
            watchers: Arc::new(Watchers::new(world.watching)),
            recent: Arc::default(),
            ended,
            tracer,
            http_metrics: Arc::default(),
            upload_metrics: uploads::Metrics::default(),
            notification_metrics: notifications::Metrics::default(),
            world,
        };
        Ok((lasting, exporter))
    }

    /// Makes of a configuration all that it decides. `before` is what is in force: keys of issuers, the health of
    /// regions, and what is counted, go over from it. Blocks: it reads small files, and compiles conditions.
    ///
    /// # Errors
    /// When anything of it cannot be used. Nothing has changed then.
    pub(super) fn present(&self, config: &Config, before: Option<&Present>) -> Result<Opened, StartError> {
        let identity = match before {
            Some(before) => reconfigured(config, &before.identity)?,
            None => open_identity(config, &self.world, &self.extra_roots)?,
        };
        let receiver = match before.and_then(|before| before.receiver.as_deref()) {
            Some(receiver) => reconfigured_receiver(config, receiver)?,
            None => open_receiver(config, &identity, self.notification_metrics.clone())?,
        };
        let (identity, receiver) = (Arc::new(identity), receiver.map(Arc::new));
        let policies = compile_policies(config)?;
        self.check_signing(config)?;
        let endpoints = open_endpoints(config, &self.extra_roots)?;
        let own = config.region_named(&self.own).ok_or_else(|| no_section(config, &self.own))?;
        let routing = match before {
            Some(before) => {
                let routing = &before.uploads.routing;
                routing.reconfigured(map_of(config, routing.locator.database.as_ref()))
            }
            None => open_routing(config, own, &self.world, &self.extra_roots)?,
        };
        let uploads = Arc::new(Uploads {
            clock: self.world.clock.clone(),
            randomness: self.world.randomness.clone(),
            policies,
            store: Arc::clone(&self.store),
            storage: Arc::clone(&self.storage),
            region: region(own),
            regions: config.regions.iter().map(region).collect(),
            routing: Arc::new(routing),
            endpoints: endpoints.iter().map(|endpoint| told(endpoint)).collect(),
            ended: self.ended.clone(),
            storage_timeout: config.storage.timeout.0,
            sweeper: config.sweeper,
            watchers: Arc::clone(&self.watchers),
            recent: Arc::clone(&self.recent),
            tracer: self.tracer.clone(),
            metrics: self.upload_metrics.clone(),
        });
        let trusted_proxies = TrustedProxies(config.server.trusted_proxies.clone().into());
        let gate = Gate {
            trusted_proxies: trusted_proxies.clone(),
            transport: self.world.transport,
            permits: Arc::clone(&self.permits),
            patience: BODY_TIMEOUT + config.storage.timeout.0 + PATIENCE_MARGIN,
        };
        let services = Services {
            uploads: Arc::clone(&uploads),
            identity: Arc::clone(&identity),
            receiver: receiver.clone(),
            allowed_origins: AllowedOrigins(config.server.allowed_origins.clone().into()),
            readiness: Arc::clone(&self.readiness),
            trusted_proxies: trusted_proxies.clone(),
        };
        let tracing = self.tracer.clone().map(|tracer| Tracing {
            tracer,
            trusted_proxies: config.server.trusted_proxies.clone().into(),
            server_address: config.server.public_url.host_str().unwrap_or_default().into(),
        });
        let (metrics, randomness) = (Arc::clone(&self.http_metrics), self.world.randomness.clone());
        let router = http::router(services, gate, Observer { metrics, randomness, tracing })?;
        Ok(Opened { present: Present { router, uploads, identity, receiver, trusted_proxies }, endpoints })
    }

    /// Refuses policies that need signatures where storage was opened without: it takes another token for them.
    fn check_signing(&self, config: &Config) -> Result<(), StartError> {
        let asking = config.policies.iter().position(PolicySettings::asks_for_signatures);
        match (self.signing, asking) {
            (Signing::Unused, Some(index)) => {
                let reason = "signed URLs need a restart, since no policy asked for them at the start";
                Err(config.error("policies", Some(index), "transfers", reason).into())
            }
            _ => Ok(()),
        }
    }
}

/// The region that is served: the one that is named, or that of the machine.
async fn own_region(config: &Config, world: &World) -> Result<RegionName, StartError> {
    let name = match &config.region {
        OwnRegion::Named(name) => name.clone(),
        OwnRegion::OfMachine => {
            let unknown =
                |error: machine::Error| config.error("region", None, "", format!("\"auto\": {}", chain(&error)));
            let machine = Machine::new(world.environment.gce_metadata_host.as_deref()).map_err(unknown)?;
            machine.region().await.map_err(unknown)?
        }
    };
    if config.region_named(&name).is_none() {
        return Err(no_section(config, &name));
    }
    Ok(name)
}

fn no_section(config: &Config, name: &RegionName) -> StartError {
    config.error("region", None, "", format!("\"{name}\" is not the name of any [[regions]] section")).into()
}

/// The same with the file and the line.
fn at(config: &Config, error: SectionError) -> StartError {
    config.error(error.section, Some(error.index), error.key, error.reason).into()
}

pub(super) fn open_identity(
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

fn reconfigured(config: &Config, before: &Identity) -> Result<Identity, StartError> {
    before.reconfigured(&config.issuers).map_err(|error| at(config, error))
}

pub(super) fn open_receiver(
    config: &Config,
    identity: &Identity,
    metrics: notifications::Metrics,
) -> Result<Option<Receiver>, StartError> {
    let receiver = config.notifications.as_ref().map(|settings| Receiver::new(settings, identity, metrics)).transpose();
    receiver.map_err(|error| config.error("notifications", None, error.key, error.reason).into())
}

fn reconfigured_receiver(config: &Config, before: &Receiver) -> Result<Option<Receiver>, StartError> {
    let receiver = config.notifications.as_ref().map(|settings| before.reconfigured(settings)).transpose();
    receiver.map_err(|error| config.error("notifications", None, error.key, error.reason).into())
}

/// The policies of a configuration.
///
/// # Errors
/// At the first that cannot be.
pub fn compile_policies(config: &Config) -> Result<Policies, StartError> {
    Policies::new(&config.policies).map_err(|error| at(config, error))
}

pub(super) fn open_endpoints(
    config: &Config,
    extra_roots: &[CertificateDer<'static>],
) -> Result<Vec<Arc<Endpoint>>, StartError> {
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
    let settings = routing::Settings {
        own: own.name.clone(),
        map: map_of(config, None),
        trusted_ca: roots?,
        user_agent: USER_AGENT,
    };
    Ok(Routing::new(settings, world.clock.clone(), world.randomness.clone())?)
}

/// What routing knows of regions and clients. `database` is kept, if it is of the file that is configured.
fn map_of(config: &Config, database: Option<&Arc<Database>>) -> routing::Map {
    let candidate = |region: &RegionSettings| Candidate {
        name: region.name.clone(),
        coordinates: region.coordinates(),
        countries: region.countries.clone(),
    };
    let kept_or_new = |file: &PathBuf| match database {
        Some(database) if database.file() == file => Arc::clone(database),
        _ => Arc::new(Database::new(file.clone())),
    };
    routing::Map {
        regions: config.regions.iter().map(|region| (candidate(region), region.url.clone())).collect(),
        misdirected: config.routing.misdirected,
        header: config.routing.geo_header.clone(),
        database: config.routing.geoip_database.as_ref().map(kept_or_new),
    }
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

fn signing(config: &Config) -> Signing {
    let asks = config.policies.iter().any(PolicySettings::asks_for_signatures);
    if asks { Signing::Wanted } else { Signing::Unused }
}

pub(super) async fn open_storage(
    config: &Config,
    world: &World,
    extra_roots: Vec<CertificateDer<'static>>,
) -> Result<Storage, StartError> {
    let options = storage::Options {
        randomness: world.randomness.clone(),
        trusted_ca: extra_roots,
        environment: world.environment.clone(),
        user_agent: USER_AGENT.to_owned(),
        signing: signing(config),
    };
    Ok(Storage::open(&config.storage, options).await?)
}

fn open_tracing(
    config: &Config,
    own: &RegionName,
    world: &World,
    extra_roots: &[CertificateDer<'static>],
) -> Result<Option<(Arc<Tracer>, Exporter)>, StartError> {
    let roots: Result<Vec<_>, _> = extra_roots.iter().map(|root| reqwest::Certificate::from_der(root)).collect();
    let (clock, randomness) = (world.clock.clone(), world.randomness.clone());
    Ok(telemetry::open(&config.telemetry, clock, randomness, own.as_str(), roots?)?)
}

/// The certificates of `trusted_ca`.
pub(super) fn extra_roots(config: &Config) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let Some(path) = &config.trusted_ca else { return Ok(Vec::new()) };
    let refuse = |reason: String| StartError::TrustedCa { path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let roots = roots.map_err(|_| refuse("is not PEM".to_owned()))?;
    if roots.is_empty() { Err(refuse("holds no certificate".to_owned())) } else { Ok(roots) }
}

pub(super) fn region(settings: &RegionSettings) -> Region {
    Region { name: settings.name.clone(), bucket: settings.bucket.clone(), url: settings.url.clone() }
}
