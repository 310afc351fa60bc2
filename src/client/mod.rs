//! The reference client: gets one file through a broker into storage, whatever happens on the way.
//!
//! What every client of the broker has to do stands here once, for the command line, the demo and tests: hash, ask the
//! broker for a session, send chunks, believe storage about what arrived, wait and ask after trouble, continue after a
//! kill, and have the broker verify the end. It shares no code with the service but the vocabulary, as any other client.
//!
//! ```text
//! Client::upload → source (digests, ranges)   state (what survives a kill)
//!                → run ── broker (the broker's API, wire)
//!                      └─ session (storage: ask, send)
//!                         pace (pauses, patience)   progress (what a caller sees)   error
//! ```
//!
//! Memory is bounded by one hash block or one piece of a chunk, whatever the size of file and chunk. Nothing secret is
//! written: the state file holds the upload's id, and the broker gives its owner the session URI again.

mod broker;
mod error;
mod http;
mod pace;
mod progress;
mod run;
mod session;
mod source;
mod state;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Randomness;
use crate::model::address::UpstreamUrl;
use crate::model::digest::Crc32c;
use crate::model::id::UploadId;
use crate::model::name::{ContentType, PolicyName};

pub use broker::Token;
pub use error::{Content, Error, Operation, Refusal, Trouble, Violation};
pub(crate) use http::read_body;
pub use http::{Http, read_roots};
pub use pace::Patience;
pub use progress::{Anew, Event, Watch};
pub use session::ChunkSize;
pub(crate) use wire::presentable;

use broker::Broker;
use pace::Pace;
use run::Run;
use session::Tally;
use source::Source;
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

/// One file to be uploaded, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The file.
    pub file: PathBuf,
    /// The policy; left out, the one that admits the user.
    pub policy: Option<PolicyName>,
    /// The media type; left out, it is guessed from the file's extension.
    pub content_type: Option<ContentType>,
    /// Custom metadata for the object.
    pub metadata: BTreeMap<String, String>,
    /// The chunk size; left out, what the broker advises.
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
    /// The size of the file.
    pub bytes: u64,
    /// The checksum of the file; a completed object has the same.
    pub crc32c: Crc32c,
    /// Requests that carried bytes, repeats included.
    pub chunks: u64,
    /// Times that the transfer went on where storage said, after an interruption in this run or before it.
    pub resumes: u64,
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

impl Client {
    /// Uploads one file, or continues to where an earlier run was stopped, and waits for the final state.
    ///
    /// May be dropped at any point: what storage persisted stays, and calling it again with the same order goes on from
    /// there. The state file is removed when the upload is final, or can never be.
    ///
    /// # Errors
    /// When there is no final state to report. [`Error`] says which of them a later call may get over.
    pub async fn upload(&self, order: &Order, watch: Watch<'_>) -> Result<UploadReport, Error> {
        let begun = Instant::now();
        let source = Source::look(&order.file).await?;
        let total = source.size();
        let digests = source.digest(|done| watch(Event::Hashing { done, total })).await?;
        watch(Event::Hashed { bytes: total });
        let request = CreateUpload {
            policy: order.policy.as_ref().map(ToString::to_string),
            filename: source.name().to_string(),
            content_type: order.content_type.as_ref().map_or(source.content_type().to_owned(), ToString::to_string),
            size_bytes: total,
            md5: Some(digests.md5.to_string()),
            crc32c: Some(digests.crc32c.to_string()),
            metadata: order.metadata.clone(),
        };
        let run = Run {
            broker: Broker::new(self.http.clone(), self.broker.clone(), self.token.clone()),
            http: &self.http,
            patience: self.patience,
            randomness: &self.randomness,
            watch,
            chunk: order.chunk,
            state_file: StateFile::of(source.path(), order.state_directory.as_deref()).await?,
            source,
            crc32c: digests.crc32c,
            request,
            pace: Pace::new(self.patience, &self.randomness, watch),
            tally: Tally::default(),
        };
        let report = run.drive().await?;
        Ok(UploadReport { elapsed: begun.elapsed(), ..report })
    }
}
