//! The broker as its users meet it: through HTTP and the command line, with real servers beside it.

#![expect(unreachable_pub, reason = "a test binary is nobody's dependency")]
#![expect(clippy::wrong_self_convention, reason = "an answer is checked and handed on, as in `answer.is(201).id()`")]
#![expect(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod admin;
mod api;
mod chaos;
mod command_line;
mod compatibility;
mod demo;
mod dns;
mod documents;
mod endings;
mod events;
mod faults;
mod interface;
mod limits;
mod live;
mod lost;
mod metrics;
mod nonsense;
mod notifications;
mod official;
mod processes;
mod readme;
mod refusals;
mod renewals;
mod retries;
mod rolling;
mod routing;
mod secrets;
mod sizes;
mod support;
mod sweeps;
mod traces;
mod transfers;
mod wire;
