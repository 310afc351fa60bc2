//! As whom the broker calls storage, whether it can sign, and whether its clock is right.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::Row;
use super::{Subject, deadline};
use crate::machine::Machine;
use crate::model::chain;
use crate::model::id::{Partition, UploadId};
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::{Overwrite, Promise, PromisedSize, TransferKind};
use crate::storage::{Error, Initiation, SignedMethod, Storage};
use crate::uploads::Region;

/// A `Date` is this wide, and an answer takes a moment.
const CLOCK_IS_RIGHT: Duration = Duration::from_secs(10);

/// Token servers and signed URLs allow for less.
const CLOCK_IS_WRONG: Duration = Duration::from_secs(300);

/// A signature that is made to see whether it can be is good for a moment only.
const LIFETIME: Duration = Duration::from_secs(1);

/// Whether there is a token, and whose it is.
pub(super) async fn credentials(storage: &Storage, machine: Option<&Machine>) -> Vec<Row> {
    const NAME: &str = "credentials";
    let whose = storage.whose();
    if let Err(error) = storage.token(deadline()).await {
        let remedy = "see docs/credentials.md for what credentials need";
        return vec![Row::failed(NAME, "storage", format!("{whose}: {}", chain(&error)), remedy)];
    }
    let account = match machine {
        Some(machine) if storage.is_of_machine() => machine.account().await.ok().flatten(),
        _ => None,
    };
    let named = account.map(|name| format!(", which is {name}")).unwrap_or_default();
    vec![Row::ok(NAME, "storage", format!("there is a token of {whose}{named}"))]
}

/// Whether URLs can be signed, where a policy has such transfers.
pub(super) async fn signing(subject: &Subject, region: Option<&Region>) -> Vec<Row> {
    const NAME: &str = "signing";
    let method = subject.transfers.iter().find_map(|transfer| match transfer {
        TransferKind::Resumable => None,
        TransferKind::Simple => Some(SignedMethod::Put),
        TransferKind::SignedResumable => Some(SignedMethod::ResumableStart),
    });
    let Some(method) = method else {
        return vec![Row::skipped(NAME, "storage", "not needed: no policy has signed transfers")];
    };
    let Some(region) = region else { return vec![Row::skipped(NAME, "storage", "the own region is not known")] };
    let id = UploadId::new(Partition(0), subject.randomness.bytes());
    let (Ok(object), Ok(content_type)) = (format!("check/{id}").parse(), "text/plain".parse()) else {
        return vec![Row::skipped(NAME, "storage", "there is nothing to sign")];
    };
    let size = PromisedSize::Exactly(ByteCount(1));
    let promise = Promise { content_type, size, md5: None, crc32c: None };
    let initiation = Initiation {
        id,
        note: None,
        bucket: &region.bucket,
        object: &object,
        promise: &promise,
        metadata: &BTreeMap::new(),
        cache_control: None,
        overwrite: Overwrite::Forbidden,
        origin: None,
    };
    let signed = subject.storage.sign(method, &initiation, subject.clock.now(), LIFETIME, deadline()).await;
    let by = subject.storage.signed_by().unwrap_or_default();
    vec![match signed {
        Ok(_) => Row::ok(NAME, "storage", format!("by {by}: a signature was made, and thrown away")),
        Err(Error::NoToken(_)) => Row::skipped(NAME, "storage", "nobody was asked: there is no token"),
        Err(error) => {
            let remedy = "grant the account roles/iam.serviceAccountTokenCreator on itself, and enable the API \
                          iamcredentials.googleapis.com";
            Row::failed(NAME, "storage", format!("by {by}: {}", chain(&error)), remedy)
        }
    }]
}

/// Whether the clock here is that of storage.
pub(super) fn clock(at: Option<Timestamp>, now: Timestamp) -> Row {
    const NAME: &str = "clock";
    let Some(at) = at else { return Row::skipped(NAME, "storage", "storage did not tell the time") };
    let (ahead, behind) = (now.since(at), at.since(now));
    let off = ahead.max(behind);
    let direction = if ahead > behind { "ahead of" } else { "behind" };
    let found = format!("{} s {direction} storage's", off.as_secs());
    let remedy = "let this machine's clock follow a time server";
    if off <= CLOCK_IS_RIGHT {
        Row::ok(NAME, "storage", "the same as storage's")
    } else if off <= CLOCK_IS_WRONG {
        Row::warning(NAME, "storage", format!("{found}: some tokens and signatures are refused"), remedy)
    } else {
        Row::failed(NAME, "storage", format!("{found}: tokens and signatures are refused"), remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::report::Status;

    #[test]
    fn clocks_may_differ_by_seconds() {
        let here = Timestamp::from_secs(1_000_000);
        for (at, expected) in [
            (None, Status::Skipped),
            (Some(0), Status::Ok),
            (Some(10), Status::Ok),
            (Some(-11), Status::Warning),
            (Some(300), Status::Warning),
            (Some(301), Status::Failed),
            (Some(-3600), Status::Failed),
        ] {
            let at = at.map(|seconds: i64| Timestamp::from_secs(1_000_000 + seconds));
            assert_eq!(clock(at, here).status, expected, "{at:?}");
        }
        assert!(clock(Some(Timestamp::from_secs(999_000)), here).found.starts_with("1000 s ahead"));
    }
}
