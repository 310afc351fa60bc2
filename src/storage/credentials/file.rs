//! Credentials files: the kinds that are understood, and what is wrong with the others.
//!
//! The kinds and their members are those of Google's own libraries (Google Cloud documentation, "How Application Default
//! Credentials works"; AIP-4110 to AIP-4117). Such a file decides where secrets are sent, so it is the operator's to
//! vouch for; even so, every address in it must be https.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use crate::model::address::UpstreamUrl;
use crate::model::secret::SecretText;
use crate::storage::error::OpenError;
use crate::storage::signer::is_account;

/// What a credentials file says.
pub(in crate::storage) struct FileCredentials {
    /// The file.
    pub(in crate::storage) file: PathBuf,
    /// Its type, for messages.
    pub(in crate::storage) kind: &'static str,
    /// Who asks for a token to begin with.
    pub(in crate::storage) login: Login,
    /// The service accounts that are impersonated from there, each one by the token of the one before it.
    pub(in crate::storage) impersonations: Vec<Impersonation>,
}

/// Who asks for a token to begin with.
pub(in crate::storage) enum Login {
    /// `service_account`: a service account by its private key.
    Key(ServiceAccount),
    /// `authorized_user`: a person, as `gcloud auth application-default login` leaves it.
    Person(Person),
    /// `external_account`: somebody whom another issuer vouches for.
    Federation(Federation),
}

/// A service account by its private key.
pub(in crate::storage) struct ServiceAccount {
    pub(in crate::storage) email: String,
    /// PKCS#8 in PEM.
    pub(in crate::storage) private_key: SecretText,
    pub(in crate::storage) private_key_id: Option<String>,
    pub(in crate::storage) token_uri: Url,
}

/// A person who logged in once.
pub(in crate::storage) struct Person {
    pub(in crate::storage) client_id: String,
    pub(in crate::storage) client_secret: SecretText,
    pub(in crate::storage) refresh_token: SecretText,
    pub(in crate::storage) token_uri: Url,
}

/// Somebody whom another issuer vouches for, by a subject token.
pub(in crate::storage) struct Federation {
    /// The workload identity pool's provider.
    pub(in crate::storage) audience: String,
    pub(in crate::storage) subject_token_type: String,
    /// Where a subject token is exchanged.
    pub(in crate::storage) token_url: Url,
    pub(in crate::storage) source: Source,
    pub(in crate::storage) format: Format,
}

/// Where subject tokens come from.
pub(in crate::storage) enum Source {
    /// A file that is kept fresh by somebody else.
    File(PathBuf),
    /// A server, asked by `GET`.
    Url {
        /// Its query may be a secret.
        url: Url,
        /// May hold secrets; marked as such.
        headers: HeaderMap,
    },
}

/// What a subject token is wrapped in.
pub(in crate::storage) enum Format {
    /// Nothing.
    Text,
    /// A JSON object: it is the member of this name.
    Json(String),
}

/// A service account that is impersonated.
pub(in crate::storage) struct Impersonation {
    /// `…/serviceAccounts/EMAIL:generateAccessToken`.
    pub(in crate::storage) url: Url,
    /// Who that is.
    pub(in crate::storage) email: String,
    /// The accounts in between.
    pub(in crate::storage) delegates: Vec<String>,
    /// How long a token is to live.
    pub(in crate::storage) lifetime: Duration,
}

