//! Every session, found by its secret. Sharded, since load tests do little but initiate.
//!
//! A session stays after its end, to answer what storage answers then, until its week is over or newer ones need the
//! room: the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::session::{Session, State};
use crate::clock::Randomness;
use crate::model::time::Timestamp;

/// How long a session lives (storage documentation, "Resumable uploads").
pub(super) const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const SHARDS: usize = 16;

/// The random part of an upload id, which no one can guess.
const KEY_BYTES: usize = 24;
/// The rest, which only makes it as long as those of storage. It is the same for every id of one server, so that a
/// session costs little memory.
const FILLER_BYTES: usize = 105;
const PREFIX: &str = "ABPnzm";

type Key = [u8; KEY_BYTES];

/// A session with the instant of its initiation.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) started: Timestamp,
    session: Mutex<Session>,
    /// How many requests with bytes it has had.
    attempts: AtomicU64,
}

impl Entry {
    /// The session itself. Never held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of one more request with bytes among those of this session, from 0.
    pub(super) fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.started) > LIFETIME
    }
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Key, Arc<Entry>>,
    /// The same keys in the order of initiation.
    order: VecDeque<Key>,
}

/// All sessions. Debugging shows how many there were: what they are found by is secret.
pub(super) struct Sessions {
    shards: [Mutex<Shard>; SHARDS],
    per_shard: usize,
    filler: String,
    randomness: Randomness,
    count: AtomicU64,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Sessions {
    pub(super) fn new(limit: usize, randomness: Randomness) -> Self {
        let filler = URL_SAFE_NO_PAD.encode(randomness.bytes::<FILLER_BYTES>());
        let per_shard = limit.div_ceil(SHARDS).max(1);
        Self { shards: Default::default(), per_shard, filler, randomness, count: AtomicU64::new(0) }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        self.shards[usize::from(key[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next session.
    pub(super) fn next_number(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps the session and gives its secret.
    pub(super) fn insert(&self, session: Session, now: Timestamp) -> String {
        let key: Key = self.randomness.bytes();
        let mut shard = self.shard(&key);
        while let Some(oldest) = shard.order.front().copied() {
            let is_over = shard.entries.get(&oldest).is_none_or(|entry| entry.is_over(now));
            if !is_over && shard.order.len() < self.per_shard {
                break;
            }
            shard.order.pop_front();
            shard.entries.remove(&oldest);
        }
        shard.order.push_back(key);
        shard
            .entries
            .insert(key, Arc::new(Entry { started: now, session: Mutex::new(session), attempts: AtomicU64::new(0) }));
        drop(shard);
        format!("{PREFIX}{}{}", URL_SAFE_NO_PAD.encode(key), self.filler)
    }

    /// An id that belongs to no session, for answers that have none.
    pub(super) fn stray_id(&self) -> String {
        format!("{PREFIX}{}{}", URL_SAFE_NO_PAD.encode(self.randomness.bytes::<KEY_BYTES>()), self.filler)
    }

    /// The session of that secret, unless its week is over.
    pub(super) fn find(&self, upload_id: &str, now: Timestamp) -> Option<Arc<Entry>> {
        let encoded = upload_id.strip_prefix(PREFIX)?.strip_suffix(self.filler.as_str())?;
        let key: Key = URL_SAFE_NO_PAD.decode(encoded).ok()?.try_into().ok()?;
        let entry = self.shard(&key).entries.get(&key).cloned()?;
        (!entry.is_over(now)).then_some(entry)
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        let lock = |shard: &Mutex<Shard>| -> Vec<_> {
            shard.lock().unwrap_or_else(PoisonError::into_inner).entries.values().cloned().collect()
        };
        self.shards.iter().flat_map(lock).collect()
    }

    /// How many can still take bytes.
    pub(super) fn live(&self, now: Timestamp) -> usize {
        let is_live = |entry: &&Arc<Entry>| !entry.is_over(now) && matches!(entry.lock().state, State::Open { .. });
        self.all().iter().filter(is_live).count()
    }

    /// The `at_most` newest, newest first.
    pub(super) fn newest(&self, at_most: usize) -> Vec<Arc<Entry>> {
        let mut all = self.all();
        all.sort_by_cached_key(|entry| std::cmp::Reverse(entry.lock().number));
        all.truncate(at_most);
        all
    }
}
