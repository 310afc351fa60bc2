//! Whether what a configuration names is there, and set up as it must be: `check --live`, and a part of it at `serve`'s
//! start.
//!
//! The module exists so that what would fail with the first user fails before. Everything is asked for at once and within
//! bounds, changes nothing, and hides nothing else when it fails. The data structure is a [`Report`]: rows, each about one
//! subject, with what was found and what to do about it. No secret is in any.
//!
//! ```text
//! report.rs       rows, the table, the log lines
//! place.rs        where this machine is, and whether a bucket is there
//! bucket.rs       the bucket: place, permissions, browsers, retention, notifications
//! account.rs      credentials, signatures, storage's clock
//! servers.rs      Redis, and the issuers' keys
//! reach.rs        webhook receivers and the brokers of other regions
//! certificate.rs  the certificate that clients are shown
//! ```

mod account;
mod bucket;
mod certificate;
mod place;
mod reach;
pub mod report;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use url::Url;

use crate::clock::{Clock, Randomness};
use crate::http::push::Receiver;
use crate::identity::Identity;
use crate::machine::Machine;
use crate::model::name::RegionName;
use crate::model::upload::TransferKind;
use crate::server::TlsCertificate;
use crate::storage::{Api, Storage};
use crate::store::Store;
use crate::uploads::Region;
use crate::webhooks::Endpoint;

pub use reach::{Outside, OutsideError};
use report::{Report, Row};

/// How long one question may take, retries included.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long all questions about one subject may take, of which some follow others. With [`crate::machine::PATIENCE`] a
/// check takes less than 20 s, whoever hangs.
const LIMIT: Duration = Duration::from_secs(17);

/// What is looked at.
pub struct Subject {
    /// Tells the time.
    pub clock: Clock,
    /// Makes the name of an object that will never be.
    pub randomness: Randomness,
    /// `GCE_METADATA_HOST`.
    pub metadata_host: Option<String>,
    /// The own region, unless it is that of the machine.
    pub own: Option<Region>,
    /// All of them.
    pub regions: Vec<Region>,
    /// What clients call this broker.
    pub public_url: Url,
    /// The origins whose pages may use it.
    pub allowed_origins: Vec<String>,
    /// What clients are shown; none where a proxy ends TLS.
    pub certificate: Option<TlsCertificate>,
    /// The interface that opens sessions.
    pub api: Api,
    /// How bytes may travel under any policy.
    pub transfers: Vec<TransferKind>,
    /// Where objects go.
    pub storage: Storage,
    /// Where uploads are tracked.
    pub store: Store,
    /// Whose tokens are accepted.
    pub identity: Identity,
    /// Whose pushes are accepted, if anybody's.
    pub receiver: Option<Receiver>,
    /// Who is told of ended uploads.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How others are reached.
    pub outside: Outside,
}

/// What is looked at when the service starts: what is cheap, and goes wrong without anybody noticing.
#[derive(Clone, Copy)]
pub struct Essentials<'a> {
    /// Tells the time.
    pub clock: &'a Clock,
    /// The own region.
    pub region: &'a Region,
    /// `GCE_METADATA_HOST`.
    pub metadata_host: Option<&'a str>,
    /// Where objects go.
    pub storage: &'a Storage,
    /// What clients call this broker.
    pub public_url: &'a Url,
    /// What clients are shown.
    pub certificate: Option<&'a TlsCertificate>,
}

/// Looks at everything; less than 20 s.
pub async fn check(subject: &Subject) -> Report {
    let machine = Machine::new(subject.metadata_host.as_deref());
    let here = match &machine {
        Ok(machine) => machine.region().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let own = own_region(subject, here.as_ref().ok());
    let configured = subject.own.as_ref().map(|region| &region.name);
    let instance = place::instance(configured, &subject.regions, here.as_ref());
    let regions = place::regions(&subject.regions);
    let bucket = async {
        match own {
            Some(region) => bucket::rows(subject, region).await,
            None => vec![Row::skipped("bucket", "", "the own region is not known")],
        }
    };
    let (credentials, bucket, signing, store, issuers, webhooks, brokers) = tokio::join!(
        within("credentials", account::credentials(&subject.storage, machine.as_ref().ok())),
        within("bucket", bucket),
        within("signing", account::signing(subject, own)),
        within("store", servers::store(&subject.store)),
        within("issuer", servers::issuers(&subject.identity, subject.receiver.as_ref())),
        within("webhook", reach::webhooks(&subject.outside, &subject.endpoints)),
        within("broker", reach::brokers(subject, own)),
    );
    let certificate = certificate::row(subject.certificate.as_ref(), &subject.public_url, &subject.clock);
    let rows = [vec![instance, regions], credentials, bucket, signing, store, issuers, webhooks, brokers];
    Report::new(rows.into_iter().flatten().chain([certificate]).collect())
}

/// Looks at what is cheap: where this machine is, three calls to storage, and the certificate at hand.
pub async fn check_at_start(essentials: &Essentials<'_>) -> Report {
    let Essentials { clock, region, metadata_host, storage, public_url, certificate } = *essentials;
    let instance = async {
        // Off Google nobody says, and there is nothing to be said of it.
        let here = Machine::new(metadata_host).ok()?.region().await.ok()?;
        Some(place::instance(Some(&region.name), &[], Ok(&here)))
    };
    let (instance, place, permissions) = tokio::join!(
        instance,
        within("location", bucket::location_alone(storage, region)),
        within("permissions", async { vec![bucket::permissions(storage, &region.bucket).await.0] }),
    );
    let certificate = certificate::row(certificate, public_url, clock);
    Report::new(instance.into_iter().chain(place).chain(permissions).chain([certificate]).collect())
}

/// The own region, also where it is the machine's.
fn own_region<'a>(subject: &'a Subject, here: Option<&RegionName>) -> Option<&'a Region> {
    subject.own.as_ref().or_else(|| subject.regions.iter().find(|region| Some(&region.name) == here))
}

async fn within(name: &'static str, rows: impl Future<Output = Vec<Row>>) -> Vec<Row> {
    timeout(LIMIT, rows).await.unwrap_or_else(|_| {
        let found = format!("no answer within {} s", LIMIT.as_secs());
        vec![Row::failed(name, "", found, "look at what stands between this machine and those that it asks")]
    })
}

/// Until when a question that is asked now may take.
fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
