//! Two at the same upload in the same moment, over and over, with a little chance in when each begins and in what storage
//! is slow at. Whoever wins: one final state, one event for each endpoint, no stray object, no session that works, and
//! nothing that stays reserved.

use std::future::ready;

use tokio::runtime::Builder;
use tokio::task::JoinHandle;

use super::histories::steps::Chance;
use super::histories::world::{Truth, World};
use super::sweep::Share;
use super::tests::{admit_for, here, soon};
use super::*;
use crate::emulator::faults::{Action, Fault, Which};
use crate::emulator::journal::Operation;
use crate::model::notice::ObjectNotice;
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::time::Span;
use crate::model::upload::{NewUpload, StateKind, TransferKind};
use crate::routing::Arrival;
use crate::storage::Api;
use crate::store;
use crate::store::testing::Server;

/// How often each race is run on each store, unless `RACES` says otherwise.
const RACES: u64 = 60;

/// Bytes of one upload.
const SIZE: usize = 10;

/// One run of a race.
struct Race<'a> {
    world: &'a World,
    chance: Chance,
}

/// Runs `race` many times on both stores. A failure names the seed of its run.
fn run(race: &impl AsyncFn(&Race<'_>)) {
    run_on("memory", &toml::from_str("url = \"memory\"").unwrap(), race);
    if let Some(server) = Server::start() {
        run_on("Redis", &server.settings("race"), race);
    }
}

fn run_on(name: &str, settings: &store::Settings, race: &impl AsyncFn(&Race<'_>)) {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, times) = (number("MODEL_SEED").unwrap_or(1), number("RACES").unwrap_or(RACES));
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // One for all runs, each of which leaves it as it was, but for what has ended.
    let world = runtime.block_on(World::open(first, Api::Json, settings));
    for seed in first..first + times {
        let run = std::panic::AssertUnwindSafe(|| {
            runtime.block_on(race(&Race { world: &world, chance: Chance::new(seed) }));
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            panic!("with {name} as the store: {text}\nagain: MODEL_SEED={seed} RACES=1");
        }
    }
}

fn request() -> NewUpload {
    NewUpload {
        policy: Some("streams".parse().unwrap()),
        filename: "f".parse().unwrap(),
        content_type: "video/mp4".parse().unwrap(),
        size: Some(ByteCount(SIZE as u64)),
        md5: None,
        crc32c: None,
        metadata: std::collections::BTreeMap::new(),
        transfer: TransferKind::Resumable,
    }
}

impl Race<'_> {
    fn ada(&self) -> Arc<Principal> {
        Arc::clone(&self.world.users[0])
    }

    async fn create(&self) -> Tracked {
        let context = CreateContext { idempotency: None, origin: None, arrival: Arrival::UNKNOWN, deadline: soon() };
        here(self.world.brokers[0].create(self.ada(), request(), context).await.unwrap()).tracked
    }

    /// A moment that is another each time: mostly none, else up to `most`.
    fn moment(&self, most: Duration) -> Duration {
        let share = u32::try_from(self.chance.below(1_000)).unwrap();
        if self.chance.below(3) == 0 { Duration::ZERO } else { most * share / 1_000 }
    }

    /// Makes storage slow at some of what it will be asked.
    fn slow_down(&self) {
        use Operation::{Cancel, Chunk, Get, Status};
        for _ in 0..self.chance.below(4) {
            let operation = [Cancel, Chunk, Get, Status][self.chance.below(4)];
            let action = Action::Delay { by: Span(self.moment(Duration::from_millis(4))) };
            let (skip, count) = (u32::try_from(self.chance.below(2)).unwrap(), Some(1));
            let operation = Which::Only(operation);
            self.world.emulator.faults().add(Fault { operation, object: None, skip, count, action });
        }
    }

    /// Begins `work` at some moment soon, on whatever thread is free.
    fn begin<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let moment = self.moment(Duration::from_millis(4));
        tokio::spawn(async move {
            if moment > Duration::ZERO {
                tokio::time::sleep(moment).await;
            }
            work.await
        })
    }

    /// Sends the bytes, and gives the status.
    fn put(&self, session: &SessionUri, size: usize) -> impl Future<Output = u16> + Send + 'static {
        let request = self.world.client.put(session.expose()).body(vec![7; size]);
        async move { request.send().await.unwrap().status().as_u16() }
    }

    fn notice(&self, upload: &Upload) -> impl Future<Output = Noticed> + Send + 'static {
        let notice = ObjectNotice {
            bucket: upload.bucket.clone(),
            object: upload.object.clone(),
            generation: None,
            hint: Some(upload.id),
        };
        let broker = Arc::clone(&self.world.brokers[1]);
        async move { broker.notified(&notice, soon()).await.unwrap() }
    }

    /// Checks that the upload has ended once and for all, and gives how.
    async fn ended(&self, id: UploadId, sessions: &[&SessionUri]) -> StateKind {
        self.world.emulator.faults().clear();
        let first = self.look(id, sessions).await;
        // Whoever is late changes nothing, and what is left is cleaned up.
        for seconds in [61, 130] {
            self.world.clock.advance(Duration::from_secs(seconds));
            let [first, second] = &self.world.brokers;
            let (partition, share) = (id.partition(), Arc::new(Share::new(None)));
            let ((one, error), (other, another)) =
                tokio::join!(first.sweep_partition(partition, &share), second.sweep_partition(partition, &share));
            assert!(error.is_none() && another.is_none() && one.failed + other.failed == 0, "{error:?}, {another:?}");
        }
        let again = self.look(id, sessions).await;
        assert_eq!(first, again, "a final state was left");
        let object = self.world.object(first.upload.object.as_str()).map(|object| object.generation);
        match &first.upload.state {
            crate::model::upload::UploadState::Completed { object: made, .. } => {
                assert_eq!(object, Some(made.generation), "what was completed is there");
            }
            _ => assert_eq!(object, None, "a stray object"),
        }
        first.upload.state.kind()
    }

    async fn look(&self, id: UploadId, sessions: &[&SessionUri]) -> Tracked {
        let store = &self.world.brokers[0].store;
        let tracked = store.find(id).await.unwrap().unwrap();
        assert!(tracked.upload.state.is_final(), "not ended: {:?}", tracked.upload.state);
        assert_eq!(self.world.brokers[1].store.find(id).await.unwrap().as_ref(), Some(&tracked));
        for endpoint in &self.world.brokers[0].endpoints {
            let waiting = store.outbox(id.partition(), endpoint.id).await;
            let expected = usize::from(endpoint.states.contains(&tracked.upload.state.kind()));
            let deliveries = waiting.iter().filter(|waiting| **waiting == id).count();
            assert_eq!(deliveries, expected, "deliveries to {} of {:?}", endpoint.name, tracked.upload.state);
        }
        for session in sessions {
            let truth = self.world.ask(session).await;
            assert!(!matches!(truth, Truth::Open(_)), "a session works after {:?}", tracked.upload.state);
        }
        assert_eq!(self.world.emulator.sessions(), 0, "sessions that nobody knows");
        let policies: Vec<_> = self.world.policies().map(|policy| (policy.name(), policy.limits())).collect();
        for usage in store.usage(self.ada().id, &policies, self.world.now()).await.unwrap() {
            assert_eq!(usage.active, 0, "something stays reserved");
        }
        tracked
    }
}

