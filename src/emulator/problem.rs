//! Answers: plain, JSON, and errors in the two forms that storage gives them.

use std::fmt::Display;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::ext::ReasonPhrase;
use hyper::http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::session::Refusal;

/// A complete answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// 499, which a cancelled session answers (storage documentation, "Cancel an upload").
pub(super) const CANCELLED: u16 = 499;

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    let phrase = match status.as_u16() {
        308 => Some(ReasonPhrase::from_static(b"Resume Incomplete")),
        CANCELLED => Some(ReasonPhrase::from_static(b"Client Closed Request")),
        _ => None,
    };
    if let Some(phrase) = phrase {
        answer.extensions_mut().insert(phrase);
    }
    answer
}

/// An answer with a body of that media type.
pub(super) fn body(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    *answer.body_mut() = Full::new(body.into());
    answer
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    body(status, "application/json; charset=UTF-8", value.to_string())
}

/// Something that went wrong, and the form in which storage says so.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Google's JSON error document, with its short reason.
    Json { reason: &'static str },
    /// As the upload servers mostly answer.
    Text,
}

impl Problem {
    fn with_reason(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), form: Form::Json { reason } }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(super) fn required(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::BAD_REQUEST, "required", message)
    }

    pub(super) fn bad_json() -> Self {
        Self::with_reason(StatusCode::BAD_REQUEST, "parseError", "Parse Error")
    }

    pub(super) fn digest(kind: &str, expected: &dyn Display, actual: &dyn Display) -> Self {
        Self::invalid(format!("Provided {kind} hash \"{expected}\" doesn't match calculated hash \"{actual}\"."))
    }

    pub(super) fn unauthenticated() -> Self {
        Self::with_reason(StatusCode::UNAUTHORIZED, "required", "Login Required.")
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::NOT_FOUND, "notFound", message)
    }

    pub(super) fn precondition() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Self::with_reason(StatusCode::PRECONDITION_FAILED, "conditionNotMet", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::CONFLICT, "conflict", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::PAYLOAD_TOO_LARGE, "uploadTooLarge", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::with_reason(StatusCode::METHOD_NOT_ALLOWED, "httpMethodNotAllowed", "Method not allowed.")
    }

    pub(super) fn unsatisfiable() -> Self {
        let message = "Request range not satisfiable";
        Self::with_reason(StatusCode::RANGE_NOT_SATISFIABLE, "requestedRangeNotSatisfiable", message)
    }

    pub(super) fn not_kept() -> Self {
        let message = "The emulator kept only the digests of this object, because it is larger than keep_bytes or \
                       because memory_limit was reached.";
        Self::with_reason(StatusCode::NOT_IMPLEMENTED, "notImplemented", message)
    }

    pub(super) fn full(what: &str) -> Self {
        let message = format!("The emulator holds as many {what} as its settings allow.");
        Self::with_reason(StatusCode::SERVICE_UNAVAILABLE, "backendError", message)
    }

    pub(super) fn text(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), form: Form::Text }
    }

    pub(super) fn length_required() -> Self {
        Self::text(StatusCode::LENGTH_REQUIRED, "POST and PUT requests require a Content-Length header.")
    }

    pub(super) fn answer(&self) -> Answer {
        match self.form {
            Form::Text => body(self.status, "text/plain; charset=utf-8", self.message.clone()),
            Form::Json { reason } => {
                let mut detail = json!({"message": self.message, "domain": "global", "reason": reason});
                let place = match reason {
                    "conditionNotMet" => Some(("header", "If-Match")),
                    "required" if self.status == StatusCode::UNAUTHORIZED => Some(("header", "Authorization")),
                    _ => None,
                };
                if let Some((kind, location)) = place {
                    detail["locationType"] = json!(kind);
                    detail["location"] = json!(location);
                }
                let code = self.status.as_u16();
                let error = json!({"error": {"code": code, "message": self.message, "errors": [detail]}});
                let mut answer = json(self.status, &error);
                if self.status == StatusCode::UNAUTHORIZED {
                    let challenge = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
                    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                }
                answer
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Gap { .. } | Refusal::Superseded => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::SmallChunk(_)
            | Refusal::TotalDisagrees { .. }
            | Refusal::TooFew { .. }
            | Refusal::TooMany(_)
            | Refusal::WrongLength { .. }
            | Refusal::TooLarge => StatusCode::BAD_REQUEST,
        };
        Self::text(status, refusal.to_string())
    }
}
