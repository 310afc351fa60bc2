//! Who is asking: a bearer token becomes a [`crate::model::principal::Principal`], or a refusal.

mod settings;

pub use settings::{Algorithm, IssuerSettings};
