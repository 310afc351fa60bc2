//! The uploads that the demo performs, and the table that says how they went.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use super::Demo;
use crate::client::{ChunkSize, Client, Event, FinalState, Http, Order, Patience, Token, UploadReport};
use crate::clock::Randomness;
use crate::emulator::faults::{Action, Fault};
use crate::emulator::journal::Operation;
use crate::model::secret::SecretText;
use crate::model::size::ByteCount;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was tried.
    pub sample: &'static str,
    /// Whether something was put in its way that only a resumption gets over.
    pub interrupted: bool,
    /// How it went.
    pub report: UploadReport,
}

impl Row {
    /// Whether the upload ended as it should, and what was to interrupt it did.
    pub fn is_good(&self) -> bool {
        self.report.state == FinalState::Completed && (self.report.resumes > 0) == self.interrupted
    }
}

impl Demo {
    /// Uploads the samples into `folder`'s files' objects: one that goes through, one whose connection is cut, and one
    /// whose client dies in the middle and is started again.
    ///
    /// # Errors
    /// When a sample has no final state.
    pub async fn upload_samples(&self, folder: &Path) -> anyhow::Result<Vec<Row>> {
        let client = Client {
            http: Http::new(&[])?,
            broker: self.broker().parse()?,
            token: Token::Fixed(SecretText::new(self.token("ada")?)),
            patience: Patience { first_pause: Duration::from_millis(200), ..Patience::default() },
            randomness: Randomness::System,
        };

        let note = order(folder, "note.txt", 1_500, "notes").await?;
        let plain = client.upload(&note.0, &note.1, &|_| {}).await?;

        let clip = order(folder, "clip.mp4", 6 << 20, "videos").await?;
        self.storage
            .faults()
            .add(Fault { skip: 2, ..Fault::once(Operation::Chunk, Action::PersistThenReset { bytes: 300_000 }) });
        let cut = client.upload(&clip.0, &clip.1, &|_| {}).await?;

        let holiday = order(folder, "holiday.mp4", 12 << 20, "videos").await?;
        die_halfway(&client, &holiday.0, &holiday.1).await?;
        let resumed = client.upload(&holiday.0, &holiday.1, &|_| {}).await?;

        Ok(vec![
            Row { sample: "a small file", interrupted: false, report: plain },
            Row { sample: "the connection is cut", interrupted: true, report: cut },
            Row { sample: "the client dies, and is started again", interrupted: true, report: resumed },
        ])
    }
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

/// A sample file, with bytes that differ all over, and how to upload it.
async fn order(folder: &Path, name: &str, size: usize, policy: &str) -> anyhow::Result<(PathBuf, Order)> {
    let file = folder.join(name);
    let bytes: Vec<u8> =
        (0_u64..).flat_map(|word| (word.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes()).take(size).collect();
    tokio::fs::write(&file, bytes).await.with_context(|| format!("{} cannot be written", file.display()))?;
    let order = Order {
        policy: Some(policy.parse()?),
        metadata: std::collections::BTreeMap::from([("source".to_owned(), "demo".to_owned())]),
        chunk: Some(ChunkSize::new(ByteCount::mib(1))?),
        ..Order::default()
    };
    Ok((file, order))
}

/// The rows as text, in columns.
pub fn table(rows: &[Row]) -> String {
    let head = ["sample", "policy", "object", "bytes", "chunks", "resumes", "state", "ms"].map(str::to_owned);
    let lines: Vec<[String; 8]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            // Numbers stand to the right, words to the left. Writing to a `String` cannot fail.
            let _ = match column {
                3..=5 | 7 => write!(text, "{cell:>width$}  ", width = widths[column]),
                _ => write!(text, "{cell:<width$}  ", width = widths[column]),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; 8] {
    let Row { sample, report, .. } = row;
    let state = match &report.state {
        FinalState::Completed => "completed".to_owned(),
        FinalState::Rejected { code, .. } => format!("rejected ({code})"),
        FinalState::Cancelled => "cancelled".to_owned(),
        FinalState::Expired => "expired".to_owned(),
    };
    [
        (*sample).to_owned(),
        report.policy.clone(),
        report.object.clone(),
        report.bytes.to_string(),
        report.chunks.to_string(),
        report.resumes.to_string(),
        state,
        report.elapsed.as_millis().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::TransferKind;

    #[test]
    fn a_sample_is_good_when_its_interruption_took_place() {
        let report = |resumes| UploadReport {
            id: crate::model::id::UploadId::new(crate::model::id::Partition(0), [0; 16]),
            policy: "videos".to_owned(),
            region: None,
            object: "videos/a".to_owned(),
            bytes: 1,
            crc32c: crate::model::digest::Crc32c(0),
            chunks: 1,
            resumes,
            renewals: 0,
            transfer: TransferKind::Resumable,
            state: FinalState::Completed,
            elapsed: Duration::ZERO,
        };
        for (interrupted, resumes, good) in [(false, 0, true), (true, 1, true), (true, 0, false), (false, 1, false)] {
            let row = Row { sample: "a sample", interrupted, report: report(resumes) };
            assert_eq!(row.is_good(), good, "{interrupted} {resumes}");
        }
        let cancelled = UploadReport { state: FinalState::Cancelled, ..report(0) };
        assert!(!Row { sample: "a sample", interrupted: false, report: cancelled }.is_good());
    }
}
