//! A broker and a storage in one small server: what a client can see of both, with faults on demand.
//!
//! It talks hyper directly, because a handler that fails closes the connection without an answer; and it compares every
//! byte that it receives with the file that the test uploads.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// Chunks are multiples of this here, so that small files have many.
pub(crate) const MULTIPLE: u64 = 256;

/// What goes wrong with one request that carries bytes or asks for the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Answers so before anything is persisted.
    StatusBefore(u16),
    /// Answers 400 and that word before anything is persisted.
    BadDigest,
    /// Persists all, then answers so.
    StatusAfter(u16),
    /// Persists about so many bytes, then cuts the connection in the middle of the body.
    Cut(u64),
    /// Persists all, and closes without an answer.
    LostAnswer,
    /// Persists about so many bytes, and says so with 308.
    Short(u64),
    /// Persists all, and answers 308 without `Range`.
    NoRange,
    /// Forgets all but about so many bytes of what it had, so that the chunk leaves a gap.
    Forget(u64),
    /// Loses the session.
    Gone(u16),
    /// Reads nothing and answers nothing, until the client gives up.
    Silence,
    /// Answers 308 with a `Range` that cannot be.
    Garbled,
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
struct Cut;

#[derive(Default)]
pub(crate) struct World {
    /// What the client uploads, and every byte must be compared with.
    pub(crate) expected: Vec<u8>,
    /// For requests on sessions, in order; [`Fault::None`] when they run out.
    pub(crate) faults: VecDeque<Fault>,
    /// For requests to the broker: by operation, answers to give instead of acting.
    pub(crate) refusals: BTreeMap<&'static str, VecDeque<(u16, Value)>>,
    /// What happens just before [`Fault::BadDigest`] is answered.
    pub(crate) before_refusal: Option<Box<dyn FnOnce() + Send>>,
    /// Loses the answer to so many creates, after acting.
    pub(crate) lost_creates: u32,
    /// Every request: `create`, `find`, `ask`, `send 0-255`, `close`, `put`, `open`…
    pub(crate) journal: Vec<String>,
    /// What a client did that it never may.
    pub(crate) offences: Vec<String>,
    pub(crate) uploads: Vec<Upload>,
    /// How much the broker advises to send at once.
    pub(crate) chunk: u64,
    /// Whether `renew` exists.
    pub(crate) renews: bool,
    /// The checksum of the result is not the object's.
    pub(crate) lies: bool,
    /// The one token that is accepted.
    pub(crate) token: String,
    /// The number of the latest session or signed URL.
    latest: u32,
}

pub(crate) struct Upload {
    pub(crate) key: String,
    pub(crate) body: Value,
    pub(crate) state: &'static str,
    /// The present session, by its number.
    pub(crate) session: u32,
    /// The present signed URL, by its number.
    pub(crate) url: u32,
    pub(crate) gone: Option<u16>,
    pub(crate) stored: Vec<u8>,
    pub(crate) finished: bool,
}

/// Part of every session URI: it must show up nowhere else.
pub(crate) const SECRET: &str = "s3cret-capability";

#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
}

