//! What administrators do with the uploads of others: find, list and cancel them.
//!
//! They see an upload and whose it is, and never its session: that is the owner's alone.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::audit::Audit;
use super::{Error, Uploads};
use crate::model::Invalid;
use crate::model::id::UploadId;
use crate::model::name::PolicyName;
use crate::model::principal::{Principal, PrincipalId};
use crate::model::upload::{StateKind, Upload};
use crate::store::{Cursor, KnownOwner, Names, OwnerPage, Page};

/// How many uploads are looked at for one page. A page may end early for it, and says where to go on.
const SCAN: usize = 1000;

/// As how many of these a principal counts, whatever it has: for the two round trips that it costs.
const VISIT: usize = 5;

/// How many principals are looked at for one page, most of which may not be wanted.
pub const MOST_PRINCIPALS: usize = 2000;

/// An upload, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The upload.
    pub upload: Upload,
    /// Its owner.
    pub owner: KnownOwner,
}

/// Whose uploads, or whose usage: what is left out may be anything.
///
/// Issuer and subject name one principal together, of the tenant that is given, or of none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whom {
    /// The `iss` claim.
    pub issuer: Option<String>,
    /// The claim that the issuer's `tenant_claim` names.
    pub tenant: Option<String>,
    /// The `sub` claim.
    pub subject: Option<String>,
}

impl Whom {
    /// The principal, if this names one.
    pub fn one(&self) -> Option<KnownOwner> {
        let (issuer, subject) = (self.issuer.clone()?, self.subject.clone()?);
        let principal = PrincipalId::of(&issuer, self.tenant.as_deref(), &subject);
        Some(KnownOwner { principal, names: Some(Names { issuer, tenant: self.tenant.clone(), subject }) })
    }

    fn is_anybody(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this is one of them. Whose names are not known is only among all.
    fn takes(&self, owner: &KnownOwner) -> bool {
        let names = owner.names.as_ref();
        let fits = |wanted: &Option<String>, name: Option<&str>| wanted.is_none() || wanted.as_deref() == name;
        fits(&self.issuer, names.map(|names| &*names.issuer))
            && fits(&self.tenant, names.and_then(|names| names.tenant.as_deref()))
            && fits(&self.subject, names.map(|names| &*names.subject))
    }
}

/// Which uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whose.
    pub whom: Whom,
    /// Only those that this policy has admitted.
    pub policy: Option<PolicyName>,
    /// Only those in this state.
    pub state: Option<StateKind>,
    /// How many at most; taken as 1 to [`Page::LARGEST`].
    pub limit: usize,
}

impl Selection {
    fn takes(&self, upload: &Upload) -> bool {
        self.state.is_none_or(|state| state == upload.state.kind())
            && self.policy.as_ref().is_none_or(|policy| *policy == upload.policy)
    }
}

/// A place among the uploads of all principals, which stand by principal, newest first. Opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The principal that was looked at last.
    pub principal: PrincipalId,
    /// The place among its uploads; without one, it is behind them all.
    pub within: Option<Cursor>,
}

impl Place {
    /// Behind all that a principal has.
    pub const fn behind(principal: PrincipalId) -> Self {
        Self { principal, within: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.principal.0))?;
        self.within.map_or(Ok(()), |within| write!(f, ".{within}"))
    }
}

impl std::str::FromStr for Place {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (principal, within) = text.split_once('.').map_or((text, None), |(text, within)| (text, Some(within)));
        let principal = URL_SAFE_NO_PAD.decode(principal).ok().and_then(|bytes| bytes.try_into().ok());
        let principal = principal.ok_or_else(|| Invalid::new("the cursor is none that this service gave out"))?;
        Ok(Self { principal: PrincipalId(principal), within: within.map(str::parse).transpose()? })
    }
}

/// Some uploads of some principals.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OwnedListing {
    /// By principal, in the order of their digests; of each, newest first.
    pub uploads: Vec<Owned>,
    /// Where the next part begins, if there may be one.
    pub next: Option<Place>,
}

/// A listing that is being made.
struct Gathering<'a> {
    selection: &'a Selection,
    limit: usize,
    /// What is left to be looked at.
    budget: usize,
    uploads: Vec<Owned>,
}