fn session(tracked: &Tracked) -> &SessionUri {
    tracked.session.as_ref().unwrap()
}

#[test]
fn complete_against_cancel_ends_once() {
    run(&async |race: &Race<'_>| {
        let created = race.create().await;
        let (id, has_come) = (created.upload.id, race.chance.below(2) == 0);
        if has_come {
            assert_eq!(race.put(session(&created), SIZE).await, 200);
        }
        race.slow_down();
        let [one, other] = race.world.brokers.clone();
        let (ada, owner) = (race.ada(), race.ada());
        let completing = race.begin(async move { one.complete(&ada, id, soon()).await });
        let cancelling = race.begin(async move { other.cancel(&owner, id, soon()).await });
        let (completed, cancelled) = (completing.await.unwrap(), cancelling.await.unwrap().unwrap());
        let ended = race.ended(id, &[session(&created)]).await;
        assert_eq!(ended, if has_come { StateKind::Completed } else { StateKind::Cancelled });
        assert_eq!(cancelled.upload.state.kind(), ended, "who cancels is told what became of it");
        assert_eq!(completed.is_ok(), has_come, "{completed:?}");
    });
}

#[test]
fn cancel_against_the_last_chunk_ends_once() {
    run(&async |race: &Race<'_>| {
        let created = race.create().await;
        let id = created.upload.id;
        race.slow_down();
        let (broker, ada) = (Arc::clone(&race.world.brokers[0]), race.ada());
        let sends = race.begin(race.put(session(&created), SIZE));
        let cancelling = race.begin(async move { broker.cancel(&ada, id, soon()).await });
        let (status, cancelled) = (sends.await.unwrap(), cancelling.await.unwrap().unwrap());
        let ended = race.ended(id, &[session(&created)]).await;
        assert_eq!(cancelled.upload.state.kind(), ended);
        // Storage has told the client whether the object was made.
        assert_eq!(ended, if status == 200 { StateKind::Completed } else { StateKind::Cancelled }, "{status}");
    });
}

