//! The reference client on a rough road: whatever happens between it and storage, the object is the source.
//!
//! `WIRE_CASES` sets the number of cases, `WIRE_SEED` the first of their seeds.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use upload_broker::client::{
    ChunkSize, Client, Error, Event, FinalState, Http, Order, Patience, Token, TransferKind, UploadReport,
};
use upload_broker::clock::{Clock, Randomness};
use upload_broker::emulator::journal::{Entry, Operation};
use upload_broker::model::secret::SecretText;
use upload_broker::model::size::ByteCount;
use upload_broker::model::time::Timestamp;

use crate::support::broker::emulator;
use crate::support::process::{Process, command};
use crate::support::rough::{Bump, QUANTUM, Rough};
use crate::support::user::token;
use crate::support::{BUCKET, Broker, Settings, noise};

const POLICIES: &str = "[[policies]]\nname = \"all\"\nobject = \"all/{sub}/{id}\"\nmax_size = \"16MiB\"\n\
                        unknown_size = true\ntransfers = [\"resumable\", \"simple\", \"signed_resumable\"]\n";

/// A broker whose storage is behind a rough road.
struct Scene {
    broker: Broker,
    road: Rough,
    http: Http,
    folder: TempDir,
}

impl Scene {
    async fn new(api: &str) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let storage = emulator(clock.clone()).await;
        let road = Rough::to(storage.address()).await;
        let settings = Settings {
            policies: POLICIES.to_owned(),
            endpoint: Some(road.url()),
            storage: format!("api = \"{api}\"\ncredentials = {{ file = \"sa.json\" }}"),
            ..Settings::default()
        };
        let broker = Broker::start_beside(storage, clock, settings).await;
        // Keys and roots are slow to read: one client for all cases.
        Self { broker, road, http: Http::new(&[]).unwrap(), folder: TempDir::new().unwrap() }
    }

    fn client(&self, subject: &str) -> Client {
        Client {
            http: self.http.clone(),
            broker: format!("http://{}", self.broker.address).parse().unwrap(),
            token: Token::Fixed(SecretText::new(token(subject, self.broker.clock.now(), &[]))),
            patience: Patience {
                first_pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(4),
                give_up_after: Duration::from_secs(20),
                stalled_after: Duration::from_secs(10),
            },
            randomness: Randomness::System,
        }
    }

    /// Uploads `bytes` as a file.
    async fn upload(&self, subject: &str, bytes: &[u8], order: &Order) -> Result<UploadReport, Error> {
        let file = self.folder.path().join(subject);
        std::fs::write(&file, bytes).unwrap();
        self.client(subject).upload(&file, order, &|_| {}).await
    }

    /// Uploads `bytes` as they come out of a pipe.
    async fn stream(&self, subject: &str, bytes: &[u8], order: &Order) -> Result<UploadReport, Error> {
        let (reading, mut writing) = tokio::io::duplex(50_000);
        let bytes = bytes.to_vec();
        let writer = tokio::spawn(async move { writing.write_all(&bytes).await });
        let outcome = self.client(subject).stream(reading, order, &|_| {}).await;
        writer.abort();
        outcome
    }

    #[track_caller]
    fn holds(&self, name: &str, outcome: Result<UploadReport, Error>, bytes: &[u8]) -> UploadReport {
        let report = outcome.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(report.state, FinalState::Completed, "{name}");
        let object = self.broker.storage.object(BUCKET, &report.object).unwrap_or_else(|| panic!("{name}: no object"));
        assert!(object.bytes.as_deref() == Some(bytes), "{name}: the object is not the source");
        assert_eq!((object.crc32c, report.bytes), (report.crc32c, bytes.len() as u64), "{name}");
        report
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Known,
    Unknown,
}

/// One upload and its mishaps, as a seed decides them.
#[derive(Debug)]
struct Case {
    length: usize,
    transfer: TransferKind,
    size: Size,
    chunk: usize,
    bumps: Vec<Bump>,
}

