//! A regular file: its digests, its ranges, and whether it is still the same.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::error::Error;
use super::source::{Bytes, Digests, Hasher, Range, Streaming};

/// How much is read at once for hashing: enough to make the calls cheap, little enough to hash between two polls.
const HASH_BLOCK: usize = 512 << 10;

/// A file as it was when the upload began.
#[derive(Clone, Debug)]
pub(super) struct RegularFile {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
}

impl RegularFile {
    /// Looks at the file without opening it.
    pub(super) async fn look(path: &Path) -> Result<Self, Error> {
        let metadata = tokio::fs::metadata(path).await.map_err(|source| unreadable(path, source))?;
        if !metadata.is_file() {
            return Err(Error::NotAFile(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), size: metadata.len(), modified: metadata.modified().ok() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Reads the file once, telling how far it came.
    pub(super) async fn digest(&self, mut tell: impl FnMut(u64)) -> Result<Digests, Error> {
        let mut file = self.open().await?;
        let mut block = vec![0; HASH_BLOCK];
        let (mut hasher, mut done) = (Hasher::default(), 0);
        loop {
            let read = file.read(&mut block).await.map_err(|source| unreadable(&self.path, source))?;
            if read == 0 {
                break;
            }
            hasher.update(&block[..read]);
            done += read as u64;
            tell(done);
        }
        // Who writes while we read shows by the size or by the time; the digests would be of neither version.
        self.expect_unchanged().await?;
        if done != self.size {
            return Err(Error::SourceChanged(self.path.clone()));
        }
        Ok(hasher.digests())
    }

    /// `length` bytes from `offset` on, to be streamed, and what will be known of the streaming.
    pub(super) async fn range(&self, offset: u64, length: u64) -> Result<(Range, Arc<Streaming>), Error> {
        let mut file = self.open().await?;
        file.seek(io::SeekFrom::Start(offset)).await.map_err(|source| unreadable(&self.path, source))?;
        Ok(Range::of(Bytes::OnDisk(file.take(length))))
    }

    /// What became of a range whose sending failed: an error if the fault was the file's, not the network's.
    pub(super) async fn blame(&self, streaming: &Streaming) -> Result<(), Error> {
        self.expect_unchanged().await?;
        match streaming.failure() {
            None => Ok(()),
            Some(io::ErrorKind::UnexpectedEof) => Err(Error::SourceChanged(self.path.clone())),
            Some(kind) => Err(unreadable(&self.path, kind.into())),
        }
    }

    /// # Errors
    /// When the file is not the same any more.
    pub(super) async fn expect_unchanged(&self) -> Result<(), Error> {
        self.open().await.map(drop)
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
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Source { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use md5::Digest as _;

    use super::*;
    use crate::model::digest::{Crc32c, Md5};

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
            let source = RegularFile::look(&file(&directory, name, bytes)).await.unwrap();
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
        let source = RegularFile::look(&file(&directory, "digits", b"0123456789")).await.unwrap();
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
        let source = RegularFile::look(&path).await.unwrap();
        let (mut range, streaming) = source.range(4, 6).await.unwrap();

        fs::write(&path, b"0123456789 and more").unwrap();
        assert!(matches!(source.digest(|_| {}).await, Err(Error::SourceChanged(_))), "longer");
        assert!(matches!(source.range(0, 4).await, Err(Error::SourceChanged(_))), "longer");

        fs::write(&path, b"0123").unwrap();
        assert!(range.read_to_end(&mut Vec::new()).await.is_err(), "shorter while it is read");
        assert!(matches!(source.blame(&streaming).await, Err(Error::SourceChanged(_))));

        let source = RegularFile::look(&path).await.unwrap();
        let later = source.modified.unwrap() + Duration::from_secs(5);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert!(matches!(source.range(0, 1).await, Err(Error::SourceChanged(_))), "touched");
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(RegularFile::look(directory.path()).await, Err(Error::NotAFile(_))), "a directory");
        let missing = directory.path().join("missing");
        assert!(matches!(RegularFile::look(&missing).await, Err(Error::Source { .. })), "nothing");
    }
}
