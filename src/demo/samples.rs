//! The uploads that the demo performs, and the table that says how they went.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;

use super::Demo;
use super::globe::Stand;
use super::table::columns;
use crate::client::{ChunkSize, Client, Event, FinalState, Http, Order, Patience, Token, TransferKind, UploadReport};
use crate::clock::Randomness;
use crate::emulator::faults::{Action, Fault};
use crate::emulator::journal::Operation;
use crate::geo::Country;
use crate::model::secret::SecretText;
use crate::model::size::ByteCount;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was tried.
    pub sample: &'static str,
    /// How it should go.
    pub expected: Expected,
    /// How it went.
    pub report: UploadReport,
}

/// How a sample should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Without anything in its way.
    Straight,
    /// Over something that only a resumption gets over.
    Resumed,
    /// Over the loss of its session.
    Renewed,
    /// To the end, where it breaks a limit.
    Rejected,
}

impl Row {
    /// Whether the upload ended as it should, and what was to stand in its way did.
    pub fn is_good(&self) -> bool {
        let UploadReport { state, resumes, renewals, .. } = &self.report;
        match (self.expected, state) {
            (Expected::Straight, FinalState::Completed) => (*resumes, *renewals) == (0, 0),
            (Expected::Resumed, FinalState::Completed) => *resumes > 0 && *renewals == 0,
            (Expected::Renewed, FinalState::Completed) => *renewals > 0,
            (Expected::Rejected, FinalState::Rejected { code, .. }) => code == "size-limit",
            _ => false,
        }
    }
}

impl Demo {
    /// Uploads the samples from beside the first region, files in `folder` and pipes: by every kind of transfer, with the connection cut,
    /// with the client killed and started again, with the session lost, and with more bytes than there may be.
    ///
    /// # Errors
    /// When a sample has no final state.
    pub async fn upload_samples(&self, folder: &Path) -> anyhow::Result<Vec<Row>> {
        let (region, storage) =
            self.globe.regions().first().zip(self.storages.first()).context("there is no region")?;
        // Where that region is.
        region.lead(Country::of("BE").context("there is no Belgium")?, Stand::Beside);
        let client = Client {
            http: Http::new(&[])?,
            broker: region.broker.parse()?,
            token: Token::Fixed(SecretText::new(self.token("ada")?)),
            patience: Patience { first_pause: Duration::from_millis(200), ..Patience::default() },
            randomness: Randomness::System,
        };

        let mut rows = Vec::new();
        let mut tell = |sample, expected, report| rows.push(Row { sample, expected, report });
        let faults = storage.faults();
        let third_chunk = |action| Fault { skip: 2, ..Fault::once(Operation::Chunk, action) };

        let (note, by_session) = file(folder, "note.txt", 1_500, order("notes")?).await?;
        tell("a small file", Expected::Straight, client.upload(&note, &by_session, &|_| {}).await?);
        let at_once = Order { transfer: TransferKind::Simple, ..order("notes")? };
        tell("one signed PUT", Expected::Straight, client.upload(&note, &at_once, &|_| {}).await?);
        let by_itself = Order { transfer: TransferKind::SignedResumable, ..order("notes")? };
        let (scan, by_itself) = file(folder, "scan.png", 3 << 20, by_itself).await?;
        tell("a session that the client opens", Expected::Straight, client.upload(&scan, &by_itself, &|_| {}).await?);

        let (clip, by_session) = file(folder, "clip.mp4", 6 << 20, order("videos")?).await?;
        faults.add(third_chunk(Action::PersistThenReset { bytes: 300_000 }));
        tell("the connection is cut", Expected::Resumed, client.upload(&clip, &by_session, &|_| {}).await?);
        faults.add(third_chunk(Action::ForgetSession));
        tell("storage forgets the session", Expected::Renewed, client.upload(&clip, &by_session, &|_| {}).await?);

        let (holiday, by_session) = file(folder, "holiday.mp4", 12 << 20, order("videos")?).await?;
        die_halfway(&client, &holiday, &by_session).await?;
        let report = client.upload(&holiday, &by_session, &|_| {}).await?;
        tell("the client dies, and is started again", Expected::Resumed, report);

        for (sample, expected, size) in [
            ("a pipe, of a size that nobody knows", Expected::Straight, 3_500_000),
            ("a pipe with more than is allowed", Expected::Rejected, 5 << 20),
        ] {
            let named = Order { name: Some("camera.mp4".parse()?), ..order("streams")? };
            tell(sample, expected, client.stream(pipe(size), &named, &|_| {}).await?);
        }
        self.globe.settle();
        Ok(rows)
    }
}

