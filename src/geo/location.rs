//! What is known of where a client is.

use std::fmt;

use super::coordinates::Coordinates;
use super::country::Country;

/// Where a client is, as far as it is known: a country, a point, both or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Location {
    /// The country.
    pub country: Option<Country>,
    /// The point, better than the country tells it.
    pub coordinates: Option<Coordinates>,
}

impl Location {
    /// That of a client of whom nothing is known.
    pub const UNKNOWN: Self = Self { country: None, coordinates: None };

    /// The point to measure distances from: the client's own, or that of its country.
    pub fn point(&self) -> Option<Coordinates> {
        self.coordinates.or_else(|| self.country.map(Country::point))
    }

    /// Reads what a proxy says of its client: a country code, `lat,long`, or a country code and both behind it, with
    /// `,` or `;` between the parts.
    ///
    /// These are also what Google's load balancer makes of a custom header with `{client_region}`,
    /// `{client_city_lat_long}`, or the first and the second. What it does not know it leaves empty or, for a country,
    /// calls `ZZ` (Unicode CLDR, "Unknown Region"); Cloudflare has `XX`, and `T1` for Tor. Any two characters that are no
    /// country's code are therefore read as a country that is not known.
    ///
    /// `None` when the text tells nothing, and also when any part of it is something else: then it is not understood,
    /// and half of it is worth as little as the whole.
    pub fn from_header(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split([',', ';']).map(|part| part.trim_matches([' ', '\t'])).collect();
        let location = match parts[..] {
            [country] | [country, ""] | [country, "", ""] => {
                Self { country: header_country(country)?, coordinates: None }
            }
            [latitude, longitude] => Self { country: None, coordinates: Some(header_point(latitude, longitude)?) },
            [country, latitude, longitude] => {
                Self { country: header_country(country)?, coordinates: Some(header_point(latitude, longitude)?) }
            }
            _ => return None,
        };
        (location != Self::UNKNOWN).then_some(location)
    }
}

/// As [`Location::from_header`] reads it; empty for [`Location::UNKNOWN`].
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.country, self.coordinates) {
            (None, None) => Ok(()),
            (Some(country), None) => write!(f, "{country}"),
            (None, Some(coordinates)) => write!(f, "{coordinates}"),
            (Some(country), Some(coordinates)) => write!(f, "{country},{coordinates}"),
        }
    }
}

/// The outer `None` is for what cannot be a country code, the inner one for what is no country's.
#[expect(clippy::option_option, reason = "not understood and not known are two answers")]
fn header_country(code: &str) -> Option<Option<Country>> {
    let like_a_code = code.is_empty() || (code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    like_a_code.then(|| Country::of(code))
}

fn header_point(latitude: &str, longitude: &str) -> Option<Coordinates> {
    format!("{latitude},{longitude}").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(country: &str, coordinates: &str) -> Location {
        Location { country: Country::of(country), coordinates: coordinates.parse().ok() }
    }

    #[test]
    fn a_header_is_read_in_every_form() {
        for (text, expected) in [
            ("DE", told("DE", "")),
            ("de", told("DE", "")),
            (" DE ", told("DE", "")),
            ("52.5,13.4", told("", "52.5,13.4")),
            ("52.520007,13.404954", told("", "52.520007,13.404954")),
            ("52.5, 13.4", told("", "52.5,13.4")),
            ("-33.87;151.21", told("", "-33.87,151.21")),
            ("DE,52.520007,13.404954", told("DE", "52.520007,13.404954")),
            ("DE;52.52,13.40", told("DE", "52.52,13.40")),
            ("dE; 52.52; 13.40", told("DE", "52.52,13.40")),
            // The load balancer knew only one of the two.
            ("DE,", told("DE", "")),
            ("DE;,", told("DE", "")),
            (",52.52,13.40", told("", "52.52,13.40")),
            ("ZZ,52.52,13.40", told("", "52.52,13.40")),
            ("XK", told("XK", "")),
            ("00,52.52,13.40", told("", "52.52,13.40")),
            ("0,0", told("", "0,0")),
        ] {
            assert_eq!(Location::from_header(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn a_header_that_tells_nothing_or_nonsense_is_none() {
        for text in [
            "",
            " ",
            ",",
            ",,",
            ";",
            ",,,",
            "ZZ",
            "zz,",
            "XX",
            "T1",
            "EU",
            "DEU",
            "Germany",
            "D",
            "D\u{e9}",
            "{client_region}",
            "{client_region},{client_city_lat_long}",
            "91,0",
            "0,181",
            "DE,91,0",
            "DE,0,-180.5",
            "DE,52.52",
            "DE,52.52,",
            "DE,,13.4",
            "DE,Berlin",
            "US,Mountain View",
            "Germany,52.52,13.40",
            "52.5,13.4,DE",
            "DE,52.52,13.40,",
            "DE,52.52,13.40,1",
            "nan,nan",
            "inf,0",
            "1e1,1e1",
            "52°N,13°E",
            "DE\u{0}",
        ] {
            assert_eq!(Location::from_header(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_point_is_the_clients_own_before_its_countrys() {
        assert_eq!(told("DE", "48.1,11.6").point().unwrap().to_string(), "48.1,11.6");
        assert_eq!(told("DE", "").point(), Some(Country::of("DE").unwrap().point()));
        assert_eq!(Location::UNKNOWN.point(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_header_says_what_comes_of_it_tells_something(text in "[A-Za-z0-9.,;+ -]{0,24}|\\PC{0,12}") {
            if let Some(location) = Location::from_header(&text) {
                prop_assert!(location.point().is_some(), "{text:?} gave {location:?}");
                prop_assert_eq!(Location::from_header(&location.to_string()), Some(location), "written and read again");
            }
        }
    }
}
