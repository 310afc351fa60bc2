//! Google Cloud Storage: sessions are opened, looked at and cancelled; objects are read back and deleted.
//!
//! The module exists so that the rest of the service knows storage by five operations with types, and nothing of HTTP,
//! tokens and retries. Every operation may be repeated, here and by the caller, and ends by its deadline. Its parts, from
//! the outside in:
//!
//! - [`Storage`], here: what each operation promises;
//! - `json`: the exchanges, each one a request and the reading of its answer, `xml`: where the XML interface differs, and
//!   `endpoint`: the addresses in them;
//! - `describe`: what checks of a set-up ask about a bucket;
//! - `signer`: who signs the URLs that clients use by themselves, and `signing`: what is signed;
//! - `call`: the tries of one call, with `retry` to say when another one is made;
//! - `token`: a token that is always at hand, with `credentials` and `origin` to say whose and where from;
//! - `transport`: connections and trust.
//!
//! No address with its query, no token and no header leaves this module in an error, a log line or a metric.

use std::collections::BTreeMap;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::clock::Randomness;
use crate::model::id::UploadId;
use crate::model::name::{BucketName, ObjectName};
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::{Overwrite, Promise, StoredObject, UPLOAD_HINT, UPLOAD_NOTE};
use crate::telemetry::trace::{self, Kind};

mod call;
mod credentials;
mod describe;
mod endpoint;
mod error;
mod json;
mod metrics;
mod origin;
mod retry;
mod settings;
mod signer;
mod signing;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod xml;

pub use credentials::{Environment, FileError};
pub use describe::{BucketDescription, CorsEntry, Granted, NotificationConfig, Place};
pub use error::{Error, NotReady, OpenError, Outage, Upstream};
pub use metrics::Metrics;
pub use settings::{Api, Credentials, Settings};
pub use signing::signed_until;
pub use token::{Failure, TokenError};
pub use xml::{SignedMethod, metadata_in_headers, signed_headers};

use call::{CALLS, Caller, Limits};
use endpoint::Endpoint;
use metrics::Operation;
use origin::Origin;
use retry::Backoff;
use signer::Signer;
use signing::Canonical;
use token::TokenSource;
use transport::Clients;

/// A client of storage. One is made at start and shared; dropping it ends its background task.
///
/// A future of it that is dropped before its end abandons the call: what was asked for may happen or may not, and asking
/// again is safe.
pub struct Storage {
    endpoint: Endpoint,
    api: Api,
    caller: Caller,
    signer: Option<Signer>,
    /// As whom storage is called.
    whose: String,
    of_machine: bool,
}

/// What [`Storage::open`] needs beside its settings.
pub struct Options {
    /// For jitter.
    pub randomness: Randomness,
    /// Certificate authorities, beside those of the system, for storage and for token servers.
    pub trusted_ca: Vec<CertificateDer<'static>>,
    /// What the client calls itself.
    pub user_agent: String,
    /// Where to look for credentials.
    pub environment: Environment,
    /// Whether signed URLs will be asked for.
    pub signing: Signing,
}

/// Whether URLs will be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// None will, so that any credentials do.
    Unused,
    /// They will. Credentials that nobody can sign for are refused when the client is opened.
    Wanted,
}

/// A session to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Initiation<'a> {
    /// The upload that it is for; goes into the object's metadata as [`UPLOAD_HINT`].
    pub id: UploadId,
    /// What the broker wants to be told again by the object, as [`UPLOAD_NOTE`]: printable ASCII.
    pub note: Option<&'a str>,
    /// Where the object goes.
    pub bucket: &'a BucketName,
    /// What it will be called.
    pub object: &'a ObjectName,
    /// What is declared of it. Storage checks the digests when the last byte is there.
    pub promise: &'a Promise,
    /// Custom metadata.
    pub metadata: &'a BTreeMap<String, String>,
    /// `Cache-Control` of the object.
    pub cache_control: Option<&'a str>,
    /// Whether a live object of that name may be replaced. Where not, storage finds it at the last byte only.
    pub overwrite: Overwrite,
    /// The web origin that will use the session, exactly as a browser sends it.
    pub origin: Option<&'a str>,
}

