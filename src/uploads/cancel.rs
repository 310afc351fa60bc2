//! Ending an upload before its bytes are there: because its owner says so, or because its time is over.

use tokio::time::Instant;

use super::{Attempt, Error, TRANSITION_ATTEMPTS, Uploads};
use crate::model::id::UploadId;
use crate::model::principal::Principal;
use crate::model::upload::{Evidence, Witness};
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
            if let Some(session) = &tracked.session {
                self.storage.cancel(session, deadline).await?;
                // Either may win where a cancel races the last chunk, so the object decides (storage documentation,
                // "Resumable uploads", cancelling).
                if let Some(object) = self.arrived(&tracked.upload, deadline).await? {
                    return self.judge(tracked, object, witness, deadline).await;
                }
            }
            match self.attempt(tracked, evidence.clone()).await? {
                Attempt::Settled(settled) => return Ok(settled),
                // Perhaps it has a session by now, so begin again.
                Attempt::Overtaken(current) => tracked = current,
            }
        }
        Err(Error::Contended)
    }
}
