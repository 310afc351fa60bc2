//! From the document to the types of the sections.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::document::{self, Origins, is_at_or_below};
use super::environment::{self, Placed, Variable};
use super::error::{ConfigError, Errors, Location};
use super::{Config, MAX_BYTES, OwnRegion, check};
use crate::geo::RoutingSettings;
use crate::http::push;
use crate::storage::Credentials;
use crate::telemetry::TelemetrySettings;
use crate::uploads::SweepSettings;
use crate::{server, storage, store};

/// The keys and sections of the top level.
pub(super) const TOP_LEVEL: [&str; 13] = [
    "region",
    "trusted_ca",
    "server",
    "store",
    "storage",
    "issuers",
    "regions",
    "routing",
    "policies",
    "notifications",
    "sweeper",
    "webhooks",
    "telemetry",
];

/// Reads everything, and gives all mistakes together.
pub(super) fn read(
    text: &str,
    file: &Path,
    directory: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Errors> {
    if text.len() > MAX_BYTES {
        return Err(ConfigError::new(Location::File(file.to_owned()), "", "is larger than 1 MiB").into());
    }
    let (table, origins) = document::parse(text, file)?;
    let mut reader = Reader::new(table, origins);
    reader.overlay(environment);
    reader.refuse_unknown(&TOP_LEVEL);

    let region = reader.region();
    let trusted_ca = reader.optional::<PathBuf>("trusted_ca");
    let server = reader.section::<server::Settings>("server");
    let store = reader.section::<store::Settings>("store");
    let storage = reader.optional::<storage::Settings>("storage");
    let issuers = reader.sections("issuers");
    let regions = reader.sections("regions");
    let routing = reader.optional::<RoutingSettings>("routing").unwrap_or_default();
    let policies = reader.sections("policies");
    let sweeper = reader.optional::<SweepSettings>("sweeper");
    let webhooks = if reader.table.contains_key("webhooks") { reader.sections("webhooks") } else { Some(Vec::new()) };
    let notifications = reader.optional::<push::Settings>("notifications");
    let telemetry = reader.optional::<TelemetrySettings>("telemetry").unwrap_or_default();

    // What could be read is checked even if something else could not.
    let mut complaints = check::Complaints::default();
    if let Some(server) = &server {
        complaints.server(server);
    }
    if let Some(store) = &store {
        complaints.store(store);
    }
    if let Some(storage) = &storage {
        complaints.storage(storage);
    }
    if let Some(issuers) = &issuers {
        complaints.issuers(issuers);
    }
    if let Some(regions) = &regions {
        complaints.regions(regions, region.as_ref());
    }
    if let Some(sweeper) = &sweeper {
        complaints.sweeper(sweeper);
    }
    if let Some(policies) = &policies {
        complaints.policies(policies, regions.as_deref());
    }
    if let Some(notifications) = &notifications {
        complaints.notifications(notifications);
    }
    for (path, reason) in complaints.into_list() {
        reader.fail(&path, reason);
    }

    let (Some(region), Some(server), Some(store)) = (region, server, store) else { return Err(reader.errors.into()) };
    let (Some(issuers), Some(regions), Some(policies), Some(webhooks)) = (issuers, regions, policies, webhooks) else {
        return Err(reader.errors.into());
    };
    if !reader.errors.is_empty() {
        return Err(reader.errors.into());
    }
    let (storage, sweeper) = (storage.unwrap_or_default(), sweeper.unwrap_or_default());
    let origins = reader.origins;
    let mut config = Config {
        region,
        trusted_ca,
        server,
        store,
        storage,
        issuers,
        regions,
        routing,
        policies,
        notifications,
        sweeper,
        webhooks,
        telemetry,
        origins,
    };
    make_absolute(&mut config, directory);
    Ok(config)
}

/// Makes relative paths relative to the file's directory, wherever the process was started.
fn make_absolute(config: &mut Config, directory: &Path) {
    let tls = config.server.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
    let keys = config.store.encryption_keys.iter_mut().map(|key| &mut key.file);
    let of_issuers = config.issuers.iter_mut().map(|issuer| &mut issuer.jwks_file);
    let key_sets = of_issuers.chain(config.notifications.iter_mut().map(|push| &mut push.jwks_file)).flatten();
    let credentials = match &mut config.storage.credentials {
        Credentials::Auto => None,
        Credentials::File { file } => Some(file),
    };
    let store_tls = config.store.tls.iter_mut().flat_map(|tls| [&mut tls.ca, &mut tls.certificate, &mut tls.key]);
    let store_tls = store_tls.flatten();
    let secrets = config.webhooks.iter_mut().map(|endpoint| &mut endpoint.secret_file);
    let of_store = keys.chain(store_tls);
    let others = key_sets.chain(credentials).chain(secrets).chain(&mut config.trusted_ca);
    let others = others.chain(&mut config.routing.geoip_database);
    for path in tls.chain(of_store).chain(others) {
        *path = directory.join(&*path);
    }
    config.store.trusted_ca.clone_from(&config.trusted_ca);
}

/// The document on its way to the types, and the mistakes found so far.
pub(super) struct Reader {
    table: Table,
    pub(super) origins: Origins,
    variables: Vec<Variable>,
    pub(super) errors: Vec<ConfigError>,
}

impl Reader {
    pub(super) fn new(table: Table, origins: Origins) -> Self {
        Self { table, origins, variables: Vec::new(), errors: Vec::new() }
    }

    fn fail(&mut self, path: &str, reason: impl Into<String>) {
        self.errors.push(ConfigError::new(self.origins.locate(path), path, reason));
    }

    fn overlay(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let fail = |name: &str, reason: &str| ConfigError::new(Location::Variable(name.into()), "", reason);
        for (name, text) in environment {
            match environment::variable(&name, text) {
                Ok(variable) => self.variables.extend(variable),
                Err(reason) => self.errors.push(fail(&name, reason)),
            }
        }
        let misplaced = environment::apply(&mut self.variables, &mut self.table, &mut self.origins);
        self.errors.extend(misplaced.iter().map(|(name, reason)| fail(name, reason)));
    }

    pub(super) fn refuse_unknown(&mut self, known: &[&str]) {
        let unknown: Vec<_> = self.table.keys().filter(|key| !known.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            self.fail(&key, format!("unknown key, expected one of {}", known.join(", ")));
        }
    }

    fn region(&mut self) -> Option<OwnRegion> {
        match self.table.get("region") {
            None => {
                self.fail("region", "missing: the name of one of the [[regions]], or \"auto\"");
                None
            }
            Some(Value::String(text)) if text == OwnRegion::OfMachine.as_str() => Some(OwnRegion::OfMachine),
            Some(_) => self.optional("region").map(OwnRegion::Named),
        }
    }

    /// A section that has keys without a default.
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if !self.table.contains_key(name) {
            self.fail(name, format!("missing: a [{name}] section is needed"));
        }
        self.optional(name)
    }

    /// The sections of an array, of which at least one is needed. `None` if any is wrong.
    pub(super) fn sections<T: DeserializeOwned>(&mut self, name: &str) -> Option<Vec<T>> {
        let count = match self.table.get(name) {
            None => 0,
            Some(Value::Array(values)) => values.len(),
            Some(_) => {
                self.fail(name, format!("must be sections, each headed [[{name}]]"));
                return None;
            }
        };
        if count == 0 {
            self.fail(name, format!("missing: at least one [[{name}]] section is needed"));
            return None;
        }
        let sections: Vec<_> = (0..count).map(|index| self.value(name, Some(index))).collect();
        sections.into_iter().collect()
    }

    fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if self.table.contains_key(name) { self.value(name, None) } else { None }
    }

    /// The value as its type, or `None` after noting what is wrong with it.
    fn value<T: DeserializeOwned>(&mut self, name: &str, index: Option<usize>) -> Option<T> {
        let root = super::path(name, index, "");
        loop {
            let value = self.table.get(name)?;
            let value = index.map_or(Some(value), |index| value.get(index))?.clone();
            let error = match serde_path_to_error::deserialize::<_, T>(value) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let inner = error.path().to_string();
            let mut path =
                if matches!(inner.as_str(), "." | "?") { root.clone() } else { super::path(name, index, &inner) };
            let mut reason = explain(error.inner().message());
            // They are sorted, so the last one that fits is the innermost.
            if let Some(variable) = self.variables.iter_mut().rfind(|variable| is_at_or_below(&path, &variable.path)) {
                match &variable.placed {
                    Placed::Toml => {
                        variable.fall_back(path, reason, &mut self.table, &mut self.origins);
                        continue;
                    }
                    // The first reason speaks of what the operator meant.
                    Placed::TextAfter { path: first, reason: why } => {
                        path.clone_from(first);
                        reason.clone_from(why);
                    }
                    Placed::Text => {}
                }
            }
            self.fail(&path, reason);
            return None;
        }
    }
}

/// The reason in terms of TOML, and without the value: a password may have been put where something else belongs.
fn explain(message: &str) -> String {
    let message = message.trim_end();
    if let Some(mismatch) = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))
        && let Some((found, expected)) = mismatch.rsplit_once(", expected ")
    {
        let found = match found.split([' ', '`', '"']).next() {
            Some("string") => "text",
            Some("integer") => "an integer",
            Some("floating") => "a fraction",
            Some("boolean") => "true or false",
            Some("sequence") => "an array",
            Some("map") => "a table",
            _ => "something else",
        };
        let expected = match expected {
            "a string" => "text",
            "a boolean" => "true or false",
            "a sequence" => "an array",
            "a map" => "a table",
            _ if expected.starts_with("struct ") => "a table",
            other => other,
        };
        return format!("expected {expected}, found {found}");
    }
    message.replace("unknown field", "unknown key").replace("missing field", "missing key")
}
