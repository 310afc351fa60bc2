//! The catalogue of problems (RFC 9457), and every domain error's place in it.

mod examples;

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::warn;
use utoipa::ToSchema;

use super::route::base;
use super::schemas::clipped;
use crate::model::Invalid;
use crate::model::chain;
use crate::model::name::PolicyName;
use crate::store::LimitHit;
use crate::{identity, storage, store, uploads};

/// How long a client is asked to wait where nothing better is known.
const DEFAULT_RETRY: Duration = Duration::from_secs(5);

/// The same where streams of events are in the way, which end when they end.
const LISTENERS_RETRY: Duration = Duration::from_secs(10);

/// What went wrong, as a stable code. Clients decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// 400: the request is malformed; `errors` says where.
    InvalidRequest,
    /// 401: there is no token, or it is refused.
    Unauthenticated,
    /// 403: no policy admits the caller.
    PolicyDenied,
    /// 403: the token is valid, and does not entitle to this.
    Forbidden,
    /// 403: session URIs are given over HTTPS only.
    HttpsRequired,
    /// 404: it does not exist, or belongs to someone else.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406: what the answer is written in is not among what the client accepts.
    NotAcceptable,
    /// 408: the request's body did not arrive in time.
    RequestTimeout,
    /// 409: storage does not have all bytes; `received_bytes` says how many.
    NotComplete,
    /// 409: storage does not know the session any more.
    SessionLost,
    /// 409: the operation does not fit the upload's state.
    InvalidState,
    /// 409: a request with this idempotency key is under way.
    IdempotencyInProgress,
    /// 413.
    BodyTooLarge,
    /// 415: bodies are JSON.
    UnsupportedMediaType,
    /// 421: another region takes this; `region` and `url` say which.
    Misdirected,
    /// 422: well-formed, and not allowed; `violations` says what.
    PolicyViolation,
    /// 422: the idempotency key was used for another request.
    IdempotencyMismatch,
    /// 429: too many uploads in a short time.
    RateLimited,
    /// 429: too many uploads under way, too many bytes today, or too many streams of events.
    QuotaExceeded,
    /// 500: a defect of the broker.
    InternalError,
    /// 502: storage refused, or answered nonsense.
    StorageError,
    /// 503: storage, or its token source, is away.
    StorageUnavailable,
    /// 503: Redis is away.
    StoreUnavailable,
    /// 503: the issuer's keys cannot be had.
    IdentityUnavailable,
    /// 503: too much at once.
    Overloaded,
    /// 504: storage did not answer in time.
    StorageTimeout,
}

impl Code {
    /// The status, the name and the title of the code.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid-request", "The request is malformed"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "A valid token is needed"),
            Self::PolicyDenied => (StatusCode::FORBIDDEN, "policy-denied", "No policy admits this"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "This is not for the bearer of this token"),
            Self::HttpsRequired => (StatusCode::FORBIDDEN, "https-required", "HTTPS is required"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is nothing here"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here")
            }
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not-acceptable", "The answer would not be accepted"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request came too slowly"),
            Self::NotComplete => (StatusCode::CONFLICT, "not-complete", "The upload is not complete"),
            Self::SessionLost => (StatusCode::CONFLICT, "session-lost", "The session is lost"),
            Self::InvalidState => (StatusCode::CONFLICT, "invalid-state", "The upload is in another state"),
            Self::IdempotencyInProgress => {
                (StatusCode::CONFLICT, "idempotency-in-progress", "The same request is under way")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
            }
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected", "Another region takes this"),
            Self::PolicyViolation => {
                (StatusCode::UNPROCESSABLE_ENTITY, "policy-violation", "The policy does not allow this")
            }
            Self::IdempotencyMismatch => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-mismatch",
                "The idempotency key belongs to another request",
            ),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many uploads in a short time"),
            Self::QuotaExceeded => (StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", "A quota is used up"),
            Self::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "internal-error", "The broker failed"),
            Self::StorageError => (StatusCode::BAD_GATEWAY, "storage-error", "Storage refused"),
            Self::StorageUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "storage-unavailable", "Storage cannot be reached")
            }
            Self::StoreUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "The store cannot be reached")
            }
            Self::IdentityUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "identity-unavailable", "The issuer's keys cannot be had")
            }
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much at once"),
            Self::StorageTimeout => (StatusCode::GATEWAY_TIMEOUT, "storage-timeout", "Storage did not answer in time"),
        }
    }

    /// The status that goes with the code.
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }
}

