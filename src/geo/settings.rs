//! The `[routing]` section.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Invalid;

/// The `[routing]` section: how clients are located, and what becomes of those who came to the wrong region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingSettings {
    /// A database in MaxMind's format, with countries or cities; left out, addresses say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geoip_database: Option<PathBuf>,
    /// The header in which a trusted proxy tells where its client is; left out, none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo_header: Option<HeaderName>,
    /// What becomes of a client that another region is nearer to.
    #[serde(default)]
    pub misdirected: Misdirected,
}

/// What becomes of a client that another region is nearer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Misdirected {
    /// It is served here, and told.
    #[default]
    Serve,
    /// The nearest broker is asked to serve it.
    Forward,
    /// It is told where to go.
    Reject,
}

/// The name of a header: 1 to 64 characters of a token (RFC 9110, section 5.6.2), kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(String);

impl HeaderName {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HeaderName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let token_character = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(token_character) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Invalid::new(format!("{text:?} is not the name of a header, such as \"x-client-geo\"")))
        }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for HeaderName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RoutingSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_section_is_read_and_written_as_it_was() {
        assert_eq!(read("").unwrap(), RoutingSettings::default());
        assert_eq!(RoutingSettings::default().misdirected, Misdirected::Serve);
        let text = "geoip_database = \"geo/City.mmdb\"\ngeo_header = \"X-Client-Geo\"\nmisdirected = \"forward\"\n";
        let settings = read(text).unwrap();
        assert_eq!(settings.geo_header.as_ref().map(HeaderName::as_str), Some("x-client-geo"));
        assert_eq!(settings.misdirected, Misdirected::Forward);
        assert_eq!(toml::to_string(&settings).unwrap(), text.replace("X-Client-Geo", "x-client-geo"));
    }

    #[test]
    fn mistakes_are_named() {
        let long = format!("geo_header = \"{}\"", "x".repeat(65));
        for (text, part) in [
            ("geo_headr = \"x\"", "`geo_headr`"),
            ("misdirected = \"refuse\"", "`refuse`"),
            ("geo_header = \"\"", "not the name of a header"),
            ("geo_header = \"x client\"", "not the name of a header"),
            ("geo_header = \"x-client-geo:\"", "not the name of a header"),
            ("geo_header = \"x-länge\"", "not the name of a header"),
            (&long, "not the name of a header"),
            ("geoip_database = 1", "string"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
