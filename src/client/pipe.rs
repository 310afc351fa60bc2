//! A pipe: read once, in order, with no size until it ends.
//!
//! What storage has not confirmed is kept, in pieces, and nothing else. A chunk is read whole before it is sent, so one
//! chunk is all that is ever kept.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::error::Error;
use super::file::unreadable;
use super::source::{self, Digests, Hasher, Range, Streaming};

/// The most that a chunk of a pipe may have, since it is kept in memory.
pub(super) const LARGEST_CHUNK: u64 = 64 << 20;

/// A chunk is read and let go in pieces of this.
const PIECE: u64 = 128 << 10;

/// The reading end of a pipe.
pub(super) struct Pipe<'a> {
    input: Box<dyn AsyncRead + Send + Sync + Unpin + 'a>,
    /// What errors call it.
    name: PathBuf,
    /// The position of the first byte that is kept.
    from: u64,
    kept: VecDeque<Bytes>,
    /// How many bytes were read in all.
    read: u64,
    has_ended: bool,
    hasher: Hasher,
}

impl<'a> Pipe<'a> {
    pub(super) fn new(input: impl AsyncRead + Send + Sync + Unpin + 'a, name: PathBuf) -> Self {
        let (kept, hasher) = (VecDeque::new(), Hasher::default());
        Self { input: Box::new(input), name, from: 0, kept, read: 0, has_ended: false, hasher }
    }

    pub(super) const fn size(&self) -> Option<u64> {
        if self.has_ended { Some(self.read) } else { None }
    }

    pub(super) const fn read(&self) -> u64 {
        self.read
    }

    pub(super) const fn kept_from(&self) -> u64 {
        self.from
    }

    pub(super) fn digests(&self) -> Digests {
        self.hasher.digests()
    }

    /// Reads on until `length` bytes from `offset` on are kept, or the pipe ends. Tells whether anything was learned.
    pub(super) async fn fill(&mut self, offset: u64, length: u64) -> Result<bool, Error> {
        let (end, before) = (offset.saturating_add(length), self.read);
        let had_ended = self.has_ended;
        while self.read < end && !self.has_ended {
            let wanted = PIECE.min(end - self.read);
            let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
            let reading = (&mut self.input).take(wanted).read_to_end(&mut piece).await;
            reading.map_err(|source| unreadable(&self.name, source))?;
            self.has_ended = (piece.len() as u64) < wanted;
            self.hasher.update(&piece);
            self.read += piece.len() as u64;
            if !piece.is_empty() {
                self.kept.push_back(Bytes::from(piece));
            }
        }
        Ok(self.read > before || self.has_ended != had_ended)
    }

    /// What is kept from `offset` on.
    pub(super) fn range(&self, offset: u64) -> (Range, Arc<Streaming>) {
        let mut rest = self.kept.clone();
        skip(&mut rest, offset.saturating_sub(self.from));
        Range::of(source::Bytes::InMemory(rest))
    }

    /// Lets go what lies before `offset`.
    pub(super) fn forget(&mut self, offset: u64) {
        let offset = offset.min(self.read);
        skip(&mut self.kept, offset.saturating_sub(self.from));
        self.from = self.from.max(offset);
    }
}

fn skip(pieces: &mut VecDeque<Bytes>, mut count: u64) {
    while let Some(piece) = pieces.front_mut().filter(|_| count > 0) {
        let skipped = piece.split_to(piece.len().min(usize::try_from(count).unwrap_or(usize::MAX)));
        count -= skipped.len() as u64;
        if piece.is_empty() {
            pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Crc32c;

    async fn bytes(pipe: &Pipe<'_>, offset: u64) -> Vec<u8> {
        let (mut range, streaming) = pipe.range(offset);
        let mut read = Vec::new();
        range.read_to_end(&mut read).await.unwrap();
        assert_eq!(streaming.moved(), read.len() as u64);
        read
    }

    #[tokio::test]
    async fn what_is_not_confirmed_can_be_read_again() {
        let content: Vec<u8> = (0..400_000_u32).map(|position| u8::try_from(position % 251).unwrap()).collect();
        let mut pipe = Pipe::new(&content[..], "-".into());
        assert!(pipe.fill(0, 300_000).await.unwrap());
        assert_eq!((pipe.read(), pipe.size()), (300_000, None));
        assert!(!pipe.fill(0, 300_000).await.unwrap(), "it is there already");
        for offset in [0, 1, 131_071, 131_072, 131_073, 299_999, 300_000] {
            assert!(bytes(&pipe, offset as u64).await == content[offset..300_000], "{offset}");
        }
        pipe.forget(200_000);
        assert_eq!(pipe.kept_from(), 200_000);
        assert!(bytes(&pipe, 200_000).await == content[200_000..300_000]);
        assert!(pipe.fill(200_000, 300_000).await.unwrap());
        assert_eq!((pipe.read(), pipe.size()), (400_000, Some(400_000)));
        assert!(bytes(&pipe, 200_000).await == content[200_000..]);
        pipe.forget(u64::MAX);
        assert_eq!((pipe.kept_from(), pipe.kept.len()), (400_000, 0));
        assert_eq!(pipe.digests().crc32c, Crc32c(crc32c::crc32c(&content)));
    }

    #[tokio::test]
    async fn no_more_is_kept_than_one_chunk() {
        let mut pipe = Pipe::new(tokio::io::repeat(7), "-".into());
        let mut offset = 0;
        for confirmed in [256 << 10, 0, 100, 256 << 10] {
            pipe.fill(offset, 256 << 10).await.unwrap();
            assert_eq!(pipe.kept.iter().map(Bytes::len).sum::<usize>(), 256 << 10);
            offset += confirmed;
            pipe.forget(offset);
        }
    }

    #[tokio::test]
    async fn an_end_on_a_border_shows_at_the_next_reading() {
        let mut pipe = Pipe::new(&[7; 256][..], "-".into());
        assert!(pipe.fill(0, 256).await.unwrap());
        assert_eq!(pipe.size(), None);
        assert!(pipe.fill(256, 256).await.unwrap(), "the end is news");
        assert_eq!(pipe.size(), Some(256));
        assert!(!pipe.fill(256, 256).await.unwrap());
        assert!(bytes(&pipe, 256).await.is_empty());
    }
}
