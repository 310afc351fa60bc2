//! What clients do while servers are lost: uploads are created, go on and end, in many partitions at once, and each step is
//! timed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::testing::*;
use super::*;
use crate::model::upload::{Evidence, StateKind};

/// The pause of a client between two steps.
const PAUSE: Duration = Duration::from_millis(20);

/// Who is told of ends.
pub(super) const TOLD: EndpointId = EndpointId([9; 8]);

/// One write of a client, and how it went.
pub(super) struct Attempt {
    pub(super) partition: u8,
    pub(super) began: Instant,
    pub(super) took: Duration,
    pub(super) is_ok: bool,
}

/// What a load came to.
#[derive(Default)]
pub(super) struct Load {
    pub(super) attempts: Vec<Attempt>,
    /// The state that each upload was last acknowledged in.
    pub(super) acknowledged: BTreeMap<UploadId, StateKind>,
}

/// A user whose keys are in `partition`.
pub(super) fn user_in(partition: u8) -> PrincipalId {
    let mut id = [7; 16];
    id[0] = partition;
    PrincipalId(id)
}

/// Writes into `partitions` from now until `end`, a client in each.
pub(super) async fn load(store: &Arc<Store>, partitions: &[u8], end: Instant) -> Load {
    let mut clients = tokio::task::JoinSet::new();
    for &partition in partitions {
        let mut client = Client { store: Arc::clone(store), partition, load: Load::default() };
        clients.spawn(async move {
            // Each load has uploads of its own.
            let mut number = u32::from_be_bytes(Randomness::System.bytes());
            while Instant::now() < end {
                number = number.wrapping_add(1);
                client.one(number).await;
            }
            client.load
        });
    }
    let mut all = Load::default();
    for Load { attempts, acknowledged } in clients.join_all().await {
        all.attempts.extend(attempts);
        all.acknowledged.extend(acknowledged);
    }
    all
}

struct Client {
    store: Arc<Store>,
    partition: u8,
    load: Load,
}

impl Client {
    /// The life of an upload, up to a step that fails: a client then begins another.
    async fn one(&mut self, number: u32) -> Option<()> {
        let store = Arc::clone(&self.store);
        let upload = intent_of(user_in(self.partition), number, NOW);
        let intent = plain(&upload, limits(None, None, None));
        let Admitted::Granted { lease, .. } = self.step(store.admit(&intent)).await? else { panic!("not granted") };
        let (session, due) = (session_of(&upload, 0), NOW.plus(SECONDS(900)));
        let attached = self.step(store.attach(&lease, &upload, &session, due)).await?;
        // A failover in between may have lost the intent.
        let Attached::Tracked(mut tracked) = attached else { return None };
        self.acknowledge(&tracked);
        let end = match number % 3 {
            0 => None,
            1 => Some(verified(5)),
            _ => Some(Evidence::CancelRequested),
        };
        for seen in [Some(Evidence::Persisted(ByteCount(5))), end].into_iter().flatten() {
            let next = tracked.upload.state.after(seen, NOW).unwrap();
            let (due, tell) = if next.is_final() { (None, &[TOLD][..]) } else { (Some(due), &[][..]) };
            let advanced = self.step(store.advance(&tracked, next, due, tell, NOW)).await?;
            let Advanced::Done(done) = advanced else { return None };
            tracked = done;
            self.acknowledge(&tracked);
        }
        Some(())
    }

    fn acknowledge(&mut self, tracked: &Tracked) {
        self.load.acknowledged.insert(tracked.upload.id, tracked.upload.state.kind());
    }

    async fn step<T>(&mut self, asked: impl Future<Output = Result<T, Error>>) -> Option<T> {
        let began = Instant::now();
        let answer = asked.await;
        let (partition, took, is_ok) = (self.partition, began.elapsed(), answer.is_ok());
        self.load.attempts.push(Attempt { partition, began, took, is_ok });
        tokio::time::sleep(PAUSE).await;
        answer.ok()
    }
}

impl Load {
    /// Those of `partitions`.
    pub(super) fn of(&self, is_in: impl Fn(u8) -> bool) -> Numbers {
        let mut took: Vec<_> = self.attempts.iter().filter(|one| is_in(one.partition)).map(|one| one.took).collect();
        took.sort_unstable();
        let failed = self.attempts.iter().filter(|one| is_in(one.partition) && !one.is_ok).count();
        Numbers { took, failed }
    }

    /// How long after `gone` the last attempt failed.
    pub(super) fn back(&self, gone: Instant) -> Duration {
        let failed = self.attempts.iter().filter(|one| !one.is_ok);
        failed.map(|one| (one.began + one.took).saturating_duration_since(gone)).max().unwrap_or_default()
    }

    /// The uploads that the store does not know as they were acknowledged.
    pub(super) async fn lost(&self, store: &Store) -> Vec<UploadId> {
        let mut lost = Vec::new();
        for (id, acknowledged) in &self.acknowledged {
            let found = store.find(*id).await.unwrap();
            // A step whose answer was lost may have been made.
            if found.is_none_or(|found| rank(found.upload.state.kind()) < rank(*acknowledged)) {
                lost.push(*id);
            }
        }
        lost
    }
}

/// How far along an upload is.
fn rank(state: StateKind) -> u8 {
    match state {
        StateKind::Pending => 0,
        StateKind::Uploading => 1,
        StateKind::Completed | StateKind::Rejected | StateKind::Cancelled | StateKind::Expired => 2,
    }
}

/// How long some attempts took.
pub(super) struct Numbers {
    /// The shortest first.
    took: Vec<Duration>,
    pub(super) failed: usize,
}

impl Numbers {
    pub(super) fn count(&self) -> usize {
        self.took.len()
    }

    /// What so many of a thousand did not take longer than.
    pub(super) fn quantile(&self, per_mille: usize) -> Duration {
        self.took
            .get((self.took.len() * per_mille / 1000).min(self.took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

/// Millis, for a table.
pub(super) fn in_millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}
