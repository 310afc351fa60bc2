//! Databases that are sound, that are not, and that take each other's place.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::mmdb::{Mmdb, Value, place};
use crate::geo::{Country, Database, DatabaseError, Description, Location, Refreshed};
use crate::model::chain;
use crate::model::time::Timestamp;

/// A file to be a database, and changes to it that are seen however fast they come.
struct Place {
    folder: TempDir,
    writes: u64,
}

impl Place {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), writes: 0 }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("places.mmdb")
    }

    /// Another file takes the name, as it does when one is delivered; each is an hour younger than the one before.
    fn put(&mut self, bytes: &[u8]) {
        let fresh = self.folder.path().join("fresh");
        std::fs::write(&fresh, bytes).unwrap();
        self.writes += 1;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + 3600 * self.writes);
        std::fs::File::options().append(true).open(&fresh).unwrap().set_modified(modified).unwrap();
        std::fs::rename(fresh, self.file()).unwrap();
    }
}

/// A database that has been loaded from these bytes.
fn loaded(bytes: &[u8]) -> Result<Database, DatabaseError> {
    let mut place = Place::new();
    place.put(bytes);
    let database = Database::new(place.file());
    database.reload_if_changed().map(|refreshed| {
        assert_eq!(refreshed, Refreshed::Changed);
        database
    })
}

fn at(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// `None` where neither is a country or coordinates.
fn told(country: &str, coordinates: &str) -> Option<Location> {
    let location = Location { country: Country::of(country), coordinates: coordinates.parse().ok() };
    (location != Location::UNKNOWN).then_some(location)
}

/// Networks in all that a database may hold of them.
fn world() -> Mmdb {
    Mmdb::cities(&[
        ("192.0.2.0/24", place(Some("DE"), Some((52.52, 13.405)))),
        ("192.0.2.128/25", place(Some("FR"), Some((48.86, 2.35)))),
        ("192.0.2.200/32", place(Some("BE"), None)),
        ("198.51.100.0/24", place(None, Some((-33.87, 151.21)))),
        ("203.0.113.0/26", place(None, None)),
        ("203.0.113.64/26", place(Some("EU"), None)),
        ("203.0.113.128/26", place(Some("NL"), Some((1000.0, 0.0)))),
        ("2001:db8::/32", place(Some("JP"), Some((35.68, 139.69)))),
        ("2001:db8:1::/48", place(Some("KR"), None)),
    ])
}

#[test]
fn an_address_is_found_in_trees_of_every_kind() {
    let cases = [
        ("in a network", "192.0.2.1", told("DE", "52.52,13.405")),
        ("in a smaller one within it", "192.0.2.129", told("FR", "48.86,2.35")),
        ("an address by itself", "192.0.2.200", told("BE", "")),
        ("the last before another network", "192.0.2.127", told("DE", "52.52,13.405")),
        ("mapped into IPv6", "::ffff:192.0.2.129", told("FR", "48.86,2.35")),
        ("without a country", "198.51.100.7", told("", "-33.87,151.21")),
        ("with neither", "203.0.113.1", None),
        ("with a code that is no country's", "203.0.113.65", None),
        ("with coordinates that are none", "203.0.113.129", told("NL", "")),
        ("in no network", "192.0.3.1", None),
        ("private", "10.1.2.3", None),
        ("private, in IPv6", "fd00::1", None),
        ("loopback", "127.0.0.1", None),
        ("loopback in IPv6", "::1", None),
    ];
    let v6 = [
        ("in IPv6", "2001:db8::1", told("JP", "35.68,139.69")),
        ("in a smaller one in IPv6", "2001:db8:1::1", told("KR", "")),
        ("in no network of IPv6", "2001:db9::1", None),
    ];
    for record_size in [24, 28, 32] {
        let database = loaded(&Mmdb { record_size, ..world() }.bytes()).unwrap();
        for (name, address, expected) in cases.iter().chain(&v6) {
            assert_eq!(database.locate(at(address)), *expected, "{name}, {record_size} bits");
        }
        let mut v4 = Mmdb { record_size, ip_version: 4, ..world() };
        v4.networks.retain(|(network, _)| network.addr().is_ipv4());
        let database = loaded(&v4.bytes()).unwrap();
        for (name, address, expected) in cases {
            assert_eq!(database.locate(at(address)), expected, "{name}, IPv4 only, {record_size} bits");
        }
        assert_eq!(database.locate(at("2001:db8::1")), None, "IPv6 is not in it");
    }
}

#[test]
fn a_database_says_what_it_is() {
    let database = loaded(&world().bytes()).unwrap();
    let expected = Description { kind: "GeoLite2-City".to_owned(), built_at: Timestamp::from_secs(1_790_000_000) };
    assert_eq!(database.description(), Some(expected));
}

#[test]
fn what_is_no_database_of_places_is_refused_and_the_reason_told() {
    let sound = world().bytes();
    let mut no_separator = sound.clone();
    let tree = sound.windows(16).position(|bytes| bytes == [0; 16]).unwrap();
    no_separator[tree + 8] = 1;
    let text = |value: &str| Value::Text(value.to_owned());
    let number = vec![("autonomous_system_number", Value::Unsigned32(64_500))];
    let networks = vec![("192.0.2.0/24".parse().unwrap(), Value::Map(number))];
    let providers = Mmdb { kind: "GeoLite2-ASN", networks, ..world() }.bytes();
    // Some sellers have the code itself where MaxMind has a map.
    let other = Mmdb { kind: "flat", ..Mmdb::cities(&[("192.0.2.0/24", Value::Map(vec![("country", text("DE"))]))]) };
    let versions = |bytes: &[u8]| {
        let key = b"binary_format_major_version";
        let at = bytes.windows(key.len()).rposition(|window| window == key).unwrap() + key.len() + 1;
        let mut newer = bytes.to_vec();
        newer[at] = 3;
        newer
    };
    for (name, bytes, part) in [
        ("nothing", &b""[..], "no sound database"),
        ("text", b"not a database", "no sound database"),
        ("cut in the middle", &sound[..sound.len() / 2], "no sound database"),
        ("cut in the metadata", &sound[..sound.len() - 30], "no sound database"),
        ("without its beginning", &sound[200..], "no sound database"),
        ("without the zeros behind the tree", &no_separator, "no sound database"),
        ("of a later format", &versions(&sound), "no sound database"),
        ("of providers", &providers, "of the type \"GeoLite2-ASN\", has neither"),
        ("of another form", &other.bytes(), "of the type \"flat\", has neither"),
    ] {
        let error = chain(&loaded(bytes).err().unwrap_or_else(|| panic!("{name} was taken")));
        assert!(error.contains(part) && error.contains("places.mmdb"), "{name}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told_once_and_found_when_it_comes() {
    let mut place = Place::new();
    let database = Database::new(place.file());
    assert_eq!(database.locate(at("192.0.2.1")), None, "nobody has looked yet");
    let error = chain(&database.reload_if_changed().unwrap_err());
    assert!(error.contains("places.mmdb cannot be read: No such file"), "{error}");
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Unchanged, "it was told already");
    assert_eq!((database.locate(at("192.0.2.1")), database.description()), (None, None));

    place.put(&world().bytes());
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Changed);
    assert_eq!(database.locate(at("192.0.2.1")), told("DE", "52.52,13.405"));
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Unchanged);
}

