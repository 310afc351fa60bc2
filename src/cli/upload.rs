//! `upload-broker upload`: the reference client at a terminal, or in a script.

mod show;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::client::{
    ChunkSize, Client, Error, Event, FinalState, Http, Order, Patience, Token, TransferKind, read_roots,
};
use crate::clock::Randomness;
use crate::model::address::UpstreamUrl;
use crate::model::id::UploadId;
use crate::model::name::{ContentType, FileName, PolicyName};
use crate::model::time::Span;

use show::{Left, Show};

/// What shells report of a command that a signal stopped: 128 and the signal's number, 2 of SIGINT and 15 of SIGTERM.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// Stands for standard input among files.
const STANDARD_INPUT: &str = "-";

/// How long a user who stopped the upload of a pipe waits for it to be cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Uploads files through a broker, one after the other, and waits until each is verified.
///
/// A file whose upload was stopped, by Ctrl-C, a kill or a lost network, goes on where it stopped when the same command
/// is run again; what that takes is kept in FILE.upload-broker.json until the upload is final. It holds no secret.
///
/// Standard input and named pipes are uploaded as they come, without a size, under policies that admit that. They cannot
/// be read again, so what is stopped of them is cancelled.
///
/// Exits with 0 if all files are completed, with 1 if any is not, with 130 after Ctrl-C (SIGINT), with 143 after SIGTERM.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct UploadArguments {
    /// The files to upload; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The name to upload under, for one file [default: the file's own, or stdin].
    #[arg(long, value_name = "NAME")]
    name: Option<FileName>,

    /// How the bytes go to storage: resumable (in chunks), simple (at once, with a signed URL), or `signed_resumable` (in
    /// chunks, to a session opened with a signed URL).
    #[arg(long, value_name = "KIND", default_value_t)]
    transfer: TransferKind,

    /// The address of the broker.
    #[arg(long, value_name = "URL")]
    broker: UpstreamUrl,

    /// A file with the bearer token. It is read again for each call, so it may be refreshed meanwhile.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,

    /// The policy to upload under; needed only where several admit the caller.
    #[arg(long, value_name = "NAME")]
    policy: Option<PolicyName>,

    /// How much to send in one request, a multiple of 256KiB, at most 64MiB of a pipe [default: what the broker advises].
    #[arg(long, value_name = "SIZE")]
    chunk_size: Option<ChunkSize>,

    /// The media type of the files [default: guessed from each name's extension].
    #[arg(long, value_name = "TYPE")]
    content_type: Option<ContentType>,

    /// Custom metadata for the objects; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = read_pair)]
    metadata: Vec<(String, String)>,

    /// How long to go on trying without any progress.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    give_up_after: Span,

    /// Where to keep what a resume takes [default: beside each file].
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,

    /// A PEM file with root certificates to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn read_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("metadata is given as KEY=VALUE".to_owned()),
    }
}

/// Uploads all files and says how it goes: with a bar on a terminal, in lines otherwise.
///
/// # Errors
/// When nothing could even be begun. A file that fails is reported, and the next is tried.
pub(super) async fn run(arguments: UploadArguments) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => INTERRUPTED,
            _ = terminate.recv() => TERMINATED,
        }
    };
    run_until(arguments, Patience::default(), stopped, &Show::new()).await
}

