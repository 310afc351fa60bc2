//! Why the store could not do what it was asked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::id::UploadId;

/// Why an operation of the store did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is away, or is not in a state to serve. The operation may be repeated.
    #[error("the store cannot serve")]
    Unavailable(#[source] Cause),
    /// No answer in time: the operation may or may not have happened, and may be repeated.
    #[error("the store did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// More operations are under way than the store takes on.
    #[error("too many store operations are under way")]
    Overloaded,
    /// What is stored of the upload cannot be read; nothing is guessed.
    #[error("the record of upload {id} is corrupt: {what}")]
    Corrupt {
        /// Whose record.
        id: UploadId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The session of the upload was sealed with a key that this process was not given.
    #[error("the session of upload {id} is sealed with key {key:?}, which store.encryption_keys does not list")]
    SealedByUnknownKey {
        /// Whose session.
        id: UploadId,
        /// The id of the missing key.
        key: String,
    },
}

impl Error {
    /// A word for it, for traces.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut(_) => "timed_out",
            Self::Overloaded => "overloaded",
            Self::Corrupt { .. } => "corrupt",
            Self::SealedByUnknownKey { .. } => "sealed_by_unknown_key",
        }
    }
}

/// What the server or its connection said, without anything that may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Cause(String);

impl Cause {
    pub(super) const UNEXPECTED_ANSWER: &str = "the server answered in a form that no script of ours has";

    pub(super) const SILENT: &str = "the server has stopped answering";

    pub(super) const NO_MASTER: &str = "no master can be found";

    pub(super) const NO_KEY: &str = "a request without a key has no place in a cluster";

    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<&redis::RedisError> for Cause {
    /// Keeps what the client says of a connection, and the code and text of the server's own errors.
    fn from(error: &redis::RedisError) -> Self {
        let text = match (error.code(), error.detail()) {
            // Servers repeat the arguments of commands that they do not know, a password among them.
            (Some(code), Some(detail)) if !detail.contains("with args") => format!("{code} {detail}"),
            (Some(code), _) => code.to_owned(),
            (None, _) if error.is_io_error() => error.to_string(),
            (None, _) => error.category().to_owned(),
        };
        Self(text)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {}

/// Why the `[store]` section does not make a store. A server that is away is no reason: readiness says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none. It is not repeated, since it may hold a password.
    #[error(
        "store.url must be redis://…, rediss://…, redis+sentinel://…, redis+cluster://…, redis+unix://… or \"memory\""
    )]
    Url,
    /// The address is to name several hosts, and does not.
    #[error("store.url {0}")]
    Hosts(&'static str),
    /// The client does not take the address.
    #[error("store.url cannot be used")]
    Client(#[source] Cause),
    /// The certificates would not be used.
    #[error("store.tls is for addresses that begin with rediss")]
    TlsUnused,
    /// One of the two is missing.
    #[error("store.tls.certificate and store.tls.key go together")]
    TlsPair,
    /// A file of `store.tls`, or `trusted_ca`, cannot be read.
    #[error("{} cannot be read", path.display())]
    TlsFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of certificates holds none.
    #[error("{} holds no certificate in PEM", .0.display())]
    TlsForm(PathBuf),
    /// What the files hold makes no TLS.
    #[error("the certificates of the store cannot be used")]
    Tls(#[source] Cause),
    /// The prefix would break the form of keys.
    #[error("store.key_prefix must have 1 to 64 printable ASCII characters, without braces")]
    KeyPrefix,
    /// Session URIs are never stored in the clear.
    #[error("a Redis store needs store.encryption_keys")]
    NoKeys,
    /// The id of a key is malformed or taken.
    #[error("{0:?} is not the id of a key: 1 to 8 characters of a to z, 0 to 9, \"-\" and \"_\", each id once")]
    KeyId(String),
    /// The key file cannot be read.
    #[error("the key file {} cannot be read", path.display())]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key file holds something else.
    #[error("the key file {} must hold 32 bytes in standard base64", .0.display())]
    KeyForm(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_never_repeats_the_arguments_of_a_command() {
        for (name, detail, expected) in [
            ("an ordinary error", "value is not an integer", "ERR value is not an integer"),
            ("an unknown command", "unknown command 'HELLO', with args beginning with: 'AUTH' 'hunter2'", "ERR"),
        ] {
            let error = redis::make_extension_error("ERR".to_owned(), Some(detail.to_owned()));
            assert_eq!(Cause::from(&error).to_string(), expected, "{name}");
        }
    }
}