#[test]
fn a_folder_in_its_place_is_told_once() {
    let folder = TempDir::new().unwrap();
    let database = Database::new(folder.path().to_owned());
    assert!(matches!(database.reload_if_changed(), Err(DatabaseError::Read { .. })));
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Unchanged);
}

#[test]
fn a_file_that_was_swapped_counts_from_the_next_look_and_a_broken_one_never() {
    let moved = |code: &str| Mmdb::cities(&[("192.0.2.0/24", place(Some(code), None))]).bytes();
    let mut place = Place::new();
    place.put(&moved("DE"));
    let database = Database::new(place.file());
    database.reload_if_changed().unwrap();

    // Of the same length: the time alone tells.
    place.put(&moved("FR"));
    assert_eq!(database.locate(at("192.0.2.1")), told("DE", ""), "before the look");
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Changed);
    assert_eq!(database.locate(at("192.0.2.1")), told("FR", ""));

    let sound = moved("BE");
    place.put(&sound[..sound.len() - 5]);
    assert!(matches!(database.reload_if_changed(), Err(DatabaseError::Unsound { .. })));
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Unchanged, "one fault is told once");
    assert_eq!(database.locate(at("192.0.2.1")), told("FR", ""), "the old one is held on");

    std::fs::remove_file(place.file()).unwrap();
    assert!(matches!(database.reload_if_changed(), Err(DatabaseError::Read { .. })));
    assert_eq!(database.locate(at("192.0.2.1")), told("FR", ""), "also without any file");

    place.put(&sound);
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Changed);
    assert_eq!(database.locate(at("192.0.2.1")), told("BE", ""));
}

#[test]
fn a_file_of_another_length_is_seen_though_its_time_is_the_same() {
    let mut place = Place::new();
    place.put(&Mmdb::cities(&[("192.0.2.0/24", super::mmdb::place(Some("DE"), None))]).bytes());
    let database = Database::new(place.file());
    database.reload_if_changed().unwrap();
    place.writes -= 1;
    place.put(&world().bytes());
    assert_eq!(database.reload_if_changed().unwrap(), Refreshed::Changed);
    assert_eq!(database.locate(at("192.0.2.1")), told("DE", "52.52,13.405"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_refused_or_answers_but_brings_nothing_down(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        record_size in prop::sample::select(vec![24_u16, 28, 32]),
    ) {
        let mut bytes = Mmdb { record_size, ..world() }.bytes();
        for (position, value) in damage {
            *position.get_mut(&mut bytes) = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(database) = loaded(&bytes) {
            for address in ["192.0.2.1", "192.0.2.200", "203.0.113.65", "10.0.0.1", "2001:db8::1", "ffff::"] {
                let _ = database.locate(at(address));
            }
        }
    }
}
