//! What makes a repeated request recognisable.

use super::Invalid;

/// An `Idempotency-Key` of one principal's, kept only as a digest: keys may be personal, and are as long as clients like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 16]);

impl IdempotencyKey {
    /// The key that a client sent.
    ///
    /// # Errors
    /// When it is not 1 to 255 printable ASCII characters.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        if (1..=255).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
            Ok(Self(digest(text)))
        } else {
            Err(Invalid::new("an Idempotency-Key has 1 to 255 printable ASCII characters"))
        }
    }
}

/// A digest of what a request asks for: a repeat under the same key must ask for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a request in its canonical form.
    pub fn of(canonical: &[u8]) -> Self {
        Self(digest(canonical))
    }
}

/// The first 128 bits of SHA-256: enough that no client can make two requests with one fingerprint.
fn digest(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_printable() {
        assert_ne!(IdempotencyKey::parse(b"a").unwrap(), IdempotencyKey::parse(b"b").unwrap());
        assert!(IdempotencyKey::parse(&[b'k'; 255]).is_ok());
        for refused in [&b""[..], &[b'k'; 256], b"a\nb", "schlüssel".as_bytes()] {
            assert!(IdempotencyKey::parse(refused).is_err());
        }
    }
}
