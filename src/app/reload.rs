//! Another configuration for a process that runs: the file is read again when somebody asks, and when it has changed.
//!
//! A configuration is put in force as a whole or not at all. What of it needs a restart, and has changed, refuses it: so
//! what is in force is always what some file said, and never a mixture of two. The certificate is a thing of its own: it
//! is renewed by machines, and a mistake of a person must not keep the old one until it runs out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::StartError;
use super::files::Contents;
use super::open::{Lasting, Opened, Present};
use crate::config::{self, Config, Errors};
use crate::model::chain;
use crate::model::time::Timestamp;
use crate::server::{self, TlsCertificate, TlsError, Validity};
use crate::telemetry::NoLabels;
use crate::webhooks::Webhooks;

/// How often files are looked at.
const POLL: Duration = Duration::from_secs(5);

/// How long files must have held what they hold before it is taken: who writes one may not be done.
const SETTLED: Duration = Duration::from_millis(500);

/// Why a configuration is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It may have changed between the start and the first look.
    FirstLook,
    /// A file has changed.
    Noticed,
    /// Somebody has asked.
    Asked,
}

/// What became of a look.
enum Reloaded {
    /// The new configuration is in force. With the sections and keys that changed.
    Applied(BTreeSet<String>),
    /// It says what is in force already.
    Unchanged,
    /// It cannot be put in force, and the old one stays. With the reason, for people.
    Refused(String),
}

/// Why a configuration cannot be put in force.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Config(#[from] Errors),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the reload was broken off")]
    Broken(#[from] tokio::task::JoinError),
}

/// Puts other configurations in force.
pub struct Reloader {
    lasting: Arc<Lasting>,
    present: Arc<ArcSwap<Present>>,
    webhooks: Arc<Webhooks>,
    certificate: Option<TlsCertificate>,
    metrics: Metrics,
    asked: Notify,
    /// Held for the time of a reload, so that there is one at a time.
    known: Mutex<Known>,
}

/// What is known of files.
struct Known {
    /// The configuration in force.
    config: Config,
    /// What the files that it names held when it was read.
    contents: Contents,
    /// What all files held at the last attempt, whatever came of it.
    tried: Contents,
}

/// The parts of a service that a reload replaces, or needs.
pub(super) struct Parts {
    pub(super) lasting: Arc<Lasting>,
    pub(super) present: Arc<ArcSwap<Present>>,
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) certificate: Option<TlsCertificate>,
}

impl Reloader {
    /// For a service under `config`, which was read when its files held `contents`.
    pub(super) fn new(parts: Parts, config: Config, contents: Contents) -> Self {
        let Parts { lasting, present, webhooks, certificate } = parts;
        let metrics = Metrics::new(lasting.world.clock.now());
        metrics.observe_expiry(certificate.as_ref());
        let known = Mutex::new(Known { config, contents, tried: Contents::default() });
        Self { lasting, present, webhooks, certificate, metrics, asked: Notify::new(), known }
    }

