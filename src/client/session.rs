//! One storage session: from any point to the last byte, believing only what storage says it has.
//!
//! The machine has two moves, to *ask* how much is persisted and to *send* from there, and one rule between them:
//! whatever went wrong with a chunk, the next move is to ask. Storage answers a chunk that would leave a gap with 503, so
//! who repeats the same chunk after a 5xx may never end; who asks first cannot make a gap.

use std::collections::BTreeMap;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response};
use tokio_util::io::ReaderStream;
use url::Url;

use crate::model::Invalid;
use crate::model::address::is_loopback;
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;

use super::error::{Error, Operation, Trouble};
use super::http::{Http, is_transient, read_body, retry_after};
use super::pace::Pace;
use super::progress::Event;
use super::source::{Source, Streaming};
use super::wire::Transfer;

/// Storage takes all chunks but the last in multiples of this (storage documentation, "Resumable uploads").
const CHUNK_MULTIPLE: u64 = 256 << 10;

/// What is sent at once where nobody says otherwise; the documentation recommends at least this much.
const CHUNK_DEFAULT: u64 = 8 << 20;

/// The pieces that a chunk is read and sent in: all of it that is in memory at once.
const PIECE: usize = 128 << 10;

/// Answers are read to their end, so that the connection can be used again, but not beyond this.
const MAX_ANSWER: usize = 64 << 10;

/// How many bytes are sent in one request: a multiple of 256 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize(u64);

impl ChunkSize {
    /// Takes a positive multiple of 256 KiB.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(size: ByteCount) -> Result<Self, Invalid> {
        if size.0 > 0 && size.0.is_multiple_of(CHUNK_MULTIPLE) {
            Ok(Self(size.0))
        } else {
            Err(Invalid(format!(
                "a chunk must be a multiple of 256KiB, such as 8MiB: storage takes no other; {size} is none"
            )))
        }
    }
}

impl std::str::FromStr for ChunkSize {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.parse().and_then(Self::new)
    }
}

/// A session as the broker handed it out.
pub(super) struct Session {
    url: Url,
    headers: HeaderMap,
    chunk: u64,
    /// The most that storage ever said it has: more is progress, and renews patience.
    reached: Option<u64>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The session is new: storage has nothing.
    AtZero,
    /// Storage may have anything, from nothing to the whole object.
    WhereItStopped,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Storage says that it has everything.
    Stored,
    /// Storage says that the object is there already, or was changed: 412. It may be ours, from an earlier session.
    Exists,
    /// The session is gone: a week old, cancelled, or lost.
    Lost,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Requests that carried bytes, repeats included.
    pub(super) chunks: u64,
    /// Times that storage was asked where to go on, and said it.
    pub(super) resumes: u64,
}

#[derive(Clone, Copy)]
enum Move {
    Ask,
    Send(u64),
}

/// What an answer of storage means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Stored,
    /// So many bytes, from the first on. No `Range` means none, not even byte 0.
    Persisted(u64),
    Exists,
    Lost,
    Transient,
    /// A `Range` that does not begin at 0, or ends beyond the file.
    Garbled,
    Refused,
}

/// Reads an answer by its status and `Range` alone: bodies are text, HTML, JSON or nothing, as the mood takes storage
/// (storage documentation, "HTTP status and error codes"; RFC 9110 knows no 308 of this meaning).
fn read_answer(status: u16, range: Option<&[u8]>, size: u64) -> Answer {
    match status {
        200 | 201 => Answer::Stored,
        308 => match range {
            None => Answer::Persisted(0),
            Some(range) => match read_range(range) {
                Some(persisted) if persisted <= size => Answer::Persisted(persisted),
                Some(_) | None => Answer::Garbled,
            },
        },
        404 | 410 | 499 => Answer::Lost,
        412 => Answer::Exists,
        status if is_transient(status) => Answer::Transient,
        _ => Answer::Refused,
    }
}

/// The number of bytes that `bytes=0-K` stands for: K is the last byte's position, so K + 1.
fn read_range(range: &[u8]) -> Option<u64> {
    let last = std::str::from_utf8(range).ok()?.trim().strip_prefix("bytes=0-")?;
    if last.is_empty() || !last.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    last.parse::<u64>().ok()?.checked_add(1)
}

