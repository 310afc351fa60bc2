//! What is known: every upload, every limit, in Redis or in memory.

mod settings;

pub use settings::{EncryptionKeySettings, Settings};
