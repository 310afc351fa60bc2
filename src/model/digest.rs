//! The two digests that storage keeps of an object.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Invalid;

/// An MD5 digest. On the wire it is standard base64 of its 16 bytes, as in the storage object resource (`md5Hash`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5(pub [u8; 16]);

/// A CRC32C (Castagnoli) checksum. On the wire it is standard base64 of its 4 bytes, the most significant first,
/// as in the storage object resource (`crc32c`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crc32c(pub u32);

fn decode<const N: usize>(text: &str, what: &str) -> Result<[u8; N], Invalid> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Invalid::new(format!("{what} must be standard base64 of exactly {N} bytes")))
}

impl std::str::FromStr for Md5 {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        decode(text, "an MD5 digest").map(Self)
    }
}

impl std::str::FromStr for Crc32c {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        decode(text, "a CRC32C checksum").map(|bytes| Self(u32::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Display for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Md5({self})")
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc32c({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_the_wire_form_of_the_object_resource() {
        assert_eq!("4waSgw==".parse(), Ok(Crc32c(0xE306_9283)), "the check value of CRC32C, for \"123456789\"");
        assert_eq!(Crc32c(crc32c::crc32c(b"hello world")).to_string(), "yZRlqg==");
        assert_eq!("XrY7u+Ae7tCTyyK7j1rNww==".parse::<Md5>().unwrap().to_string(), "XrY7u+Ae7tCTyyK7j1rNww==");
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in ["", "yZRlqg", "yZRlqg==\n", "yZRl-g==", "AAAA", "XrY7u+Ae7tCTyyK7j1rNww=="] {
            assert!(text.parse::<Crc32c>().is_err(), "{text:?}");
        }
        for text in ["", "yZRlqg==", "5eb63bbbe01eeed093cb22bb8f5acdc3"] {
            assert!(text.parse::<Md5>().is_err(), "{text:?}");
        }
    }
}
