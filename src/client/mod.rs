//! The reference client: gets one file or pipe through a broker into storage, whatever happens on the way.
//!
//! What every client of the broker has to do stands here once, for the command line, the demo and tests: hash, ask the
//! broker for a session, send chunks, believe storage about what arrived, wait and ask after trouble, continue after a
//! kill, and have the broker verify the end. It shares no code with the service but the vocabulary, as any other client.
//!
//! ```text
//! Client::upload → source (file, pipe)   state (what survives a kill)
//!         stream → run ── broker (the broker's API, wire)
//!                      ├─ session (storage: ask, send) ── target (URI, headers)
//!                      └─ signed (storage: put, open a session)
//!                         pace (pauses, patience)   progress (what a caller sees)   error
//! ```
//!
//! Memory is bounded: by one hash block or one piece of a chunk for a file, whatever its size; by one chunk of at most
//! 64 MiB for a pipe. Nothing secret is written: the state file holds the upload's id, and the broker gives its owner
//! the session URI again.
//!
//! The last request to a session bears the digests of the whole, `X-Goog-Hash`, whatever was declared before: only
//! sessions of the JSON API can be bound to digests when they are opened, and a pipe's are not known then. Storage
//! compares, and makes no object of other bytes.

mod broker;
mod error;
mod file;
mod http;
mod pace;
mod pipe;
mod progress;
mod run;
mod session;
mod signed;
mod source;
mod state;
mod target;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::Instant;

use crate::clock::Randomness;
use crate::model::address::UpstreamUrl;
use crate::model::digest::Crc32c;
use crate::model::id::UploadId;
use crate::model::name::{ContentType, FileName, PolicyName};

pub use broker::Token;
pub use error::{Content, Error, Operation, Refusal, Trouble, Violation};
pub(crate) use http::read_body;
pub use http::{Http, read_roots};
pub use pace::Patience;
pub use progress::{Anew, Event, Watch};
pub use session::ChunkSize;
pub use wire::TransferKind;
pub(crate) use wire::presentable;

use broker::Broker;
use file::{RegularFile, unreadable};
use pace::Pace;
use pipe::Pipe;
use run::Run;
use session::Tally;
use source::{Source, content_type, name_of};
use state::StateFile;
use wire::CreateUpload;

/// A user of one broker.
#[derive(Clone, Debug)]
pub struct Client {
    /// How broker and storage are called.
    pub http: Http,
    /// The broker.
    pub broker: UpstreamUrl,
    /// As whom the broker is called. Storage is called as nobody: the session URI is all it asks for.
    pub token: Token,
    /// How stubborn to be.
    pub patience: Patience,
    /// For idempotency keys and jitter.
    pub randomness: Randomness,
}

/// How to upload something.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Under which name; left out, the file's own, and `stdin` for what has none.
    pub name: Option<FileName>,
    /// The policy; left out, the one that admits the user.
    pub policy: Option<PolicyName>,
    /// The media type; left out, it is guessed from the name's extension.
    pub content_type: Option<ContentType>,
    /// Custom metadata for the object.
    pub metadata: BTreeMap<String, String>,
    /// How the bytes go to storage.
    pub transfer: TransferKind,
    /// The chunk size; left out, what the broker advises. A pipe's chunks are at most 64 MiB.
    pub chunk: Option<ChunkSize>,
    /// Where the state file is kept; left out, beside the file.
    pub state_directory: Option<PathBuf>,
}

/// How an upload ended, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadReport {
    /// The upload.
    pub id: UploadId,
    /// The policy that admitted it.
    pub policy: String,
    /// The region that it went to, if the broker said so.
    pub region: Option<String>,
    /// What the object is called.
    pub object: String,
    /// How the bytes went to storage.
    pub transfer: TransferKind,
    /// The size of the file, or how much was read of the pipe.
    pub bytes: u64,
    /// The checksum of that; a completed object has the same.
    pub crc32c: Crc32c,
    /// Requests that carried bytes, repeats included.
    pub chunks: u64,
    /// Times that the transfer went on where storage said, after an interruption in this run or before it.
    pub resumes: u64,
    /// Times in this run that the broker gave another session or signed URL.
    pub renewals: u64,
    /// The final state.
    pub state: FinalState,
    /// How long this run took, hashing included.
    pub elapsed: Duration,
}

/// The final state of an upload, by the broker's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalState {
    /// Storage has the object, verified.
    Completed,
    /// The object broke its promise or its policy, and was deleted.
    Rejected {
        /// What was broken.
        code: String,
        /// The same for people.
        detail: String,
    },
    /// Someone cancelled it.
    Cancelled,
    /// Its time ran out.
    Expired,
}

/// The name of what has none.
const NAMELESS: &str = "stdin";

