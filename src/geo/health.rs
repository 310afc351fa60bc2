//! Whether a region is up, as the probes of another one see it.

use std::time::Duration;

use crate::model::time::Timestamp;

/// So many probes in a row have to fail before a region is passed over: one can be lost on the way.
const FAILURES: u32 = 2;

/// So many in a row have to pass before it is trusted again.
const PASSES: u32 = 3;

/// For so long they have to pass, however often it is probed: what comes and goes faster stays passed over.
const STEADY: Duration = Duration::from_secs(10);

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The region answered that it is ready.
    Passed,
    /// It said that it is not, or nothing in time.
    Failed,
}

/// A change that a probe brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// From now on the region is passed over.
    Down,
    /// From now on it is used again.
    Up,
}

/// The health of one region: what its probes have come to. It begins as up, so that a broker that has just started
/// sends nobody the long way round.
///
/// It goes down with the second probe in a row that fails, and up again with the third in a row that passes, at the
/// earliest 10 s after the first of these. So a region goes down and up at most once in 10 s, and an outage with single
/// probes that stray before, within or after it is two switches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health(State);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Up {
        /// How many probes in a row have failed.
        failures: u32,
    },
    Down {
        /// How many in a row have passed, and when the first of them did.
        passes: Option<(u32, Timestamp)>,
    },
}

impl Default for Health {
    fn default() -> Self {
        Self(State::Up { failures: 0 })
    }
}

impl Health {
    /// Whether the region is to be used.
    pub fn is_up(&self) -> bool {
        matches!(self.0, State::Up { .. })
    }

    /// Takes in what a probe found at `now`, and tells whether it changed anything.
    pub fn observe(&mut self, probe: Probe, now: Timestamp) -> Option<Switch> {
        let (state, switch) = match (&self.0, probe) {
            (State::Up { .. }, Probe::Passed) => (State::Up { failures: 0 }, None),
            (State::Up { failures }, Probe::Failed) if failures + 1 < FAILURES => {
                (State::Up { failures: failures + 1 }, None)
            }
            (State::Up { .. }, Probe::Failed) => (State::Down { passes: None }, Some(Switch::Down)),
            (State::Down { .. }, Probe::Failed) => (State::Down { passes: None }, None),
            (State::Down { passes }, Probe::Passed) => {
                let (passed, since) = passes.unwrap_or((0, now));
                let passed = passed.saturating_add(1);
                if passed >= PASSES && now.since(since) >= STEADY {
                    (State::Up { failures: 0 }, Some(Switch::Up))
                } else {
                    (State::Down { passes: Some((passed, since)) }, None)
                }
            }
        };
        self.0 = state;
        switch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a series of probes switches, each so many milliseconds after the one before: `.` passes, `x` fails.
    fn switches(probes: &[(char, i64)]) -> Vec<(Switch, i64)> {
        let (mut health, mut now) = (Health::default(), 0);
        let mut switches = Vec::new();
        for (probe, pause) in probes {
            now += pause;
            let probe = if *probe == '.' { Probe::Passed } else { Probe::Failed };
            let was_up = health.is_up();
            let switch = health.observe(probe, Timestamp::from_millis(now));
            let expected = match (was_up, health.is_up()) {
                (true, false) => Some(Switch::Down),
                (false, true) => Some(Switch::Up),
                _ => None,
            };
            assert_eq!(switch, expected, "a switch is told when it happens, and only then");
            switches.extend(switch.map(|switch| (switch, now)));
        }
        switches
    }

    fn every(millis: i64, probes: &str) -> Vec<(Switch, i64)> {
        switches(&probes.chars().map(|probe| (probe, millis)).collect::<Vec<_>>())
    }

    #[test]
    fn health_switches_when_it_is_sure() {
        use Switch::{Down, Up};
        for (name, millis, probes, expected) in [
            ("all is well", 5000, ".....", vec![]),
            ("a lost probe", 5000, "..x..x..", vec![]),
            ("an outage", 5000, "..xx", vec![(Down, 20_000)]),
            ("down from the start", 5000, "xxxx", vec![(Down, 10_000)]),
            ("and back", 5000, "xx.....", vec![(Down, 10_000), (Up, 25_000)]),
            ("two passes are too few", 60_000, "xx..x..x", vec![(Down, 120_000)]),
            ("three at once are too soon", 100, "xx...", vec![(Down, 200)]),
            ("three passes, seldom probed", 30_000, "xx...", vec![(Down, 60_000), (Up, 150_000)]),
            ("a failure begins the count anew", 5000, "xx..x...", vec![(Down, 10_000), (Up, 40_000)]),
            ("up and down by turns stays down", 5000, "xx.x.x.x.xx..x..xx", vec![(Down, 10_000)]),
        ] {
            assert_eq!(every(millis, probes), expected, "{name}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_make_it_recover_early() {
        let mut health = Health::default();
        for (probe, at, up) in [
            (Probe::Failed, 100, true),
            (Probe::Failed, 105, false),
            (Probe::Passed, 110, false),
            (Probe::Passed, 50, false),
            (Probe::Passed, 55, false),
            (Probe::Passed, 119, false),
            (Probe::Passed, 120, true),
        ] {
            health.observe(probe, Timestamp::from_secs(at));
            assert_eq!(health.is_up(), up, "at {at} s");
        }
    }

    /// Probes that find `usual`, but for single ones that stray: no two in a row, and none at either end.
    fn mostly(usual: char, stray: char) -> impl Strategy<Value = Vec<char>> {
        prop::collection::vec(prop::bool::weighted(0.2), 0..20).prop_map(move |strays| {
            let mut probes = vec![usual];
            for astray in strays {
                let may = astray && probes.last() == Some(&usual);
                probes.push(if may { stray } else { usual });
            }
            probes.push(usual);
            probes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_outage_is_at_most_two_switches(
            before in mostly('.', 'x'), outage in mostly('x', '.'), after in mostly('.', 'x'),
            pauses in prop::collection::vec(1_i64..20_000, 70),
        ) {
            let probes: Vec<_> = [before, outage, after].concat().into_iter().zip(pauses).collect();
            let kinds: Vec<_> = switches(&probes).into_iter().map(|(switch, _)| switch).collect();
            let expected = [Switch::Down, Switch::Up];
            prop_assert!(kinds.len() <= 2 && kinds == expected[..kinds.len()], "{kinds:?}");
        }

        #[test]
        fn whatever_the_probes_find_it_comes_back_at_most_once_in_ten_seconds(
            probes in prop::collection::vec((prop::sample::select(vec!['.', 'x']), 0_i64..8_000), 0..200),
        ) {
            let switches = switches(&probes);
            for pair in switches.windows(2) {
                prop_assert_ne!(pair[0].0, pair[1].0);
                if pair[1].0 == Switch::Up {
                    prop_assert!(pair[1].1 - pair[0].1 >= 10_000, "{pair:?}");
                }
            }
        }
    }
}
