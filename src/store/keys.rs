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
//! | `{pNN}d<region>` | sorted set | the uploads of a partition and a region by when to look at them next, ms; behind the point, how late those are that nobody has settled | while it has members |
//! | `{pNN}e<endpoint>` | sorted set | the uploads whose end an endpoint is to be told of, by when to try next, ms | [`DELIVERY_LIFE`] after the last was added |
//! | `{pNN}h<endpoint>` | hash | how often that failed, and how it failed last | [`DELIVERY_LIFE`] after the last failure; what is of a delivery leaves with it |
//! | `{pNN}k<endpoint>` | sorted set | what is parked: not tried any more, by since when, ms | [`DELIVERY_LIFE`] after the last failure; each leaves as long after it was parked |
//! | `{pNN}n` | hash | the owners of a partition's uploads, by principal | an owner leaves when its index has |

use std::time::Duration;

use crate::model::endpoint::EndpointId;
use crate::model::id::{Partition, UploadId};
use crate::model::idempotency::IdempotencyKey;
use crate::model::name::{PolicyName, RegionName};
use crate::model::principal::PrincipalId;

use super::error::OpenError;

const DAY: Duration = Duration::from_secs(86_400);

/// How long an upload is remembered after its end: longer than whatever can still write its object. A session that a
/// client opened by itself, with a URL that was signed just before the end, lives for 7 days.
pub const FINAL_RETENTION: Duration = Duration::from_secs(8 * 86_400);

/// How long deliveries are kept that nobody takes, such as those of an endpoint that has left the configuration: as
/// long as the uploads that they are about.
pub(super) const DELIVERY_LIFE: Duration = FINAL_RETENTION;

/// How long an idempotency key is remembered.
pub const KEY_LIFE: Duration = DAY;

/// Longer than the longest reservation, a session of 7 days, and than the day that bytes are settled in.
pub(super) const LEDGER_LIFE: Duration = Duration::from_secs(9 * 86_400);

/// Longer than any record: 7 days of session, 8 of retention before its end is noticed, 8 after.
pub(super) const INDEX_LIFE: Duration = Duration::from_secs(24 * 86_400);

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

    pub(super) fn due(&self, partition: Partition, region: &RegionName) -> Vec<u8> {
        self.key(partition, b'd', &[region.as_str().as_bytes()])
    }

    pub(super) fn outbox(&self, partition: Partition, endpoint: EndpointId) -> Vec<u8> {
        self.key(partition, b'e', &[&endpoint.0])
    }

    pub(super) fn failures(&self, partition: Partition, endpoint: EndpointId) -> Vec<u8> {
        self.key(partition, b'h', &[&endpoint.0])
    }

    pub(super) fn parked(&self, partition: Partition, endpoint: EndpointId) -> Vec<u8> {
        self.key(partition, b'k', &[&endpoint.0])
    }

    pub(super) fn owners(&self, partition: Partition) -> Vec<u8> {
        self.key(partition, b'n', &[])
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
            keys.due(id.partition(), &"europe-west1".parse().unwrap()),
            keys.due(id.partition(), &"europe-west4".parse().unwrap()),
            keys.outbox(id.partition(), EndpointId([3; 8])),
            keys.failures(id.partition(), EndpointId([3; 8])),
            keys.parked(id.partition(), EndpointId([3; 8])),
            keys.owners(id.partition()),
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
