//! What uploads that ended otherwise than completed have left at storage, and when to look for it.
//!
//! A cancel can race the last chunk, and a session that a client opened with a signed URL is known to nobody here. So what
//! was to be dead is looked at again: by the sweeper, and by notifications of objects that come late.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::sweep::Settled;
use super::{Error, Uploads};
use crate::model::secret::SessionUri;
use crate::model::time::Timestamp;
use crate::model::upload::{TransferKind, Upload};
use crate::storage::{self, Progress};
use crate::store::Tracked;

/// How long after its end an upload is looked at again, to see whether anything was left.
pub(super) const FIRST_CLEAN_UP: Duration = Duration::from_secs(60);

/// The longest pause between two such looks.
const LONGEST_CLEAN_UP_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// How long a session lives (storage documentation, "Resumable uploads"), which a client may have opened with a signed URL
/// in its last moment.
const SESSION_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// How long a request may take that began with a signed URL in its last moment.
const LAST_REQUEST: Duration = Duration::from_secs(3600);

impl Uploads {
    /// Takes away what an upload that was cancelled, rejected or has expired has left: a session that works all the same,
    /// or an object that came late.
    pub(super) async fn clean_up(&self, tracked: &Tracked, deadline: Instant) -> Result<Settled, Error> {
        let Tracked { upload, session, .. } = tracked;
        let mut settled = Settled::Clean;
        let revocable = session.as_ref().filter(|_| !upload.transfer.is_signed());
        let object = match revocable {
            Some(session) => match self.revoked_again(upload, session, deadline).await? {
                Leftover::Session => {
                    settled = Settled::Cleaned;
                    self.arrived_for_certain(upload, deadline).await?
                }
                Leftover::Object(generation) => Some(generation),
                Leftover::Nothing => self.arrived_for_certain(upload, deadline).await?,
            },
            None => self.arrived_for_certain(upload, deadline).await?,
        };
        if let Some(generation) = object
            && self.delete_stray(upload, generation, deadline).await?
        {
            settled = Settled::Cleaned;
        }
        Ok(settled)
    }

    async fn revoked_again(&self, upload: &Upload, session: &SessionUri, deadline: Instant) -> Result<Leftover, Error> {
        match self.storage.look(session, deadline).await {
            Ok(Progress::Finished(Some(made))) => return Ok(Leftover::Object(made.generation)),
            Ok(Progress::Finished(None) | Progress::Gone) => return Ok(Leftover::Nothing),
            // A session that cannot be asked can be cancelled all the same.
            Ok(Progress::Persisted(_)) | Err(storage::Error::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match self.storage.cancel(session, deadline).await {
            Ok(storage::Cancelled::Ended) => {
                info!(upload.id = %upload.id, "a session that was to be dead was revoked again");
                Ok(Leftover::Session)
            }
            Ok(storage::Cancelled::WasGone | storage::Cancelled::Finished) => Ok(Leftover::Nothing),
            // To repeat it is of no use.
            Err(error @ storage::Error::Refused { .. }) => {
                warn!(upload.id = %upload.id, error = %error, "a session that was to be dead cannot be revoked");
                Ok(Leftover::Nothing)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The generation of the object of that name, where the name is this upload's alone. Where names repeat, an object is
    /// another upload's until the session itself says otherwise.
    async fn arrived_for_certain(&self, upload: &Upload, deadline: Instant) -> Result<Option<i64>, Error> {
        if !upload.object.as_str().contains(&upload.id.to_string()) {
            return Ok(None);
        }
        Ok(self.arrived(upload, deadline).await?.map(|object| object.generation))
    }

    /// Deletes an object that came too late, and gives whether it was there and is gone. The session that made it tells of
    /// it for days, so mostly it is gone since the upload was rejected.
    async fn delete_stray(&self, upload: &Upload, generation: i64, deadline: Instant) -> Result<bool, Error> {
        match self.storage.delete(&upload.bucket, &upload.object, generation, deadline).await {
            Ok(storage::Deleted::Gone) => {
                info!(upload.id = %upload.id, object.generation = generation, "an object that came too late was deleted");
                Ok(true)
            }
            Ok(storage::Deleted::WasGone | storage::Deleted::Replaced) => Ok(false),
            // Such as under a hold, which the operator has set, and must know of.
            Err(error @ storage::Error::Refused { .. }) => {
                warn!(
                    upload.id = %upload.id, object.generation = generation, error = %error,
                    "an object that came too late stays, since storage does not delete it"
                );
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What an upload that has ended had left at storage.
enum Leftover {
    Nothing,
    /// A session that took more.
    Session,
    /// What the session made, by its generation.
    Object(i64),
}

/// When an upload that ended at `ended_at` is to be cleaned up again: until nothing can write its object any more.
pub(super) fn next_clean_up(
    tracked: &Tracked,
    ended_at: Timestamp,
    settled: Settled,
    now: Timestamp,
) -> Option<Timestamp> {
    let pause = now.since(ended_at).clamp(FIRST_CLEAN_UP, LONGEST_CLEAN_UP_PAUSE);
    let url = tracked.session.as_ref().filter(|_| tracked.upload.transfer.is_signed());
    let Some(url_until) = url.and_then(storage::signed_until) else {
        // Once a session is dead it stays so.
        return (settled != Settled::Clean).then(|| now.plus(pause));
    };
    let session_life = match tracked.upload.transfer {
        TransferKind::SignedResumable => SESSION_LIFE,
        TransferKind::Simple | TransferKind::Resumable => Duration::ZERO,
    };
    let powerless_at = url_until.plus(session_life + LAST_REQUEST);
    (now < powerless_at).then(|| now.plus(pause).min(powerless_at.max(now.plus(FIRST_CLEAN_UP))))
}
