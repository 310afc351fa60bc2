//! Why an upload did not get to its end, and what stood in its way for a while.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::digest::Crc32c;
use crate::model::time::Span;

/// Why [`Client::upload`](super::Client::upload) ended without a final state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a device, a socket.
    #[error("{} is neither a regular file nor a pipe", .0.display())]
    NotAFile(PathBuf),
    /// A pipe's size is not known before its end, and one request for everything has to declare it.
    #[error("what is read from a pipe cannot be sent as a simple upload: its size is not known before it ends")]
    SimplePipe,
    /// The file's own name cannot be declared.
    #[error("{} cannot be uploaded under its name: {reason}", path.display())]
    FileName {
        /// The file.
        path: PathBuf,
        /// What its name breaks.
        reason: String,
    },
    /// The bytes sent so far are of a file that no longer exists. The upload was cancelled.
    #[error("{} was changed while it was being uploaded; run the command again to start anew", .0.display())]
    SourceChanged(PathBuf),
    /// What is needed to resume cannot be kept.
    #[error("the state file {} cannot be used", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no token to be had.
    #[error("the token file {} cannot be read", path.display())]
    Token {
        /// The token file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token cannot stand in a header.
    #[error("the token must be one line of at most 16 KiB of printable ASCII characters")]
    TokenForm,
    /// The file given for additional root certificates cannot be read.
    #[error("the certificate file {} cannot be read", path.display())]
    RootsFile {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can be read, but holds no certificates.
    #[error("{} holds no certificates in PEM form", .0.display())]
    RootsForm(PathBuf),
    /// The TLS stack or the resolver cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
    /// The broker said no, and would say it again.
    #[error("the broker refused to {operation} the upload: {refusal}")]
    Refused {
        /// What was asked of it.
        operation: Operation,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// An answer of the broker that does not fit its contract.
    #[error("the broker's answer to {operation} the upload cannot be used: {what}")]
    Nonsense {
        /// What was asked of it.
        operation: Operation,
        /// What is wrong with the answer.
        what: &'static str,
    },
    /// Storage said no, and would say it again.
    #[error(
        "storage refused the bytes at offset {offset} with status {status}{}",
        reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default()
    )]
    StorageRefused {
        /// Storage's status code.
        status: u16,
        /// Storage's word for what is wrong, such as `EntityTooLarge`, if it has one.
        reason: Option<String>,
        /// Where the refused request stood.
        offset: u64,
    },
    /// The answer to a signed URL does not fit storage's own documentation.
    #[error("storage's answer to the start of the upload cannot be used: {0}")]
    StorageNonsense(&'static str),
    /// Storage lost bytes of a pipe that it had confirmed before. They cannot be read again. The upload was cancelled.
    #[error("storage lost what it had confirmed, and a pipe cannot be read again; start it anew")]
    PipeLost,
    /// Storage has forgotten the session, and this broker cannot open another for the same upload. The upload was
    /// cancelled.
    #[error("the storage session was lost, and the broker cannot renew it; run the command again to start anew")]
    SessionLost,
    /// Session after session was lost.
    #[error("the storage session was lost {0} times")]
    SessionLostAgain(u32),
    /// Nothing was gained for too long. What is persisted stays, and can be resumed.
    #[error("no progress within {}", Span(*.patience))]
    GaveUp {
        /// How long progress was waited for.
        patience: Duration,
        /// What stood in the way last.
        #[source]
        trouble: Trouble,
    },
    /// The upload is `completed`, but not with this file's bytes.
    #[error("the stored object is not this file: {stored}, where {sent} was sent")]
    Mismatch {
        /// What the broker says is stored.
        stored: Content,
        /// What this file has.
        sent: Content,
    },
}

/// A size, and the checksum of that many bytes where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The number of bytes.
    pub bytes: u64,
    /// Their checksum.
    pub crc32c: Option<Crc32c>,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        self.crc32c.map_or(Ok(()), |checksum| write!(f, " with CRC32C {checksum}"))
    }
}

