//! When an issuer's keys are read, and how long they are believed.
//!
//! What is known stands in one immutable [`Known`], which is swapped whole: checking a token takes a snapshot and no
//! lock. The one mutex is held by the attempt to read the keys, so an issuer never sees two at once, and after each
//! attempt, whatever came of it, follows a [`COOL_DOWN`]: no flood of tokens becomes a flood of requests.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::fetch::{self, Fetched, Origin};
use super::key_set::{Fingerprint, Key, KeySet, NoKey};
use super::metrics::{FetchResult, Metrics};
use super::verify::Reason;
use super::{Algorithm, Error};
use crate::clock::Clock;
use crate::model::time::Timestamp;
use crate::telemetry::trace::{self, Kind};

/// The least time between two attempts. Issuers publish a key well before they use it, so half a minute costs nobody
/// anything, and even a thousand instances are no burden.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// How long keys are believed without their issuer having confirmed them. A day bridges any outage that someone is
/// working on, and is as long as an issuer may have its keys kept in the best of times; beyond it, a key that was
/// withdrawn because it leaked would be believed for no better reason than that its issuer is silent.
const OUTAGE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What the sources of all issuers share.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) clock: Clock,
    pub(super) client: reqwest::Client,
    pub(super) metrics: Metrics,
    /// How long one answer of an issuer may take.
    pub(super) answer_time: Duration,
}

/// The keys of one issuer, read when they are needed and kept up to date.
pub(super) struct KeySource {
    issuer: Arc<str>,
    origin: Origin,
    accepted: Vec<Algorithm>,
    known: ArcSwap<Known>,
    reading: Arc<Mutex<()>>,
    surroundings: Surroundings,
}

/// What is known of an issuer's keys.
#[derive(Default)]
struct Known {
    confirmed: Option<Confirmed>,
    /// When the last attempt to read them ended.
    attempted_at: Option<Timestamp>,
}

/// Keys that the issuer has published.
#[derive(Clone)]
struct Confirmed {
    keys: Arc<KeySet>,
    at: Timestamp,
    fresh_for: Duration,
}

impl Known {
    fn new(fetched: Fetched, now: Timestamp) -> Self {
        let confirmed = Confirmed { keys: Arc::new(fetched.keys), at: now, fresh_for: fetched.fresh_for };
        Self { confirmed: Some(confirmed), attempted_at: Some(now) }
    }

    /// The keys, unless their issuer has been silent for too long.
    fn trusted(&self, now: Timestamp) -> Option<&KeySet> {
        self.confirmed.as_ref().filter(|confirmed| now.since(confirmed.at) <= OUTAGE_LIMIT).map(|known| &*known.keys)
    }

    /// What is left of the cool-down, if anything. An attempt in the future means that the clock was set back, and must
    /// not keep the keys from being read until it has caught up.
    fn cooling(&self, now: Timestamp) -> Option<Duration> {
        let attempted_at = self.attempted_at.filter(|attempt| *attempt <= now)?;
        COOL_DOWN.checked_sub(now.since(attempted_at)).filter(|left| !left.is_zero())
    }

    fn due(&self, now: Timestamp) -> bool {
        let stale = self.confirmed.as_ref().is_none_or(|confirmed| now.since(confirmed.at) >= confirmed.fresh_for);
        stale && self.cooling(now).is_none()
    }

    /// Whether the issuer failed to answer when it was last asked: then it may have keys that are not known.
    fn uncertain(&self) -> bool {
        self.confirmed.as_ref().map(|confirmed| confirmed.at) < self.attempted_at
    }

    fn unavailable(&self, now: Timestamp) -> Error {
        let retry_after = self.cooling(now).unwrap_or_default().max(Duration::from_secs(1));
        Error::KeysUnavailable { retry_after }
    }
}

impl KeySource {
    /// The keys of `issuer` that verify one of the `accepted` algorithms. A file is read at once.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no usable key.
    pub(super) fn new(
        issuer: Arc<str>,
        origin: Origin,
        accepted: Vec<Algorithm>,
        surroundings: Surroundings,
    ) -> Result<Arc<Self>, fetch::Error> {
        let known = match &origin {
            Origin::File(path) => Known::new(fetch::read_file(path, &accepted)?, surroundings.clock.now()),
            Origin::Address(_) | Origin::Discovery { .. } => Known::default(),
        };
        let (known, reading) = (ArcSwap::from_pointee(known), Arc::default());
        Ok(Arc::new(Self { issuer, origin, accepted, known, reading, surroundings }))
    }

    /// Whether a source made of these would read the same from the same address, so that this one can go on in its place.
    pub(super) fn serves(&self, issuer: &str, origin: &Origin, accepted: &[Algorithm]) -> bool {
        *self.issuer == *issuer
            && self.origin == *origin
            && self.accepted == accepted
            && !matches!(origin, Origin::File(_))
    }

