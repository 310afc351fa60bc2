//! Connections: accepted with bounds, spoken to over TLS, drained on the way out.

mod settings;

pub use settings::{Settings, TlsSettings};
