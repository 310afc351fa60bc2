//! Tells other services how uploads ended: each final state once to every endpoint that asked for it, at least.
//!
//! An event is recorded with the final state that it tells of, in one step of the store, and waits there until its
//! receiver has accepted it. Messages are signed by the Standard Webhooks specification and go to addresses of the
//! configuration only. What is the receiver's fault costs the receiver's own share of attempts, and nobody else's.

mod address;
mod deliver;
mod endpoint;
mod event;
mod metrics;
mod queue;
mod schedule;
mod send;
mod settings;
mod sign;
#[cfg(test)]
mod tests;

pub(crate) use deliver::GRACE;
pub use deliver::{ENDINGS_AT_ONCE, Webhooks};
pub use endpoint::{Endpoint, OpenError};
pub use event::{EventKind, event_id};
pub use metrics::Metrics;
pub use settings::{EndpointName, MAX_ENDPOINTS, WebhookSettings};
