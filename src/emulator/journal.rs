//! What was asked of the emulator, in the order in which the calls ended: a bounded ring for tests to read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::time::Timestamp;

/// What a call is, as journal and faults name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST …?uploadType=resumable`; in the XML API `POST` with `x-goog-resumable: start`.
    Initiate,
    /// `POST …?uploadType=media` or `multipart`; in the XML API `PUT` of a whole object.
    Simple,
    /// Bytes for a session.
    Chunk,
    /// `Content-Range: bytes */…` on a session, also when it ends the upload.
    Status,
    /// `DELETE` on a session.
    Cancel,
    /// An object's metadata, in the XML API its headers.
    Get,
    /// An object's bytes.
    Download,
    /// The objects of a bucket.
    List,
    /// A change of an object's metadata.
    Patch,
    /// The removal of an object.
    Delete,
    /// A bucket's metadata.
    Bucket,
    /// A new bucket.
    CreateBucket,
    /// A change of a bucket's metadata.
    PatchBucket,
    /// Where a bucket is.
    Layout,
    /// Which permissions the caller has.
    TestPermissions,
    /// An access token from the token server.
    Token,
    /// An access token from IAM Credentials.
    GenerateAccessToken,
    /// A signature from IAM Credentials.
    SignBlob,
    /// A new notification config of a bucket.
    CreateNotificationConfig,
    /// The notification configs of a bucket.
    ListNotificationConfigs,
    /// One of them.
    GetNotificationConfig,
    /// The removal of one.
    DeleteNotificationConfig,
    /// The public keys that check the tokens of pushes, or where they are.
    SigningKeys,
    /// `OPTIONS`.
    Preflight,
    /// Whatever is not served.
    Other,
}

/// How many bytes of each text of an entry are kept: more than the longest name of an object, encoded, has.
const TEXT_BYTES: usize = 4096;

/// One call. Holds no secret: a session is named by its number. Long texts are cut at 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Counts from 1, without gaps.
    pub sequence: u64,
    /// When the call ended, by the emulator's time.
    pub at: Timestamp,
    /// When it ended, in milliseconds since the emulator started, by a clock that nobody moves.
    pub elapsed_ms: u64,
    /// What it was.
    pub operation: Operation,
    /// The HTTP method.
    pub method: String,
    /// The path as sent.
    pub path: String,
    /// The query as sent, without `upload_id`, signatures, tokens and keys.
    pub query: String,
    /// The bucket it named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The object it named; of a session the object that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The session's number, the first initiation being 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// `None` when the connection was cut, from either side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The request's `Content-Range`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_range: Option<String>,
    /// The request's `Origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// How many bytes of the body were read.
    pub received: u64,
    /// How many bytes of the session were persisted afterwards, while it was open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persisted: Option<u64>,
    /// Whether a fault had a hand in it, or a bad network.
    pub faulty: bool,
}

impl Entry {
    fn cut(&mut self) {
        let always = [&mut self.method, &mut self.path, &mut self.query];
        let perhaps = [&mut self.bucket, &mut self.object, &mut self.content_range, &mut self.origin];
        for text in always.into_iter().chain(perhaps.into_iter().flatten()) {
            let end = (0..=TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
        }
    }
}

/// The journal. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    started: Instant,
    ring: Mutex<Ring>,
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    sequence: u64,
}

impl Journal {
    pub(super) fn new(limit: usize) -> Self {
        let shared = Shared {
            limit: limit.max(1),
            started: Instant::now(),
            ring: Mutex::default(),
            latest: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls that ended, oldest first; only as many as the ring holds.
    pub fn entries(&self) -> Vec<Entry> {
        self.since(0)
    }

    /// The calls with a sequence number above `sequence`.
    pub fn since(&self, sequence: u64) -> Vec<Entry> {
        self.lock().entries.iter().filter(|entry| entry.sequence > sequence).cloned().collect()
    }

    /// How many calls of that kind the ring holds.
    pub fn count(&self, operation: Operation) -> usize {
        self.lock().entries.iter().filter(|entry| entry.operation == operation).count()
    }

    /// Forgets all calls; sequence numbers go on.
    pub fn clear(&self) {
        self.lock().entries.clear();
    }

    /// The first call in the ring that `matches`, as soon as there is one. Without an end of its own: put a time-out
    /// around it.
    pub async fn wait_for(&self, matches: impl Fn(&Entry) -> bool) -> Entry {
        let mut latest = self.shared.latest.subscribe();
        loop {
            let found = self.lock().entries.iter().find(|entry| matches(entry)).cloned();
            if let Some(found) = found {
                return found;
            }
            // The sender lives as long as this handle, so that an error cannot come.
            if latest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn record(&self, mut entry: Entry) {
        entry.cut();
        let mut ring = self.lock();
        ring.sequence += 1;
        entry.sequence = ring.sequence;
        // Under the lock, so that it never goes back from one entry to the next.
        entry.elapsed_ms = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if ring.entries.len() >= self.shared.limit {
            ring.entries.pop_front();
        }
        ring.entries.push_back(entry);
        self.shared.latest.send_replace(ring.sequence);
    }
}

/// An entry in the making, which is recorded when it is dropped: also when the client went away in between.
#[derive(Debug)]
pub(super) struct Recording {
    journal: Journal,
    entry: Option<Entry>,
}

impl Recording {
    pub(super) fn new(journal: Journal, entry: Entry) -> Self {
        Self { journal, entry: Some(entry) }
    }

    /// Writes into the entry.
    pub(super) fn note(&mut self, write: impl FnOnce(&mut Entry)) {
        if let Some(entry) = &mut self.entry {
            write(entry);
        }
    }

    /// Records the entry now, before what made it is over.
    pub(super) fn finish(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.journal.record(entry);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.finish();
    }
}
