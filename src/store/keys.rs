//! Every key in Redis, its hash tag and its life.
//!
//! All keys of a principal and of its uploads bear the tag of one partition, so that a script finds all its keys in one
//! slot of a cluster (Redis cluster specification, "Hash tags"). Behind the tag stands one letter for the kind, then
//! raw bytes of fixed length: what the tag says already is not repeated.
//!
//! | key | type | holds | life |
//! |---|---|---|---|
//! | `{pNN}u<id>` | string | one upload: a record | until it expires, and [`FINAL_RETENTION`] more |
//! | `{pNN}q<principal><policy>` | hash | what a principal uses under a policy: a ledger | [`LEDGER_LIFE`] after it last admitted |
//! | `{pNN}x<principal>` | sorted set | the uploads of a principal by creation, ms | [`INDEX_LIFE`] after its last upload |
//! | `{pNN}i<principal><key>` | string | the upload that an idempotency key named, the request's fingerprint, when to forget them, ms | [`KEY_LIFE`] |
//! | `{p00}p` | none | nothing: what a ping deletes | |
//! | `{pNN}d` | sorted set | the uploads of a partition by when to look at them next, ms | while it has members |

use std::time::Duration;

use crate::model::id::{Partition, UploadId};
use crate::model::idempotency::IdempotencyKey;
use crate::model::name::PolicyName;
use crate::model::principal::PrincipalId;

use super::error::OpenError;

const DAY: Duration = Duration::from_secs(86_400);

/// How long an upload is remembered after its end.
pub const FINAL_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// How long an idempotency key is remembered.
pub const KEY_LIFE: Duration = DAY;

/// Longer than the longest reservation, a session of 7 days, and than the day that bytes are settled in.
pub(super) const LEDGER_LIFE: Duration = Duration::from_secs(9 * 86_400);

/// Longer than any record: 7 days of session, 7 of retention before its end is noticed, 7 after.
pub(super) const INDEX_LIFE: Duration = Duration::from_secs(22 * 86_400);

/// How many uploads of one principal are listed; of more, the newest.
pub(super) const INDEX_CEILING: u32 = 100_000;

/// How many uploads of one principal may be under way under one policy that sets no lower limit: what a script may
/// have to walk through.
pub const ACTIVE_CEILING: u32 = 10_000;

/// Makes the keys of one deployment.
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Result<Self, OpenError> {
        let fits =
            (1..=64).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_graphic() && !b"{}".contains(&b));
        if fits { Ok(Self { prefix: prefix.to_owned() }) } else { Err(OpenError::KeyPrefix) }
    }

    pub(super) fn record(&self, id: UploadId) -> Vec<u8> {
        self.key(id.partition(), b'u', &[&id.random()])
    }

    pub(super) fn ledger(&self, principal: PrincipalId, policy: &PolicyName) -> Vec<u8> {
        self.key(principal.partition(), b'q', &[&principal.0[1..], policy.as_str().as_bytes()])
    }

    pub(super) fn index(&self, principal: PrincipalId) -> Vec<u8> {
        self.key(principal.partition(), b'x', &[&principal.0[1..]])
    }

    pub(super) fn idempotency(&self, principal: PrincipalId, key: IdempotencyKey) -> Vec<u8> {
        self.key(principal.partition(), b'i', &[&principal.0[1..], &key.0])
    }

    pub(super) fn due(&self, partition: Partition) -> Vec<u8> {
        self.key(partition, b'd', &[])
    }

    pub(super) fn probe(&self) -> Vec<u8> {
        self.key(Partition(0), b'p', &[])
    }

    fn key(&self, partition: Partition, kind: u8, tail: &[&[u8]]) -> Vec<u8> {
        let mut key = format!("{}:{partition}", self.prefix).into_bytes();
        key.push(kind);
        key.extend(tail.concat());
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_tag_and_differ() {
        let keys = Keys::new("upload-broker").unwrap();
        let principal = PrincipalId([0x3f; 16]);
        let id = UploadId::new(principal.partition(), [1; 16]);
        let all = [
            keys.record(id),
            keys.ledger(principal, &"videos".parse().unwrap()),
            keys.ledger(principal, &"images".parse().unwrap()),
            keys.index(principal),
            keys.idempotency(principal, IdempotencyKey([2; 16])),
            keys.due(id.partition()),
        ];
        for (position, key) in all.iter().enumerate() {
            assert!(key.starts_with(b"upload-broker:{p3f}"), "{position}");
            assert!(!all[..position].contains(key), "{position}");
        }
    }

    #[test]
    fn a_prefix_cannot_break_the_hash_tag() {
        for (name, prefix, fits) in [
            ("the default", "upload-broker", true),
            ("with a colon", "team:a", true),
            ("empty", "", false),
            ("a brace", "a{b", false),
            ("a blank", "a b", false),
            ("too long", &"k".repeat(65), false),
        ] {
            assert_eq!(Keys::new(prefix).is_ok(), fits, "{name}");
        }
    }
}
