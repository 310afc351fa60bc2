//! Access tokens and remote signatures: a token server (RFC 6749, RFC 7523) and two methods of IAM Credentials (Google's
//! IAM documentation, "Method: serviceAccounts.signBlob" and "…generateAccessToken").
//!
//! What it gives away opens nothing that another bearer token does not, since the emulator takes any.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::accounts::{self, AccountError, Deed, OWN_ACCOUNT, Verdict};
use super::http::{Call, Failure};
use super::problem::{self, Answer, Problem};
use super::target::{Query, Route};
use crate::clock::Clock;
use crate::model::time::Timestamp;

/// How long a token is said to live.
const LIFETIME: u64 = 3600;

/// The audience that Google documents ("Using OAuth 2.0 for Server to Server Applications"), which some of its libraries
/// name whatever the key file says.
const AUDIENCE: &str = "https://oauth2.googleapis.com/token";

/// How far ahead of this clock an assertion may have been made.
const SKEW: i64 = 300;

pub(super) async fn serve(call: &mut Call<'_>, route: &Route) -> Result<Answer, Failure> {
    if call.head.method != hyper::Method::POST {
        return Err(Problem::method_not_allowed().into());
    }
    match route {
        Route::Token => token(call).await,
        Route::Account { account, deed } => {
            call.authorize()?;
            let request = Value::Object(call.resource().await?);
            if account != OWN_ACCOUNT {
                return Ok(refused(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "The account is not yours to act as."));
            }
            Ok(match deed {
                Deed::SignBlob => sign_blob(&request),
                Deed::GenerateAccessToken => generate(call, &request),
            })
        }
        _ => Err(Problem::not_found("Not Found").into()),
    }
}

fn access_token(call: &Call<'_>) -> String {
    format!("emulator.{}", URL_SAFE_NO_PAD.encode(call.world.randomness.bytes::<24>()))
}

/// An error of IAM Credentials.
fn refused(status: StatusCode, name: &str, message: &str) -> Answer {
    let error = json!({"error": {"code": status.as_u16(), "message": message, "status": name}});
    problem::json(status, &error)
}

fn bad(message: &str) -> Answer {
    refused(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
}

/// Bytes as JSON has them in Google's interfaces: base64 of either alphabet, padded or not (Protocol Buffers
/// documentation, "`ProtoJSON` Format").
fn bytes(value: &Value) -> Option<Vec<u8>> {
    let text = value.as_str()?.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn sign_blob(request: &Value) -> Answer {
    let Some(payload) = bytes(&request["payload"]) else {
        return bad("payload must be base64.");
    };
    match accounts::sign(&payload) {
        Ok(signed) => {
            let answer = json!({"keyId": signed.key_id, "signedBlob": STANDARD.encode(signed.signature)});
            problem::json(StatusCode::OK, &answer)
        }
        Err(AccountError::NoKey | AccountError::PublicKey(_) | AccountError::Taken) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "There is no key to sign with.")
        }
    }
}

fn generate(call: &Call<'_>, request: &Value) -> Answer {
    let scopes = request["scope"].as_array();
    if !scopes.is_some_and(|scopes| !scopes.is_empty() && scopes.iter().all(Value::is_string)) {
        return bad("scope must be a list of scopes.");
    }
    let lifetime = match &request["lifetime"] {
        Value::Null => Some(LIFETIME),
        Value::String(text) => text.strip_suffix('s').and_then(super::range::number),
        _ => None,
    };
    // A longer life takes a policy of the organisation (up to 12 hours), which the emulator does not have.
    let Some(lifetime) = lifetime.filter(|seconds| (1..=LIFETIME).contains(seconds)) else {
        return bad("lifetime must be at most 3600s.");
    };
    let end = call.world.now().plus(Duration::from_secs(lifetime));
    let end = Timestamp::from_secs(end.as_secs()).to_string().replace(".000", "");
    problem::json(StatusCode::OK, &json!({"accessToken": access_token(call), "expireTime": end}))
}

async fn token(call: &mut Call<'_>) -> Result<Answer, Failure> {
    let body = call.text().await?;
    let form = String::from_utf8(body).ok().and_then(|body| Query::of(&body));
    let denied = |error: &str, why: &str| {
        problem::json(StatusCode::BAD_REQUEST, &json!({"error": error, "error_description": why}))
    };
    let Some(form) = form else { return Ok(denied("invalid_request", "The body is not a form.")) };
    let given = |name| form.get(name).is_some_and(|value| !value.is_empty());
    let refusal = match form.get("grant_type") {
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => {
            let assertion = form.get("assertion").unwrap_or_default();
            check_assertion(call, assertion, Clock::System.now().as_secs()).err().map(|why| ("invalid_grant", why))
        }
        Some("refresh_token") if !given("client_id") || !given("client_secret") => {
            Some(("invalid_client", "The client did not say who it is."))
        }
        Some("refresh_token") if !given("refresh_token") => Some(("invalid_request", "Missing refresh_token.")),
        Some("refresh_token") => None,
        Some(_) => Some(("unsupported_grant_type", "Neither jwt-bearer nor refresh_token.")),
        None => Some(("invalid_request", "Missing grant_type.")),
    };
    if let Some((error, why)) = refusal {
        return Ok(denied(error, why));
    }
    let answer = json!({"access_token": access_token(call), "expires_in": LIFETIME - 1, "token_type": "Bearer"});
    Ok(problem::json(StatusCode::OK, &answer))
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    #[serde(default)]
    scope: Option<String>,
    iat: i64,
    exp: i64,
}

/// Checks the assertion of a service account. Its times are those of the real clock, `now`: the libraries that make
/// assertions know no other.
fn check_assertion(call: &Call<'_>, assertion: &str, now: i64) -> Result<(), &'static str> {
    // Widespread libraries pad, although RFC 7515 does not, and Google's token server minds neither.
    fn decoded(text: &str) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
    }
    fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
        serde_json::from_slice(&decoded(text)?).ok()
    }
    let (signed, signature) = assertion.rsplit_once('.').ok_or("The assertion is not a JWT.")?;
    let (header, claims) = signed.split_once('.').ok_or("The assertion is not a JWT.")?;
    let header: Header = part(header).ok_or("The assertion's header is malformed.")?;
    let claims: Claims = part(claims).ok_or("The assertion's claims are malformed.")?;
    let signature = decoded(signature).ok_or("The assertion's signature is malformed.")?;
    if header.alg != "RS256" {
        return Err("The assertion is not signed with RS256.");
    }
    match call.world.accounts.verify(&claims.iss, signed.as_bytes(), &signature) {
        Verdict::Right => {}
        Verdict::Wrong => return Err("Invalid JWT Signature."),
        Verdict::Unknown => return Err("Invalid grant: account not found."),
    }
    let own = format!("{}/token", call.base());
    if ![own.as_str(), AUDIENCE].contains(&claims.aud.as_str()) {
        return Err("The assertion is for another audience.");
    }
    if claims.scope.is_none_or(|scope| scope.trim().is_empty()) {
        return Err("The assertion asks for no scope.");
    }
    let is_in_time = claims.iat <= now + SKEW && now < claims.exp && claims.exp <= claims.iat.saturating_add(3600);
    if is_in_time { Ok(()) } else { Err("Invalid JWT: token must be short-lived and in a reasonable timeframe.") }
}
