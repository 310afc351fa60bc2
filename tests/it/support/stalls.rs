//! Whether the machine itself stands in the way of what a test demands within some time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// How often it is looked whether timers fire.
const EVERY: Duration = Duration::from_millis(10);

/// A timer that fires this late shows that the machine does other things.
const LATE: Duration = Duration::from_millis(50);

/// The times in which the machine did nothing for a test, noted while this exists.
pub struct Stalls {
    /// From when to when.
    noted: Arc<Mutex<Vec<(Instant, Instant)>>>,
    noting: JoinHandle<()>,
}

impl Stalls {
    /// Begins to note them.
    pub fn note() -> Self {
        let noted = Arc::default();
        Self { noted: Arc::clone(&noted), noting: tokio::spawn(note(noted)) }
    }

    /// How long the machine did nothing between these two, in all.
    pub fn within(&self, begun: Instant, ended: Instant) -> Duration {
        let common =
            |(from, until): &(Instant, Instant)| (*until).min(ended).saturating_duration_since((*from).max(begun));
        self.noted.lock().unwrap().iter().map(common).sum()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.noting.abort();
    }
}

async fn note(noted: Arc<Mutex<Vec<(Instant, Instant)>>>) {
    loop {
        let due = Instant::now() + EVERY;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        if now - due > LATE {
            noted.lock().unwrap().push((due, now));
        }
    }
}
