//! The requests of a resumable upload: initiate, send, ask, cancel.

use std::sync::Arc;

use hyper::http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::attributes::Attributes;
use super::content::Sealed;
use super::faults::Action;
use super::http::{Call, Failure, Piece, expect_empty};
use super::insertion::{Digests, Insertion, Interface, Unmet, check_size};
use super::objects::{Description, Miss};
use super::problem::{self, Answer, CANCELLED, Problem};
use super::range::{Extent, number};
use super::session::{Closed, Ended, Progress, Session, State, Stop};
use super::sessions::Entry;
use super::target::Route;
use super::xml;
use crate::model::size::ByteCount;

/// On every answer of the upload servers; on initiations it repeats the secret.
pub(super) const UPLOAD_ID: &str = "x-guploader-uploadid";
/// On a 200 that stands for a 308.
pub(super) const OVERRIDE: &str = "x-http-status-code-override";

/// Opens a session for a caller who may. Preconditions and digests are looked at when it ends.
pub(super) fn initiate(call: &mut Call<'_>, bucket: &str, resource: &Map<String, Value>) -> Result<Answer, Problem> {
    let world = call.world;
    let bucket = world.objects.bucket(bucket).ok_or_else(|| Problem::not_found(NO_BUCKET))?;
    let insertion = Insertion::new(&call.query, resource, call.header("x-upload-content-type"))?;
    open(call, StatusCode::OK, bucket.name, insertion)
}

/// Opens the session for an object that is to be, and says where it is.
pub(super) fn open(
    call: &mut Call<'_>,
    status: StatusCode,
    bucket: Arc<str>,
    insertion: Insertion,
) -> Result<Answer, Problem> {
    let world = call.world;
    let declared = match call.head.headers.get("x-upload-content-length") {
        None => None,
        Some(value) => {
            let size = value.to_str().ok().and_then(number).filter(|size| *size <= ByteCount::LARGEST_OBJECT.0);
            let invalid = || Problem::invalid("Invalid value for X-Upload-Content-Length.");
            Some(size.ok_or_else(invalid)?)
        }
    };
    let origin = call.head.headers.get(header::ORIGIN).cloned();
    let number = world.sessions.next_number();
    let session = Session::new(number, bucket, origin, insertion, declared, &world.memory);
    let id = world.sessions.insert(session, world.now());
    call.note(|entry| entry.session = Some(number));

    let query = call.query.of_initiation();
    let and = if query.is_empty() { "" } else { "&" };
    let location = format!("{}{}?{query}{and}upload_id={id}", call.base(), call.head.uri.path());
    let mut answer = problem::empty(status);
    let unfit = |_| Problem::invalid("The request target cannot be repeated.");
    answer.headers_mut().insert(header::LOCATION, HeaderValue::try_from(location).map_err(unfit)?);
    answer.headers_mut().insert(UPLOAD_ID, HeaderValue::try_from(id).map_err(unfit)?);
    Ok(answer)
}

pub(super) const NO_BUCKET: &str = "The specified bucket does not exist.";

/// The session that a request is for.
pub(super) fn session_of<'a>(
    call: &Call<'_>,
    route: &Route,
    bucket: &str,
    session: Option<&'a Arc<Entry>>,
) -> Result<&'a Arc<Entry>, Problem> {
    if call.query.get("upload_id").is_none() {
        return Err(Problem::text(StatusCode::BAD_REQUEST, "Missing upload_id."));
    }
    let is_meant = |entry: &&Arc<Entry>| {
        let session = entry.lock();
        let insertion = &session.insertion;
        *session.bucket == *bucket
            && match route {
                Route::XmlObject { object, .. } => {
                    insertion.interface == Interface::Xml && insertion.name.as_str() == object
                }
                _ => insertion.interface == Interface::Json,
            }
    };
    session.filter(is_meant).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::text(StatusCode::NOT_FOUND, "Not Found")
}

/// Ends a session. An object that it became stays.
pub(super) fn cancel(call: &Call<'_>, entry: &Entry) -> Result<Answer, Failure> {
    let mut session = entry.lock();
    match &session.state {
        State::Open { .. } => session.state = State::Cancelled,
        State::Completed(_) => {}
        State::Cancelled => return closed(call, &session, &Closed::Cancelled),
        State::Dead => return closed(call, &session, &Closed::Dead),
        State::Forgotten => return closed(call, &session, &Closed::Forgotten),
    }
    Ok(cancelled())
}

fn cancelled() -> Answer {
    problem::empty(StatusCode::from_u16(CANCELLED).unwrap_or(StatusCode::GONE))
}

/// Says how much is persisted, and ends the upload if that is everything.
pub(super) async fn status(call: &mut Call<'_>, entry: &Entry, total: Option<u64>) -> Result<Answer, Failure> {
    expect_empty(call).await?;
    let mut session = entry.lock();
    let progress = session.status(total);
    conclude(call, &mut session, progress)
}