/// How far a session has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is open, and this many bytes from the first are persisted.
    Persisted(ByteCount),
    /// It is finished; storage describes the object, or just says so.
    Finished(Option<StoredObject>),
    /// It expired, was cancelled, or never was. Whether it had been finished before is not known: look at the object.
    Gone,
}

/// An object, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundObject {
    /// The object.
    pub object: StoredObject,
    /// The value of [`UPLOAD_HINT`] in its metadata, as untrusted text.
    pub upload_hint: Option<String>,
    /// The value of [`UPLOAD_NOTE`] in its metadata, as untrusted text.
    pub note: Option<String>,
}

/// What a deletion came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// That generation was there, and is no more.
    Gone,
    /// It was not there. An earlier try may have deleted it, whose answer was lost.
    WasGone,
    /// Another generation has taken its place, and was left alone.
    Replaced,
}

/// What a cancellation came to. A last chunk under way may have won over any of these: look at the object before the
/// upload is called cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The session was open and takes nothing more.
    Ended,
    /// There was no such session any more.
    WasGone,
    /// The session had been finished: there is, or was, an object.
    Finished,
}

impl Storage {
    /// Prepares the client and begins to get a token in the background. Needs no network: an unreachable storage or
    /// token server is a matter of [`Storage::ready`].
    ///
    /// # Errors
    /// When the endpoint, the timeout, the credentials file, `GCE_METADATA_HOST`, the address of IAM Credentials or the
    /// certificate authorities are unusable, or URLs are to be signed and nobody can.
    pub async fn open(settings: &Settings, options: Options) -> Result<Self, OpenError> {
        Self::open_with(settings, options, Backoff::CALLS).await
    }

    async fn open_with(settings: &Settings, options: Options, backoff: Backoff) -> Result<Self, OpenError> {
        let Options { randomness, trusted_ca, user_agent, environment, signing } = options;
        let endpoint = Endpoint::new(&settings.endpoint)?;
        if !(Duration::from_millis(100)..=Duration::from_secs(600)).contains(&settings.timeout.0) {
            return Err(OpenError::Timeout);
        }
        let trust = transport::trust(&endpoint, &trusted_ca)?;
        let clients = Clients::new(&trust, &user_agent, CALLS)?;
        let found = credentials::find(&settings.credentials, &environment, &endpoint).await?;
        if matches!(found, credentials::Found::StandIn) {
            tracing::warn!(
                endpoint = %settings.endpoint,
                "storage is a stand-in on this machine and there are no credentials: it is sent a token that means nothing"
            );
        }
        let metrics = Metrics::new();
        let (identity, whose) = (found.signing_identity(), found.whose());
        let of_machine = matches!(found, credentials::Found::Machine(_));
        let origin = Origin::new(found, &trust, signing).await?;
        let signer = match signing {
            Signing::Unused => None,
            Signing::Wanted => Some(Signer::new(identity)?),
        };
        let tokens = TokenSource::start(origin, randomness.clone(), metrics.clone());
        let [limits, signing] = [(); 2].map(|()| Limits::new(settings.timeout.0, backoff));
        let caller = Caller { clients, tokens, randomness, metrics, limits, signing };
        Ok(Self { endpoint, api: settings.api, caller, signer, whose, of_machine })
    }

    /// Opens a resumable session, and hands out what it is told: the session of the last try that got an answer.
    ///
    /// Safe to repeat and to abandon: a session that nobody was told of takes no byte and expires by itself.
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 when there is no such bucket, with 403 without the permission to write there.
    pub async fn initiate(&self, initiation: &Initiation<'_>, deadline: Instant) -> Result<SessionUri, Error> {
        let request = match self.api {
            Api::Json => json::initiation_request(&self.endpoint, initiation)?,
            Api::Xml => xml::initiation_request(&self.endpoint, initiation)?,
        };
        let read = |answer: &_| json::read_initiated(&self.endpoint, &request.url, answer);
        self.caller.call(Operation::Initiate, &request, deadline, read).await
    }

