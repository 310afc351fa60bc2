//! What is different between two configurations, key by key, and what of it a process that runs can take.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Config, ConfigError};

/// The keys and sections that a running process takes. Whatever is not among them needs a restart, new keys included.
///
/// `server.public_url` is only for people and other regions; the rest is read for each request, event or round.
const RELOADED: [&str; 11] = [
    "server.public_url",
    "server.trusted_proxies",
    "server.allowed_origins",
    "store.encryption_keys",
    "issuers",
    "regions",
    "routing",
    "policies",
    "notifications",
    "sweeper",
    "webhooks",
];

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The section, or the key of the top level.
    section: &'static str,
    /// The key in it; `None` where the section is read as a whole.
    key: Option<String>,
}

impl Change {
    /// Whether a process that runs cannot take it.
    pub fn needs_restart(&self) -> bool {
        !RELOADED.contains(&self.to_string().as_str())
    }
}

/// `policies`, or `server.listen`.
impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.section)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, ".{key}"))
    }
}

impl Config {
    /// What differs in `other`. Values count, and not how or where they are written.
    pub fn changes(&self, other: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for ((section, before), (_, after)) in self.plain().into_iter().zip(other.plain()) {
            match (before, after) {
                (before, after) if before == after => {}
                // These have parts that can be taken, and others that cannot.
                (Value::Object(before), Value::Object(after)) if matches!(section, "server" | "store" | "storage") => {
                    changes.extend(differing(&before, &after).map(|key| Change { section, key: Some(key) }));
                }
                _ => changes.push(Change { section, key: None }),
            }
        }
        changes
    }

    /// A change of this configuration that needs a restart, as an error at the place where it is written.
    pub fn needs_restart(&self, change: &Change) -> ConfigError {
        let key = change.key.as_deref().unwrap_or_default();
        self.error(change.section, None, key, "has changed, which needs a restart; nothing of the file is applied")
    }

    /// The files whose content is a part of the configuration, each with the key or section that names it: what a process
    /// that runs reads again, but for the certificate.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let keys = self.store.encryption_keys.iter().map(|key| ("store.encryption_keys", &key.file));
        let issuers = self.issuers.iter().filter_map(|issuer| Some(("issuers", issuer.jwks_file.as_ref()?)));
        let pushes = self.notifications.iter().filter_map(|push| Some(("notifications", push.jwks_file.as_ref()?)));
        let secrets = self.webhooks.iter().map(|endpoint| ("webhooks", &endpoint.secret_file));
        keys.chain(issuers).chain(pushes).chain(secrets).map(|(key, file)| (key, file.clone()))
    }

    /// Every section by its name, as plain values.
    fn plain(&self) -> [(&'static str, Value); 13] {
        // By name, so that a section that is added cannot be forgotten here.
        let Self {
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
            origins: _,
        } = self;
        [
            ("region", plain(&region.as_str())),
            ("trusted_ca", plain(trusted_ca)),
            ("server", plain(server)),
            ("store", plain(store)),
            ("storage", plain(storage)),
            ("issuers", plain(issuers)),
            ("regions", plain(regions)),
            ("routing", plain(routing)),
            ("policies", plain(policies)),
            ("notifications", plain(notifications)),
            ("sweeper", plain(sweeper)),
            ("webhooks", plain(webhooks)),
            ("telemetry", plain(telemetry)),
        ]
    }
}

/// Values of a configuration came from TOML, so they can be written.
fn plain(section: &impl Serialize) -> Value {
    serde_json::to_value(section).unwrap_or_default()
}

