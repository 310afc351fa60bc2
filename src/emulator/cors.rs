//! Which browser may read an answer. For sessions the `Origin` of the initiation decides, whatever later requests say
//! (storage documentation, "Configuration examples for CORS"); elsewhere the request's own.

use hyper::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::problem::{self, Answer};

/// What browsers may read of an answer. Storage does not document its list; existing browser uploaders rely on `Range`.
const EXPOSED: &str = "Content-Encoding, Content-Length, Content-Range, Content-Type, Date, ETag, Location, Range, \
                       X-GUploader-UploadID, X-Goog-Generation, X-Goog-Hash, X-Goog-Metageneration, \
                       X-HTTP-Status-Code-Override";

/// Lets `origin` read the answer.
pub(super) fn allow(answer: &mut Answer, origin: Option<&HeaderValue>) {
    let Some(origin) = origin else { return };
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// Answers a preflight; who may read the answer is decided by [`allow`], as for any other.
pub(super) fn preflight(request: &HeaderMap) -> Answer {
    let mut answer = problem::empty(StatusCode::OK);
    let headers = answer.headers_mut();
    let methods = HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(asked) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    answer
}
