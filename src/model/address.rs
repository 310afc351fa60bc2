//! Addresses that the broker itself calls.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Host, Url};

use super::Invalid;

/// An address to be called: `https`, or plain `http` to a loopback address.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamUrl(Url);

impl UpstreamUrl {
    /// The address.
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

/// Whether the URL's host is this machine: `localhost`, or an address of the loopback range.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl std::str::FromStr for UpstreamUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let url = Url::parse(text).map_err(|error| Invalid::new(format!("{text:?} is not a URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Invalid::new("an address must not hold a user name or password"));
        }
        match url.scheme() {
            "https" if url.has_host() => Ok(Self(url)),
            "http" if is_loopback(&url) => Ok(Self(url)),
            "http" => Err(Invalid::new(format!("{text:?} must be https; plain http is accepted to loopback only"))),
            _ => Err(Invalid::new(format!("{text:?} must be an https URL"))),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for UpstreamUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UpstreamUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_loopback_only() {
        for (text, accepted) in [
            ("https://storage.googleapis.com", true),
            ("http://127.0.0.1:9023", true),
            ("http://[::1]:9023/base", true),
            ("http://localhost:9023", true),
            ("http://storage.googleapis.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://localhost.example.com", false),
            ("http://169.254.169.254", false),
            ("https://user:word@example.com", false),
            ("file:///etc/passwd", false),
            ("storage.googleapis.com", false),
        ] {
            assert_eq!(text.parse::<UpstreamUrl>().is_ok(), accepted, "{text}");
        }
    }
}