impl Case {
    fn of(seed: u64) -> Self {
        // The seeds are neighbours, and so would be the numbers.
        let randomness = Randomness::seeded(u64::from_le_bytes(Randomness::seeded(seed).bytes()));
        let below = |limit: usize| {
            let number = u64::from_le_bytes(randomness.bytes());
            usize::try_from(number % limit as u64).unwrap()
        };
        let border = (1 + below(8)) * QUANTUM;
        let length = match below(8) {
            0 => below(2),
            1 => border - 1,
            2 => border,
            3 => border + 1,
            _ => below(5 << 20),
        };
        let chunk = (1 + below(4)) * QUANTUM;
        let size = if below(2) == 0 { Size::Known } else { Size::Unknown };
        let bump = |_| match below(14) {
            0..=2 => Bump::None,
            3 | 4 => Bump::Cut(below(chunk + 1)),
            5 | 6 => Bump::LoseAnswer,
            7 => Bump::Twice,
            8 => Bump::Again,
            9 => Bump::Delay(below(5) as u64),
            10 => Bump::Refuse,
            11 | 12 => Bump::Shorten(1 + below(3)),
            _ => Bump::RefuseAfter,
        };
        let bumps = (0..below(16)).map(bump).collect();
        let transfer = if below(3) == 0 { TransferKind::SignedResumable } else { TransferKind::Resumable };
        Self { length, transfer, size, chunk, bumps }
    }

    fn order(&self) -> Order {
        let chunk = ChunkSize::new(ByteCount(self.chunk as u64)).unwrap();
        Order { transfer: self.transfer, chunk: Some(chunk), ..Order::default() }
    }