/// Takes the bytes of a request.
pub(super) async fn receive(call: &mut Call<'_>, entry: &Entry, extent: Extent) -> Result<Answer, Failure> {
    let allowance = match call.action {
        Some(Action::PersistThenRespond { bytes, .. } | Action::PersistThenReset { bytes }) => Some(bytes),
        _ => None,
    };
    let begun = {
        let mut session = entry.lock();
        match session.begin(extent, call.length(), allowance) {
            Ok(intake) => Ok(intake),
            Err(stop) => Err(conclude(call, &mut session, Err(stop))),
        }
    };
    let mut intake = match begun {
        Ok(intake) => intake,
        Err(answer) => return answer,
    };
    let ended = loop {
        match call.next().await {
            Piece::Data(data) => {
                let mut session = entry.lock();
                if let Err(stop) = session.push(&mut intake, &data) {
                    return conclude(call, &mut session, Err(stop));
                }
            }
            Piece::End => break Ended::Whole,
            Piece::Cut => break Ended::Cut,
        }
    };
    let mut session = entry.lock();
    let progress = session.finish(&intake, ended);
    let answer = conclude(call, &mut session, progress);
    if ended == Ended::Cut { Err(Failure::Cut) } else { answer }
}

/// What a session request is answered, by what the session made of it.
fn conclude(call: &Call<'_>, session: &mut Session, progress: Result<Progress, Stop>) -> Result<Answer, Failure> {
    match progress {
        Ok(Progress::Incomplete) => Ok(incomplete(call, session)),
        Ok(Progress::Ready) => {
            let object = complete(call, session)?;
            Ok(finished(call, session, &object))
        }
        Err(Stop::Refused(refusal)) => Err(Problem::from(refusal).into()),
        Err(Stop::Closed(what)) => closed(call, session, &what),
        Err(Stop::Allowance) => Err(Failure::Allowance),
    }
}

fn incomplete(call: &Call<'_>, session: &Session) -> Answer {
    let mut answer = if call.header("x-guploader-no-308") == Some("yes") {
        let mut answer = problem::empty(StatusCode::OK);
        answer.headers_mut().insert(OVERRIDE, HeaderValue::from_static("308"));
        answer
    } else {
        problem::empty(StatusCode::PERMANENT_REDIRECT)
    };
    let last = session.persisted().and_then(|persisted| persisted.checked_sub(1));
    if let Some(Ok(range)) = last.map(|last| HeaderValue::try_from(format!("bytes=0-{last}"))) {
        answer.headers_mut().insert(header::RANGE, range);
    }
    answer
}

fn finished(call: &Call<'_>, session: &Session, object: &Description) -> Answer {
    if session.insertion.interface == Interface::Xml {
        return xml::written(object);
    }
    let resource = object.resource(&call.base());
    // The selection was checked at the initiation.
    let selected = super::fields::select(resource, session.insertion.fields.as_deref());
    problem::json(StatusCode::OK, &selected.unwrap_or_default())
}

fn closed(call: &Call<'_>, session: &Session, what: &Closed) -> Result<Answer, Failure> {
    match what {
        Closed::Completed(object) => Ok(finished(call, session, object)),
        Closed::Cancelled => Ok(cancelled()),
        Closed::Dead => Err(Problem::text(StatusCode::GONE, "The upload session is no longer valid.").into()),
        Closed::Forgotten => Err(unknown().into()),
    }
}

/// Makes the object of a session whose bytes are all there. If a check fails, the session is dead.
fn complete(call: &Call<'_>, session: &mut Session) -> Result<Arc<Description>, Problem> {
    let claimed = Digests::of_headers(&call.head.headers)?;
    let content = match std::mem::replace(&mut session.state, State::Dead) {
        State::Open { content, .. } => content,
        other => {
            session.state = other;
            return Err(unknown());
        }
    };
    let sealed = content.seal();
    claimed.check(&sealed)?;
    session.insertion.digests.check(&sealed)?;
    check_size(session.insertion.sizes.as_ref(), sealed.size)?;
    let mut attributes = session.insertion.attributes.clone();
    late_metadata(call, &mut attributes)?;
    let object = insert(call, &session.bucket, &session.insertion, attributes, sealed)?;
    session.state = State::Completed(Arc::clone(&object));
    Ok(object)
}

/// Custom metadata that comes with the last request wins over that of the initiation.
fn late_metadata(call: &Call<'_>, attributes: &mut Attributes) -> Result<(), Problem> {
    for (name, value) in &call.head.headers {
        if let Some(key) = name.as_str().strip_prefix("x-goog-meta-") {
            let text = value.to_str().map_err(|_| Problem::invalid(format!("Invalid value for {name}.")))?;
            attributes.metadata.insert(key.to_owned(), text.to_owned());
        }
    }
    attributes.check_metadata()
}

/// Makes an object live.
pub(super) fn insert(
    call: &Call<'_>,
    bucket: &str,
    insertion: &Insertion,
    attributes: Attributes,
    content: Sealed,
) -> Result<Arc<Description>, Problem> {
    call.world.insert(bucket, insertion, attributes, content).map_err(|miss| match miss {
        Miss::Bucket | Miss::Object => Problem::not_found(NO_BUCKET),
        Miss::Precondition(Unmet::Match | Unmet::NotMatch) => Problem::precondition(),
        Miss::Full => Problem::full("objects"),
    })
}
