//! A stand-in for Google Cloud Storage on loopback, for the demo, for the tests of this crate, and for those of others.
//!
//! It exists because no other stand-in treats resumable uploads as storage does: gaps, overlaps, digests, declared
//! sizes, cancellation and the binding to an origin decide whether a client works, and are what other stand-ins leave
//! out. It speaks the JSON API over plain HTTP/1.1; other interfaces of storage would be further kinds of
//! `target::Route`.
//!
//! A `World` holds everything: buckets with their live objects (`objects`), sessions found by their secret
//! (`sessions`), the journal and the faults. A request becomes a `http::Call`, which a fault may spoil; the rules of
//! one session stand in `session`, free of HTTP. Bytes are digested as they come and kept only up to
//! [`Settings::keep_bytes`], so that large uploads cost no memory.
//!
//! # Where storage is uncertain
//! Most behaviour follows the storage documentation ("Resumable uploads", "Perform resumable uploads", "Objects",
//! "Configuration examples for CORS") and published answers of production storage. Where neither says what happens, this
//! is what the emulator does, as a rule what is harder for clients:
//!
//! | case | here |
//! |---|---|
//! | more bytes than declared, or than the request's range | 400; none beyond the limit count, the session lives on |
//! | fewer bytes than declared complete | 400; the session lives on |
//! | a body shorter than its range, or a broken connection | 400, or nothing; what arrived counts down to a multiple of 256 KiB |
//! | a non-final chunk that is no multiple of 256 KiB | persisted down to a multiple |
//! | declared size reached, but the last request was cut | completed, as without a final marker |
//! | empty `PUT` without `Content-Range` on a partial session | 400: it says that the object is empty |
//! | `bytes */N` with another `N` than was persisted, on an undeclared session | larger: 308, and `N` binds nobody; smaller: 400 |
//! | digest mismatch or 412 at completion | the session is dead: 410 |
//! | `X-Goog-Hash` that is right after a digest of the initiation that is wrong | 400 |
//! | `X-Goog-Hash` with a blank after the comma, or an unknown algorithm | 400 |
//! | `X-Goog-Meta-*` on the last request, for a key of the initiation | the last request wins |
//! | two requests writing to one session | the later one wins, the earlier one is answered 503 |
//! | `DELETE` on a completed session | 499, and the object stays |
//! | use after `DELETE` | 499; 410 is what is documented |
//! | another bucket in the path of a session URI; a changed `upload_id` | 404 |
//! | another query in a session URI | ignored: name and preconditions are those of the initiation |
//! | a finished session | answers 200 until its week is over |
//! | `X-GUploader-UploadID` of later answers | the secret again |
//! | preflight for a session initiated without `Origin` | no allow-origin |
//! | exposed headers | a plausible list with `Range` and `Location`; `Retry-After` is not among them |
//! | revoked permissions, `userProject`, encryption keys, retention, holds | not looked at; fields are kept and shown |
//! | tokens | any bearer token will do |
//! | versioning, soft delete | none: what is replaced or removed is gone |
//!
//! # Faults
//! [`faults`] lists what can go wrong on demand. A connection is cut by an error of hyper's service: hyper then drops the
//! connection without a word, and as its socket is given back with a linger time of zero, the client sees a TCP reset.
//!
//! # Control
//! | request | what it does |
//! |---|---|
//! | `GET /_emulator/journal?since=N` | the calls after sequence number `N`, and the latest number |
//! | `DELETE /_emulator/journal` | forgets them |
//! | `POST /_emulator/faults` | sets more [`faults::Fault`]s, a JSON list |
//! | `GET`, `DELETE /_emulator/faults` | shows them; drops them and lets held calls go on |
//! | `POST /_emulator/faults/release` | lets held calls go on |
//! | `POST /_emulator/clock` | `{"advance": "7d"}`: the emulator's time alone moves |
//! | `GET /_emulator/sessions` | how many can take bytes, and the newest thousand |

mod accounts;
mod attributes;
mod bucket_cors;
mod connection;
mod content;
mod control;
mod cors;
pub mod faults;
mod fields;
mod http;
mod insertion;
pub mod journal;
mod oauth;
mod objects;
mod problem;
mod range;
mod resources;
mod session;
mod sessions;
mod simple;
mod target;
#[cfg(test)]
mod tests;
mod upload;
mod xml;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Randomness};
use crate::model::digest::{Crc32c, Md5};
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;

use self::accounts::Accounts;
pub use self::accounts::{AccountError, OWN_ACCOUNT};
pub use self::bucket_cors::CorsRule;
use self::content::Memory;
use self::faults::Faults;
use self::journal::Journal;
use self::objects::{Condition, Objects};
use self::sessions::Sessions;

/// How an emulator is to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The buckets that are there from the start.
    pub buckets: Vec<BucketSettings>,
    /// Service accounts besides [`OWN_ACCOUNT`] whose signed URLs are accepted, each with its public key in PEM.
    pub signers: BTreeMap<String, String>,
    /// What its time is based on.
    pub clock: Clock,
    /// What session secrets are made of.
    pub randomness: Randomness,
    /// Whether calls need a token.
    pub authorization: Authorization,
    /// Larger objects keep their digests only and cannot be downloaded.
    pub keep_bytes: ByteCount,
    /// How many bytes of all objects and open sessions are kept together; beyond that, digests only.
    pub memory_limit: ByteCount,
    /// How many sessions are remembered, ended ones included; the oldest go first.
    pub max_sessions: usize,
    /// How many objects there may be; beyond that, uploads fail with 503 at their end.
    pub max_objects: usize,
    /// How many calls the journal holds; the oldest go first.
    pub journal_entries: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            buckets: Vec::new(),
            signers: BTreeMap::new(),
            clock: Clock::System,
            randomness: Randomness::System,
            authorization: Authorization::Required,
            keep_bytes: ByteCount::mib(64),
            memory_limit: ByteCount::gib(1),
            max_sessions: 1_000_000,
            max_objects: 1_000_000,
            journal_entries: 100_000,
        }
    }
}

