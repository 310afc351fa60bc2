//! As whom storage is called: what a credentials file says, or what the environment offers.
//!
//! The search is that of application default credentials (Google Cloud documentation, "How Application Default
//! Credentials works"): a file named by the environment, the file that the `gcloud` tool leaves, the metadata server.
//! The configuration can name a file instead, of the same kinds.

use std::path::PathBuf;

use reqwest::Url;

use super::endpoint::Endpoint;
use super::error::OpenError;
use super::settings::Credentials;
use super::signer::{RemoteAccount, SigningIdentity};
use crate::model::address::UpstreamUrl;

mod file;
#[cfg(test)]
mod tests;

pub use file::FileError;
pub(super) use file::{
    Federation, FileCredentials, Format, Impersonation, Login, Person, ServiceAccount, Source, read_secret,
};

/// What of the process's environment decides where credentials are looked for.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `GOOGLE_APPLICATION_CREDENTIALS`: a credentials file.
    pub google_application_credentials: Option<PathBuf>,
    /// `CLOUDSDK_CONFIG`: where the `gcloud` tool keeps its files.
    pub cloudsdk_config: Option<PathBuf>,
    /// `HOME`: below which the `gcloud` tool keeps them otherwise.
    pub home: Option<PathBuf>,
    /// `GCE_METADATA_HOST`: the metadata server, with or without a port.
    pub gce_metadata_host: Option<String>,
    /// `CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS`: the address of IAM Credentials, where that is not Google's. It
    /// is asked to sign for the service account of the machine.
    pub iam_credentials: Option<String>,
}

/// The credentials that were found.
pub(super) enum Found {
    /// Those of a file.
    File(FileCredentials),
    /// The service account of the machine, as its metadata server gives it out.
    Machine(Machine),
    /// A stand-in on this machine is called, and nobody said as whom.
    StandIn,
}

/// The service account of the machine.
pub(super) struct Machine {
    /// The metadata server, for messages.
    pub(super) host: String,
    /// Where it gives out tokens.
    pub(super) token: Url,
    /// Where it says who that is.
    email: Url,
    iam_credentials: Url,
    /// The file that would have been taken.
    pub(super) looked_for: Option<PathBuf>,
}

/// The host of the metadata server on every Google Cloud machine.
const METADATA_HOST: &str = "metadata.google.internal";

const IAM_CREDENTIALS: &str = "https://iamcredentials.googleapis.com";

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
        return file::read(file).await.map(Found::File).map_err(|reason| reason.of(file));
    }
    // A person's own login, or the machine's, is not for whatever listens on a port of this machine. Who wants to use
    // one there says so by the environment.
    if endpoint.is_plain_loopback() && environment.gce_metadata_host.is_none() {
        return Ok(Found::StandIn);
    }
    // Before the file, so that a mistake in it is not found only once there is no file.
    let host = environment.gce_metadata_host.as_deref().unwrap_or(METADATA_HOST);
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(bare) {
        return Err(OpenError::MetadataHost);
    }
    // The metadata server is named then, and a person's login still is not.
    let looked_for = if endpoint.is_plain_loopback() { None } else { gcloud_file(environment) };
    if let Some(file) = &looked_for {
        match file::read(file).await {
            Err(FileError::Unreadable(std::io::ErrorKind::NotFound)) => {}
            other => return other.map(Found::File).map_err(|reason| reason.of(file)),
        }
    }
    let about_it = |what: &str| {
        let address = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/{what}");
        Url::parse(&address).map_err(|_| OpenError::MetadataHost)
    };
    let iam_credentials = environment.iam_credentials.as_deref().unwrap_or(IAM_CREDENTIALS);
    let iam_credentials = iam_credentials.parse::<UpstreamUrl>().map_err(|_| OpenError::IamCredentials)?;
    Ok(Found::Machine(Machine {
        host: host.to_owned(),
        token: about_it("token")?,
        email: about_it("email")?,
        iam_credentials: server(iam_credentials.as_url()),
        looked_for,
    }))
}

fn gcloud_file(environment: &Environment) -> Option<PathBuf> {
    let below_home = || environment.home.as_ref().map(|home| home.join(".config").join("gcloud"));
    let directory = environment.cloudsdk_config.clone().or_else(below_home)?;
    Some(directory.join("application_default_credentials.json"))
}

/// Scheme, host and port of an address.
fn server(address: &Url) -> Url {
    let mut server = address.clone();
    server.set_path("");
    server.set_query(None);
    server.set_fragment(None);
    server
}

impl Found {
    /// Whose they are, for people, with where that was found.
    pub(super) fn whose(&self) -> String {
        match self {
            Self::File(FileCredentials { file, kind, login, impersonations }) => {
                let account = match (impersonations.last(), login) {
                    (Some(last), _) => format!("the service account {}", last.email),
                    (None, Login::Key(key)) => format!("the service account {}", key.email),
                    (None, Login::Person(_)) => "a person".to_owned(),
                    (None, Login::Federation(_)) => "a federated identity".to_owned(),
                };
                format!("{account}, by {} ({kind})", file.display())
            }
            Self::Machine(machine) => format!("the service account of this machine, by {}", machine.host),
            Self::StandIn => "nobody: storage is a stand-in, and is sent a token that means nothing".to_owned(),
        }
    }

    /// Who can sign in the name of these credentials.
    pub(super) fn signing_identity(&self) -> SigningIdentity {
        match self {
            Self::File(FileCredentials { login, impersonations, .. }) => match (impersonations.last(), login) {
                (Some(last), _) => SigningIdentity::Remote {
                    account: RemoteAccount::Named(last.email.clone()),
                    iam_credentials: server(&last.url),
                },
                (None, Login::Key(key)) => {
                    SigningIdentity::Key { email: key.email.clone(), private_key: key.private_key.clone() }
                }
                (None, Login::Person(_)) => SigningIdentity::Nobody { whose: "a person's login" },
                (None, Login::Federation(_)) => {
                    SigningIdentity::Nobody { whose: "a federated identity that impersonates no service account" }
                }
            },
            Self::Machine(machine) => SigningIdentity::Remote {
                account: RemoteAccount::OfMachine(machine.email.clone()),
                iam_credentials: machine.iam_credentials.clone(),
            },
            Self::StandIn => SigningIdentity::Nobody { whose: "a token that means nothing" },
        }
    }
}
