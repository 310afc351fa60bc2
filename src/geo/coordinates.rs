//! Points on the earth, and how far they are apart.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Invalid;

/// The mean radius of the earth in km (International Union of Geodesy and Geophysics).
const EARTH_RADIUS_KM: f64 = 6371.0088;

/// A point on the earth, in degrees: latitude from -90 to 90, northward, longitude from -180 to 180, eastward.
///
/// In a configuration an array, `[50.45, 3.82]`; in text `50.45,3.82`.
#[derive(Clone, Copy, PartialEq)]
pub struct Coordinates {
    latitude: f64,
    longitude: f64,
}

impl Coordinates {
    /// The point with these two.
    ///
    /// # Errors
    /// When one of them is no number or out of its range.
    pub fn new(latitude: f64, longitude: f64) -> Result<Self, Invalid> {
        // A range contains no NaN.
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(Invalid::new(format!("a latitude is from -90 to 90 degrees, and {latitude} is not")));
        }
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(Invalid::new(format!("a longitude is from -180 to 180 degrees, and {longitude} is not")));
        }
        Ok(Self { latitude, longitude })
    }

    /// A row of a table, whose ranges a test checks.
    pub(super) const fn fact(latitude: f64, longitude: f64) -> Self {
        Self { latitude, longitude }
    }

    /// Degrees north of the equator.
    pub const fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east of Greenwich.
    pub const fn longitude(self) -> f64 {
        self.longitude
    }

    /// The length in km of the shortest way over a sphere of the earth's mean radius. The true one differs by up to
    /// half a percent, since the earth is a little flat.
    pub fn distance_km(self, other: Self) -> f64 {
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_chord = |difference: f64| (difference.to_radians() / 2.0).sin().powi(2);
        // The haversine formula, which is exact for small distances, too.
        let haversine = half_chord(other.latitude - self.latitude)
            + from.cos() * to.cos() * half_chord(other.longitude - self.longitude);
        // Rounding can take that of antipodes beyond 1, where there is no arc.
        2.0 * EARTH_RADIUS_KM * haversine.clamp(0.0, 1.0).sqrt().asin()
    }
}

impl std::str::FromStr for Coordinates {
    type Err = Invalid;

    /// Reads `50.45,3.82`: latitude, longitude, in plain decimals.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("coordinates are a latitude and a longitude in degrees, such as \"50.45,3.82\"");
        let degrees = |text: &str| {
            let text = text.trim_matches([' ', '\t']);
            // The parser would also take `nan`, `inf` and `1e1`, which no one writes for degrees.
            let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.'));
            text.parse().ok().filter(|_| plain).ok_or_else(invalid)
        };
        let (latitude, longitude) = text.split_once(',').ok_or_else(invalid)?;
        Self::new(degrees(latitude)?, degrees(longitude)?)
    }
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.latitude, self.longitude)
    }
}