    /// Whether [`Storage::initiate`] opens sessions with headers alone, as the XML interface does: then metadata is held to
    /// [`metadata_in_headers`].
    pub fn initiates_by_headers(&self) -> bool {
        self.api == Api::Xml
    }

    /// Signs what a client will do by itself, good from `now` for `lifetime`: it sends [`signed_headers`] to the URL. No
    /// call of storage; where Google holds the key, one call of IAM Credentials.
    ///
    /// # Errors
    /// [`Error::SigningRefused`] when IAM Credentials says no. [`Error::Nonsense`] when signing was not
    /// [`Signing::Wanted`], the lifetime is longer than seven days, or twelve hours where Google holds the key, or the
    /// name or the metadata cannot stand in a URL and in headers.
    pub async fn sign(
        &self,
        method: SignedMethod,
        initiation: &Initiation<'_>,
        now: Timestamp,
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<SessionUri, Error> {
        let signer = self.signer.as_ref().ok_or(Error::Nonsense("nobody was prepared to sign URLs"))?;
        let headers = xml::sendable(method, initiation)?;
        let request = Canonical {
            method: method.as_str(),
            origin: &self.endpoint.origin(),
            path: &self.endpoint.xml_path(initiation.bucket, initiation.object)?,
            query: &[],
            headers: &headers,
        };
        let signature = signer.sign(&self.caller, &request, now, lifetime, deadline);
        let traced = trace::child_told("storage sign", Kind::Internal, signature, |span, outcome| {
            if let Err(error) = outcome {
                span.fail(error.kind());
            }
        });
        traced.await
    }

    /// Asks how much of a session is persisted, without touching it: with `bytes */*`, since `bytes */N` can finish it.
    ///
    /// # Errors
    /// Not when the session is no more: that is [`Progress::Gone`].
    pub async fn look(&self, session: &SessionUri, deadline: Instant) -> Result<Progress, Error> {
        let request = json::look_request(&self.endpoint, session)?;
        self.caller.call(Operation::Look, &request, deadline, json::read_looked).await
    }

    /// The live object of that name, or `None`. Consistent: it sees what was finished before it was called.
    ///
    /// # Errors
    /// Not when there is no object, and not when there is no bucket either: storage answers both alike.
    pub async fn read_back(
        &self,
        bucket: &BucketName,
        object: &ObjectName,
        deadline: Instant,
    ) -> Result<Option<FoundObject>, Error> {
        let request = json::read_back_request(&self.endpoint, bucket, object)?;
        let read = |answer: &_| json::read_found(bucket, object, answer);
        self.caller.call(Operation::ReadBack, &request, deadline, read).await
    }

    /// Deletes exactly one generation of an object, and no other.
    ///
    /// # Errors
    /// [`Error::Refused`] with 403 for want of permission, or while a retention policy holds the object.
    pub async fn delete(
        &self,
        bucket: &BucketName,
        object: &ObjectName,
        generation: i64,
        deadline: Instant,
    ) -> Result<Deleted, Error> {
        let request = json::delete_request(&self.endpoint, bucket, object, generation)?;
        self.caller.call(Operation::Delete, &request, deadline, json::read_deleted).await
    }

    /// Takes a session's power away: its URI writes nothing more.
    ///
    /// # Errors
    /// Not when the session is no more: that is [`Cancelled::WasGone`].
    pub async fn cancel(&self, session: &SessionUri, deadline: Instant) -> Result<Cancelled, Error> {
        let request = json::cancel_request(&self.endpoint, session)?;
        self.caller.call(Operation::Cancel, &request, deadline, json::read_cancelled).await
    }

    /// Whether a usable token is at hand. Asks nobody.
    ///
    /// # Errors
    /// With the reason, when there is none.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.caller.tokens.ready().map_err(NotReady)
    }

    /// What has been counted.
    pub fn metrics(&self) -> &Metrics {
        &self.caller.metrics
    }
}