/// `Content-Range` for the bytes from `offset` on; an empty object is sent without.
fn content_range(offset: u64, length: u64, size: u64) -> Option<String> {
    let last = (offset + length).checked_sub(1).filter(|_| length > 0)?;
    Some(format!("bytes {offset}-{last}/{size}"))
}

impl Session {
    /// The session of `transfer`, to be sent in chunks of `wanted`, or of what the broker advises.
    ///
    /// # Errors
    /// When this client cannot use such a transfer.
    pub(super) fn open(transfer: &Transfer, wanted: Option<ChunkSize>, operation: Operation) -> Result<Self, Error> {
        let nonsense = |what| Error::Nonsense { operation, what };
        if transfer.kind != "resumable" {
            return Err(nonsense("it asks for a kind of transfer that this client does not know"));
        }
        let uri = transfer.uri.as_deref().and_then(|uri| SessionUri::parse(uri).ok());
        let url = uri.and_then(|uri| Url::parse(uri.expose()).ok());
        let url = url.ok_or_else(|| nonsense("it has no usable session URI"))?;
        if url.scheme() != "https" && !is_loopback(&url) {
            return Err(nonsense("its session URI is not https"));
        }
        let multiple = transfer.chunk_multiple_bytes.unwrap_or(CHUNK_MULTIPLE).max(1);
        let chunk = wanted.map(|size| size.0).or(transfer.chunk_bytes).unwrap_or(CHUNK_DEFAULT);
        Ok(Self {
            url,
            headers: read_headers(&transfer.headers).ok_or_else(|| nonsense("it has headers that cannot be sent"))?,
            chunk: (chunk - chunk % multiple).max(multiple),
            reached: None,
        })
    }

    /// Sends what storage does not have yet, until it has everything or the session is lost.
    ///
    /// Dropping the future closes the connection. Storage keeps what it had persisted; nothing else is left behind.
    pub(super) async fn run(
        &mut self,
        http: &Http,
        source: &Source,
        begin: Begin,
        tally: &mut Tally,
        pace: &mut Pace<'_>,
    ) -> Result<Ended, Error> {
        let size = source.size();
        let mut next = match begin {
            Begin::AtZero => Move::Send(0),
            Begin::WhereItStopped => Move::Ask,
        };
        loop {
            let (trouble, wait) = match self.make(next, http, source, tally, pace).await? {
                Err(trouble) => (trouble, None),
                Ok(response) => {
                    let status = response.status().as_u16();
                    let range = response.headers().get(RANGE).map(HeaderValue::as_bytes);
                    let answer = read_answer(status, range, size);
                    let wait = retry_after(response.headers());
                    // What the body says does not matter, nor whether it comes; the connection is worth having.
                    let drained = tokio::time::timeout(pace.patience().stalled_after, read_body(response, MAX_ANSWER));
                    drop(drained.await);
                    match answer {
                        Answer::Stored => return Ok(Ended::Stored),
                        Answer::Exists => return Ok(Ended::Exists),
                        Answer::Lost => return Ok(Ended::Lost),
                        Answer::Refused => {
                            let offset = match next {
                                Move::Ask => self.reached.unwrap_or(0),
                                Move::Send(offset) => offset,
                            };
                            return Err(Error::StorageRefused { status, offset });
                        }
                        Answer::Transient => (Trouble::Storage(status), wait),
                        Answer::Garbled => (Trouble::StorageRange, None),
                        Answer::Persisted(persisted) => {
                            let gained =
                                self.reached.is_none_or(|reached| persisted > reached) && !is_nothing(next, persisted);
                            if gained {
                                self.reached = Some(persisted);
                                pace.progressed();
                                pace.tell(Event::Persisted { bytes: persisted, total: size });
                            }
                            let everything = persisted == size && size > 0;
                            match next {
                                // The one move that is surely right after an answer to the question.
                                Move::Ask if !everything => {
                                    tally.resumes += 1;
                                    pace.tell(Event::Resumed { offset: persisted });
                                    next = Move::Send(persisted);
                                    continue;
                                }
                                Move::Send(_) if gained && !everything => {
                                    next = Move::Send(persisted);
                                    continue;
                                }
                                // All bytes, but not yet an object: asking with the size finishes it. Or none of the
                                // bytes sent; what storage says right after such a chunk may be wrong, so ask again.
                                Move::Ask | Move::Send(_) => (Trouble::StorageKeptNothing, wait),
                            }
                        }
                    }
                }
            };
            pace.pause(trouble, wait).await?;
            next = Move::Ask;
        }
    }

