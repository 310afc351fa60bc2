//! What operators see of a running broker besides its metrics: log lines, and traces.
//!
//! - `logs`: lines on standard error, and what libraries may not say in them; `outage`: one line for each outage;
//! - `trace`: spans, as a value that travels with the work, and `context`: how they are named across programs;
//! - `export`: finished spans on their way to a collector, `otlp`: what they look like there, `metrics`: how many.
//!
//! Everything may use this module, and it uses nothing of the broker but the vocabulary and the clock.

mod context;
mod export;
mod logs;
mod metrics;
mod otlp;
pub(crate) mod outage;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
pub mod trace;

pub use context::Traceparent;
pub(crate) use export::FLUSH;
pub use export::{Exporter, open};
pub(crate) use logs::AUDIT;
pub use logs::{LogFormat, init};
pub use metrics::Metrics;
pub use settings::{CollectorUrl, TelemetrySettings};

/// The labels of a metric of which there is one series, or none.
pub(crate) type NoLabels = [(&'static str, &'static str); 0];