/// A problem document (RFC 9457). Which of the optional fields are there depends on `code`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(format = "uri", max_length = 128, example = "urn:upload-broker:problem:quota-exceeded")]
    type_uri: String,
    /// The kind of problem, for people.
    #[schema(min_length = 1, max_length = 128, example = "A quota is used up")]
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 429)]
    status: u16,
    /// This problem, for people.
    #[schema(max_length = 1024, example = "at most 5 uploads can be under way")]
    detail: String,
    /// The kind of problem, for programs.
    code: Code,
    /// Names the request in the broker's logs.
    #[schema(min_length = 16, max_length = 16, pattern = "^[0-9a-f]{16}$", example = "5f3a9c1e7b20d846")]
    request_id: String,
    /// `invalid-request`: each thing that is wrong with the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, max_items = 16)]
    errors: Vec<FieldError>,
    /// `policy-violation`: each limit that is not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, max_items = 16)]
    violations: Vec<Violation>,
    /// `not-complete`: how many bytes storage has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    received_bytes: Option<u64>,
    /// `misdirected`: the region to go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "us-east1")]
    region: Option<String>,
    /// `misdirected`: the broker of that region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri", max_length = 2048, example = "https://us.uploads.example.com/")]
    url: Option<String>,
    /// `quota-exceeded` and `rate-limited`: the limit that is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 64, pattern = "^[a-z_]+$", example = "max_active")]
    limit: Option<&'static str>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where in the body it is (RFC 6901); a header or parameter is named instead.
    #[schema(max_length = 1024, example = "/size_bytes")]
    pub pointer: String,
    /// What is wrong there.
    #[schema(max_length = 1024, example = "here must be a whole number, zero or more")]
    pub detail: String,
}

/// One limit of a policy that a request does not keep.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Violation {
    /// The limit, by its name in the policy.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z_]+$", example = "max_size")]
    limit: &'static str,
    /// What is allowed.
    #[schema(max_length = 1024, example = "1073741824")]
    allowed: String,
    /// What was given.
    #[schema(max_length = 1024, example = "2147483648")]
    given: String,
}

