//! The file: its digests, its ranges, and whether it is still the same.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use md5::Digest as _;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, ReadBuf, Take};

use crate::model::digest::{Crc32c, Md5};
use crate::model::name::{ContentType, FileName};

use super::error::Error;

/// How much is read at once for hashing: enough to make the calls cheap, little enough to hash between two polls.
const HASH_BLOCK: usize = 512 << 10;

/// A file as it was when the upload began.
#[derive(Clone, Debug)]
pub(super) struct Source {
    path: PathBuf,
    name: FileName,
    size: u64,
    modified: Option<SystemTime>,
}

/// Both digests of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) crc32c: Crc32c,
    pub(super) md5: Md5,
}

impl Source {
    /// Looks at the file without opening it: opening a pipe would wait for its other end.
    pub(super) async fn look(path: &Path) -> Result<Self, Error> {
        let metadata = tokio::fs::metadata(path).await.map_err(|source| unreadable(path, source))?;
        if !metadata.is_file() {
            return Err(Error::NotAFile(path.to_owned()));
        }
        let refuse = |reason: String| Error::FileName { path: path.to_owned(), reason };
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("it is not UTF-8".into()))?;
        let name = name.parse().map_err(|reason: crate::model::Invalid| refuse(reason.to_string()))?;
        Ok(Self { path: path.to_owned(), name, size: metadata.len(), modified: metadata.modified().ok() })
    }

    pub(super) const fn name(&self) -> &FileName {
        &self.name
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file once, telling how far it came.
    pub(super) async fn digest(&self, mut tell: impl FnMut(u64)) -> Result<Digests, Error> {
        let mut file = self.open().await?;
        let mut block = vec![0; HASH_BLOCK];
        let (mut crc32c, mut md5, mut done) = (0, md5::Md5::new(), 0);
        loop {
            let read = file.read(&mut block).await.map_err(|source| unreadable(&self.path, source))?;
            if read == 0 {
                break;
            }
            let bytes = &block[..read];
            crc32c = crc32c::crc32c_append(crc32c, bytes);
            md5.update(bytes);
            done += read as u64;
            tell(done);
        }
        // Who writes while we read shows by the size or by the time; the digests would be of neither version.
        self.open().await?;
        if done != self.size {
            return Err(Error::SourceChanged(self.path.clone()));
        }
        Ok(Digests { crc32c: Crc32c(crc32c), md5: Md5(md5.finalize().into()) })
    }

    /// `length` bytes from `offset` on, to be streamed, and what will be known of the streaming.
    pub(super) async fn range(&self, offset: u64, length: u64) -> Result<(Range, Arc<Streaming>), Error> {
        let mut file = self.open().await?;
        file.seek(io::SeekFrom::Start(offset)).await.map_err(|source| unreadable(&self.path, source))?;
        let streaming = Arc::new(Streaming::default());
        Ok((Range { rest: file.take(length), streaming: Arc::clone(&streaming) }, streaming))
    }

    /// What became of a range whose sending failed: an error if the fault was the file's, not the network's.
    pub(super) async fn blame(&self, streaming: &Streaming) -> Result<(), Error> {
        self.open().await?;
        match streaming.failure.get() {
            None => Ok(()),
            Some(io::ErrorKind::UnexpectedEof) => Err(Error::SourceChanged(self.path.clone())),
            Some(kind) => Err(unreadable(&self.path, (*kind).into())),
        }
    }

    /// Opens the file, if it is still the same by size and time.
    async fn open(&self) -> Result<File, Error> {
        let file = File::open(&self.path).await.map_err(|source| unreadable(&self.path, source))?;
        let metadata = file.metadata().await.map_err(|source| unreadable(&self.path, source))?;
        if metadata.len() == self.size && metadata.modified().ok() == self.modified {
            Ok(file)
        } else {
            Err(Error::SourceChanged(self.path.clone()))
        }
    }

    /// The media type that the file's extension stands for (IANA media types registry), or the one for anything.
    pub(super) fn content_type(&self) -> &'static str {
        let extension = self.name.extension().unwrap_or_default().to_ascii_lowercase();
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
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Source { path: path.to_owned(), source }
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
}

