//! Service account impersonation: IAM Credentials gives out a token of an account to whoever may act as it.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Granted;
use super::exchange::{Party, accepted, send};
use crate::clock::Clock;
use crate::storage::credentials;
use crate::storage::token::{Failure, TokenError};

/// A service account, and where its tokens are given out.
pub(super) struct Impersonation {
    account: credentials::Impersonation,
    client: Client,
    scopes: &'static [&'static str],
    token_server: Party,
}

impl Impersonation {
    pub(super) fn new(
        account: credentials::Impersonation,
        client: Client,
        scopes: &'static [&'static str],
        source: &str,
    ) -> Self {
        let token_server = Party::token_server(source, &account.url);
        Self { account, client, scopes, token_server }
    }

    /// Turns the token of somebody who may impersonate the account into one of the account's.
    pub(super) async fn fetch(&self, by: &Granted, deadline: Instant) -> Result<Granted, TokenError> {
        self.token_server.asked(deadline, self.ask(by)).await
    }

    /// IAM Credentials reference, "projects.serviceAccounts.generateAccessToken".
    async fn ask(&self, by: &Granted) -> Result<Granted, Failure> {
        #[derive(Serialize)]
        struct Wanted<'a> {
            scope: &'a [&'a str],
            lifetime: String,
            delegates: &'a [String],
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Grant {
            access_token: String,
            expire_time: String,
        }
        let lifetime = self.account.lifetime;
        let wanted = Wanted {
            scope: self.scopes,
            lifetime: format!("{}s", lifetime.as_secs()),
            delegates: &self.account.delegates,
        };
        let question =
            self.client.post(self.account.url.clone()).header(AUTHORIZATION, by.header.clone()).json(&wanted);
        let text = accepted(send(question).await?)?;
        let grant: Grant = serde_json::from_slice(&text).map_err(|_| Failure::NO_TOKEN)?;
        // An instant, where other servers give a span: a clock that is behind makes it seem further off than it is.
        let end: jiff::Timestamp = grant.expire_time.parse().map_err(|_| Failure::NO_TOKEN)?;
        let left = end.as_second().saturating_sub(Clock::System.now().as_secs());
        let life = Duration::from_secs(u64::try_from(left).unwrap_or(0)).min(lifetime);
        Granted::new(&Zeroizing::new(grant.access_token), life)
    }
}
