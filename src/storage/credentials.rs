//! As whom storage is called: a service account key, or what the environment offers.
//!
//! The search is that of application default credentials (Google Cloud documentation, "How Application Default
//! Credentials works"): a file named by the environment, the file that the `gcloud` tool leaves, the metadata server.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use yup_oauth2::ServiceAccountKey;

use super::endpoint::Endpoint;
use super::error::OpenError;
use super::settings::Credentials;
use crate::model::address::UpstreamUrl;

/// What of the process's environment decides where credentials are looked for.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `GOOGLE_APPLICATION_CREDENTIALS`: a key file.
    pub google_application_credentials: Option<PathBuf>,
    /// `CLOUDSDK_CONFIG`: where the `gcloud` tool keeps its files.
    pub cloudsdk_config: Option<PathBuf>,
    /// `HOME`: below which the `gcloud` tool keeps them otherwise.
    pub home: Option<PathBuf>,
    /// `GCE_METADATA_HOST`: the metadata server, with or without a port.
    pub gce_metadata_host: Option<String>,
}

/// The credentials that were found.
pub(super) enum Found {
    /// A service account key, with the file that it is from.
    Key { key: Box<ServiceAccountKey>, file: PathBuf },
    /// The service account of the machine, as its metadata server gives it out.
    Metadata { host: String, looked_for: Option<PathBuf> },
    /// A stand-in on this machine is called, and nobody said as whom.
    StandIn,
}

/// Why a file is no usable service account key. Completes the sentence "the credentials file …".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// No key is that long.
    #[error("is longer than 64 KiB")]
    TooLong,
    /// It is no JSON, or a member of it is of another JSON type. What stands there is not repeated: it may be the key.
    #[error("is no service account key in JSON: line {line}, column {column}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Another kind of credentials.
    #[error("holds credentials of the type {0:?}, where only \"service_account\" is supported")]
    Type(String),
    /// A member is not there.
    #[error("has no {0:?}")]
    Missing(&'static str),
    /// Tokens are got over TLS only.
    #[error("has a \"token_uri\" that is not an https address")]
    TokenUri,
    /// Signing needs an RSA key.
    #[error("has a \"private_key\" that is no RSA key in PEM")]
    PrivateKey,
}

impl KeyFileError {
    pub(super) fn of(self, file: &Path) -> OpenError {
        OpenError::KeyFile { file: file.to_owned(), reason: self }
    }
}

/// The host of the metadata server on every Google Cloud machine.
const METADATA_HOST: &str = "metadata.google.internal";

/// Looks for credentials. Reads files and asks no network.
pub(super) async fn find(
    credentials: &Credentials,
    environment: &Environment,
    endpoint: &Endpoint,
) -> Result<Found, OpenError> {
    let named = match credentials {
        Credentials::File { file } => Some(file),
        Credentials::Auto => environment.google_application_credentials.as_ref(),
    };
    if let Some(file) = named {
        return read_key(file).await.map_err(|reason| reason.of(file));
    }
    if let Some(host) = &environment.gce_metadata_host {
        let bare = !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'));
        if !bare || reqwest::Url::parse(&format!("http://{host}/")).is_err() {
            return Err(OpenError::MetadataHost);
        }
    }
    // A person's own login, or the machine's, is not for whatever listens on a port of this machine. Who wants to use
    // one there says so by the environment.
    if endpoint.is_plain_loopback() && environment.gce_metadata_host.is_none() {
        return Ok(Found::StandIn);
    }
    let looked_for = gcloud_file(environment);
    if let Some(file) = &looked_for {
        match read_key(file).await {
            Err(KeyFileError::Unreadable(std::io::ErrorKind::NotFound)) => {}
            other => return other.map_err(|reason| reason.of(file)),
        }
    }
    let host = environment.gce_metadata_host.clone().unwrap_or_else(|| METADATA_HOST.to_owned());
    Ok(Found::Metadata { host, looked_for })
}

fn gcloud_file(environment: &Environment) -> Option<PathBuf> {
    let below_home = || environment.home.as_ref().map(|home| home.join(".config").join("gcloud"));
    let directory = environment.cloudsdk_config.clone().or_else(below_home)?;
    Some(directory.join("application_default_credentials.json"))
}

async fn read_key(file: &Path) -> Result<Found, KeyFileError> {
    const LONGEST: u64 = 64 * 1024;
    let unreadable = |error: std::io::Error| KeyFileError::Unreadable(error.kind());
    let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let mut text = Vec::new();
    opened.take(LONGEST + 1).read_to_end(&mut text).await.map_err(unreadable)?;
    let text = zeroize::Zeroizing::new(text);
    if text.len() as u64 > LONGEST {
        return Err(KeyFileError::TooLong);
    }
    parse_key(&text).map(|key| Found::Key { key: Box::new(key), file: file.to_owned() })
}

