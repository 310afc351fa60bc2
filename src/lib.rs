//! A regional upload-session broker for Google Cloud Storage.

pub mod clock;
pub mod config;
pub mod expression;
pub mod identity;
pub mod model;
pub mod policy;
pub mod server;
pub mod storage;
pub mod store;