async fn run_until(
    arguments: UploadArguments,
    patience: Patience,
    stopped: impl Future<Output = u8>,
    show: &Show,
) -> anyhow::Result<ExitCode> {
    let is_input = |file: &PathBuf| file == Path::new(STANDARD_INPUT);
    anyhow::ensure!(arguments.name.is_none() || arguments.files.len() == 1, "--name is for one file");
    anyhow::ensure!(arguments.files.iter().filter(|file| is_input(file)).count() < 2, "- can be read only once");
    let roots = match &arguments.ca {
        Some(path) => read_roots(path).await?,
        None => Vec::new(),
    };
    let client = Client {
        http: Http::new(&roots)?,
        broker: arguments.broker,
        token: Token::File(arguments.token_file),
        patience: Patience { give_up_after: arguments.give_up_after.0.max(Duration::from_secs(1)), ..patience },
        randomness: Randomness::System,
    };
    let order = Order {
        name: arguments.name,
        policy: arguments.policy,
        content_type: arguments.content_type,
        metadata: arguments.metadata.into_iter().collect(),
        transfer: arguments.transfer,
        chunk: arguments.chunk_size,
        state_directory: arguments.state_dir,
    };
    let mut stopped = std::pin::pin!(stopped);
    let mut code = ExitCode::SUCCESS;
    for file in arguments.files {
        let line = show.file(&file);
        let seen = Mutex::new(Seen::default());
        let watch = |event: Event<'_>| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).note(event);
            line.event(event);
        };
        let upload = async {
            if is_input(&file) {
                client.stream(tokio::io::stdin(), &order, &watch).await
            } else {
                client.upload(&file, &order, &watch).await
            }
        };
        let outcome = tokio::select! {
            biased;
            signal = &mut stopped => Err(signal),
            outcome = upload => Ok(outcome),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(signal) => {
                let seen = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                line.interrupted(seen.clear_away(&client).await);
                return Ok(ExitCode::from(signal));
            }
        };
        if !matches!(&outcome, Ok(report) if report.state == FinalState::Completed) {
            code = ExitCode::FAILURE;
        }
        let streams = seen.into_inner().unwrap_or_else(PoisonError::into_inner).streams;
        match outcome {
            Ok(report) => line.report(&report),
            Err(error) => line.failed(&error, may_be_resumed(&error) && !streams),
        }
    }
    Ok(code)
}

/// What must be known of an upload when the user stops it.
#[derive(Clone, Copy, Default)]
struct Seen {
    streams: bool,
    id: Option<UploadId>,
}

impl Seen {
    fn note(&mut self, event: Event<'_>) {
        match event {
            Event::Streaming => self.streams = true,
            Event::Admitted { id } => self.id = Some(id),
            _ => {}
        }
    }

    /// Cancels what cannot be resumed.
    async fn clear_away(self, client: &Client) -> Left {
        match self {
            Self { streams: false, .. } => Left::ToResume,
            Self { id: None, .. } => Left::NotBegun,
            Self { id: Some(id), .. } => match tokio::time::timeout(CANCEL_TIMEOUT, client.cancel(id)).await {
                Ok(Ok(())) => Left::Cancelled,
                Ok(Err(_)) | Err(_) => Left::ToExpire,
            },
        }
    }
}

