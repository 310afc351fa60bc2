//! One token against the rules and one key of its issuer. Pure: the key and the time come in.
//!
//! A token goes through three types of certainty: text, [`Unverified`] (it has the form of a token, and everything in it
//! is a claim of whoever sent it), and [`Principal`], which only [`Unverified::into_principal`] makes, once the signature
//! and every claim have been checked. What is checked follows RFC 8725, "JSON Web Token Best Current Practices".

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::key_set::{Key, MAX_KEY_ID_BYTES};
use super::{Algorithm, json};
use crate::expression::Expression;
use crate::model::principal::{Principal, PrincipalId};
use crate::model::time::Timestamp;

/// Longer tokens are refused unread. Other servers allow about as much for all headers of a request together.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The longest `sub` (OpenID Connect Core 1.0, section 2, sets the same limit) and the longest tenant.
const MAX_NAME_BYTES: usize = 255;

/// The last second of the year 9999, after which RFC 3339 has no way to write a time.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Why a token is refused.
///
/// The texts are for clients and logs alike: they hold nothing of the token, and only characters that may stand in the
/// `error_description` of RFC 6750, section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Over 8 KiB.
    #[error("the token is longer than 8192 bytes")]
    TooLong,
    /// Not the compact form of RFC 7515, section 7.1.
    #[error("the token is not three base64url parts with dots between them")]
    Malformed,
    /// The header is no JSON object, or names a member twice.
    #[error("the header of the token is not a JSON object that names each member once")]
    Header,
    /// The token is of a kind that is no access or identity token.
    #[error("the header of the token has a typ other than JWT and at+jwt")]
    Type,
    /// The header demands an extension.
    #[error("the header of the token demands extensions, and none is supported")]
    Critical,
    /// The algorithm is missing, not one that the issuer may use, or not the one of the key.
    #[error("the token is signed with an algorithm that is not accepted from its issuer")]
    Algorithm,
    /// The key id is no text, or too long.
    #[error("the header of the token has a kid that is not a text of at most 255 bytes")]
    KeyId,
    /// The claims are no JSON object, or name a member twice.
    #[error("the claims of the token are not a JSON object that names each member once")]
    Claims,
    /// A claim that every token must have is not there.
    #[error("the token has no {0} claim")]
    Missing(&'static str),
    /// A claim is there, but cannot be what it should be.
    #[error("the {0} claim of the token is malformed")]
    Unfit(&'static str),
    /// Nobody whose tokens are accepted.
    #[error("the issuer of the token is not accepted here")]
    Issuer,
    /// The token is for someone else.
    #[error("the token is meant for another audience")]
    Audience,
    /// The lifetime is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` lies ahead.
    #[error("the token is not valid yet")]
    NotYet,
    /// `iat` lies ahead.
    #[error("the token was issued in the future")]
    IssuedAhead,
    /// More lifetime than the issuer's tokens may have.
    #[error("the token lives longer than is accepted from its issuer")]
    LivesTooLong,
    /// The issuer has no such key.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// No `kid`, and more than one key that it could be.
    #[error("the token does not say which key it is signed with, and several are possible")]
    AmbiguousKey,
    /// The signature is not the issuer's.
    #[error("the signature of the token is wrong")]
    Signature,
}

/// What the tokens of one issuer are held to.
pub(super) struct Rules {
    pub(super) issuer: Arc<str>,
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) leeway: Duration,
    pub(super) max_lifetime: Duration,
    /// The names of the levels from the claims down to the tenant.
    pub(super) tenant_claim: Option<Vec<String>>,
    pub(super) admin_when: Option<Expression>,
}

/// A token that has been read, and not been believed.
pub(super) struct Unverified<'t> {
    /// Header and claims as they came: what the signature is over.
    signed: &'t [u8],
    signature: Vec<u8>,
    /// `None` for what is no algorithm here, such as `none`; refused once the issuer is known.
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
    issuer: String,
    claims: Map<String, Value>,
}

