//! Plays one history, step by step, and compares what comes of it with the reference and the invariants.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::invariants::*;
use super::perform::{Done, Sent};
use super::reference::*;
use super::steps::{Act, Does, Step, Wish};
use super::world::{Snapshot, Truth, World};
use super::*;
use crate::emulator::ObjectSnapshot;
use crate::model::principal::PrincipalId;
use crate::model::upload::StateKind;

/// What is remembered of a history.
pub(super) struct History {
    pub(super) world: World,
    /// The uploads that clients know, in the order in which they were told of them.
    pub(super) sent: Vec<Sent>,
    /// What was asked for last with a key.
    pub(super) wishes: HashMap<(usize, u8), Wish>,
    pub(super) keys: HashMap<(usize, u8), Used>,
    pub(super) last: Snapshot,
    /// Every object that was ever seen, by name and generation.
    pub(super) made: BTreeMap<(String, i64), ObjectSnapshot>,
    /// Whoever was told of which upload, and took it.
    pub(super) done: BTreeSet<(EndpointId, UploadId)>,
    /// What was told, so that it never is anything else.
    pub(super) told: BTreeMap<(EndpointId, UploadId), StateKind>,
    pub(super) buckets: BTreeMap<(usize, usize), Bucket>,
    /// The bytes that came late, by user, policy and day.
    pub(super) late: BTreeMap<(PrincipalId, String, i64), u64>,
    pub(super) dead: HashSet<String>,
    /// How often each thing came of a step in whose way nothing stood.
    pub(super) tally: BTreeMap<String, u64>,
}

impl History {
    pub(super) async fn begin(world: World) -> Self {
        let last = world.snapshot().await;
        let mut buckets = BTreeMap::new();
        for (number, policy) in world.policies().enumerate() {
            for user in 0..world.users.len() {
                buckets.extend(Bucket::of(&policy.limits(), last.now).map(|bucket| ((user, number), bucket)));
            }
        }
        Self {
            world,
            sent: Vec::new(),
            wishes: HashMap::new(),
            keys: HashMap::new(),
            last,
            made: BTreeMap::new(),
            done: BTreeSet::new(),
            told: BTreeMap::new(),
            buckets,
            late: BTreeMap::new(),
            dead: HashSet::new(),
            tally: BTreeMap::new(),
        }
    }

    pub(super) fn record(&self, id: UploadId) -> Option<&Tracked> {
        self.last.records.get(&id)
    }

    /// The uploads that are remembered no longer than this.
    pub(super) fn over(&self) -> impl Iterator<Item = &Tracked> {
        let now = self.world.now();
        self.last.records.values().filter(move |tracked| is_over(&tracked.upload.state, now))
    }

    /// Takes one step, and gives what is wrong after it.
    pub(super) async fn take(&mut self, step: &Step) -> Verdict {
        let step = self.made_plain(step);
        let foretold = if step.is_clean() { Some(self.foretell(&step.does).await) } else { None };
        let persisted = self.persisted(&step).await;
        for fault in &step.faults {
            self.world.emulator.faults().add(fault.clone());
        }
        let (one, other) = {
            let first = Impatient { polls: step.polls, work: pin!(self.perform(&step.does, persisted)) };
            let beside = async {
                // Somewhere in the middle of the other.
                for _ in 0..step.yields {
                    tokio::task::yield_now().await;
                }
                match &step.beside {
                    Some(does) => Some(self.perform(does, persisted).await),
                    None => None,
                }
            };
            tokio::join!(first, beside)
        };
        self.world.emulator.faults().clear();
        self.world.calm_down().await;
        for (does, done) in [(Some(&step.does), &one), (step.beside.as_ref(), &other)] {
            if let (Some(Does::Intrude { .. }), Some(Done::Acted { came: Comes::To(_), .. })) = (does, done) {
                return Err("somebody else was shown it".to_owned());
            }
        }
        let dones: Vec<Done> = [one, other].into_iter().flatten().collect();
        let mut swept = BTreeMap::new();
        match (foretold, dones.first()) {
            (Some(Foretold::Sweep(foretold)), Some(Done::Swept(Round { failed: 0, .. }))) => swept = foretold,
            (Some(Foretold::Sweep(_)), _) => return Err("a sweep failed".to_owned()),
            (Some(foretold), Some(done)) => {
                self.compare(&foretold, done)?;
                *self.tally.entry(foretold.name()).or_default() += 1;
            }
            _ => {}
        }
        if step.beside.is_none() {
            self.check_given(&dones).await?;
        }
        self.learn(&step, dones)?;
        self.inspect(&step).await?;
        for (id, foretold) in swept {
            let came = self.last.records.get(&id).map(|tracked| Comes::To(tracked.upload.state.kind()));
            let name = came.as_ref().map_or_else(|| "sweep: withdrawn".to_owned(), |came| format!("sweep: {came:?}"));
            *self.tally.entry(name).or_default() += 1;
            if came != foretold && foretold != Some(Comes::Unforeseen) {
                return Err(format!("a sweep brought {id} to {came:?}, where {foretold:?} was foretold"));
            }
        }
        Ok(())
    }

