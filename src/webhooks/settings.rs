//! The `[[webhooks]]` sections, and what of them can be refused before anything is sent.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use url::{Host, Url};

use super::address::is_refused;
use super::event::EventKind;
use crate::model::Invalid;
use crate::model::address::{UpstreamUrl, is_loopback};
use crate::model::endpoint::EndpointId;
use crate::model::section::Fault;

/// How many endpoints there may be. Each costs an entry in the store for each upload that ends.
pub const MAX_ENDPOINTS: usize = 16;

/// One `[[webhooks]]` section: who is told of ended uploads, and of which.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where events are sent. Its path or query may be a secret: never printed.
    pub url: UpstreamUrl,
    /// What the endpoint is called in metrics, in the log, in the admin API and in what is stored; left out, the host of
    /// `url` with its port, if it has one, behind a `-`.
    ///
    /// Events wait under this name. Whoever gives one can change the address while events wait; without one, another
    /// host is another endpoint, and what waited for the former is sent to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<EndpointName>,
    /// A file that holds one or two secrets, each on a line of its own: `whsec_` and 24 to 64 bytes in base64. Every
    /// message is signed with all of them, so that a receiver can change from one to the other at any time.
    pub secret_file: PathBuf,
    /// The events that are sent.
    #[serde(default = "all_events", deserialize_with = "some_events")]
    pub events: Vec<EventKind>,
    /// Whether the address may be inside: on this machine, or in a private network.
    #[serde(default)]
    pub allow_private_addresses: bool,
}

/// Shows where the address leads, and not what is asked for there.
impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSettings")
            .field("url", &self.url.as_url().origin().ascii_serialization())
            .field("name", &self.name)
            .field("secret_file", &self.secret_file)
            .field("events", &self.events)
            .field("allow_private_addresses", &self.allow_private_addresses)
            .finish()
    }
}

/// What an endpoint is called: 1 to 64 characters of `a–z`, `0–9`, `-`, `_` and `.`, not only dots: names stand in paths.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct EndpointName(String);

impl EndpointName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands for it in what is stored.
    pub fn id(&self) -> EndpointId {
        EndpointId::of(&self.0)
    }
}

impl std::str::FromStr for EndpointName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) && text.bytes().any(|byte| byte != b'.') {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new("a name has 1 to 64 characters of a to z, 0 to 9, \"-\", \"_\" and \".\", not only dots"))
        }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for EndpointName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl WebhookSettings {
    /// What the endpoint is called, by its section or by its address.
    pub(super) fn endpoint_name(&self) -> Result<EndpointName, Fault> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let url = self.url.as_url();
        // An IPv6 address has brackets and colons.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).replace(':', "-");
        let name = url.port().map_or_else(|| host.clone(), |port| format!("{host}-{port}"));
        name.parse().map_err(|_| Fault::new("name", format!("missing: {name:?}, made of the url, is no name")))
    }

    /// Whether the address is one that may be called at all. What a host name resolves to is looked at when it is called.
    pub(super) fn check_address(&self) -> Result<(), Fault> {
        let url = self.url.as_url();
        if url.fragment().is_some() {
            return Err(Fault::new("url", "must have no fragment: it would not be sent"));
        }
        if !self.allow_private_addresses && (is_loopback(url) || literal_address(url).is_some_and(is_refused)) {
            return Err(Fault::new("url", "leads inside, which needs allow_private_addresses = true"));
        }
        Ok(())
    }
}

/// The address that a URL has in place of a host name. No name is resolved for it.
pub(super) fn literal_address(url: &Url) -> Option<std::net::IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}

fn all_events() -> Vec<EventKind> {
    EventKind::ALL.to_vec()
}

fn some_events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EventKind>, D::Error> {
    let events = Vec::<EventKind>::deserialize(deserializer)?;
    if events.is_empty() {
        return Err(serde::de::Error::custom("must name at least one event, or be left out for all of them"));
    }
    for (position, event) in events.iter().enumerate() {
        if events[..position].contains(event) {
            return Err(serde::de::Error::custom(format!("names {:?} twice", event.name())));
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<WebhookSettings, toml::de::Error> {
        toml::from_str(&format!("secret_file = \"s\"\n{text}"))
    }

    #[test]
    fn a_section_needs_an_address_and_a_secret_and_has_true_defaults() {
        let settings = section("url = \"https://backend.example.com/hooks\"").unwrap();
        assert_eq!(settings.events, EventKind::ALL);
        assert!(!settings.allow_private_addresses);
        assert!(toml::from_str::<WebhookSettings>("url = \"https://backend.example.com\"").is_err());
    }

    #[test]
    fn what_an_address_asks_for_is_not_printed() {
        let printed = format!("{:?}", section("url = \"https://backend.example.com/s3cret?key=s3cret\"").unwrap());
        assert!(printed.contains("https://backend.example.com") && !printed.contains("s3cret"), "{printed}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let url = "url = \"https://backend.example.com\"\n";
        for (name, text) in [
            ("no event", format!("{url}events = []")),
            ("an event twice", format!("{url}events = [\"upload.expired\", \"upload.expired\"]")),
            ("an unknown event", format!("{url}events = [\"upload.begun\"]")),
            ("a name in capitals", format!("{url}name = \"Backend\"")),
            ("a name of dots", format!("{url}name = \"..\"")),
            ("an empty name", format!("{url}name = \"\"")),
            ("a long name", format!("{url}name = \"{}\"", "a".repeat(65))),
            ("an unknown key", format!("{url}secret = \"whsec_\"")),
            ("plain http elsewhere", "url = \"http://backend.example.com\"".to_owned()),
            ("no address", String::new()),
        ] {
            assert!(section(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn an_endpoint_without_a_name_is_called_by_its_host() {
        let long = format!("https://{}.example.com/", "a".repeat(60));
        for (url, expected) in [
            ("https://Backend.example.com/hooks?a=b", Some("backend.example.com")),
            ("https://backend.example.com:443/", Some("backend.example.com")),
            ("https://backend.example.com:8443/", Some("backend.example.com-8443")),
            ("http://127.0.0.1:8080/", Some("127.0.0.1-8080")),
            ("http://[::1]:8080/", Some("--1-8080")),
            (&long, None),
        ] {
            let name = section(&format!("url = \"{url}\"")).unwrap().endpoint_name();
            assert_eq!(name.ok().as_ref().map(EndpointName::as_str), expected, "{url}");
        }
        let named = section("url = \"https://backend.example.com\"\nname = \"billing\"").unwrap();
        assert_eq!(named.endpoint_name().ok().unwrap().as_str(), "billing");
    }

    #[test]
    fn an_address_that_leads_inside_needs_leave() {
        for (url, inside) in [
            ("https://backend.example.com/", false),
            ("https://8.8.8.8/", false),
            ("https://10.0.0.1/", true),
            ("https://169.254.169.254/", true),
            ("https://0x7f.1/", true),
            ("https://2130706433/", true),
            ("https://[fd00::1]/", true),
            ("https://[::ffff:10.0.0.1]/", true),
            ("https://localhost/", true),
            ("http://127.0.0.1:8080/", true),
        ] {
            let settings = section(&format!("url = \"{url}\"")).unwrap();
            assert_eq!(settings.check_address().is_err(), inside, "{url}");
            let allowed = WebhookSettings { allow_private_addresses: true, ..settings };
            assert!(allowed.check_address().is_ok(), "{url}");
        }
    }
}
