//! The exchanges of the JSON interface, each one a request and the reading of its answer. Nothing here sends.

use std::collections::BTreeMap;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, ORIGIN, RANGE};
use reqwest::{Method, StatusCode, Url};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::error::Error;
use super::xml;
use super::{Cancelled, Deleted, FoundObject, Initiation, Progress, UPLOAD_HINT, UPLOAD_NOTE};
use crate::model::name::{BucketName, ObjectName};
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::upload::{Overwrite, StoredObject};

/// What is sent. No `Debug`: the address of a session is a secret.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) authority: Authority,
}

/// What entitles a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// The broker's token.
    Token,
    /// The session URI itself. A token is neither needed nor wanted there.
    Session,
    /// Nothing: the metadata server tells all programs on its machine whose the machine is.
    Nothing,
}

/// What came back. No `Debug`: `Location` and `X-GUploader-UploadID` are secrets.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// The body of an answer.
pub(super) enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// Longer than is read. Whatever it is, it is no object resource.
    TooLong,
}

impl Answer {
    /// The `reason` of the first error in the body, its `Code` in XML, or the `status` of Google's other interfaces
    /// (AIP-193), if it is the plain word that it should be. The bodies of upload servers are often text or empty, so this
    /// is a hint and the status decides.
    pub(super) fn reason(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Envelope {
            error: Errors,
        }
        #[derive(Deserialize)]
        struct Errors {
            #[serde(default)]
            errors: Vec<Reason>,
            status: Option<String>,
        }
        #[derive(Deserialize)]
        struct Reason {
            reason: String,
        }
        let Body::Whole(body) = &self.body else { return None };
        let reason = if let Some(code) = xml::error_code(body) {
            code.to_owned()
        } else {
            let Errors { errors, status } = serde_json::from_slice::<Envelope>(body).ok()?.error;
            errors.into_iter().next().map(|first| first.reason).or(status)?
        };
        let word = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let plain = (1..=64).contains(&reason.len()) && reason.bytes().all(word);
        plain.then_some(reason)
    }

    /// Whether the body is neither empty nor JSON: the page of some gateway in between, which must not pass for a deed of
    /// storage.
    fn is_page(&self) -> bool {
        match &self.body {
            Body::TooLong => true,
            Body::Whole(body) => !body.is_empty() && serde_json::from_slice::<IgnoredAny>(body).is_err(),
        }
    }

    /// What an answer is that no exchange expects.
    pub(super) fn unexpected(&self) -> Error {
        if self.status.is_client_error() {
            Error::Refused { status: self.status.as_u16(), reason: self.reason() }
        } else {
            Error::Nonsense("a status that does not belong to the request")
        }
    }
}

/// `POST …/o?uploadType=resumable` (storage documentation, "Perform resumable uploads").
pub(super) fn initiation_request(endpoint: &Endpoint, initiation: &Initiation<'_>) -> Result<Request, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Resource<'a> {
        content_type: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        md5_hash: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        crc32c: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a str>,
        metadata: BTreeMap<&'a str, &'a str>,
    }
    let promise = initiation.promise;
    let id = initiation.id.to_string();
    let mut metadata: BTreeMap<&str, &str> =
        initiation.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    metadata.insert(UPLOAD_HINT, &id);
    metadata.extend(initiation.note.map(|note| (UPLOAD_NOTE, note)));
    let resource = Resource {
        content_type: promise.content_type.as_str(),
        md5_hash: promise.md5.map(|digest| digest.to_string()),
        crc32c: promise.crc32c.map(|digest| digest.to_string()),
        cache_control: initiation.cache_control,
        metadata,
    };
    let body = serde_json::to_vec(&resource).map_err(|_| Error::Nonsense("the metadata cannot be written as JSON"))?;

    let mut address = endpoint.upload(initiation.bucket, initiation.object);
    match initiation.overwrite {
        // 0 stands for: there is no live object. Storage looks at it when the last byte is there, not now.
        Overwrite::Forbidden => address.push_str("&ifGenerationMatch=0"),
        Overwrite::Allowed => {}
    }
    let header = |text: &str, what| HeaderValue::from_str(text).map_err(|_| Error::Nonsense(what));
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    headers.insert(
        "x-upload-content-type",
        header(promise.content_type.as_str(), "the content type cannot stand in a header")?,
    );
    if let Some(size) = promise.size.declared() {
        headers.insert("x-upload-content-length", HeaderValue::from(size.0));
    }
    if let Some(origin) = initiation.origin {
        // Storage binds the cross-origin answers of the whole session to this, exactly as a browser will send it.
        headers.insert(ORIGIN, header(origin, "the origin cannot stand in a header")?);
    }
    Ok(Request { method: Method::POST, url: parse(&address)?, headers, body, authority: Authority::Token })
}

