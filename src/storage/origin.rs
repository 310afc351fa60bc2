//! Where access tokens come from: one request for one token, without memory.

use std::path::PathBuf;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest::{StatusCode, Url};
use rustls::ClientConfig;
use serde::Deserialize;
use yup_oauth2::authenticator::Authenticator;
use yup_oauth2::{CustomHyperClientBuilder, ServiceAccountAuthenticator};

use super::credentials::{Found, KeyFileError};
use super::error::OpenError;
use super::json::Body;
use super::token::TokenError;
use super::transport::{CONNECT_TIMEOUT, read_body};
use crate::clock::Clock;
use crate::model::secret::SecretText;

/// Enough for opening sessions, reading objects back and deleting them (storage documentation, "OAuth 2.0 scopes").
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// What a token's life is taken for if the server does not say it. Servers of Google say it always.
const UNSAID_LIFE: Duration = Duration::from_secs(300);

/// What tokens are got from.
pub(super) enum Origin {
    /// The token server of a service account key, asked by a signed assertion.
    Key(Authenticator<HttpsConnector<HttpConnector>>),
    /// The metadata server.
    Metadata(Metadata),
    /// Nobody: a stand-in takes any text.
    StandIn,
    /// A table, in tests of what is done with tokens.
    #[cfg(test)]
    Scripted(super::token::tests::Script),
}

/// The metadata server, and where credentials were looked for before it came to this.
pub(super) struct Metadata {
    client: reqwest::Client,
    url: Url,
    host: String,
    looked_for: Option<PathBuf>,
}

/// A token, and how long it is good for from now on.
pub(super) struct Granted {
    pub(super) text: SecretText,
    pub(super) life: Duration,
}

impl Origin {
    pub(super) async fn new(found: Found, trust: &ClientConfig) -> Result<Self, OpenError> {
        match found {
            Found::Key { key, file } => {
                let mut http = HttpConnector::new();
                http.enforce_http(false);
                http.set_connect_timeout(Some(CONNECT_TIMEOUT));
                let connector = HttpsConnectorBuilder::new()
                    .with_tls_config(trust.clone())
                    .https_or_http()
                    .enable_http1()
                    .wrap_connector(http);
                let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
                ServiceAccountAuthenticator::with_client(*key, CustomHyperClientBuilder::from(client))
                    .build()
                    .await
                    .map(Self::Key)
                    .map_err(|_| KeyFileError::PrivateKey.of(&file))
            }
            Found::Metadata { host, looked_for } => {
                let path = "computeMetadata/v1/instance/service-accounts/default/token";
                let url =
                    Url::parse(&format!("http://{host}/{path}?scopes={SCOPE}")).map_err(|_| OpenError::MetadataHost)?;
                let client = reqwest::Client::builder()
                    .tls_backend_preconfigured(trust.clone())
                    .redirect(reqwest::redirect::Policy::none())
                    .no_proxy()
                    .retry(reqwest::retry::never())
                    .connect_timeout(CONNECT_TIMEOUT)
                    .pool_max_idle_per_host(0)
                    .build()
                    .map_err(OpenError::Client)?;
                Ok(Self::Metadata(Metadata { client, url, host, looked_for }))
            }
            Found::StandIn => Ok(Self::StandIn),
        }
    }

    /// Asks for a token. Takes as long as it takes: the caller has the clock.
    pub(super) async fn fetch(&self) -> Result<Granted, TokenError> {
        match self {
            Self::Key(authenticator) => by_key(authenticator).await,
            Self::Metadata(metadata) => metadata.fetch().await,
            Self::StandIn => {
                Ok(Granted { text: SecretText::new("stand-in".to_owned()), life: Duration::from_secs(3600) })
            }
            #[cfg(test)]
            Self::Scripted(script) => script.fetch().await,
        }
    }
}

/// Always forces a refresh: the library keeps whatever came, an answer without a token included, and would give that
/// out for ever.
async fn by_key(authenticator: &Authenticator<HttpsConnector<HttpConnector>>) -> Result<Granted, TokenError> {
    let token = authenticator.force_refreshed_token(&[SCOPE]).await.map_err(|error| match error {
        yup_oauth2::Error::HttpError(error) => TokenError::Unreachable(innermost(&error)),
        yup_oauth2::Error::HttpClientError(error) => TokenError::Unreachable(innermost(&error)),
        yup_oauth2::Error::AuthError(error) => TokenError::refused(error.error.as_str()),
        yup_oauth2::Error::JSONError(_) => TokenError::Nonsense("it is no JSON"),
        _ => TokenError::Nonsense("it holds no bearer token"),
    })?;
    // The library ignores the status: an error of another form than OAuth's comes out as a success without a token.
    let text = token.token().ok_or(TokenError::Nonsense("it holds no bearer token"))?.to_owned();
    let life = match token.expiration_time() {
        // Computed by the library from the system's clock, whatever clock the rest of the program goes by.
        Some(end) => {
            let left = end.unix_timestamp().saturating_sub(Clock::System.now().as_secs());
            Duration::from_secs(u64::try_from(left).unwrap_or(0))
        }
        None => UNSAID_LIFE,
    };
    Ok(Granted { text: SecretText::new(text), life })
}

impl Metadata {
    /// Asks the metadata server, whose header `Metadata-Flavor` tells it from whatever else answers to that name
    /// (Compute Engine documentation, "View and query VM metadata"). The OAuth library neither looks at that header nor
    /// at the status.
    async fn fetch(&self) -> Result<Granted, TokenError> {
        #[derive(Deserialize)]
        struct Grant {
            access_token: String,
            expires_in: Option<u64>,
        }
        const FLAVOR: &str = "metadata-flavor";
        let response = self.client.get(self.url.clone()).header(FLAVOR, "Google").send().await;
        let mut response = response.map_err(|error| {
            let reason = innermost(&error.without_url());
            TokenError::NoMetadata { host: self.host.clone(), looked_for: self.looked_for.clone(), reason }
        })?;
        if response.headers().get(FLAVOR).is_none_or(|flavor| flavor != "Google") {
            return Err(TokenError::Nonsense("it is not from a metadata server of Google"));
        }
        if response.status() != StatusCode::OK {
            // 404 is what a machine without a service account says.
            return Err(TokenError::refused(response.status().as_str()));
        }
        let body = read_body(&mut response).await;
        let Body::Whole(body) = body.map_err(|error| TokenError::Unreachable(innermost(&error.without_url())))? else {
            return Err(TokenError::Nonsense("it has no end"));
        };
        let body = zeroize::Zeroizing::new(body);
        let grant: Grant =
            serde_json::from_slice(&body).map_err(|_| TokenError::Nonsense("it holds no bearer token"))?;
        let life = grant.expires_in.map_or(UNSAID_LIFE, Duration::from_secs);
        Ok(Granted { text: SecretText::new(grant.access_token), life })
    }
}

/// The deepest cause, which is the one that an operator can do something about: "Connection refused (os error 111)".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().chars().take(200).collect()
}
