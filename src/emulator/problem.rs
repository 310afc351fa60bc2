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
    /// Google's JSON error document, with its short reason; and the code of the XML API for the same.
    Json { reason: &'static str, code: &'static str },
    /// The error document of the XML API.
    Xml { code: &'static str, details: String },
    /// As the upload servers mostly answer.
    Text,
}

impl Problem {
    fn with_reason(status: StatusCode, reason: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), form: Form::Json { reason, code } }
    }

    /// An error of the XML API (storage documentation, "HTTP status and error codes for XML").
    pub(super) fn xml(status: StatusCode, code: &'static str, message: &str, details: impl Into<String>) -> Self {
        Self { status, message: message.to_owned(), form: Form::Xml { code, details: details.into() } }
    }

    /// The same in the form of the XML API; plain text stays.
    pub(super) fn into_xml(mut self) -> Self {
        if let Form::Json { code, .. } = self.form {
            self.form = Form::Xml { code, details: String::new() };
        }
        self
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::BAD_REQUEST, "invalid", "InvalidArgument", message)
    }

    pub(super) fn required(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::BAD_REQUEST, "required", "InvalidArgument", message)
    }

    pub(super) fn bad_json() -> Self {
        Self::with_reason(StatusCode::BAD_REQUEST, "parseError", "InvalidArgument", "Parse Error")
    }

    pub(super) fn digest(kind: &str, expected: &dyn Display, actual: &dyn Display) -> Self {
        let message = format!("Provided {kind} hash \"{expected}\" doesn't match calculated hash \"{actual}\".");
        Self::with_reason(StatusCode::BAD_REQUEST, "invalid", "BadDigest", message)
    }

    pub(super) fn unauthenticated() -> Self {
        Self::with_reason(StatusCode::UNAUTHORIZED, "required", "AuthenticationRequired", "Login Required.")
    }

    /// The caller has not got the permission.
    pub(super) fn forbidden(permission: &str) -> Self {
        let message = format!("Permission '{permission}' denied on resource (or it may not exist).");
        Self::with_reason(StatusCode::FORBIDDEN, "forbidden", "AccessDenied", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::NOT_FOUND, "notFound", "NoSuchBucket", message)
    }

    pub(super) fn precondition() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Self::with_reason(StatusCode::PRECONDITION_FAILED, "conditionNotMet", "PreconditionFailed", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::CONFLICT, "conflict", "Conflict", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::with_reason(StatusCode::PAYLOAD_TOO_LARGE, "uploadTooLarge", "EntityTooLarge", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::with_reason(
            StatusCode::METHOD_NOT_ALLOWED,
            "httpMethodNotAllowed",
            "MethodNotAllowed",
            "Method not allowed.",
        )
    }

    pub(super) fn unsatisfiable() -> Self {
        let message = "Request range not satisfiable";
        Self::with_reason(StatusCode::RANGE_NOT_SATISFIABLE, "requestedRangeNotSatisfiable", "InvalidRange", message)
    }

    pub(super) fn not_kept() -> Self {
        let message = "The emulator kept only the digests of this object, because it is larger than keep_bytes or \
                       because memory_limit was reached.";
        Self::with_reason(StatusCode::NOT_IMPLEMENTED, "notImplemented", "NotImplemented", message)
    }

    pub(super) fn full(what: &str) -> Self {
        let message = format!("The emulator holds as many {what} as its settings allow.");
        Self::with_reason(StatusCode::SERVICE_UNAVAILABLE, "backendError", "ServiceUnavailable", message)
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
            Form::Xml { code, ref details } => xml_document(self.status, code, &self.message, details),
            Form::Json { reason, .. } => {
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

/// The error document of the XML API.
pub(super) fn xml_document(status: StatusCode, code: &str, message: &str, details: &str) -> Answer {
    // Names may have characters that no XML document can have (Extensible Markup Language 1.0, section 2.2).
    let is_legal = |character| matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    let legal = |text: &str| text.replace(|character| !is_legal(character), "\u{fffd}");
    let escaped = |text: &str| legal(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let details = match details {
        "" => String::new(),
        details => format!("<Details>{}</Details>", escaped(details)),
    };
    let message = escaped(message);
    let document = format!(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message>{details}</Error>"
    );
    body(status, "application/xml; charset=UTF-8", document)
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
