//! What distance costs: a model, and said to be one wherever it shows.

use std::num::NonZeroU64;
use std::time::Duration;

/// How far light gets in fibre in a millisecond, in km: two thirds of what it does in vacuum.
const FIBRE_KM_PER_MS: f64 = 200.0;

/// How much longer the way of packets is than the great circle. Published pings between distant cities come to 1.3
/// (London to New York, 70 to 80 ms over 5570 km) up to 1.6 (London to Singapore, 160 to 180 ms over 10,850 km).
const DETOUR: f64 = 1.5;

/// What the first and the last kilometres take whatever lies between them, in ms: an assumption.
const ACCESS_MS: f64 = 4.0;

/// What the line of a client carries, in bytes per second: 100 Mbit/s. Without it, an upload to the next town would take
/// no time at all, and distance would seem to cost more than it does.
pub(super) const LINE: Option<NonZeroU64> = NonZeroU64::new(100_000_000 / 8);

/// The round trip over so many km of great circle:
///
/// ```text
/// 4 ms + 2 · 1.5 · distance / (200 km/ms)
/// ```
///
/// What an upload makes of it stands at [`crate::emulator::network::Conditions`]: handshakes, a round trip for each
/// request, and windows that begin with ten segments and double in each round trip.
pub(super) fn round_trip(distance_km: f64) -> Duration {
    Duration::from_secs_f64((ACCESS_MS + 2.0 * DETOUR * distance_km.max(0.0) / FIBRE_KM_PER_MS) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_about_those_that_are_measured() {
        for (way, distance_km, range) in [
            ("next door", 0.0, 4..=4),
            ("Berlin to Belgium", 640.0, 13..=14),
            ("London to New York", 5570.0, 70..=90),
            ("London to Singapore", 10_850.0, 160..=180),
            ("half way round", 20_015.0, 290..=310),
        ] {
            let took = round_trip(distance_km).as_millis();
            assert!(range.contains(&took), "{way}: {took} ms");
        }
        assert_eq!(round_trip(-1.0), round_trip(0.0), "rounding may give less than nothing");
    }
}
