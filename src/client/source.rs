//! Where the bytes come from: a file, which can be read anywhere and again, or a pipe, which cannot.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use md5::Digest as _;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, RequestBuilder};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf, Take};
use tokio_util::io::ReaderStream;

use crate::model::digest::{Crc32c, Md5};
use crate::model::name::{ContentType, FileName};

use super::error::Error;
use super::file::RegularFile;
use super::pipe::Pipe;

/// The pieces that a part is read and sent in: all of a file that is in memory at once.
const PIECE: usize = 128 << 10;

/// What is uploaded.
pub(super) enum Source<'a> {
    File(RegularFile, Digests),
    Pipe(Pipe<'a>),
}

/// What one request sends.
pub(super) struct Part {
    pub(super) body: Range,
    pub(super) streaming: Arc<Streaming>,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// The size of the whole, if it is known by now.
    pub(super) total: Option<u64>,
    /// What the whole has, if this is the end of it.
    pub(super) digests: Option<Digests>,
    /// Whether something was read for it that was not known before.
    pub(super) is_news: bool,
    /// Whether it says no more than that the pipe has ended.
    pub(super) closes: bool,
}

impl Part {
    /// Gives a request the part's bytes, and what will be known of their streaming.
    pub(super) fn attach(self, request: RequestBuilder) -> (RequestBuilder, Arc<Streaming>) {
        let mut request = request.header(CONTENT_LENGTH, self.length);
        if self.length > 0 {
            request = request.body(Body::wrap_stream(ReaderStream::with_capacity(self.body, PIECE)));
        }
        (request, self.streaming)
    }
}

impl Source<'_> {
    /// The size; of a pipe, once it has ended.
    pub(super) const fn size(&self) -> Option<u64> {
        match self {
            Self::File(file, _) => Some(file.size()),
            Self::Pipe(pipe) => pipe.size(),
        }
    }

    /// How many bytes are known: those of the file, or those that were read from the pipe so far.
    pub(super) const fn known(&self) -> u64 {
        match self {
            Self::File(file, _) => file.size(),
            Self::Pipe(pipe) => pipe.read(),
        }
    }

    /// The checksums of the bytes that are known.
    pub(super) fn digests(&self) -> Digests {
        match self {
            Self::File(_, digests) => *digests,
            Self::Pipe(pipe) => pipe.digests(),
        }
    }

    /// The first byte that can still be sent.
    pub(super) const fn kept_from(&self) -> u64 {
        match self {
            Self::File(..) => 0,
            Self::Pipe(pipe) => pipe.kept_from(),
        }
    }

    pub(super) const fn is_pipe(&self) -> bool {
        matches!(self, Self::Pipe(_))
    }

    /// What to send from `offset` on, at most `length` bytes. Waits for a pipe to have that many, or to end.
    pub(super) async fn part(&mut self, offset: u64, length: u64) -> Result<Part, Error> {
        let is_news = match self {
            Self::File(..) => false,
            Self::Pipe(pipe) => pipe.fill(offset, length).await?,
        };
        let length = length.min(self.known().saturating_sub(offset));
        let (body, streaming) = match self {
            Self::File(file, _) => file.range(offset, length).await?,
            Self::Pipe(pipe) => pipe.range(offset),
        };
        let total = self.size();
        let digests = (total == Some(offset + length)).then(|| self.digests());
        let closes = self.is_pipe() && length == 0;
        Ok(Part { body, streaming, offset, length, total, digests, is_news, closes })
    }

    /// Storage has everything before `offset`: a pipe need not keep it.
    pub(super) fn confirmed(&mut self, offset: u64) {
        if let Self::Pipe(pipe) = self {
            pipe.forget(offset);
        }
    }

    /// What became of a part whose sending failed: an error if the fault was the file's, not the network's.
    pub(super) async fn blame(&self, streaming: &Streaming) -> Result<(), Error> {
        match self {
            Self::File(file, _) => file.blame(streaming).await,
            Self::Pipe(_) => Ok(()),
        }
    }

    /// What storage refused with `status`: an error if the fault was the file's. Of a file that was written to since it
    /// was hashed, storage may say no more than that the digests are wrong.
    pub(super) async fn expect_unchanged_after(&self, status: u16) -> Result<(), Error> {
        match self {
            Self::File(file, _) if status == 400 => file.expect_unchanged().await,
            Self::File(..) | Self::Pipe(_) => Ok(()),
        }
    }
}

/// The file's own name, as the broker takes it.
pub(super) fn name_of(path: &Path) -> Result<FileName, Error> {
    let refuse = |reason: String| Error::FileName { path: path.to_owned(), reason };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("it is not UTF-8".into()))?;
    name.parse().map_err(|reason: crate::model::Invalid| refuse(reason.to_string()))
}

