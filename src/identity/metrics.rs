//! What can be counted without naming anyone.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of [`super::Identity`]. Clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    key_fetches: Family<FetchLabels, Counter>,
    keys_confirmed: Family<IssuerLabels, Gauge>,
    checks: Family<CheckLabels, Counter>,
    // One for each result, so that counting looks nothing up.
    pub(super) remembered: Counter,
    pub(super) verified: Counter,
    pub(super) refused: Counter,
    pub(super) keys_unavailable: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    issuer: String,
    result: FetchResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabels {
    issuer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    result: CheckResult,
}

/// How an attempt to read a key set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FetchResult {
    Success,
    Failure,
}

impl FetchResult {
    const ALL: [Self; 2] = [Self::Success, Self::Failure];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CheckResult {
    Remembered,
    Verified,
    Refused,
    KeysUnavailable,
}

impl EncodeLabelValue for FetchResult {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(match self {
            Self::Success => "success",
            Self::Failure => "failure",
        })
    }
}

impl EncodeLabelValue for CheckResult {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(match self {
            Self::Remembered => "remembered",
            Self::Verified => "verified",
            Self::Refused => "refused",
            Self::KeysUnavailable => "keys_unavailable",
        })
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let checks: Family<CheckLabels, Counter> = Family::default();
        let counter = |result| checks.get_or_create_owned(&CheckLabels { result });
        Self {
            remembered: counter(CheckResult::Remembered),
            verified: counter(CheckResult::Verified),
            refused: counter(CheckResult::Refused),
            keys_unavailable: counter(CheckResult::KeysUnavailable),
            checks,
            key_fetches: Family::default(),
            keys_confirmed: Family::default(),
        }
    }

    /// Enters all of them into `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("identity_token_checks", "Tokens by what became of them", self.checks.clone());
        registry.register("identity_key_fetches", "Attempts to read an issuer's key set", self.key_fetches.clone());
        registry.register(
            "identity_keys_confirmed_timestamp_seconds",
            "When an issuer's key set was last read, in seconds since the epoch",
            self.keys_confirmed.clone(),
        );
    }

    /// Makes both ends of reading an issuer's keys visible, so that the first of its kind is seen as an increase.
    pub(super) fn introduce(&self, issuer: &str) {
        for result in FetchResult::ALL {
            drop(self.key_fetches.get_or_create(&FetchLabels { issuer: issuer.to_owned(), result }));
        }
    }

    pub(super) fn count_fetch(&self, issuer: &str, result: FetchResult) {
        self.key_fetches.get_or_create(&FetchLabels { issuer: issuer.to_owned(), result }).inc();
    }

    /// Forgets when the keys of an issuer were read that is not asked any more: nobody is to be alarmed about it.
    pub(super) fn forget_confirmed(&self, issuer: &str) {
        self.keys_confirmed.remove(&IssuerLabels { issuer: issuer.to_owned() });
    }

    pub(super) fn note_confirmed(&self, issuer: &str, seconds: i64) {
        self.keys_confirmed.get_or_create(&IssuerLabels { issuer: issuer.to_owned() }).set(seconds);
    }
}
