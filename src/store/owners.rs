//! Who is behind a principal: for administrators, who know users by name and not by digest.
//!
//! One hash for each partition, written at the first upload of a principal, or at the next one if that was lost, and
//! forgotten some time after its last one.

use crate::model::id::Partition;
use crate::model::principal::{Owner, PrincipalId};

use super::Store;
use super::error::Error;
use super::memory::MemoryStore;
use super::metrics::Operation;
use super::redis::RedisStore;
use super::reply::unexpected;

/// Longer names are not kept: nobody types them, and a token could bear 16 KiB of them.
const LONGEST: usize = 1024;

/// How many owners one call forgets.
const FORGET_AT_ONCE: usize = 100;

/// A principal that has uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownOwner {
    /// Its digest.
    pub principal: PrincipalId,
    /// The `iss`, tenant and `sub` claims; `None` where they were too long to be kept, or lost.
    pub names: Option<Names>,
}

/// The claims that name a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The `iss` claim.
    pub issuer: String,
    /// The claim that the issuer's `tenant_claim` names.
    pub tenant: Option<String>,
    /// The `sub` claim.
    pub subject: String,
}

impl Names {
    /// The names of `owner`, unless they are too long to be kept.
    pub fn of(owner: Owner<'_>) -> Option<Self> {
        let Owner { issuer, tenant, subject } = owner;
        let names = Self { issuer: issuer.to_owned(), tenant: tenant.map(str::to_owned), subject: subject.to_owned() };
        Some(names).filter(|_| !packed(owner).is_empty())
    }

    /// The same, borrowed.
    pub fn owner(&self) -> Owner<'_> {
        Owner { issuer: &self.issuer, tenant: self.tenant.as_deref(), subject: &self.subject }
    }
}

/// Some principals that have uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerPage {
    /// In the order of their digests.
    pub owners: Vec<KnownOwner>,
    /// The last one, if others follow it.
    pub next: Option<PrincipalId>,
}

/// The names as they are stored.
pub(super) fn packed(owner: Owner<'_>) -> String {
    let text = serde_json::json!([owner.issuer, owner.tenant, owner.subject]).to_string();
    if text.len() > LONGEST { String::new() } else { text }
}

impl KnownOwner {
    fn read(principal: PrincipalId, packed: &[u8]) -> Self {
        let names = serde_json::from_slice(packed).ok();
        Self { principal, names: names.map(|(issuer, tenant, subject)| Names { issuer, tenant, subject }) }
    }
}

impl Store {
    /// Up to `limit` principals that have uploads, those behind `after`. A round trip for each partition that has none,
    /// two for others.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn owners(&self, after: Option<PrincipalId>, limit: usize) -> Result<OwnerPage, Error> {
        self.observed(Operation::Owners, async {
            let mut page = OwnerPage::default();
            let first = after.map_or(0, |principal| principal.partition().0);
            for partition in (first..=u8::MAX).map(Partition) {
                let missing = limit - page.owners.len();
                // One more than is wanted tells whether anything follows.
                let found = match self {
                    Self::Redis(store) => store.owners_in(partition, after, missing + 1).await?,
                    Self::Memory(store) => store.owners_in(partition, after, missing + 1),
                };
                let more = found.len() > missing;
                page.owners.extend(found.into_iter().take(missing));
                if more {
                    page.next = page.owners.last().map(|last| last.principal).or(after);
                    break;
                }
            }
            Ok(page)
        })
        .await
    }

    /// Who is behind each of `principals`. One round trip for each.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn owner(&self, principal: PrincipalId) -> Result<KnownOwner, Error> {
        self.observed(Operation::Owners, async {
            match self {
                Self::Redis(store) => store.owner(principal).await,
                Self::Memory(store) => Ok(store.owner(principal)),
            }
        })
        .await
    }

    /// Forgets the principals of a partition whose uploads are all forgotten. A round trip, and one for every hundred
    /// principals.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call is safe.
    pub async fn forget_owners(&self, partition: Partition) -> Result<(), Error> {
        self.observed(Operation::Owners, async {
            match self {
                Self::Redis(store) => store.forget_owners(partition).await,
                // That store forgets an owner together with its last upload.
                Self::Memory(_) => Ok(()),
            }
        })
        .await
    }
}

impl RedisStore {
    /// The principals of a partition, in order.
    async fn principals(&self, partition: Partition) -> Result<Vec<PrincipalId>, Error> {
        let mut keys = redis::cmd("HKEYS");
        keys.arg(self.keys.owners(partition));
        let fields: Vec<Vec<u8>> = redis::from_redis_value(self.command(&keys).await?).map_err(|_| unexpected())?;
        let principal = |field: Vec<u8>| {
            let mut id = [partition.0; 16];
            id[1..].copy_from_slice(<&[u8; 15]>::try_from(&field[..]).ok()?);
            Some(PrincipalId(id))
        };
        let mut principals: Vec<_> = fields.into_iter().map(principal).collect::<Option<_>>().ok_or_else(unexpected)?;
        principals.sort_unstable();
        Ok(principals)
    }

    async fn owners_in(
        &self,
        partition: Partition,
        after: Option<PrincipalId>,
        limit: usize,
    ) -> Result<Vec<KnownOwner>, Error> {
        let mut principals = self.principals(partition).await?;
        principals.retain(|principal| after.is_none_or(|after| *principal > after));
        principals.truncate(limit);
        if principals.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = redis::cmd("HMGET");
        get.arg(self.keys.owners(partition));
        for principal in &principals {
            get.arg(&principal.0[1..]);
        }
        let names: Vec<Option<Vec<u8>>> =
            redis::from_redis_value(self.command(&get).await?).map_err(|_| unexpected())?;
        let read = |(principal, names): (_, Option<Vec<u8>>)| KnownOwner::read(principal, &names.unwrap_or_default());
        Ok(principals.into_iter().zip(names).map(read).collect())
    }

    async fn owner(&self, principal: PrincipalId) -> Result<KnownOwner, Error> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.owners(principal.partition())).arg(&principal.0[1..]);
        let names: Option<Vec<u8>> = redis::from_redis_value(self.command(&get).await?).map_err(|_| unexpected())?;
        Ok(KnownOwner::read(principal, &names.unwrap_or_default()))
    }

    async fn forget_owners(&self, partition: Partition) -> Result<(), Error> {
        for principals in self.principals(partition).await?.chunks(FORGET_AT_ONCE) {
            let mut call = self.scripts.forget_owners.prepare_invoke();
            call.key(self.keys.owners(partition));
            for principal in principals {
                call.key(self.keys.index(*principal)).arg(&principal.0[1..]);
            }
            self.script(&call).await?;
        }
        Ok(())
    }
}

impl MemoryStore {
    fn owners_in(&self, partition: Partition, after: Option<PrincipalId>, limit: usize) -> Vec<KnownOwner> {
        let known = self.known();
        let of_partition = known.owners.iter().filter(|(principal, _)| principal.partition() == partition);
        let behind = of_partition.filter(|(principal, _)| after.is_none_or(|after| **principal > after));
        behind.take(limit).map(|(principal, names)| KnownOwner::read(*principal, names.as_bytes())).collect()
    }

    fn owner(&self, principal: PrincipalId) -> KnownOwner {
        let known = self.known();
        KnownOwner::read(principal, known.owners.get(&principal).map_or(&[], |names| names.as_bytes()))
    }
}