/// The end of a pipe into which somebody writes so much.
fn pipe(size: usize) -> tokio::io::DuplexStream {
    let (mut into, from) = tokio::io::duplex(64 << 10);
    // Who reads no more ends the writing.
    tokio::spawn(async move { into.write_all(&noise(size)).await });
    from
}

/// Begins an upload and drops it when half of the bytes are persisted: what is left is what `kill -9` leaves.
async fn die_halfway(client: &Client, file: &Path, order: &Order) -> anyhow::Result<()> {
    let persisted = AtomicU64::new(0);
    let half = tokio::sync::Notify::new();
    let watch = |event: Event<'_>| {
        if let Event::Persisted { bytes, total } = event {
            persisted.store(bytes, Ordering::Relaxed);
            if total.is_some_and(|total| bytes * 2 >= total) {
                half.notify_one();
            }
        }
    };
    tokio::select! {
        () = half.notified() => Ok(()),
        ended = client.upload(file, order, &watch) => {
            ended.context("the client could not even begin")?;
            anyhow::bail!("the client was done before it could die")
        }
    }
}

/// A sample file, with how to upload it.
pub(super) async fn file(folder: &Path, name: &str, size: usize, order: Order) -> anyhow::Result<(PathBuf, Order)> {
    let file = folder.join(name);
    let written = tokio::fs::write(&file, noise(size)).await;
    written.with_context(|| format!("{} cannot be written", file.display()))?;
    Ok((file, order))
}

/// Bytes that differ all over.
fn noise(size: usize) -> Vec<u8> {
    (0_u64..).flat_map(|word| (word.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes()).take(size).collect()
}

/// How samples go up: in chunks of 1 MiB.
pub(super) fn order(policy: &str) -> anyhow::Result<Order> {
    Ok(Order {
        policy: Some(policy.parse()?),
        metadata: std::collections::BTreeMap::from([("source".to_owned(), "demo".to_owned())]),
        chunk: Some(ChunkSize::new(ByteCount::mib(1))?),
        ..Order::default()
    })
}

/// The rows as text, in columns.
pub fn table(rows: &[Row]) -> String {
    let head = ["sample", "transfer", "policy", "object", "bytes", "chunks", "resumes", "renewals", "state", "ms"];
    let lines: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    columns(&lines, std::array::from_fn(|column| matches!(column, 4..=7 | 9)))
}

fn cells(row: &Row) -> [String; 10] {
    let Row { sample, report, .. } = row;
    let state = match &report.state {
        FinalState::Completed => "completed".to_owned(),
        FinalState::Rejected { code, .. } => format!("rejected ({code})"),
        FinalState::Cancelled => "cancelled".to_owned(),
        FinalState::Expired => "expired".to_owned(),
    };
    [
        (*sample).to_owned(),
        report.transfer.to_string(),
        report.policy.clone(),
        report.object.clone(),
        report.bytes.to_string(),
        report.chunks.to_string(),
        report.resumes.to_string(),
        report.renewals.to_string(),
        state,
        report.elapsed.as_millis().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::TransferKind;

    #[test]
    fn a_sample_is_good_when_what_was_in_its_way_was_there() {
        let report = |state: &FinalState, resumes, renewals| UploadReport {
            id: crate::model::id::UploadId::new(crate::model::id::Partition(0), [0; 16]),
            policy: "videos".to_owned(),
            region: None,
            object: "videos/a".to_owned(),
            transfer: TransferKind::Resumable,
            bytes: 1,
            crc32c: crate::model::digest::Crc32c(0),
            chunks: 1,
            resumes,
            renewals,
            state: state.clone(),
            elapsed: Duration::ZERO,
        };
        let rejected = |code: &str| FinalState::Rejected { code: code.to_owned(), detail: String::new() };
        for (expected, state, resumes, renewals, good) in [
            (Expected::Straight, FinalState::Completed, 0, 0, true),
            (Expected::Straight, FinalState::Completed, 1, 0, false),
            (Expected::Straight, FinalState::Cancelled, 0, 0, false),
            (Expected::Resumed, FinalState::Completed, 1, 0, true),
            (Expected::Resumed, FinalState::Completed, 0, 0, false),
            (Expected::Renewed, FinalState::Completed, 1, 1, true),
            (Expected::Renewed, FinalState::Completed, 1, 0, false),
            (Expected::Rejected, rejected("size-limit"), 0, 0, true),
            (Expected::Rejected, rejected("digest-mismatch"), 0, 0, false),
            (Expected::Rejected, FinalState::Completed, 0, 0, false),
        ] {
            let row = Row { sample: "a sample", expected, report: report(&state, resumes, renewals) };
            assert_eq!(row.is_good(), good, "{expected:?} {state:?} {resumes} {renewals}");
        }
    }
}
