//! A database of addresses in MaxMind's format (GeoLite2 or GeoIP2, City or Country, and what is built like them), and
//! its replacement while it is used.
//!
//! The format is read by the crate `maxminddb`. It keeps the whole file in memory, so a look-up reads no disk; while a
//! file is replaced both are there.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

use super::coordinates::Coordinates;
use super::country::Country;
use super::location::Location;
use crate::model::time::Timestamp;

/// The largest databases that are sold have less than half of this. A larger file is something else.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not in MaxMind's format, or damaged.
    #[error("{} is no sound database in MaxMind's format", file.display())]
    Unsound {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        source: MaxMindDbError,
    },
    /// The database is about something else, such as the providers of addresses.
    #[error("{}, of the type {kind:?}, has neither the country nor the coordinates of any address", file.display())]
    Placeless {
        /// Which one.
        file: PathBuf,
        /// What it says that it is.
        kind: String,
    },
}

/// What a look at the file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It is as it was at the look before.
    Unchanged,
    /// Addresses are looked up in what it holds now.
    Changed,
}

/// What a database says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its type, such as `GeoLite2-City`.
    pub kind: String,
    /// When it was built.
    pub built_at: Timestamp,
}

/// A database, by its file. Without a file, or with none that can be used, it knows no address.
pub struct Database {
    file: PathBuf,
    held: ArcSwapOption<Reader<Vec<u8>>>,
    /// What the file was at the last look, good or bad: one fault is one line in the log. Held during a look.
    seen: Mutex<Seen>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Nobody has looked.
    Nothing,
    /// There was none, or it could not be opened.
    NoFile,
    /// It was of this length, last changed then.
    File { length: u64, modified: Option<SystemTime> },
}

/// What is read of an entry. The rest of it is skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry<'a> {
    #[serde(borrow)]
    country: EntryCountry<'a>,
    location: EntryLocation,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EntryCountry<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EntryLocation {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Database {
    /// The database in `file`, which is not looked at before [`Database::reload_if_changed`].
    pub fn new(file: PathBuf) -> Self {
        Self { file, held: ArcSwapOption::empty(), seen: Mutex::new(Seen::Nothing) }
    }

    /// Its file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Looks at the file, and reads it if its length or time has changed since the last look, or at the first. Every
    /// byte of it is verified before any address is looked up in it. To be called at start, and then from time to time.
    ///
    /// Blocks while the file is read and verified: for a second or two if it is large.
    ///
    /// # Errors
    /// When the file cannot be read or used, once for each such file. What was held before is held on.
    pub fn reload_if_changed(&self) -> Result<Refreshed, DatabaseError> {
        let mut last = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let unreadable = |source| DatabaseError::Read { file: self.file.clone(), source };
        // Told of the opened file, whatever takes its name in the meantime. It is told before the file is read: what is
        // written during that has a later time, and is found at the next look.
        let opened = File::open(&self.file).and_then(|file| Ok((Seen::of(&file)?, file)));
        let seen = opened.as_ref().map_or(Seen::NoFile, |(seen, _)| *seen);
        if std::mem::replace(&mut *last, seen) == seen {
            return Ok(Refreshed::Unchanged);
        }
        let bytes = opened.and_then(|(_, file)| read_bounded(file)).map_err(unreadable)?;
        self.held.store(Some(Arc::new(open(bytes, &self.file)?)));
        Ok(Refreshed::Changed)
    }

    /// Where the address is, if the database has it with a country or coordinates. Private addresses it usually has not.
    pub fn locate(&self, address: IpAddr) -> Option<Location> {
        // What is mapped into IPv6 (`::ffff:192.0.2.1`) stands in databases as what it is.
        let address = address.to_canonical();
        let held = self.held.load();
        // One without IPv6 refuses such addresses.
        let found = held.as_ref()?.lookup(address).ok()?;
        found.decode::<Entry<'_>>().ok()??.location()
    }

    /// What the database that is held says of itself; `None` while there is none.
    pub fn description(&self) -> Option<Description> {
        let held = self.held.load();
        let metadata = held.as_ref()?.metadata();
        let built_at = Timestamp::from_secs(i64::try_from(metadata.build_epoch).unwrap_or(i64::MAX));
        Some(Description { kind: metadata.database_type.clone(), built_at })
    }
}

/// Says which file.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&self.file).finish()
    }
}

impl Seen {
    fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self::File { length: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl Entry<'_> {
    fn location(&self) -> Option<Location> {
        let coordinates = self.location.latitude.zip(self.location.longitude);
        let location = Location {
            // Older databases have codes for parts of the world (`EU`, `AP`), which are no countries.
            country: self.country.iso_code.and_then(Country::of),
            coordinates: coordinates.and_then(|(latitude, longitude)| Coordinates::new(latitude, longitude).ok()),
        };
        (location != Location::UNKNOWN).then_some(location)
    }
}

fn open(bytes: Vec<u8>, file: &Path) -> Result<Reader<Vec<u8>>, DatabaseError> {
    let unsound = |source| DatabaseError::Unsound { file: file.to_owned(), source };
    let reader = Reader::from_source(bytes).map_err(unsound)?;
    reader.verify().map_err(unsound)?;
    // The first entry of a fitting database has a place; in one that does not fit, all have to be seen.
    let places = |entry: Result<maxminddb::LookupResult<'_, _>, _>| entry.ok()?.decode::<Entry<'_>>().ok()??.location();
    if reader.networks(maxminddb::WithinOptions::default()).map_err(unsound)?.find_map(places).is_none() {
        return Err(DatabaseError::Placeless { file: file.to_owned(), kind: reader.metadata().database_type.clone() });
    }
    Ok(reader)
}

fn read_bounded(file: File) -> std::io::Result<Vec<u8>> {
    // As large as it is, so that no copy is made while it grows: these files are the most that this process holds.
    let length = file.metadata()?.len().min(MAX_FILE_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is larger than 1 GiB"));
    }
    Ok(bytes)
}
