//! Workload identity federation: a subject token of another issuer is exchanged for a token of Google (AIP-4117, RFC
//! 8693).

use reqwest::Client;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::Granted;
use super::exchange::{Party, accepted, ask_by_form, bare, send};
use crate::model::secret::SecretText;
use crate::storage::credentials::{self, Format, Source, read_secret};
use crate::storage::token::{Failure, TokenError};

/// Where subject tokens come from, and where they are exchanged.
pub(super) struct Federation {
    given: credentials::Federation,
    client: Client,
    scope: String,
    subject: Party,
    token_server: Party,
}

impl Federation {
    pub(super) fn new(given: credentials::Federation, client: Client, scopes: &[&str], source: &str) -> Self {
        let subject = match &given.source {
            Source::File(file) => Party::of(source, "subject token file", file.display()),
            Source::Url { url, .. } => Party::of(source, "subject token server", bare(url)),
        };
        let token_server = Party::token_server(source, &given.token_url);
        Self { given, client, scope: scopes.join(" "), subject, token_server }
    }

    /// Gets a subject token anew each time: they are short-lived, and whoever writes the file replaces them.
    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Granted, TokenError> {
        let subject_token = self.subject.asked(deadline, self.subject_token()).await?;
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &*self.given.audience),
            ("scope", &*self.scope),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", &*self.given.subject_token_type),
            ("subject_token", subject_token.expose()),
        ];
        let granted = ask_by_form(&self.client, &self.given.token_url, &fields);
        self.token_server.asked(deadline, granted).await
    }

    async fn subject_token(&self) -> Result<SecretText, Failure> {
        let text = match &self.given.source {
            Source::File(file) => {
                let text = read_secret(file).await.map_err(|error| Failure::Unreadable(error.kind()))?;
                text.ok_or(Failure::Unfit("is longer than 64 KiB"))?
            }
            Source::Url { url, headers } => {
                accepted(send(self.client.get(url.clone()).headers(headers.clone())).await?)?
            }
        };
        unwrap(&text, &self.given.format).map(SecretText::new)
    }
}

/// The subject token in `text`.
fn unwrap(text: &[u8], format: &Format) -> Result<String, Failure> {
    let token = match format {
        Format::Text => std::str::from_utf8(text).ok().map(|text| text.trim().to_owned()),
        Format::Json(member) => {
            let object = serde_json::from_slice::<Map<String, Value>>(text).ok();
            match object.and_then(|mut object| object.remove(member)) {
                Some(Value::String(token)) => Some(token),
                _ => None,
            }
        }
    };
    token.filter(|token| !token.is_empty()).ok_or(Failure::Unfit("holds no subject token in the configured format"))
}
