//! Why an operation on an upload did not happen.

use std::time::Duration;

use url::Url;

use crate::model::name::{PolicyName, RegionName};
use crate::model::size::ByteCount;
use crate::policy::Violation;
use crate::storage;
use crate::store::{self, LimitHit};

/// Why an operation did not happen. Each variant is something that the caller, or the operator, can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Also when the named policy does not exist: who may not use a policy may not learn that it is there.
    #[error("no policy admits this")]
    PolicyDenied,
    /// The caller has to choose.
    #[error("several policies admit this, so one must be named")]
    PolicyAmbiguous {
        /// What there is to choose from.
        candidates: Vec<PolicyName>,
    },
    /// Well-formed, and not allowed.
    #[error("the policy does not allow this upload")]
    Violations(Vec<Violation>),
    /// The policy keeps its uploads in regions that this one is not among, or another one is nearer and this one does not
    /// stand in for it.
    #[error("another region takes this upload")]
    Misdirected {
        /// The region to go to.
        region: RegionName,
        /// Its broker.
        url: Url,
    },
    /// A limit of the principal's is reached.
    #[error("a limit is reached")]
    Limit {
        /// The policy whose limit it is.
        policy: PolicyName,
        /// The limit, and when to come back.
        hit: LimitHit,
    },
    /// Another attempt with the same idempotency key is under way.
    #[error("a request with this idempotency key is under way")]
    IdempotencyInProgress {
        /// When that attempt is over, one way or the other.
        retry_after: Duration,
    },
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for another request")]
    IdempotencyMismatch,
    /// Also when it is someone else's: who may not see it may not learn that it exists.
    #[error("no such upload")]
    NotFound,
    /// Storage does not have all bytes.
    #[error("storage has {} bytes so far, and the upload is not finished", received.0)]
    NotComplete {
        /// How many it has.
        received: ByteCount,
    },
    /// Storage does not know the session any more, and the object is not there.
    #[error("storage has lost the session")]
    SessionLost,
    /// The operation does not fit the state.
    #[error("the upload is {state}")]
    InvalidState {
        /// The state, as on the wire.
        state: &'static str,
    },
    /// The principal listens to as many uploads as one may.
    #[error("at most {limit} streams of events can be open")]
    TooManyListeners {
        /// How many one may.
        limit: usize,
    },
    /// There are as many listeners as this instance takes, or it is about to end.
    #[error("no more streams of events can be opened here")]
    NoMoreListeners,
    /// Others changed the upload at the same moment, again and again.
    #[error("the upload was changed by another request at the same time")]
    Contended,
    /// What is known of the upload could not be read or written.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// Storage did not do its part.
    #[error("storage failed")]
    Storage(#[from] storage::Error),
}
