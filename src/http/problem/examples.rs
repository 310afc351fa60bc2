//! What each kind of problem looks like: the examples of the OpenAPI document, made as the real ones are.

use serde_json::Value;

use super::{Code, FieldError, Problem, Violation};

/// The id that requests of examples have.
const REQUEST_ID: &str = "5f3a9c1e7b20d846";

impl Code {
    /// All of them, by status.
    pub const ALL: [Self; 27] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::PolicyDenied,
        Self::Forbidden,
        Self::HttpsRequired,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::NotComplete,
        Self::SessionLost,
        Self::InvalidState,
        Self::IdempotencyInProgress,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::Misdirected,
        Self::PolicyViolation,
        Self::IdempotencyMismatch,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::InternalError,
        Self::StorageError,
        Self::StorageUnavailable,
        Self::StoreUnavailable,
        Self::IdentityUnavailable,
        Self::Overloaded,
        Self::StorageTimeout,
    ];

    /// The kind of problem, for people.
    pub(in crate::http) const fn title(self) -> &'static str {
        self.row().2
    }

    /// A document of this kind.
    pub(in crate::http) fn example(self) -> Value {
        serde_json::to_value(Problem::example(self).document(REQUEST_ID)).unwrap_or_default()
    }
}

impl Problem {
    fn example(code: Code) -> Self {
        let problem = Self::new(code);
        match code {
            Code::InvalidRequest => Self::invalid_request(vec![
                FieldError { pointer: "/filename".to_owned(), detail: "this field is needed".to_owned() },
                FieldError {
                    pointer: "/size_bytes".to_owned(),
                    detail: "here must be a whole number, zero or more".to_owned(),
                },
            ]),
            Code::Unauthenticated => Self::unauthenticated(Some("the token has expired")),
            Code::PolicyDenied => Self::from(crate::uploads::Error::PolicyDenied),
            Code::NotFound => problem.detail("there is no such upload"),
            Code::NotComplete => Self {
                received_bytes: Some(16_777_216),
                ..problem.detail("storage has 16777216 bytes so far, and the upload is not finished")
            },
            Code::SessionLost => Self::from(crate::uploads::Error::SessionLost),
            Code::InvalidState => problem.detail("the upload is cancelled"),
            Code::BodyTooLarge => problem.detail("a body has at most 65536 bytes"),
            Code::UnsupportedMediaType => problem.detail("send the body as \"content-type: application/json\""),
            Code::Misdirected => Self {
                elsewhere: Some(("us-east1".to_owned(), "https://us.uploads.example.com/".to_owned())),
                ..problem
            },
            Code::PolicyViolation => Self {
                violations: vec![Violation {
                    limit: "max_size",
                    allowed: "1073741824".to_owned(),
                    given: "2147483648".to_owned(),
                }],
                ..problem
            },
            Code::RateLimited => Self { limit: Some("rate"), ..problem.detail("at most 30/1m uploads can be created") },
            Code::QuotaExceeded => {
                Self { limit: Some("max_active"), ..problem.detail("at most 5 uploads can be under way") }
            }
            Code::StorageError => problem.detail("storage refused: it answered with status 403"),
            Code::StorageUnavailable => problem.detail("storage is not available: it answered with status 503"),
            Code::StorageTimeout => problem.detail("storage did not answer in time"),
            Code::Forbidden
            | Code::HttpsRequired
            | Code::MethodNotAllowed
            | Code::NotAcceptable
            | Code::RequestTimeout
            | Code::IdempotencyInProgress
            | Code::IdempotencyMismatch
            | Code::InternalError
            | Code::StoreUnavailable
            | Code::IdentityUnavailable
            | Code::Overloaded => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_an_example_of_its_own_kind() {
        for code in Code::ALL {
            let example = code.example();
            assert_eq!(example["code"], code.as_str());
            assert_eq!(example["status"], code.status().as_u16());
            assert_eq!(example["title"], code.title());
        }
    }
}