/// A bucket that is there from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// Its name, which is not checked against the rules of storage.
    pub name: String,
    /// Its location, such as `europe-west1` or `EU`.
    pub location: String,
    /// Which pages may read what the XML API answers.
    pub cors: Vec<CorsRule>,
}

/// Whether calls need a token. Requests on a session URI never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// A call without a bearer token is answered 401; any token will do.
    Required,
    /// Tokens are not looked at.
    Ignored,
}

/// A live object, as it was when it was asked for.
#[derive(Debug, Clone)]
pub struct ObjectSnapshot {
    /// Identifies this content of the object.
    pub generation: i64,
    /// Counts the changes of its metadata from 1.
    pub metageneration: i64,
    /// Its size in bytes.
    pub size: u64,
    /// The MD5 digest of its bytes.
    pub md5: Md5,
    /// The CRC32C checksum of its bytes.
    pub crc32c: Crc32c,
    /// Its media type.
    pub content_type: String,
    /// Its custom metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its bytes, if they were few enough to keep.
    pub bytes: Option<Bytes>,
}

/// Everything that the emulator knows.
#[derive(Debug)]
struct World {
    address: SocketAddr,
    authorization: Authorization,
    clock: Clock,
    /// How far its time is ahead of the clock, in milliseconds.
    ahead: AtomicI64,
    memory: Arc<Memory>,
    objects: Objects,
    sessions: Sessions,
    accounts: Accounts,
    randomness: Randomness,
    journal: Journal,
    faults: Faults,
}

impl World {
    fn now(&self) -> Timestamp {
        let ahead = u64::try_from(self.ahead.load(Ordering::Relaxed)).unwrap_or(0);
        self.clock.now().plus(Duration::from_millis(ahead))
    }

    fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let add = |ahead: i64| Some(ahead.saturating_add(millis));
        // The closure always gives a value, so that this cannot fail.
        let _ = self.ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// A running emulator. It stops when it is dropped.
#[derive(Debug)]
pub struct Emulator {
    world: Arc<World>,
    tasks: TaskTracker,
    running: DropGuard,
}

impl Emulator {
    /// Binds the address and begins to serve.
    ///
    /// # Errors
    /// When the address cannot be bound; [`io::ErrorKind::InvalidInput`] when a signer cannot be taken.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let accounts = Accounts::new(&settings.signers);
        let accounts = accounts.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind(settings.listen).await?;
        let objects = Objects::new(settings.max_objects);
        let now = settings.clock.now();
        for bucket in settings.buckets {
            objects.create_bucket(bucket, now);
        }
        let world = Arc::new(World {
            address: listener.local_addr()?,
            authorization: settings.authorization,
            clock: settings.clock,
            ahead: AtomicI64::new(0),
            memory: Memory::new(settings.memory_limit.0, settings.keep_bytes.0),
            objects,
            sessions: Sessions::new(settings.max_sessions, settings.randomness.clone()),
            accounts,
            randomness: settings.randomness,
            journal: Journal::new(settings.journal_entries),
            faults: Faults::new(),
        });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(connection::accept(listener, Arc::clone(&world), tasks.clone(), stop.clone()));
        Ok(Self { world, tasks, running: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.world.address
    }

    /// What clients call it, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.world.address)
    }

    /// The key file of the emulator's own service account, [`OWN_ACCOUNT`]: its token server is the emulator, and URLs
    /// signed with it are accepted. The key is made once a process.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn service_account_key(&self) -> Result<String, AccountError> {
        accounts::key_file(&self.url())
    }

    /// What was asked of it.
    pub fn journal(&self) -> Journal {
        self.world.journal.clone()
    }

    /// What is to go wrong.
    pub fn faults(&self) -> Faults {
        self.world.faults.clone()
    }

    /// The live object of that name.
    pub fn object(&self, bucket: &str, name: &str) -> Option<ObjectSnapshot> {
        let object = self.world.objects.find(bucket, name, Condition::default()).ok()?;
        let description = object.description;
        Some(ObjectSnapshot {
            generation: description.generation,
            metageneration: description.metageneration,
            size: description.size,
            md5: description.md5,
            crc32c: description.crc32c,
            content_type: description.attributes.media_type().to_owned(),
            metadata: description.attributes.metadata.clone(),
            bytes: object.bytes,
        })
    }

    /// How many sessions can take bytes.
    pub fn sessions(&self) -> usize {
        self.world.sessions.live(self.world.now())
    }

    /// What time it is here.
    pub fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// Moves the emulator's time ahead, and no other clock.
    pub fn advance(&self, by: Duration) {
        self.world.advance(by);
    }

    /// Closes every connection and the listener, and waits until that is done.
    pub async fn stop(self) {
        self.tasks.close();
        drop(self.running);
        self.tasks.wait().await;
    }
}
