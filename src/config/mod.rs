//! The configuration: one TOML file, with the environment over it.
//!
//! The module exists so that a mistake is told with its file, line and key, all mistakes at once, before anything is
//! started. Each section is the `Settings` type of the module that it sets; this module composes them, and checks what
//! no single section can know.
//!
//! The data structure is the document as plain TOML values, beside a map from each key's path to where it was written:
//! a line of the file, or a variable of the environment. Every later complaint about a key finds its place there, also
//! one of another module, by [`Config::locate`].

pub(crate) mod check;
mod compare;
mod document;
mod environment;
mod error;
mod read;
mod remarks;
mod sections;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

pub use compare::Change;
pub use error::{ConfigError, Errors, Location};
pub use sections::Sections;

use crate::geo::{Coordinates, Country, RoutingSettings, regions};
use crate::http::push;
use crate::identity::IssuerSettings;
use crate::model::name::{BucketName, RegionName};
use crate::policy::PolicySettings;
use crate::telemetry::TelemetrySettings;
use crate::uploads::SweepSettings;
use crate::webhooks::WebhookSettings;
use crate::{server, storage, store};
use document::Origins;

/// What begins the name of every variable that is part of the configuration.
pub const PREFIX: &str = "UPLOAD_BROKER_";

/// A larger file is refused: it is something else.
const MAX_BYTES: usize = 1024 * 1024;

/// The whole configuration, checked, with absolute paths.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region that this broker serves; if it is named, one of `regions`.
    pub region: OwnRegion,
    /// Certificates that outgoing TLS trusts besides the system's.
    pub trusted_ca: Option<PathBuf>,
    /// The `[server]` section.
    pub server: server::Settings,
    /// The `[store]` section.
    pub store: store::Settings,
    /// The `[storage]` section.
    pub storage: storage::Settings,
    /// The `[[issuers]]` sections, at least one.
    pub issuers: Vec<IssuerSettings>,
    /// The `[[regions]]` sections, at least one.
    pub regions: Vec<RegionSettings>,
    /// The `[routing]` section.
    pub routing: RoutingSettings,
    /// The `[[policies]]` sections, at least one.
    pub policies: Vec<PolicySettings>,
    /// The `[notifications]` section; without it nobody may push.
    pub notifications: Option<push::Settings>,
    /// The `[sweeper]` section.
    pub sweeper: SweepSettings,
    /// The `[[webhooks]]` sections.
    pub webhooks: Vec<WebhookSettings>,
    /// The `[telemetry]` section.
    pub telemetry: TelemetrySettings,
    origins: Origins,
}

/// The region that a broker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnRegion {
    /// This one.
    Named(RegionName),
    /// The one that the machine is in: `"auto"`. Its metadata server is asked at the start.
    OfMachine,
}

impl OwnRegion {
    /// How it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Named(name) => name.as_str(),
            Self::OfMachine => "auto",
        }
    }
}

/// One `[[regions]]` section: a deployment of the broker, and its bucket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSettings {
    /// What the region is called.
    pub name: RegionName,
    /// The bucket that its uploads go to. Regions may share one that spans them.
    pub bucket: BucketName,
    /// Where clients reach its broker.
    pub url: Url,
    /// Where it is; Google's own regions are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Coordinates>,
    /// The countries whose clients always come here.
    #[serde(default)]
    pub countries: Vec<Country>,
}

/// Reads the configuration in `text`, with `environment` over it. Pure: neither files nor the process are looked at.
///
/// `file` names the text in errors, and relative paths are relative to its directory.
///
/// A variable `UPLOAD_BROKER_<SECTION>__<KEY>` replaces that key, whether the file has it or not. The name is taken
/// in lower case, with two underscores between the levels, and a number counts the entries of an array from 0; the one
/// behind the last adds to it: `UPLOAD_BROKER_REGION`, `UPLOAD_BROKER_SERVER__TLS__KEY`,
/// `UPLOAD_BROKER_ISSUERS__0__AUDIENCES`. The value is read as TOML where that gives a number, a boolean, a date, an
/// array or an inline table that the key takes (`true`, `["a", "b"]`), and otherwise is the text itself, which needs no
/// quotes. Variables that Kubernetes sets for services called `upload-broker…` are passed over; every other name with
/// the prefix must be a key.
///
/// # Errors
/// All mistakes that can be found at once.
pub fn load(
    text: &str,
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Errors> {
    read::read(text, file, file.parent().unwrap_or(Path::new("")), environment)
}

/// Reads the configuration file, with the environment of the process over it. Blocks for one small read.
///
/// # Errors
/// As [`load`], and when the file cannot be read.
pub fn load_file(path: &Path) -> Result<Config, Errors> {
    let unreadable = |reason: String| Errors::from(ConfigError::new(Location::File(path.to_owned()), "", reason));
    let mut text = String::new();
    // One byte more than allowed is read, so that `read` sees that it is too large.
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let absolute = std::path::absolute(path).map_err(|error| unreadable(format!("cannot be found: {error}")))?;
    let mut environment = Vec::new();
    let mut errors = Vec::new();
    // Not `vars`, which panics at a value that is no text, even one that is none of ours.
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned) else { continue };
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) => errors.push(ConfigError::new(Location::Variable(name.into()), "", "is not UTF-8")),
        }
    }
    if !errors.is_empty() {
        return Err(Errors::from(errors));
    }
    read::read(&text, path, absolute.parent().unwrap_or(Path::new("/")), environment)
}

/// Where this process says that storage's credentials are.
pub fn storage_environment() -> storage::Environment {
    // Set to nothing is as good as not set, as in Google's own libraries.
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let text = |name| set(name).map(|value| value.to_string_lossy().into_owned());
    storage::Environment {
        google_application_credentials: set("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
        cloudsdk_config: set("CLOUDSDK_CONFIG").map(PathBuf::from),
        home: set("HOME").map(PathBuf::from),
        gce_metadata_host: text("GCE_METADATA_HOST"),
        iam_credentials: text("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS"),
    }
}

impl Config {
    /// Where the key was written, or the section if the key was not: for what another module finds wrong with it.
    ///
    /// `section` is `server` or `issuers`, `index` counts the sections of an array from 0, and `key` is `tls.key` or
    /// `audiences[1]`, or empty for the section itself.
    pub fn locate(&self, section: &str, index: Option<usize>, key: &str) -> Location {
        self.origins.locate(&path(section, index, key))
    }

    /// What another module finds wrong with a key, as an error of this configuration.
    pub fn error(&self, section: &str, index: Option<usize>, key: &str, reason: impl Into<String>) -> ConfigError {
        let path = path(section, index, key);
        ConfigError::new(self.origins.locate(&path), path, reason)
    }

    /// The section of this broker's own region, if that is named.
    pub fn own_region(&self) -> Option<&RegionSettings> {
        match &self.region {
            OwnRegion::Named(name) => self.region_named(name),
            OwnRegion::OfMachine => None,
        }
    }

    /// The section of the region of that name.
    pub fn region_named(&self, name: &RegionName) -> Option<&RegionSettings> {
        self.regions.iter().find(|region| region.name == *name)
    }
}

impl RegionSettings {
    /// Where the region is, if that is configured or known.
    pub fn coordinates(&self) -> Option<Coordinates> {
        self.location.or_else(|| regions::known(self.name.as_str()).map(|place| place.coordinates))
    }
}

/// The path of a key: `issuers[0].audiences`.
fn path(section: &str, index: Option<usize>, key: &str) -> String {
    let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
    let separator = if key.is_empty() { "" } else { "." };
    format!("{section}{index}{separator}{key}")
}

#[cfg(test)]
mod tests;
