//! What operators can see of webhooks. Endpoints have labels, uploads and users have none.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::settings::EndpointName;

/// Counts and times what is sent. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    deliveries: Family<DeliveryLabels, Counter>,
    lag: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    attempts: Family<EndpointLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    endpoint: String,
    result: DeliveryResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: String,
}

/// What became of an attempt, or of what waited for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DeliveryResult {
    /// The receiver accepted it.
    Accepted,
    /// It did not, and will be asked again.
    Failed,
    /// It did not for so long that it is not asked any more.
    Parked,
}

impl DeliveryResult {
    const ALL: [Self; 3] = [Self::Accepted, Self::Failed, Self::Parked];
}

impl EncodeLabelValue for DeliveryResult {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> std::fmt::Result {
        use std::fmt::Write as _;
        encoder.write_str(match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Parked => "parked",
        })
    }
}

/// From at once to the end of all attempts.
fn lag() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0, 259_200.0])
}

/// To the longest that an attempt takes.
fn attempts() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            deliveries: Family::default(),
            lag: Family::new_with_constructor(lag),
            attempts: Family::new_with_constructor(attempts),
        }
    }
}

impl Metrics {
    /// Adds them to `registry`, each name beginning with `webhook_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register("deliveries", "Events by endpoint and what became of the attempt", self.deliveries.clone());
        registry.register("delivery_lag_seconds", "From an event to its acceptance", self.lag.clone());
        registry.register("attempt_duration_seconds", "Duration of attempts", self.attempts.clone());
    }

    /// Makes every result of an endpoint visible, so that the first of its kind is seen as an increase.
    pub(super) fn introduce(&self, endpoint: &EndpointName) {
        for result in DeliveryResult::ALL {
            let labels = DeliveryLabels { endpoint: endpoint.to_string(), result };
            drop(self.deliveries.get_or_create(&labels));
        }
    }

    pub(super) fn count(&self, endpoint: &EndpointName, result: DeliveryResult) {
        self.deliveries.get_or_create(&DeliveryLabels { endpoint: endpoint.to_string(), result }).inc();
    }

    pub(super) fn observe_lag(&self, endpoint: &EndpointName, lag: Duration) {
        self.lag.get_or_create(&EndpointLabels { endpoint: endpoint.to_string() }).observe(lag.as_secs_f64());
    }

    pub(super) fn observe_attempt(&self, endpoint: &EndpointName, took: Duration) {
        self.attempts.get_or_create(&EndpointLabels { endpoint: endpoint.to_string() }).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_counted_by_endpoint_and_result() {
        let metrics = Metrics::default();
        let endpoint = "backend".parse().unwrap();
        metrics.introduce(&endpoint);
        metrics.count(&endpoint, DeliveryResult::Accepted);
        metrics.observe_lag(&endpoint, Duration::from_secs(3));
        metrics.observe_attempt(&endpoint, Duration::from_millis(30));
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"webhook_deliveries_total{endpoint="backend",result="accepted"} 1"#,
            r#"webhook_deliveries_total{endpoint="backend",result="parked"} 0"#,
            r#"webhook_delivery_lag_seconds_bucket{le="5.0",endpoint="backend"} 1"#,
            r#"webhook_attempt_duration_seconds_count{endpoint="backend"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
