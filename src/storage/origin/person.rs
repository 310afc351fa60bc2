//! A person who logged in once: a refresh token gets access tokens (RFC 6749, section 6).

use reqwest::Client;
use tokio::time::Instant;

use super::Granted;
use super::exchange::{Party, ask_by_form};
use crate::storage::credentials;
use crate::storage::token::TokenError;

/// The token server that a person logged in at.
pub(super) struct Person {
    given: credentials::Person,
    client: Client,
    token_server: Party,
}

impl Person {
    pub(super) fn new(given: credentials::Person, client: Client, source: &str) -> Self {
        let token_server = Party::token_server(source, &given.token_uri);
        Self { given, client, token_server }
    }

    /// No scope is asked for: then the token has those that the person agreed to, and one that is not among them would
    /// be refused.
    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Granted, TokenError> {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", &*self.given.client_id),
            ("client_secret", self.given.client_secret.expose()),
            ("refresh_token", self.given.refresh_token.expose()),
        ];
        let granted = ask_by_form(&self.client, &self.given.token_uri, &fields);
        self.token_server.asked(deadline, granted).await
    }
}
