//! From a request to an answer: what is asked, which fault interferes, who acts, which browser may read it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::http::{HeaderValue, StatusCode, Version, header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::asked::operation;
use super::bucket_cors::{self, Asker};
use super::faults::{Action, Pause};
use super::journal::{self, Operation, Recording};
use super::network::Wire;
use super::problem::{self, Answer, Problem};
use super::range::ContentRange;
use super::session::State;
use super::sessions::Entry;
use super::target::{Query, Route};
use super::{Authorization, World, control, cors, notifications, oauth, resources, simple, upload, xml};

/// The largest object or bucket resource that is read: several times the limits of all its fields together.
const RESOURCE_BYTES: usize = 256 * 1024;

/// How long a client may be silent within a body.
const SILENCE: Duration = Duration::from_secs(60);

/// What is read of a body that nobody wanted, so that the client can read the answer before the connection closes.
const DRAINED_BYTES: u64 = 8 << 20;
const DRAINED_FOR: Duration = Duration::from_secs(2);

/// The connection is to be reset, or was cut by the client: there is no answer.
///
/// As the error of hyper's service it makes hyper drop the connection at once; `connection` then resets it.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
pub(super) struct Cut;

/// Why a call was not answered as it wished.
#[derive(Debug)]
pub(super) enum Failure {
    Problem(Problem),
    Cut,
    /// The fault that persists a part only has done so.
    Allowance,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// A request on its way.
pub(super) struct Call<'a> {
    pub(super) world: &'a World,
    pub(super) head: Parts,
    pub(super) query: Query,
    /// What goes wrong with it, pauses aside.
    pub(super) action: Option<Action>,
    /// What its answer waits for.
    last: Option<Pause>,
    wire: &'a Wire,
    /// Whether its body comes over the distance that clients have.
    is_far: bool,
    body: Incoming,
    received: u64,
    recording: Recording,
}

/// The next piece of a body.
pub(super) enum Piece {
    Data(Bytes),
    End,
    Cut,
}

impl Call<'_> {
    /// The text of a header, if it is there once or more and is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The length of the body, if the client said so.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Whether the request says where its body ends.
    pub(super) fn is_delimited(&self) -> bool {
        self.length().is_some() || self.head.headers.contains_key(header::TRANSFER_ENCODING)
    }

    pub(super) async fn next(&mut self) -> Piece {
        loop {
            return match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(None) => Piece::End,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.received += data.len() as u64;
                        let received = self.received;
                        self.note(|entry| entry.received = received);
                        if self.is_far {
                            self.travel(data.len() as u64).await;
                        }
                        Piece::Data(data)
                    }
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
                Ok(Some(Err(_))) | Err(_) => Piece::Cut,
            };
        }
    }

    /// Waits until so many bytes of a client's body are here.
    async fn travel(&self, bytes: u64) {
        let conditions = self.world.network.conditions();
        if let Some(at) = self.wire.pass(&conditions, bytes, Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
    }

    /// Reads a resource in JSON; an empty body is an empty resource.
    pub(super) async fn resource(&mut self) -> Result<Map<String, Value>, Failure> {
        let text = self.text().await?;
        if text.is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&text).map_err(|_| Problem::bad_json().into())
    }

    /// Reads a body that is no object's content.
    pub(super) async fn text(&mut self) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        loop {
            match self.next().await {
                Piece::Data(data) if text.len() + data.len() > RESOURCE_BYTES => {
                    return Err(Problem::too_large("The body is too large.").into());
                }
                Piece::Data(data) => text.extend_from_slice(&data),
                Piece::End => return Ok(text),
                Piece::Cut => return Err(Failure::Cut),
            }
        }
    }

    /// Refuses whoever bears no token. Any token will do.
    pub(super) fn authorize(&self) -> Result<(), Problem> {
        let bears = |value: &str| {
            value
                .split_once(' ')
                .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty())
        };
        match self.world.authorization {
            Authorization::Ignored => Ok(()),
            Authorization::Required if self.header("authorization").is_some_and(bears) => Ok(()),
            Authorization::Required => Err(Problem::unauthenticated()),
        }
    }

    /// Refuses callers who have not got the permission in the bucket. One that is not there refuses nobody: it is missed.
    pub(super) fn permit(&self, bucket: &str, permission: &str) -> Result<(), Problem> {
        let granted = self.world.objects.bucket(bucket).is_none_or(|bucket| bucket.grants(permission));
        if granted { Ok(()) } else { Err(Problem::forbidden(permission)) }
    }

    /// How the client calls this server: what links begin with.
    pub(super) fn base(&self) -> String {
        let host = self.header("host").filter(|host| host.parse::<Authority>().is_ok());
        host.map_or_else(|| self.world.url(), |host| format!("http://{host}"))
    }

    /// Writes into the journal's entry.
    pub(super) fn note(&mut self, write: impl FnOnce(&mut journal::Entry)) {
        self.recording.note(write);
    }

    /// Reads on for a while, so that the client sees the answer and not a reset. Whoever expects `100 Continue` has
    /// not sent anything yet.
    async fn drain(&mut self) {
        if self.head.headers.contains_key(header::EXPECT) {
            return;
        }
        let stop = self.received + DRAINED_BYTES;
        let read = async {
            while self.received < stop {
                let Piece::Data(_) = self.next().await else { break };
            }
        };
        let _ = tokio::time::timeout(DRAINED_FOR, read).await;
    }
}