    /// A repeat under an idempotency key asks for what was asked for before.
    fn made_plain(&mut self, step: &Step) -> Step {
        let mut step = step.clone();
        for does in [Some(&mut step.does), step.beside.as_mut()].into_iter().flatten() {
            let Does::Create(wish) = does else { continue };
            let Some((key, is_repeat)) = wish.key else { continue };
            let before = self.wishes.entry((wish.user, key)).or_insert_with(|| wish.clone());
            if is_repeat {
                let Wish { key, broker, is_mortal, .. } = *wish;
                *wish = Wish { key, broker, is_mortal, ..before.clone() };
            }
        }
        step
    }

    /// What the session has that bytes are sent to, before anything goes wrong.
    async fn persisted(&self, step: &Step) -> u64 {
        for does in [Some(&step.does), step.beside.as_ref()].into_iter().flatten() {
            if let Does::Send { upload, session, .. } = does
                && let Some(uri) = self.target(*upload).and_then(|sent| sent.session(*session))
                && let Truth::Open(received) = self.world.ask(uri).await
            {
                return received;
            }
        }
        0
    }

    /// The upload that a step is about.
    pub(super) fn target(&self, back: usize) -> Option<&Sent> {
        let last = self.sent.len().checked_sub(1)?;
        Some(&self.sent[last - back % self.sent.len()])
    }

    async fn standing<'a>(&'a self, tracked: &'a Tracked) -> Standing<'a> {
        let session = match tracked.session.as_ref().filter(|_| !tracked.upload.transfer.is_signed()) {
            Some(session) => Some(self.world.ask(session).await),
            None => None,
        };
        let object = self.last.objects.get(tracked.upload.object.as_str());
        Standing { tracked, session, object, now: self.world.now() }
    }

    async fn foretell(&mut self, does: &Does) -> Foretold {
        match does {
            Does::Create(wish) => Foretold::Create(self.foretell_create(wish)),
            Does::Act { upload, act, .. } => {
                let Some(sent) = self.target(*upload) else { return Foretold::Nothing };
                match self.last.records.get(&sent.id) {
                    Some(tracked) => Foretold::Act(self.standing(tracked).await.foretell(*act)),
                    None => Foretold::Nothing,
                }
            }
            Does::Intrude { upload, act } if !matches!(act, Act::Notify(_) | Act::CancelAny) => {
                let known = self.target(*upload).is_some();
                if known { Foretold::Act(Comes::Not("not-found")) } else { Foretold::Nothing }
            }
            Does::Sweep { .. } => {
                let mut swept = BTreeMap::new();
                for (id, tracked) in &self.last.records {
                    let is_due = self.last.due.get(id).is_some_and(|due| *due <= self.world.now());
                    if is_due {
                        swept.insert(*id, self.standing(tracked).await.swept());
                    }
                }
                Foretold::Sweep(swept)
            }
            _ => Foretold::Nothing,
        }
    }

    fn foretell_create(&mut self, wish: &Wish) -> Creates {
        let now = self.world.now();
        let tokens = self.buckets.get_mut(&(wish.user, wish.policy)).map(|bucket| bucket.left(now));
        let policy = self.world.policies().nth(wish.policy).unwrap();
        let request = wish.request();
        let key = wish.key.map(|(key, _)| (wish.fingerprint(), self.keys.get(&(wish.user, key)).copied()));
        let wanted = Wanted {
            user: &self.world.users[wish.user],
            policy,
            reserve: reserve(request.size, policy.settings().max_size),
            key,
            tokens,
        };
        // The clock has not moved since the last look, unless this step is a wait.
        wanted.foretell(&self.last)
    }

    fn compare(&self, foretold: &Foretold, done: &Done) -> Verdict {
        match (foretold, done) {
            (Foretold::Create(foretold), Done::Created { result, .. }) => {
                let came = match result {
                    Ok(created) if created.replayed => Creates::Replayed(created.tracked.upload.id),
                    Ok(created) if self.last.records.contains_key(&created.tracked.upload.id) => {
                        Creates::Resumed(created.tracked.upload.id)
                    }
                    Ok(_) => Creates::New,
                    Err(name) => Creates::Not(name),
                };
                let fits = *foretold == Creates::Unforeseen || *foretold == came;
                if fits { Ok(()) } else { Err(format!("a create came to {came:?}, where {foretold:?} was foretold")) }
            }
            (Foretold::Act(foretold), Done::Acted { came, .. }) => {
                let fits = *foretold == Comes::Unforeseen || foretold == came;
                if fits { Ok(()) } else { Err(format!("it came to {came:?}, where {foretold:?} was foretold")) }
            }
            _ => Ok(()),
        }
    }

