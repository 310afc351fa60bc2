//! What operators can see of the store.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::error::Error;

/// Counts and times the operations of one store. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    operations: Family<OperationLabels, Counter>,
    seconds: Family<SecondsLabels, Histogram, fn() -> Histogram>,
    /// Connections that were lost, or given up and made anew.
    pub(super) reconnects: Counter,
}

/// The operations of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Operation {
    Admit,
    Attach,
    Abandon,
    Find,
    List,
    Advance,
    Renew,
    Usage,
    Ping,
    Claim,
    Schedule,
    Restore,
    ClaimDeliveries,
    SettleDelivery,
    Parked,
    Replay,
    Owners,
    FindKey,
}

impl Operation {
    const ALL: [Self; 18] = [
        Self::Admit,
        Self::Attach,
        Self::Abandon,
        Self::Find,
        Self::List,
        Self::Advance,
        Self::Renew,
        Self::Usage,
        Self::Ping,
        Self::Claim,
        Self::Schedule,
        Self::Restore,
        Self::ClaimDeliveries,
        Self::SettleDelivery,
        Self::Parked,
        Self::Replay,
        Self::Owners,
        Self::FindKey,
    ];

    /// What it is called in traces.
    pub(super) const fn span_name(self) -> &'static str {
        match self {
            Self::Admit => "store admit",
            Self::Attach => "store attach",
            Self::Abandon => "store abandon",
            Self::Find => "store find",
            Self::List => "store list",
            Self::Advance => "store advance",
            Self::Renew => "store renew",
            Self::Usage => "store usage",
            Self::Ping => "store ping",
            Self::Claim => "store claim",
            Self::Schedule => "store schedule",
            Self::Restore => "store restore",
            Self::ClaimDeliveries => "store claim_deliveries",
            Self::SettleDelivery => "store settle_delivery",
            Self::Parked => "store parked",
            Self::Replay => "store replay",
            Self::Owners => "store owners",
            Self::FindKey => "store find_key",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: Operation,
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SecondsLabels {
    operation: Operation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Ok,
    Unavailable,
    Timeout,
    Overloaded,
    Corrupt,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Ok, Self::Unavailable, Self::Timeout, Self::Overloaded, Self::Corrupt];
}

/// From a quarter of a millisecond, an idle server close by, to the deadline of a call.
fn seconds_histogram() -> Histogram {
    Histogram::new([0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5])
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            operations: Family::default(),
            seconds: Family::new_with_constructor(seconds_histogram),
            reconnects: Counter::default(),
        }
    }

    /// Adds them to `registry`, each name beginning with `store_`.
    pub fn register(&self, registry: &mut Registry) {
        // All of them from the start, so that the first of its kind is seen as an increase.
        for operation in Operation::ALL {
            for result in Outcome::ALL {
                drop(self.operations.get_or_create(&OperationLabels { operation, result }));
            }
        }
        let registry = registry.sub_registry_with_prefix("store");
        registry.register("operations", "Operations by name and result", self.operations.clone());
        registry.register("operation_duration_seconds", "Duration of operations", self.seconds.clone());
        registry.register("reconnects", "Connections to the server made anew", self.reconnects.clone());
    }

    pub(super) fn observe<T>(&self, operation: Operation, result: &Result<T, Error>, took: Duration) {
        let result = match result {
            Ok(_) => Outcome::Ok,
            Err(Error::Unavailable(_)) => Outcome::Unavailable,
            Err(Error::TimedOut(_)) => Outcome::Timeout,
            Err(Error::Overloaded) => Outcome::Overloaded,
            Err(Error::Corrupt { .. } | Error::SealedByUnknownKey { .. }) => Outcome::Corrupt,
        };
        self.operations.get_or_create(&OperationLabels { operation, result }).inc();
        self.seconds.get_or_create(&SecondsLabels { operation }).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_name_and_result() {
        let metrics = Metrics::new();
        metrics.observe(Operation::Admit, &Ok(()), Duration::from_millis(1));
        metrics.observe::<()>(Operation::Find, &Err(Error::Overloaded), Duration::ZERO);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"store_operations_total{operation="Admit",result="Ok"} 1"#,
            r#"store_operations_total{operation="Find",result="Overloaded"} 1"#,
            r#"store_operation_duration_seconds_count{operation="Admit"} 1"#,
            "store_reconnects_total 0",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
