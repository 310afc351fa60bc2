//! The authenticated end user.

use std::fmt;
use std::sync::Arc;

use super::id::Partition;
use super::time::Timestamp;

/// An authenticated end user, with what its token says about it. Cheap to clone inside an `Arc`.
#[derive(Clone)]
pub struct Principal {
    /// Tells this user from every other; the key of everything that belongs to it.
    pub id: PrincipalId,
    /// The `iss` claim.
    pub issuer: Arc<str>,
    /// The claim that the issuer's `tenant_claim` names.
    pub tenant: Option<Arc<str>>,
    /// The `sub` claim.
    pub subject: Arc<str>,
    /// All claims of the token, for the conditions and object names of policies. Data, never instructions.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// Whether the issuer's `admin_when` holds.
    pub admin: bool,
    /// When the token that proved all this ends.
    pub expires_at: Timestamp,
}

/// Says who, and nothing that the token claims: claims may be personal.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").field("id", &self.id).field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// The three claims that name an end user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The `iss` claim.
    pub issuer: &'a str,
    /// The claim that the issuer's `tenant_claim` names.
    pub tenant: Option<&'a str>,
    /// The `sub` claim.
    pub subject: &'a str,
}

impl Principal {
    /// The claims that name it.
    pub fn owner(&self) -> Owner<'_> {
        Owner { issuer: &self.issuer, tenant: self.tenant.as_deref(), subject: &self.subject }
    }
}

/// A digest of issuer, tenant and subject: equal for the same user, and nothing else can be learned from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalId(pub [u8; 16]);

impl PrincipalId {
    /// The id of the user that these three name.
    ///
    /// The first 128 bits of SHA-256 over the parts, each behind its length, so no two triples run together.
    pub fn of(issuer: &str, tenant: Option<&str>, subject: &str) -> Self {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in [Some(issuer), tenant, Some(subject)] {
            let length = part.map_or(u64::MAX, |text| text.len() as u64);
            hash.update(&length.to_be_bytes());
            hash.update(part.unwrap_or_default().as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finish().as_ref()[..16]);
        Self(id)
    }

    /// The partition that everything of this principal lives in.
    pub const fn partition(self) -> Partition {
        Partition(self.0[0])
    }
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_differ_where_any_part_does() {
        let ids = [
            PrincipalId::of("iss", None, "ada"),
            PrincipalId::of("iss", Some(""), "ada"),
            PrincipalId::of("iss", Some("a"), "da"),
            PrincipalId::of("issa", None, "da"),
            PrincipalId::of("iss", None, "ad"),
        ];
        for (position, id) in ids.iter().enumerate() {
            assert!(!ids[..position].contains(id), "{position}");
        }
        assert_eq!(ids[0], PrincipalId::of("iss", None, "ada"));
    }
}