/// Takes the session out of `Location`, which may be relative to the address that was asked: stand-ins do that.
pub(super) fn read_initiated(endpoint: &Endpoint, asked: &Url, answer: &Answer) -> Result<SessionUri, Error> {
    if !matches!(answer.status, StatusCode::OK | StatusCode::CREATED) {
        return Err(answer.unexpected());
    }
    let location = answer.headers.get(LOCATION).ok_or(Error::Nonsense("a session was opened without a Location"))?;
    let unreadable = Error::Nonsense("the Location is no session URI");
    let Ok(text) = location.to_str() else { return Err(unreadable) };
    // An absolute one is opaque and kept byte for byte, so it is checked as its user will read it: `https:other.example`
    // has no base there, though against the address that was asked it would be a path.
    let (url, session) = if let Ok(url) = Url::parse(text) {
        (url, SessionUri::parse(text))
    } else {
        let Ok(url) = asked.join(text) else { return Err(unreadable) };
        let session = SessionUri::parse(url.as_str());
        (url, session)
    };
    let Ok(session) = session else { return Err(unreadable) };
    endpoint.check_session(&url).map_err(Error::Nonsense)?;
    Ok(session)
}

/// `PUT` without a body and with `bytes */*`: asks, and can never finish an upload as `bytes */N` can.
pub(super) fn look_request(endpoint: &Endpoint, session: &SessionUri) -> Result<Request, Error> {
    let mut request = session_request(endpoint, session, Method::PUT)?;
    request.headers.insert(CONTENT_RANGE, HeaderValue::from_static("bytes */*"));
    Ok(request)
}

/// Reads 308 with its `Range`, the object of a finished session, or that the session is no more (storage documentation,
/// "Resumable uploads", and the table of status codes for the JSON API).
pub(super) fn read_looked(answer: &Answer) -> Result<Progress, Error> {
    match answer.status.as_u16() {
        308 => match answer.headers.get(RANGE) {
            // No Range header: nothing is persisted yet, not even byte 0.
            None => Ok(Progress::Persisted(ByteCount::ZERO)),
            Some(range) => persisted(range).map(Progress::Persisted).ok_or(Error::Nonsense("a Range of another form")),
        },
        200 | 201 => finished(answer).map(Progress::Finished),
        // 404 after a week or for an unknown session, 410 when it ended before, 499 after a cancel.
        404 | 410 | 499 => Ok(Progress::Gone),
        _ => Err(answer.unexpected()),
    }
}

/// `bytes=0-K`, inclusive, as the number of bytes from the first.
fn persisted(range: &HeaderValue) -> Option<ByteCount> {
    let last = range.to_str().ok()?.strip_prefix("bytes=0-")?;
    let digits = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let last: u64 = digits.then(|| last.parse().ok()).flatten()?;
    last.checked_add(1).map(ByteCount)
}

