//! Google Cloud Storage: sessions are opened, looked at and cancelled; objects are read back and deleted.

mod settings;

pub use settings::{Api, Credentials, Settings};
