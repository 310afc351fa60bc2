//! One search at a time, whose outcome serves everyone who waited for it.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::super::error::Cause;

/// How long the outcome of a search is good enough: in an outage every operation wants one.
const PAUSE: Duration = Duration::from_millis(100);

/// How long those who are asked may take to answer a search.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// The last search, or the one under way.
#[derive(Default)]
pub(super) struct Search {
    last: Mutex<Option<Outcome>>,
}

struct Outcome {
    ended: Instant,
    result: Result<(), Cause>,
}

impl Search {
    /// Searches, unless that has been done since `since` or just before.
    pub(super) async fn since(
        &self,
        since: Instant,
        search: impl Future<Output = Result<(), Cause>>,
    ) -> Result<(), Cause> {
        let mut last = self.last.lock().await;
        if let Some(Outcome { ended, result }) = &*last
            && (*ended >= since || ended.elapsed() < PAUSE)
        {
            return result.clone();
        }
        let result = search.await;
        *last = Some(Outcome { ended: Instant::now(), result: result.clone() });
        result
    }

    /// Whether somebody searches, or did just now.
    pub(super) fn is_fresh(&self) -> bool {
        self.last.try_lock().map_or(true, |last| last.as_ref().is_some_and(|last| last.ended.elapsed() < PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_one_search() {
        let (search, searches) = (Search::default(), AtomicUsize::new(0));
        let one = || {
            search.since(Instant::now(), async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                searches.fetch_add(1, Ordering::SeqCst);
                Err(Cause::new("away"))
            })
        };
        assert!(!search.is_fresh());
        let (first, second, third) = tokio::join!(one(), one(), one());
        for result in [first, second, third, one().await] {
            assert_eq!(result, Err(Cause::new("away")));
        }
        assert_eq!(searches.load(Ordering::SeqCst), 1);
        assert!(search.is_fresh());
        tokio::time::sleep(PAUSE).await;
        assert!(!search.is_fresh());
        assert!(one().await.is_err());
        assert_eq!(searches.load(Ordering::SeqCst), 2);
    }
}
