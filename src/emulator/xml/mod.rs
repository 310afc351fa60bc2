//! The XML API: objects by their path, with headers for what the JSON API says in bodies (storage documentation, "XML API
//! overview"). Requests on a session are those of the JSON API; `upload` serves both.

mod insertion;
mod signature;

use hyper::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Authorization;
use super::content::Content;
use super::http::{Call, Failure, Piece};
use super::insertion::{Preconditions, check_size};
use super::journal::Operation;
use super::objects::{Condition, Description, Miss, Object};
use super::problem::{self, Answer, Problem};
use super::resources;
use super::target::Route;
use super::upload::{self, NO_BUCKET, insert};
use crate::model::size::ByteCount;

use self::signature::Presented;

/// What else the XML API does with objects, by parameter: none of it is here.
const SUBRESOURCES: [&str; 7] = ["acl", "compose", "partNumber", "retention", "tagging", "uploadId", "uploads"];

/// Answers whatever is not a request on a session.
pub(super) async fn serve(call: &mut Call<'_>, operation: Operation, route: &Route) -> Result<Answer, Failure> {
    authorize(call)?;
    let is_more = SUBRESOURCES.iter().any(|name| call.query.get(name).is_some());
    if is_more || call.head.headers.contains_key("x-goog-copy-source") {
        let message = "The emulator reads, writes and removes whole objects only.";
        return Err(Problem::xml(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message, "").into());
    }
    match (operation, route) {
        (Operation::Initiate, Route::XmlObject { bucket, object }) => Ok(initiate(call, bucket, object)?),
        (Operation::Simple, Route::XmlObject { bucket, object }) => put(call, bucket, object).await,
        (Operation::Get | Operation::Download, Route::XmlObject { bucket, object }) => {
            let found = call.world.objects.find(bucket, object, condition(call)?);
            Ok(show(call, operation, &found.map_err(|miss| missed(miss, object))?)?)
        }
        (Operation::Delete, Route::XmlObject { bucket, object }) => {
            let removed = call.world.remove(bucket, object, condition(call)?);
            removed.map_err(|miss| missed(miss, object))?;
            Ok(problem::empty(StatusCode::NO_CONTENT))
        }
        (_, Route::XmlBucket { bucket }) => {
            call.world.objects.bucket(bucket).ok_or_else(|| Problem::not_found(NO_BUCKET))?;
            let message = "The emulator knows buckets by the JSON API only.";
            Err(Problem::xml(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message, "").into())
        }
        _ => Err(Problem::method_not_allowed().into()),
    }
}

/// Lets a bearer token pass, any one, or a good signature in the query. Signatures are checked also where tokens are
/// not.
fn authorize(call: &Call<'_>) -> Result<(), Problem> {
    let head = &call.head;
    let query = head.uri.query().unwrap_or_default();
    if signature::is_signed(query) {
        if head.headers.contains_key(header::AUTHORIZATION) {
            return Err(Problem::invalid("The request bears a token and a signature."));
        }
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        let presented = Presented {
            method: head.method.as_str(),
            host: call.header("host").unwrap_or_default(),
            path: head.uri.path(),
            query,
            headers: &headers,
        };
        return signature::check(&presented, &call.world.accounts, call.world.now());
    }
    let is_anonymous = !head.headers.contains_key(header::AUTHORIZATION);
    if is_anonymous && call.world.authorization == Authorization::Required {
        let details = "Anonymous caller has no access to the object.";
        return Err(Problem::xml(StatusCode::FORBIDDEN, "AccessDenied", "Access denied.", details));
    }
    call.authorize()
}

/// Opens a session. Preconditions and sizes are looked at when it ends.
fn initiate(call: &mut Call<'_>, bucket: &str, object: &str) -> Result<Answer, Problem> {
    if call.header("x-goog-resumable") != Some("start") {
        return Err(Problem::invalid("A POST to an object starts a resumable upload: x-goog-resumable: start."));
    }
    // Documented is `Content-Length: 0`. Google's Python library sends a JSON resource nevertheless, of which nothing is
    // taken (github.com/googleapis/google-resumable-media-python/issues/289).
    if call.length().is_none() {
        return Err(length_required());
    }
    let bucket = call.world.objects.bucket(bucket).ok_or_else(|| Problem::not_found(NO_BUCKET))?;
    let insertion = insertion::read(object, &call.head.headers)?;
    upload::open(call, StatusCode::CREATED, bucket.name, insertion)
}

