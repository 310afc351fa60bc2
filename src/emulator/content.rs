//! The bytes of an object: digested as they come, kept only while they are few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Bytes;
use md5::Digest as _;

use crate::model::digest::{Crc32c, Md5};

/// How much memory all kept bytes together may take, and how much one object.
#[derive(Debug)]
pub(super) struct Memory {
    limit: u64,
    per_object: u64,
    used: AtomicU64,
}

impl Memory {
    pub(super) fn new(limit: u64, per_object: u64) -> Arc<Self> {
        Arc::new(Self { limit, per_object, used: AtomicU64::new(0) })
    }

    fn reserve(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit)
        });
        taken.is_ok()
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Kept bytes, which give their memory back when the last reader lets go of them.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    memory: Arc<Memory>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.memory.release(self.bytes.len() as u64);
    }
}

/// What has been persisted of an object so far.
#[derive(Debug)]
pub(super) struct Content {
    size: u64,
    crc32c: u32,
    md5: md5::Md5,
    /// `None` as soon as the object, or all of them together, became too large to keep.
    kept: Option<Kept>,
}

impl Content {
    pub(super) fn empty(memory: &Arc<Memory>) -> Self {
        let kept = Some(Kept { bytes: Vec::new(), memory: Arc::clone(memory) });
        Self { size: 0, crc32c: 0, md5: md5::Md5::new(), kept }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Persists `data` behind what is there already.
    pub(super) fn append(&mut self, data: &[u8]) {
        self.size += data.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, data);
        self.md5.update(data);
        if let Some(kept) = &mut self.kept {
            if self.size <= kept.memory.per_object && kept.memory.reserve(data.len() as u64) {
                kept.bytes.extend_from_slice(data);
            } else {
                self.kept = None;
            }
        }
    }

    /// Ends it: nothing is appended any more.
    pub(super) fn seal(self) -> Sealed {
        Sealed {
            size: self.size,
            md5: Md5(self.md5.finalize().into()),
            crc32c: Crc32c(self.crc32c),
            bytes: self.kept.map(Bytes::from_owner),
        }
    }
}

/// The content of an object that is complete.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) size: u64,
    pub(super) md5: Md5,
    pub(super) crc32c: Crc32c,
    /// `None` when it was too large to keep.
    pub(super) bytes: Option<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_do_not_depend_on_how_the_bytes_came() {
        let memory = Memory::new(1000, 1000);
        let mut content = Content::empty(&memory);
        for part in ["hello", "", " ", "world"] {
            content.append(part.as_bytes());
        }
        let sealed = content.seal();
        assert_eq!((sealed.size, sealed.bytes.as_deref()), (11, Some(&b"hello world"[..])));
        assert_eq!(sealed.crc32c.to_string(), "yZRlqg==");
        assert_eq!(sealed.md5.to_string(), "XrY7u+Ae7tCTyyK7j1rNww==");
        let empty = Content::empty(&memory).seal();
        assert_eq!(empty.crc32c.to_string(), "AAAAAA==");
        assert_eq!(empty.md5.to_string(), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let memory = Memory::new(15, 10);
        let fill = |bytes: usize| {
            let mut content = Content::empty(&memory);
            content.append(&vec![7; bytes]);
            content
        };
        let too_large = fill(11).seal();
        assert_eq!((too_large.size, too_large.bytes.is_none()), (11, true), "more than one object may keep");
        let first = fill(10);
        assert!(fill(6).seal().bytes.is_none(), "more than all together may keep");
        assert_eq!(memory.used.load(Ordering::Relaxed), 10);
        drop(first);
        let second = fill(10).seal();
        let reader = second.bytes.clone();
        drop(second);
        assert_eq!(memory.used.load(Ordering::Relaxed), 10, "a reader holds it still");
        drop(reader);
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}
