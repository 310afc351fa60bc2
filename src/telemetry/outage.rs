//! One line in the log when something ceases to work and one when it works again, however often it is tried meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What comes and goes is told of once in this time.
const QUIET: Duration = Duration::from_secs(60);

/// Whether something works, as far as it has been told.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    is_out: bool,
    at: Option<Instant>,
}

impl Outage {
    /// It did not work. Gives whether that is to be told.
    pub(crate) fn failed(&self) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_out || told.at.is_some_and(|at| at.elapsed() < QUIET) {
            return false;
        }
        *told = Told { is_out: true, at: Some(Instant::now()) };
        true
    }

    /// It worked. Gives whether that is to be told.
    pub(crate) fn worked(&self) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut told.is_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_has_a_beginning_and_an_end_and_one_that_flickers_is_told_of_once_a_minute() {
        let outage = Outage::default();
        assert!(!outage.worked(), "all is well");
        assert!(outage.failed());
        assert!(!outage.failed(), "it is known");
        assert!(outage.worked());
        assert!(!outage.worked(), "it is known");
        assert!(!outage.failed() && !outage.worked(), "it flickers");
        tokio::time::advance(QUIET).await;
        assert!(outage.failed());
    }
}
