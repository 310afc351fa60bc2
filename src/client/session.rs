//! One storage session: from any point to the last byte, believing only what storage says it has.
//!
//! The machine has two moves, to *ask* how much is persisted and to *send* from there, and one rule between them:
//! whatever went wrong with a chunk, the next move is to ask. Storage answers a chunk that would leave a gap with 503, so
//! who repeats the same chunk after a 5xx may never end; who asks first cannot make a gap.

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue, RANGE};
use reqwest::{Method, Response};

use crate::model::Invalid;
use crate::model::size::ByteCount;

use super::error::{Error, Operation, Trouble};
use super::http::{Http, is_transient, retry_after};
use super::pace::Pace;
use super::pipe::LARGEST_CHUNK;
use super::progress::Event;
use super::source::{Part, Source};
use super::target::{Target, drain, exchange};
use super::wire::Transfer;

/// Storage takes all chunks but the last in multiples of this (storage documentation, "Resumable uploads").
const CHUNK_MULTIPLE: u64 = 256 << 10;

/// What is sent at once where nobody says otherwise; the documentation recommends at least this much.
const CHUNK_DEFAULT: u64 = 8 << 20;

/// The digests of the whole, on the request that ends it: storage compares before there is an object (storage
/// documentation, "Data validation and change detection").
const X_GOOG_HASH: HeaderName = HeaderName::from_static("x-goog-hash");

/// So often must storage say that it has less than it had confirmed before it is believed.
const MOST_DOUBTS: u32 = 3;

/// When storage has this much of a pipe, and at each doubling, the broker is asked to look: a pipe may never end, and of a
/// session without a size storage takes more than any policy allows.
const FIRST_LOOK: u64 = 16 << 20;

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

/// A session, whoever opened it.
pub(super) struct Session {
    target: Target,
    chunk: u64,
    /// The most that storage ever said it has: more is progress, and renews patience.
    reached: Option<u64>,
    /// How much of a pipe is to be there when the broker looks next.
    look_at: u64,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Storage has this much for certain: of a new session, nothing.
    At(u64),
    /// Storage may have anything, from nothing to the whole object.
    WhereItStopped,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Storage says that it has everything.
    Stored,
    /// Storage says that the object is there already, or was changed: 412. It may be ours, from an earlier session.
    Exists,
    /// The session is gone: a week old, cancelled, or lost.
    Lost,
    /// It has not ended, but has so much of a pipe that the broker should see whether that is too much.
    Grown(u64),
    /// Nobody saw what a signed URL did. Only the broker can tell whether the object is there.
    Unsure,
    /// Storage refused a signed URL: it may have ended, or never have been good.
    Refused {
        status: u16,
        /// Its word for why, if it has one.
        reason: Option<String>,
    },
}

