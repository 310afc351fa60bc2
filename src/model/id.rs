//! Upload ids and the partitions that they begin with.

use std::fmt;

use super::Invalid;

/// One of the 256 shares that principals, and with them everything that belongs to them, are divided into.
///
/// Every Redis key of a partition bears its hash tag, so one script works on one slot of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u8);

/// The hash tag of the partition, such as `{p3f}`.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{p{:02x}}}", self.0)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one upload: its partition and 128 random bits, in text 34 lower-case hexadecimal digits.
///
/// Random and not ordered in time on purpose. Object names are made of it, and storage slows down on names that
/// neighbour each other (storage documentation, "Request rate and access distribution guidelines").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId {
    partition: Partition,
    random: [u8; 16],
}

impl UploadId {
    /// The length of the text form, in bytes.
    pub const TEXT_LEN: usize = 34;

    /// An id in `partition`, made unique and unguessable by `entropy`.
    pub const fn new(partition: Partition, entropy: [u8; 16]) -> Self {
        Self { partition, random: entropy }
    }

    /// The partition that everything about this upload lives in.
    pub const fn partition(self) -> Partition {
        self.partition
    }

    /// The random part: what tells uploads of one partition apart.
    pub const fn random(self) -> [u8; 16] {
        self.random
    }
}

impl std::str::FromStr for UploadId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("an upload id is 34 lower-case hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != Self::TEXT_LEN {
            return Err(invalid());
        }
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(invalid()),
        };
        let mut bytes = [0; 17];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        let mut random = [0; 16];
        random.copy_from_slice(&bytes[1..]);
        Ok(Self { partition: Partition(bytes[0]), random })
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written out some ten times for each upload, so not byte by byte through the formatter.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = std::iter::once(self.partition.0).chain(self.random);
        let mut text = [0; Self::TEXT_LEN];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_begins_with_its_partition() {
        let id = UploadId::new(Partition(0x3f), *b"0123456789abcdef");
        let text = id.to_string();
        assert!(text.starts_with("3f3031"), "{text}");
        assert_eq!(text.len(), UploadId::TEXT_LEN);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(id.partition().to_string(), "{p3f}");
    }

    #[test]
    fn only_the_one_text_form_is_an_id() {
        let upper = "3F".repeat(17);
        for text in ["", "3f", &"3f".repeat(18), &upper, &"zz".repeat(17), &"é".repeat(17)] {
            assert!(text.parse::<UploadId>().is_err(), "{text:?}");
        }
    }
}
