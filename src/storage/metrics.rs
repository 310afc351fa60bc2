//! What is counted of the calls to storage. Users pay for them by class, so the classes are told apart.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The counters of one client of storage. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    durations: Family<OperationLabel, Histogram, fn() -> Histogram>,
    retries: Family<OperationLabel, Counter>,
    withheld: Counter,
    refreshes: Family<RefreshLabel, Counter>,
}

/// An operation on storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Initiate,
    Look,
    ReadBack,
    Delete,
    Cancel,
    /// What a bucket says of itself.
    Describe,
    /// What the caller may do there.
    Permissions,
    /// Which of its events go where.
    NotificationConfigs,
    /// A signature from IAM Credentials, with asking for the name of the machine's account before the first.
    Sign,
}

/// How a single call, retries counted one by one, came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CallResult {
    /// It did what it was for; "there is none" included.
    Ok,
    /// Refused for good.
    Refused,
    /// 401.
    Unauthenticated,
    /// 429, or 403 for a rate limit.
    Throttled,
    /// 408 or 5xx.
    Unavailable,
    /// No connection, or a broken one.
    Connection,
    /// No answer in time.
    TimedOut,
    /// An answer that storage would not give.
    Nonsense,
}

/// How fetching a token came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RefreshResult {
    Ok,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: Operation,
    class: &'static str,
    result: CallResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabel {
    result: RefreshResult,
}

impl Operation {
    const ALL: [Self; 9] = [
        Self::Initiate,
        Self::Look,
        Self::ReadBack,
        Self::Delete,
        Self::Cancel,
        Self::Describe,
        Self::Permissions,
        Self::NotificationConfigs,
        Self::Sign,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Initiate => "initiate",
            Self::Look => "look",
            Self::ReadBack => "read_back",
            Self::Delete => "delete",
            Self::Cancel => "cancel",
            Self::Describe => "describe",
            Self::Permissions => "permissions",
            Self::NotificationConfigs => "notification_configs",
            Self::Sign => "sign",
        }
    }

    /// What it is called in traces.
    pub(super) const fn span_name(self) -> &'static str {
        match self {
            Self::Initiate => "storage initiate",
            Self::Look => "storage look",
            Self::ReadBack => "storage read_back",
            Self::Delete => "storage delete",
            Self::Cancel => "storage cancel",
            Self::Describe => "storage describe",
            Self::Permissions => "storage permissions",
            Self::NotificationConfigs => "storage notification_configs",
            Self::Sign => "storage sign_remotely",
        }
    }

    /// The class that the operation is charged in (Cloud Storage pricing, "Operation charges"). An upload is one
    /// operation of class A, charged when it completes and counted here where it begins; whatever else is done with a
    /// session is not in the price list. Answers of 4xx and 5xx are generally free: the result tells them apart.
    const fn class(self) -> &'static str {
        match self {
            Self::Initiate => "A",
            Self::ReadBack | Self::Describe | Self::Permissions | Self::NotificationConfigs => "B",
            Self::Look | Self::Delete | Self::Cancel | Self::Sign => "free",
        }
    }
}

impl CallResult {
    const ALL: [Self; 8] = [
        Self::Ok,
        Self::Refused,
        Self::Unauthenticated,
        Self::Throttled,
        Self::Unavailable,
        Self::Connection,
        Self::TimedOut,
        Self::Nonsense,
    ];
}

impl RefreshResult {
    const ALL: [Self; 2] = [Self::Ok, Self::Failed];
}

impl EncodeLabelValue for Operation {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl EncodeLabelValue for CallResult {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        let text = match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unauthenticated => "unauthenticated",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Connection => "connection",
            Self::TimedOut => "timed_out",
            Self::Nonsense => "nonsense",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl EncodeLabelValue for RefreshResult {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        let text = match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

/// From what a call in the same region takes to the longest deadline of a request.
fn durations() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            calls: Family::default(),
            durations: Family::new_with_constructor(durations),
            retries: Family::default(),
            withheld: Counter::default(),
            refreshes: Family::default(),
        }
    }

    /// Makes the counters part of `registry`, under names that begin with `storage_`.
    pub fn register(&self, registry: &mut Registry) {
        // All of them from the start, so that the first of its kind is seen as an increase.
        for operation in Operation::ALL {
            for result in CallResult::ALL {
                drop(self.calls.get_or_create(&CallLabels { operation, class: operation.class(), result }));
            }
            drop(self.retries.get_or_create(&OperationLabel { operation }));
        }
        for result in RefreshResult::ALL {
            drop(self.refreshes.get_or_create(&RefreshLabel { result }));
        }
        registry.register(
            "storage_calls",
            "Calls to storage, retries included, by operation, price class and result",
            self.calls.clone(),
        );
        registry.register("storage_call_duration_seconds", "How long one call to storage took", self.durations.clone());
        registry.register("storage_retries", "Calls to storage that repeated a failed one", self.retries.clone());
        registry.register(
            "storage_retries_withheld",
            "Retries that were not made because too many had been made already",
            self.withheld.clone(),
        );
        registry.register("storage_token_refreshes", "Attempts to get a storage token", self.refreshes.clone());
    }

    pub(super) fn called(&self, operation: Operation, result: CallResult, took: Duration) {
        self.calls.get_or_create(&CallLabels { operation, class: operation.class(), result }).inc();
        self.durations.get_or_create(&OperationLabel { operation }).observe(took.as_secs_f64());
    }

    pub(super) fn retried(&self, operation: Operation) {
        self.retries.get_or_create(&OperationLabel { operation }).inc();
    }

    pub(super) fn withheld(&self) {
        self.withheld.inc();
    }

    pub(super) fn refreshed(&self, result: RefreshResult) {
        self.refreshes.get_or_create(&RefreshLabel { result }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_operation_class_and_result() {
        let metrics = Metrics::new();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.called(Operation::Initiate, CallResult::Ok, Duration::from_millis(30));
        metrics.called(Operation::ReadBack, CallResult::TimedOut, Duration::from_secs(5));
        metrics.retried(Operation::ReadBack);
        metrics.withheld();
        metrics.refreshed(RefreshResult::Failed);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "storage_calls_total{operation=\"initiate\",class=\"A\",result=\"ok\"} 1",
            "storage_calls_total{operation=\"read_back\",class=\"B\",result=\"timed_out\"} 1",
            "storage_call_duration_seconds_bucket{le=\"0.05\",operation=\"initiate\"} 1",
            "storage_retries_total{operation=\"read_back\"} 1",
            "storage_retries_withheld_total 1",
            "storage_token_refreshes_total{result=\"failed\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
