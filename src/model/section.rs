//! What is wrong with one of several sections of the configuration, such as a `[[policies]]`.
//!
//! Whoever reads a section knows the key and the reason; whoever goes through the sections knows which one it is; and the
//! configuration knows the file and the line.

/// A key of a section whose value cannot be, before anyone has counted the sections.
pub(crate) struct Fault {
    pub(crate) key: &'static str,
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(key: &'static str, reason: impl Into<String>) -> Self {
        Self { key, reason: reason.into() }
    }

    /// The same of the section with this name and position.
    pub(crate) fn at(self, section: &'static str, index: usize) -> SectionError {
        SectionError { section, index, key: self.key, reason: self.reason }
    }
}

/// Why one of several sections of the configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}[{index}].{key}: {reason}")]
pub struct SectionError {
    /// What sections of its kind are called, such as `issuers`.
    pub section: &'static str,
    /// The position of the section among its like, from zero.
    pub index: usize,
    /// The key whose value is at fault.
    pub key: &'static str,
    /// What is wrong with it, for the person who wrote it. Never a secret.
    pub reason: String,
}