    /// Has the file looked at now, by [`Reloader::watch`].
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Looks at `file`, and at the files that it names, every few seconds and when somebody [asks](Self::ask), and puts in
    /// force what they say, until `stop`.
    pub async fn watch(&self, file: PathBuf, stop: CancellationToken) {
        let mut why = Why::FirstLook;
        let watching = async {
            loop {
                self.look(&file, why).await;
                why = tokio::select! {
                    () = self.asked.notified() => Why::Asked,
                    () = self.change() => Why::Noticed,
                };
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watching => {}
        }
    }

    /// Returns once files hold something else than at the last attempt, and do not change any more.
    async fn change(&self) {
        let tried = self.known.lock().await.tried.clone();
        let mut seen = tried.clone();
        loop {
            tokio::time::sleep(if seen == tried { POLL } else { SETTLED }).await;
            let now = again(&tried).await;
            if now == seen && now != tried {
                return;
            }
            seen = now;
        }
    }

    async fn look(&self, file: &Path, why: Why) {
        let mut known = self.known.lock().await;
        // Before the file is read: what changes from here on is another change.
        let tried = self.contents(file, &known.config).await;
        let read = tokio::task::spawn_blocking({
            let file = file.to_owned();
            move || config::load_file(&file)
        });
        let reloaded = match read.await {
            Ok(Ok(config)) => {
                // Those that only the new one names, too: it may be refused for one of them, and wait for it.
                known.tried = tried.with(self.contents(file, &config).await);
                let reloaded = self.reload(&mut known, config).await;
                reloaded.unwrap_or_else(|refusal| Reloaded::Refused(chain(&refusal)))
            }
            Ok(Err(errors)) => {
                known.tried = tried;
                Reloaded::Refused(errors.to_string())
            }
            Err(broken) => Reloaded::Refused(chain(&Refusal::from(broken))),
        };
        if why == Why::Asked {
            let routing = Arc::clone(&self.present.load().uploads.routing);
            routing.refresh_database().await;
        }
        let certificate = self.reload_certificate().await;
        self.metrics.observe_expiry(self.certificate.as_ref());
        self.tell(why, &reloaded, certificate);
    }

    /// Puts `config` in force, if it can be.
    async fn reload(&self, known: &mut Known, config: Config) -> Result<Reloaded, Refusal> {
        let changes = known.config.changes(&config);
        let fixed: Vec<_> = changes.iter().filter(|change| change.needs_restart()).collect();
        if !fixed.is_empty() {
            let errors: Vec<_> = fixed.into_iter().map(|change| config.needs_restart(change)).collect();
            return Err(Errors::from(errors).into());
        }
        let contents = read(config.files()).await;
        let mut keys_changed: BTreeSet<String> = changes.iter().map(ToString::to_string).collect();
        keys_changed.extend(known.contents.changed(&contents).map(str::to_owned));
        if keys_changed.is_empty() {
            return Ok(Reloaded::Unchanged);
        }
        let keys = self.lasting.store.read_keys(&config.store.encryption_keys, self.lasting.world.randomness.clone());
        let keys = keys.await.map_err(StartError::from)?;
        let (lasting, before) = (Arc::clone(&self.lasting), self.present.load_full());
        let (opened, config) = tokio::task::spawn_blocking(move || {
            let opened = lasting.present(&config, Some(&before));
            opened.map(|opened| (opened, config))
        })
        .await??;
        // It may be another one now; one that cannot be used is no reason to refuse the rest.
        opened.present.uploads.routing.refresh_database().await;
        // Nothing can fail from here on.
        if let Some(keys) = keys {
            self.lasting.store.replace_keys(keys);
        }
        self.put_in_force(opened);
        (known.config, known.contents) = (config, contents);
        Ok(Reloaded::Applied(keys_changed))
    }

    fn put_in_force(&self, Opened { present, endpoints }: Opened) {
        let present = Arc::new(present);
        // What ends from now on is recorded for them.
        self.webhooks.tell(endpoints);
        let before = self.present.swap(Arc::clone(&present));
        present.uploads.watchers.follow(&present.uploads);
        present.introduce();
        for issuer in before.issuers() {
            if !present.issuers().any(|kept| kept == issuer) {
                present.identity.forget(issuer);
            }
        }
        self.metrics.loaded.set(self.lasting.world.clock.now().as_secs());
        tokio::spawn(async move { present.warm_up().await });
    }

    /// What the file, and those that `config` names, hold now: with the certificate.
    async fn contents(&self, file: &Path, config: &Config) -> Contents {
        let tls = config.server.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        let tls = tls.map(|file| ("server.tls", file.clone()));
        read(std::iter::once(("", file.to_owned())).chain(tls).chain(config.files())).await
    }

    async fn reload_certificate(&self) -> Result<server::Reloaded, TlsError> {
        let Some(certificate) = self.certificate.clone() else { return Ok(server::Reloaded::Unchanged) };
        let reading = tokio::task::spawn_blocking(move || certificate.reload()).await;
        // Broken off only where the process ends.
        reading.unwrap_or(Ok(server::Reloaded::Unchanged))
    }

    /// Says in metrics and log what became of a look.
    fn tell(&self, why: Why, reloaded: &Reloaded, certificate: Result<server::Reloaded, TlsError>) {
        let all = match (reloaded, &certificate) {
            (Reloaded::Refused(_), _) | (_, Err(_)) => "refused",
            (Reloaded::Applied(_), _) | (_, Ok(server::Reloaded::Changed)) => "applied",
            (Reloaded::Unchanged, Ok(server::Reloaded::Unchanged)) => "unchanged",
        };
        let was_refused = self.metrics.successful.get() == 0;
        if why != Why::FirstLook || all != "unchanged" {
            self.metrics.observe(all);
        }
        match reloaded {
            Reloaded::Applied(changed) => {
                let changed = changed.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                info!(changed, "another configuration is in force");
            }
            // Somebody has put back what was there before, and waits for a word.
            Reloaded::Unchanged if was_refused && all == "unchanged" => {
                info!("the files can be used again, and say what is in force");
            }
            Reloaded::Unchanged if why == Why::Asked => info!("the configuration is the same as before"),
            Reloaded::Unchanged => debug!("the configuration is the same as before"),
            Reloaded::Refused(reason) => error!(error = reason, "the configuration cannot be used; the old one stays"),
        }
        match certificate {
            Ok(server::Reloaded::Changed) => info!("the TLS certificate was replaced"),
            Ok(server::Reloaded::Unchanged) => {}
            Err(error) => error!(error = chain(&error), "the TLS certificate cannot be used; the old one is served on"),
        }
    }

    /// What this service counts of reloads.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// Looks at files, away from the threads that serve.
async fn read(files: impl Iterator<Item = (&'static str, PathBuf)>) -> Contents {
    let files: Vec<_> = files.collect();
    tokio::task::spawn_blocking(|| Contents::of(files)).await.unwrap_or_default()
}

/// Looks at the same files once more.
async fn again(contents: &Contents) -> Contents {
    let contents = contents.clone();
    tokio::task::spawn_blocking(move || contents.again()).await.unwrap_or_default()
}

/// What is counted of reloads.
pub(super) struct Metrics {
    reloads: Family<Labels, Counter>,
    successful: Gauge,
    loaded: Gauge,
    /// Where there is a certificate.
    expiry: Family<NoLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

impl Metrics {
    fn new(now: Timestamp) -> Self {
        let metrics = Self {
            reloads: Family::default(),
            successful: Gauge::default(),
            loaded: Gauge::default(),
            expiry: Family::default(),
        };
        for result in ["applied", "unchanged", "refused"] {
            drop(metrics.reloads.get_or_create(&Labels { result }));
        }
        metrics.successful.set(1);
        metrics.loaded.set(now.as_secs());
        metrics
    }

    /// Makes them visible in `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Attempts to put what files say in force, by what came of them";
        registry.register("config_reloads", help, self.reloads.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether the configuration and the certificate that files hold can be used: 0 while old ones are in force instead",
            self.successful.clone(),
        );
        registry.register(
            "config_loaded_timestamp_seconds",
            "When the configuration in force was read, in seconds since the epoch",
            self.loaded.clone(),
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "Until when the certificate is good that new connections get, in seconds since the epoch",
            self.expiry.clone(),
        );
    }

    fn observe_expiry(&self, certificate: Option<&TlsCertificate>) {
        if let Some(validity) = certificate.and_then(|certificate| Validity::of(&certificate.leaf())) {
            self.expiry.get_or_create(&[]).set(validity.until.as_secs());
        }
    }

    fn observe(&self, result: &'static str) {
        self.reloads.get_or_create(&Labels { result }).inc();
        self.successful.set(i64::from(result != "refused"));
    }
}
