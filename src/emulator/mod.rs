//! A stand-in for Google Cloud Storage on loopback, for the demo, for the tests of this crate, and for those of others.
//!
//! It exists because no other stand-in treats resumable uploads as storage does: gaps, overlaps, digests, declared
//! sizes, cancellation, signatures and the binding to an origin decide whether a client works, and are what other
//! stand-ins leave out. It speaks the JSON API and, for objects, the XML API over plain HTTP/1.1; has a service account of
//! its own, [`OWN_ACCOUNT`], with a token server and IAM Credentials; and checks V4 signed URLs.
//!
//! A `World` holds everything: buckets with their live objects (`objects`), sessions found by their secret
//! (`sessions`), whoever can sign (`accounts`), the journal and the faults. `target` says what a request is addressed to;
//! it becomes a `http::Call`, which a fault may spoil. The rules of one session stand in `session`, those of signatures in
//! `xml::signature`, both free of HTTP. Bytes are digested as they come and kept only up to [`Settings::keep_bytes`], so
//! that large uploads cost no memory.
//!
//! # What it does, and what storage does
//! Storage's side is what its documentation says ("Resumable uploads", "Perform resumable uploads", "Objects",
//! "Configuration examples for CORS", "HTTP headers … for XML", "Signatures"); *seen* is what production has been reported
//! to answer, *unknown* what neither says. There the emulator does, as a rule, what is harder for clients.
//!
//! | initiation | storage | here |
//! |---|---|---|
//! | JSON | 200, empty, `Location` with the query repeated, `X-GUploader-UploadID` | the same |
//! | XML, `x-goog-resumable: start` | 201, empty, `Location` on the object's path | the same; the signed query is repeated |
//! | `/resumable/upload/…` | works | works |
//! | names in query and body differ | the query wins | the same |
//! | names: empty, `.`, `..`, line breaks, over 1024 bytes, `.well-known/acme-challenge/` | 400 | 400 |
//! | bad JSON, bogus ACL, declared size no number or over 5 TiB | 400, in part unknown | 400 |
//! | XML without `Content-Length` | 411 | 411 |
//! | XML with a body | documented is none; Google's Python library sends one | not read |
//! | preconditions | checked when the upload ends: 412 | the same |
//! | `md5Hash`, `crc32c` in the body | checked when the upload ends: 400 | the same |
//! | `x-goog-hash`, `Content-MD5` of an XML initiation | not enforced, seen | not looked at |
//! | `x-upload-content-length` in XML | accepted; enforcement unknown | as in JSON: a total that binds |
//! | `x-goog-content-length-range` of a session | unknown | checked when the upload ends: 400 `EntityTooLarge`, `EntityTooSmall` |
//! | `X-GUploader-UploadID` of later answers | another id | the secret again |
//! | permissions | by IAM, for each call | everyone has all but [`BucketSettings::withheld`], in the JSON API |
//! | `userProject`, encryption keys, retention, holds | enforced | not looked at; fields are kept and shown |
//!
//! | session | storage | here |
//! |---|---|---|
//! | more bytes than declared, or than the request's range | unknown, 400 most likely | 400; none beyond the limit count, the session lives on |
//! | fewer bytes than declared complete | 400 seen | 400; the session lives on |
//! | declared size reached without a final marker | completed, seen | completed, also when that request was cut |
//! | another total than before | rejected, seen | 400 |
//! | a gap | 503 in plain text, seen | the same |
//! | an overlap | skipped without comparing | the same |
//! | a non-final chunk below 256 KiB | 400 seen | 400 |
//! | a non-final chunk that is no multiple of 256 KiB | may be persisted in part | persisted down to a multiple |
//! | a body shorter than its range, or a broken connection | unknown | 400, or nothing; what arrived counts down to a multiple |
//! | empty `PUT` without `Content-Range` on a partial session | unknown | 400: it says that the object is empty |
//! | `bytes */*` | 308 with `Range` once a byte is persisted, or the final answer | the same |
//! | `bytes */N` on an undeclared session | completes it when `N` is persisted, seen | the same; a larger `N` is a 308 and binds nobody, a smaller one 400 |
//! | a status query with a body; an unparsable `Content-Range` | 400 seen | 400 |
//! | `X-GUploader-No-308: yes` | 200 with `X-HTTP-Status-Code-Override: 308` | the same |
//! | final answer | JSON: the resource; XML: empty, facts in headers (seen) | the same; `x-goog-hash` in one header |
//! | `X-Goog-Hash` on the last request | 400 on a mismatch; no object | the same |
//! | … right, after a digest of the initiation that is wrong | unknown | 400 |
//! | … with a blank after the comma, or an unknown algorithm | unknown | 400 |
//! | `Content-MD5` on a session | unknown | ignored |
//! | `X-Goog-Meta-*` on the last request | sets metadata; over a key of the initiation unknown | the last request wins |
//! | after a digest mismatch or a 412 | unknown | the session is dead: 410 |
//! | two requests writing to one session | never mixed; the code is unknown | the later one wins, the earlier one is answered 503 |
//! | `DELETE` | 499 | 499 |
//! | … on a completed session | the object stays; the code is unknown | 499, and the object stays |
//! | use after `DELETE` | 410 documented, 499 seen | 499 |
//! | anything on a completed session | 200 with the object, for an unknown time | the same, until its week is over |
//! | a week after initiation; an unknown `upload_id` | 404 | 404; the week is by the emulator's clock |
//! | no `upload_id` | 400 | JSON 400; in XML it is another request |
//! | another bucket, object or interface in the path, a changed `upload_id` | unknown | 404 |
//! | another query in a session URI | unknown | ignored: name and preconditions are those of the initiation |
//!
//! | XML objects | storage | here |
//! |---|---|---|
//! | `PUT` with `Content-MD5`, `x-goog-hash` | 400 `BadDigest` on a mismatch | the same; 400 `InvalidDigest` when it is none |
//! | `PUT` with `x-goog-content-length-range` | 400 `EntityTooLarge`, `EntityTooSmall` | the same |
//! | `x-goog-if-generation-match`, `x-goog-if-metageneration-match` | 412 | the same; `If-Match` and its kin are ignored |
//! | errors | XML, or plain text | XML; plain text where a session says what is wrong with bytes |
//! | buckets, lists, ACLs, copies, compose, multipart and form uploads | exist | 501 |
//! | hosts that name the bucket | `BUCKET.storage.googleapis.com`, CNAMEs | that one, and `BUCKET.localhost` |
//! | buckets called `storage`, `upload`, `download`, `resumable`, `batch` | unlikely | out of reach of the XML API |
//!
//! | who may | storage | here |
//! |---|---|---|
//! | bearer tokens | checked | any will do; none: 401, in XML 403 `AccessDenied` |
//! | session requests | need none | the same |
//! | V4 signed URLs, RSA | checked at the start of a request | the same, with the public keys of [`OWN_ACCOUNT`] and [`Settings::signers`] |
//! | signature or a signed part differs | 403 `SignatureDoesNotMatch` with the canonical request | the same |
//! | expired | 400 `ExpiredToken` | the same, by the emulator's clock |
//! | before its date | refused, some 15 minutes aside | 403 `RequestTimeTooSkewed` earlier than 15 minutes before |
//! | longer than 7 days, or malformed | 400 `InvalidArgument` | the same |
//! | a signed header is missing, an `x-goog-*` header is not signed | 400 `MalformedSecurityHeader` | the same |
//! | an unknown signer; one without permission | 403 `AccessDenied` | the same; known ones have every permission |
//! | a URL signed for `GET` | is good for `HEAD` | the same |
//! | the port of the host | storage has none | may be signed, but need not |
//! | a plus in a signed query; a slash of the name sent as `%2F` | unknown | a plus; a slash in the canonical request |
//! | signature and token together | unknown | 400 |
//! | `x-goog-content-sha256` | covered by the signature; comparing unknown | not compared with the body |
//! | V2, HMAC keys, signatures in `Authorization`, POST policies | exist | do not |
//! | `POST /token` | for its documented audience; scopes | for that audience or its own address; any scope |
//! | times of assertions | checked | checked by the system's clock, since libraries make them by it |
//! | `signBlob`, `generateAccessToken` | by IAM; 12 hours by policy | for [`OWN_ACCOUNT`] with any token; 1 hour |
//!
//! | browsers | storage | here |
//! |---|---|---|
//! | JSON session | allows the origin of its initiation; `*` fails at the last answer (seen) | the same |
//! | JSON session that was initiated without `Origin` | allows none | the same, preflights included |
//! | JSON exposed headers | unknown | a plausible list with `Range` and `Location`; `Retry-After` is not among them |
//! | XML | the bucket's `cors`, its first entry that fits | the same, at once |
//! | XML session | the origin of its initiation; `*` when the entry says so | the same |
//! | XML preflight that no entry fits | 200 without CORS headers | the same |
//! | XML preflight with a header that the entry does not list | unknown | lists what the entry lists |
//!
//! | objects | storage | here |
//! |---|---|---|
//! | generations | microseconds in practice | microseconds, strictly increasing |
//! | versioning, soft delete, retention | by the bucket | what is replaced or removed is gone, whatever the bucket says |
//! | `location`, `locationType`, `customPlacementConfig`, `storageLayout` | by the bucket; a zone's has its region and zone | the same |
//! | `etag` | opaque; in XML the MD5 | the same |
//! | bytes | kept | kept while they are few, see [`Settings::keep_bytes`]; else a download is answered 501 |
//!
//! | notifications | storage, Pub/Sub and Eventarc | here |
//! |---|---|---|
//! | `OBJECT_FINALIZE`, `OBJECT_DELETE`, `OBJECT_METADATA_UPDATE` | of every change | the same |
//! | `OBJECT_ARCHIVE`, `OBJECT_INITIALIZE` | of versioned and zonal buckets | never; a config cannot ask for the latter |
//! | an overwrite | `OBJECT_FINALIZE` and `OBJECT_DELETE`, in any order | in this order, until something shuffles them |
//! | an upload that failed or was cancelled | says nothing | the same |
//! | notification configs | up to 100 a bucket, 10 for a type of event; at work after some 30 seconds | the same; at once |
//! | topics, and who may publish to them | must be there | are names, and need not be made |
//! | subscriptions | are made in Pub/Sub | [`Settings::subscriptions`], [`Subscriptions`], or control, below |
//! | … without a topic | do not exist | hear every event of every bucket once, whatever configs there are |
//! | push, wrapped | ids and times in both spellings; no `data` for `NONE` | the same |
//! | push, unwrapped; `deliveryAttempt`, `orderingKey` | if asked for | never |
//! | Eventarc | binary mode; further `ce-` headers | binary mode, with the object's resource even for `NONE` |
//! | acknowledged by | 102, 200, 201, 202, 204 within 10 seconds by default | the same within 10 seconds; not 102, which an answer follows |
//! | anything else, a redirect or silence | again, after 10 to 600 seconds by default or at once | again, after 100 ms, doubling up to 10 s |
//! | until | 7 days have gone by | the emulator ends |
//! | order, duplicates | any; possible | as they came, 32 at a time; once, but for repeats; see [`SubscriptionSettings`] |
//! | the token | by `https://accounts.google.com` | by [`Emulator::url`] as issuer, signed with the key of [`OWN_ACCOUNT`] |
//! | … its times, and its use | an hour; for many messages | the same, by the emulator's clock, until 5 minutes before its end |
//! | the keys for it | `https://www.googleapis.com/oauth2/v3/certs` | `/oauth2/v3/certs`, named by `/.well-known/openid-configuration` |
//! | a token for a subscription without a service account | none | none |
//!
//! # Faults
//! [`faults`] lists what can go wrong on demand. A connection is cut by an error of hyper's service: hyper then drops the
//! connection without a word, and as its socket is given back with a linger time of zero, the client sees a TCP reset.
//! [`network`] has conditions that last: distance, narrow lines, and what a bad network does to uploads.
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
//! | `GET`, `PUT /_emulator/network` | shows the [`network::Conditions`]; replaces them, and `{}` makes them good |
//! | `GET /_emulator/sessions` | how many can take bytes, and the newest thousand |
//! | `POST /_emulator/subscriptions` | makes a push subscription, one [`SubscriptionSettings`] |
//! | `GET`, `DELETE /_emulator/subscriptions` | shows them with what has come of each, a [`SubscriptionStatus`]; removes them all |
//! | `POST /_emulator/subscriptions/release` | lets held ones push |