/// What it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Requests that carried bytes, repeats included.
    pub(super) chunks: u64,
    /// Times that storage was asked where to go on, and said it.
    pub(super) resumes: u64,
    /// Times that the broker gave another session or URL.
    pub(super) renewals: u64,
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
fn read_answer(status: u16, range: Option<&[u8]>, known: u64) -> Answer {
    match status {
        200 | 201 => Answer::Stored,
        308 => match range {
            None => Answer::Persisted(0),
            Some(range) => match read_range(range) {
                Some(persisted) if persisted <= known => Answer::Persisted(persisted),
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

/// `Content-Range` of a part. A pipe that ended on the border of a chunk is closed by its size alone; an empty file is
/// sent without.
fn content_range(part: &Part) -> Option<String> {
    let &Part { offset, length, total, .. } = part;
    match ((offset + length).checked_sub(1).filter(|_| length > 0), total) {
        (Some(last), Some(total)) => Some(format!("bytes {offset}-{last}/{total}")),
        (Some(last), None) => Some(format!("bytes {offset}-{last}/*")),
        (None, total) => total.filter(|_| part.closes).map(|total| format!("bytes */{total}")),
    }
}

/// The chunk to send: of `wanted`, or of what the broker advises, in multiples of what storage takes.
///
/// # Errors
/// When a chunk of a pipe could not be kept in memory.
pub(super) fn chunk_of(
    transfer: &Transfer,
    wanted: Option<ChunkSize>,
    source: &Source<'_>,
    operation: Operation,
) -> Result<u64, Error> {
    let multiple = transfer.chunk_multiple_bytes.unwrap_or(CHUNK_MULTIPLE).max(1);
    let largest = if source.is_pipe() { LARGEST_CHUNK } else { u64::MAX };
    if multiple > largest {
        return Err(Error::Nonsense { operation, what: "its chunks are too large for what is read from a pipe" });
    }
    let chunk = wanted.map(|size| size.0).or(transfer.chunk_bytes).unwrap_or(CHUNK_DEFAULT).min(largest);
    Ok((chunk - chunk % multiple).max(multiple))
}

impl Session {
    /// The session at `target`, to be sent in chunks of so many bytes.
    pub(super) const fn new(target: Target, chunk: u64) -> Self {
        Self { target, chunk, reached: None, look_at: FIRST_LOOK }
    }

    /// Sends what storage does not have yet, until it has everything, the session is lost, or a pipe has grown.
    ///
    /// Dropping the future closes the connection. Storage keeps what it had persisted; nothing else is left behind.
    pub(super) async fn run(
        &mut self,
        http: &Http,
        source: &mut Source<'_>,
        begin: Begin,
        tally: &mut Tally,
        pace: &mut Pace<'_>,
    ) -> Result<Ended, Error> {
        let mut doubts = 0;
        let mut next = match begin {
            Begin::At(offset) => Move::Send(offset),
            Begin::WhereItStopped => Move::Ask,
        };
        loop {
            let (trouble, wait) = match self.make(next, http, source, tally, pace).await? {
                Err(trouble) => (trouble, None),
                Ok(response) => {
                    let status = response.status().as_u16();
                    let range = response.headers().get(RANGE).map(HeaderValue::as_bytes);
                    let answer = read_answer(status, range, source.known());
                    let wait = retry_after(response.headers());
                    let reason = drain(response, pace).await;
                    match answer {
                        Answer::Stored => return Ok(Ended::Stored),
                        Answer::Exists => return Ok(Ended::Exists),
                        Answer::Lost => return Ok(Ended::Lost),
                        Answer::Refused => {
                            source.expect_unchanged_after(status).await?;
                            let offset = match next {
                                Move::Ask => self.reached.unwrap_or(0),
                                Move::Send(offset) => offset,
                            };
                            return Err(Error::StorageRefused { status, reason, offset });
                        }
                        Answer::Transient => (Trouble::Storage(status), wait),
                        Answer::Garbled => (Trouble::StorageRange, None),
                        Answer::Persisted(persisted) if persisted < source.kept_from() => {
                            // What storage has never becomes less, but an answer can be wrong.
                            doubts += 1;
                            if doubts == MOST_DOUBTS {
                                return Err(Error::PipeLost);
                            }
                            (Trouble::StorageForgot, wait)
                        }
                        Answer::Persisted(persisted) => {
                            doubts = 0;
                            source.confirmed(persisted);
                            let gained =
                                self.reached.is_none_or(|reached| persisted > reached) && !is_nothing(next, persisted);
                            if gained {
                                self.reached = Some(persisted);
                                pace.progressed();
                                pace.tell(Event::Persisted { bytes: persisted, total: source.size() });
                            }
                            // Of a file, asking ends the upload. A pipe is ended by a request of its own, which
                            // bears the digests.
                            let everything = !source.is_pipe() && persisted > 0 && Some(persisted) == source.size();
                            match next {
                                // The one move that is surely right after an answer to the question.
                                Move::Ask if !everything => {
                                    tally.resumes += 1;
                                    pace.tell(Event::Resumed { offset: persisted });
                                    next = Move::Send(persisted);
                                    continue;
                                }
                                Move::Send(_) if gained && source.is_pipe() && persisted >= self.look_at => {
                                    self.look_at = persisted.saturating_mul(2);
                                    return Ok(Ended::Grown(persisted));
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
        source: &mut Source<'_>,
        tally: &mut Tally,
        pace: &mut Pace<'_>,
    ) -> Result<Result<Response, Trouble>, Error> {
        match next {
            Move::Ask => {
                // With a declared size, `bytes */N` is a mere question until N bytes are there; then it finishes. Of a
                // session without one it would make an object of whatever is there.
                let range = match source.size().filter(|_| !source.is_pipe()) {
                    Some(size) => format!("bytes */{size}"),
                    None => "bytes */*".to_owned(),
                };
                let request = self.target.request_bare(http, Method::PUT);
                let request = request.header(CONTENT_LENGTH, 0).header(CONTENT_RANGE, range);
                Ok(exchange(request, None, pace).await)
            }
            Move::Send(offset) => {
                let part = source.part(offset, self.chunk).await?;
                if part.is_news {
                    // However long the other end of the pipe took, it was not storage that was waited for.
                    pace.progressed();
                }
                let mut request = self.target.request(http, Method::PUT);
                if let Some(content_range) = content_range(&part) {
                    request = request.header(CONTENT_RANGE, content_range);
                }
                if let Some(digests) = part.digests {
                    request = request.header(X_GOOG_HASH, digests.to_string());
                }
                tally.chunks += u64::from(!part.closes);
                let (request, streaming) = part.attach(request);
                let answer = exchange(request, Some(&streaming), pace).await;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::file::RegularFile;
    use super::super::pipe::Pipe;
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

    #[tokio::test]
    async fn positions_are_inclusive() {
        let content = [7; 1024];
        for (name, offset, length, expected) in [
            ("the first", 0, 256, Some("bytes 0-255/*")),
            ("in between", 256, 512, Some("bytes 256-767/*")),
            ("the last that is full, the end unknown", 768, 256, Some("bytes 768-1023/*")),
            ("the last that is not", 768, 512, Some("bytes 768-1023/1024")),
            ("all at once", 0, 2048, Some("bytes 0-1023/1024")),
            ("the end alone", 1024, 256, Some("bytes */1024")),
        ] {
            let mut source = Source::Pipe(Pipe::new(&content[..], "-".into()));
            let part = source.part(offset, length).await.unwrap();
            assert_eq!(content_range(&part).as_deref(), expected, "{name}");
            assert_eq!(part.digests.is_some(), expected.is_some_and(|range| range.ends_with("1024")), "{name}");
        }
        let directory = tempfile::tempdir().unwrap();
        for (size, expected) in [(0, None), (1, Some("bytes 0-0/1")), (10, Some("bytes 0-9/10"))] {
            let path = directory.path().join("file");
            std::fs::write(&path, &content[..size]).unwrap();
            let file = RegularFile::look(&path).await.unwrap();
            let digests = file.digest(|_| {}).await.unwrap();
            let part = Source::File(file, digests).part(0, 256).await.unwrap();
            assert_eq!(content_range(&part).as_deref(), expected, "{size}");
            assert_eq!(part.digests, Some(digests), "{size}");
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

    fn transfer(advised: Option<u64>, multiple: Option<u64>) -> Transfer {
        let (kind, headers) = ("resumable".to_owned(), BTreeMap::new());
        Transfer { kind, uri: None, headers, chunk_multiple_bytes: multiple, chunk_bytes: advised }
    }

    #[test]
    fn chunks_follow_the_broker_unless_the_user_says_otherwise() {
        let chunk = |advised, multiple, wanted| {
            let source = Source::Pipe(Pipe::new(&b""[..], "-".into()));
            chunk_of(&transfer(advised, multiple), wanted, &source, Operation::Create)
        };
        assert_eq!(chunk(Some(1000), Some(256), None).unwrap(), 768, "rounded down to its multiple");
        assert_eq!(chunk(Some(3), Some(256), None).unwrap(), 256, "but never to nothing");
        assert_eq!(chunk(Some(1000), Some(256), Some(ChunkSize(512 << 10))).unwrap(), 512 << 10);
        assert_eq!(chunk(None, None, None).unwrap(), 8 << 20);
        assert_eq!(chunk(Some(1 << 40), None, None).unwrap(), 64 << 20, "a pipe's chunk is kept in memory");
        assert_eq!(chunk(None, None, Some(ChunkSize(1 << 40))).unwrap(), 64 << 20);
        assert!(matches!(chunk(None, Some(1 << 40), None), Err(Error::Nonsense { .. })));
    }
}
