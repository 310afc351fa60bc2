//! Where access tokens come from: whatever it takes to get one token, without memory.
//!
//! A login gets a token by itself; each service account that is impersonated turns the token at hand into its own. Each
//! kind has a file here. `TokenSource` remembers, repeats, and keeps from asking too often.

use std::time::Duration;

use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use tokio::time::Instant;

use super::Signing;
use super::credentials::{self, FileCredentials, Found};
use super::error::OpenError;
use super::signer::SigningIdentity;
use super::token::{Failure, TokenError};
use federation::Federation;
use impersonation::Impersonation;
use key::Key;
use metadata::Metadata;
use person::Person;

mod exchange;
mod federation;
mod impersonation;
mod key;
mod metadata;
mod person;

/// Enough for opening sessions, reading objects back and deleting them (storage documentation, "OAuth 2.0 scopes").
const STORAGE_SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// Enough for `signBlob` (IAM Credentials reference, "Authorization scopes").
const SIGNING_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// For a token that is only a step on the way to another one.
const SOURCE_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// What a token's life is taken for if the server does not say it. Servers of Google say it always.
const UNSAID_LIFE: Duration = Duration::from_secs(300);

/// What tokens are got from.
pub(super) enum Origin {
    /// What a credentials file says.
    File(Box<Chain>),
    /// The metadata server.
    Metadata(Box<Metadata>),
    /// Nobody: a stand-in takes any text.
    StandIn,
    /// A table, in tests of what is done with tokens.
    #[cfg(test)]
    Scripted(super::token::tests::Script),
}

/// A login, and the service accounts that are impersonated from there.
pub(super) struct Chain {
    login: Login,
    impersonations: Vec<Impersonation>,
}

enum Login {
    Key(Key),
    Person(Person),
    Federation(Box<Federation>),
}

/// A token, and how long it is good for from now on.
pub(super) struct Granted {
    /// `Bearer …`, marked as sensitive.
    pub(super) header: HeaderValue,
    pub(super) life: Duration,
}

impl Granted {
    pub(super) fn new(token: &str, life: Duration) -> Result<Self, Failure> {
        if token.is_empty() || life.is_zero() {
            return Err(Failure::Nonsense("it holds a token that is over"));
        }
        let text = zeroize::Zeroizing::new(format!("Bearer {token}"));
        let mut header = HeaderValue::from_str(&text)
            .map_err(|_| Failure::Nonsense("it holds a token that cannot stand in a header"))?;
        header.set_sensitive(true);
        Ok(Self { header, life })
    }
}

impl Origin {
    pub(super) async fn new(found: Found, trust: &ClientConfig, signing: Signing) -> Result<Self, OpenError> {
        let remote = matches!(found.signing_identity(), SigningIdentity::Remote { .. });
        let scopes: &[&str] = match signing {
            Signing::Wanted if remote => &[STORAGE_SCOPE, SIGNING_SCOPE],
            Signing::Wanted | Signing::Unused => &[STORAGE_SCOPE],
        };
        match found {
            Found::File(credentials) => Ok(Self::File(Box::new(Chain::new(credentials, trust, scopes).await?))),
            Found::Machine(machine) => {
                let client = exchange::client(trust)?;
                Ok(Self::Metadata(Box::new(Metadata::new(machine, client, scopes))))
            }
            Found::StandIn => Ok(Self::StandIn),
        }
    }

    /// Asks for a token, until the deadline.
    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Granted, TokenError> {
        match self {
            Self::File(chain) => chain.fetch(deadline).await,
            Self::Metadata(metadata) => metadata.fetch(deadline).await,
            Self::StandIn => {
                Ok(Granted { header: HeaderValue::from_static("Bearer stand-in"), life: Duration::from_secs(3600) })
            }
            #[cfg(test)]
            Self::Scripted(script) => script.fetch(deadline).await,
        }
    }
}

impl Chain {
    async fn new(
        credentials: FileCredentials,
        trust: &ClientConfig,
        scopes: &'static [&'static str],
    ) -> Result<Self, OpenError> {
        let FileCredentials { file, kind, login, impersonations } = credentials;
        let source = format!("the credentials file {} ({kind})", file.display());
        let client = exchange::client(trust)?;
        let count = impersonations.len();
        let scopes_of = |step| if step == count { scopes } else { &[SOURCE_SCOPE] };
        let login = match login {
            credentials::Login::Key(account) => {
                Login::Key(Key::new(account, trust, scopes_of(0), &source).await.map_err(|reason| reason.of(&file))?)
            }
            credentials::Login::Person(person) => Login::Person(Person::new(person, client.clone(), &source)),
            credentials::Login::Federation(federation) => {
                Login::Federation(Box::new(Federation::new(federation, client.clone(), scopes_of(0), &source)))
            }
        };
        let impersonations = impersonations
            .into_iter()
            .zip(1..)
            .map(|(account, step)| Impersonation::new(account, client.clone(), scopes_of(step), &source))
            .collect();
        Ok(Self { login, impersonations })
    }

    async fn fetch(&self, deadline: Instant) -> Result<Granted, TokenError> {
        let mut granted = match &self.login {
            Login::Key(key) => key.fetch(deadline).await,
            Login::Person(person) => person.fetch(deadline).await,
            Login::Federation(federation) => federation.fetch(deadline).await,
        }?;
        for account in &self.impersonations {
            granted = account.fetch(&granted, deadline).await?;
        }
        Ok(granted)
    }
}
