//! The `[server]` section.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

/// The `[server]` section: where clients reach the broker, and whom it believes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The public listener.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The listener for probes and metrics; not to be public.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// What clients call this broker.
    pub public_url: Url,
    /// The certificate; left out, a trusted proxy ends TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// The networks of the proxies whose word on their clients is believed: `x-forwarded-proto`, `x-forwarded-for`, and
    /// where they are.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// The web origins that may use the broker, exactly as browsers send them.
    #[serde(default)]
    pub allowed_origins: Vec<String>,
}

/// `server.tls`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate chain, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8443))
}

fn default_admin_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9090))
}
