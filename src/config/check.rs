//! What the types cannot say, and no single section can know.
//!
//! The rules of issuers and policies themselves are with `identity` and `policy`, which report them with the key.

use std::collections::BTreeSet;
use std::time::Duration;

use url::Url;

use super::{OwnRegion, RegionSettings, path};
use crate::http::push;
use crate::identity::IssuerSettings;
use crate::model::address::is_loopback;
use crate::model::time::Span;
use crate::policy::PolicySettings;
use crate::uploads::SweepSettings;
use crate::{server, storage, store};

/// The longest time that an operation on storage may be given: a request under way when the process is told to end must
/// be answered before it is killed, and storage is only a part of what it waits for.
pub(crate) const LONGEST_TIMEOUT: Span = Span::seconds(15);

/// What is wrong, each with the path of its key.
#[derive(Default)]
pub(super) struct Complaints(Vec<(String, String)>);

impl Complaints {
    pub(super) fn into_list(self) -> Vec<(String, String)> {
        self.0
    }

    fn add(&mut self, path: String, reason: impl Into<String>) {
        self.0.push((path, reason.into()));
    }

    pub(super) fn server(&mut self, settings: &server::Settings) {
        if settings.listen == settings.admin_listen && settings.listen.port() != 0 {
            self.add("server.admin_listen".to_owned(), "must differ from server.listen");
        }
        self.public_address("server.public_url", &settings.public_url);
        for (index, origin) in settings.allowed_origins.iter().enumerate() {
            if let Some(reason) = wrong_with_origin(origin) {
                self.add(format!("server.allowed_origins[{index}]"), reason);
            }
        }
    }

    pub(super) fn store(&mut self, settings: &store::Settings) {
        if let Some(reason) = wrong_with_store(&settings.url) {
            self.add("store.url".to_owned(), reason);
        }
        let prefix = &settings.key_prefix;
        // Redis Cluster takes what stands in braces for the hash tag, which is ours to choose.
        if !(1..=64).contains(&prefix.len())
            || !prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'))
        {
            let reason = "must be 1 to 64 printable ASCII characters without spaces and braces";
            self.add("store.key_prefix".to_owned(), reason);
        }
        if settings.encryption_keys.is_empty() && settings.url != "memory" {
            let reason = "missing: at least one key is needed, unless store.url is \"memory\"";
            self.add("store.encryption_keys".to_owned(), reason);
        }
        if let Some(tls) = &settings.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            self.add("store.tls".to_owned(), "certificate and key go together");
        }
        let mut seen = BTreeSet::new();
        for (index, key) in settings.encryption_keys.iter().enumerate() {
            let path = format!("store.encryption_keys[{index}].id");
            let in_alphabet = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
            if !(1..=8).contains(&key.id.len()) || !key.id.bytes().all(in_alphabet) {
                self.add(path, "must be 1 to 8 characters of a to z, 0 to 9, \"-\" and \"_\"");
            } else if !seen.insert(&key.id) {
                self.add(path, format!("{:?} is the id of an earlier key", key.id));
            }
        }
    }

    pub(super) fn storage(&mut self, settings: &storage::Settings) {
        if settings.timeout.0.is_zero() || settings.timeout > LONGEST_TIMEOUT {
            let reason = format!(
                "must be more than 0s, and at most {LONGEST_TIMEOUT}: a request has to be answered before a process that ends is killed"
            );
            self.add("storage.timeout".to_owned(), reason);
        }
        let endpoint = settings.endpoint.as_url();
        if endpoint.query().is_some() || endpoint.fragment().is_some() {
            self.add("storage.endpoint".to_owned(), "must not have a query or fragment");
        }
    }

    pub(super) fn issuers(&mut self, issuers: &[IssuerSettings]) {
        self.duplicates("issuers", "issuer", issuers.iter().map(|issuer| issuer.issuer.as_str()));
    }

    pub(super) fn regions(&mut self, regions: &[RegionSettings], own: Option<&OwnRegion>) {
        self.duplicates("regions", "name", regions.iter().map(|region| region.name.as_str()));
        for (index, region) in regions.iter().enumerate() {
            self.public_address(&path("regions", Some(index), "url"), &region.url);
        }
        self.places(regions);
        if let Some(OwnRegion::Named(own)) = own
            && !regions.iter().any(|region| region.name == *own)
        {
            self.add("region".to_owned(), format!("\"{}\" is not the name of any [[regions]] section", own.as_str()));
        }
    }

    /// What routing needs of each region, where there are several to choose from.
    fn places(&mut self, regions: &[RegionSettings]) {
        let mut claimed = BTreeSet::new();
        for (index, region) in regions.iter().enumerate() {
            if regions.len() > 1 && region.coordinates().is_none() {
                let reason = format!(
                    "missing: \"{}\" is no region of Cloud Storage, so nobody knows where it is; \
                     say so with location = [latitude, longitude]",
                    region.name.as_str()
                );
                self.add(path("regions", Some(index), "location"), reason);
            }
            for (position, country) in region.countries.iter().enumerate() {
                if !claimed.insert(*country) {
                    let reason = format!("\"{country}\" is claimed already: clients of a country come to one region");
                    self.add(path("regions", Some(index), &format!("countries[{position}]")), reason);
                }
            }
        }
    }

    pub(super) fn policies(&mut self, policies: &[PolicySettings], regions: Option<&[RegionSettings]>) {
        self.duplicates("policies", "name", policies.iter().map(|policy| policy.name.as_str()));
        for (index, policy) in policies.iter().enumerate() {
            let Some(wanted) = &policy.regions else { continue };
            if wanted.is_empty() {
                let reason = "an empty list admits no region: leave the key out to admit all";
                self.add(path("policies", Some(index), "regions"), reason);
            }
            // Without the regions, no name can be said to be wrong.
            let Some(regions) = regions else { continue };
            for (position, name) in wanted.iter().enumerate() {
                if !regions.iter().any(|region| region.name == *name) {
                    let reason = format!("\"{}\" is not the name of any [[regions]] section", name.as_str());
                    self.add(path("policies", Some(index), &format!("regions[{position}]")), reason);
                }
            }
        }
    }

    pub(super) fn sweeper(&mut self, settings: &SweepSettings) {
        if !(Duration::from_secs(60)..=Duration::from_secs(86_400)).contains(&settings.idle_after.0) {
            self.add("sweeper.idle_after".to_owned(), "must be 1m to 24h: each look is a request to storage");
        }
    }

    pub(super) fn notifications(&mut self, settings: &push::Settings) {
        if settings.subscriptions.as_ref().is_some_and(Vec::is_empty) {
            let reason = "an empty list accepts no subscription: leave the key out to accept any";
            self.add("notifications.subscriptions".to_owned(), reason);
        }
    }

    fn duplicates<'a>(&mut self, section: &str, key: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.enumerate() {
            if !seen.insert(name) {
                let reason = format!("{name:?} stands in an earlier [[{section}]] section already");
                self.add(path(section, Some(index), key), reason);
            }
        }
    }

    /// An address that clients are given: session URIs travel over it.
    fn public_address(&mut self, path: &str, url: &Url) {
        let reason = if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(url)) {
            "must be https; plain http is accepted for loopback addresses only"
        } else if !url.username().is_empty() || url.password().is_some() {
            "must not hold a user name or password"
        } else if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            "must be scheme, host and port only: the broker is served at the root"
        } else {
            return;
        };
        self.add(path.to_owned(), reason);
    }
}

