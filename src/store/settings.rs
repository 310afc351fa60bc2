//! The `[store]` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[store]` section: where uploads are tracked, and what their secrets are sealed with.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `redis://…`, `redis+sentinel://…`, `redis+cluster://…`, each with TLS as `rediss…`; `redis+unix://…`, or `memory`.
    /// May hold a password: never printed.
    pub url: String,
    /// Whom `rediss…` trusts, and who we are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// The top level's `trusted_ca`, which the configuration hands down.
    #[serde(skip)]
    pub trusted_ca: Option<PathBuf>,
    /// What every key begins with, so that several deployments can share a server.
    #[serde(default = "default_key_prefix")]
    pub key_prefix: String,
    /// The keys that session URIs are sealed with: the first seals, all open. Needed for Redis.
    #[serde(default)]
    pub encryption_keys: Vec<EncryptionKeySettings>,
}

/// `store.tls`: files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The only authorities to be trusted; left out, those of the system and of `trusted_ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate chain that the broker shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// One of `store.encryption_keys`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKeySettings {
    /// Names the key in what it sealed: 1 to 8 characters of `a–z`, `0–9`, `-` and `_`.
    pub id: String,
    /// A file that holds 32 bytes in standard base64.
    pub file: PathBuf,
}

fn default_key_prefix() -> String {
    "upload-broker".to_owned()
}

/// Shows everything but the address, which may hold a password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("tls", &self.tls)
            .field("trusted_ca", &self.trusted_ca)
            .field("key_prefix", &self.key_prefix)
            .field("encryption_keys", &self.encryption_keys)
            .finish_non_exhaustive()
    }
}
