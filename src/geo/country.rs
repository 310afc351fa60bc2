//! Countries by their codes, and a point in each.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::coordinates::Coordinates;
use super::countries::COUNTRIES;
use crate::model::Invalid;

/// A country: an officially assigned code of ISO 3166-1 alpha-2, or `XK`.
///
/// Only such codes can be had, so that each has a [`Country::point`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(
    /// The row in the table.
    u8,
);

impl Country {
    /// The country that the code stands for, in upper or lower case.
    pub fn of(code: &str) -> Option<Self> {
        let code = code.to_ascii_uppercase();
        let row = COUNTRIES.binary_search_by(|(known, _, _)| (*known).cmp(&*code)).ok()?;
        u8::try_from(row).ok().map(Self)
    }

    /// Two upper-case letters.
    pub fn code(self) -> &'static str {
        COUNTRIES[usize::from(self.0)].0
    }

    /// Where its people are, if nothing better is known: good to half a degree as a point, and to a country as a guess.
    pub fn point(self) -> Coordinates {
        let (_, latitude, longitude) = COUNTRIES[usize::from(self.0)];
        Coordinates::fact(latitude, longitude)
    }
}

impl std::str::FromStr for Country {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::of(text).ok_or_else(|| match text {
            "UK" | "uk" => Invalid::new("\"UK\" is no country code; that of the United Kingdom is \"GB\""),
            _ => Invalid::new(format!("{text:?} is no country code of ISO 3166-1 alpha-2, such as \"DE\"")),
        })
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Country {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_of_the_table_is_found_in_either_case_and_lies_on_the_earth() {
        // 249 are assigned as of 2026, and XK.
        assert_eq!(COUNTRIES.len(), 250);
        for (code, latitude, longitude) in COUNTRIES {
            let country = Country::of(code).unwrap_or_else(|| panic!("{code} is out of order, or there twice"));
            assert_eq!(country.code(), code);
            assert_eq!(Country::of(&code.to_lowercase()), Some(country));
            assert!(code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase()), "{code}");
            assert_eq!(Coordinates::new(latitude, longitude), Ok(country.point()), "{code}");
            assert!((latitude * 2.0).fract() == 0.0 && (longitude * 2.0).fract() == 0.0, "{code}: half degrees");
        }
    }

    #[test]
    fn points_are_in_their_quarter_of_the_earth() {
        for (code, north, east) in [
            ("AU", false, true),
            ("BR", false, false),
            ("CL", false, false),
            ("DE", true, true),
            ("GL", true, false),
            ("ID", false, true),
            ("IN", true, true),
            ("JP", true, true),
            ("NZ", false, true),
            ("PF", false, false),
            ("PT", true, false),
            ("RU", true, true),
            ("US", true, false),
            ("ZA", false, true),
        ] {
            let point = Country::of(code).unwrap().point();
            assert_eq!((point.latitude() > 0.0, point.longitude() > 0.0), (north, east), "{code}");
        }
    }

    #[test]
    fn what_is_no_country_is_none() {
        for text in ["", "D", "DEU", "ZZ", "XX", "T1", "EU", "AP", "A1", "ÄÖ", "D\u{0}", " DE", "Germany"] {
            assert!(text.parse::<Country>().is_err(), "{text:?}");
        }
        assert!("UK".parse::<Country>().unwrap_err().to_string().contains("\"GB\""));
    }

    #[test]
    fn a_configuration_has_them_as_text() {
        let table: toml::Table = "countries = [\"BE\", \"nl\"]".parse().unwrap();
        let countries: Vec<Country> = table["countries"].clone().try_into().unwrap();
        assert_eq!(serde_json::to_string(&countries).unwrap(), "[\"BE\",\"NL\"]");
        let table: toml::Table = "countries = [\"BENELUX\"]".parse().unwrap();
        let error = Vec::<Country>::deserialize(table["countries"].clone()).unwrap_err();
        assert!(error.to_string().contains("\"BENELUX\" is no country code"), "{error}");
    }
}
