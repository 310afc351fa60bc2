//! What a principal may use under one policy.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;
use super::size::ByteCount;
use super::time::Span;

/// The limits of one principal under one policy. What is left out is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many uploads may be under way at once.
    pub max_active: Option<u32>,
    /// How many uploads may be created in a span of time.
    pub rate: Option<Rate>,
    /// How many bytes may be reserved or stored in one UTC day.
    pub daily_bytes: Option<ByteCount>,
}

impl Limits {
    /// What `max_active` is called in a policy, on the wire and in metrics.
    pub const MAX_ACTIVE: &str = "max_active";
    /// What `rate` is called there.
    pub const RATE: &str = "rate";
    /// What `daily_bytes` is called there.
    pub const DAILY_BYTES: &str = "daily_bytes";

    /// The names of the limits that there are.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let max_active = self.max_active.map(|_| Self::MAX_ACTIVE);
        let rate = self.rate.map(|_| Self::RATE);
        let daily_bytes = self.daily_bytes.map(|_| Self::DAILY_BYTES);
        [max_active, rate, daily_bytes].into_iter().flatten()
    }
}

/// What happens when a limit is passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// The upload is refused.
    #[default]
    Enforce,
    /// The upload is admitted, and it is counted and logged that it would have been refused.
    Report,
}

/// A number of events in a span of time, written `"30/1m"`.
///
/// Enforced as a token bucket: it holds `events` tokens, and refills evenly over the span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many events, at least one.
    pub events: u32,
    /// In what span, at least a millisecond.
    pub per: Duration,
}

impl Rate {
    /// The time that one token takes to come back.
    pub fn interval(&self) -> Duration {
        self.per / self.events.max(1)
    }
}

impl std::str::FromStr for Rate {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(format!("{text:?} is not a rate such as \"30/1m\""));
        let (events, per) = text.split_once('/').ok_or_else(invalid)?;
        let events: u32 = events.trim().parse().map_err(|_| invalid())?;
        let Span(per) = per.trim().parse().map_err(|_| invalid())?;
        if events == 0 || per < Duration::from_millis(1) || per > Duration::from_secs(86_400) {
            return Err(Invalid::new(format!("the rate {text:?} must allow at least one event, in at most a day")));
        }
        Ok(Self { events, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.events, Span(self.per))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written_alike() {
        for (text, events, seconds) in [("30/1m", 30, 60), ("1/1s", 1, 1), ("1000/1h", 1000, 3600)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.events, rate.per), (events, Duration::from_secs(seconds)), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for text in ["", "30", "0/1m", "30/0s", "-1/1m", "30/1m/2", "30/2days"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }
}
