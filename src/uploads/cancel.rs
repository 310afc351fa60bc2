//! Ending an upload before its bytes are there: because its owner says so, or because its time is over.

use tokio::time::Instant;

use super::audit::{Cancel, INTERRUPTED};
use super::complete::Seen;
use super::{Attempt, Error, TRANSITION_ATTEMPTS, Uploads};
use crate::model::id::UploadId;
use crate::model::principal::Principal;
use crate::model::secret::SessionUri;
use crate::model::upload::{Evidence, StoredObject, Upload, Witness};
use crate::storage;
use crate::store::Tracked;

impl Uploads {
    /// Cancels the caller's upload: the session is revoked at storage, and what was reserved is free.
    ///
    /// Gives the upload as it then is. A cancel that lost to the last chunk finds the object and says `completed`; an
    /// upload that was final before stays what it was.
    ///
    /// # Errors
    /// As [`Uploads::find`]. While storage is away nothing is cancelled: the capability could not be revoked.
    pub async fn cancel(&self, principal: &Principal, id: UploadId, deadline: Instant) -> Result<Tracked, Error> {
        let tracked = self.owned(principal, id).await?;
        let mut audit = Cancel { principal: principal.id, upload: id, outcome: INTERRUPTED };
        let ended = self.call_off(tracked, deadline).await;
        audit.outcome = ended.as_ref().map_or("failed", |ended| ended.upload.state.name());
        ended
    }

    /// Ends an upload because somebody wants it to, or because its time is over anyway.
    pub(super) async fn call_off(&self, tracked: Tracked, deadline: Instant) -> Result<Tracked, Error> {
        let evidence = if self.has_run_out(&tracked.upload) { Evidence::TimeRanOut } else { Evidence::CancelRequested };
        self.end(tracked, evidence, Witness::Client, deadline).await
    }

    /// Revokes the session, looks whether the object arrived all the same, and records the end.
    pub(super) async fn end(
        &self,
        mut tracked: Tracked,
        evidence: Evidence,
        witness: Witness,
        deadline: Instant,
    ) -> Result<Tracked, Error> {
        for _ in 0..TRANSITION_ATTEMPTS {
            if tracked.upload.state.is_final() {
                return Ok(tracked);
            }
            // Without a session, storage is still being asked for one. Whoever asks finds its lease gone, and cancels.
            if let Some(session) = &tracked.session
                && let Some(object) = self.revoke(&tracked.upload, session, deadline).await?
            {
                return self.judge(tracked, object, witness, deadline).await;
            }
            let session = tracked.session.clone();
            match self.attempt(tracked, evidence.clone()).await? {
                Attempt::Settled(settled) => return Ok(settled),
                // That one session outgrew its limit says nothing of the one that has replaced it.
                Attempt::Overtaken(current)
                    if matches!(evidence, Evidence::Broken(..)) && current.session != session =>
                {
                    return Ok(current);
                }
                // Perhaps it has a session by now, so begin again.
                Attempt::Overtaken(current) => tracked = current,
            }
        }
        Err(Error::Contended)
    }

    /// Takes the session's power away, and gives the object that it made, if it made one.
    ///
    /// The session is asked first: what it describes is its own, whereas the object of that name may be another's by
    /// now, may have lost the mark that tells whose it is, or may be gone because it was judged and not recorded. And a
    /// session may no longer say what it made once it was cancelled.
    pub(super) async fn revoke(
        &self,
        upload: &Upload,
        session: &SessionUri,
        deadline: Instant,
    ) -> Result<Option<StoredObject>, Error> {
        match self.seen(upload, session, deadline).await {
            Ok(Seen::Object(object)) => return Ok(Some(object)),
            // A signed URL has no session to cancel, and ends by itself.
            Ok(Seen::Open(_) | Seen::Nothing) if upload.transfer.is_signed() => return Ok(None),
            Err(error) if upload.transfer.is_signed() => return Err(error),
            // A session that cannot be asked can be cancelled all the same.
            Ok(Seen::Open(_) | Seen::Nothing) | Err(Error::Storage(storage::Error::Refused { .. })) => {}
            Err(error) => return Err(error),
        }
        let refusal = match self.storage.cancel(session, deadline).await {
            Ok(_) => None,
            Err(refusal @ storage::Error::Refused { .. }) => Some(refusal),
            Err(error) => return Err(error.into()),
        };
        // Either may win where a cancel races the last chunk, whatever it was answered, so the object decides (storage
        // documentation, "Resumable uploads", cancelling).
        match (self.seen(upload, session, deadline).await, refusal) {
            (Ok(Seen::Object(object)), _) => Ok(Some(object)),
            // To repeat it is of no use, and an upload must come to an end: but not while its session lives.
            (Ok(Seen::Open(_)), Some(refusal)) => Err(refusal.into()),
            (Ok(Seen::Open(_)), None) => Err(storage::Error::Nonsense("a cancelled session that is open").into()),
            (Ok(Seen::Nothing), _) => Ok(None),
            (Err(Error::Storage(storage::Error::Refused { .. })), None) => self.arrived(upload, deadline).await,
            (Err(error), _) => Err(error),
        }
    }
}
