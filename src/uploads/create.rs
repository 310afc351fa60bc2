//! Creating an upload: intent first, then the session, then its URI beside the record.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, info, warn};

use super::{ATTACH_ATTEMPTS, ATTACH_PAUSE, Error, Uploads, audit};
use crate::model::id::UploadId;
use crate::model::idempotency::{Fingerprint, IdempotencyKey};
use crate::model::name::RegionName;
use crate::model::principal::Principal;
use crate::model::secret::SessionUri;
use crate::model::upload::{NewUpload, Upload, UploadState};
use crate::policy::{Admission, Denial};
use crate::routing::{Arrival, Choice, Placed};
use crate::store::{Admitted, Attached, Intent, Lease, LimitHit, Tracked};
use crate::telemetry::trace;

/// What a lease has beyond the time that storage may take: for both round trips to the store.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// What belongs to a create request beside its body.
#[derive(Clone, Debug)]
pub struct CreateContext {
    /// The client's key, with a digest of what it asked for.
    pub idempotency: Option<(IdempotencyKey, Fingerprint)>,
    /// The browser's origin, if it is allowed: the session then answers that origin, and no other.
    pub origin: Option<String>,
    /// Where the client is, and over which brokers the request came.
    pub arrival: Arrival,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// What became of a create request.
#[derive(Debug)]
pub enum Creation {
    /// The upload was created, here.
    Here(Box<Created>),
    /// Nothing was done. The broker of this region is nearer and is to be asked; should it fail, the request comes back
    /// with [`Hop::Back`](crate::routing::Hop::Back).
    Elsewhere {
        /// The region.
        region: RegionName,
        /// The nearest region that is up and that the policy allows, where that is known.
        nearest: Option<RegionName>,
        /// Whether the upload may be here as well.
        or_here: bool,
    },
}

/// A created upload.
#[derive(Debug)]
pub struct Created {
    /// The upload, with its session unless it is final by now.
    pub tracked: Tracked,
    /// Whether an earlier request with the same idempotency key created it.
    pub replayed: bool,
    /// The nearest region that is up and that the policy allows, where that is known.
    pub nearest: Option<RegionName>,
    /// Where the client is, and over which brokers the request came.
    pub arrival: Arrival,
}

impl Uploads {
    /// Admits an upload, opens its session and records both; or says which region is to be asked instead.
    ///
    /// The record and its reservation are durable before storage is asked; the session's URI is attached after, and
    /// only then given out. Runs to its end even when the caller goes away, so that no reservation waits for a lease.
    ///
    /// # Errors
    /// When policy or limits refuse it or another region is to take it, an idempotency key stands in the way, or the store
    /// or storage fails. After an error nothing is handed out, and what was reserved is free again, at the latest when the
    /// lease is over.
    pub async fn create(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        request: NewUpload,
        context: CreateContext,
    ) -> Result<Creation, Error> {
        let uploads = Arc::clone(self);
        let creation = async move { uploads.create_now(&principal, &request, &context).await };
        let task = tokio::spawn(trace::carried(creation).in_current_span());
        match task.await {
            Ok(outcome) => outcome,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and with it whoever asked.
                Err(_) => Err(Error::Contended),
            },
        }
    }

    /// The same on whoever's task it is called. Dropped in between it leaves what a broker leaves that dies.
    pub(super) async fn create_now(
        &self,
        principal: &Principal,
        request: &NewUpload,
        context: &CreateContext,
    ) -> Result<Creation, Error> {
        let now = self.clock.now();
        let id = UploadId::new(principal.id.partition(), self.randomness.bytes());
        let admission = self.policies.decide(principal, request, id, now).map_err(Error::from)?;
        trace::record("upload.policy", || admission.policy.to_string());
        let nearest = match self.place(principal, &admission, context).await? {
            Placement::Here { nearest } => nearest,
            Placement::Elsewhere { region, nearest, or_here } => {
                return Ok(Creation::Elsewhere { region, nearest, or_here });
            }
        };
        self.check_metadata(request.transfer, &admission.attributes)?;
        let created = |tracked, replayed| {
            Creation::Here(Box::new(Created { tracked, replayed, nearest: nearest.cloned(), arrival: context.arrival }))
        };
        let upload = Upload {
            id,
            principal: principal.id,
            policy: admission.policy.clone(),
            region: self.region.name.clone(),
            bucket: self.region.bucket.clone(),
            object: admission.object.clone(),
            promise: admission.promise.clone(),
            attributes: admission.attributes.clone(),
            transfer: request.transfer,
            created_at: now,
            expires_at: now.plus(admission.session_lifetime),
            state: UploadState::Admitted { lease_until: now.plus(self.storage_timeout + LEASE_MARGIN) },
        };
        let intent = Intent {
            upload: &upload,
            owner: principal.owner(),
            reserve: admission.reserve,
            limits: admission.limits,
            enforcement: admission.enforcement,
            idempotency: context.idempotency,
            now,
        };
        let (upload, lease) = match self.store.admit(&intent).await? {
            Admitted::Granted { lease, would_refuse } => {
                self.report(&admission, would_refuse.as_ref());
                (upload, lease)
            }
            // The same upload as before: its name, its reservation, and a new session.
            Admitted::Resumed { upload, lease } => (upload, lease),
            Admitted::Replayed(tracked) => {
                let tracked = self.ended_in_time(tracked, context.deadline).await?;
                trace::record("upload.id", || tracked.upload.id.to_string());
                audit::granted("create", audit::Grant::Repeated, &tracked);
                return Ok(created(tracked, true));
            }
            Admitted::InProgress { until } => {
                return Err(Error::IdempotencyInProgress { retry_after: until.since(now) });
            }
            Admitted::Mismatch => return Err(Error::IdempotencyMismatch),
            Admitted::Refused(hit) => {
                self.metrics.observe_refusal(&admission.policy, hit.name());
                return Err(Error::Limit { policy: admission.policy, hit });
            }
        };
        trace::record("upload.id", || upload.id.to_string());
        let session = match self.open_transfer(&upload, context.origin.as_deref(), context.deadline).await {
            Ok(session) => session,
            Err(error) => {
                self.abandon(&upload, &lease).await;
                return Err(error);
            }
        };
        let tracked = self.attach(&upload, &lease, &session).await?;
        self.remember_created(&tracked, principal, context.idempotency);
        self.metrics.observe_created(&tracked.upload);
        audit::granted("create", audit::Grant::First, &tracked);
        self.routing.metrics.observe_routed(&tracked.upload.region, nearest, context.arrival.how_in_metrics());
        Ok(created(tracked, false))
    }