impl Client {
    /// Uploads one file, or continues to where an earlier run was stopped, and waits for the final state. The path may
    /// be that of a named pipe, which is then read as by [`Client::stream`].
    ///
    /// May be dropped at any point: what storage persisted stays, and calling it again with the same order goes on from
    /// there. The state file is removed when the upload is final, or can never be.
    ///
    /// # Errors
    /// When there is no final state to report. [`Error`] says which of them a later call may get over.
    pub async fn upload(&self, file: &Path, order: &Order, watch: Watch<'_>) -> Result<UploadReport, Error> {
        let begun = Instant::now();
        let name = order.name.clone().map_or_else(|| name_of(file), Ok)?;
        let metadata = tokio::fs::metadata(file).await.map_err(|source| unreadable(file, source))?;
        if metadata.file_type().is_fifo() {
            let order = Order { name: Some(name), ..order.clone() };
            expect_chunks(&order)?;
            watch(Event::Streaming);
            // Waits for whoever writes.
            let input = tokio::fs::File::open(file).await.map_err(|source| unreadable(file, source))?;
            return self.read(input, &order, watch, begun).await;
        }
        let file = RegularFile::look(file).await?;
        let total = file.size();
        let digests = file.digest(|done| watch(Event::Hashing { done, total })).await?;
        watch(Event::Hashed { bytes: total });
        let request = CreateUpload {
            size_bytes: Some(total),
            md5: Some(digests.md5.to_string()),
            crc32c: Some(digests.crc32c.to_string()),
            ..new_request(order, &name)
        };
        let state_file = StateFile::of(file.path(), order.state_directory.as_deref()).await?;
        self.run(Source::File(file, digests), state_file, request, order, watch, begun).await
    }

    /// Uploads what is read from a pipe until it ends, and waits for the final state. Needs a policy that admits
    /// uploads of unknown size.
    ///
    /// At most one chunk is in memory. What is read is gone with the process, so nothing is kept to resume it: the
    /// upload is cancelled when this fails. Who drops this may do the same with [`Client::cancel`].
    ///
    /// # Errors
    /// When there is no final state to report.
    pub async fn stream(
        &self,
        input: impl AsyncRead + Send + Sync + Unpin,
        order: &Order,
        watch: Watch<'_>,
    ) -> Result<UploadReport, Error> {
        expect_chunks(order)?;
        watch(Event::Streaming);
        self.read(input, order, watch, Instant::now()).await
    }

    async fn read(
        &self,
        input: impl AsyncRead + Send + Sync + Unpin,
        order: &Order,
        watch: Watch<'_>,
        begun: Instant,
    ) -> Result<UploadReport, Error> {
        let nameless = || NAMELESS.parse().map_err(|_| Error::NotAFile(NAMELESS.into()));
        let name = order.name.clone().map_or_else(nameless, Ok)?;
        let request = new_request(order, &name);
        let source = Source::Pipe(Pipe::new(input, name.to_string().into()));
        self.run(source, StateFile::Nowhere, request, order, watch, begun).await
    }

    /// Cancels an upload, trying once. What this does not reach, the upload's own expiry will.
    ///
    /// # Errors
    /// When the broker does not do it.
    pub async fn cancel(&self, id: UploadId) -> Result<(), Error> {
        let broker = Broker::new(self.http.clone(), self.broker.clone(), self.token.clone());
        broker.cancel(id, &mut Pace::hasty(self.patience, &self.randomness, &|_| {})).await
    }

    async fn run(
        &self,
        source: Source<'_>,
        state_file: StateFile,
        request: CreateUpload,
        order: &Order,
        watch: Watch<'_>,
        begun: Instant,
    ) -> Result<UploadReport, Error> {
        let run = Run {
            broker: Broker::new(self.http.clone(), self.broker.clone(), self.token.clone()),
            http: &self.http,
            patience: self.patience,
            randomness: &self.randomness,
            watch,
            chunk: order.chunk,
            state_file,
            source,
            request,
            pace: Pace::new(self.patience, &self.randomness, watch),
            tally: Tally::default(),
            known: None,
        };
        let report = run.drive().await?;
        Ok(UploadReport { elapsed: begun.elapsed(), ..report })
    }
}

/// What goes up in one request declares its size, which a pipe has not.
const fn expect_chunks(order: &Order) -> Result<(), Error> {
    match order.transfer {
        TransferKind::Simple => Err(Error::SimplePipe),
        TransferKind::Resumable | TransferKind::SignedResumable => Ok(()),
    }
}

/// A request that says nothing of the bytes.
fn new_request(order: &Order, name: &FileName) -> CreateUpload {
    CreateUpload {
        policy: order.policy.as_ref().map(ToString::to_string),
        filename: name.to_string(),
        content_type: order.content_type.as_ref().map_or(content_type(name).to_owned(), ToString::to_string),
        size_bytes: None,
        md5: None,
        crc32c: None,
        metadata: order.metadata.clone(),
        transfer_kind: order.transfer,
    }
}