fn length_required() -> Problem {
    let message = "You must provide the Content-Length HTTP header.";
    Problem::xml(StatusCode::LENGTH_REQUIRED, "MissingContentLength", message, "")
}

/// Makes an object of a single request. Nothing is kept of one that does not arrive whole.
async fn put(call: &mut Call<'_>, bucket: &str, object: &str) -> Result<Answer, Failure> {
    if !call.is_delimited() {
        return Err(length_required().into());
    }
    if call.world.objects.bucket(bucket).is_none() {
        return Err(Problem::not_found(NO_BUCKET).into());
    }
    let insertion = insertion::read(object, &call.head.headers)?;
    let digests = insertion::digests(&call.head.headers)?;
    if let Some(length) = call.length() {
        check_size(insertion.sizes.as_ref(), length)?;
    }
    let most = insertion.sizes.as_ref().map_or(ByteCount::LARGEST_OBJECT.0, |sizes| *sizes.end());
    let mut content = Content::empty(&call.world.memory);
    loop {
        match call.next().await {
            Piece::Data(data) => {
                let size = content.size() + data.len() as u64;
                check_size(Some(&(0..=most.min(ByteCount::LARGEST_OBJECT.0))), size)?;
                content.append(&data);
            }
            Piece::End => break,
            Piece::Cut => return Err(Failure::Cut),
        }
    }
    let sealed = content.seal();
    check_size(insertion.sizes.as_ref(), sealed.size)?;
    for claimed in digests {
        claimed.check(&sealed)?;
    }
    let made = insert(call, bucket, &insertion, insertion.attributes.clone(), sealed)?;
    Ok(written(&made))
}

/// What is answered when an object has come to be: the facts are in the headers.
pub(super) fn written(object: &Description) -> Answer {
    let mut answer = problem::empty(StatusCode::OK);
    resources::put_facts(object, &entity_tag(object), answer.headers_mut());
    answer
}

/// The tag that the XML API has for an object in one piece.
fn entity_tag(object: &Description) -> String {
    format!("\"{}\"", super::accounts::hex(&object.md5.0))
}

fn condition(call: &Call<'_>) -> Result<Condition, Problem> {
    let generation = match call.query.get("generation") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| Problem::invalid("Invalid value for generation."))?),
    };
    Ok(Condition { generation, preconditions: Preconditions::of_headers(&call.head.headers)? })
}

fn missed(miss: Miss, object: &str) -> Problem {
    match miss {
        Miss::Bucket => Problem::not_found(NO_BUCKET),
        Miss::Object => {
            let details = format!("No such object: {object}");
            Problem::xml(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.", details)
        }
        Miss::Precondition(_) => Problem::precondition(),
        Miss::Full => Problem::full("objects"),
    }
}

/// The object with its facts and its metadata in headers; `HEAD` has these alone.
fn show(call: &Call<'_>, operation: Operation, object: &Object) -> Result<Answer, Problem> {
    let description = &object.description;
    let mut answer = if operation == Operation::Get {
        let mut answer = problem::empty(StatusCode::OK);
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(description.size));
        answer
    } else {
        resources::content(call, object)?
    };
    let headers = answer.headers_mut();
    resources::put_facts(description, &entity_tag(description), headers);
    let mut put = |name: &str, value: &str| put_header(headers, name, value);
    for (name, value) in description.attributes.headers() {
        put(name, value);
    }
    for (key, value) in &description.attributes.metadata {
        put(&format!("x-goog-meta-{key}"), value);
    }
    put("last-modified", &http_date(description));
    put("accept-ranges", "bytes");
    // Whoever signs a URL may say how a browser is to take it.
    for (parameter, name) in
        [("response-content-type", "content-type"), ("response-content-disposition", "content-disposition")]
    {
        if let Some(value) = call.query.get(parameter) {
            put(name, value);
        }
    }
    Ok(answer)
}

/// Sets a header, unless its name or value cannot be one: keys of the JSON API may have any characters.
fn put_header(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (hyper::http::HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
    {
        headers.insert(name, value);
    }
}

/// RFC 9110, section 5.6.7.
fn http_date(object: &Description) -> String {
    let updated = jiff::Timestamp::from_millisecond(object.updated.as_millis()).unwrap_or_default();
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&updated).unwrap_or_default()
}
