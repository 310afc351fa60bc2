//! Whether a session can be handed out now: what operators, load balancers and the brokers of other regions ask.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::problem::{Code, Problem};
use crate::model::chain;
use crate::storage::Storage;
use crate::store::Store;

/// How long it waits for the store.
const PATIENCE: Duration = Duration::from_secs(1);

/// For how long the public may be told what was found before: who needs no token must not make the store work.
const FRESH: Duration = Duration::from_secs(1);

/// Why no session can be handed out.
#[derive(Clone, Debug)]
pub enum Unready {
    /// The process is on its way out.
    Draining,
    /// The store is away.
    Store(String),
    /// There is no token for storage.
    Storage(String),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => f.write_str("the process is draining"),
            Self::Store(reason) => write!(f, "the store: {reason}"),
            Self::Storage(reason) => write!(f, "storage: {reason}"),
        }
    }
}

/// Without the reason, which is for operators.
impl From<&Unready> for Problem {
    fn from(unready: &Unready) -> Self {
        let code = match unready {
            Unready::Draining => Code::Overloaded,
            Unready::Store(_) => Code::StoreUnavailable,
            Unready::Storage(_) => Code::StorageUnavailable,
        };
        let problem = Self::new(code).retry_after(Duration::from_secs(5));
        problem.detail("this region takes no uploads at the moment")
    }
}

/// Finds out whether a session can be handed out.
pub struct Readiness {
    store: Arc<Store>,
    storage: Arc<Storage>,
    draining: AtomicBool,
    /// What was found last, and when. Held while somebody finds out, so that one does it for all who ask meanwhile.
    found: Mutex<Option<(Instant, Vec<Unready>)>>,
}

impl Readiness {
    /// That of a process that is not draining.
    pub fn new(store: Arc<Store>, storage: Arc<Storage>) -> Self {
        Self { store, storage, draining: AtomicBool::new(false), found: Mutex::default() }
    }

    /// From now on, nothing is ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// All that is in the way, as it is now. A process that drains says so at once, whatever else there may be: whoever
    /// sends clients here has two seconds to hear of it.
    pub async fn obstacles(&self) -> Vec<Unready> {
        if self.is_draining() {
            return vec![Unready::Draining];
        }
        let mut found = Vec::new();
        match tokio::time::timeout(PATIENCE, self.store.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => found.push(Unready::Store(chain(&error))),
            Err(_) => found.push(Unready::Store("it does not answer".to_owned())),
        }
        if let Err(reason) = self.storage.ready() {
            found.push(Unready::Storage(chain(&reason)));
        }
        // It may have begun meanwhile.
        if self.is_draining() {
            found.insert(0, Unready::Draining);
        }
        found
    }

    /// Whether anything is in the way, as it was a second ago at the earliest.
    ///
    /// # Errors
    /// What is in the way first.
    pub async fn recent(&self) -> Result<(), Unready> {
        if self.is_draining() {
            return Err(Unready::Draining);
        }
        let mut last = self.found.lock().await;
        let found = match last.take() {
            Some((at, found)) if at.elapsed() < FRESH => (at, found),
            _ => {
                let found = self.obstacles().await;
                (Instant::now(), found)
            }
        };
        last.insert(found).1.first().cloned().map_or(Ok(()), Err)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