impl Gathering<'_> {
    fn is_over(&self) -> bool {
        self.uploads.len() == self.limit || self.budget == 0
    }

    /// How many uploads to ask for next. With a filter most may not fit.
    fn wanted(&self) -> usize {
        let is_filtered = self.selection.policy.is_some() || self.selection.state.is_some();
        if is_filtered { Page::LARGEST } else { self.limit - self.uploads.len() }
    }
}

impl Uploads {
    /// Any upload, ended if its time is over.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Store`] when the store fails.
    pub async fn find_any(&self, administrator: &Principal, id: UploadId, deadline: Instant) -> Result<Owned, Error> {
        let mut audit = Audit::begin(administrator, "read").of_upload(id);
        let found = self.find_owned(id, deadline).await;
        audit.read(&found);
        found
    }

    async fn find_owned(&self, id: UploadId, deadline: Instant) -> Result<Owned, Error> {
        let tracked = self.store.find(id).await?.ok_or(Error::NotFound)?;
        let owner = self.store.owner(tracked.upload.principal).await?;
        let tracked = self.ended_in_time(tracked, deadline).await?;
        Ok(Owned { upload: tracked.upload, owner })
    }

    /// Cancels any upload, as its owner would: see [`Uploads::cancel`].
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Store`] and [`Error::Storage`] when these fail. While storage is away nothing is
    /// cancelled: the capability could not be revoked.
    pub async fn cancel_any(&self, administrator: &Principal, id: UploadId, deadline: Instant) -> Result<Owned, Error> {
        let mut audit = Audit::begin(administrator, "cancel").of_upload(id);
        let ended = self.call_off_any(id, deadline).await;
        audit.outcome = match &ended {
            Ok(owned) => owned.upload.state.name(),
            Err(Error::NotFound) => "not found",
            Err(_) => "failed",
        };
        ended
    }

    async fn call_off_any(&self, id: UploadId, deadline: Instant) -> Result<Owned, Error> {
        let tracked = self.store.find(id).await?.ok_or(Error::NotFound)?;
        let owner = self.store.owner(tracked.upload.principal).await?;
        Ok(Owned { upload: self.call_off(tracked, deadline).await?.upload, owner })
    }

    /// The uploads of `selection`, from a place on. Looks at no more than 1000 uploads and 2000 principals, so a page may
    /// have fewer than its limit although more follow. What is created meanwhile by a principal that was passed is not
    /// among them.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn list_any(
        &self,
        administrator: &Principal,
        selection: &Selection,
        from: Option<Place>,
    ) -> Result<OwnedListing, Error> {
        let mut audit = Audit::begin(administrator, "list");
        let limit = selection.limit.clamp(1, Page::LARGEST);
        let mut gathering = Gathering { selection, limit, budget: SCAN, uploads: Vec::new() };
        let next = self.gather(&mut gathering, from).await;
        audit.read(&next);
        Ok(OwnedListing { next: next?, uploads: gathering.uploads })
    }

    /// Goes from principal to principal until the gathering is over; gives where to go on, if anything may follow.
    async fn gather(&self, gathering: &mut Gathering<'_>, from: Option<Place>) -> Result<Option<Place>, Error> {
        let whom = &gathering.selection.whom;
        let mut last = from.map(|from| from.principal);
        if let Some(Place { principal, within: Some(within) }) = from {
            let owner = match whom.one() {
                Some(owner) => owner,
                None => self.store.owner(principal).await?,
            };
            if owner.principal == principal
                && whom.takes(&owner)
                && let Some(within) = self.gather_from(gathering, &owner, Some(within)).await?
            {
                return Ok(Some(Place { principal, within: Some(within) }));
            }
        }
        let most = if whom.is_anybody() { SCAN / VISIT } else { MOST_PRINCIPALS };
        let page = self.principals(whom, last, most).await?;
        for owner in page.owners {
            if gathering.is_over() {
                return Ok(last.map(Place::behind));
            }
            if let Some(within) = self.gather_from(gathering, &owner, None).await? {
                return Ok(Some(Place { principal: owner.principal, within: Some(within) }));
            }
            last = Some(owner.principal);
        }
        Ok(page.next.map(Place::behind))
    }

    /// Takes the uploads of one principal; gives where to go on, if they are not all taken when the gathering is over.
    async fn gather_from(
        &self,
        gathering: &mut Gathering<'_>,
        owner: &KnownOwner,
        mut after: Option<Cursor>,
    ) -> Result<Option<Cursor>, Error> {
        loop {
            let page = Page { after, limit: gathering.wanted(), state: None };
            let listing = self.store.list(owner.principal, &page, self.clock.now()).await?;
            gathering.budget = gathering.budget.saturating_sub(listing.uploads.len().max(VISIT));
            let mut found = listing.uploads.into_iter().map(|tracked| tracked.upload).peekable();
            while let Some(upload) = found.next() {
                if !gathering.selection.takes(&upload) {
                    continue;
                }
                let place = Cursor::behind(upload.created_at, upload.id);
                gathering.uploads.push(Owned { upload, owner: owner.clone() });
                if gathering.uploads.len() == gathering.limit {
                    let more = found.peek().is_some() || listing.next.is_some();
                    return Ok(more.then_some(place));
                }
            }
            after = listing.next;
            if after.is_none() || gathering.budget == 0 {
                return Ok(after);
            }
        }
    }

    /// Of the principals behind `after`, up to `most`, those that are wanted; and the last of all, if others follow.
    pub(super) async fn principals(
        &self,
        whom: &Whom,
        after: Option<PrincipalId>,
        most: usize,
    ) -> Result<OwnerPage, Error> {
        if let Some(owner) = whom.one() {
            let is_behind = after.is_none_or(|after| owner.principal > after);
            return Ok(OwnerPage { owners: is_behind.then_some(owner).into_iter().collect(), next: None });
        }
        let mut page = self.store.owners(after, most).await?;
        page.owners.retain(|owner| whom.takes(owner));
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(tenant: Option<&str>, subject: &str) -> KnownOwner {
        let whom = Whom {
            issuer: Some("https://issuer.example".to_owned()),
            tenant: tenant.map(str::to_owned),
            subject: Some(subject.to_owned()),
        };
        whom.one().unwrap()
    }

    #[test]
    fn a_place_reads_back_and_nothing_else_does() {
        let principal = PrincipalId(*b"0123456789abcdef");
        let within = "AZqrI3hgMDEyMzQ1Njc4OWFiY2RlZg".parse().unwrap();
        for place in [Place::behind(principal), Place { principal, within: Some(within) }] {
            let text = place.to_string();
            assert_eq!(text.parse(), Ok(place));
            for other in [
                "",
                ".",
                &text[1..],
                &format!("{text}A"),
                &format!("{text}."),
                &format!("{text}.AAAA"),
                &within.to_string(),
            ] {
                assert!(other.parse::<Place>().is_err(), "{other:?}");
            }
        }
    }

    #[test]
    fn issuer_and_subject_name_one_principal_and_less_is_a_filter() {
        let (ada, acme) = (owner(None, "ada"), owner(Some("acme"), "ada"));
        assert_ne!(ada.principal, acme.principal, "a tenant makes another principal");
        let unknown = KnownOwner { principal: ada.principal, names: None };
        let text = |text: &str| Some(text.to_owned());
        for (name, whom, expected) in [
            ("anybody", Whom::default(), [true, true, true]),
            ("an issuer", Whom { issuer: text("https://issuer.example"), ..Whom::default() }, [true, true, false]),
            ("another issuer", Whom { issuer: text("https://other.example"), ..Whom::default() }, [false; 3]),
            ("a tenant", Whom { tenant: text("acme"), ..Whom::default() }, [false, true, false]),
            ("a subject", Whom { subject: text("ada"), ..Whom::default() }, [true, true, false]),
            ("both", Whom { tenant: text("acme"), subject: text("bob"), ..Whom::default() }, [false; 3]),
        ] {
            assert_eq!([&ada, &acme, &unknown].map(|owner| whom.takes(owner)), expected, "{name}");
            assert_eq!(whom.one(), None, "{name}");
        }
    }
}
