//! The `[[issuers]]` sections.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::address::UpstreamUrl;
use crate::model::time::Span;

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

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

fn default_leeway() -> Span {
    Span::seconds(30)
}

fn default_max_lifetime() -> Span {
    Span::seconds(24 * 3600)
}
