//! May this principal put this here? Pure: no clock, no store, no network.
//!
//! A policy is compiled from its `[[policies]]` section when the configuration is loaded: its condition, its object
//! name template and its media type patterns. Deciding reads these and allocates little more than the answer. The order
//! of the configuration is kept; there are few enough policies that finding one by name compares all of them.

mod characters;
mod content_type;
mod decide;
mod metadata;
mod object_name;
mod settings;

use std::cell::OnceCell;
use std::sync::Arc;

pub use decide::{Admission, Denial, ViolatedLimit, Violation};
pub use settings::{DigestRule, PolicySettings, TransferSetting};

use crate::expression::{ClaimNames, Claims, Expression};
use crate::model::id::UploadId;
use crate::model::limits::{Enforcement, Limits};
use crate::model::name::{PolicyName, RegionName};
use crate::model::principal::Principal;
use crate::model::section::{Fault, SectionError};
use crate::model::time::Timestamp;
use crate::model::upload::NewUpload;

/// What a section of what is set up here is called.
const SECTION: &str = "policies";

/// All policies, in configuration order.
#[derive(Debug)]
pub struct Policies {
    policies: Vec<Policy>,
    /// What the conditions of all of them read.
    claims: ClaimNames,
}

impl Policies {
    /// Checks and compiles the policies.
    ///
    /// # Errors
    /// At the first value that cannot be, and where two policies have one name.
    pub fn new(settings: &[PolicySettings]) -> Result<Self, SectionError> {
        let mut policies: Vec<Policy> = Vec::with_capacity(settings.len());
        for (index, settings) in settings.iter().enumerate() {
            if policies.iter().any(|policy| *policy.name() == settings.name) {
                let reason = format!("another policy has the name {:?} too", settings.name);
                return Err(Fault::new("name", reason).at(SECTION, index));
            }
            let policy = Policy::new(settings).map_err(|fault| fault.at(SECTION, index))?;
            policies.push(policy);
        }
        let claims = ClaimNames::of_all(policies.iter().filter_map(|policy| policy.when.as_ref()));
        Ok(Self { policies, claims })
    }

    /// Decides whether, and as what, an upload may be made. It will have the id `id`; `now` dates its name.
    ///
    /// # Errors
    /// Every reason at once, so that a client need not find them out one by one.
    pub fn decide(
        &self,
        principal: &Principal,
        request: &NewUpload,
        id: UploadId,
        now: Timestamp,
    ) -> Result<Admission, Denial> {
        let caller = Caller::new(principal, &self.claims);
        let policy = match &request.policy {
            Some(name) => self.get(name).filter(|policy| policy.admits(&caller)).ok_or(Denial::NotAdmitted)?,
            None => self.only(&caller)?,
        };
        policy.decide(principal, request, id, now)
    }

    /// The one policy that admits the caller.
    fn only(&self, caller: &Caller<'_>) -> Result<&Policy, Denial> {
        let mut admitting = self.policies.iter().filter(|policy| policy.admits(caller));
        match (admitting.next(), admitting.next()) {
            (None, _) => Err(Denial::NotAdmitted),
            (Some(policy), None) => Ok(policy),
            (Some(first), Some(second)) => {
                let candidates = [first, second].into_iter().chain(admitting);
                Err(Denial::Ambiguous { candidates: candidates.map(|policy| policy.name().clone()).collect() })
            }
        }
    }

    /// The policies that the caller may use, in configuration order.
    pub fn admitting<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = &'a Policy> {
        let caller = Caller::new(principal, &self.claims);
        self.policies.iter().filter(move |policy| policy.admits(&caller))
    }

    /// Every policy, in configuration order.
    pub fn all(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter()
    }

    /// The policy of that name, whoever may use it.
    pub fn get(&self, name: &PolicyName) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name() == name)
    }
}

/// One compiled policy.
#[derive(Debug)]
pub struct Policy {
    settings: PolicySettings,
    when: Option<Expression>,
    object: object_name::Template,
    content_types: content_type::Patterns,
    regions: Option<Arc<[RegionName]>>,
}

impl Policy {
    fn new(settings: &PolicySettings) -> Result<Self, Fault> {
        settings.check()?;
        let when = settings.when.as_deref().map(Expression::compile).transpose();
        Ok(Self {
            when: when.map_err(|reason| Fault::new("when", reason.to_string()))?,
            object: object_name::Template::parse(&settings.object, settings.overwrite)
                .map_err(|reason| Fault::new("object", reason.to_string()))?,
            content_types: content_type::Patterns::parse(&settings.content_types)
                .map_err(|reason| Fault::new("content_types", reason.to_string()))?,
            regions: settings.regions.as_deref().map(Arc::from),
            settings: settings.clone(),
        })
    }

    /// What requests and metrics call it.
    pub fn name(&self) -> &PolicyName {
        &self.settings.name
    }

    /// The section that it was compiled from.
    pub fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// What each principal may use under it.
    pub fn limits(&self) -> Limits {
        let PolicySettings { max_active, rate, daily_bytes, .. } = self.settings;
        Limits { max_active, rate, daily_bytes }
    }

    /// Whether it refuses, or only reports.
    pub fn enforcement(&self) -> Enforcement {
        if self.settings.report_only { Enforcement::Report } else { Enforcement::Enforce }
    }

    fn admits(&self, caller: &Caller<'_>) -> bool {
        self.when.as_ref().is_none_or(|when| when.holds_for(caller.claims()))
    }
}

/// A principal whose claims are converted for conditions when the first one asks, and only once.
struct Caller<'a> {
    principal: &'a Principal,
    read: &'a ClaimNames,
    claims: OnceCell<Claims>,
}

impl<'a> Caller<'a> {
    fn new(principal: &'a Principal, read: &'a ClaimNames) -> Self {
        Self { principal, read, claims: OnceCell::new() }
    }

    fn claims(&self) -> &Claims {
        self.claims.get_or_init(|| Claims::new(&self.principal.claims, self.read))
    }
}

#[cfg(test)]
mod tests;
