//! The OIDC token of a push, and what is needed to check it: the emulator is the issuer in Google's place (Pub/Sub
//! documentation, "Authenticate push subscriptions").

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use hyper::http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::emulator::accounts::{self, AccountError};
use crate::emulator::http::{Call, Failure};
use crate::emulator::problem::{self, Answer, Problem};
use crate::emulator::target::Route;
use crate::model::time::Timestamp;

/// How long a token lives.
const LIFETIME: Duration = Duration::from_secs(3600);

/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(300);

/// How long clients may remember the keys. They last as long as the process.
const REMEMBERED: HeaderValue = HeaderValue::from_static("public, max-age=3600, must-revalidate");

/// Where the keys are.
const KEYS: &str = "/oauth2/v3/certs";

/// Whom a push says that it comes from.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) audience: String,
    pub(super) email: String,
    latest: Mutex<Option<Issued>>,
}

struct Issued {
    /// A bearer credential, which is why the whole is not shown.
    token: String,
    at: Timestamp,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Identity {
    pub(super) fn new(audience: String, email: String) -> Self {
        Self { audience, email, latest: Mutex::default() }
    }

    /// A token by `issuer`, made some time before or now.
    pub(super) fn token(&self, issuer: &str, now: Timestamp) -> Result<String, AccountError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(issued) = &*latest
            && (issued.at..issued.at.plus(LIFETIME).minus(MARGIN)).contains(&now)
        {
            return Ok(issued.token.clone());
        }
        let token = self.issue(issuer, now)?;
        *latest = Some(Issued { token: token.clone(), at: now });
        Ok(token)
    }

    fn issue(&self, issuer: &str, now: Timestamp) -> Result<String, AccountError> {
        let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let head = json!({"alg": "RS256", "kid": accounts::public_key()?.id, "typ": "JWT"});
        let number = numeric_id(&self.email);
        let claims = json!({
            "iss": issuer,
            "aud": self.audience,
            "azp": number,
            "sub": number,
            "email": self.email,
            "email_verified": true,
            "iat": now.as_secs(),
            "exp": now.plus(LIFETIME).as_secs(),
        });
        let signed = format!("{}.{}", encode(&head), encode(&claims));
        let signature = accounts::sign(signed.as_bytes())?.signature;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// 21 digits, as the ids of Google's service accounts have; the same for the same address.
fn numeric_id(email: &str) -> String {
    let digest = digest(&SHA256, email.as_bytes());
    let number = digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    format!("1{number:020}")
}

/// Answers with the public keys, or with where they are. Nobody needs a token for that.
pub(in crate::emulator) fn tell(call: &Call<'_>, route: &Route) -> Result<Answer, Failure> {
    if ![Method::GET, Method::HEAD].contains(&call.head.method) {
        return Err(Problem::method_not_allowed().into());
    }
    // Tokens name the emulator by its own address, whatever a client calls it.
    let issuer = call.world.url();
    let document = match route {
        Route::SigningKeys => match accounts::public_key() {
            Ok(key) => json!({"keys": [{
                "kty": "RSA",
                "use": "sig",
                "alg": "RS256",
                "kid": key.id,
                "n": URL_SAFE_NO_PAD.encode(key.modulus),
                "e": URL_SAFE_NO_PAD.encode(key.exponent),
            }]}),
            Err(_) => return Err(Problem::text(StatusCode::SERVICE_UNAVAILABLE, "There is no key.").into()),
        },
        _ => json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}{KEYS}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }),
    };
    let mut answer = problem::json(StatusCode::OK, &document);
    answer.headers_mut().insert(header::CACHE_CONTROL, REMEMBERED);
    Ok(answer)
}
