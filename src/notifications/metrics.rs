//! What became of notifications, in numbers.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts deliveries by what became of them. Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    deliveries: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// What became of a delivery. All but the last two are acknowledged, an unwrapped one aside, which counts as malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its upload is completed.
    Completed,
    /// Its upload broke a promise and is rejected.
    Rejected,
    /// Its upload had ended before, or storage shows no object that ends it.
    Unchanged,
    /// Its upload had ended otherwise, and its object is deleted.
    CleanedUp,
    /// No upload is known for its object.
    Unknown,
    /// It is about another bucket than this region's.
    Foreign,
    /// It is about something else than a new object.
    Ignored,
    /// It cannot be read.
    Malformed,
    /// Its token, or its subscription, is not accepted.
    Unauthenticated,
    /// The store, storage or the token's issuer did not do its part; Pub/Sub sends it again.
    Failed,
}

impl Outcome {
    const ALL: [Self; 10] = [
        Self::Completed,
        Self::Rejected,
        Self::Unchanged,
        Self::CleanedUp,
        Self::Unknown,
        Self::Foreign,
        Self::Ignored,
        Self::Malformed,
        Self::Unauthenticated,
        Self::Failed,
    ];

    /// The value of the label.
    const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Unchanged => "unchanged",
            Self::CleanedUp => "cleaned_up",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Makes the counter visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Storage notifications by what became of them";
        // All of them from the start, so that the first of its kind is seen as an increase.
        for outcome in Outcome::ALL {
            drop(self.deliveries.get_or_create(&Labels { result: outcome.name() }));
        }
        registry.register("notifications", help, self.deliveries.clone());
    }

    /// Counts one delivery.
    pub fn observe(&self, outcome: Outcome) {
        self.deliveries.get_or_create(&Labels { result: outcome.name() }).inc();
    }
}