mod accounts;
mod asked;
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
pub mod network;
mod notifications;
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
use self::network::Network;
use self::notifications::Notifications;
pub use self::notifications::{PushForm, SubscriptionError, SubscriptionSettings, SubscriptionStatus, Subscriptions};
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
    /// The push subscriptions that are there from the start.
    pub subscriptions: Vec<SubscriptionSettings>,
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
            subscriptions: Vec::new(),
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
    /// The two regions of a configurable dual-region, or the zone of a bucket in one zone; for all others empty.
    pub placement: Vec<String>,
    /// How long the bucket says that it keeps deleted objects. It keeps none.
    pub soft_delete: Option<Duration>,
    /// How long the bucket says that objects cannot be deleted. They can.
    pub retention: Option<Duration>,
    /// Whether the bucket says that it keeps what is replaced. It does not.
    pub versioning: bool,
    /// The permissions that nobody has there, such as `storage.buckets.get`: `testPermissions` does not name them, and calls
    /// of the JSON API that need them are refused.
    pub withheld: Vec<String>,
}

/// The last instant that can be written, late in the year 9999: the emulator's time ends there, however far it is moved.
const END_OF_TIME: Timestamp = Timestamp::from_millis(253_402_207_200_999);

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
    network: Network,
    notifications: Notifications,
}

