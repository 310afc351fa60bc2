//! The `[telemetry]` section.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::model::Invalid;

/// The `[telemetry]` section: where traces go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// The collector that traces are sent to, with OTLP over HTTP; left out, there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<CollectorUrl>,
    /// Which part of the traces that begin here is recorded: 0 to 1.
    #[serde(default = "default_trace_ratio", deserialize_with = "ratio")]
    pub trace_ratio: f64,
}

const fn default_trace_ratio() -> f64 {
    1.0
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { otlp_endpoint: None, trace_ratio: default_trace_ratio() }
    }
}

fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&ratio) {
        Ok(ratio)
    } else {
        Err(serde::de::Error::custom("must be 0 to 1: which part of the traces is recorded"))
    }
}

/// Where a collector is: `http` or `https`, as collectors stand inside, beside the broker, and spans hold no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CollectorUrl(Url);

impl CollectorUrl {
    /// Where traces are posted (OTLP specification, "OTLP/HTTP Request").
    pub fn traces(&self) -> Url {
        let mut url = self.0.clone();
        let path = format!("{}{TRACES}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }
}

impl CollectorUrl {
    /// Whether it has the port at which collectors speak gRPC (OTLP specification, "OTLP/gRPC Default Port").
    pub fn is_at_port_of_grpc(&self) -> bool {
        self.0.port() == Some(4317)
    }
}

const TRACES: &str = "/v1/traces";

impl FromStr for CollectorUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Not repeated: it may hold a password, or a key in its query.
        let url = Url::parse(text).map_err(|error| Invalid::new(format!("is not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(Invalid::new("must be an http or https URL, such as \"http://collector:4318\""));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Invalid::new("an address must not hold a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Invalid::new("must not have a query or fragment"));
        }
        if url.path().trim_end_matches('/').ends_with(TRACES) {
            return Err(Invalid::new("must end before /v1/traces, which is added"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for CollectorUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CollectorUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_posted_below_the_endpoint() {
        for (endpoint, expected) in [
            ("http://collector:4317", "http://collector:4317/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://otlp.example.com/tenant/a/", "https://otlp.example.com/tenant/a/v1/traces"),
        ] {
            assert_eq!(endpoint.parse::<CollectorUrl>().unwrap().traces().as_str(), expected);
        }
    }

    #[test]
    fn mistakes_are_named_and_not_repeated() {
        for (text, part) in [
            ("otlp_endpoint = \"collector:4317\"", "http or https"),
            ("otlp_endpoint = \"grpc://collector:4317\"", "http or https"),
            ("otlp_endpoint = \"http://me:hunter2@collector\"", "user name or password"),
            ("otlp_endpoint = \"http://collector?key=hunter2\"", "query"),
            ("otlp_endpoint = \"http://collector:4318/v1/traces/\"", "which is added"),
            ("otlp_endpoint = \"hunter2\"", "not a URL"),
            ("trace_ratio = 1.1", "0 to 1"),
            ("trace_ratio = -0.1", "0 to 1"),
            ("trace_ratio = nan", "0 to 1"),
            ("trace_rate = 1", "`trace_rate`"),
        ] {
            let error = toml::from_str::<TelemetrySettings>(text).unwrap_err();
            let error = error.message();
            assert!(error.contains(part) && !error.contains("hunter2"), "{text}: {error}");
        }
        let whole = toml::from_str::<TelemetrySettings>("trace_ratio = 1").unwrap();
        assert_eq!(whole, TelemetrySettings::default());
    }
}