    /// What is wrong with a request, if anything.
    fn offence(&self, entry: &Entry) -> Option<&'static str> {
        let range = entry.content_range.as_deref()?.strip_prefix("bytes ")?;
        let (positions, total) = range.split_once('/')?;
        if total != "*" && total != self.length.to_string() {
            return Some("another size");
        }
        // A question or an end has no positions.
        let (first, last) = positions.split_once('-')?;
        let [first, last]: [usize; 2] = [first, last].map(|number| number.parse().unwrap());
        let is_last = last + 1 == self.length && total != "*";
        if first % QUANTUM != 0 || (!is_last && (last + 1) % QUANTUM != 0) || last >= self.length {
            return Some("positions that cannot be");
        }
        // A chunk behind the end of what is there is refused, and what is there stays as it is.
        entry.persisted.filter(|persisted| (first as u64) > *persisted).map(|_| "a gap")
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var_os(variable).map_or(default, |text| text.to_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_object_is_the_source_whatever_happens_on_the_way() {
    let scenes = [Scene::new("json").await, Scene::new("xml").await];
    let first = number("WIRE_SEED", 0);
    let mut met = 0;
    for seed in first..first + number("WIRE_CASES", 40) {
        let case = Case::of(seed);
        let scene = &scenes[usize::from(seed % 2 == 1)];
        let name = format!("seed {seed}, {case:?}");
        let bytes = noise(case.length, seed);
        let begun = scene.broker.storage.journal().entries().last().map_or(0, |entry| entry.sequence);
        scene.road.bumps(case.bumps.clone());
        let subject = format!("user-{seed}");
        let upload = async {
            match case.size {
                Size::Known => scene.upload(&subject, &bytes, &case.order()).await,
                Size::Unknown => scene.stream(&subject, &bytes, &case.order()).await,
            }
        };
        let Ok(outcome) = tokio::time::timeout(Duration::from_secs(60), upload).await else {
            panic!("{name}: no end");
        };
        scene.holds(&name, outcome, &bytes);
        met += case.bumps.len() - scene.road.left();
        let entries = scene.broker.storage.journal().since(begun);
        for entry in entries.iter().filter(|entry| matches!(entry.operation, Operation::Chunk | Operation::Status)) {
            assert_eq!(case.offence(entry), None, "{name}: {entry:?}");
        }
        let opened = entries.iter().filter(|entry| entry.operation == Operation::Initiate).count();
        assert_eq!(opened, 1, "{name}: nothing of this loses a session");
    }
    assert!(met > 0, "the road was smooth");
}

#[tokio::test]
async fn signed_urls_carry_files_too() {
    let scene = Scene::new("json").await;
    for kind in [TransferKind::Simple, TransferKind::SignedResumable] {
        for length in [0, 1, QUANTUM, 700_000] {
            let bytes = noise(length, 3);
            let chunk = Some(ChunkSize::new(ByteCount(QUANTUM as u64)).unwrap());
            let order = Order { transfer: kind, chunk, ..Order::default() };
            let outcome = scene.upload("ada", &bytes, &order).await;
            let report = scene.holds(&format!("{kind}, {length}"), outcome, &bytes);
            assert_eq!((report.transfer, report.renewals), (kind, 0));
        }
    }
}

/// A client that is stopped, and started again when its URL has ended.
#[tokio::test]
async fn a_signed_url_that_ends_is_replaced() {
    let scene = Scene::new("json").await;
    for kind in [TransferKind::Simple, TransferKind::SignedResumable] {
        let bytes = noise(300_000, 4);
        let file = scene.folder.path().join("late");
        std::fs::write(&file, &bytes).unwrap();
        let order = Order { transfer: kind, ..Order::default() };
        let admitted = tokio::sync::Notify::new();
        let watch = |event: Event<'_>| {
            if let Event::Admitted { .. } = event {
                admitted.notify_one();
            }
        };
        let client = scene.client("ada");
        tokio::select! {
            biased;
            () = admitted.notified() => {}
            outcome = client.upload(&file, &order, &watch) => panic!("{kind}: too fast: {outcome:?}"),
        }
        scene.broker.clock.advance(Duration::from_secs(16 * 60));
        let outcome = scene.client("ada").upload(&file, &order, &|_| {}).await;
        let report = scene.holds(&kind.to_string(), outcome, &bytes);
        assert_eq!(report.renewals, 1, "{kind}");
    }
}

/// Storage takes any number of bytes of a session without a size: who sends asks the broker now and then.
#[tokio::test]
async fn a_pipe_without_an_end_is_stopped() {
    let scene = Scene::new("json").await;
    let report = scene.client("ada").stream(tokio::io::repeat(7), &Order::default(), &|_| {}).await.unwrap();
    assert!(matches!(&report.state, FinalState::Rejected { code, .. } if code == "size-limit"), "{:?}", report.state);
    assert!(report.bytes <= 32 << 20, "{} bytes of at most 16 MiB", report.bytes);
}

#[tokio::test]
async fn the_command_uploads_what_is_piped_into_it() {
    let scene = Scene::new("json").await;
    let bytes = noise(700_000, 5);
    let token_file = scene.folder.path().join("token");
    std::fs::write(&token_file, token("ada", scene.broker.clock.now(), &[])).unwrap();
    let mut command = command();
    command.args(["upload", "-", "--name", "talk.mp4", "--chunk-size", "256KiB", "--broker"]);
    command.arg(format!("http://{}", scene.broker.address)).arg("--token-file").arg(&token_file);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = tokio::task::spawn_blocking(move || {
        input.write_all(&bytes).unwrap();
        drop(input);
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("stdin: reads a pipe") && shown.contains("262144 bytes so far"), "{shown}");
    assert!(shown.contains("stdin: completed, 700000 bytes, 3 chunks, 0 resumes, crc32c "), "{shown}");
}

#[tokio::test]
async fn sigterm_cancels_what_comes_out_of_a_pipe() {
    let scene = Scene::new("json").await;
    let (pipe, token_file) = (scene.folder.path().join("talk.mp4"), scene.folder.path().join("token"));
    std::fs::write(&token_file, token("ada", scene.broker.clock.now(), &[])).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Who also reads does not wait for a reader. The pipe does not end before this is dropped.
    let writer = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let mut command = command();
    command.arg("upload").arg(&pipe).arg("--broker").arg(format!("http://{}", scene.broker.address));
    command.arg("--token-file").arg(&token_file);
    let ended = tokio::task::spawn_blocking(move || {
        let mut process = Process::spawn(command);
        process.line_with("talk.mp4: upload ");
        process.signal("TERM");
        let code = process.wait().code();
        // What was printed last may still be on its way.
        process.line_with("talk.mp4: stopped; the upload is cancelled");
        code
    });
    assert_eq!(ended.await.unwrap(), Some(143));
    drop(writer);
}