/// The media type that the name's extension stands for (IANA media types registry), or the one for anything.
pub(super) fn content_type(name: &FileName) -> &'static str {
    let extension = name.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "avif" => "image/avif",
        "css" => "text/css",
        "csv" => "text/csv",
        "flac" => "audio/flac",
        "gif" => "image/gif",
        "gz" => "application/gzip",
        "htm" | "html" => "text/html",
        "jpg" | "jpeg" => "image/jpeg",
        "json" => "application/json",
        "m4a" => "audio/mp4",
        "m4v" | "mp4" => "video/mp4",
        "mkv" => "video/matroska",
        "mov" => "video/quicktime",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "txt" => "text/plain",
        "wasm" => "application/wasm",
        "wav" => "audio/wav",
        "webm" => "video/webm",
        "webp" => "image/webp",
        "xml" => "application/xml",
        "zip" => "application/zip",
        _ => ContentType::DEFAULT,
    }
}

/// Both digests that storage keeps of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) crc32c: Crc32c,
    pub(super) md5: Md5,
}

impl fmt::Display for Digests {
    /// As `X-Goog-Hash` has them: one header, and no blank after the comma.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crc32c={},md5={}", self.crc32c, self.md5)
    }
}

/// Both digests while they come about.
#[derive(Clone, Default)]
pub(super) struct Hasher {
    crc32c: u32,
    md5: md5::Md5,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.md5.update(bytes);
    }

    pub(super) fn digests(&self) -> Digests {
        Digests { crc32c: Crc32c(self.crc32c), md5: Md5(self.md5.clone().finalize().into()) }
    }
}

/// What is known of a range while it is being sent, and after.
#[derive(Debug, Default)]
pub(super) struct Streaming {
    moved: AtomicU64,
    failure: OnceLock<io::ErrorKind>,
}

impl Streaming {
    /// How many bytes the network took so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Why the bytes themselves could not be had.
    pub(super) fn failure(&self) -> Option<io::ErrorKind> {
        self.failure.get().copied()
    }
}

/// A part of the source that is read while it is sent.
pub(super) struct Range {
    bytes: Bytes,
    streaming: Arc<Streaming>,
}

/// Where the bytes of a range are.
pub(super) enum Bytes {
    OnDisk(Take<File>),
    InMemory(VecDeque<hyper::body::Bytes>),
}

impl Range {
    /// The range, and what will be known of its streaming.
    pub(super) fn of(bytes: Bytes) -> (Self, Arc<Streaming>) {
        let streaming = Arc::new(Streaming::default());
        (Self { bytes, streaming: Arc::clone(&streaming) }, streaming)
    }
}

impl AsyncRead for Range {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = match &mut self.bytes {
            Bytes::OnDisk(rest) => match ready!(Pin::new(&mut *rest).poll_read(cx, buffer)) {
                Ok(()) => {
                    let is_nothing = buffer.filled().len() == before && buffer.remaining() > 0;
                    let ended_early = is_nothing && rest.limit() > 0;
                    if ended_early { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
                }
                Err(error) => Err(error),
            },
            Bytes::InMemory(pieces) => {
                while let Some(piece) = pieces.front_mut().filter(|_| buffer.remaining() > 0) {
                    let taken = piece.split_to(piece.len().min(buffer.remaining()));
                    buffer.put_slice(&taken);
                    if piece.is_empty() {
                        pieces.pop_front();
                    }
                }
                Ok(())
            }
        };
        let moved = buffer.filled().len() - before;
        self.streaming.moved.fetch_add(moved as u64, Ordering::Relaxed);
        if let Err(error) = &result {
            self.streaming.failure.get_or_init(|| error.kind());
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_guessed_from_the_extension() {
        for (name, expected) in [
            ("a.mp4", "video/mp4"),
            ("B.JPEG", "image/jpeg"),
            ("a", "application/octet-stream"),
            ("a.xyz", "application/octet-stream"),
        ] {
            let guessed = content_type(&name.parse().unwrap());
            assert_eq!(guessed, expected, "{name}");
            assert!(guessed.parse::<ContentType>().is_ok(), "{name}");
        }
    }

    #[test]
    fn a_name_that_the_broker_refuses_is_refused_before_it_is_asked() {
        assert_eq!(name_of(Path::new("/tmp/a.mp4")).unwrap().to_string(), "a.mp4");
        for path in ["/tmp/a\\b", "/", ".."] {
            assert!(matches!(name_of(Path::new(path)), Err(Error::FileName { .. })), "{path}");
        }
    }
}