/// Whether to tell the user that nothing is lost.
const fn may_be_resumed(error: &Error) -> bool {
    matches!(error, Error::GaveUp { .. } | Error::StorageRefused { status: 401 | 403, .. })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::client::tests::stand_in::{Fault, SECRET, StandIn};

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: UploadArguments,
    }

    fn parse(line: &[&str]) -> Result<UploadArguments, clap::Error> {
        Command::try_parse_from([&["upload"], line].concat()).map(|command| command.arguments)
    }

    #[test]
    fn the_command_line_is_checked_before_anything_is_done() {
        let base = ["a.mp4", "--broker", "https://eu.example.com", "--token-file", "t"];
        let arguments = parse(&base).unwrap();
        assert_eq!(arguments.give_up_after, Span::seconds(600));
        assert_eq!(arguments.transfer, TransferKind::Resumable);
        for (name, more, message) in [
            ("an odd chunk", ["--chunk-size", "1MB"], "multiple of 256KiB"),
            ("no chunk at all", ["--chunk-size", "0"], "multiple of 256KiB"),
            ("metadata without a value", ["--metadata", "album"], "KEY=VALUE"),
            ("a policy that cannot be", ["--policy", "Videos!"], "a name has"),
            ("a type that cannot be", ["--content-type", "video"], "type/subtype"),
            ("patience without a unit", ["--give-up-after", "10"], "duration"),
            ("a transfer that nobody knows", ["--transfer", "carrier_pigeon"], "signed_resumable"),
            ("a name that cannot be", ["--name", "a/b"], "name"),
        ] {
            let error = parse(&[&base[..], &more].concat()).unwrap_err().to_string();
            assert!(error.contains(message), "{name}: {error}");
        }
        let error = parse(&["a", "--broker", "http://eu.example.com", "--token-file", "t"]).unwrap_err().to_string();
        assert!(error.contains("https"), "a token does not travel in the clear: {error}");
        assert!(parse(&["--broker", "https://eu.example.com", "--token-file", "t"]).is_err(), "no file");
    }

    struct Scene {
        directory: tempfile::TempDir,
        server: StandIn,
        show: Show,
    }

    impl Scene {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let bytes = vec![7; 2000];
            for name in ["a.txt", "b.txt"] {
                std::fs::write(directory.path().join(name), &bytes).unwrap();
            }
            std::fs::write(directory.path().join("token"), "token-1").unwrap();
            Self { directory, server: StandIn::start(&bytes).await, show: Show::Kept(std::sync::Mutex::default()) }
        }

        async fn run(&self, files: &[&str], stopped: impl Future<Output = u8>) -> (ExitCode, String) {
            let broker = format!("http://{}", self.server.address);
            let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
            // Options stand as they are, and so do their values.
            let options = files.iter().position(|file| file.starts_with("--")).unwrap_or(files.len());
            let (files, options) = files.split_at(options);
            let mut line: Vec<String> = files.iter().map(|file| path(file)).collect();
            line.extend(options.iter().map(|option| (*option).to_owned()));
            line.extend(["--broker".into(), broker, "--token-file".into(), path("token")]);
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let patience = Patience { first_pause: Duration::from_millis(1), ..Patience::default() };
            let code = run_until(parse(&line).unwrap(), patience, stopped, &self.show).await.unwrap();
            let shown = self.show.kept();
            assert!(!shown.contains(SECRET) && !shown.contains("token-1"), "{shown}");
            (code, shown)
        }
    }

    #[tokio::test]
    async fn all_files_are_uploaded_and_told_of() {
        let scene = Scene::new().await;
        scene.server.fail(&[Fault::None, Fault::StatusAfter(503)]);
        let (code, shown) = scene.run(&["a.txt", "b.txt"], std::future::pending()).await;
        assert_eq!(code, ExitCode::SUCCESS);
        let expected = "a.txt: hashed 2000 bytes\n\
                        a.txt: upload 3f00000000000000000000000000000000\n\
                        a.txt: 30 %\n\
                        a.txt: storage answered 503; trying again in *\n\
                        a.txt: 70 %\n\
                        a.txt: resumed at 1536\n\
                        a.txt: completed, 2000 bytes, 3 chunks, 1 resume, crc32c *\n\
                        b.txt: hashed 2000 bytes\n\
                        b.txt: upload 3f00000000000000000000000000000001\n\
                        b.txt: 30 %\n\
                        b.txt: 70 %\n\
                        b.txt: completed, 2000 bytes, 3 chunks, 0 resumes, crc32c *\n";
        let fits = |(line, expected): (&str, &str)| match expected.strip_suffix('*') {
            Some(start) => line.starts_with(start),
            None => line == expected,
        };
        assert_eq!(shown.lines().count(), expected.lines().count(), "{shown}");
        assert!(shown.lines().zip(expected.lines()).all(fits), "{shown}");
    }

    #[tokio::test]
    async fn one_failure_fails_the_command_but_not_the_other_files() {
        let scene = Scene::new().await;
        scene.server.refuse("create", 403, json!({"code": "policy-denied", "detail": "no policy admits you"}));
        let (code, shown) = scene.run(&["a.txt", "missing.txt", "b.txt"], std::future::pending()).await;
        assert_eq!(code, ExitCode::FAILURE);
        assert!(shown.contains("a.txt: failed: the broker refused to create the upload: 403 policy-denied, no policy"));
        assert!(shown.contains("missing.txt: failed: "), "{shown}");
        assert!(shown.contains("b.txt: completed"), "{shown}");
    }

    #[tokio::test]
    async fn a_rejected_upload_fails_the_command() {
        let scene = Scene::new().await;
        let rejection = json!({"code": "content-type-mismatch", "detail": "text/html"});
        let id = "3f00000000000000000000000000000000";
        let upload = json!({"id": id, "state": "rejected", "policy": "p", "object": "o", "rejection": rejection});
        scene.server.refuse("complete", 200, upload);
        let (code, shown) = scene.run(&["a.txt"], std::future::pending()).await;
        assert_eq!(code, ExitCode::FAILURE);
        assert!(shown.contains("a.txt: rejected: content-type-mismatch: text/html"), "{shown}");
    }

    #[tokio::test]
    async fn an_interrupt_keeps_what_is_there_and_the_next_run_resumes() {
        let scene = Scene::new().await;
        scene.server.fail(&[Fault::None, Fault::Silence]);
        let server = scene.server.clone();
        let interrupt = async {
            while server.journal().len() < 3 {
                tokio::task::yield_now().await;
            }
            INTERRUPTED
        };
        let (code, shown) = scene.run(&["a.txt", "b.txt"], interrupt).await;
        assert_eq!(code, ExitCode::from(130));
        assert!(shown.ends_with("a.txt: stopped; run the same command again to resume\n"), "{shown}");
        let (code, shown) = scene.run(&["a.txt"], std::future::pending()).await;
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(shown.contains("a.txt: resumed at 768\n"), "{shown}");
    }

    #[tokio::test]
    async fn one_name_and_one_standard_input_are_all_that_fits() {
        let patience = Patience::default();
        for (name, line) in
            [("two files, one name", &["a", "b", "--name", "c"][..]), ("standard input, twice", &["-", "-"])]
        {
            let line = [line, &["--broker", "https://eu.example.com", "--token-file", "t"]].concat();
            let show = Show::Kept(std::sync::Mutex::default());
            let outcome = run_until(parse(&line).unwrap(), patience, std::future::pending(), &show).await;
            assert!(outcome.is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn an_interrupt_cancels_what_comes_out_of_a_pipe() {
        let scene = Scene::new().await;
        let pipe = scene.directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Who also reads does not wait for a reader. The pipe does not end before this is dropped.
        let mut writer = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
        std::io::Write::write_all(&mut writer, &[7; 1000]).unwrap();
        let server = scene.server.clone();
        let interrupt = async {
            while server.journal().len() < 2 {
                tokio::task::yield_now().await;
            }
            INTERRUPTED
        };
        let (code, shown) = scene.run(&["pipe"], interrupt).await;
        drop(writer);
        assert_eq!(code, ExitCode::from(130));
        assert!(shown.starts_with("pipe: reads a pipe; its size is known when it ends\n"), "{shown}");
        assert!(
            shown.ends_with("pipe: stopped; the upload is cancelled, since a pipe cannot be read again\n"),
            "{shown}"
        );
        assert_eq!(scene.server.world().uploads[0].state, "cancelled");
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_wait_for_somebody_who_writes() {
        let scene = Scene::new().await;
        let pipe = scene.directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let interrupt = async {
            while !scene.show.kept().contains("reads a pipe") {
                tokio::task::yield_now().await;
            }
            INTERRUPTED
        };
        let (code, shown) = scene.run(&["pipe"], interrupt).await;
        // Opening it for both ends lets the thread go that waits for a writer.
        drop(std::fs::File::options().read(true).write(true).open(&pipe).unwrap());
        assert_eq!(code, ExitCode::from(130));
        assert!(shown.ends_with("pipe: stopped before the broker had admitted it\n"), "{shown}");
        assert!(scene.server.journal().is_empty());
    }

    #[tokio::test]
    async fn renewals_and_transfers_are_told() {
        let scene = Scene::new().await;
        scene.server.fail(&[Fault::Gone(403)]);
        let (code, shown) = scene.run(&["a.txt", "--transfer", "simple"], std::future::pending()).await;
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(shown.contains("a.txt: the signed URL or its session has ended; there is a new one\n"), "{shown}");
        assert!(shown.contains("a.txt: completed, 2000 bytes, 2 chunks, 0 resumes, 1 renewal, crc32c "), "{shown}");
    }
}
