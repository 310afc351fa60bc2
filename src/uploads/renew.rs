//! A new session for an upload whose session was lost, or answers another web origin than the caller's now.

use tokio::time::Instant;
use tracing::info;

use super::{ATTACH_ATTEMPTS, ATTACH_PAUSE, Error, TRANSITION_ATTEMPTS, Uploads, audit};
use crate::model::id::UploadId;
use crate::model::principal::Principal;
use crate::model::secret::SessionUri;
use crate::model::upload::{Evidence, UploadState, Witness};
use crate::store::{self, Advanced, Tracked};

impl Uploads {
    /// Gives the upload another session, or another signed URL, in place of the one that it has.
    ///
    /// The old session is asked first, since it may have finished: then the upload is what comes of that, completed or
    /// rejected. Else it is cancelled before another one is opened, so that there is never more than one that works.
    /// The upload keeps its id, its object's name, its reservation and its end; what was sent to the old session is
    /// lost. A signed URL cannot be cancelled, and ends by itself.
    ///
    /// Safe to drop and to repeat. What is opened and not recorded is told to nobody; the record then has the session
    /// that was cancelled, and the next renewal replaces that.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the upload is final, or was never opened; [`Error::Contended`] while it is being
    /// opened; [`Error::Misdirected`] when another region took it; else as [`Uploads::find`].
    pub async fn renew(
        &self,
        principal: &Principal,
        id: UploadId,
        origin: Option<&str>,
        deadline: Instant,
    ) -> Result<Tracked, Error> {
        let mut tracked = self.owned(principal, id).await?;
        if self.has_run_out(&tracked.upload) {
            tracked = self.end(tracked, Evidence::TimeRanOut, Witness::Client, deadline).await?;
        }
        if tracked.upload.state.is_final() {
            return Err(Error::InvalidState { state: tracked.upload.state.name() });
        }
        if tracked.upload.region != self.region.name {
            // A session is pinned to the region that opens it, and this bucket is not beside us.
            let taker = self.regions.iter().find(|region| region.name == tracked.upload.region);
            return Err(match taker {
                Some(region) => Error::Misdirected { region: region.name.clone(), url: region.url.clone() },
                None => Error::InvalidState { state: tracked.upload.state.name() },
            });
        }
        let Some(lost) = tracked.session.clone() else {
            return Err(match tracked.upload.state {
                UploadState::Admitted { lease_until } if lease_until > self.clock.now() => Error::Contended,
                // Nobody was ever told of it: who has its idempotency key creates it again.
                _ => Error::InvalidState { state: tracked.upload.state.name() },
            });
        };
        if let Some(object) = self.revoke(&tracked.upload, &lost, deadline).await? {
            return self.judge(tracked, object, Witness::Client, deadline).await;
        }
        let fresh = self.open_transfer(&tracked.upload, origin, deadline).await?;
        let renewed = self.replace(tracked, &lost, &fresh).await?;
        let is_ours = renewed.session.as_ref() == Some(&fresh);
        audit::granted("renew", if is_ours { audit::Grant::First } else { audit::Grant::Repeated }, &renewed);
        Ok(renewed)
    }

    /// Records `fresh` in place of `lost`, unless somebody else has replaced that or ended the upload.
    pub(super) async fn replace(
        &self,
        mut tracked: Tracked,
        lost: &SessionUri,
        fresh: &SessionUri,
    ) -> Result<Tracked, Error> {
        for _ in 0..TRANSITION_ATTEMPTS {
            match self.swap(&tracked, fresh).await? {
                Advanced::Done(renewed) => {
                    self.remember(&renewed);
                    self.metrics.observe_renewed(&renewed.upload);
                    return Ok(renewed);
                }
                Advanced::Conflict(current) if current.upload.state.is_final() => {
                    self.discard(&tracked.upload, fresh).await;
                    return Err(Error::InvalidState { state: current.upload.state.name() });
                }
                // It was recorded, only the answer was lost, and somebody has looked at it since.
                Advanced::Conflict(current) if current.session.as_ref() == Some(fresh) => {
                    self.remember(&current);
                    self.metrics.observe_renewed(&current.upload);
                    return Ok(current);
                }
                // Somebody looked, and recorded what the lost session had.
                Advanced::Conflict(current) if current.session.as_ref() == Some(lost) => tracked = current,
                // Another renewal came first: its session is the upload's, for every caller.
                Advanced::Conflict(current) => {
                    self.discard(&tracked.upload, fresh).await;
                    return Ok(current);
                }
                Advanced::Vanished => {
                    self.discard(&tracked.upload, fresh).await;
                    return Err(Error::NotFound);
                }
            }
        }
        self.discard(&tracked.upload, fresh).await;
        Err(Error::Contended)
    }

    /// One attempt to record, repeated while the store does not answer: as when a first session is attached, it may be
    /// that only the answer was lost, and asking again is safe.
    pub(super) async fn swap(&self, tracked: &Tracked, fresh: &SessionUri) -> Result<Advanced, store::Error> {
        let now = self.clock.now();
        let Ok(next) = tracked.upload.state.after(Evidence::SessionRenewed, now) else {
            return Ok(Advanced::Conflict(tracked.clone()));
        };
        let due = self.next_look(&tracked.upload, &next);
        let mut swapped = self.store.renew(tracked, next.clone(), fresh, due, now).await;
        for _ in 1..ATTACH_ATTEMPTS {
            let Err(error) = &swapped else { break };
            info!(upload.id = %tracked.upload.id, error = %error, "a new session is recorded once more");
            tokio::time::sleep(ATTACH_PAUSE).await;
            swapped = self.store.renew(tracked, next.clone(), fresh, due, now).await;
        }
        self.watchers.nudge(tracked.upload.id);
        swapped
    }
}