/// Answers a request, or cuts its connection.
pub(super) async fn serve(world: Arc<World>, wire: Arc<Wire>, request: Request<Incoming>) -> Result<Answer, Cut> {
    let (head, body) = request.into_parts();
    if let Some(place) = head.uri.path().strip_prefix("/_emulator/") {
        let place = place.to_owned();
        return Ok(control::serve(&world, &place, &head, body).await);
    }
    tokio::select! {
        biased;
        () = world.network.down() => Err(Cut),
        answer = exchange(&world, &wire, head, body) => answer,
    }
}

async fn exchange(world: &World, wire: &Wire, head: Parts, body: Incoming) -> Result<Answer, Cut> {
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
    let entry = journal::Entry {
        sequence: 0,
        at: world.now(),
        elapsed_ms: 0,
        operation: Operation::Other,
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: String::new(),
        bucket: None,
        object: None,
        session: None,
        status: None,
        content_range: text(header::CONTENT_RANGE),
        origin: text(header::ORIGIN),
        received: 0,
        persisted: None,
        faulty: false,
    };
    let recording = Recording::new(world.journal.clone(), entry);
    let query = Query::of(head.uri.query().unwrap_or_default());
    let is_readable = query.is_some();
    let is_addressed = is_addressed(&head);
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let route = Route::of(host, head.uri.path()).filter(|_| is_readable);
    let query = query.unwrap_or_default();
    let mut call =
        Call { world, head, query, action: None, last: None, wire, is_far: false, body, received: 0, recording };
    let answer = match route {
        _ if !is_addressed => Ok(Problem::invalid("The request does not name one host.").answer()),
        Some(route) => answer(&mut call, &route).await,
        None => Ok(Problem::invalid("The request target is not percent-encoded UTF-8.").answer()),
    };
    if answer.is_ok() {
        call.drain().await;
    }
    let at = world.now();
    let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
    call.note(|entry| {
        entry.at = at;
        entry.status = status;
    });
    if let Some(pause) = call.last.take() {
        call.recording.finish();
        pause.wait().await;
    }
    answer
}

/// Whether a request says once, and in one way, which host it is for (RFC 9112, sections 3.2 and 3.2.2): signatures
/// cover it. HTTP/1.0 need not say it.
fn is_addressed(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => head.version < Version::HTTP_11,
        (Some(host), None) => {
            let authority = head.uri.authority().map(Authority::as_str);
            authority.is_none_or(|authority| authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
        }
        (Some(_), Some(_)) => false,
    }
}