/// The object that a finished session answers with, if it does: as JSON, or in headers where the session was opened by
/// the XML interface. That the body is JSON or nothing must hold: the page of some gateway in between must not pass for
/// the end of an upload.
fn finished(answer: &Answer) -> Result<Option<StoredObject>, Error> {
    let nonsense = Err(Error::Nonsense("a finished session without an object resource"));
    match &answer.body {
        Body::TooLong => nonsense,
        Body::Whole(body) if body.is_empty() => xml::stored(&answer.headers),
        Body::Whole(body) => match serde_json::from_slice::<ObjectResource>(body) {
            Ok(resource) => resource.into_stored().map(Some),
            Err(_) => nonsense,
        },
    }
}

/// `DELETE` on the session (storage documentation, "Cancel an upload").
pub(super) fn cancel_request(endpoint: &Endpoint, session: &SessionUri) -> Result<Request, Error> {
    session_request(endpoint, session, Method::DELETE)
}

/// 499 for an open session. Storage does not document what it says to one that is finished, so any success will do.
pub(super) fn read_cancelled(answer: &Answer) -> Result<Cancelled, Error> {
    match answer.status.as_u16() {
        499 => Ok(Cancelled::Ended),
        404 | 410 => Ok(Cancelled::WasGone),
        200..=299 if answer.is_page() => Err(Error::Nonsense("a page where a session was to be cancelled")),
        200..=299 => Ok(Cancelled::Finished),
        _ => Err(answer.unexpected()),
    }
}

fn session_request(endpoint: &Endpoint, session: &SessionUri, method: Method) -> Result<Request, Error> {
    let url = parse(session.expose())?;
    endpoint.check_session(&url).map_err(Error::Nonsense)?;
    let mut headers = HeaderMap::with_capacity(2);
    // Storage demands it, and HTTP clients leave it out of a DELETE without a body.
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(Request { method, url, headers, body: Vec::new(), authority: Authority::Session })
}

/// `GET …/o/NAME` (storage JSON API, `objects.get`).
pub(super) fn read_back_request(
    endpoint: &Endpoint,
    bucket: &BucketName,
    object: &ObjectName,
) -> Result<Request, Error> {
    const FIELDS: &str = "?fields=bucket,name,generation,size,md5Hash,crc32c,contentType,metadata";
    let url = parse(&(endpoint.object(bucket, object) + FIELDS))?;
    Ok(Request { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new(), authority: Authority::Token })
}

pub(super) fn read_found(
    bucket: &BucketName,
    object: &ObjectName,
    answer: &Answer,
) -> Result<Option<FoundObject>, Error> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        _ => return Err(answer.unexpected()),
    }
    let Body::Whole(body) = &answer.body else { return Err(Error::Nonsense("an object resource without an end")) };
    let mut resource: ObjectResource =
        serde_json::from_slice(body).map_err(|_| Error::Nonsense("an answer that is no object resource"))?;
    // What follows from this answer may be a deletion: it must be about the object that was meant.
    if resource.bucket.as_deref() != Some(bucket.as_str()) || resource.name.as_deref() != Some(object.as_str()) {
        return Err(Error::Nonsense("the resource of another object"));
    }
    let upload_hint = resource.metadata.remove(UPLOAD_HINT);
    let note = resource.metadata.remove(UPLOAD_NOTE);
    Ok(Some(FoundObject { object: resource.into_stored()?, upload_hint, note }))
}

/// `DELETE …/o/NAME?generation=G&ifGenerationMatch=G`: that content or none (storage JSON API, `objects.delete`).
pub(super) fn delete_request(
    endpoint: &Endpoint,
    bucket: &BucketName,
    object: &ObjectName,
    generation: i64,
) -> Result<Request, Error> {
    let address = endpoint.object(bucket, object);
    let url = parse(&format!("{address}?generation={generation}&ifGenerationMatch={generation}"))?;
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(Request { method: Method::DELETE, url, headers, body: Vec::new(), authority: Authority::Token })
}

/// 204 from storage, 200 from stand-ins.
pub(super) fn read_deleted(answer: &Answer) -> Result<Deleted, Error> {
    match answer.status {
        StatusCode::OK if answer.is_page() => Err(Error::Nonsense("a page where an object was to be deleted")),
        StatusCode::OK | StatusCode::NO_CONTENT => Ok(Deleted::Gone),
        StatusCode::NOT_FOUND => Ok(Deleted::WasGone),
        StatusCode::PRECONDITION_FAILED => Ok(Deleted::Replaced),
        _ => Err(answer.unexpected()),
    }
}

