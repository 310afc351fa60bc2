//! The ways of locating a client, and which of them counts.

use std::sync::Arc;

use tempfile::TempDir;

use super::mmdb::{Mmdb, place};
use crate::geo::{Country, Database, How, Located, Location, Locator};

const IN_FRANCE: &str = "192.0.2.1";
const NOWHERE: &str = "10.0.0.1";

/// A locator with both ways, and the folder that its database is in.
fn locator() -> (Locator, TempDir) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("places.mmdb");
    std::fs::write(&file, Mmdb::cities(&[("192.0.2.0/24", place(Some("FR"), Some((48.86, 2.35))))]).bytes()).unwrap();
    let database = Database::new(file);
    database.reload_if_changed().unwrap();
    (Locator { header: Some("x-client-geo".parse().unwrap()), database: Some(Arc::new(database)) }, folder)
}

fn located(locator: &Locator, header: Option<&str>, address: &str) -> (String, String, &'static str) {
    let Located { location, how } = locator.locate(header, address.parse().unwrap());
    assert_eq!(location == Location::UNKNOWN, how == How::Unknown);
    let country = location.country.map(Country::code).unwrap_or_default();
    (country.to_owned(), location.coordinates.map(|point| point.to_string()).unwrap_or_default(), how.name())
}

#[test]
fn a_proxys_word_counts_before_the_database_and_both_before_nothing() {
    let (locator, _folder) = locator();
    for (name, header, address, expected) in [
        ("a country", Some("DE"), IN_FRANCE, ("DE", "", "header")),
        ("coordinates", Some("52.5,13.4"), IN_FRANCE, ("", "52.5,13.4", "header")),
        ("both", Some("DE,52.5,13.4"), NOWHERE, ("DE", "52.5,13.4", "header")),
        ("no header", None, IN_FRANCE, ("FR", "48.86,2.35", "database")),
        ("an empty header", Some(""), IN_FRANCE, ("FR", "48.86,2.35", "database")),
        ("a country that is not known", Some("ZZ"), IN_FRANCE, ("FR", "48.86,2.35", "database")),
        ("garbage", Some("Berlin"), IN_FRANCE, ("FR", "48.86,2.35", "database")),
        ("out of range", Some("DE,91,0"), IN_FRANCE, ("FR", "48.86,2.35", "database")),
        ("mapped into IPv6", None, "::ffff:192.0.2.1", ("FR", "48.86,2.35", "database")),
        ("garbage from nowhere", Some("Berlin"), NOWHERE, ("", "", "none")),
        ("nothing from nowhere", None, NOWHERE, ("", "", "none")),
    ] {
        let (country, coordinates, how) = located(&locator, header, address);
        assert_eq!((&*country, &*coordinates, how), expected, "{name}");
    }
}

#[test]
fn a_way_that_is_not_configured_tells_nothing() {
    let (both, _folder) = locator();
    let database_only = Locator { header: None, database: both.database.clone() };
    assert_eq!(located(&database_only, Some("DE"), IN_FRANCE).2, "database", "no header was asked for");
    let header_only = Locator { database: None, ..both };
    assert_eq!(located(&header_only, Some("DE"), IN_FRANCE).2, "header");
    assert_eq!(located(&header_only, None, IN_FRANCE).2, "none");
    assert_eq!(located(&Locator::default(), Some("DE"), IN_FRANCE).2, "none");
}

#[test]
fn a_database_that_is_missing_leaves_the_other_ways() {
    let folder = TempDir::new().unwrap();
    let database = Database::new(folder.path().join("none.mmdb"));
    database.reload_if_changed().unwrap_err();
    let locator = Locator { header: Some("x-client-geo".parse().unwrap()), database: Some(Arc::new(database)) };
    assert_eq!(located(&locator, Some("DE"), IN_FRANCE).2, "header");
    assert_eq!(located(&locator, None, IN_FRANCE).2, "none");
}
