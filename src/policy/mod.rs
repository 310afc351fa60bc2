//! May this principal put this here? Pure: no clock, no store, no network.

mod settings;

pub use settings::{DigestRule, PolicySettings, TransferSetting};
