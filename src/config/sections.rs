//! Another document than the configuration that is a list of sections, read with the same care for where a mistake stands.

use std::io::Read as _;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::document::{self, Origins};
use super::error::{ConfigError, Errors, Location};
use super::read::Reader;
use super::{MAX_BYTES, path};

/// The sections of a document, all of one kind.
#[derive(Debug)]
pub struct Sections<T> {
    /// The sections, at least one.
    pub sections: Vec<T>,
    name: &'static str,
    origins: Origins,
}

impl<T: DeserializeOwned> Sections<T> {
    /// Reads a file of `[[name]]` sections and nothing else. Blocks for one small read.
    ///
    /// # Errors
    /// When the file cannot be read, with all mistakes that can be found at once.
    pub fn load_file(file: &Path, name: &'static str) -> Result<Self, Errors> {
        let wrong = |reason: String| Errors::from(ConfigError::new(Location::File(file.to_owned()), "", reason));
        let mut text = String::new();
        std::fs::File::open(file)
            .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text))
            .map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if text.len() > MAX_BYTES {
            return Err(wrong("is larger than 1 MiB".to_owned()));
        }
        let (table, origins) = document::parse(&text, file)?;
        let mut reader = Reader::new(table, origins);
        reader.refuse_unknown(&[name]);
        let sections = reader.sections(name);
        match sections {
            Some(sections) if reader.errors.is_empty() => Ok(Self { sections, name, origins: reader.origins }),
            _ => Err(reader.errors.into()),
        }
    }
}

impl<T> Sections<T> {
    /// Where a key of a section was written, or the section if it was not.
    pub fn locate(&self, index: usize, key: &str) -> Location {
        self.origins.locate(&path(self.name, Some(index), key))
    }

    /// What somebody else finds wrong with a key.
    pub fn error(&self, index: usize, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::new(self.locate(index, key), path(self.name, Some(index), key), reason)
    }
}