    async fn make(
        &self,
        next: Move,
        http: &Http,
        source: &Source,
        tally: &mut Tally,
        pace: &Pace<'_>,
    ) -> Result<Result<Response, Trouble>, Error> {
        let size = source.size();
        let request = http.toward(&self.url).request(Method::PUT, self.url.clone());
        match next {
            Move::Ask => {
                // The size is declared, so `bytes */N` is a mere question until N bytes are there; then it finishes.
                let request = request.header(CONTENT_LENGTH, 0).header(CONTENT_RANGE, format!("bytes */{size}"));
                Ok(exchange(request, &Streaming::default(), pace).await)
            }
            Move::Send(offset) => {
                let length = self.chunk.min(size - offset);
                let (range, streaming) = source.range(offset, length).await?;
                let mut request = request.headers(self.headers.clone()).header(CONTENT_LENGTH, length);
                if let Some(content_range) = content_range(offset, length, size) {
                    request = request.header(CONTENT_RANGE, content_range);
                }
                if length > 0 {
                    request = request.body(Body::wrap_stream(ReaderStream::with_capacity(range, PIECE)));
                }
                tally.chunks += 1;
                let answer = exchange(request, &streaming, pace).await;
                if answer.is_err() {
                    source.blame(&streaming).await?;
                }
                Ok(answer)
            }
        }
    }
}

/// A chunk that left nothing, not even where nothing was before: no progress, though it is the first answer.
fn is_nothing(made: Move, persisted: u64) -> bool {
    matches!(made, Move::Send(_)) && persisted == 0
}

/// Sends, as long as bytes move. A connection that was cut silently would hold a request for a quarter of an hour.
async fn exchange(request: RequestBuilder, streaming: &Streaming, pace: &Pace<'_>) -> Result<Response, Trouble> {
    let mut answer = std::pin::pin!(request.send());
    loop {
        let before = streaming.moved();
        match tokio::time::timeout(pace.patience().stalled_after, &mut answer).await {
            // The error's own text would hold the URL, and with it the session.
            Ok(answer) => return answer.map_err(|error| Trouble::StorageUnreachable(error.without_url())),
            Err(_) if streaming.moved() > before => {}
            Err(_) => return Err(Trouble::StorageSilent),
        }
    }
}