pub(super) fn parse(address: &str) -> Result<Url, Error> {
    Url::parse(address).map_err(|_| Error::Nonsense("an address that is no URL"))
}

/// The part of the `objects` resource that is asked for. 64-bit integers are strings in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectResource {
    bucket: Option<String>,
    name: Option<String>,
    generation: String,
    size: String,
    content_type: Option<String>,
    md5_hash: Option<String>,
    crc32c: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl ObjectResource {
    fn into_stored(self) -> Result<StoredObject, Error> {
        let invalid = "an object resource with a value of another form";
        let nonsense = |_| Error::Nonsense(invalid);
        Ok(StoredObject {
            generation: self.generation.parse().map_err(|_| Error::Nonsense(invalid))?,
            size: ByteCount(self.size.parse().map_err(|_| Error::Nonsense(invalid))?),
            // The holder of a session can set any text here; one that is no media type is not the one that was promised.
            content_type: self.content_type.and_then(|text| text.parse().ok()),
            md5: self.md5_hash.map(|text| text.parse()).transpose().map_err(nonsense)?,
            crc32c: self.crc32c.map(|text| text.parse()).transpose().map_err(nonsense)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Crc32c;

    const GOOGLE: &str = "https://storage.googleapis.com";
    const RESOURCE: &str = r#"{"bucket":"media-eu","name":"videos/a.mp4","generation":"1712345678901234","size":"73400320",
        "contentType":"video/mp4","crc32c":"yZRlqg==","md5Hash":"XrY7u+Ae7tCTyyK7j1rNww==",
        "metadata":{"album":"summer","upload-broker-id":"3f"},"kind":"storage#object"}"#;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(&text.parse().unwrap()).unwrap()
    }

    fn answer(status: u16, header: Option<(&'static str, &str)>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Body::Whole(body.into()) }
    }

    fn stored() -> StoredObject {
        StoredObject {
            generation: 1_712_345_678_901_234,
            size: ByteCount(73_400_320),
            content_type: Some("video/mp4".parse().unwrap()),
            md5: Some("XrY7u+Ae7tCTyyK7j1rNww==".parse().unwrap()),
            crc32c: Some(Crc32c(0xC994_65AA)),
        }
    }

    /// What was read, or the error with its details, as one text.
    fn told<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        result.map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
    }

    #[test]
    fn a_location_becomes_a_session_only_if_it_is_one_of_this_storage() {
        let absolute = "https://storage.googleapis.com/upload/storage/v1/b/m/o?name=a%2Fb'c&upload_id=AB-_";
        let long = format!("{absolute}{}", "A".repeat(9000));
        for (name, status, location, expected) in [
            ("an absolute one, byte for byte", 200, Some(absolute), Ok(absolute)),
            ("created", 201, Some(absolute), Ok(absolute)),
            ("a path", 200, Some("/up?upload_id=A"), Ok("https://storage.googleapis.com/up?upload_id=A")),
            (
                "only a query",
                200,
                Some("?upload_id=A"),
                Ok("https://storage.googleapis.com/upload/storage/v1/b/m/o?upload_id=A"),
            ),
            ("another host without a scheme", 200, Some("//evil.example/up?upload_id=A"), Err("foreign host")),
            ("another host", 200, Some("https://evil.example/up?upload_id=A"), Err("foreign host")),
            ("another host without slashes", 200, Some("https:evil.example/up?upload_id=A"), Err("foreign host")),
            ("without TLS", 200, Some("http://storage.googleapis.com/up?upload_id=A"), Err("not https")),
            ("another scheme", 200, Some("javascript:alert(1)"), Err("no session URI")),
            ("user information", 200, Some("https://a:b@storage.googleapis.com/up?upload_id=A"), Err("no session URI")),
            ("not ASCII", 200, Some("/up?upload_id=\u{e9}"), Err("no session URI")),
            ("too long", 200, Some(&long), Err("no session URI")),
            ("no upload_id", 200, Some("/up"), Err("no upload_id")),
            ("none", 200, None, Err("without a Location")),
            ("a redirect", 302, Some(absolute), Err("does not belong")),
            ("no bucket", 404, None, Err("status 404")),
        ] {
            let endpoint = endpoint(GOOGLE);
            let asked = Url::parse("https://storage.googleapis.com/upload/storage/v1/b/m/o?name=x").unwrap();
            let read = read_initiated(&endpoint, &asked, &answer(status, location.map(|text| ("location", text)), ""));
            match (read, expected) {
                (Ok(session), Ok(expected)) => assert_eq!(session.expose(), expected, "{name}"),
                (Err(error), Err(part)) => {
                    let text = error.to_string();
                    assert!(text.contains(part) && !text.contains("evil") && !text.contains("AB-_"), "{name}: {text}");
                }
                (read, _) => panic!("{name}: {read:?}"),
            }
        }
    }

    #[test]
    fn progress_is_what_the_range_says_and_nothing_else() {
        let range = |text| Some(("range", text));
        let persisted = |count| told(Ok(Progress::Persisted(ByteCount(count))));
        let form = "the exchange with storage makes no sense: a Range of another form";
        let page = "the exchange with storage makes no sense: a finished session without an object resource";
        for (name, answer, expected) in [
            ("no range is no byte", answer(308, None, ""), persisted(0)),
            ("one byte", answer(308, range("bytes=0-0"), ""), persisted(1)),
            ("a chunk", answer(308, range("bytes=0-262143"), ""), persisted(262_144)),
            ("not from the first byte", answer(308, range("bytes=5-9"), ""), form.to_owned()),
            ("without an end", answer(308, range("bytes=0-"), ""), form.to_owned()),
            ("a sign", answer(308, range("bytes=0-+1"), ""), form.to_owned()),
            ("more than a number holds", answer(308, range("bytes=0-18446744073709551615"), ""), form.to_owned()),
            ("finished, with the object", answer(200, None, RESOURCE), told(Ok(Progress::Finished(Some(stored()))))),
            ("finished, and no more said", answer(201, None, ""), told(Ok(Progress::Finished(None)))),
            ("the page of a gateway", answer(200, None, "<html>Sign in</html>"), page.to_owned()),
            ("expired", answer(404, None, ""), told(Ok(Progress::Gone))),
            ("ended early", answer(410, None, r#"{"error":{"code":503}}"#), told(Ok(Progress::Gone))),
            ("cancelled", answer(499, None, ""), told(Ok(Progress::Gone))),
            ("refused", answer(400, None, "Failed to parse"), "storage refused with status 400".to_owned()),
        ] {
            assert_eq!(told(read_looked(&answer)), expected, "{name}");
        }
    }

    #[test]
    fn a_cancel_and_a_delete_say_what_became_of_it() {
        for (status, cancelled, deleted) in [
            (200, "Finished", "Gone"),
            (204, "Finished", "Gone"),
            (404, "WasGone", "WasGone"),
            (410, "WasGone", "storage refused with status 410"),
            (412, "storage refused with status 412", "Replaced"),
            (499, "Ended", "storage refused with status 499"),
            (400, "storage refused with status 400", "storage refused with status 400"),
            (
                308,
                "the exchange with storage makes no sense: a status that does not belong to the request",
                "the exchange with storage makes no sense: a status that does not belong to the request",
            ),
        ] {
            assert_eq!(told(read_cancelled(&answer(status, None, ""))), cancelled, "cancel, {status}");
            assert_eq!(told(read_deleted(&answer(status, None, ""))), deleted, "delete, {status}");
        }
        let endless = || Answer { body: Body::TooLong, ..answer(200, None, "") };
        for (name, answer, believed) in [
            ("a resource", answer(200, None, RESOURCE), true),
            ("no more than braces", answer(200, None, "{}"), true),
            ("the page of a gateway", answer(200, None, "<html>Sign in</html>"), false),
            ("an endless one", endless(), false),
        ] {
            assert_eq!(read_cancelled(&answer).is_ok(), believed, "cancel, {name}");
            assert_eq!(read_deleted(&answer).is_ok(), believed, "delete, {name}");
        }
    }

    #[test]
    fn an_object_is_read_back_only_from_its_own_resource() {
        let with = |from: &str, to: &str| RESOURCE.replacen(from, to, 1);
        let without_hint = FoundObject { object: stored(), upload_hint: None, note: None };
        let found = FoundObject { object: stored(), upload_hint: Some("3f".to_owned()), note: None };
        let odd_type = StoredObject { content_type: None, ..stored() };
        let some = |found: &FoundObject| told(Ok(Some(found.clone())));
        for (name, body, expected) in [
            ("found", RESOURCE.to_owned(), some(&found)),
            ("without a hint", with("upload-broker-id", "other"), some(&without_hint)),
            (
                "a type that is none",
                with("video/mp4\"", "\\n\""),
                some(&FoundObject { object: odd_type, ..found.clone() }),
            ),
            ("another object", with("videos/a.mp4", "videos/b.mp4"), "the resource of another object".to_owned()),
            ("another bucket", with("media-eu", "media-us"), "the resource of another object".to_owned()),
            ("no name", with("\"name\"", "\"id\""), "the resource of another object".to_owned()),
            ("no generation", with("generation", "other"), "no object resource".to_owned()),
            ("a size that is none", with("73400320", "-1"), "a value of another form".to_owned()),
            ("a digest that is none", with("yZRlqg==", "yZRl"), "a value of another form".to_owned()),
            ("a page", "<html>".to_owned(), "no object resource".to_owned()),
            ("nothing", String::new(), "no object resource".to_owned()),
        ] {
            let (bucket, object) = ("media-eu".parse().unwrap(), "videos/a.mp4".parse().unwrap());
            let read = told(read_found(&bucket, &object, &answer(200, None, &body)));
            assert!(read.ends_with(&expected), "{name}: {read}");
        }
        let (bucket, object) = ("media-eu".parse().unwrap(), "videos/a.mp4".parse().unwrap());
        assert_eq!(told(read_found(&bucket, &object, &answer(404, None, ""))), "None");
        let endless = Answer { body: Body::TooLong, ..answer(200, None, "") };
        assert!(told(read_found(&bucket, &object, &endless)).ends_with("without an end"));
    }

    #[test]
    fn a_reason_is_a_plain_word_or_nothing() {
        let envelope = |reason: &str| format!(r#"{{"error":{{"errors":[{{"reason":"{reason}"}}]}}}}"#);
        for (name, body, expected) in [
            ("a reason", envelope("conditionNotMet"), Some("conditionNotMet")),
            ("a sentence", envelope("see https://storage/?upload_id=A"), None),
            ("an endless one", envelope(&"a".repeat(65)), None),
            ("an empty one", envelope(""), None),
            (
                "a status",
                r#"{"error":{"code":403,"status":"PERMISSION_DENIED"}}"#.to_owned(),
                Some("PERMISSION_DENIED"),
            ),
            ("a status that is a sentence", r#"{"error":{"status":"see upload_id=A"}}"#.to_owned(), None),
            ("no list", r#"{"error":{"code":412}}"#.to_owned(), None),
            ("an empty list", r#"{"error":{"errors":[]}}"#.to_owned(), None),
            ("text", "Precondition failed".to_owned(), None),
        ] {
            assert_eq!(answer(412, None, &body).reason().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn no_session_of_another_storage_is_called() {
        let session = SessionUri::parse("https://evil.example/upload?upload_id=A").unwrap();
        assert!(look_request(&endpoint(GOOGLE), &session).is_err());
        assert!(cancel_request(&endpoint(GOOGLE), &session).is_err());
    }
}