/// What stood in the way of one attempt, and may be gone at the next.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The broker is busy, or away.
    #[error("the broker answered {0}")]
    Broker(Box<Refusal>),
    /// No connection to the broker, or none that held.
    #[error("the broker could not be reached")]
    BrokerUnreachable(#[source] reqwest::Error),
    /// The broker has not opened the upload's session yet.
    #[error("the broker is still opening the upload's session")]
    BrokerOpening,
    /// Storage has everything, but the broker has no proof of it.
    #[error("the broker does not see the object yet")]
    BrokerUnaware,
    /// Storage is busy, or away.
    #[error("storage answered {0}")]
    Storage(u16),
    /// No connection to storage, or none that held.
    #[error("the connection to storage failed")]
    StorageUnreachable(#[source] reqwest::Error),
    /// Neither bytes nor an answer moved for a while.
    #[error("the connection to storage stood still")]
    StorageSilent,
    /// Storage answered, but persisted none of the bytes.
    #[error("storage kept nothing of what was sent")]
    StorageKeptNothing,
    /// Storage answered that it has less than it had.
    #[error("storage answered that it has less than it had")]
    StorageForgot,
    /// Storage answered what cannot be understood.
    #[error("storage answered with a Range that cannot be")]
    StorageRange,
}

/// What is asked of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `POST /v1/uploads`.
    Create,
    /// `GET /v1/uploads/{id}`.
    Find,
    /// `POST /v1/uploads/{id}/complete`.
    Complete,
    /// `POST /v1/uploads/{id}/renew`.
    Renew,
    /// `DELETE /v1/uploads/{id}`.
    Cancel,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Find => "show",
            Self::Complete => "complete",
            Self::Renew => "renew",
            Self::Cancel => "cancel",
        })
    }
}

/// An answer of the broker that is no success (RFC 9457), as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// The problem's `code`.
    pub code: Option<String>,
    /// The problem's `detail`, or its `title`.
    pub detail: Option<String>,
    /// What of the policy was broken.
    pub violations: Vec<Violation>,
    /// The broker to be asked instead of this one.
    pub elsewhere: Option<String>,
    /// The id under which the broker logged it.
    pub request_id: Option<String>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

/// One broken limit of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The limit's name.
    pub limit: String,
    /// What the policy allows.
    pub allowed: String,
    /// What it was given.
    pub given: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ", {detail}")?;
        }
        for Violation { limit, allowed, given } in &self.violations {
            write!(f, "; {limit}: allowed {allowed}, given {given}")?;
        }
        if let Some(url) = &self.elsewhere {
            write!(f, "; the broker to ask is {url}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

impl Error {
    /// Whether the upload cannot be continued by anyone: it is to be cancelled, and the next run starts anew.
    ///
    /// Everything else may pass (a full disk, a missing permission, a broker that is away), and what is persisted is
    /// kept for it.
    pub(super) const fn is_the_end(&self) -> bool {
        match self {
            Self::SourceChanged(_)
            | Self::SessionLost
            | Self::SessionLostAgain(_)
            | Self::PipeLost
            | Self::Mismatch { .. } => true,
            // 401 and 403 end when a permission or the billing is repaired (storage documentation, "HTTP status and
            // error codes"); other refusals are of this session's bytes, size or digest, for good.
            Self::StorageRefused { status, .. } => !matches!(status, 401 | 403),
            Self::Source { .. }
            | Self::NotAFile(_)
            | Self::SimplePipe
            | Self::StorageNonsense(_)
            | Self::FileName { .. }
            | Self::State { .. }
            | Self::Token { .. }
            | Self::TokenForm
            | Self::RootsFile { .. }
            | Self::RootsForm(_)
            | Self::Http(_)
            | Self::Refused { .. }
            | Self::Nonsense { .. }
            | Self::GaveUp { .. } => false,
        }
    }
}
