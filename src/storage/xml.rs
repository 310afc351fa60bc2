//! The exchanges of the XML interface where they differ from those of JSON: what opens a session or stores an object by
//! headers alone, whoever sends them, and what storage says in headers of what it stored.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, ORIGIN};

use super::endpoint::{Endpoint, percent_encode};
use super::error::Error;
use super::json::{Authority, Request, parse};
use super::{Initiation, UPLOAD_HINT, UPLOAD_NOTE};
use crate::model::size::ByteCount;
use crate::model::upload::{Overwrite, PromisedSize, StoredObject};

/// What a client does with a signed URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignedMethod {
    /// Sends all bytes with one `PUT`.
    Put,
    /// Opens a resumable session with a `POST`.
    ResumableStart,
}

impl SignedMethod {
    /// The HTTP method.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::ResumableStart => "POST",
        }
    }
}

/// The beginning of the name of each header that bears custom metadata.
const METADATA: &str = "x-goog-meta-";

/// The headers that a client must send with a signed URL, exactly these: all that is signed but `host`. The names are in
/// lower case.
///
/// Storage holds the client to them: the type, the size, the digest and that no object is replaced (storage
/// documentation, "HTTP headers and query string parameters for XML").
pub fn signed_headers(method: SignedMethod, initiation: &Initiation<'_>) -> BTreeMap<String, String> {
    let promise = initiation.promise;
    let (least, most) = match promise.size {
        PromisedSize::Exactly(size) => (size, size),
        PromisedSize::Between { least, most } => (least, most),
    };
    let mut headers: BTreeMap<String, String> = initiation
        .metadata
        .iter()
        .map(|(key, value)| (format!("{METADATA}{key}"), value.clone()))
        .chain([(format!("{METADATA}{UPLOAD_HINT}"), initiation.id.to_string())])
        .chain(initiation.note.map(|note| (format!("{METADATA}{UPLOAD_NOTE}"), note.to_owned())))
        .collect();
    let mut set = |name: &str, value: String| headers.insert(name.to_owned(), value);
    set("content-type", promise.content_type.to_string());
    set("x-goog-content-length-range", format!("{},{}", least.0, most.0));
    match initiation.overwrite {
        // 0 stands for: there is no live object.
        Overwrite::Forbidden => {
            set("x-goog-if-generation-match", "0".to_owned());
        }
        Overwrite::Allowed => {}
    }
    if let Some(cache_control) = initiation.cache_control {
        set("cache-control", cache_control.to_owned());
    }
    match method {
        // One digest is enough, and clients have to compute what they send: the one that more of them can.
        SignedMethod::Put => {
            if let Some(md5) = promise.md5 {
                set("content-md5", md5.to_string());
            } else if let Some(crc32c) = promise.crc32c {
                set("x-goog-hash", format!("crc32c={crc32c}"));
            }
        }
        SignedMethod::ResumableStart => {
            set("x-goog-resumable", "start".to_owned());
            if let Some(size) = promise.size.declared() {
                set("x-upload-content-length", size.0.to_string());
            }
        }
    }
    headers
}

/// Whether custom metadata can travel in headers, as it does where a session is opened by the XML interface and where a
/// client uses a signed URL; otherwise why not, for people.
///
/// # Errors
/// When a key is no lower-case token, a value is not printable ASCII or begins or ends with a blank, or all of it takes
/// more than servers read of headers and URLs.
pub fn metadata_in_headers(metadata: &BTreeMap<String, String>) -> Result<(), String> {
    /// Of the 8 KiB of metadata that storage takes, what is left beside the broker's own entry.
    const MOST: usize = 8192 - 256;
    /// A signed URL names its headers, and has room for this much beside a long object name.
    const MOST_IN_URL: usize = 2048;
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    for (key, value) in metadata {
        let shown: String = key.escape_debug().take(64).collect();
        if key.is_empty() || !key.bytes().all(token) {
            return Err(format!("the key \"{shown}\" cannot stand in the name of a header"));
        }
        if !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(format!("the value of \"{shown}\" is not printable ASCII, so it cannot stand in a header"));
        }
        if value.trim() != value {
            return Err(format!("the value of \"{shown}\" begins or ends with a blank, which a header would lose"));
        }
    }
    let all: usize = metadata.iter().map(|(key, value)| METADATA.len() + key.len() + value.len()).sum();
    if all > MOST {
        return Err(format!("as headers, keys and values have {all} bytes in all, more than {MOST}"));
    }
    let named: usize = metadata.keys().map(|key| METADATA.len() + percent_encode(key).len() + "%3B".len()).sum();
    if named > MOST_IN_URL {
        return Err(format!("the keys take {named} bytes of a signed URL, more than {MOST_IN_URL}"));
    }
    Ok(())
}

