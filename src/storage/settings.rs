//! The `[storage]` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::address::UpstreamUrl;
use crate::model::time::Span;

/// The `[storage]` section: where storage is, and as whom it is called.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The address of storage.
    pub endpoint: UpstreamUrl,
    /// Which of storage's interfaces opens sessions.
    pub api: Api,
    /// As whom storage is called.
    pub credentials: Credentials,
    /// How long one operation may take, retries included.
    pub timeout: Span,
}

/// An interface of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// The JSON interface, which checks declared digests.
    #[default]
    Json,
    /// The XML interface, which opens sessions with headers alone and answers browsers by the bucket's own CORS rules.
    Xml,
}

/// As whom storage is called: `"auto"`, or `{ file = "sa.json" }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "\"auto\", or a table such as { file = \"sa.json\" }")]
pub enum Credentials {
    /// Application default credentials.
    #[serde(with = "auto")]
    #[default]
    Auto,
    /// A credentials file, of any kind that application default credentials know.
    File {
        /// The file, in the JSON form that Google gives out.
        file: PathBuf,
    },
}

impl Default for Settings {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the text is a constant, and a test reads it")]
        let endpoint = "https://storage.googleapis.com".parse().expect("the default endpoint is a valid address");
        Self { endpoint, api: Api::default(), credentials: Credentials::default(), timeout: Span::seconds(10) }
    }
}

/// The text `"auto"`, for an untagged variant without content.
mod auto {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("auto")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(()),
            _ => Err(serde::de::Error::custom("expected \"auto\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_has_the_documented_defaults() {
        let settings: Settings = toml::from_str("").unwrap();
        assert_eq!(settings.endpoint.to_string(), "https://storage.googleapis.com/");
        assert_eq!(settings.credentials, Credentials::Auto);
        assert_eq!(settings.timeout, Span::seconds(10));
    }

    #[test]
    fn credentials_are_auto_or_a_file() {
        let read = |text: &str| toml::from_str::<Settings>(text).map(|settings| settings.credentials);
        assert_eq!(read("credentials = \"auto\""), Ok(Credentials::Auto));
        assert_eq!(read("credentials = { file = \"sa.json\" }"), Ok(Credentials::File { file: "sa.json".into() }));
        assert!(read("credentials = \"sa.json\"").is_err());
    }
}
