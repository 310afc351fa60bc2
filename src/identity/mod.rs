//! Who is asking: a bearer token becomes a [`Principal`], or a refusal.
//!
//! An [`Identity`] is a list of issuers, each with its rules and the source of its keys, and beside it the tokens that
//! were verified before, by digest. Which issuer's rules apply is decided by the token's `iss` claim, which nobody has
//! verified at that point; that is safe because from there on only the keys of that one issuer count.
//!
//! A token that was seen before costs one hash and two look-ups. It is remembered with the fingerprint of its key, so it
//! goes when it expires, and also when its issuer withdraws the key.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::model::principal::Principal;
use crate::model::section::{Fault, SectionError};
use crate::model::time::Timestamp;

pub mod development;
mod examine;
mod fetch;
mod json;
mod key_set;
mod keys;
mod metrics;
mod settings;
#[cfg(test)]
mod tests;
mod verify;

pub use examine::Examined;
use key_set::Fingerprint;
use keys::{KeySource, Surroundings};
pub use metrics::Metrics;
pub use settings::{Algorithm, IssuerSettings};
pub use verify::Reason;
use verify::{MAX_TOKEN_BYTES, Rules, Unverified};

/// What a section of what is set up here is called.
const SECTION: &str = "issuers";

/// How many verified tokens are remembered, if they are of the usual size of 1 KiB.
const REMEMBERED_TOKENS: usize = 8192;

/// How many bytes of tokens are remembered. What is kept of one is a few times its size, so this bounds the memory.
const REMEMBERED_BYTES: u64 = 8 * 1024 * 1024;

/// Why there is no principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token is worth nothing here; another one is needed.
    #[error(transparent)]
    Unauthenticated(#[from] Reason),
    /// Nothing can be said about the token at present; the same one may do later.
    #[error("the keys of the token's issuer cannot be had at present")]
    KeysUnavailable {
        /// When the issuer will be asked again at the earliest.
        retry_after: Duration,
    },
}

/// Verifies the tokens of a list of issuers.
pub struct Identity {
    issuers: Vec<Issuer>,
    verified: Cache<[u8; 32], Remembered, ByTokenBytes>,
    surroundings: Surroundings,
}

struct Issuer {
    rules: Rules,
    keys: Arc<KeySource>,
}

/// What is kept of a token that was verified.
#[derive(Clone)]
struct Remembered {
    principal: Arc<Principal>,
    /// The position of its issuer.
    issuer: usize,
    key: Fingerprint,
    /// Its expiry, and the leeway.
    until: Timestamp,
    token_bytes: usize,
}

#[derive(Clone)]
struct ByTokenBytes;

impl Weighter<[u8; 32], Remembered> for ByTokenBytes {
    fn weight(&self, _: &[u8; 32], remembered: &Remembered) -> u64 {
        remembered.token_bytes as u64
    }
}

impl Identity {
    /// Prepares to verify the tokens of `issuers`. Key files are read at once, everything else when it is needed, or by
    /// [`Identity::warm_up`].
    ///
    /// `client` must follow no redirects; paths must be absolute, or relative to the working directory.
    ///
    /// # Errors
    /// When a section cannot be used: see [`SectionError`].
    pub fn new(issuers: &[IssuerSettings], clock: Clock, client: reqwest::Client) -> Result<Self, SectionError> {
        let surroundings = Surroundings { clock, client, metrics: Metrics::new(), answer_time: fetch::ANSWER_TIME };
        Self::assemble(issuers, surroundings, &[])
    }

    /// The same with other `issuers`. Metrics go on, and so do keys that were read from an address that still holds,
    /// so that a new configuration during an outage locks nobody out. Tokens are verified anew.
    ///
    /// # Errors
    /// When a section cannot be used: see [`SectionError`].
    pub fn reconfigured(&self, issuers: &[IssuerSettings]) -> Result<Self, SectionError> {
        Self::assemble(issuers, self.surroundings.clone(), &self.issuers)
    }