async fn answer(call: &mut Call<'_>, route: &Route) -> Result<Answer, Cut> {
    let operation = operation(call, route);
    let is_upload = matches!(route, Route::Upload { .. } | Route::XmlObject { .. });
    let upload_id = call.query.get("upload_id").filter(|_| is_upload).map(str::to_owned);
    let is_session_call = upload_id.is_some();
    let session = upload_id.as_deref().and_then(|id| call.world.sessions.find(id, call.world.now()));

    let query = call.query.without_secret().to_owned();
    call.note(|entry| {
        entry.operation = operation;
        entry.query = query;
    });
    // The name of the object may stand in the body, and faults ask for it.
    let resource = match operation {
        Operation::Initiate if call.length().is_some() && !route.is_xml() => match call.resource().await {
            Err(Failure::Cut) => return Err(Cut),
            other => Some(other),
        },
        _ => None,
    };
    let (bucket, object) = if let Some(entry) = &session {
        let session = entry.lock();
        (Some(session.bucket.to_string()), Some(session.insertion.name.to_string()))
    } else {
        let (bucket, object) = route.names();
        let in_body = resource.as_ref().and_then(|resource| resource.as_ref().ok()?.get("name")?.as_str());
        let named = object.or(call.query.get("name").filter(|_| is_upload)).or(in_body);
        (bucket.map(str::to_owned), named.map(str::to_owned))
    };
    let mut plan = call.world.faults.plan(operation, object.as_deref());
    if plan.action.is_none() {
        plan.action = call.world.network.plan(operation, session.as_deref(), call.length());
    }
    let number = session.as_ref().map(|entry| entry.lock().number);
    call.note(|entry| {
        entry.bucket = bucket;
        entry.object = object;
        entry.session = number;
        entry.faulty = !plan.is_empty();
    });
    for pause in plan.pauses {
        pause.wait().await;
    }
    approach(call, operation, is_upload).await;
    call.action = plan.action;
    call.last = plan.last;

    let acted = match &call.action {
        Some(Action::Respond(reply)) => Ok(reply.answer()),
        Some(Action::Reset) => Err(Failure::Cut),
        _ => {
            if let Some(entry) = &session {
                match call.action {
                    Some(Action::ForgetSession) => entry.lock().state = State::Forgotten,
                    Some(Action::KillSession) => entry.lock().state = State::Dead,
                    _ => {}
                }
            }
            match act(call, route, operation, session.as_ref(), resource).await {
                Err(Failure::Problem(problem)) if route.is_xml() => Err(Failure::Problem(problem.into_xml())),
                acted => acted,
            }
        }
    };
    if let Some(entry) = &session {
        let persisted = entry.lock().persisted();
        call.note(|entry| entry.persisted = persisted);
    }
    let mut answer = spoil(call.action.as_ref(), acted)?;

    if is_upload {
        let id = upload_id.unwrap_or_else(|| call.world.sessions.stray_id());
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().entry(upload::UPLOAD_ID).or_insert(id);
        }
    }
    if route.is_xml() {
        allow_by_bucket(call, route, session.as_deref(), &mut answer);
        return Ok(answer);
    }
    let origin = match &session {
        Some(entry) => {
            let bound = entry.lock().origin.clone();
            // A session that was initiated with `*` loses its header at the very last answer.
            let is_last = answer.status().is_success() && !answer.headers().contains_key(upload::OVERRIDE);
            bound.filter(|origin| !(is_last && operation != Operation::Preflight && origin == "*"))
        }
        None if is_session_call => None,
        None => call.head.headers.get(header::ORIGIN).cloned(),
    };
    cors::allow(&mut answer, origin.as_ref());
    Ok(answer)
}

