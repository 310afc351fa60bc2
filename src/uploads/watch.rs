//! Telling those who listen what becomes of an upload, whichever instance records it.
//!
//! All who listen to one upload at one instance share one watcher: a task that reads the record about every second, which
//! is how it learns what other instances did; is nudged when this one has recorded something; and asks storage when
//! nothing was learned for a while, since the bytes of an upload pass nobody who could tell. It ends with its last
//! listener.
//!
//! ```text
//! record ─┐                 ┌─ Listener ─ a response
//! nudge  ─┼─ watcher ─ feed ┼─ Listener ─ a response
//! storage ┘   (newest only) └─ …
//! ```
//!
//! The feed keeps the newest [`Sight`] and nothing before, so a reader that is slow misses what is past, and costs no
//! memory. A sight has no session: nobody can be told by mistake where the bytes go.
//!
//! A listener has a seat, and each seat a timer of its own, which frees it when the token or the stream's time ends. The
//! listener could not: it does something only when it is asked for what comes next, and a client of HTTP/2 that takes
//! nothing is never asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug};

use super::{Error, Freshness, Uploads};
use crate::model::chain;
use crate::model::id::UploadId;
use crate::model::principal::{Principal, PrincipalId};
use crate::model::time::Timestamp;
use crate::model::upload::{Evidence, StateKind, Upload, Witness};
use crate::store::{Revision, Tracked};

/// While the store fails it is asked this many times more rarely.
const PATIENCE_WITH_STORE: u32 = 5;

/// How closely uploads are watched, and by how many. Constants of the program, set otherwise only by tests.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// How often the record is read, give or take a quarter.
    pub look_every: Duration,
    /// How long nothing is learned before storage is asked. Each question that teaches nothing doubles it.
    pub ask_after: Duration,
    /// The same where storage is asked for the object itself, which costs money: transfers by signed URLs.
    pub ask_after_signed: Duration,
    /// How long it becomes at most.
    pub ask_at_least_every: Duration,
    /// How long a stream is silent at most.
    pub heartbeat: Duration,
    /// How long a stream lives. It bounds how long one counts whose client has vanished without a word, or takes nothing.
    pub life: Duration,
    /// How many listeners there may be.
    pub listeners: usize,
    /// How many of them may be one principal's.
    pub listeners_each: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(1),
            ask_after: Duration::from_secs(10),
            ask_after_signed: Duration::from_secs(30),
            ask_at_least_every: Duration::from_secs(60),
            // Proxies close what is silent for 30 to 60 s, some mobile networks earlier.
            heartbeat: Duration::from_secs(15),
            life: Duration::from_secs(10 * 60),
            // A tenth of the connections, and a thousand reads a second at most.
            listeners: 1000,
            listeners_each: 10,
        }
    }
}

/// Who listens to which upload.
#[derive(Default)]
pub struct Watchers {
    limits: WatchLimits,
    known: Mutex<Known>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Known {
    /// Under which configuration uploads are watched; each begins with that of its first listener.
    present: Weak<Uploads>,
    /// Those who listen, by the number of their seat.
    seats: HashMap<u64, Seated>,
    /// How many seats were taken so far.
    taken: u64,
    each: HashMap<PrincipalId, usize>,
    watched: HashMap<UploadId, Watched>,
}

/// Who has a seat, and which upload is watched for it.
struct Seated {
    principal: PrincipalId,
    watching: Option<UploadId>,
}

/// An upload that somebody listens to.
struct Watched {
    listeners: usize,
    feed: watch::Receiver<Option<Sight>>,
    nudge: Arc<Notify>,
    _watcher: AbortOnDropHandle<()>,
}

/// An upload as its listeners see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The upload.
    pub upload: Arc<Upload>,
    /// Which change made it so.
    pub revision: Revision,
}

impl From<&Tracked> for Sight {
    fn from(tracked: &Tracked) -> Self {
        Self { upload: Arc::new(tracked.upload.clone()), revision: tracked.revision }
    }
}

/// What a listener is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The upload is in this state now; or another session has taken the place of its own.
    State(Sight),
    /// It is in the state that it was in, and storage has more of its bytes.
    Progress(Sight),
    /// Nothing has happened, and the stream is alive.
    Heartbeat,
}