/// A refusal on its way out. The outermost layer writes it as a [`Document`], once it can add the request's id.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    violations: Vec<Violation>,
    received_bytes: Option<u64>,
    elsewhere: Option<(String, String)>,
    limit: Option<&'static str>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of this kind, whose detail is its title.
    pub fn new(code: Code) -> Self {
        Self {
            code,
            detail: code.row().2.to_owned(),
            errors: Vec::new(),
            violations: Vec::new(),
            received_bytes: None,
            elsewhere: None,
            limit: None,
            headers: HeaderMap::new(),
        }
    }

    /// A malformed request, one entry for each thing that is wrong.
    pub fn invalid_request(errors: Vec<FieldError>) -> Self {
        let detail = match &errors[..] {
            [only] => format!("{}: {}", only.pointer, only.detail),
            several => format!("{} things are wrong with the request", several.len()),
        };
        Self { errors, ..Self::new(Code::InvalidRequest).detail(detail) }
    }

    /// A malformed header, parameter or field.
    pub fn invalid_field(pointer: &str, reason: &Invalid) -> Self {
        Self::invalid_request(vec![FieldError { pointer: pointer.to_owned(), detail: reason.to_string() }])
    }

    /// The same, with this detail. It is sent to clients: it must hold nothing secret, and nothing of another's.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same, with a `Retry-After` header (RFC 9110, section 10.2.3), rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The same, with another header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The kind of problem.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What is wrong with the request, of a problem that says so.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// What clients read, with no text longer than the interface says.
    fn document(self, request_id: &str) -> Document {
        let (status, name, title) = self.code.row();
        let (region, url) = self.elsewhere.unzip();
        let errors = self.errors.into_iter().map(|error| FieldError { detail: clipped(&error.detail), ..error });
        let violations = self.violations.into_iter().map(|violation| Violation {
            allowed: clipped(&violation.allowed),
            given: clipped(&violation.given),
            ..violation
        });
        Document {
            type_uri: format!("urn:upload-broker:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: clipped(&self.detail),
            code: self.code,
            request_id: request_id.to_owned(),
            errors: errors.collect(),
            violations: violations.collect(),
            received_bytes: self.received_bytes,
            region,
            url,
            limit: self.limit,
        }
    }

    /// The response, whole.
    pub fn render(mut self, request_id: &str) -> Response {
        let (status, headers) = (self.code.status(), std::mem::take(&mut self.headers));
        let body = serde_json::to_vec(&self.document(request_id)).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().extend(headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// The refusal travels as an extension of an empty response, until [`super::observe`] writes it out.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::invalid_request(vec![error])
    }
}

impl From<identity::Error> for Problem {
    fn from(error: identity::Error) -> Self {
        match error {
            identity::Error::Unauthenticated(reason) => Self::unauthenticated(Some(&reason.to_string())),
            identity::Error::KeysUnavailable { retry_after } => {
                warn!("tokens cannot be checked: the issuer's keys cannot be had");
                Self::new(Code::IdentityUnavailable).retry_after(retry_after)
            }
        }
    }
}

impl Problem {
    /// No token, or one that is refused for `reason` (RFC 6750, section 3).
    pub fn unauthenticated(reason: Option<&str>) -> Self {
        let Some(reason) = reason else {
            return Self::new(Code::Unauthenticated)
                .detail("send a token as \"Authorization: Bearer …\"")
                .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        };
        let description: String =
            reason.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && !matches!(c, '"' | '\\')).collect();
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{description}\"");
        let challenge = HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"));
        Self::new(Code::Unauthenticated).detail(reason).header(WWW_AUTHENTICATE, challenge)
    }

    fn at_limit(policy: &PolicyName, hit: &LimitHit) -> Self {
        let (code, detail, quota, window, retry_after) = match hit {
            LimitHit::Rate { limit, retry_after } => (
                Code::RateLimited,
                format!("at most {limit} uploads can be created"),
                u64::from(limit.events),
                Some(limit.per.as_secs().max(1)),
                *retry_after,
            ),
            LimitHit::Active { limit, retry_after } => (
                Code::QuotaExceeded,
                format!("at most {limit} uploads can be under way"),
                u64::from(*limit),
                None,
                *retry_after,
            ),
            LimitHit::DailyBytes { limit, left, retry_after } => (
                Code::QuotaExceeded,
                format!("at most {} bytes can be uploaded in a day, and {} are left", limit.0, left.0),
                limit.0,
                Some(86_400),
                *retry_after,
            ),
        };
        let left = if let LimitHit::DailyBytes { left, .. } = hit { left.0 } else { 0 };
        let name = format!("{policy}-{}", hit.name());
        // draft-ietf-httpapi-ratelimit-headers, sections 3 and 4: structured fields, windows in seconds.
        let window = window.map_or_else(String::new, |seconds| format!(";w={seconds}"));
        let problem = Self::new(code).detail(detail);
        problem.limited(
            hit.name(),
            &format!("\"{name}\";q={quota}{window}"),
            &format!("\"{name}\";r={left}"),
            retry_after,
        )
    }

    /// The same, with the limit that is reached: `rule` says what it is, and `left` what is left of it.
    fn limited(self, limit: &'static str, rule: &str, left: &str, retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs() + 1;
        let mut problem = Self { limit: Some(limit), ..self.retry_after(retry_after) };
        for (header, value) in [
            (HeaderName::from_static("ratelimit-policy"), rule.to_owned()),
            (HeaderName::from_static("ratelimit"), format!("{left};t={seconds}")),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                problem = problem.header(header, value);
            }
        }
        problem
    }
}