impl World {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn now(&self) -> Timestamp {
        let ahead = u64::try_from(self.ahead.load(Ordering::Relaxed)).unwrap_or(0);
        self.clock.now().plus(Duration::from_millis(ahead)).min(END_OF_TIME)
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
    /// When the address cannot be bound; [`io::ErrorKind::InvalidInput`] when a signer or a subscription cannot be taken.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let accounts = Accounts::new(&settings.signers);
        let accounts = accounts.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind(settings.listen).await?;
        let objects = Objects::new(settings.max_objects);
        let now = settings.clock.now();
        for bucket in settings.buckets {
            objects.create_bucket(bucket, now);
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
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
            network: Network::new(),
            notifications: Notifications::new(tasks.clone(), stop.clone()),
        });
        let emulator = Self { world: Arc::clone(&world), tasks: tasks.clone(), running: stop.clone().drop_guard() };
        for subscription in settings.subscriptions {
            let added = emulator.subscriptions().add(subscription);
            added.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        }
        tasks.spawn(connection::accept(listener, world, tasks.clone(), stop));
        Ok(emulator)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.world.address
    }

    /// What clients call it, without a trailing slash.
    pub fn url(&self) -> String {
        self.world.url()
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

    /// What lies between it and whoever calls it.
    pub fn network(&self) -> Network {
        self.world.network.clone()
    }

    /// Who is pushed object notifications.
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions::of(Arc::clone(&self.world))
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
