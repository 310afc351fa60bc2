//! Completing an upload: by what storage says, never by the client's word.

use tokio::time::Instant;
use tracing::warn;

use super::{Error, TRANSITION_ATTEMPTS, Uploads};
use crate::model::id::UploadId;
use crate::model::principal::Principal;
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::upload::{Evidence, StoredObject, Upload, UploadState, Witness};
use crate::storage::{self, FoundObject, Progress};
use crate::store::Tracked;

impl Uploads {
    /// The client says that it is done; storage is asked whether that is so.
    ///
    /// Gives the upload completed or rejected, also when it already was.
    ///
    /// # Errors
    /// [`Error::NotComplete`] while bytes are missing, [`Error::SessionLost`] when storage knows neither the session
    /// nor the object, [`Error::InvalidState`] when the upload was cancelled or has expired; else as
    /// [`Uploads::find`].
    pub async fn complete(&self, principal: &Principal, id: UploadId, deadline: Instant) -> Result<Tracked, Error> {
        let mut tracked = self.owned(principal, id).await?;
        if self.has_run_out(&tracked.upload) {
            tracked = self.end(tracked, Evidence::TimeRanOut, Witness::Client, deadline).await?;
        }
        if !tracked.upload.state.is_final() {
            tracked = match self.look(tracked, Witness::Client, deadline).await? {
                Looked::Progressed(tracked) => tracked,
                Looked::Lost(_) => return Err(Error::SessionLost),
            };
        }
        match &tracked.upload.state {
            UploadState::Completed { .. } | UploadState::Rejected { .. } => Ok(tracked),
            state @ (UploadState::Cancelled { .. } | UploadState::Expired { .. }) => {
                Err(Error::InvalidState { state: state.name() })
            }
            state @ (UploadState::Admitted { .. } | UploadState::Pending | UploadState::Uploading { .. }) => {
                Err(Error::NotComplete { received: state.received() })
            }
        }
    }

    /// Asks storage where the upload stands, and records the answer.
    pub(super) async fn refresh(&self, tracked: Tracked, deadline: Instant) -> Result<Tracked, Error> {
        if tracked.upload.state.is_final() {
            return Ok(tracked);
        }
        match self.look(tracked, Witness::Client, deadline).await? {
            // That the session is lost is for the client to find, and to mend; the upload is not over.
            Looked::Progressed(tracked) | Looked::Lost(tracked) => Ok(tracked),
        }
    }

    /// Looks at the session and, where it is over, at the object. `witness` is who had this done.
    pub(super) async fn look(
        &self,
        mut tracked: Tracked,
        witness: Witness,
        deadline: Instant,
    ) -> Result<Looked, Error> {
        for _ in 0..TRANSITION_ATTEMPTS {
            let Some(session) = &tracked.session else {
                // It was handed out all the same where the store lost what it had acknowledged.
                return match self.arrived(&tracked.upload, deadline).await? {
                    Some(object) => self.judge(tracked, object, witness, deadline).await.map(Looked::Progressed),
                    None => Ok(Looked::Progressed(tracked)),
                };
            };
            match self.seen(&tracked.upload, session, deadline).await? {
                Seen::Open(received) => match tracked.upload.promise.outgrown_by(received) {
                    None => return self.record(tracked, Evidence::Persisted(received)).await.map(Looked::Progressed),
                    // Nothing that is still to come can mend that, so nothing more is let in. It is written down first:
                    // once the session is revoked, only the record tells what it had.
                    Some(breach) => {
                        let session = tracked.session.clone();
                        let tracked = self.record(tracked, Evidence::Persisted(received)).await?;
                        if tracked.session != session {
                            return Ok(Looked::Progressed(tracked));
                        }
                        let broken = Evidence::Broken(breach, received);
                        return self.end(tracked, broken, witness, deadline).await.map(Looked::Progressed);
                    }
                },
                Seen::Object(object) => {
                    return self.judge(tracked, object, witness, deadline).await.map(Looked::Progressed);
                }
                Seen::Nothing => {
                    let current = self.store.find(tracked.upload.id).await?.ok_or(Error::NotFound)?;
                    if current.upload.state.is_final() {
                        return Ok(Looked::Progressed(current));
                    }
                    if current.session == tracked.session {
                        // It outgrew its limit, and was revoked by somebody who did not live to reject it, or is about to.
                        let received = current.upload.state.received();
                        let Some(breach) = current.upload.promise.outgrown_by(received) else {
                            return Ok(Looked::Lost(current));
                        };
                        let broken = Evidence::Broken(breach, received);
                        return self.end(current, broken, witness, deadline).await.map(Looked::Progressed);
                    }
                    // It was cancelled by a renewal. To call it lost would have its successor cancelled too.
                    tracked = current;
                }
            }
        }
        Err(Error::Contended)
    }