    /// Decides which region the upload goes to, before anything is reserved for it.
    async fn place(
        &self,
        principal: &Principal,
        admission: &Admission,
        context: &CreateContext,
    ) -> Result<Placement<'_>, Error> {
        let placed = self.routing.place(&context.arrival, admission.regions.as_deref());
        // The configuration is refused when a policy names regions that are not there.
        let Placed { choice, nearest } = placed.ok_or(Error::PolicyDenied)?;
        let (region, or_here, is_asked) = match choice {
            Choice::Here => return Ok(Placement::Here { nearest }),
            Choice::Ask { region, or_here } => (region, or_here, true),
            Choice::Refer { region, or_here } => (region, or_here, false),
        };
        // While the other region was down, or did not answer, an upload was made here: a repeat gets that one, and no
        // second one there.
        if let Some((key, _)) = context.idempotency
            && or_here
            && self.store.knows_key(principal.id, key, self.clock.now()).await?
        {
            return Ok(Placement::Here { nearest });
        }
        if is_asked {
            Ok(Placement::Elsewhere { region: region.clone(), nearest: nearest.cloned(), or_here })
        } else {
            Err(self.misdirected(region))
        }
    }

    /// The refusal that names another region.
    pub(super) fn misdirected(&self, region: &RegionName) -> Error {
        match self.regions.iter().find(|known| known.name == *region) {
            Some(known) => Error::Misdirected { region: known.name.clone(), url: known.url.clone() },
            None => Error::PolicyDenied,
        }
    }

    /// Frees what was reserved for a session that did not come to be. If this fails too, the lease's end frees it.
    async fn abandon(&self, upload: &Upload, lease: &Lease) {
        if let Err(error) = self.store.abandon(lease, upload).await {
            warn!(upload.id = %upload.id, error = %error, "a reservation stays until its lease is over");
        }
    }

    pub(super) async fn attach(&self, upload: &Upload, lease: &Lease, session: &SessionUri) -> Result<Tracked, Error> {
        let due = self.next_look(upload, &UploadState::Pending).unwrap_or(upload.expires_at);
        let mut attached = self.store.attach(lease, upload, session, due).await;
        for _ in 1..ATTACH_ATTEMPTS {
            // Perhaps only the answer was lost. Asking again is safe, and finds out.
            let Err(error) = &attached else { break };
            info!(upload.id = %upload.id, error = %error, "a session is attached once more");
            tokio::time::sleep(ATTACH_PAUSE).await;
            attached = self.store.attach(lease, upload, session, due).await;
        }
        // The last failure is passed on and the session left alone. It may be recorded all the same, when only
        // the answer was lost, and a repeat with the same key then finds it working. If it is not, nobody knows it.
        match attached? {
            Attached::Tracked(tracked) => Ok(tracked),
            Attached::LeaseLost(_) => {
                // Cancelled meanwhile, or another attempt has taken over: this session must not be deliverable.
                self.discard(upload, session).await;
                Err(Error::Contended)
            }
        }
    }

    /// Counts and logs what a policy under `report_only` would have refused.
    fn report(&self, admission: &Admission, limit: Option<&LimitHit>) {
        let violated = admission.would_refuse.iter().map(|violation| violation.limit.as_str());
        for limit in violated.chain(limit.map(LimitHit::name)) {
            self.metrics.observe_report(&admission.policy, limit);
            info!(policy = %admission.policy, limit, "the policy would refuse this upload, and only reports");
        }
    }
}

/// Where an upload goes.
enum Placement<'a> {
    Here { nearest: Option<&'a RegionName> },
    Elsewhere { region: RegionName, nearest: Option<RegionName>, or_here: bool },
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NotAdmitted => Self::PolicyDenied,
            Denial::Ambiguous { candidates } => Self::PolicyAmbiguous { candidates },
            Denial::Violations(violations) => Self::Violations(violations),
        }
    }
}