    fn assemble(
        settings: &[IssuerSettings],
        surroundings: Surroundings,
        previous: &[Issuer],
    ) -> Result<Self, SectionError> {
        let mut issuers: Vec<Issuer> = Vec::with_capacity(settings.len());
        for (index, section) in settings.iter().enumerate() {
            let rules = section.rules().map_err(|fault| fault.at(SECTION, index))?;
            let origin = section.origin().map_err(|fault| fault.at(SECTION, index))?;
            if issuers.iter().any(|other| other.rules.issuer == rules.issuer) {
                let reason = "is that of an earlier section; one section may name several audiences";
                return Err(Fault::new("issuer", reason).at(SECTION, index));
            }
            let kept = previous.iter().find(|other| other.keys.serves(&rules.issuer, &origin, &rules.algorithms));
            let keys = if let Some(other) = kept {
                Arc::clone(&other.keys)
            } else {
                // Only a file is read here, so nothing else can fail.
                let (issuer, accepted) = (Arc::clone(&rules.issuer), rules.algorithms.clone());
                KeySource::new(issuer, origin, accepted, surroundings.clone())
                    .map_err(|error| Fault::new("jwks_file", crate::model::chain(&error)).at(SECTION, index))?
            };
            issuers.push(Issuer { rules, keys });
        }
        let verified = Cache::with_weighter(REMEMBERED_TOKENS, REMEMBERED_BYTES, ByTokenBytes);
        Ok(Self { issuers, verified, surroundings })
    }

    /// Reads the keys of every issuer, unless they were read a moment ago. Failures are logged: the issuer is asked again
    /// when one of its tokens comes.
    pub async fn warm_up(&self) {
        let mut readings = JoinSet::new();
        for issuer in &self.issuers {
            let keys = Arc::clone(&issuer.keys);
            readings.spawn(async move { keys.read_unless_cooling().await });
        }
        readings.join_all().await;
    }

    /// The issuers whose tokens are verified.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| &*issuer.rules.issuer)
    }

    /// Shows in metrics what came of reading the keys of each issuer.
    pub fn introduce_issuers(&self) {
        for issuer in self.issuers() {
            self.surroundings.metrics.introduce(issuer);
        }
    }

    /// Ceases to show when the keys of `issuer` were last read, which nothing asks any more.
    pub fn forget(&self, issuer: &str) {
        self.surroundings.metrics.forget_confirmed(issuer);
    }

    /// What is counted here.
    pub fn metrics(&self) -> &Metrics {
        &self.surroundings.metrics
    }

    /// The user whom `token` proves.
    ///
    /// Waits only for an issuer whose keys are not known, at most some 10 s. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the token is refused, and when its issuer's keys cannot be had.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, Error> {
        let metrics = &self.surroundings.metrics;
        if token.len() > MAX_TOKEN_BYTES {
            metrics.refused.inc();
            return Err(Reason::TooLong.into());
        }
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(principal) = self.recall(&id) {
            metrics.remembered.inc();
            return Ok(principal);
        }
        let outcome = self.verify_anew(token).await;
        match outcome {
            Ok(remembered) => {
                metrics.verified.inc();
                let principal = Arc::clone(&remembered.principal);
                self.verified.insert(id, remembered);
                Ok(principal)
            }
            Err(error) => {
                match error {
                    Error::Unauthenticated(_) => metrics.refused.inc(),
                    Error::KeysUnavailable { .. } => metrics.keys_unavailable.inc(),
                };
                Err(error)
            }
        }
    }

    /// The principal of a token that was verified before, if it still would be.
    fn recall(&self, id: &[u8; 32]) -> Option<Arc<Principal>> {
        let remembered = self.verified.get(id)?;
        let now = self.surroundings.clock.now();
        let holds = now < remembered.until && self.issuers[remembered.issuer].keys.vouches_for(remembered.key, now);
        if !holds {
            self.verified.remove(id);
        }
        holds.then_some(remembered.principal)
    }

    async fn verify_anew(&self, token: &str) -> Result<Remembered, Error> {
        let clock = &self.surroundings.clock;
        let unverified = Unverified::parse(token)?;
        let known = self.issuers.iter().enumerate().find(|(_, one)| unverified.is_from(&one.rules));
        let (position, Issuer { rules, keys }) = known.ok_or(Reason::Issuer)?;
        let algorithm = unverified.algorithm(rules)?;
        // Before the key is looked for: what is refused anyhow asks nothing of the issuer, and an expired token is
        // answered as such even while the issuer is away.
        unverified.check_claims(rules, clock.now())?;
        let key = keys.find(unverified.key_id(), algorithm).await?;
        let principal = Arc::new(unverified.into_principal(rules, &key, clock.now())?);
        Ok(Remembered {
            issuer: position,
            key: key.fingerprint(),
            until: principal.expires_at.plus(rules.leeway),
            token_bytes: token.len(),
            principal,
        })
    }
}