    /// What storage has of the upload: what the session says, and where that is over, the object.
    pub(super) async fn seen(&self, upload: &Upload, session: &SessionUri, deadline: Instant) -> Result<Seen, Error> {
        if upload.transfer.is_signed() {
            // There is no session that the broker knows: the object is all that can be seen.
            return Ok(match self.arrived(upload, deadline).await? {
                Some(object) => Seen::Object(object),
                None if self.url_has_ended(upload, session) => Seen::Nothing,
                None => Seen::Open(ByteCount::ZERO),
            });
        }
        let made = match self.storage.look(session, deadline).await? {
            Progress::Persisted(received) => return Ok(Seen::Open(received)),
            Progress::Finished(Some(made)) => made,
            Progress::Finished(None) | Progress::Gone => {
                return Ok(self.arrived(upload, deadline).await?.map_or(Seen::Nothing, Seen::Object));
            }
        };
        // A session of the XML interface says nothing of the type, which its initiation has fixed.
        let content_type = made.content_type.or_else(|| Some(upload.promise.content_type.clone()));
        let made = StoredObject { content_type, ..made };
        // The session tells what it made, and not whether that is still there.
        Ok(match self.storage.read_back(&upload.bucket, &upload.object, deadline).await? {
            Some(FoundObject { object, .. }) if object.generation == made.generation => Seen::Object(object),
            // Another object took its place: that does not undo this upload.
            Some(_) => Seen::Object(made),
            // A broken one is gone because it was judged before, and the broker did not live to record it.
            None if upload.promise.broken_by(&made).is_some() => Seen::Object(made),
            None => Seen::Nothing,
        })
    }

    /// The object of this upload, read from storage.
    ///
    /// A name that holds the upload's id belongs to nobody else. Where a policy overwrites, names repeat, and only the
    /// id in the object's metadata tells this upload's object from an earlier one. The client can write that entry
    /// too, so this is only for when the session itself does not tell what it made.
    pub(super) async fn arrived(&self, upload: &Upload, deadline: Instant) -> Result<Option<StoredObject>, Error> {
        let Some(found) = self.storage.read_back(&upload.bucket, &upload.object, deadline).await? else {
            return Ok(None);
        };
        let id = upload.id.to_string();
        let ours = upload.object.as_str().contains(&id) || found.upload_hint.as_deref() == Some(&id);
        Ok(ours.then_some(found.object))
    }

    /// Completes the upload if the object keeps every promise; deletes exactly this object and rejects it if not.
    ///
    /// The object goes first: should the broker die in between, the session still tells of it, and it is judged again.
    /// Where storage does not let it go, such as under a hold, the upload is rejected all the same.
    pub(super) async fn judge(
        &self,
        tracked: Tracked,
        object: StoredObject,
        witness: Witness,
        deadline: Instant,
    ) -> Result<Tracked, Error> {
        match tracked.upload.promise.broken_by(&object) {
            None => self.record(tracked, Evidence::Verified(object, witness)).await,
            Some(breach) => {
                let Upload { bucket, object: name, .. } = &tracked.upload;
                match self.storage.delete(bucket, name, object.generation, deadline).await {
                    Ok(_) => {}
                    Err(error @ storage::Error::Refused { .. }) => warn!(
                        upload.id = %tracked.upload.id, object.generation, error = %error,
                        "an object that broke a promise stays, since storage does not delete it"
                    ),
                    Err(error) => return Err(error.into()),
                }
                self.record(tracked, Evidence::Broken(breach, object.size)).await
            }
        }
    }
}

/// What storage has of an upload.
pub(super) enum Seen {
    /// The session takes more, and has this many bytes.
    Open(ByteCount),
    /// This object was made, and is to be judged.
    Object(StoredObject),
    /// The session is over, and no object tells what for.
    Nothing,
}

/// What a look at an upload found.
pub(super) enum Looked {
    /// Storage knows it; the upload is as recorded now.
    Progressed(Tracked),
    /// Storage knows neither the session nor the object.
    Lost(Tracked),
}