/// A part of the file that is read while it is sent.
pub(super) struct Range {
    rest: Take<File>,
    streaming: Arc<Streaming>,
}

impl AsyncRead for Range {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = match ready!(Pin::new(&mut self.rest).poll_read(cx, buffer)) {
            Ok(()) => {
                let read = buffer.filled().len() - before;
                self.streaming.moved.fetch_add(read as u64, Ordering::Relaxed);
                let ended_early = read == 0 && buffer.remaining() > 0 && self.rest.limit() > 0;
                if ended_early { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.streaming.failure.get_or_init(|| error.kind());
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn file(directory: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    #[tokio::test]
    async fn digests_are_of_the_whole_file() {
        let directory = tempfile::tempdir().unwrap();
        let many = vec![7; HASH_BLOCK + 1];
        for (name, bytes) in [("empty", &b""[..]), ("check", b"123456789"), ("two blocks", &many)] {
            let source = Source::look(&file(&directory, name, bytes)).await.unwrap();
            let mut told = 0;
            let digests = source.digest(|done| told = done).await.unwrap();
            assert_eq!(digests.crc32c, Crc32c(crc32c::crc32c(bytes)), "{name}");
            assert_eq!(digests.md5, Md5(md5::Md5::digest(bytes).into()), "{name}");
            assert_eq!(told, bytes.len() as u64, "{name}");
        }
    }

    #[tokio::test]
    async fn a_range_is_exactly_what_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::look(&file(&directory, "digits", b"0123456789")).await.unwrap();
        for (offset, length, expected) in [(0, 10, "0123456789"), (3, 4, "3456"), (9, 1, "9"), (10, 0, "")] {
            let (mut range, streaming) = source.range(offset, length).await.unwrap();
            let mut read = String::new();
            range.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, expected, "{offset}+{length}");
            assert_eq!(streaming.moved(), length);
        }
    }

    #[tokio::test]
    async fn a_change_is_noticed_by_size_by_time_and_in_the_middle_of_a_range() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, "a", b"0123456789");
        let source = Source::look(&path).await.unwrap();
        let (mut range, streaming) = source.range(4, 6).await.unwrap();

        fs::write(&path, b"0123456789 and more").unwrap();
        assert!(matches!(source.digest(|_| {}).await, Err(Error::SourceChanged(_))), "longer");
        assert!(matches!(source.range(0, 4).await, Err(Error::SourceChanged(_))), "longer");

        fs::write(&path, b"0123").unwrap();
        assert!(range.read_to_end(&mut Vec::new()).await.is_err(), "shorter while it is read");
        assert!(matches!(source.blame(&streaming).await, Err(Error::SourceChanged(_))));

        let source = Source::look(&path).await.unwrap();
        let later = source.modified.unwrap() + Duration::from_secs(5);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert!(matches!(source.range(0, 1).await, Err(Error::SourceChanged(_))), "touched");
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Source::look(directory.path()).await, Err(Error::NotAFile(_))), "a directory");
        let missing = directory.path().join("missing");
        assert!(matches!(Source::look(&missing).await, Err(Error::Source { .. })), "nothing");
        let odd = file(&directory, "a\\b", b"");
        assert!(matches!(Source::look(&odd).await, Err(Error::FileName { .. })), "a name that the broker refuses");
    }

    #[tokio::test]
    async fn the_type_is_guessed_from_the_extension() {
        let directory = tempfile::tempdir().unwrap();
        for (name, expected) in [
            ("a.mp4", "video/mp4"),
            ("B.JPEG", "image/jpeg"),
            ("a", "application/octet-stream"),
            ("a.xyz", "application/octet-stream"),
        ] {
            let source = Source::look(&file(&directory, name, b"")).await.unwrap();
            assert_eq!(source.content_type(), expected, "{name}");
            assert!(source.content_type().parse::<ContentType>().is_ok(), "{name}");
        }
    }
}