/// The headers of a request, as they are checked before anything is sent or signed.
///
/// # Errors
/// When one of them cannot stand in a request, or would not arrive as it is.
pub(super) fn sendable(method: SignedMethod, initiation: &Initiation<'_>) -> Result<BTreeMap<String, String>, Error> {
    metadata_in_headers(initiation.metadata).map_err(|_| Error::Nonsense("the metadata cannot stand in headers"))?;
    let headers = signed_headers(method, initiation);
    let plain = |text: &String| text.trim() == text && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if headers.values().all(plain) {
        Ok(headers)
    } else {
        Err(Error::Nonsense("what is to be stored with the object cannot stand in headers"))
    }
}

/// `POST /BUCKET/OBJECT` with `x-goog-resumable: start` (storage documentation, "Perform resumable uploads", XML API).
pub(super) fn initiation_request(endpoint: &Endpoint, initiation: &Initiation<'_>) -> Result<Request, Error> {
    let path = endpoint.xml_path(initiation.bucket, initiation.object)?;
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in sendable(SignedMethod::ResumableStart, initiation)? {
        let unusable = Error::Nonsense("what is to be stored with the object cannot stand in headers");
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => headers.insert(name, value),
            _ => return Err(unusable),
        };
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    if let Some(origin) = initiation.origin {
        let origin =
            HeaderValue::from_str(origin).map_err(|_| Error::Nonsense("the origin cannot stand in a header"))?;
        headers.insert(ORIGIN, origin);
    }
    let url = parse(&(endpoint.origin() + &path))?;
    Ok(Request { method: Method::POST, url, headers, body: Vec::new(), authority: Authority::Token })
}

/// The object that a finished session answers with in headers, if it does. Its content type is not among them: it is
/// left out here, and is the one that the session was opened with.
///
/// # Errors
/// When a header is there and has another form than storage gives it.
pub(super) fn stored(headers: &HeaderMap) -> Result<Option<StoredObject>, Error> {
    fn number<T: std::str::FromStr>(value: &HeaderValue) -> Option<T> {
        let text = value.to_str().ok()?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    }
    let form = Error::Nonsense("a finished session with a header of another form");
    let (Some(generation), Some(size)) =
        (headers.get("x-goog-generation"), headers.get("x-goog-stored-content-length"))
    else {
        return Ok(None);
    };
    let (Some(generation), Some(size)) = (number(generation), number(size)) else { return Err(form) };
    let mut object = StoredObject { generation, size: ByteCount(size), content_type: None, md5: None, crc32c: None };
    // One header with both digests, or two with one each.
    for value in headers.get_all("x-goog-hash") {
        let Ok(text) = value.to_str() else { return Err(form) };
        for digest in text.split(',') {
            match digest.trim().split_once('=') {
                Some(("md5", text)) => object.md5 = Some(text.parse().map_err(|_| nonsense_digest())?),
                Some(("crc32c", text)) => object.crc32c = Some(text.parse().map_err(|_| nonsense_digest())?),
                _ => {}
            }
        }
    }
    Ok(Some(object))
}

const fn nonsense_digest() -> Error {
    Error::Nonsense("a finished session with a digest of another form")
}

/// The `Code` in an error of the XML interface (storage documentation, "HTTP status and error codes for XML").
pub(super) fn error_code(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim_start();
    if !text.starts_with("<?xml") && !text.starts_with("<Error>") {
        return None;
    }
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code)
}
