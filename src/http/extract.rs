//! What handlers take: who calls, with what. Refusing what is malformed is done here; deciding is not.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::gate;
use super::problem::{Code, FieldError, Problem};
use crate::identity::Identity;
use crate::model::Invalid;
use crate::model::id::UploadId;
use crate::model::idempotency::IdempotencyKey;
use crate::model::principal::Principal;
use crate::server::BodyTimedOut;

/// The largest body of a client's request, in bytes: a create request with all the metadata that storage takes, several
/// times over.
const MAX_BODY: usize = 64 * 1024;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The web origins that may use the broker, exactly as browsers send them.
#[derive(Clone, Debug)]
pub struct AllowedOrigins(pub Arc<[String]>);

/// The caller, verified.
pub struct Caller(pub Arc<Principal>);

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<Identity>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or_else(|| Problem::unauthenticated(None))?;
        Ok(Self(Arc::<Identity>::from_ref(state).verify(token).await?))
    }
}

/// The one token of a request, if it has one (RFC 6750, section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller, who is an administrator: the `admin_when` of the token's issuer holds.
pub struct Administrator(pub Arc<Principal>);

impl<S> FromRequestParts<S> for Administrator
where
    S: Send + Sync,
    Arc<Identity>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, state).await?;
        if principal.admin {
            Ok(Self(principal))
        } else {
            Err(Problem::new(Code::Forbidden).detail("this is for administrators"))
        }
    }
}

/// The upload that the path names. What is no id names nothing, so it is not found.
pub struct Id(pub UploadId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let missing = || Problem::new(Code::NotFound).detail("there is no such upload");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| missing())?;
        text.parse().map(Self).map_err(|_| missing())
    }
}

/// When the request must be answered.
pub struct Deadline(pub tokio::time::Instant);

impl<S: Send + Sync> FromRequestParts<S> for Deadline {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.extensions.get::<gate::Deadline>() {
            Some(gate::Deadline(deadline)) => Ok(Self(*deadline)),
            None => Err(Problem::new(Code::InternalError)),
        }
    }
}

/// The browser's origin, if it may use the broker. Another one is not passed on, and gets no grant either.
pub struct Origin(pub Option<String>);

impl<S> FromRequestParts<S> for Origin
where
    S: Send + Sync,
    AllowedOrigins: FromRef<S>,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let AllowedOrigins(allowed) = AllowedOrigins::from_ref(state);
        let sent = parts.headers.get(ORIGIN).and_then(|value| value.to_str().ok());
        Ok(Self(sent.filter(|origin| allowed.iter().any(|allowed| allowed == origin)).map(str::to_owned)))
    }
}

/// The `Idempotency-Key`, if there is one.
pub struct RepeatKey(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for RepeatKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let (first, second) = (values.next(), values.next());
        let refuse = |reason: &Invalid| Problem::invalid_field("Idempotency-Key", reason);
        if second.is_some() {
            return Err(refuse(&Invalid::new("there must be only one")));
        }
        let key = first.map(|value| IdempotencyKey::parse(value.as_bytes())).transpose();
        key.map(Self).map_err(|reason| refuse(&reason))
    }
}

/// The query, with parameters that are not known refused.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(query)| Self(query)).map_err(|_| {
            let detail = "a parameter is not known, stands twice, or has a value of another type".to_owned();
            Problem::invalid_request(vec![FieldError { pointer: "query".to_owned(), detail }])
        })
    }
}

/// A JSON body, bounded in size here, and in time by the server; and the bytes that it was sent as.
pub struct Body<T>(pub T, pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let problem = Problem::new(Code::UnsupportedMediaType);
            return Err(problem.detail("send the body as \"content-type: application/json\""));
        }
        let bytes = collect(request.into_body(), MAX_BODY).await?;
        let mut parser = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| malformed(&error))?;
        parser.end().map_err(|_| {
            let detail = "something follows the JSON document".to_owned();
            Problem::invalid_request(vec![FieldError { pointer: String::new(), detail }])
        })?;
        Ok(Self(value, bytes))
    }
}

/// The whole body, if it has at most `limit` bytes.
pub(super) async fn collect(body: axum::body::Body, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::BodyTooLarge).detail(format!("a body has at most {limit} bytes")))
        }
        Err(error) if BodyTimedOut::caused(&*error) => {
            Err(Problem::new(Code::RequestTimeout).detail("the body did not arrive in time"))
        }
        Err(_) => {
            let detail = "the body broke off".to_owned();
            Err(Problem::invalid_request(vec![FieldError { pointer: String::new(), detail }]))
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Says where and what is wrong, in words that never repeat a value of the client's.
fn malformed(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let cause = error.inner();
    let message = cause.to_string();
    let mut pointer = pointer(error.path());
    let detail = if !cause.is_data() {
        format!("the body is not JSON, see line {}, column {}", cause.line(), cause.column())
    } else if message.starts_with("unknown field `") {
        "there is no such field".to_owned()
    } else if let Some(rest) = message.strip_prefix("missing field `") {
        pointer = format!("{pointer}/{}", rest.split('`').next().unwrap_or_default());
        "this field is needed".to_owned()
    } else if message.starts_with("duplicate") {
        "this field stands twice".to_owned()
    } else if let Some((_, expected)) = message.rsplit_once(", expected ") {
        // What serde expected is its own text; what it found is the client's, and stands before.
        match expected.split(" at line ").next().unwrap_or_default() {
            "u64" => "here must be a whole number, zero or more".to_owned(),
            expected => format!("here must be {expected}"),
        }
    } else {
        "the value does not fit here".to_owned()
    };
    Problem::invalid_request(vec![FieldError { pointer, detail }])
}

/// A JSON pointer (RFC 6901), as far as the names in it can be nothing but names.
///
/// The name of a misspelt field is worth telling. One with digits or capitals in it could be a value, put in the wrong
/// place, and so a secret; the pointer then ends at the object that has it.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let plain = |name: &str| name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } if plain(key) => pointer = format!("{pointer}/{key}"),
            Segment::Seq { index } => pointer = format!("{pointer}/{index}"),
            // A known name, with digits.
            Segment::Map { key } if matches!(&key[..], "md5" | "crc32c") => pointer = format!("{pointer}/{key}"),
            Segment::Map { .. } | Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    pointer
}