impl StandIn {
    pub(crate) async fn start(expected: &[u8]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = World {
            expected: expected.to_vec(),
            token: "token-1".into(),
            chunk: 3 * MULTIPLE,
            renews: true,
            ..World::default()
        };
        let this = Self { address, world: Arc::new(Mutex::new(world)) };
        let server = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let service = service_fn(move |request| server.clone().serve(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        this
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.world().faults.extend(faults);
    }

    pub(crate) fn refuse(&self, operation: &'static str, status: u16, problem: Value) {
        self.world().refusals.entry(operation).or_default().push_back((status, problem));
    }

    /// What was asked so far.
    pub(crate) fn journal(&self) -> Vec<String> {
        self.world().journal.clone()
    }

    async fn serve(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["v1", "uploads", ..] => self.broker(request, &parts[2..]).await,
            ["session"] => self.session(request).await,
            ["object"] => self.signed(request).await,
            _ => Ok(answer(404, &Value::Null)),
        }
    }

    async fn broker(&self, request: Request<Incoming>, rest: &[&str]) -> Result<Response<Full<Bytes>>, Cut> {
        let operation = match (request.method(), rest) {
            (&Method::POST, []) => "create",
            (&Method::GET, [_]) => "find",
            (&Method::POST, [_, "complete"]) => "complete",
            (&Method::POST, [_, "renew"]) => "renew",
            (&Method::DELETE, [_]) => "cancel",
            _ => return Ok(answer(404, &json!({"code": "not-found"}))),
        };
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (authorization, key) = (header("authorization"), header("idempotency-key"));
        let body = request.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
        let mut world = self.world();
        world.journal.push(operation.into());
        if authorization.as_deref() != Some(&format!("Bearer {}", world.token)) {
            return Ok(answer(401, &json!({"code": "unauthenticated"})));
        }
        if let Some((status, problem)) = world.refusals.get_mut(operation).and_then(VecDeque::pop_front) {
            return Ok(answer(status, &problem));
        }
        if operation == "create" {
            let key = key.expect("the client always sends a key");
            let body: Value = serde_json::from_slice(&body).unwrap();
            let known = world.uploads.iter().position(|upload| upload.key == key);
            if known.is_some_and(|known| world.uploads[known].body != body) {
                return Ok(answer(422, &json!({"code": "idempotency-mismatch"})));
            }
            let index = known.unwrap_or_else(|| {
                world.latest += 1;
                let (session, url) = (world.latest, world.latest);
                let (stored, gone, finished) = (Vec::new(), None, false);
                world.uploads.push(Upload { key, body, state: "pending", session, url, gone, stored, finished });
                world.uploads.len() - 1
            });
            if world.lost_creates > 0 {
                world.lost_creates -= 1;
                return Err(Cut);
            }
            return Ok(answer(201, &self.show(&world, index)));
        }
        let Some(index) = (0..world.uploads.len()).find(|index| id(*index) == rest[0]) else {
            return Ok(answer(404, &json!({"code": "not-found"})));
        };
        let renews = world.renews;
        let upload = &mut world.uploads[index];
        match operation {
            "complete" if upload.finished && upload.state != "cancelled" => upload.state = "completed",
            "complete" if upload.state == "cancelled" => return Ok(answer(409, &json!({"code": "invalid-state"}))),
            "complete" if upload.gone.is_some() => return Ok(answer(409, &json!({"code": "session-lost"}))),
            "complete" => return Ok(answer(409, &json!({"code": "not-complete"}))),
            "cancel" if upload.state != "completed" => upload.state = "cancelled",
            "renew" if !renews => return Ok(answer(405, &json!({"code": "method-not-allowed"}))),
            "renew" => {
                (upload.gone, upload.finished) = (None, false);
                upload.stored.clear();
                world.latest += 1;
                (world.uploads[index].session, world.uploads[index].url) = (world.latest, world.latest);
            }
            _ => {}
        }
        Ok(answer(200, &self.show(&world, index)))
    }

    fn show(&self, world: &World, index: usize) -> Value {
        let Upload { body, state, session, url, stored, .. } = &world.uploads[index];
        let mut shown = json!({
            "id": id(index), "state": state, "policy": "videos", "region": "here", "bucket": "media-eu",
            "object": format!("videos/{}", id(index)), "received_bytes": stored.len(), "novelty": {"unknown": true},
        });
        if *state == "completed" {
            let checksum = crc32c::crc32c(stored) ^ u32::from(world.lies);
            let checksum = crate::model::digest::Crc32c(checksum).to_string();
            shown["result"] = json!({"generation": "1", "size_bytes": stored.len(), "crc32c": checksum});
        } else if *state != "cancelled" {
            let kind = body["transfer_kind"].as_str().unwrap_or("resumable");
            let mut transfer = json!({"kind": kind, "headers": signed_headers(body)});
            if kind == "resumable" {
                transfer["headers"] = json!({"content-type": body["content_type"]});
                transfer["uri"] = json!(format!("http://{}/session?upload_id={SECRET}-{session}", self.address));
            } else {
                transfer["uri"] = json!(format!("http://{}/object?X-Goog-Signature={SECRET}-{url}", self.address));
            }
            if kind != "simple" {
                (transfer["chunk_multiple_bytes"], transfer["chunk_bytes"]) = (json!(MULTIPLE), json!(world.chunk));
            }
            shown["transfer"] = transfer;
        }
        shown
    }

    /// What a signed URL does: `PUT` makes the object, unless it exists; `POST` opens a session.
    async fn signed(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let puts = request.method() == Method::PUT;
        let number = number_of(&request);
        let (fault, index) = {
            let mut world = self.world();
            world.journal.push(if puts { "put" } else { "open" }.into());
            let index = world.uploads.iter().position(|upload| upload.url == number).expect("nobody guesses a URL");
            for (name, value) in signed_headers(&world.uploads[index].body) {
                if request.headers().get(&name).is_none_or(|given| given.to_str().unwrap() != value) {
                    world.offences.push(format!("{name} is signed, and was not sent"));
                }
            }
            if request.headers().contains_key("authorization") || request.headers().contains_key(CONTENT_RANGE) {
                world.offences.push("a header that has no business here".into());
            }
            (world.faults.pop_front().unwrap_or(Fault::None), index)
        };
        match fault {
            Fault::Silence => tokio::time::sleep(Duration::from_secs(60)).await,
            Fault::Gone(status) => self.world().uploads[index].gone = Some(status),
            _ => {}
        }
        if let Some(status) = self.world().uploads[index].gone {
            return Ok(answer(status, &Value::Null));
        }
        if let Fault::StatusBefore(status) = fault {
            return Ok(answer(status, &Value::Null));
        }
        if fault == Fault::BadDigest {
            return Ok(self.refuse_digest(request).await);
        }
        let received = read(request.into_body(), if let Fault::Cut(keep) = fault { keep } else { u64::MAX }).await;
        if let Fault::Cut(_) = fault {
            return Err(Cut);
        }
        let mut world = self.world();
        let response = if world.uploads[index].finished {
            answer(412, &Value::Null)
        } else if puts {
            if received != world.expected {
                world.offences.push("a put of other bytes".into());
            }
            let upload = &mut world.uploads[index];
            (upload.stored, upload.finished) = (received, true);
            answer(200, &Value::Null)
        } else {
            if !received.is_empty() {
                world.offences.push("a session is opened without a body".into());
            }
            world.latest += 1;
            let session = world.latest;
            world.uploads[index].session = session;
            world.uploads[index].stored.clear();
            let location = format!("http://{}/session?upload_id={SECRET}-{session}", self.address);
            let mut response = answer(201, &Value::Null);
            if fault != Fault::Garbled {
                response.headers_mut().insert("location", location.parse().unwrap());
            }
            response
        };
        match fault {
            Fault::LostAnswer => Err(Cut),
            Fault::StatusAfter(status) => Ok(answer(status, &Value::Null)),
            _ => Ok(response),
        }
    }

    /// The rules of a session: storage documentation, "Resumable uploads" and "Perform resumable uploads".
    async fn session(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let text = |value: Option<&HeaderValue>| value.map(|value| value.to_str().unwrap().to_owned());
        let range = text(request.headers().get(CONTENT_RANGE));
        let length: Option<u64> = text(request.headers().get(CONTENT_LENGTH)).map(|length| length.parse().unwrap());
        let hash = text(request.headers().get("x-goog-hash"));
        let number = number_of(&request);
        let authorized = request.headers().contains_key("authorization");
        let (fault, index) = {
            let mut world = self.world();
            let index = world.uploads.iter().position(|upload| upload.session == number);
            let is_sized = index.is_some_and(|index| world.uploads[index].is_sized());
            let name = match range.as_deref().map(|range| range.trim_start_matches("bytes ")) {
                Some("*/*") => "ask".to_owned(),
                Some(range) if range.starts_with("*/") => if is_sized { "ask" } else { "close" }.to_owned(),
                Some(range) => format!("send {}", range.split('/').next().unwrap()),
                None => "send".to_owned(),
            };
            world.journal.push(name);
            if authorized || length.is_none() {
                world.offences.push("a token, or no length, on a session".into());
            }
            (world.faults.pop_front().unwrap_or(Fault::None), index)
        };
        let Some(index) = index else { return Ok(answer(404, &Value::Null)) };
        if fault == Fault::Silence {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        if let Fault::Gone(status) = fault {
            self.world().uploads[index].gone = Some(status);
        }
        if let Fault::Forget(keep) = fault {
            let upload = &mut self.world().uploads[index];
            if !upload.finished {
                upload.stored.truncate(usize::try_from(keep - keep % MULTIPLE).unwrap());
            }
        }
        if let Some(status) = self.world().uploads[index].gone {
            return Ok(answer(status, &Value::Null));
        }
        if let Fault::StatusBefore(status) = fault {
            return Ok(answer(status, &Value::Null));
        }
        if fault == Fault::BadDigest {
            return Ok(self.refuse_digest(request).await);
        }
        // A cut leaves the rest unread; a short answer comes after all was read, or closing could overtake it.
        let mut received = read(request.into_body(), if let Fault::Cut(keep) = fault { keep } else { u64::MAX }).await;
        if let Fault::Short(keep) = fault {
            received.truncate(usize::try_from(keep).unwrap());
        }
        let kept = self.world().persist(index, range.as_deref(), length, hash.as_deref(), &received);
        if let Err(status) = kept {
            return Ok(answer(status, &Value::Null));
        }
        match fault {
            Fault::Cut(_) | Fault::LostAnswer => Err(Cut),
            Fault::StatusAfter(status) => Ok(answer(status, &Value::Null)),
            Fault::NoRange => Ok(answer(308, &Value::Null)),
            Fault::Garbled => Ok(with_range(answer(308, &Value::Null), "bytes=9-1")),
            _ => Ok(self.persisted(index)),
        }
    }

    /// Reads everything first, so that the client is surely done with sending.
    async fn refuse_digest(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        read(request.into_body(), u64::MAX).await;
        if let Some(act) = self.world().before_refusal.take() {
            act();
        }
        let body = Bytes::from_static(b"<Error><Code>BadDigest</Code></Error>");
        Response::builder().status(400).body(Full::new(body)).unwrap()
    }

    fn persisted(&self, index: usize) -> Response<Full<Bytes>> {
        let world = self.world();
        let upload = &world.uploads[index];
        match upload.stored.len() {
            _ if upload.finished => answer(200, &json!({"kind": "storage#object"})),
            0 => answer(308, &Value::Null),
            stored => with_range(answer(308, &Value::Null), &format!("bytes=0-{}", stored - 1)),
        }
    }
}

impl Upload {
    /// Whether storage was told the size when the session was opened.
    fn is_sized(&self) -> bool {
        !self.body["size_bytes"].is_null()
    }
}

impl World {
    /// Takes what was received, as far as the rules let it; else the status that says so.
    fn persist(
        &mut self,
        index: usize,
        range: Option<&str>,
        length: Option<u64>,
        hash: Option<&str>,
        received: &[u8],
    ) -> Result<(), u16> {
        let offend = |offences: &mut Vec<String>, what: String| {
            offences.push(what);
            Err(400)
        };
        let size = self.expected.len();
        let is_sized = self.uploads[index].is_sized();
        let digests = format!("crc32c={},md5={}", checksum_of(&self.expected), md5_of(&self.expected));
        let upload = &mut self.uploads[index];
        if upload.finished {
            return Ok(());
        }
        // The bytes that are sent, if any, and the size of the whole, if that is said.
        let (sent, total) = match range.map(|range| range.trim_start_matches("bytes ").split_once('/').unwrap()) {
            None => (None, Some("0")),
            Some((positions, total)) => (positions.split_once('-'), Some(total).filter(|total| *total != "*")),
        };
        let mut is_last = false;
        if let Some((first, last)) = sent {
            let [first, last] = [first, last].map(|number| number.parse::<usize>().unwrap());
            let whole = last + 1 - first;
            is_last = last + 1 == size && total.is_some();
            let total_fits = total.map_or(!is_sized, |total| total == size.to_string() && (is_sized || is_last));
            if !total_fits || length != Some(whole as u64) || (!is_last && !whole.is_multiple_of(256)) {
                return offend(&mut self.offences, format!("{range:?} with {length:?} bytes"));
            }
            if *received != self.expected[first..first + received.len()] {
                self.offences.push(format!("bytes that are not the file's at {first}"));
            }
            if first > upload.stored.len() {
                return Err(503);
            }
            let fresh = received.get(upload.stored.len() - first..).unwrap_or_default();
            upload.stored.extend_from_slice(fresh);
            // What was cut off is kept down to a multiple.
            if received.len() < whole {
                let stored = upload.stored.len();
                upload.stored.truncate(stored - stored % 256);
            }
        } else if length != Some(0) || total.is_some_and(|total| total != size.to_string()) {
            return offend(&mut self.offences, format!("{range:?} with {length:?} bytes"));
        }
        // What only asks with a declared size may end an upload as well, but is no request for it.
        let ends = is_last || range.is_none() || (sent.is_none() && total.is_some() && !is_sized);
        if hash != ends.then_some(&*digests) {
            return offend(&mut self.offences, format!("{range:?} with the digests {hash:?}"));
        }
        upload.finished = (ends || (is_sized && sent.is_none())) && upload.stored.len() == size;
        upload.state = "uploading";
        Ok(())
    }
}

/// What a signed URL of this request has signed.
fn signed_headers(body: &Value) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::from([
        ("content-type".to_owned(), body["content_type"].as_str().unwrap().to_owned()),
        ("x-goog-if-generation-match".to_owned(), "0".to_owned()),
    ]);
    match body["transfer_kind"].as_str() {
        Some("simple") => drop(headers.insert("content-md5".to_owned(), body["md5"].as_str().unwrap_or("").to_owned())),
        _ => drop(headers.insert("x-goog-resumable".to_owned(), "start".to_owned())),
    }
    headers
}

/// The number at the end of a secret.
fn number_of(request: &Request<Incoming>) -> u32 {
    request.uri().query().and_then(|query| query.rsplit_once('-')).unwrap().1.parse().unwrap()
}

fn checksum_of(bytes: &[u8]) -> crate::model::digest::Crc32c {
    crate::model::digest::Crc32c(crc32c::crc32c(bytes))
}

fn md5_of(bytes: &[u8]) -> crate::model::digest::Md5 {
    use md5::Digest as _;
    crate::model::digest::Md5(md5::Md5::digest(bytes).into())
}

/// The body, or its beginning if only that is wanted.
async fn read(mut body: Incoming, keep: u64) -> Vec<u8> {
    let mut received = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        received.extend_from_slice(&frame.into_data().unwrap_or_default());
        if received.len() as u64 >= keep {
            received.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            break;
        }
    }
    received
}

fn id(index: usize) -> String {
    format!("3f{index:032x}")
}

fn answer(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    Response::builder().status(status).body(Full::new(Bytes::from(text))).unwrap()
}

fn with_range(mut response: Response<Full<Bytes>>, range: &str) -> Response<Full<Bytes>> {
    response.headers_mut().insert("range", range.parse().unwrap());
    response
}