impl<'t> Unverified<'t> {
    /// Reads the compact form of a token.
    pub(super) fn parse(token: &'t str) -> Result<Self, Reason> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Reason::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Reason::Malformed)?;
        // The decoder refuses a fourth part by its dot, and padding, white space and unused bits that are not zero: each
        // token has one spelling only.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| !bytes.is_empty());
        let [header, claims, signature] = [header, claims, signature].map(|part| decode(part).ok_or(Reason::Malformed));
        let (header, claims, signature) = (header?, claims?, signature?);

        let header = json::object(&header).ok_or(Reason::Header)?;
        // `jwk`, `jku`, `x5c` and `x5u` are not looked at: a token does not say which keys to believe.
        let key_id = check_header(&header)?.map(str::to_owned);
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);

        let claims = json::object(&claims).ok_or(Reason::Claims)?;
        let issuer = match required(&claims, "iss")? {
            Value::String(issuer) => issuer.clone(),
            _ => return Err(Reason::Unfit("iss")),
        };
        Ok(Self { signed: signed.as_bytes(), signature, algorithm, key_id, issuer, claims })
    }

    /// Whether it says that it is from the issuer of these rules, to the letter.
    pub(super) fn is_from(&self, rules: &Rules) -> bool {
        *self.issuer == *rules.issuer
    }

    /// The name of the key that it says it is signed with.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The algorithm that it says it is signed with, if the issuer may use that.
    pub(super) fn algorithm(&self, rules: &Rules) -> Result<Algorithm, Reason> {
        self.algorithm.filter(|algorithm| rules.algorithms.contains(algorithm)).ok_or(Reason::Algorithm)
    }

    /// Refuses what no signature could save, under the rules of the issuer that it [is from](Self::is_from). A token that
    /// passes is still not to be believed.
    pub(super) fn check_claims(&self, rules: &Rules, now: Timestamp) -> Result<(), Reason> {
        check_claims(&self.claims, rules, now)
    }

    /// Checks the signature, and once more the claims, since fetching the key may have taken its time.
    pub(super) fn into_principal(self, rules: &Rules, key: &Key, now: Timestamp) -> Result<Principal, Reason> {
        if !key.verifies(self.signed, &self.signature) {
            return Err(Reason::Signature);
        }
        principal(rules, self.claims, now)
    }
}

fn check_claims(claims: &Map<String, Value>, rules: &Rules, now: Timestamp) -> Result<(), Reason> {
    if !meant_for(required(claims, "aud")?, &rules.audiences)? {
        return Err(Reason::Audience);
    }
    name(required(claims, "sub")?).ok_or(Reason::Unfit("sub"))?;
    tenant(claims, rules.tenant_claim.as_deref())?;
    check_times(claims, rules, now)
}

/// The user whom these claims name under the rules of their issuer. They are taken for true: whoever calls this has seen
/// that a token is signed, or only supposes one.
pub(super) fn principal(rules: &Rules, claims: Map<String, Value>, now: Timestamp) -> Result<Principal, Reason> {
    check_claims(&claims, rules, now)?;
    let subject: Arc<str> = name(required(&claims, "sub")?).ok_or(Reason::Unfit("sub"))?.into();
    let tenant: Option<Arc<str>> = tenant(&claims, rules.tenant_claim.as_deref())?.map(Into::into);
    Ok(Principal {
        id: PrincipalId::of(&rules.issuer, tenant.as_deref(), &subject),
        issuer: Arc::clone(&rules.issuer),
        tenant,
        subject,
        admin: rules.admin_when.as_ref().is_some_and(|condition| condition.holds(&claims)),
        expires_at: time(&claims, "exp")?.ok_or(Reason::Missing("exp"))?,
        claims,
    })
}

