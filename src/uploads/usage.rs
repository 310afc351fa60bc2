//! What principals use, for administrators: row by row, or summed up.
//!
//! A ledger is found by the name of its policy, so those of policies that the configuration has no more are not among them.
//! Nothing is counted by these any more either: a policy of another name has a ledger of its own.

use std::collections::BTreeMap;

use super::administer::{MOST_PRINCIPALS, Place, Whom};
use super::audit::Audit;
use super::{Error, Uploads};
use crate::model::limits::Limits;
use crate::model::name::PolicyName;
use crate::model::principal::{Principal, PrincipalId};
use crate::model::size::ByteCount;
use crate::store::{KnownOwner, Usage};

/// What a principal uses under one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The principal.
    pub owner: KnownOwner,
    /// The policy.
    pub policy: PolicyName,
    /// What it allows.
    pub limits: Limits,
    /// What is used.
    pub usage: Usage,
}

/// What some principals use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsagePage {
    /// By principal, in the order of their digests, and policy, in that of the configuration. Without those that use
    /// nothing.
    pub rows: Vec<UsageRow>,
    /// Behind the last principal that was looked at, if others follow.
    pub next: Option<Place>,
}

/// What rows are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumBy {
    /// Issuer and tenant: two issuers may have tenants of one name.
    Tenant,
    /// Policy.
    Policy,
}

/// What a sum is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SumOf {
    /// A tenant; principals without one are together, for each issuer, and so are those whose names are not known.
    Tenant {
        /// The issuer, if it is known.
        issuer: Option<String>,
        /// The tenant, if there is one.
        tenant: Option<String>,
    },
    /// A policy.
    Policy(PolicyName),
}

/// What several principals use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many there are.
    pub principals: u64,
    /// Uploads under way.
    pub active: u64,
    /// Bytes reserved, or stored today.
    pub bytes_today: ByteCount,
    last: Option<PrincipalId>,
}

impl Uploads {
    /// What `whom` uses under each policy, or one: of up to `limit` principals, at most 2000, those behind `after`. A round
    /// trip for each.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn usage(
        &self,
        administrator: &Principal,
        whom: &Whom,
        policy: Option<&PolicyName>,
        after: Option<PrincipalId>,
        limit: usize,
    ) -> Result<UsagePage, Error> {
        let mut audit = Audit::begin(administrator, "usage");
        let used = self.usage_of(whom, policy, after, limit).await;
        audit.read(&used);
        used
    }

    async fn usage_of(
        &self,
        whom: &Whom,
        policy: Option<&PolicyName>,
        after: Option<PrincipalId>,
        limit: usize,
    ) -> Result<UsagePage, Error> {
        let policies = self.policies.all().filter(|candidate| policy.is_none_or(|policy| policy == candidate.name()));
        let limits: Vec<_> = policies.map(|policy| (policy.name(), policy.limits())).collect();
        let now = self.clock.now();
        let principals = self.principals(whom, after, limit.clamp(1, MOST_PRINCIPALS)).await?;
        let mut rows = Vec::new();
        for owner in principals.owners {
            let used = self.store.usage(owner.principal, &limits, now).await?;
            for (usage, (policy, limits)) in used.into_iter().zip(&limits) {
                if !is_nothing(&usage, limits) {
                    rows.push(UsageRow { owner: owner.clone(), policy: (*policy).clone(), limits: *limits, usage });
                }
            }
        }
        Ok(UsagePage { rows, next: principals.next.map(Place::behind) })
    }
}

/// Whether nothing is used: no upload, no byte, no token of the rate.
fn is_nothing(usage: &Usage, limits: &Limits) -> bool {
    usage.active == 0 && usage.bytes_today == ByteCount::ZERO && usage.rate_left == limits.rate.map(|rate| rate.events)
}

/// Sums rows up, in which those of one principal stand together.
pub fn sums(rows: &[UsageRow], by: SumBy) -> BTreeMap<SumOf, Sum> {
    let mut sums: BTreeMap<SumOf, Sum> = BTreeMap::new();
    for UsageRow { owner, policy, usage, .. } in rows {
        let names = owner.names.as_ref();
        let of = match by {
            SumBy::Policy => SumOf::Policy(policy.clone()),
            SumBy::Tenant => SumOf::Tenant {
                issuer: names.map(|names| names.issuer.clone()),
                tenant: names.and_then(|names| names.tenant.clone()),
            },
        };
        let sum = sums.entry(of).or_default();
        sum.principals += u64::from(sum.last != Some(owner.principal));
        sum.last = Some(owner.principal);
        sum.active += u64::from(usage.active);
        sum.bytes_today = ByteCount(sum.bytes_today.0.saturating_add(usage.bytes_today.0));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: Option<&str>, subject: &str, policy: &str, active: u32, bytes: u64) -> UsageRow {
        let whom = Whom {
            issuer: Some("iss".to_owned()),
            tenant: tenant.map(str::to_owned),
            subject: Some(subject.to_owned()),
        };
        let usage = Usage { active, bytes_today: ByteCount(bytes), rate_left: None, rate_resets_at: None };
        let (owner, policy) = (whom.one().unwrap(), policy.parse().unwrap());
        UsageRow { owner, policy, limits: Limits::default(), usage }
    }

    #[test]
    fn sums_have_every_row_once_and_every_principal_once() {
        let mut rows = vec![
            row(Some("acme"), "ada", "videos", 1, 10),
            row(Some("acme"), "ada", "images", 2, 20),
            row(None, "bob", "videos", 4, u64::MAX),
            row(Some("acme"), "eve", "videos", 8, 80),
        ];
        rows.push(UsageRow {
            owner: KnownOwner { names: None, principal: PrincipalId([9; 16]) },
            ..row(None, "x", "videos", 16, 160)
        });
        let seen = |by| -> Vec<_> {
            let sums = sums(&rows, by).into_iter();
            sums.map(|(of, sum)| (of, sum.principals, sum.active, sum.bytes_today.0)).collect()
        };
        let policy = |name: &str| SumOf::Policy(name.parse().unwrap());
        assert_eq!(seen(SumBy::Policy), [(policy("images"), 1, 2, 20), (policy("videos"), 4, 29, u64::MAX)]);
        let tenant = |issuer: Option<&str>, tenant: Option<&str>| SumOf::Tenant {
            issuer: issuer.map(str::to_owned),
            tenant: tenant.map(str::to_owned),
        };
        let expected = [
            (tenant(None, None), 1, 16, 160),
            (tenant(Some("iss"), None), 1, 4, u64::MAX),
            (tenant(Some("iss"), Some("acme")), 2, 11, 110),
        ];
        assert_eq!(seen(SumBy::Tenant), expected);
    }

    #[test]
    fn a_token_of_the_rate_is_something() {
        let limits = Limits { rate: Some("3/1m".parse().unwrap()), ..Limits::default() };
        for (active, bytes, left, expected) in [(0, 0, 3, true), (0, 0, 2, false), (1, 0, 3, false), (0, 1, 3, false)] {
            let usage = Usage { rate_left: Some(left), ..row(None, "ada", "videos", active, bytes).usage };
            assert_eq!(is_nothing(&usage, &limits), expected, "{usage:?}");
        }
    }
}
