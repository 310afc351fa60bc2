//! Where a client is, and which region is nearest to it.
//!
//! The module exists because a session stays in the region that opened it: opened in the wrong place, it is slow for its
//! whole life. It knows neither HTTP nor the network: what a proxy said and the client's address come in, an order of
//! regions comes out.
//!
//! The data structures are a [`Location`], which is as much as is known of a client, and a list of [`Candidate`]s, the
//! regions. A [`Locator`] makes the one, [`nearest()`] puts the others in order.
//!
//! ```text
//! coordinates.rs             points on the earth, and how far they are apart
//! country.rs  countries.rs   codes of countries, and a point in each
//! regions.rs                 where Google's regions are
//! location.rs                what is known of a client, and how a proxy says it
//! database.rs                a file in MaxMind's format, and its replacement while it is used
//! locate.rs                  the header, else the database, else nothing
//! nearest.rs                 the order of regions for a client
//! health.rs                  whether a region is up, as probes see it
//! settings.rs                the [routing] section
//! ```

mod coordinates;
mod countries;
mod country;
mod database;
mod health;
mod locate;
mod location;
mod nearest;
pub mod regions;
mod settings;

pub use coordinates::Coordinates;
pub use country::Country;
pub use database::{Database, DatabaseError, Description, Refreshed};
pub use health::{Health, Probe, Switch};
pub use locate::{How, Located, Locator};
pub use location::Location;
pub use nearest::{Candidate, Ranked, Wanted, nearest};
pub use settings::{HeaderName, Misdirected, RoutingSettings};

#[cfg(test)]
mod tests;
