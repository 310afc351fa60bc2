//! The `[[issuers]]` sections, and what of them can be refused before any token is seen.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fetch::Origin;
use super::verify::{Reason, Rules, principal};
use crate::expression::Expression;
use crate::model::address::{UpstreamUrl, is_loopback};
use crate::model::principal::Principal;
use crate::model::section::{Fault, SectionError};
use crate::model::time::{Span, Timestamp};

/// The most that clocks may be taken to differ. Whoever needs more has a clock to repair.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// How long a token lives that is only supposed.
const SUPPOSED_LIFETIME: Duration = Duration::from_secs(3600);

/// One `[[issuers]]` section: whose tokens are accepted, and how they are checked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// The exact `iss` claim, trailing slash included.
    pub issuer: String,
    /// A token must be meant for at least one of these.
    pub audiences: Vec<String>,
    /// Where the key set is; left out, OpenID discovery at the issuer finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<UpstreamUrl>,
    /// A file that holds the key set, in place of an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// The signature algorithms accepted, all of them asymmetric.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may differ, at most 60 s.
    #[serde(default = "default_leeway")]
    pub leeway: Span,
    /// The longest lifetime (`exp` less `iat`) that a token may have.
    #[serde(default = "default_max_lifetime")]
    pub max_lifetime: Span,
    /// The claim that names the tenant, with dots between the levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_claim: Option<String>,
    /// The condition under which a caller is an administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_when: Option<String>,
}

/// The signature algorithms of RFC 7518 and RFC 8037 that a key set can hold public keys for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the names are those of RFC 7518, section 3.1, and RFC 8037")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// The algorithm that `name` is the registered name of. Anything else, `none` and the HMAC family included, is no
    /// algorithm here.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "EdDSA" => Self::EdDSA,
            _ => return None,
        })
    }
}

impl IssuerSettings {
    /// The user whom a token of this issuer with these claims would prove, if it were signed: for trying out what a
    /// configuration says. What every token has is filled in where it is left out: issuer, audience, and an hour of life
    /// from `now` on; the subject is not.
    ///
    /// # Errors
    /// When the section cannot be used. Within: when such a token is refused.
    pub fn suppose(
        &self,
        mut claims: Map<String, Value>,
        now: Timestamp,
    ) -> Result<Result<Principal, Reason>, SectionError> {
        let rules = self.rules().map_err(|fault| fault.at(super::SECTION, 0))?;
        let audience = self.audiences.first().cloned().unwrap_or_default();
        let lifetime = SUPPOSED_LIFETIME.min(self.max_lifetime.0).as_secs();
        for (claim, value) in [
            ("iss", Value::from(&*self.issuer)),
            ("aud", Value::from(audience)),
            ("iat", Value::from(now.as_secs())),
            ("exp", Value::from(now.plus(Duration::from_secs(lifetime)).as_secs())),
        ] {
            claims.entry(claim).or_insert(value);
        }
        Ok(principal(&rules, claims, now))
    }

    /// What a token of this issuer is held to.
    pub(super) fn rules(&self) -> Result<Rules, Fault> {
        if self.issuer.is_empty() || self.issuer.chars().any(char::is_control) {
            return Err(Fault::new("issuer", "must be the issuer's name, exactly as its tokens bear it"));
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return Err(Fault::new("audiences", "must name at least one audience, and no empty one"));
        }
        if self.algorithms.is_empty() {
            return Err(Fault::new("algorithms", "must name at least one algorithm"));
        }
        if self.leeway.0 > MAX_LEEWAY {
            return Err(Fault::new("leeway", format!("is {}, where at most 60s are allowed", self.leeway)));
        }
        if self.max_lifetime.0.is_zero() {
            return Err(Fault::new("max_lifetime", "must be longer than nothing"));
        }
        let tenant_claim = self.tenant_claim.as_deref().map(tenant_path).transpose()?;
        let admin_when = match self.admin_when.as_deref().map(Expression::compile).transpose() {
            Ok(condition) => condition,
            Err(invalid) => return Err(Fault::new("admin_when", invalid.to_string())),
        };
        Ok(Rules {
            issuer: self.issuer.as_str().into(),
            audiences: self.audiences.clone(),
            algorithms: self.algorithms.clone(),
            leeway: self.leeway.0,
            max_lifetime: self.max_lifetime.0,
            tenant_claim,
            admin_when,
        })
    }

    /// Where the keys of this issuer come from.
    pub(super) fn origin(&self) -> Result<Origin, Fault> {
        match (&self.jwks_url, &self.jwks_file) {
            (Some(_), Some(_)) => Err(Fault::new("jwks_file", "stands beside jwks_url; one of them must go")),
            (Some(url), None) => Ok(Origin::Address(url.clone())),
            (None, Some(path)) => Ok(Origin::File(path.clone())),
            (None, None) => self.discovery(),
        }
    }

    /// The address of the discovery document, as OpenID Connect Discovery 1.0, section 4.1, composes it.
    fn discovery(&self) -> Result<Origin, Fault> {
        let unfit = |reason: String| Fault::new("issuer", format!("{reason} (or give jwks_url or jwks_file)"));
        let parse = |text: &str| text.parse::<UpstreamUrl>().map_err(|invalid| unfit(invalid.to_string()));
        let issuer = parse(&self.issuer)?;
        if issuer.as_url().query().is_some() || issuer.as_url().fragment().is_some() {
            return Err(unfit("must have no query and no fragment".to_owned()));
        }
        let document = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        Ok(Origin::Discovery { document: parse(&document)?, on_loopback: is_loopback(issuer.as_url()) })
    }
}

/// The names of the levels from the claims down to the tenant.
///
/// A claim whose name is a URL, as RFC 7519 (section 4.2) proposes for private use, is one level, for all its dots.
fn tenant_path(text: &str) -> Result<Vec<String>, Fault> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(vec![text.to_owned()]);
    }
    let levels: Vec<_> = text.split('.').map(str::to_owned).collect();
    if levels.iter().any(String::is_empty) {
        return Err(Fault::new("tenant_claim", "must be a claim's name, or several with single dots between them"));
    }
    Ok(levels)
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

fn default_leeway() -> Span {
    Span::seconds(30)
}

fn default_max_lifetime() -> Span {
    Span::seconds(24 * 3600)
}
