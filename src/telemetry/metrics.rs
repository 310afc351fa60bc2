//! What became of spans, in numbers.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts spans. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    spans: Family<SpanLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    result: &'static str,
}

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpanResult {
    /// The collector took it.
    Exported,
    /// Too many were waiting.
    Overflowed,
    /// The collector could not be reached for too long.
    Undelivered,
    /// The collector did not want it.
    Rejected,
}

impl Metrics {
    /// Makes them part of `registry`, under names that begin with `telemetry_`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("telemetry_spans", "Spans of traces, by what became of them", self.spans.clone());
        // Who watches for losses sees that there are none.
        for result in [SpanResult::Exported, SpanResult::Overflowed, SpanResult::Undelivered, SpanResult::Rejected] {
            self.count(result, 0);
        }
    }

    pub(super) fn count(&self, result: SpanResult, spans: usize) {
        let result = match result {
            SpanResult::Exported => "exported",
            SpanResult::Overflowed => "overflowed",
            SpanResult::Undelivered => "undelivered",
            SpanResult::Rejected => "rejected",
        };
        self.spans.get_or_create(&SpanLabels { result }).inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}
