//! One question on the way to a token: whom it goes to, how it is sent, and what its answer may be.

use std::fmt::Display;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{Granted, UNSAID_LIFE};
use crate::storage::error::OpenError;
use crate::storage::json::{Answer, Body};
use crate::storage::token::{Failure, TokenError};
use crate::storage::transport::{CONNECT_TIMEOUT, read_body};

/// Somebody who is asked, by the name that stands in messages: "the credentials file … (…): the token server …".
pub(super) struct Party(String);

impl Party {
    /// The metadata server, which no file names.
    pub(super) fn metadata(host: &str) -> Self {
        Self(format!("the metadata server {host}"))
    }

    /// One whom a credentials file names.
    pub(super) fn of(source: &str, what: &str, name: impl Display) -> Self {
        Self(format!("{source}: the {what} {name}"))
    }

    /// A token server. The query of an address may be a secret, so it stays out of the name.
    pub(super) fn token_server(source: &str, url: &Url) -> Self {
        Self::of(source, "token server", bare(url))
    }

    /// What it answers until the deadline.
    pub(super) async fn asked<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, TokenError> {
        let answer = timeout_at(deadline, answer).await.unwrap_or(Err(Failure::TimedOut));
        answer.map_err(|failure| TokenError::Failed { whom: self.0.clone(), failure })
    }
}

/// An address without its query.
pub(super) fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    bare
}

/// A client for questions that come minutes apart.
pub(super) fn client(trust: &ClientConfig) -> Result<Client, OpenError> {
    Client::builder()
        .tls_backend_preconfigured(trust.clone())
        // Nobody may send a secret elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(0)
        .build()
        .map_err(OpenError::Client)
}

/// Sends a question and reads the answer, at most 64 KiB of it.
pub(super) async fn send(question: RequestBuilder) -> Result<Answer, Failure> {
    let broken = |error: reqwest::Error| Failure::Unreachable(innermost(&error.without_url()));
    let mut response = question.send().await.map_err(broken)?;
    let body = read_body(&mut response).await.map_err(broken)?;
    Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
}

/// Asks a token server by a form, as OAuth has it, and reads the token in its answer (RFC 6749, section 5.1).
pub(super) async fn ask_by_form(client: &Client, url: &Url, fields: &[(&str, &str)]) -> Result<Granted, Failure> {
    #[derive(Deserialize)]
    struct Grant {
        token_type: String,
    }
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let question = client.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
    let text = accepted(send(question).await?)?;
    match serde_json::from_slice::<Grant>(&text) {
        Ok(grant) if grant.token_type.eq_ignore_ascii_case("bearer") => read_token(&text),
        _ => Err(Failure::NO_TOKEN),
    }
}

/// The token in an answer of OAuth's form.
pub(super) fn read_token(text: &[u8]) -> Result<Granted, Failure> {
    #[derive(Deserialize)]
    struct Grant {
        access_token: String,
        expires_in: Option<u64>,
    }
    let grant: Grant = serde_json::from_slice(text).map_err(|_| Failure::NO_TOKEN)?;
    Granted::new(&Zeroizing::new(grant.access_token), grant.expires_in.map_or(UNSAID_LIFE, Duration::from_secs))
}

/// The body of an answer that is one.
pub(super) fn accepted(answer: Answer) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if answer.status != StatusCode::OK {
        return Err(refusal(&answer));
    }
    match answer.body {
        Body::Whole(body) => Ok(Zeroizing::new(body)),
        Body::TooLong => Err(Failure::Nonsense("it has no end")),
    }
}

/// The code in a refusal: OAuth's (RFC 6749, section 5.2), or the status of Google's other interfaces (AIP-193), or else
/// the number of HTTP.
fn refusal(answer: &Answer) -> Failure {
    #[derive(Deserialize)]
    struct Refusal {
        error: Code,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        Text(String),
        Object { status: String },
    }
    let code = match &answer.body {
        Body::Whole(body) => serde_json::from_slice(body).ok(),
        Body::TooLong => None,
    };
    let code = code.map(|Refusal { error: Code::Text(code) | Code::Object { status: code } }| code);
    Failure::refused(code.as_deref()).unwrap_or_else(|| Failure::Refused(answer.status.as_str().to_owned()))
}

/// The deepest cause, which is the one that an operator can do something about: "Connection refused (os error 111)".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().chars().take(200).collect()
}