/// Checks the header, its algorithm aside, and gives the key id.
fn check_header(header: &Map<String, Value>) -> Result<Option<&str>, Reason> {
    // `b64` (RFC 7797) changes what is signed. It is void unless `crit` names it; refusing it anyhow leaves no doubt.
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(Reason::Critical);
    }
    // RFC 8725, section 3.11: other kinds of tokens under the same keys (logout tokens, for one) are not to be taken.
    let accepted = ["JWT", "at+jwt", "application/at+jwt"];
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if accepted.iter().any(|one| one.eq_ignore_ascii_case(kind)) => {}
        Some(_) => return Err(Reason::Type),
    }
    match header.get("kid") {
        None => Ok(None),
        Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Ok(Some(id)),
        Some(_) => Err(Reason::KeyId),
    }
}

/// Whether one of `audiences` is in the `aud` claim: a text, or an array of texts (RFC 7519, section 4.1.3).
fn meant_for(claim: &Value, audiences: &[String]) -> Result<bool, Reason> {
    let ours = |value: &Value| audiences.iter().any(|audience| value == audience);
    match claim {
        Value::String(_) => Ok(ours(claim)),
        Value::Array(values) if values.iter().all(Value::is_string) => Ok(values.iter().any(ours)),
        _ => Err(Reason::Unfit("aud")),
    }
}

/// The tenant at `path`. Where nothing is there it is `None`; where something else is there than a name, that is a
/// refusal, for without its tenant the user would become another one.
fn tenant<'c>(claims: &'c Map<String, Value>, path: Option<&[String]>) -> Result<Option<&'c str>, Reason> {
    let Some([first, rest @ ..]) = path else { return Ok(None) };
    let Some(mut found) = claims.get(first) else { return Ok(None) };
    for level in rest {
        match found {
            Value::Object(members) => match members.get(level) {
                Some(member) => found = member,
                None => return Ok(None),
            },
            _ => return Err(Reason::Unfit("tenant")),
        }
    }
    name(found).map(Some).ok_or(Reason::Unfit("tenant"))
}

/// `exp`, `iat` and, where it is there, `nbf` (RFC 7519, sections 4.1.4 to 4.1.6), and the time between the first two.
fn check_times(claims: &Map<String, Value>, rules: &Rules, now: Timestamp) -> Result<(), Reason> {
    let expires = time(claims, "exp")?.ok_or(Reason::Missing("exp"))?;
    let issued = time(claims, "iat")?.ok_or(Reason::Missing("iat"))?;
    let begins = time(claims, "nbf")?;
    let latest = now.plus(rules.leeway);
    if now >= expires.plus(rules.leeway) {
        return Err(Reason::Expired);
    }
    if issued > latest {
        return Err(Reason::IssuedAhead);
    }
    if begins.is_some_and(|begins| begins > latest) {
        return Err(Reason::NotYet);
    }
    if expires < issued {
        return Err(Reason::Unfit("exp"));
    }
    if expires.since(issued) > rules.max_lifetime {
        return Err(Reason::LivesTooLong);
    }
    Ok(())
}

fn required<'c>(claims: &'c Map<String, Value>, claim: &'static str) -> Result<&'c Value, Reason> {
    claims.get(claim).ok_or(Reason::Missing(claim))
}

/// A text that may be a user's or a tenant's name: not empty, not too long, no control characters.
fn name(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control))
}

/// A `NumericDate` (RFC 7519, section 2): seconds since the epoch, a fraction allowed, here no later than the year 9999.
fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<Timestamp>, Reason> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    match value.as_f64() {
        Some(seconds) if (0.0..=LAST_SECOND).contains(&seconds) => {
            #[expect(clippy::cast_possible_truncation, reason = "the range has just been checked")]
            let millis = (seconds * 1000.0).floor() as i64;
            Ok(Some(Timestamp::from_millis(millis)))
        }
        _ => Err(Reason::Unfit(claim)),
    }
}
