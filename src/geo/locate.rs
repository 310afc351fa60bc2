//! Where a client is: by the word of a proxy, by its address, or not at all.

use std::net::IpAddr;
use std::sync::Arc;

use super::database::Database;
use super::location::Location;
use super::settings::HeaderName;
use crate::model::Invalid;

/// Locates clients in the ways that are configured.
#[derive(Debug, Default)]
pub struct Locator {
    /// The header in which a trusted proxy tells where its client is.
    pub header: Option<HeaderName>,
    /// The database that addresses are looked up in.
    pub database: Option<Arc<Database>>,
}

/// Where a client is, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Located {
    /// Where it is; [`Location::UNKNOWN`] together with [`How::Unknown`], and never otherwise.
    pub location: Location,
    /// How that is known.
    pub how: How,
}

/// How it is known where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// A trusted proxy said it.
    Header,
    /// The database has its address.
    Database,
    /// It is not.
    Unknown,
}

impl How {
    /// What answers and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Database => "database",
            Self::Unknown => "none",
        }
    }
}

impl std::str::FromStr for How {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = [Self::Header, Self::Database, Self::Unknown].into_iter().find(|how| how.name() == text);
        known.ok_or_else(|| Invalid::new("a client is located by \"header\", \"database\" or \"none\""))
    }
}

impl Located {
    /// A client of whom nothing is known.
    pub const UNKNOWN: Self = Self { location: Location::UNKNOWN, how: How::Unknown };
}

impl Locator {
    /// Locates the client at `address`, which need not be canonical: that of an IPv4 client may be mapped into IPv6.
    ///
    /// `header` is the value of [`Locator::header`], and `None` unless a trusted proxy sent it, once: whoever else sends
    /// it would choose where it is. It counts only as a whole, and is not mixed with what the database knows.
    pub fn locate(&self, header: Option<&str>, address: IpAddr) -> Located {
        // A proxy's word is no use where the operator named no header.
        let header = header.filter(|_| self.header.is_some()).and_then(Location::from_header);
        if let Some(location) = header {
            return Located { location, how: How::Header };
        }
        match self.database.as_ref().and_then(|database| database.locate(address)) {
            Some(location) => Located { location, how: How::Database },
            None => Located::UNKNOWN,
        }
    }
}