#[test]
fn renew_against_sweep_leaves_one_session_and_ends_once() {
    run(&async |race: &Race<'_>| {
        let created = race.create().await;
        let (id, has_come) = (created.upload.id, race.chance.below(3) == 0);
        if has_come {
            assert_eq!(race.put(session(&created), SIZE).await, 200);
        }
        // Silent for long, or over: a week is what its policy gives.
        let is_over = race.chance.below(3) == 0;
        race.world.clock.advance(Duration::from_secs(if is_over { 7 * 86_400 - 1 } else { 3_600 }));
        if is_over {
            race.world.clock.advance(Duration::from_secs(1));
        }
        race.slow_down();
        let ([one, other], ada) = (race.world.brokers.clone(), race.ada());
        // A sweep walks through all partitions before it comes to this one.
        let renews = race.begin(async move { one.renew(&ada, id, None, soon()).await });
        let sweeps = race.begin(async move { other.sweep().await });
        let (renewed, round) = (renews.await.unwrap(), sweeps.await.unwrap());
        assert_eq!(round.failed, 0);
        race.world.emulator.faults().clear();
        let current = race.world.brokers[0].store.find(id).await.unwrap().unwrap();
        let mut sessions = vec![session(&created)];
        match (&renewed, has_come) {
            (Ok(fresh), false) if !is_over => {
                assert_eq!(fresh.session, current.session, "who renews is given the session that is recorded");
                assert_eq!(race.world.ask(session(&created)).await, Truth::Dead);
                assert_eq!((race.world.ask(session(fresh)).await, race.world.emulator.sessions()), (Truth::Open(0), 1));
                assert_eq!(race.put(session(fresh), SIZE).await, 200);
                race.world.brokers[1].complete(&race.ada(), id, soon()).await.unwrap();
                sessions.push(session(fresh));
            }
            (Ok(ended), true) => assert_eq!(ended.upload.state.kind(), current.upload.state.kind()),
            (Err(Error::InvalidState { state }), _) => assert_eq!(*state, current.upload.state.name()),
            _ => panic!("{renewed:?} for {:?}", current.upload.state),
        }
        let ended = race.ended(id, &sessions).await;
        let is_lost = is_over && !has_come;
        // At the end of its week storage has forgotten the session, and the object is found by its name.
        assert_eq!(ended, if is_lost { StateKind::Expired } else { StateKind::Completed });
    });
}