    async fn check_given(&self, dones: &[Done]) -> Verdict {
        for tracked in dones.iter().filter_map(Done::given) {
            let record = self.world.brokers[0].store.find(tracked.upload.id).await.unwrap();
            capability_is_recorded(tracked, record.as_ref())?;
        }
        Ok(())
    }

    fn learn(&mut self, step: &Step, dones: Vec<Done>) -> Verdict {
        let now = self.world.now();
        for does in [Some(&step.does), step.beside.as_ref()].into_iter().flatten().filter(|_| step.beside.is_some()) {
            // Which of two it was that left what is found cannot be told.
            if let Does::Create(wish @ Wish { key: Some((key, _)), .. }) = does {
                self.keys.insert((wish.user, *key), Used { fingerprint: wish.fingerprint(), upload: None });
            }
        }
        for done in dones {
            if let Done::Created { wish, result } = &done {
                if let (Ok(created), Some((key, _))) = (result, wish.key) {
                    let Upload { id, created_at, .. } = created.tracked.upload;
                    let used = Used { fingerprint: wish.fingerprint(), upload: Some((id, created_at)) };
                    self.keys.insert((wish.user, key), used);
                }
                let is_new = result.as_ref().is_ok_and(|created| {
                    !created.replayed && !self.last.records.contains_key(&created.tracked.upload.id)
                });
                if is_new
                    && step.is_clean()
                    && let Some(bucket) = self.buckets.get_mut(&(wish.user, wish.policy))
                {
                    bucket.take(now);
                }
            }
            if let Done::Delivered { attempts, .. } = &done {
                for attempt in attempts {
                    let told = self.told.entry((attempt.endpoint, attempt.id)).or_insert(attempt.kind);
                    if *told != attempt.kind {
                        return Err(format!("{} was told to be {told:?}, and then {:?}", attempt.id, attempt.kind));
                    }
                    if self.done.contains(&(attempt.endpoint, attempt.id)) {
                        return Err(format!("{} was told again after it was taken", attempt.id));
                    }
                    if attempt.is_taken {
                        self.done.insert((attempt.endpoint, attempt.id));
                    }
                }
            }
            let user = done.user();
            if let Some(given) = done.given().cloned() {
                let user = user.unwrap_or_else(|| self.owner(given.upload.principal));
                let payload = if let Done::Created { wish, .. } = &done { Some(&wish.payload) } else { None };
                self.remember(user, &given, payload);
            }
        }
        Ok(())
    }

    fn owner(&self, principal: PrincipalId) -> usize {
        self.world.users.iter().position(|user| user.id == principal).unwrap()
    }

    fn remember(&mut self, user: usize, given: &Tracked, payload: Option<&Vec<u8>>) {
        let id = given.upload.id;
        if !self.sent.iter().any(|sent| sent.id == id) {
            let Some(payload) = payload else { return };
            self.sent.push(Sent { id, user, payload: payload.clone(), offers: Vec::new(), opened: Mutex::default() });
        }
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.id == id) {
            sent.take(given);
        }
    }
}

/// What a clean step was foretold to come to.
enum Foretold {
    Create(Creates),
    Act(Comes),
    Sweep(BTreeMap<UploadId, Option<Comes>>),
    Nothing,
}

impl Foretold {
    fn name(&self) -> String {
        match self {
            Self::Create(Creates::Resumed(_)) => "create: resumed".to_owned(),
            Self::Create(Creates::Replayed(_)) => "create: replayed".to_owned(),
            Self::Create(creates) => format!("create: {creates:?}"),
            Self::Act(comes) => format!("{comes:?}"),
            Self::Sweep(_) => "sweep".to_owned(),
            Self::Nothing => "other".to_owned(),
        }
    }
}

/// Polls its work so often at most, and gives `None` when it has gone away.
struct Impatient<'a, F> {
    work: Pin<&'a mut F>,
    polls: Option<u32>,
}

impl<F: Future> Future for Impatient<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.polls {
            Some(0) => return Poll::Ready(None),
            Some(polls) => *polls -= 1,
            None => {}
        }
        self.work.as_mut().poll(context).map(Some)
    }
}