impl fmt::Debug for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Coordinates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.latitude, self.longitude].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Coordinates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [latitude, longitude] = Deserialize::deserialize(deserializer)?;
        Self::new(latitude, longitude).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use proptest::prelude::*;

    use super::*;
    use crate::geo::tests::anywhere;

    const HALF_WAY_ROUND_KM: f64 = PI * EARTH_RADIUS_KM;

    /// What rounding may do to a distance: near the antipodes the formula is good to a metre.
    const ROUNDING_KM: f64 = 0.001;

    fn at(text: &str) -> Coordinates {
        text.parse().unwrap()
    }

    #[test]
    fn coordinates_are_read_from_text() {
        for (text, expected) in [
            ("52.520007,13.404954", Some((52.520_007, 13.404_954))),
            ("-26.2, 28", Some((-26.2, 28.0))),
            ("+1.5,-.5", Some((1.5, -0.5))),
            ("90,180", Some((90.0, 180.0))),
            ("-90,-180", Some((-90.0, -180.0))),
            ("90.01,0", None),
            ("0,180.01", None),
            ("52.5", None),
            ("52.5,", None),
            ("52.5,13.4,1", None),
            ("52,5;13,4", None),
            ("nan,0", None),
            ("0,inf", None),
            ("1e1,0", None),
            ("--1,0", None),
            ("", None),
        ] {
            let expected = expected.map(|(latitude, longitude)| Coordinates { latitude, longitude });
            assert_eq!(text.parse::<Coordinates>().ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_configuration_has_an_array_of_two_numbers_in_range() {
        let read = |text: &str| -> Result<Coordinates, String> {
            let table: toml::Table = text.parse().unwrap();
            table["location"].clone().try_into().map_err(|error: toml::de::Error| error.to_string())
        };
        assert_eq!(read("location = [50.45, 3.82]"), Ok(at("50.45,3.82")));
        assert_eq!(read("location = [50, -4]"), Ok(at("50,-4")), "whole degrees are numbers, too");
        for (text, part) in [
            ("location = [91.0, 0.0]", "latitude is from -90 to 90 degrees, and 91 is not"),
            ("location = [0.0, -181.0]", "longitude is from -180 to 180 degrees, and -181 is not"),
            ("location = [nan, 0.0]", "latitude"),
            ("location = [50.45]", "length"),
            ("location = [50.45, 3.82, 1.0]", "length"),
            ("location = \"50.45,3.82\"", "array"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(serde_json::to_string(&at("50.45,3.82")).unwrap(), "[50.45,3.82]");
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        for (name, from, to, expected) in [
            ("Berlin to Paris", "52.52,13.41", "48.86,2.35", 878.0),
            ("London to New York", "51.51,-0.13", "40.71,-74.01", 5570.0),
            ("Tokyo to Los Angeles, over the date line", "35.68,139.69", "34.05,-118.24", 8815.0),
            ("across the date line", "0,179.5", "0,-179.5", 111.2),
            ("pole to pole", "90,0", "-90,0", HALF_WAY_ROUND_KM),
            ("antipodes", "40,-4", "-40,176", HALF_WAY_ROUND_KM),
            ("a pole has no longitude", "90,-120", "90,60", 0.0),
            ("both names of the date line", "10,180", "10,-180", 0.0),
            ("a quarter of a meridian", "0,7", "90,100", HALF_WAY_ROUND_KM / 2.0),
        ] {
            let distance = at(from).distance_km(at(to));
            assert!((distance - expected).abs() <= expected * 0.001 + ROUNDING_KM, "{name}: {distance} km");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn distance_is_a_metric((a, b, c) in (anywhere(), anywhere(), anywhere())) {
            let distance = a.distance_km(b);
            prop_assert!((0.0..=HALF_WAY_ROUND_KM + ROUNDING_KM).contains(&distance), "{distance}");
            prop_assert!((distance - b.distance_km(a)).abs() <= ROUNDING_KM, "it depends on the direction");
            prop_assert!(a.distance_km(a).abs() <= ROUNDING_KM, "it is not where it is");
            prop_assert!(distance <= a.distance_km(c) + c.distance_km(b) + ROUNDING_KM, "a detour is shorter");
        }

        #[test]
        fn the_other_end_of_the_earth_is_half_way_round(a in anywhere(), b in anywhere()) {
            let turned = if a.longitude() > 0.0 { a.longitude() - 180.0 } else { a.longitude() + 180.0 };
            let opposite = Coordinates::new(-a.latitude(), turned).unwrap();
            prop_assert!((a.distance_km(opposite) - HALF_WAY_ROUND_KM).abs() <= ROUNDING_KM);
            prop_assert!((a.distance_km(b) + b.distance_km(opposite) - HALF_WAY_ROUND_KM).abs() <= ROUNDING_KM);
        }

        #[test]
        fn turning_the_earth_changes_no_distance(a in anywhere(), b in anywhere(), by in -180.0..=180.0_f64) {
            let turn = |point: Coordinates| {
                let longitude = (point.longitude() + by + 540.0).rem_euclid(360.0) - 180.0;
                Coordinates::new(point.latitude(), longitude).unwrap()
            };
            prop_assert!((a.distance_km(b) - turn(a).distance_km(turn(b))).abs() <= ROUNDING_KM);
        }

        #[test]
        fn what_is_written_reads_back(point in anywhere()) {
            prop_assert_eq!(point.to_string().parse(), Ok(point));
        }
    }
}