/// The headers that the broker asks for. Those that frame the message are ours alone.
fn read_headers(given: &BTreeMap<String, String>) -> Option<HeaderMap> {
    let ours = ["host", "connection", "transfer-encoding", "content-length", "content-range", "expect", "upgrade"];
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name: HeaderName = name.parse().ok()?;
        if !ours.contains(&name.as_str()) {
            headers.insert(name, value.parse().ok()?);
        }
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_status_and_range_alone() {
        for (name, status, range, expected) in [
            ("finished", 200, None, Answer::Stored),
            ("created", 201, None, Answer::Stored),
            ("nothing persisted", 308, None, Answer::Persisted(0)),
            ("one byte", 308, Some("bytes=0-0"), Answer::Persisted(1)),
            ("a part", 308, Some("bytes=0-42"), Answer::Persisted(43)),
            ("everything", 308, Some("bytes=0-99"), Answer::Persisted(100)),
            ("more than there is", 308, Some("bytes=0-100"), Answer::Garbled),
            ("not from the start", 308, Some("bytes=1-42"), Answer::Garbled),
            ("another unit", 308, Some("items=0-42"), Answer::Garbled),
            ("a list", 308, Some("bytes=0-1,3-4"), Answer::Garbled),
            ("a sign", 308, Some("bytes=0-+4"), Answer::Garbled),
            ("the largest number", 308, Some("bytes=0-18446744073709551615"), Answer::Garbled),
            ("empty", 308, Some(""), Answer::Garbled),
            ("a week old", 404, None, Answer::Lost),
            ("dead", 410, None, Answer::Lost),
            ("cancelled", 499, None, Answer::Lost),
            ("the object exists", 412, None, Answer::Exists),
            ("too slow", 408, None, Answer::Transient),
            ("too fast", 429, None, Answer::Transient),
            ("broken", 500, None, Answer::Transient),
            ("a gap, or busy", 503, Some("bytes=0-42"), Answer::Transient),
            ("a wrong request", 400, None, Answer::Refused),
            ("no permission", 403, None, Answer::Refused),
            ("too large", 413, None, Answer::Refused),
            ("a redirect", 302, None, Answer::Refused),
        ] {
            assert_eq!(read_answer(status, range.map(str::as_bytes), 100), expected, "{name}");
        }
    }

    #[test]
    fn positions_are_inclusive() {
        for (offset, length, size, expected) in [
            (0, 10, 10, Some("bytes 0-9/10")),
            (0, 1, 1, Some("bytes 0-0/1")),
            (256, 256, 1024, Some("bytes 256-511/1024")),
            (0, 0, 0, None),
        ] {
            assert_eq!(content_range(offset, length, size).as_deref(), expected, "{offset}+{length}/{size}");
        }
    }

    #[test]
    fn chunks_are_multiples_of_256_kib() {
        for (text, accepted) in [("256KiB", true), ("8MiB", true), ("0", false), ("1000", false), ("300KiB", false)] {
            assert_eq!(text.parse::<ChunkSize>().is_ok(), accepted, "{text}");
        }
        let message = "1MB".parse::<ChunkSize>().unwrap_err().to_string();
        assert!(message.contains("256KiB") && message.contains("8MiB"), "{message}");
    }

    fn transfer(uri: &str) -> Transfer {
        Transfer {
            kind: "resumable".into(),
            uri: Some(uri.into()),
            headers: BTreeMap::new(),
            chunk_multiple_bytes: Some(256),
            chunk_bytes: Some(1000),
        }
    }

    #[test]
    fn a_transfer_is_used_only_if_it_is_safe_and_known() {
        let open = |transfer| Session::open(&transfer, None, Operation::Create);
        assert!(open(transfer("https://storage.example/u?upload_id=s3cret")).is_ok());
        assert!(open(transfer("http://127.0.0.1:1/u?upload_id=s3cret")).is_ok());
        for (name, transfer) in [
            ("plain http", transfer("http://storage.example/u?upload_id=s3cret")),
            ("no URI", Transfer { uri: None, ..transfer("") }),
            ("a file", transfer("file:///s3cret")),
            ("another kind", Transfer { kind: "simple".into(), ..transfer("https://storage.example/s3cret") }),
            (
                "a header with a line break",
                Transfer { headers: [("a".into(), "b\ns3cret".into())].into(), ..transfer("https://s.example/") },
            ),
        ] {
            let error = open(transfer).err().expect(name);
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{name}: {error}");
        }
    }

    #[test]
    fn chunks_follow_the_broker_unless_the_user_says_otherwise() {
        let uri = "https://storage.example/";
        let chunk = |transfer, wanted| Session::open(&transfer, wanted, Operation::Create).unwrap().chunk;
        assert_eq!(chunk(transfer(uri), None), 768, "rounded down to its multiple");
        assert_eq!(chunk(Transfer { chunk_bytes: Some(3), ..transfer(uri) }, None), 256, "but never to nothing");
        assert_eq!(chunk(transfer(uri), Some(ChunkSize(512 << 10))), 512 << 10);
        let silent = Transfer { chunk_bytes: None, chunk_multiple_bytes: None, ..transfer(uri) };
        assert_eq!(chunk(silent, None), 8 << 20);
    }

    #[test]
    fn headers_that_frame_the_message_are_not_taken_from_the_broker() {
        let given = [("Content-Type", "video/mp4"), ("Content-Length", "7"), ("Host", "evil")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let headers = read_headers(&given).unwrap();
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["content-type"], "video/mp4");
    }
}