fn parse_key(text: &[u8]) -> Result<ServiceAccountKey, KeyFileError> {
    /// The type first: credentials of another one have other members.
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    #[derive(Deserialize)]
    struct Members {
        client_email: Option<String>,
        private_key: Option<String>,
        private_key_id: Option<String>,
        token_uri: Option<String>,
    }
    let malformed = |error: serde_json::Error| KeyFileError::Malformed { line: error.line(), column: error.column() };
    match serde_json::from_slice::<Kind>(text).map_err(malformed)?.kind {
        Some(kind) if kind == "service_account" => {}
        Some(kind) => return Err(KeyFileError::Type(kind.chars().take(64).collect())),
        None => return Err(KeyFileError::Missing("type")),
    }
    let key: Members = serde_json::from_slice(text).map_err(malformed)?;
    let token_uri = key.token_uri.ok_or(KeyFileError::Missing("token_uri"))?;
    // The second check is for the client that sends there, which takes it for granted that the address is one for HTTP.
    if token_uri.parse::<UpstreamUrl>().is_err() || token_uri.parse::<hyper::Uri>().is_err() {
        return Err(KeyFileError::TokenUri);
    }
    Ok(ServiceAccountKey {
        key_type: None,
        project_id: None,
        private_key_id: key.private_key_id,
        private_key: key.private_key.ok_or(KeyFileError::Missing("private_key"))?,
        client_email: key.client_email.ok_or(KeyFileError::Missing("client_email"))?,
        client_id: None,
        auth_uri: None,
        token_uri,
        auth_provider_x509_cert_url: None,
        client_x509_cert_url: None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEY: &str = r#"{"type":"service_account","client_email":"a@example.com","private_key":"PEM","token_uri":"https://oauth2.googleapis.com/token"}"#;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_key_file_is_a_service_account_key_or_says_why_not() {
        let with = |from: &str, to: &str| KEY.replace(from, to);
        for (name, text, expected) in [
            ("a key", KEY.to_owned(), None),
            ("a person's login", with("service_account", "authorized_user"), Some("\"authorized_user\"")),
            (
                "a federated one",
                r#"{"type":"external_account","audience":"x"}"#.to_owned(),
                Some("\"external_account\""),
            ),
            ("no type", "{}".to_owned(), Some("has no \"type\"")),
            ("no JSON", "-----BEGIN s3cret".to_owned(), Some("line 1, column")),
            ("an array", "[1]".to_owned(), Some("no service account key")),
            ("no key", with("private_key", "other"), Some("has no \"private_key\"")),
            ("no address", with("client_email", "other"), Some("has no \"client_email\"")),
            ("no token_uri", with("token_uri", "other"), Some("has no \"token_uri\"")),
            ("a member of another type", with("\"PEM\"", "{\"s3cret\":1}"), Some("line 1, column")),
            ("tokens without TLS", with("https://", "http://"), Some("not an https address")),
            ("tokens from nowhere", with("https://oauth2.googleapis.com/token", "https://a/ b"), Some("not an https")),
            ("tokens from loopback", with("https://oauth2.googleapis.com", "http://127.0.0.1:9"), None),
        ] {
            let found = parse_key(text.as_bytes()).err().map(|error| error.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{name}: {found:?}");
            let found = found.unwrap_or_default();
            assert!(found.contains(expected.unwrap_or_default()) && !found.contains("s3cret"), "{name}: {found}");
        }
    }

    #[tokio::test]
    async fn credentials_are_looked_for_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), text).unwrap();
        };
        write("named.json", KEY);
        write("sdk/application_default_credentials.json", KEY);
        write("home/.config/gcloud/application_default_credentials.json", KEY);
        write("person/.config/gcloud/application_default_credentials.json", r#"{"type":"authorized_user"}"#);
        write("long.json", &" ".repeat(65 * 1024));
        let none = Environment::default();
        let home = Environment { home: Some(path("home")), ..none.clone() };
        let person = Environment { home: Some(path("person")), ..none.clone() };
        let sdk = Environment { cloudsdk_config: Some(path("sdk")), ..home.clone() };
        let named = Environment { google_application_credentials: Some(path("named.json")), ..sdk.clone() };
        let absent = Environment { google_application_credentials: Some(path("absent.json")), ..sdk.clone() };
        let long = Environment { google_application_credentials: Some(path("long.json")), ..none.clone() };
        let metadata = Environment { gce_metadata_host: Some("127.0.0.1:8174".to_owned()), ..none.clone() };
        let crooked = Environment { gce_metadata_host: Some("127.0.0.1/x?".to_owned()), ..none.clone() };
        let empty_home = Environment { home: Some(path("empty")), ..none.clone() };
        let auto = Credentials::Auto;
        let file = Credentials::File { file: path("named.json") };
        let (google, loopback) = (endpoint("https://storage.googleapis.com"), endpoint("http://127.0.0.1:9023"));
        for (name, credentials, environment, endpoint, expected) in [
            ("the file of the configuration", &file, &absent, &google, "key named.json"),
            ("the file of the environment", &auto, &named, &google, "key named.json"),
            ("that file is not there", &auto, &absent, &google, "absent.json cannot be read: entity not found"),
            ("that file is too long", &auto, &long, &google, "long.json is longer than 64 KiB"),
            ("the tool's directory", &auto, &sdk, &google, "key application_default_credentials.json"),
            ("the tool's directory at home", &auto, &home, &google, "key application_default_credentials.json"),
            ("a person's login", &auto, &person, &google, "holds credentials of the type \"authorized_user\""),
            ("no file at all", &auto, &empty_home, &google, "metadata metadata.google.internal"),
            ("nothing at all", &auto, &none, &google, "metadata metadata.google.internal"),
            ("another metadata server", &auto, &metadata, &google, "metadata 127.0.0.1:8174"),
            ("no host", &auto, &crooked, &google, "GCE_METADATA_HOST is not a host"),
            ("a stand-in", &auto, &none, &loopback, "stand-in"),
            ("a stand-in and a person's login", &auto, &person, &loopback, "stand-in"),
            ("a stand-in and a file", &auto, &named, &loopback, "key named.json"),
            ("a stand-in and a metadata server", &auto, &metadata, &loopback, "metadata 127.0.0.1:8174"),
        ] {
            let found = match find(credentials, environment, endpoint).await {
                Ok(Found::Key { file, .. }) => format!("key {}", file.file_name().unwrap().display()),
                Ok(Found::Metadata { host, .. }) => format!("metadata {host}"),
                Ok(Found::StandIn) => "stand-in".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expected), "{name}: {found}");
        }
    }
}
