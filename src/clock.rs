//! Where `now` and randomness come from, so that tests can decide both.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::time::Timestamp;

/// Tells the time: the system's, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The operating system's wall clock.
    System,
    /// Stands still until [`Clock::advance`] is called on any clone.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `now`.
    pub fn manual(now: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(now.as_millis())))
    }

    /// The present instant.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
                let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                let millis = since_epoch.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
                Timestamp::from_millis(millis)
            }
            Self::Manual(millis) => Timestamp::from_millis(millis.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock ahead; the system's clock cannot be moved and stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(millis) = self {
            millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

/// Gives random bytes: from the operating system, or a sequence that a seed decides.
#[derive(Clone, Debug)]
pub enum Randomness {
    /// The cryptographic generator of the TLS stack, seeded by the operating system.
    System,
    /// A repeatable sequence for tests; worthless for secrets.
    Seeded(Arc<AtomicU64>),
}

impl Randomness {
    /// The sequence that `seed` decides.
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(AtomicU64::new(seed)))
    }

    /// Fresh random bytes.
    ///
    /// # Panics
    /// When the operating system has no randomness to give. Nothing safe can be done without it.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match self {
            Self::System => {
                #[expect(clippy::expect_used, reason = "no id or nonce may be made without randomness")]
                aws_lc_rs::rand::fill(&mut bytes).expect("the system's random number generator works");
            }
            Self::Seeded(state) => {
                for chunk in bytes.chunks_mut(8) {
                    let word = splitmix(state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst)).to_le_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
        }
        bytes
    }

    /// A number in `0.0..1.0`, for jitter.
    pub fn fraction(&self) -> f64 {
        let word = u32::from_le_bytes(self.bytes());
        f64::from(word) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn splitmix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_for_all_its_clones() {
        let clock = Clock::manual(Timestamp::from_secs(100));
        clock.clone().advance(Duration::from_secs(5));
        assert_eq!(clock.now(), Timestamp::from_secs(105));
    }

    #[test]
    fn a_seed_decides_the_sequence() {
        let (one, same) = (Randomness::seeded(7), Randomness::seeded(7));
        let (first, second): ([u8; 16], [u8; 16]) = (one.bytes(), one.bytes());
        assert_eq!(first, same.bytes());
        assert_ne!(first, second);
        assert!((0.0..1.0).contains(&Randomness::System.fraction()));
    }
}
