//! What was measured, and the table that says it.

use std::fmt;
use std::time::Duration;

/// One round of one system.
pub(crate) struct Round {
    /// Creates a second, as many as the connections could get.
    pub(crate) throughput: f64,
    /// Processor time of the program per create, in microseconds: milliseconds per 1000 creates.
    pub(crate) cpu: f64,
    /// The same of its Redis.
    pub(crate) redis_cpu: f64,
    /// Of every create of the paced phase.
    pub(crate) latencies: Vec<Duration>,
}

/// Everything that was measured of one system. Memory is in MiB.
pub(crate) struct Measured {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Memory before the first request.
    pub(crate) idle: f64,
    /// Memory while many connections are open, each of which had one answer.
    pub(crate) connected: f64,
    /// Memory after the last round.
    pub(crate) loaded: f64,
    /// The rounds, in their order.
    pub(crate) rounds: Vec<Round>,
}

impl Measured {
    fn median(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(value).collect())
    }

    /// The latency that `percent` of all paced creates stayed within, in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let mut all: Vec<Duration> = self.rounds.iter().flat_map(|round| &round.latencies).copied().collect();
        all.sort_unstable();
        // The nearest rank: the smallest value that so many are not above.
        let rank = (all.len() * percent).div_ceil(100);
        all.get(rank.saturating_sub(1)).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}

/// The table of all systems.
pub(crate) struct Table<'a> {
    /// The columns. Where there are two, their processor time is compared.
    pub(crate) systems: &'a [Measured],
    /// The rate of the paced phase.
    pub(crate) rate: u32,
    /// How many connections were open for the second line of memory.
    pub(crate) connections: usize,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<42}", "")?;
        self.systems.iter().try_for_each(|system| write!(f, "{:>12}", system.name))?;
        writeln!(f)?;
        let mut row = |title: &str, decimals: usize, value: &dyn Fn(&Measured) -> f64| {
            write!(f, "{title:<42}")?;
            self.systems.iter().try_for_each(|system| write!(f, "{:>12.decimals$}", value(system)))?;
            writeln!(f)
        };
        row("creates/s", 0, &|system| system.median(|round| round.throughput))?;
        row(&format!("p50 at {}/s, ms", self.rate), 2, &|system| system.percentile(50))?;
        row(&format!("p99 at {}/s, ms", self.rate), 2, &|system| system.percentile(99))?;
        row("CPU ms per 1000 creates", 1, &|system| system.median(|round| round.cpu))?;
        row("Redis CPU ms per 1000 creates", 1, &|system| system.median(|round| round.redis_cpu))?;
        row("resident MiB, idle", 1, &|system| system.idle)?;
        row(&format!("resident MiB, {} connections", self.connections), 1, &|system| system.connected)?;
        row("resident MiB, after the rounds", 1, &|system| system.loaded)?;

        let [ours, yardstick] = self.systems else { return Ok(()) };
        let ratios: Vec<f64> =
            ours.rounds.iter().zip(&yardstick.rounds).map(|(our, their)| our.cpu / their.cpu).collect();
        let (least, most) =
            ratios.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), ratio| (low.min(*ratio), high.max(*ratio)));
        writeln!(
            f,
            "\nCPU per create, {}/{}: {:.2} (median of {} rounds, {least:.2} to {most:.2})",
            ours.name,
            yardstick.name,
            median(ratios.clone()),
            ratios.len()
        )
    }
}

/// The middle value; the mean of both where two are in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