/// Waits for as long as the network takes for the head of a request and its answer.
async fn approach(call: &mut Call<'_>, operation: Operation, is_upload: bool) {
    let conditions = call.world.network.conditions();
    let is_clients =
        matches!(operation, Operation::Chunk | Operation::Simple | Operation::Initiate | Operation::Preflight)
            && !call.head.headers.contains_key(header::AUTHORIZATION);
    call.is_far = is_upload && is_clients;
    let distance = if call.is_far { call.wire.distance(&conditions) } else { Duration::ZERO };
    let wait = distance.saturating_add(conditions.latency.0);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// Lets a browser read an answer of the XML API, if the bucket says so.
fn allow_by_bucket(call: &Call<'_>, route: &Route, session: Option<&Entry>, answer: &mut Answer) {
    let own = call.head.headers.get(header::ORIGIN);
    let bound = session.and_then(|entry| entry.lock().origin.clone());
    let asker = match (call.query.get("upload_id"), bound, own) {
        (_, Some(bound), _) => Asker::Session(Some(bound)),
        (_, None, None) => return,
        (Some(_), None, Some(_)) => Asker::Session(None),
        (None, None, Some(own)) => Asker::Request(own.clone()),
    };
    let bucket = route.names().0.and_then(|bucket| call.world.objects.bucket(bucket));
    let rules = bucket.map(|bucket| bucket.cors).unwrap_or_default();
    bucket_cors::allow(answer, &rules, &asker, &call.head.method, &call.head.headers);
}

async fn act(
    call: &mut Call<'_>,
    route: &Route,
    operation: Operation,
    session: Option<&Arc<Entry>>,
    resource: Option<Result<Map<String, Value>, Failure>>,
) -> Result<Answer, Failure> {
    match (operation, route) {
        (Operation::Preflight, _) if route.is_xml() => Ok(problem::empty(StatusCode::OK)),
        (Operation::Preflight, _) => Ok(cors::preflight(&call.head.headers)),
        (Operation::Initiate, Route::Upload { bucket }) => {
            let resource = resource.ok_or_else(Problem::length_required)?;
            call.authorize()?;
            call.permit(bucket, "storage.objects.create")?;
            upload::initiate(call, bucket, &resource?).map_err(Failure::from)
        }
        (Operation::Simple, Route::Upload { bucket }) => simple::upload(call, bucket).await,
        (Operation::Cancel, Route::Upload { bucket } | Route::XmlObject { bucket, .. }) => {
            upload::cancel(call, upload::session_of(call, route, bucket, session)?)
        }
        (Operation::Chunk | Operation::Status, Route::Upload { bucket } | Route::XmlObject { bucket, .. }) => {
            let entry = upload::session_of(call, route, bucket, session)?;
            if !call.is_delimited() {
                return Err(Problem::length_required().into());
            }
            let range = match call.head.headers.get(header::CONTENT_RANGE).map(HeaderValue::to_str) {
                Some(Err(_)) => None,
                Some(Ok(text)) => ContentRange::parse(Some(text)),
                None => ContentRange::parse(None),
            };
            match range {
                Some(ContentRange::Status { total }) => upload::status(call, entry, total).await,
                Some(ContentRange::Data(extent)) => upload::receive(call, entry, extent).await,
                None => Err(Problem::text(StatusCode::BAD_REQUEST, "Failed to parse Content-Range header.").into()),
            }
        }
        (_, Route::XmlBucket { .. } | Route::XmlObject { .. }) => xml::serve(call, operation, route).await,
        (_, Route::Token | Route::Account { .. }) => oauth::serve(call, route).await,
        (_, Route::NotificationConfigs { .. } | Route::NotificationConfig { .. }) => {
            notifications::serve(call, operation, route).await
        }
        (_, Route::SigningKeys | Route::Discovery) => notifications::tell(call, route),
        _ => resources::serve(call, operation, route).await,
    }
}

/// What a fault makes of the answer.
fn spoil(action: Option<&Action>, acted: Result<Answer, Failure>) -> Result<Answer, Cut> {
    let mut answer = match (acted, action) {
        (Err(Failure::Allowance), Some(Action::PersistThenRespond { reply, .. })) => reply.answer(),
        (Err(Failure::Allowance | Failure::Cut), _) => return Err(Cut),
        (Err(Failure::Problem(problem)), _) => problem.answer(),
        (Ok(answer), _) => answer,
    };
    match action {
        Some(Action::ActThenReset) => return Err(Cut),
        Some(Action::ActThenRespond(reply)) => answer = reply.answer(),
        Some(Action::OmitRange) => drop(answer.headers_mut().remove(header::RANGE)),
        Some(Action::OmitLocation) => drop(answer.headers_mut().remove(header::LOCATION)),
        Some(Action::WrongLocation { host }) => {
            let wrong = answer.headers().get(header::LOCATION).and_then(|location| {
                let (scheme, rest) = location.to_str().ok()?.split_once("://")?;
                let (_, path) = rest.split_once('/')?;
                HeaderValue::try_from(format!("{scheme}://{host}/{path}")).ok()
            });
            if let Some(wrong) = wrong {
                answer.headers_mut().insert(header::LOCATION, wrong);
            }
        }
        _ => {}
    }
    Ok(answer)
}

/// Reads a body that must be empty, as that of a status query.
pub(super) async fn expect_empty(call: &mut Call<'_>) -> Result<(), Failure> {
    loop {
        match call.next().await {
            Piece::Data(data) if data.is_empty() => {}
            Piece::Data(_) => {
                let message = "Client sent query request with a non-empty body.";
                return Err(Problem::text(StatusCode::BAD_REQUEST, message).into());
            }
            Piece::End => return Ok(()),
            Piece::Cut => return Err(Failure::Cut),
        }
    }
}

/// The answer with an object or bucket resource, as `fields` wants it.
pub(super) fn selected(call: &Call<'_>, resource: Value) -> Result<Answer, Problem> {
    let selected = super::fields::select(resource, call.query.get("fields"));
    let value = selected.ok_or_else(|| Problem::invalid("Invalid field selection."))?;
    Ok(problem::json(StatusCode::OK, &value))
}
