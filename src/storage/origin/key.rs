//! A service account by its private key, which signs an assertion for the token server (RFC 7523).

use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tokio::time::Instant;
use yup_oauth2::authenticator::Authenticator;
use yup_oauth2::{CustomHyperClientBuilder, ServiceAccountAuthenticator, ServiceAccountKey};

use super::exchange::{Party, innermost};
use super::{Granted, UNSAID_LIFE};
use crate::clock::Clock;
use crate::storage::credentials::{FileError, ServiceAccount};
use crate::storage::token::{Failure, TokenError};
use crate::storage::transport::CONNECT_TIMEOUT;

/// The token server of a service account key, asked by a signed assertion.
pub(super) struct Key {
    authenticator: Authenticator<HttpsConnector<HttpConnector>>,
    scopes: &'static [&'static str],
    token_server: Party,
}

impl Key {
    pub(super) async fn new(
        account: ServiceAccount,
        trust: &ClientConfig,
        scopes: &'static [&'static str],
        source: &str,
    ) -> Result<Self, FileError> {
        let token_server = Party::token_server(source, &account.token_uri);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        let key = ServiceAccountKey {
            key_type: None,
            project_id: None,
            private_key_id: account.private_key_id,
            private_key: account.private_key.expose().to_owned(),
            client_email: account.email,
            client_id: None,
            auth_uri: None,
            token_uri: account.token_uri.into(),
            auth_provider_x509_cert_url: None,
            client_x509_cert_url: None,
        };
        let authenticator = ServiceAccountAuthenticator::with_client(key, CustomHyperClientBuilder::from(client));
        let authenticator = authenticator
            .build()
            .await
            .map_err(|_| FileError::Unfit { member: "private_key", reason: "is no RSA key in PEM" })?;
        Ok(Self { authenticator, scopes, token_server })
    }

    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Granted, TokenError> {
        self.token_server.asked(deadline, self.ask()).await
    }

    /// Always forces a refresh: the library keeps whatever came, an answer without a token included, and would give
    /// that out for ever.
    async fn ask(&self) -> Result<Granted, Failure> {
        let token = self.authenticator.force_refreshed_token(self.scopes).await.map_err(|error| match error {
            yup_oauth2::Error::HttpError(error) => Failure::Unreachable(innermost(&error)),
            yup_oauth2::Error::HttpClientError(error) => Failure::Unreachable(innermost(&error)),
            yup_oauth2::Error::AuthError(error) => Failure::refused(Some(error.error.as_str()))
                .unwrap_or_else(|| Failure::Refused("with a code of another form".to_owned())),
            yup_oauth2::Error::JSONError(_) => Failure::Nonsense("it is no JSON"),
            _ => Failure::NO_TOKEN,
        })?;
        // The library ignores the status: an error of another form than OAuth's comes out as a success without a token.
        let text = token.token().ok_or(Failure::NO_TOKEN)?;
        let life = match token.expiration_time() {
            // Computed by the library from the system's clock, whatever clock the rest of the program goes by.
            Some(end) => {
                let left = end.unix_timestamp().saturating_sub(Clock::System.now().as_secs());
                Duration::from_secs(u64::try_from(left).unwrap_or(0))
            }
            None => UNSAID_LIFE,
        };
        Granted::new(text, life)
    }
}