impl Watchers {
    /// Nobody listens yet.
    pub fn new(limits: WatchLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Ends all streams, and refuses others from now on.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Goes on under another configuration, also for those who listen already.
    pub fn follow(&self, present: &Arc<Uploads>) {
        self.known().present = Arc::downgrade(present);
    }

    /// Says that something was recorded of the upload, so that its listeners need not wait for the next look.
    pub(super) fn nudge(&self, id: UploadId) {
        if let Some(watched) = self.known().watched.get(&id) {
            watched.nudge.notify_one();
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds the lock can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One listener's place in the counts. It is free again when its time is over, or when this is dropped before.
struct Seat {
    uploads: Arc<Uploads>,
    number: u64,
    /// Cancelled when its time is over, or when this instance ends.
    over: CancellationToken,
    timer: Option<AbortOnDropHandle<()>>,
}

impl Seat {
    fn take(uploads: &Arc<Uploads>, principal: PrincipalId) -> Result<Self, Error> {
        let Watchers { limits, closed, .. } = &*uploads.watchers;
        let known = &mut *uploads.watchers.known();
        if closed.is_cancelled() || known.seats.len() >= limits.listeners {
            return Err(Error::NoMoreListeners);
        }
        let own = known.each.entry(principal).or_default();
        if *own >= limits.listeners_each {
            return Err(Error::TooManyListeners { limit: limits.listeners_each });
        }
        *own += 1;
        let number = known.taken;
        known.taken += 1;
        known.seats.insert(number, Seated { principal, watching: None });
        uploads.metrics.observe_listeners(known.seats.len());
        Ok(Self { uploads: Arc::clone(uploads), number, over: closed.child_token(), timer: None })
    }

    /// Joins those who listen to the upload, which was just read as `sight`. Gives what is to come, and the newest that
    /// is known.
    fn join(&self, sight: Sight) -> (watch::Receiver<Option<Sight>>, Sight) {
        let id = sight.upload.id;
        let known = &mut *self.uploads.watchers.known();
        if let Some(seated) = known.seats.get_mut(&self.number) {
            seated.watching = Some(id);
        }
        let watched = known.watched.entry(id).or_insert_with(|| Watched::begin(&self.uploads, sight.clone()));
        watched.listeners += 1;
        let mut feed = watched.feed.clone();
        let newest = feed.borrow_and_update().clone();
        match newest {
            Some(newest) if newest.revision >= sight.revision => (feed, newest),
            _ => {
                // The others do not know yet what was just read.
                watched.nudge.notify_one();
                (feed, sight)
            }
        }
    }

    /// Has the seat freed when its time is over.
    fn free_after(&mut self, term: Term) {
        let (uploads, number, over) = (Arc::clone(&self.uploads), self.number, self.over.clone());
        let timer = async move {
            over.run_until_cancelled(term.pass(&uploads)).await;
            over.cancel();
            uploads.free(number);
        };
        self.timer = Some(AbortOnDropHandle::new(tokio::spawn(timer.in_current_span())));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.uploads.free(self.number);
    }
}

impl Uploads {
    /// Frees a seat, if it is taken still, and ends the watching with the last who watched.
    fn free(&self, seat: u64) {
        let known = &mut *self.watchers.known();
        let Some(Seated { principal, watching }) = known.seats.remove(&seat) else { return };
        self.metrics.observe_listeners(known.seats.len());
        if let Some(own) = known.each.get_mut(&principal) {
            *own -= 1;
            if *own == 0 {
                known.each.remove(&principal);
            }
        }
        if let Some(id) = watching
            && let Some(watched) = known.watched.get_mut(&id)
        {
            watched.listeners -= 1;
            if watched.listeners == 0 {
                known.watched.remove(&id);
            }
        }
    }
}

/// How long one may listen.
#[derive(Clone, Copy)]
struct Term {
    token_ends: Timestamp,
    ends: Instant,
}

impl Term {
    /// What is left of it; `None` when it is over.
    fn left(&self, uploads: &Uploads) -> Option<Duration> {
        let of_token = self.token_ends.since(uploads.clock.now());
        let left = of_token.min(self.ends.saturating_duration_since(Instant::now()));
        (!left.is_zero()).then_some(left)
    }

    /// Waits until it is over. The clock may be set meanwhile, so it is looked at every now and then.
    async fn pass(&self, uploads: &Uploads) {
        while let Some(left) = self.left(uploads) {
            tokio::time::sleep(left.min(uploads.watchers.limits.heartbeat)).await;
        }
    }
}

/// Somebody who is told what becomes of one upload, until it is over.
pub struct Listener {
    seat: Seat,
    /// `None` where the upload was over from the start.
    feed: Option<watch::Receiver<Option<Sight>>>,
    /// What the client knows.
    shown: Sight,
    /// What it is told first.
    first: Option<Told>,
    term: Term,
}

impl Uploads {
    /// Listens to the caller's upload. `seen` is the revision that the caller knows already: it is not told again,
    /// unless it is the end.
    ///
    /// # Errors
    /// [`Error::TooManyListeners`] and [`Error::NoMoreListeners`] at the limits; else as [`Uploads::find`].
    pub async fn listen(
        self: &Arc<Self>,
        principal: &Principal,
        id: UploadId,
        seen: Option<u32>,
        deadline: Instant,
    ) -> Result<Listener, Error> {
        let mut seat = Seat::take(self, principal.id)?;
        let found = Sight::from(&self.find(principal, id, Freshness::Known, deadline).await?);
        let (feed, shown) = if found.upload.state.is_final() {
            (None, found)
        } else {
            let (feed, newest) = seat.join(found);
            (Some(feed), newest)
        };
        let known = seen == Some(shown.revision.number()) && !shown.upload.state.is_final();
        let first = if known { Told::Heartbeat } else { Told::State(shown.clone()) };
        let term = Term { token_ends: principal.expires_at, ends: Instant::now() + self.watchers.limits.life };
        seat.free_after(term);
        Ok(Listener { feed, shown, first: Some(first), term, seat })
    }
}

impl Listener {
    /// What is to be told next, at once the first time; `None` when nothing more will be: the end was told, or the
    /// upload is not known any more, or it is time to come back with a new request: after [`WatchLimits::life`], with
    /// the end of the token, or because this instance ends.
    pub async fn next(&mut self) -> Option<Told> {
        let told = match self.first.take() {
            Some(first) => first,
            None => self.wait().await?,
        };
        match &told {
            Told::State(_) => self.seat.uploads.metrics.observe_event("state"),
            Told::Progress(_) => self.seat.uploads.metrics.observe_event("progress"),
            Told::Heartbeat => {}
        }
        Some(told)
    }

    async fn wait(&mut self) -> Option<Told> {
        let uploads = &self.seat.uploads;
        let feed = self.feed.as_mut()?;
        if self.shown.upload.state.is_final() {
            return None;
        }
        let silence = Instant::now() + uploads.watchers.limits.heartbeat;
        loop {
            // The timer may learn a little later than this that the clock was set.
            self.term.left(uploads)?;
            tokio::select! {
                biased;
                () = self.seat.over.cancelled() => return None,
                changed = feed.changed() => {
                    changed.ok()?;
                    let sight = feed.borrow_and_update().clone()?;
                    let before = std::mem::replace(&mut self.shown, sight.clone());
                    if before.revision != sight.revision {
                        return Some(told(&before.upload, sight));
                    }
                }
                () = tokio::time::sleep_until(silence) => return Some(Told::Heartbeat),
            }
        }
    }
}

/// What the change from `before` is called.
fn told(before: &Upload, sight: Sight) -> Told {
    let (old, new) = (&before.state, &sight.upload.state);
    let uploading = [old, new].iter().all(|state| state.kind() == StateKind::Uploading);
    // Fewer bytes than before are another session's.
    if uploading && new.received() > old.received() { Told::Progress(sight) } else { Told::State(sight) }
}

impl Watched {
    fn begin(uploads: &Arc<Uploads>, sight: Sight) -> Self {
        let nudge = Arc::new(Notify::new());
        let (sender, feed) = watch::channel(Some(sight.clone()));
        // It holds the service, and the service it; its last listener ends that.
        let watcher = watch(Arc::clone(uploads), sight, sender, Arc::clone(&nudge));
        let watcher = tokio::spawn(watcher.in_current_span());
        Self { listeners: 0, feed, nudge, _watcher: AbortOnDropHandle::new(watcher) }
    }
}

/// Follows one upload to its end, and shows each change of it to `feed`.
async fn watch(mut uploads: Arc<Uploads>, mut shown: Sight, feed: watch::Sender<Option<Sight>>, nudge: Arc<Notify>) {
    let limits = uploads.watchers.limits;
    let ask_after = if shown.upload.transfer.is_signed() { limits.ask_after_signed } else { limits.ask_after };
    let mut questions = Questions::new(ask_after, limits.ask_at_least_every, Instant::now());
    let mut patience = 1;
    let mut run_out = false;
    while !shown.upload.state.is_final() {
        let pause = limits.look_every.mul_f64(0.75 + uploads.randomness.fraction() / 2.0) * patience;
        tokio::select! {
            () = nudge.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        // What it finds is recorded for those who are to be told now.
        let present = uploads.watchers.known().present.upgrade();
        uploads = present.unwrap_or(uploads);
        let mut seen = uploads.store.find(shown.upload.id).await.map_err(Error::from);
        patience = if seen.is_err() { PATIENCE_WITH_STORE } else { 1 };
        if let Ok(Some(tracked)) = &seen
            && tracked.revision == shown.revision
        {
            let ends_now = uploads.has_run_out(&tracked.upload) && !run_out;
            if ends_now || questions.due(Instant::now()) {
                run_out |= ends_now;
                seen = uploads.ask_storage(tracked.clone()).await.map(Some);
                questions.asked(Instant::now());
            }
        }
        match seen {
            Ok(Some(tracked)) if tracked.revision == shown.revision => {}
            Ok(Some(tracked)) => {
                shown = Sight::from(&tracked);
                questions.learned(Instant::now());
                feed.send_replace(Some(shown.clone()));
            }
            Ok(None) | Err(Error::NotFound) => {
                feed.send_replace(None);
                return;
            }
            Err(error) => debug!(
                upload.id = %shown.upload.id, error = chain(&error), "nothing was learned of a watched upload"
            ),
        }
    }
}

impl Uploads {
    /// Asks storage on behalf of those who listen. A listener is a client who asks, again and again.
    async fn ask_storage(&self, tracked: Tracked) -> Result<Tracked, Error> {
        let deadline = Instant::now() + self.storage_timeout;
        if self.has_run_out(&tracked.upload) {
            self.end(tracked, Evidence::TimeRanOut, Witness::Client, deadline).await
        } else {
            self.refresh(tracked, deadline).await
        }
    }
}

/// When storage is to be asked. A question while a chunk is under way does the data no harm in any report found, but what
/// else it may do is not specified (`bytes */*`, storage documentation, "Resumable uploads"), so there are few.
struct Questions {
    /// The pause after something was learned.
    first: Duration,
    longest: Duration,
    pause: Duration,
    next: Instant,
}

impl Questions {
    fn new(first: Duration, longest: Duration, now: Instant) -> Self {
        Self { first, longest: longest.max(first), pause: first, next: now + first }
    }

    fn due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Storage was asked, and what it said is not known yet.
    fn asked(&mut self, now: Instant) {
        self.pause = (2 * self.pause).min(self.longest);
        self.next = now + self.pause;
    }

    /// Something new is known, by whatever way.
    fn learned(&mut self, now: Instant) {
        self.pause = self.first;
        self.next = now + self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_asked_more_rarely_the_longer_it_has_nothing_new_to_say() {
        let limits = WatchLimits::default();
        for (name, first, expected) in [
            ("a session, which can be asked for nothing", limits.ask_after, [10, 30, 70, 130, 190]),
            ("a signed URL, where the object is asked for", limits.ask_after_signed, [30, 90, 150, 210, 270]),
        ] {
            let start = Instant::now();
            let mut questions = Questions::new(first, limits.ask_at_least_every, start);
            for due in expected {
                let due = start + Duration::from_secs(due);
                assert!(!questions.due(due - Duration::from_millis(1)), "{name}");
                assert!(questions.due(due), "{name}");
                questions.asked(due);
            }
            let now = start + Duration::from_secs(1000);
            questions.learned(now);
            assert!(!questions.due(now + first - Duration::from_millis(1)), "{name}");
            assert!(questions.due(now + first), "{name}: something came, so more may come");
        }
    }
}