/// The keys that one of them has otherwise than the other, or alone.
fn differing(before: &Map<String, Value>, after: &Map<String, Value>) -> impl Iterator<Item = String> {
    let changed = before.iter().filter(|(key, value)| after.get(*key) != Some(value)).map(|(key, _)| key);
    let added = after.keys().filter(|key| !before.contains_key(*key));
    changed.chain(added).cloned().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every section that a change can be made in.
    const TEXT: &str = r#"
region = "eu"
[server]
public_url = "https://eu.example.com"
tls = { certificate = "tls.crt", key = "tls.key" }
[store]
url = "redis://127.0.0.1"
encryption_keys = [{ id = "k1", file = "k1.key" }]
[storage]
timeout = "10s"
[[issuers]]
issuer = "https://a.example"
audiences = ["a"]
jwks_file = "a.json"
[[regions]]
name = "eu"
bucket = "media-eu"
location = [50.4, 3.8]
url = "https://eu.example.com"
[[regions]]
name = "us"
bucket = "media-us"
location = [41.3, -95.9]
url = "https://us.example.com"
[[policies]]
name = "videos"
object = "{id}"
[notifications]
audience = "a"
service_account = "a@b.example"
jwks_file = "push.json"
[sweeper]
idle_after = "15m"
[routing]
[telemetry]
[[webhooks]]
url = "https://b.example.com"
secret_file = "b.secret"
"#;

    fn config(text: &str) -> Config {
        crate::config::load(text, std::path::Path::new("/etc/broker/broker.toml"), std::iter::empty()).unwrap()
    }

    #[test]
    fn each_change_is_named_and_known_to_need_a_restart_or_not() {
        let before = config(TEXT);
        let insert = |section: &str, line: &str| TEXT.replace(section, &format!("{section}\n{line}"));
        for (name, after, expected, restart) in [
            ("another region", TEXT.replace("region = \"eu\"", "region = \"us\""), "region", true),
            ("roots", insert("region = \"eu\"", "trusted_ca = \"ca.pem\""), "trusted_ca", true),
            ("an address", insert("[server]", "listen = \"0.0.0.0:1\""), "server.listen", true),
            ("TLS", TEXT.replace("tls.crt", "new.crt"), "server.tls", true),
            (
                "origins",
                insert("[server]", "allowed_origins = [\"https://a.example\"]"),
                "server.allowed_origins",
                false,
            ),
            ("proxies", insert("[server]", "trusted_proxies = [\"10.0.0.0/8\"]"), "server.trusted_proxies", false),
            ("a store", TEXT.replace("127.0.0.1", "127.0.0.2"), "store.url", true),
            ("a key", TEXT.replace("k1.key", "k2.key"), "store.encryption_keys", false),
            ("patience", TEXT.replace("\"10s\"", "\"5s\""), "storage.timeout", true),
            ("an issuer", TEXT.replace("[\"a\"]", "[\"b\"]"), "issuers", false),
            ("a bucket", TEXT.replace("media-us", "media-other"), "regions", false),
            ("a place", TEXT.replace("media-us\"", "media-us\"\ncountries = [\"CA\"]"), "regions", false),
            ("a header", insert("[routing]", "geo_header = \"x-geo\""), "routing", false),
            ("a collector", insert("[telemetry]", "otlp_endpoint = \"http://collector:4318\""), "telemetry", true),
            ("a policy", insert("[[policies]]", "max_active = 1"), "policies", false),
            ("pushes", TEXT.replace("a@b.example", "b@b.example"), "notifications", false),
            ("a pause", TEXT.replace("15m", "20m"), "sweeper", false),
            ("an endpoint", TEXT.replace("b.secret", "c.secret"), "webhooks", false),
        ] {
            let after = config(&after);
            let changes = before.changes(&after);
            assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{name}");
            assert_eq!(changes[0].needs_restart(), restart, "{name}");
            assert_eq!(after.changes(&before).len(), 1, "{name}, the other way");
        }
    }

    #[test]
    fn what_is_only_written_otherwise_is_no_change() {
        let spelled =
            TEXT.replace("\"10s\"", "\"10000ms\" # the default").replace("[sweeper]\nidle_after = \"15m\"\n", "");
        assert_eq!(config(TEXT).changes(&config(&spelled)), []);
    }

    #[test]
    fn a_change_that_needs_a_restart_is_told_with_its_line() {
        let after = config(&TEXT.replace("127.0.0.1", "127.0.0.2"));
        let told = after.needs_restart(&config(TEXT).changes(&after)[0]).to_string();
        assert_eq!(
            told,
            "/etc/broker/broker.toml:7:1: store.url: has changed, which needs a restart; nothing of the file is applied"
        );
    }

    #[test]
    fn the_files_that_are_read_again_are_those_with_keys_and_secrets() {
        let files: Vec<_> = config(TEXT).files().map(|(key, file)| format!("{key} {}", file.display())).collect();
        let expected = [
            "store.encryption_keys /etc/broker/k1.key",
            "issuers /etc/broker/a.json",
            "notifications /etc/broker/push.json",
            "webhooks /etc/broker/b.secret",
        ];
        assert_eq!(files, expected);
    }
}