#[test]
fn two_sweepers_end_everything_once() {
    run(&async |race: &Race<'_>| {
        let mut expected = Vec::new();
        for state in [StateKind::Completed, StateKind::Rejected, StateKind::Expired, StateKind::Cancelled] {
            let created = race.create().await;
            match state {
                StateKind::Completed => assert_eq!(race.put(session(&created), SIZE).await, 200),
                // Of unknown size, which storage does not bound.
                StateKind::Rejected => {
                    let wanted = NewUpload { size: None, ..request() };
                    let (upload, lease, opened) = admit_for(&race.world.brokers[0], &race.ada(), &wanted).await;
                    let too_large = race.world.brokers[0].attach(&upload, &lease, &opened).await.unwrap();
                    assert_eq!(race.put(&opened, 1_001).await, 200);
                    expected.push((too_large, state));
                    assert_eq!(race.put(session(&created), SIZE).await, 200);
                    expected.push((created, StateKind::Completed));
                    continue;
                }
                StateKind::Cancelled => {
                    race.world.brokers[1].cancel(&race.ada(), created.upload.id, soon()).await.unwrap();
                }
                _ => {}
            }
            expected.push((created, state));
        }
        race.world.clock.advance(Duration::from_secs(7 * 86_400));
        race.slow_down();
        let [one, other] = race.world.brokers.clone();
        let sweeps = [race.begin(async move { one.sweep().await }), race.begin(async move { other.sweep().await })];
        let mut due = 0;
        for round in sweeps {
            let round = round.await.unwrap();
            assert_eq!(round.failed, 0);
            due += round.due;
        }
        // A sweeper that comes behind the other finds only what that has put off.
        assert!(due >= expected.len(), "{due} were due");
        for (created, state) in &expected {
            assert_eq!(race.ended(created.upload.id, &[session(created)]).await, *state);
        }
    });
}

#[test]
fn a_notification_before_attach_ends_its_upload_once() {
    run(&async |race: &Race<'_>| {
        let ada = race.ada();
        let size = if race.chance.below(3) == 0 { 1_001 } else { SIZE };
        let wanted = NewUpload { size: None, ..request() };
        let (upload, lease, opened) = admit_for(&race.world.brokers[0], &ada, &wanted).await;
        let id = upload.id;
        // The object is there before the session is recorded, or comes at the same time.
        let is_early = race.chance.below(2) == 0;
        if is_early {
            assert_eq!(race.put(&opened, size).await, 200);
        }
        race.slow_down();
        let sends = if is_early { race.begin(ready(200)) } else { race.begin(race.put(&opened, size)) };
        let notifying = [race.begin(race.notice(&upload)), race.begin(race.notice(&upload))];
        let (broker, record, secret) = (Arc::clone(&race.world.brokers[0]), upload.clone(), opened.clone());
        let attaching = race.begin(async move { broker.attach(&record, &lease, &secret).await });
        assert_eq!(sends.await.unwrap(), 200);
        for told in notifying {
            let noticed = told.await.unwrap();
            // What is broken may be gone already, deleted for the other notification, which is about to record that.
            let is_seen = !matches!(noticed, Noticed::StillOpen(_) | Noticed::Unknown);
            assert!(is_seen || !is_early || size > SIZE, "{noticed:?}");
        }
        let attached = attaching.await.unwrap();
        assert!(attached.is_ok() || matches!(attached, Err(Error::Contended)), "{attached:?}");
        // One that comes after all the others.
        race.world.emulator.faults().clear();
        race.notice(&upload).await;
        let expected = if size == SIZE { StateKind::Completed } else { StateKind::Rejected };
        assert_eq!(race.ended(id, &[&opened]).await, expected);
    });
}