impl From<storage::Error> for Problem {
    fn from(error: storage::Error) -> Self {
        use storage::Error as Storage;
        warn!(error = chain(&error), "storage did not do its part");
        match error {
            Storage::Refused { .. }
            | Storage::SigningRefused { .. }
            | Storage::Unauthenticated { .. }
            | Storage::Nonsense(_) => {
                // A status and words of ours: nothing that storage sent is repeated, but a reason of one plain word.
                Self::new(Code::StorageError).detail(error.to_string())
            }
            // Who it is need not be storage itself: IAM Credentials signs.
            Storage::Unavailable { retry_after, .. } => Self::new(Code::StorageUnavailable)
                .detail(error.to_string())
                .retry_after(retry_after.unwrap_or(DEFAULT_RETRY)),
            Storage::NoToken(_) => Self::new(Code::StorageUnavailable)
                .detail("the broker has no credentials for storage at the moment")
                .retry_after(DEFAULT_RETRY),
            Storage::TimedOut { .. } => {
                Self::new(Code::StorageTimeout).detail(error.to_string()).retry_after(DEFAULT_RETRY)
            }
            Storage::Overloaded => Self::new(Code::Overloaded).retry_after(Duration::from_secs(1)),
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        use store::Error as Store;
        warn!(error = chain(&error), "the store failed");
        match error {
            Store::Unavailable { .. } | Store::TimedOut(_) => {
                Self::new(Code::StoreUnavailable).retry_after(DEFAULT_RETRY)
            }
            Store::Overloaded => Self::new(Code::Overloaded).retry_after(Duration::from_secs(1)),
            Store::Corrupt { .. } | Store::SealedByUnknownKey { .. } => Self::new(Code::InternalError),
        }
    }
}

impl From<uploads::Error> for Problem {
    fn from(error: uploads::Error) -> Self {
        use uploads::Error as Domain;
        match error {
            Domain::PolicyDenied => Self::new(Code::PolicyDenied).detail(error.to_string()),
            Domain::PolicyAmbiguous { candidates } => {
                let names: Vec<_> = candidates.iter().map(PolicyName::as_str).collect();
                let detail = format!("several policies admit you; choose one of {}", names.join(", "));
                Self::invalid_request(vec![FieldError { pointer: "/policy".to_owned(), detail }])
            }
            Domain::Violations(violations) => Self {
                violations: violations
                    .into_iter()
                    .map(|violation| Violation {
                        limit: violation.limit.as_str(),
                        allowed: violation.allowed,
                        given: violation.given,
                    })
                    .collect(),
                ..Self::new(Code::PolicyViolation)
            },
            Domain::Misdirected { region, url } => {
                Self { elsewhere: Some((region.to_string(), base(&url))), ..Self::new(Code::Misdirected) }
            }
            Domain::Limit { policy, hit } => Self::at_limit(&policy, &hit),
            Domain::IdempotencyInProgress { retry_after } => {
                Self::new(Code::IdempotencyInProgress).retry_after(retry_after)
            }
            Domain::IdempotencyMismatch => Self::new(Code::IdempotencyMismatch),
            Domain::NotFound => Self::new(Code::NotFound).detail("there is no such upload"),
            Domain::NotComplete { received } => {
                let detail = format!("storage has {} bytes so far, and the upload is not finished", received.0);
                Self { received_bytes: Some(received.0), ..Self::new(Code::NotComplete).detail(detail) }
            }
            Domain::SessionLost => Self::new(Code::SessionLost)
                .detail("storage knows neither the session nor the object; renew this upload, and begin anew"),
            Domain::InvalidState { state } => Self::new(Code::InvalidState).detail(format!("the upload is {state}")),
            Domain::TooManyListeners { limit } => Self::new(Code::QuotaExceeded).detail(error.to_string()).limited(
                "event_listeners",
                &format!("\"event_listeners\";q={limit}"),
                "\"event_listeners\";r=0",
                LISTENERS_RETRY,
            ),
            Domain::NoMoreListeners => {
                Self::new(Code::Overloaded).detail(error.to_string()).retry_after(LISTENERS_RETRY)
            }
            Domain::Contended => Self::new(Code::Overloaded)
                .detail("the upload was changed by other requests at the same time")
                .retry_after(Duration::from_secs(1)),
            Domain::Store(error) => Self::from(error),
            Domain::Storage(error) => Self::from(error),
        }
    }
}
