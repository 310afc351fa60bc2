//! The vocabulary that every layer shares: what an upload is, who owns it, and the values that it is made of.
//!
//! Values are parsed once, at the edge, into types that cannot be mixed up; nothing here knows HTTP, Redis or storage,
//! and nothing here imports another module of the crate.

pub mod address;
pub mod digest;
pub mod endpoint;
pub mod id;
pub mod idempotency;
pub mod limits;
pub mod name;
pub mod notice;
pub mod principal;
pub mod secret;
pub mod section;
pub mod size;
pub mod time;
pub mod upload;

/// Why a text is not a value of the type that it was meant for. Its `Display` is fit for the person who wrote the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// The error and all that caused it, in one line: what log lines and messages for operators say.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
