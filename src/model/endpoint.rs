//! The receivers of events, as they are known in what is stored.

use std::fmt;

/// Names one webhook endpoint in what is stored: the first 64 bits of SHA-256 over its configured name.
///
/// Made of the name alone, so that what waits for an endpoint still finds it after its address has changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub [u8; 8]);

impl EndpointId {
    /// The id of the endpoint that is called `name`.
    pub fn of(name: &str) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes()).as_ref()[..8]);
        Self(id)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_known_by_its_name_alone() {
        // Computed with sha256sum: it is in what is stored, and must never change.
        assert_eq!(EndpointId::of("backend").to_string(), "10e08a419e850eba");
        assert_ne!(EndpointId::of("backend"), EndpointId::of("backend-2"));
    }
}