/// Why a credentials file is of no use. Completes the sentence "the credentials file …".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// No credentials are that long.
    #[error("is longer than 64 KiB")]
    TooLong,
    /// It is no JSON, or a member of it is of another JSON type. What stands there is not repeated: it may be a secret.
    #[error("is no JSON of the form that credentials have: line {line}, column {column}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Another kind of credentials.
    #[error(
        "holds credentials of the type {0:?}; supported are service_account, authorized_user, external_account and impersonated_service_account"
    )]
    Type(String),
    /// Subject tokens come from elsewhere.
    #[error("gets its subject tokens from {0}; supported are a file and a URL")]
    Source(&'static str),
    /// A member is not there.
    #[error("has no {0:?}")]
    Missing(&'static str),
    /// A member cannot be used.
    #[error("has a {member:?} that {reason}")]
    Unfit {
        /// The member.
        member: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl FileError {
    pub(in crate::storage) fn of(self, file: &Path) -> OpenError {
        OpenError::CredentialsFile { file: file.to_owned(), reason: self }
    }
}

/// The whole file, whatever its kind: no member means one thing here and another there.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    credential_source: Option<CredentialSource>,
    workforce_pool_user_project: Option<IgnoredAny>,
    service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<ImpersonationOptions>,
    delegates: Option<Vec<String>>,
    source_credentials: Option<Box<Document>>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    format: Option<SourceFormat>,
    executable: Option<IgnoredAny>,
    environment_id: Option<IgnoredAny>,
    certificate: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct SourceFormat {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct ImpersonationOptions {
    token_lifetime_seconds: Option<u64>,
}

/// Reads credentials.
pub(super) async fn read(file: &Path) -> Result<FileCredentials, FileError> {
    let text = read_secret(file).await.map_err(|error| FileError::Unreadable(error.kind()))?;
    parse(&text.ok_or(FileError::TooLong)?, file)
}

/// Reads a file that holds a secret; `None` if it is longer than 64 KiB.
pub(in crate::storage) async fn read_secret(file: &Path) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    const LONGEST: u64 = 64 * 1024;
    let opened = tokio::fs::File::open(file).await?;
    let mut text = Zeroizing::new(Vec::new());
    opened.take(LONGEST + 1).read_to_end(&mut text).await?;
    Ok((text.len() as u64 <= LONGEST).then_some(text))
}

pub(super) fn parse(text: &[u8], file: &Path) -> Result<FileCredentials, FileError> {
    /// The type first: what is of an unknown one may have any members.
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let malformed = |error: serde_json::Error| FileError::Malformed { line: error.line(), column: error.column() };
    let kind = kind(serde_json::from_slice::<Kind>(text).map_err(malformed)?.kind)?;
    let mut document: Document = serde_json::from_slice(text).map_err(malformed)?;
    let mut impersonations = Vec::new();
    let login = loop {
        match self::kind(document.kind.take())? {
            SERVICE_ACCOUNT => break Login::Key(key(document)?),
            AUTHORIZED_USER => break Login::Person(person(document)?),
            EXTERNAL_ACCOUNT => {
                if document.service_account_impersonation_url.is_some() {
                    impersonations.push(impersonation(&mut document)?);
                }
                break Login::Federation(federation(document)?);
            }
            // The one that is left.
            _ => {
                impersonations.push(impersonation(&mut document)?);
                document = *document.source_credentials.ok_or(FileError::Missing("source_credentials"))?;
            }
        }
    };
    impersonations.reverse();
    Ok(FileCredentials { file: file.to_owned(), kind, login, impersonations })
}

const SERVICE_ACCOUNT: &str = "service_account";
const AUTHORIZED_USER: &str = "authorized_user";
const EXTERNAL_ACCOUNT: &str = "external_account";
const IMPERSONATED_SERVICE_ACCOUNT: &str = "impersonated_service_account";

/// The type, if it is one of those that are supported.
fn kind(kind: Option<String>) -> Result<&'static str, FileError> {
    let kind = kind.ok_or(FileError::Missing("type"))?;
    [SERVICE_ACCOUNT, AUTHORIZED_USER, EXTERNAL_ACCOUNT, IMPERSONATED_SERVICE_ACCOUNT]
        .into_iter()
        .find(|supported| *supported == kind)
        .ok_or_else(|| FileError::Type(kind.chars().take(64).collect()))
}

fn key(document: Document) -> Result<ServiceAccount, FileError> {
    let token_uri = address("token_uri", &document.token_uri.ok_or(FileError::Missing("token_uri"))?)?;
    // The client that sends there takes it for granted that the address is one for HTTP.
    if token_uri.as_str().parse::<hyper::Uri>().is_err() {
        return Err(FileError::Unfit { member: "token_uri", reason: NO_ADDRESS });
    }
    Ok(ServiceAccount {
        token_uri,
        private_key_id: document.private_key_id,
        private_key: secret("private_key", document.private_key)?,
        email: document.client_email.ok_or(FileError::Missing("client_email"))?,
    })
}

fn person(document: Document) -> Result<Person, FileError> {
    // The tool leaves it out.
    let token_uri = document.token_uri.as_deref().unwrap_or("https://oauth2.googleapis.com/token");
    Ok(Person {
        token_uri: address("token_uri", token_uri)?,
        client_id: document.client_id.ok_or(FileError::Missing("client_id"))?,
        client_secret: secret("client_secret", document.client_secret)?,
        refresh_token: secret("refresh_token", document.refresh_token)?,
    })
}

fn federation(document: Document) -> Result<Federation, FileError> {
    if document.workforce_pool_user_project.is_some() {
        let reason = "is for people of a workforce pool, which is not supported";
        return Err(FileError::Unfit { member: "workforce_pool_user_project", reason });
    }
    let source = document.credential_source.ok_or(FileError::Missing("credential_source"))?;
    let elsewhere = [
        (source.executable, "an executable"),
        (source.environment_id, "Amazon Web Services"),
        (source.certificate, "a certificate"),
    ];
    if let Some((_, whence)) = elsewhere.into_iter().find(|(member, _)| member.is_some()) {
        return Err(FileError::Source(whence));
    }
    let format = match source.format {
        None => Format::Text,
        Some(format) => match format.kind.as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json(
                format
                    .subject_token_field_name
                    .ok_or(FileError::Missing("credential_source.format.subject_token_field_name"))?,
            ),
            Some(_) => {
                let reason = "is neither \"text\" nor \"json\"";
                return Err(FileError::Unfit { member: "credential_source.format.type", reason });
            }
        },
    };
    let source = match (source.file, source.url) {
        (Some(file), None) => Source::File(file),
        (None, Some(url)) => Source::Url {
            url: address("credential_source.url", &url)?,
            headers: headers(source.headers.unwrap_or_default())?,
        },
        (Some(_), Some(_)) => {
            return Err(FileError::Unfit { member: "credential_source", reason: "has both a file and a URL" });
        }
        (None, None) => {
            return Err(FileError::Unfit { member: "credential_source", reason: "has neither a file nor a URL" });
        }
    };
    Ok(Federation {
        audience: document.audience.ok_or(FileError::Missing("audience"))?,
        subject_token_type: document.subject_token_type.ok_or(FileError::Missing("subject_token_type"))?,
        token_url: address("token_url", &document.token_url.ok_or(FileError::Missing("token_url"))?)?,
        source,
        format,
    })
}

fn headers(given: BTreeMap<String, String>) -> Result<HeaderMap, FileError> {
    let header = |(name, value): (String, String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    given
        .into_iter()
        .map(header)
        .collect::<Option<_>>()
        .ok_or(FileError::Unfit { member: "credential_source.headers", reason: "holds what cannot stand in a header" })
}

fn impersonation(document: &mut Document) -> Result<Impersonation, FileError> {
    const MEMBER: &str = "service_account_impersonation_url";
    let url = document.service_account_impersonation_url.take().ok_or(FileError::Missing(MEMBER))?;
    let url = address(MEMBER, &url)?;
    let email = url
        .path()
        .rsplit_once("/serviceAccounts/")
        .and_then(|(_, rest)| rest.strip_suffix(":generateAccessToken"))
        .filter(|email| is_account(email))
        .ok_or(FileError::Unfit {
            member: MEMBER,
            reason: "does not end in /serviceAccounts/EMAIL:generateAccessToken",
        })?
        .to_owned();
    let options = document.service_account_impersonation.take();
    let seconds = options.and_then(|options| options.token_lifetime_seconds).unwrap_or(3600);
    // AIP-4117, and beyond an hour the organisation has to allow it.
    if !(600..=43_200).contains(&seconds) {
        return Err(FileError::Unfit {
            member: "service_account_impersonation.token_lifetime_seconds",
            reason: "is not from 600 to 43200",
        });
    }
    let delegates = document.delegates.take().unwrap_or_default();
    Ok(Impersonation { url, email, delegates, lifetime: Duration::from_secs(seconds) })
}

const NO_ADDRESS: &str = "is not an https address";

fn address(member: &'static str, text: &str) -> Result<Url, FileError> {
    let address = text.parse::<UpstreamUrl>().map_err(|_| FileError::Unfit { member, reason: NO_ADDRESS })?;
    Ok(address.as_url().clone())
}

fn secret(member: &'static str, text: Option<String>) -> Result<SecretText, FileError> {
    text.map(SecretText::new).ok_or(FileError::Missing(member))
}
