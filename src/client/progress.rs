//! What a caller can watch of an upload under way.

use std::time::Duration;

use crate::model::id::UploadId;

use super::error::Trouble;
use super::wire::TransferKind;

/// Told of everything that happens. Called between network operations, so it must not block for long.
pub type Watch<'a> = &'a (dyn Fn(Event<'_>) + Send + Sync);

/// One thing that happened to an upload.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The file is being read for its digests.
    Hashing {
        /// Bytes read.
        done: u64,
        /// Bytes to read.
        total: u64,
    },
    /// The file's digests are known.
    Hashed {
        /// The file's size.
        bytes: u64,
    },
    /// A pipe is read: how much there is shows at its end, and nothing can be resumed after a kill.
    Streaming,
    /// What an earlier run left is not continued.
    StartedAnew(Anew),
    /// The upload is known to the broker.
    Admitted {
        /// Its id.
        id: UploadId,
    },
    /// Storage said where to go on after an interruption, in this run or before it.
    Resumed {
        /// The first byte that is sent again.
        offset: u64,
    },
    /// Storage has this much for certain.
    Persisted {
        /// Bytes persisted.
        bytes: u64,
        /// Bytes in all, if that is known by now.
        total: Option<u64>,
    },
    /// Something went wrong, and is tried again after a pause.
    Interrupted {
        /// What went wrong.
        trouble: &'a Trouble,
        /// How long the pause is.
        pause: Duration,
    },
    /// The session was lost or the signed URL has ended; the broker gave another, which begins at the first byte.
    Renewed {
        /// What it gave.
        kind: TransferKind,
    },
    /// Storage has all bytes; the broker is asked to verify them.
    Verifying,
}

/// Why what an earlier run left is not continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// The file has other bytes now. The old upload is cancelled.
    FileChanged,
    /// The file is to be uploaded otherwise: another name, policy, type, transfer or metadata. The old upload is cancelled.
    OrderChanged,
    /// The earlier run spoke with another broker.
    OtherBroker,
    /// The broker does not know the upload any more.
    Forgotten,
    /// The upload ended without the object: rejected, cancelled, expired.
    Ended,
    /// The state file is damaged, or of another version.
    StateUnreadable,
}
