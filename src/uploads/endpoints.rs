//! Who is told how uploads end, as far as uploads know: which ends are recorded for whom, and what was given up.
//!
//! Deliveries themselves are made by others, out of the store's queues.

use tracing::warn;

use super::audit::Audit;
use super::{Error, Uploads};
use crate::model::endpoint::EndpointId;
use crate::model::id::UploadId;
use crate::model::principal::Principal;
use crate::model::upload::{StateKind, UploadState};
use crate::store::{self, Parked};

/// How many deliveries one call puts back among those that wait: a round trip each.
const REPLAY_AT_ONCE: usize = 500;

/// A receiver of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What stands for it in what is stored.
    pub id: EndpointId,
    /// What it is called.
    pub name: String,
    /// The host that it is at. The rest of its address may hold a secret.
    pub host: String,
    /// The final states that it is told of.
    pub states: Vec<StateKind>,
}

/// A delivery that was given up, and what it was to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedDelivery {
    /// The delivery.
    pub parked: Parked,
    /// The final state of its upload.
    pub state: StateKind,
}

/// Some of the deliveries to an endpoint that were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedDeliveries {
    /// Those whose upload can be read, in the store's order: nothing can be told of others.
    pub deliveries: Vec<ParkedDelivery>,
    /// The last that was looked at, if others follow it.
    pub next: Option<UploadId>,
}

/// What became of a call to replay everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// How many deliveries are due again.
    pub count: u32,
    /// Whether more were parked than one call takes.
    pub remaining: bool,
}

/// Those of `endpoints` that are told when an upload enters `state`; nobody is, unless it is final.
pub(super) fn told_of(endpoints: &[Endpoint], state: &UploadState) -> Vec<EndpointId> {
    if !state.is_final() {
        return Vec::new();
    }
    let listening = endpoints.iter().filter(|endpoint| endpoint.states.contains(&state.kind()));
    listening.map(|endpoint| endpoint.id).collect()
}

impl Uploads {
    /// The endpoint of that name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name)
    }

    /// Deliveries to `endpoint` that were given up: up to `limit`, those behind `after`. A round trip for each.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn parked(
        &self,
        administrator: &Principal,
        endpoint: &Endpoint,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<ParkedDeliveries, Error> {
        let mut audit = Audit::begin(administrator, "list_parked").of_endpoint(&endpoint.name);
        let listed = self.list_parked(endpoint, after, limit).await;
        audit.read(&listed);
        listed
    }

    async fn list_parked(
        &self,
        endpoint: &Endpoint,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<ParkedDeliveries, Error> {
        let page = self.store.parked(endpoint.id, after, limit).await?;
        let mut deliveries = Vec::with_capacity(page.parked.len());
        for parked in page.parked {
            match self.store.find(parked.id).await {
                Ok(Some(tracked)) => {
                    let state = tracked.upload.state.kind();
                    deliveries.push(ParkedDelivery { parked, state });
                }
                Ok(None) => {}
                // One that cannot be read must not hide all the others.
                Err(error @ (store::Error::Corrupt { .. } | store::Error::SealedByUnknownKey { .. })) => {
                    warn!(upload.id = %parked.id, error = %error, "a parked delivery is not listed");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ParkedDeliveries { deliveries, next: page.next })
    }

    /// Puts a delivery that was given up back among those that wait, due at once. Gives whether it was given up, and its
    /// upload is still known.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails. Repeating the call is safe.
    pub async fn replay(&self, administrator: &Principal, endpoint: &Endpoint, id: UploadId) -> Result<bool, Error> {
        let mut audit = Audit::begin(administrator, "replay").of_upload(id).of_endpoint(&endpoint.name);
        let replayed = self.store.replay(id, endpoint.id, self.clock.now()).await;
        audit.outcome = match replayed {
            Ok(true) => "replayed",
            Ok(false) => "not parked",
            Err(_) => "failed",
        };
        if matches!(replayed, Ok(true)) {
            self.hint_at(id);
        }
        Ok(replayed?)
    }

    /// Does so with all that were given up, up to a bound.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails; some may be due again then. Repeating the call is safe.
    pub async fn replay_all(&self, administrator: &Principal, endpoint: &Endpoint) -> Result<Replayed, Error> {
        let mut audit = Audit::begin(administrator, "replay_all").of_endpoint(&endpoint.name);
        audit.replayed = Some(0);
        let replayed = self.replay_some(endpoint, audit.replayed.get_or_insert_default()).await;
        audit.outcome = if replayed.is_ok() { "replayed" } else { "failed" };
        replayed
    }

    /// Counts them in `count` as it goes, which counts also when it fails.
    async fn replay_some(&self, endpoint: &Endpoint, count: &mut u32) -> Result<Replayed, Error> {
        let page = self.store.parked(endpoint.id, None, REPLAY_AT_ONCE).await?;
        for parked in page.parked {
            *count += u32::from(self.store.replay(parked.id, endpoint.id, self.clock.now()).await?);
            self.hint_at(parked.id);
        }
        Ok(Replayed { count: *count, remaining: page.next.is_some() })
    }
}
