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

/// How many deliveries one page looks at that have nothing to tell any more.
const LOOK_AT: usize = 1000;

/// How many are read at a time, so that short pages do not cost a round trip for each that has nothing to tell.
const LEAST_AT_ONCE: usize = 50;

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

    /// Deliveries to `endpoint` that were given up: up to `limit`, those behind `after`. A round trip for each. Passes over
    /// no more than a thousand whose uploads are forgotten, so a page may have fewer than its limit although more follow.
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
        let mut listed = ParkedDeliveries { deliveries: Vec::new(), next: after };
        let mut looked_at = 0;
        // Uploads are forgotten before what was parked of them, and a page of those alone would say nothing.
        while listed.deliveries.len() < limit && looked_at < LOOK_AT {
            let page = self.store.parked(endpoint.id, listed.next, limit.max(LEAST_AT_ONCE)).await?;
            looked_at += page.parked.len();
            for parked in page.parked {
                if listed.deliveries.len() == limit {
                    return Ok(listed);
                }
                listed.next = Some(parked.id);
                match self.store.find(parked.id).await {
                    Ok(Some(tracked)) => {
                        let state = tracked.upload.state.kind();
                        listed.deliveries.push(ParkedDelivery { parked, state });
                    }
                    Ok(None) => {}
                    // One that cannot be read must not hide all the others.
                    Err(error @ (store::Error::Corrupt { .. } | store::Error::SealedByUnknownKey { .. })) => {
                        warn!(upload.id = %parked.id, error = %error, "a parked delivery is not listed");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            listed.next = page.next;
            if listed.next.is_none() {
                break;
            }
        }
        Ok(listed)
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

#[cfg(all(test, feature = "demo"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Randomness;
    use crate::store::testing::Server;
    use crate::store::{Attempted, Failures, Store};
    use crate::uploads::tests::{ada, create, soon, uploads};

    #[tokio::test]
    async fn a_page_passes_over_what_has_nothing_to_tell() {
        let Some(server) = Server::start() else { return };
        let (_emulator, uploads) = uploads().await;
        let Some(mut uploads) = Arc::into_inner(uploads) else { panic!("shared") };
        uploads.store = Arc::new(Store::open(&server.settings("t"), Randomness::System).await.unwrap());
        let endpoint = Endpoint {
            id: EndpointId::of("all"),
            name: "all".to_owned(),
            host: "all.example.com".to_owned(),
            states: vec![StateKind::Cancelled],
        };
        uploads.endpoints = vec![endpoint.clone()];
        let uploads = Arc::new(uploads);
        let mut ids = Vec::new();
        for number in 0..70 {
            let id = create(&uploads).await.upload.id;
            uploads.cancel(&ada(), id, soon()).await.unwrap();
            let at = uploads.clock.now().plus(std::time::Duration::from_secs(number));
            let given_up = Attempted::GivenUp { failures: Failures::default(), at };
            uploads.store.settle_delivery(id, endpoint.id, &given_up).await.unwrap();
            ids.push(id);
        }
        for (number, id) in ids.iter().enumerate() {
            if number % 10 != 9 {
                uploads.store.forget(*id).await;
            }
        }
        let known: Vec<_> = ids.into_iter().skip(9).step_by(10).collect();
        for limit in [1, 2, 3, 7, 100] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = uploads.parked(&ada(), &endpoint, after, limit).await.unwrap();
                assert_eq!(page.deliveries.len(), limit.min(known.len() - seen.len()), "of {limit}");
                seen.extend(page.deliveries.into_iter().map(|delivery| delivery.parked.id));
                after = page.next;
                if after.is_none() || seen.len() == known.len() {
                    break;
                }
            }
            assert_eq!(seen, known, "of {limit}");
        }
    }
}
