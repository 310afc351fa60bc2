//! Numbers of bytes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;

/// A number of bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteCount {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// The largest object that storage takes by any method: 5 TiB (storage documentation, "Quotas and limits").
    pub const LARGEST_OBJECT: Self = Self(5 << 40);

    /// `count` times 2^10 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` times 2^20 bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` times 2^30 bytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }
}

impl std::str::FromStr for ByteCount {
    type Err = Invalid;

    /// Reads `"20GiB"`, `"8 MiB"`, `"1500"`; binary and decimal units, whole numbers only.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(format!("{text:?} is not a size such as \"20GiB\", \"8MiB\" or \"1500\""));
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits.trim_end(), *unit)))
            .unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let count: u64 = digits.parse().map_err(|_| invalid())?;
        count.checked_mul(unit).map(Self).ok_or_else(invalid)
    }
}

/// The largest binary unit that divides the count, so that reading it back gives the same number: `"8MiB"`, `"1500B"`.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS[..4].iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match exact {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Debug for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a configuration, where a size is text (`"8MiB"`) or a plain number of bytes (`1`).
impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"20GiB\", or a number of bytes")
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<ByteCount, E> {
                Ok(ByteCount(count))
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<ByteCount, E> {
                u64::try_from(count).map(ByteCount).map_err(|_| E::custom("a size cannot be negative"))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteCount, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1500", Some(1500)),
            ("1500B", Some(1500)),
            ("8MiB", Some(8 << 20)),
            ("8 MiB", Some(8 << 20)),
            ("20GiB", Some(20 << 30)),
            ("5TB", Some(5_000_000_000_000)),
            ("", None),
            ("MiB", None),
            ("1.5MiB", None),
            ("-1", None),
            ("+1", None),
            ("8mib", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(text.parse::<ByteCount>().ok(), expected.map(ByteCount), "{text:?}");
        }
    }

    #[test]
    fn sizes_read_back_as_they_were_written() {
        for count in [0, 1, 1023, 1024, 1500, 8 << 20, 20 << 30, 5 << 40] {
            let text = ByteCount(count).to_string();
            assert_eq!(text.parse(), Ok(ByteCount(count)), "{text}");
        }
    }
}