/// What is wrong with a web origin: it must be letter for letter what browsers send (RFC 6454, section 6.1).
fn wrong_with_origin(text: &str) -> Option<String> {
    let form = "must be an origin such as \"https://app.example.com\": scheme, host and perhaps a port";
    let Ok(url) = Url::parse(text) else { return Some(form.to_owned()) };
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        return Some("must be https; plain http is accepted for loopback addresses only".to_owned());
    }
    // Also with a wildcard, which the comparison with what browsers send would never match.
    let origin = url.origin().ascii_serialization();
    if text.contains('*') || !url.username().is_empty() || url.password().is_some() {
        Some(form.to_owned())
    } else if origin == text {
        None
    } else {
        Some(format!("must be written as browsers send it: {origin:?}"))
    }
}

/// What is wrong with the store's address. Never repeats it: it may hold a password.
fn wrong_with_store(text: &str) -> Option<&'static str> {
    if text == "memory" {
        return None;
    }
    // Several hosts do not make an address that other programs would know.
    let is_of_hosts = ["redis+sentinel:", "rediss+sentinel:", "redis+cluster:", "rediss+cluster:"];
    if is_of_hosts.iter().any(|scheme| text.starts_with(scheme)) {
        return store::wrong_with_hosts(text);
    }
    let Ok(url) = Url::parse(text) else {
        return Some("must be \"memory\", or an address such as \"redis://127.0.0.1:6379\"");
    };
    match url.scheme() {
        "redis" | "rediss" if url.host_str().is_some_and(|host| !host.is_empty()) => None,
        "redis" | "rediss" => Some("names no host"),
        "redis+unix" if url.path().len() > 1 => None,
        "redis+unix" => Some("names no socket"),
        _ => Some(
            "must be \"memory\", or begin with redis://, redis+sentinel:// or redis+cluster:// (with TLS: rediss…), or \
             redis+unix://",
        ),
    }
}
