//! The example file, held to the code.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

const EXAMPLE: &str = include_str!("../../../upload-broker.example.toml");

/// The example with its optional keys and sections in force.
fn whole_example() -> String {
    let in_force = |line: &'static str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => key,
        _ => line,
    };
    EXAMPLE.lines().map(in_force).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_loads_with_and_without_its_optional_keys() {
    let config = load(EXAMPLE, file(), []).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.server.tls.is_none() && config.notifications.is_none());
    let config = load(&whole_example(), file(), []).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.server.tls.is_some() && config.notifications.is_some());
}

/// Holds one section of the example to its type: all keys are there, and those in force are needed or have their
/// default.
fn section_is_complete<T: Serialize + DeserializeOwned>(path: &str, plain: &toml::Table, whole: &toml::Table) {
    let find = |table: &toml::Table| -> toml::Table {
        let found = path.split('.').fold(toml::Value::Table(table.clone()), |value, key| match &value[key] {
            toml::Value::Array(values) => values[0].clone(),
            value => value.clone(),
        });
        found.as_table().unwrap().clone()
    };
    // The type names its keys when it refuses one.
    let probe = toml::Table::from_iter([("no such key".to_owned(), toml::Value::Boolean(true))]);
    let refusal = T::deserialize(probe).err().unwrap().message().to_owned();
    let keys: BTreeSet<_> = refusal.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(!keys.is_empty(), "{refusal}");
    let shown: BTreeSet<_> = find(whole).keys().cloned().collect();
    assert_eq!(shown, keys, "the keys of {path}");

    let section = find(plain);
    for (key, value) in &section {
        let mut without = section.clone();
        without.remove(key);
        if let Ok(read) = T::deserialize(without) {
            let defaults = toml::Table::try_from(read).unwrap();
            let given = toml::Table::try_from(T::deserialize(section.clone()).unwrap()).unwrap();
            let default = defaults.get(key).unwrap_or_else(|| panic!("{path}.{key} has no default: comment it out"));
            if key != "encryption_keys" {
                assert_eq!(default, &given[key], "{path}.{key} is {value}, which is not the default");
            }
        }
    }
}

#[test]
fn the_example_has_every_key_with_its_true_default() {
    let (plain, whole): (toml::Table, toml::Table) = (EXAMPLE.parse().unwrap(), whole_example().parse().unwrap());
    let sections: BTreeSet<_> = whole.keys().map(String::as_str).collect();
    assert_eq!(sections, read::TOP_LEVEL.into_iter().collect());
    section_is_complete::<server::Settings>("server", &plain, &whole);
    section_is_complete::<server::TlsSettings>("server.tls", &whole, &whole);
    section_is_complete::<store::Settings>("store", &plain, &whole);
    // Its line as a whole is optional, and each key in it.
    section_is_complete::<store::TlsSettings>("store.tls", &"store.tls = {}".parse().unwrap(), &whole);
    section_is_complete::<store::EncryptionKeySettings>("store.encryption_keys", &plain, &whole);
    section_is_complete::<storage::Settings>("storage", &plain, &whole);
    section_is_complete::<IssuerSettings>("issuers", &plain, &whole);
    section_is_complete::<RegionSettings>("regions", &plain, &whole);
    section_is_complete::<RoutingSettings>("routing", &plain, &whole);
    section_is_complete::<PolicySettings>("policies", &plain, &whole);
    section_is_complete::<SweepSettings>("sweeper", &plain, &whole);
    section_is_complete::<TelemetrySettings>("telemetry", &plain, &whole);
    let mut in_force = whole.clone();
    in_force["webhooks"][0].as_table_mut().unwrap().remove("name");
    section_is_complete::<WebhookSettings>("webhooks", &in_force, &whole);
    // Optional as a whole, and these keys in it.
    let mut in_force = whole.clone();
    let optional = ["jwks_url", "jwks_file", "subscriptions"];
    in_force["notifications"].as_table_mut().unwrap().retain(|key, _| !optional.contains(&key));
    section_is_complete::<push::Settings>("notifications", &in_force, &whole);
}
