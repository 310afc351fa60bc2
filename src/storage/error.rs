//! Why an operation on storage did not happen.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::FileError;
use super::token::TokenError;

/// Why an operation on storage did not happen. Holds no secret: no address with its query, no header, no body.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage understood the request and says no; to repeat it is of no use.
    #[error("storage refused with status {status}{}", reason.as_deref().map(|reason| format!(", {reason}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The `reason` of the first error in the body, such as `forbidden`: letters and `_` only.
        reason: Option<String>,
    },
    /// Who was asked is away, or has too much to do, also after the retries that there was time and budget for.
    #[error("{whom} is not available")]
    Unavailable {
        /// Who was asked.
        whom: Upstream,
        /// What the last try met.
        #[source]
        cause: Outage,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The deadline passed before there was an answer. What was asked for may have happened or may not.
    #[error("{whom} did not answer in time")]
    TimedOut {
        /// Who was asked.
        whom: Upstream,
    },
    /// The token was refused, and the next one too.
    #[error("{whom} does not accept the broker's token")]
    Unauthenticated {
        /// Who was asked.
        whom: Upstream,
    },
    /// IAM Credentials understood the request for a signature and says no.
    #[error("IAM Credentials refused to sign, with status {status}{}", reason.as_deref().map(|reason| format!(", {reason}")).unwrap_or_default())]
    SigningRefused {
        /// The HTTP status.
        status: u16,
        /// The `status` in the body, such as `PERMISSION_DENIED`: letters and `_` only.
        reason: Option<String>,
    },
    /// There is no token to call storage with.
    #[error("there is no token for storage")]
    NoToken(#[source] TokenError),
    /// What came makes no sense as an answer of storage, or what is to be sent cannot be sent there.
    #[error("the exchange with storage makes no sense: {0}")]
    Nonsense(&'static str),
    /// As many operations are under way as this process allows; storage was not asked.
    #[error("too many operations on storage are under way")]
    Overloaded,
}

impl Error {
    /// A word for it, for traces.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::TimedOut { .. } => "timed_out",
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::SigningRefused { .. } => "signing_refused",
            Self::NoToken(_) => "no_token",
            Self::Nonsense(_) => "nonsense",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Who is asked for the sake of an operation on storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Storage itself.
    Storage,
    /// IAM Credentials, for a signature.
    IamCredentials,
    /// The metadata server, for the name of the machine's account.
    MetadataServer,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "storage",
            Self::IamCredentials => "IAM Credentials",
            Self::MetadataServer => "the metadata server",
        })
    }
}

/// What a try met that did not get through.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// An answer that asks to be left alone for now: 408, 429, 5xx, or 403 with the reason of a rate limit.
    #[error("it answered with status {0}")]
    Answered(u16),
    /// No connection: name, network, or TLS.
    #[error("no connection came about")]
    NoConnection(#[source] reqwest::Error),
    /// The connection broke before the whole answer was there.
    #[error("the connection broke")]
    Broken(#[source] reqwest::Error),
}

/// Why the client cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The endpoint cannot be the beginning of an address.
    #[error("storage.endpoint {0}")]
    Endpoint(&'static str),
    /// The time for one operation is too short for any, or too long to be one.
    #[error("storage.timeout must be from 100ms to 10m")]
    Timeout,
    /// A credentials file is of no use.
    #[error("the credentials file {} {reason}", file.display())]
    CredentialsFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: FileError,
    },
    /// `GCE_METADATA_HOST` is no host.
    #[error("GCE_METADATA_HOST is not a host, with or without a port")]
    MetadataHost,
    /// Signed URLs are asked for, and nobody can sign them.
    #[error("there is nobody to sign URLs: the credentials for storage are {whose}")]
    CannotSign {
        /// Whose the credentials are.
        whose: &'static str,
    },
    /// `CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS` is no address.
    #[error("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS is not an https address")]
    IamCredentials,
    /// A certificate authority is unusable, or the system has none.
    #[error("the certificate authorities for storage cannot be used")]
    Trust(#[source] rustls::Error),
    /// The HTTP client cannot be built.
    #[error("the HTTP client for storage cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Why storage cannot be called now: fit for a readiness probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct NotReady(#[from] pub TokenError);