    /// Whether a key that once verified a token is still its issuer's.
    pub(super) fn vouches_for(self: &Arc<Self>, key: Fingerprint, now: Timestamp) -> bool {
        let known = self.known.load();
        if known.due(now) {
            self.refresh();
        }
        known.trusted(now).is_some_and(|keys| keys.holds(key))
    }

    /// The key for a token. Waits for the issuer only where no key is known that could be the one.
    ///
    /// # Errors
    /// The refusal of the token when the issuer has no such key, and `KeysUnavailable` when that cannot be said.
    pub(super) async fn find(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, Error> {
        let now = self.surroundings.clock.now();
        let known = self.known.load_full();
        if let Some(keys) = known.trusted(now) {
            match keys.select(id, algorithm) {
                Ok(key) => {
                    let key = Arc::clone(key);
                    if known.due(now) {
                        self.refresh();
                    }
                    return Ok(key);
                }
                Err(NoKey::Unfit) => return Err(Reason::Algorithm.into()),
                Err(NoKey::Ambiguous) => return Err(Reason::AmbiguousKey.into()),
                Err(NoKey::Unknown) => {}
            }
        }
        trace::child("identity read_keys", Kind::Internal, self.read_unless_cooling()).await;

        let now = self.surroundings.clock.now();
        let known = self.known.load_full();
        let Some(keys) = known.trusted(now) else { return Err(known.unavailable(now)) };
        match keys.select(id, algorithm) {
            Ok(key) => Ok(Arc::clone(key)),
            Err(NoKey::Unfit) => Err(Reason::Algorithm.into()),
            Err(NoKey::Ambiguous) => Err(Reason::AmbiguousKey.into()),
            Err(NoKey::Unknown) if known.uncertain() => Err(known.unavailable(now)),
            Err(NoKey::Unknown) => Err(Reason::UnknownKey.into()),
        }
    }

    /// Reads the keys, or waits for whoever is reading them.
    pub(super) async fn read_unless_cooling(self: &Arc<Self>) {
        if self.is_cooling() {
            return;
        }
        let turn = Arc::clone(&self.reading).lock_owned().await;
        // Whoever had the turn before may have been reading.
        if self.is_cooling() {
            return;
        }
        // A task of its own: a caller that goes away must not take along the answer that others wait for.
        let reading = tokio::spawn(Arc::clone(self).read(turn));
        if let Err(stopped) = reading.await {
            tracing::error!(issuer = &*self.issuer, error = %stopped, "reading an issuer's keys was broken off");
        }
    }

    /// Reads the keys in the background, unless someone does.
    fn refresh(self: &Arc<Self>) {
        if let Ok(turn) = Arc::clone(&self.reading).try_lock_owned()
            && !self.is_cooling()
        {
            tokio::spawn(Arc::clone(self).read(turn));
        }
    }

    fn is_cooling(&self) -> bool {
        self.known.load().cooling(self.surroundings.clock.now()).is_some()
    }

    /// One attempt. Keys that are known stay known when it fails.
    async fn read(self: Arc<Self>, turn: OwnedMutexGuard<()>) {
        let Surroundings { clock, client, metrics, answer_time } = &self.surroundings;
        let outcome = fetch::fetch(client, *answer_time, &self.origin, &self.issuer, &self.accepted).await;
        let (now, before) = (clock.now(), self.known.load_full());
        match outcome {
            Ok(fetched) => {
                metrics.count_fetch(&self.issuer, FetchResult::Success);
                metrics.note_confirmed(&self.issuer, now.as_secs());
                tracing::debug!(issuer = &*self.issuer, keys = fetched.keys.len(), "read an issuer's keys");
                self.known.store(Arc::new(Known::new(fetched, now)));
            }
            Err(error) => {
                metrics.count_fetch(&self.issuer, FetchResult::Failure);
                let kept = before.trusted(now).is_some();
                tracing::warn!(
                    issuer = &*self.issuer,
                    error = crate::model::chain(&error),
                    kept,
                    "cannot read an issuer's keys"
                );
                self.known.store(Arc::new(Known { confirmed: before.confirmed.clone(), attempted_at: Some(now) }));
            }
        }
        // Only now: whoever waits for the turn must see what came of this one.
        drop(turn);
    }

    /// Asks the issuer for its keys, whatever is known, and keeps nothing of the answer.
    pub(super) async fn ask(&self) -> Result<Fetched, fetch::Error> {
        let Surroundings { client, answer_time, .. } = &self.surroundings;
        fetch::fetch(client, *answer_time, &self.origin, &self.issuer, &self.accepted).await
    }

    /// Whose keys these are, and which algorithms they are wanted for.
    pub(super) fn wanted(&self) -> (&str, &[Algorithm]) {
        (&self.issuer, &self.accepted)
    }

    /// Returns once no attempt is under way.
    #[cfg(test)]
    pub(super) async fn settled(&self) {
        drop(self.reading.lock().await);
    }
}
