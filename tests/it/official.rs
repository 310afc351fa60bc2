//! Google's own client libraries, for Python and for Node: they upload through what the broker issues, and work with
//! the emulator as with storage.
//!
//! The programs stand in `tests/clients`; `./test --prepare` installs the libraries. A program runs checks by name, and
//! says which ones passed.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use upload_broker::clock::{Clock, Randomness};
use upload_broker::emulator::{self, Authorization, BucketSettings, Emulator};

use crate::support::broker::emulator;
use crate::support::{BUCKET, Broker, Settings};

/// How long a program may take, in seconds: many times what it does.
const PATIENCE: &str = "120";

#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    Node,
}

impl Language {
    fn folder(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// Where the libraries are; `None`, said aloud, where they are not installed. In CI that is a failure.
    fn installed(self) -> Option<PathBuf> {
        let folder = root().join("target/clients").join(self.folder());
        // The installation leaves this file last.
        if folder.join("installed").exists() {
            return Some(folder);
        }
        assert!(std::env::var_os("CI").is_none(), "./test --prepare installs what is missing in {}", folder.display());
        #[expect(clippy::print_stderr, reason = "a test that does not run must say so")]
        {
            eprintln!("skipped: ./test --prepare installs Google's libraries for {self:?}");
        }
        None
    }

    /// The program that runs checks, with nothing of this process's environment.
    fn program(self, installed: &Path) -> Command {
        let sources = root().join("tests/clients").join(self.folder());
        let mut command = Command::new("timeout");
        command.args(["--kill-after", "5", PATIENCE]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        match self {
            Self::Python => command.arg(installed.join("bin/python")).arg(sources.join("check.py")),
            Self::Node => command.arg("node").arg(sources.join("check.js")),
        };
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("NODE_PATH", installed.join("node_modules"));
        // No credentials but those that the checks bring, and no way out but to loopback addresses.
        command.env("HOME", "/nonexistent").env("NO_GCE_CHECK", "true").env("METADATA_SERVER_DETECTION", "none");
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(proxy, "http://127.0.0.1:9");
        }
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        command
    }

    /// Runs checks of one theme, each of which must pass.
    async fn checks(self, theme: &str, names: &[&str], surroundings: &[(&str, String)]) {
        let Some(installed) = self.installed() else { return };
        let names: Vec<String> = names.iter().map(|name| format!("{theme}.{name}")).collect();
        let mut program = self.program(&installed);
        program.args(&names).envs(surroundings.iter().map(|(name, value)| (name, value)));
        // The servers that it talks to run on this thread.
        let output = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
        let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let passed = |name: &String| printed.lines().any(|line| line.strip_prefix("passed ") == Some(name));
        assert!(output.status.success() && names.iter().all(passed), "{self:?}, {}:\n{printed}", output.status);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Lets the libraries send through sessions that the broker initiates by this interface of storage.
async fn sessions(language: Language, api: &str, names: &[&str]) {
    let clock = Clock::System;
    let settings = Settings {
        policies: "[[policies]]\nname = \"videos\"\nobject = \"videos/{sub}/{id}.{ext}\"\nmax_size = \"8MiB\"\n\
                   unknown_size = true\n"
            .to_owned(),
        storage: format!("api = \"{api}\"\n"),
        ..Settings::default()
    };
    let broker = Broker::start_beside(emulator(clock.clone()).await, clock, settings).await;
    let mut surroundings = around(&broker);
    surroundings.push(("SESSIONS", api.to_owned()));
    language.checks("sessions", names, &surroundings).await;
}

fn around_emulator(storage: &Emulator, credentials: &str) -> Vec<(&'static str, String)> {
    vec![
        ("STORAGE_EMULATOR_HOST", storage.url()),
        ("BUCKET", BUCKET.to_owned()),
        ("CREDENTIALS", credentials.to_owned()),
    ]
}

/// The emulator's account, as a key file that the libraries and the broker sign with.
fn account(storage: &Emulator, folder: &TempDir) -> PathBuf {
    let path = folder.path().join("account.json");
    std::fs::write(&path, storage.service_account_key().unwrap()).unwrap();
    path
}

/// Lets the libraries send through URLs that the broker signs, and through those that they sign themselves.
async fn signed(language: Language, names: &[&str]) {
    let (clock, folder) = (Clock::System, TempDir::new().unwrap());
    let storage = emulator(clock.clone()).await;
    let account = account(&storage, &folder);
    let settings = Settings {
        policies: "[[policies]]\nname = \"videos\"\nobject = \"videos/{sub}/{id}.{ext}\"\nmax_size = \"8MiB\"\n\
                   transfers = [\"resumable\", \"simple\", \"signed_resumable\"]\n"
            .to_owned(),
        storage: format!("credentials = {{ file = \"{}\" }}\n", account.display()),
        ..Settings::default()
    };
    let broker = Broker::start_beside(storage, clock, settings).await;
    let mut surroundings = around(&broker);
    surroundings.push(("SERVICE_ACCOUNT", account.to_str().unwrap().to_owned()));
    language.checks("signed", names, &surroundings).await;
}

fn around(broker: &Broker) -> Vec<(&'static str, String)> {
    let user = broker.user("ada");
    let mut surroundings = around_emulator(&broker.storage, "token");
    surroundings.extend([("BROKER", user.broker), ("BROKER_TOKEN", user.token)]);
    surroundings
}

/// Uploads and downloads of the library's own, with a token and without one.
async fn ordinary(language: Language, names: &[&str]) {
    let storage = emulator(Clock::System).await;
    let open = emulator::Settings {
        buckets: vec![BucketSettings {
            name: BUCKET.to_owned(),
            location: "europe-west1".to_owned(),
            cors: Vec::new(),
            ..BucketSettings::default()
        }],
        clock: Clock::System,
        randomness: Randomness::System,
        authorization: Authorization::Ignored,
        ..emulator::Settings::default()
    };
    let open = Emulator::start(open).await.unwrap();
    let (with_token, anonymous) = (around_emulator(&storage, "token"), around_emulator(&open, "anonymous"));
    // The libraries mostly wait for their next try.
    tokio::join!(language.checks("ordinary", names, &with_token), language.checks("ordinary", names, &anonymous),);
}

/// What Python does with any session.
const PYTHON_SESSIONS: [&str; 10] = [
    "chunked",
    "chunked_as_advised",
    "unknown_total",
    "one_request",
    "resumed",
    "recovered",
    "recovered_by_hand",
    "renewed",
    "unknown_size",
    "straight_to_storage",
];

#[tokio::test]
async fn python_uploads_through_sessions_of_the_broker() {
    let names = [&PYTHON_SESSIONS[..], &["refused", "wrong_digest_on_the_wire"]].concat();
    sessions(Language::Python, "json", &names).await;
}

#[tokio::test]
async fn python_uploads_through_xml_sessions_of_the_broker() {
    sessions(Language::Python, "xml", &PYTHON_SESSIONS).await;
}

#[tokio::test]
async fn python_works_with_the_emulator() {
    let names = [
        "buckets",
        "multipart",
        "resumable",
        "streamed",
        "session_by_the_library",
        "downloads",
        "listing",
        "attributes",
        "preconditions",
        "wrong_digests",
        "deletion",
        "retries",
    ];
    ordinary(Language::Python, &names).await;
}

/// What Node does with any session.
const NODE_SESSIONS: [&str; 8] =
    ["chunked", "streamed", "saved", "resumed", "recovered", "renewed", "unknown_size", "straight_to_storage"];

#[tokio::test]
async fn node_uploads_through_sessions_of_the_broker() {
    let names = [&NODE_SESSIONS[..], &["partly", "refused"]].concat();
    sessions(Language::Node, "json", &names).await;
}

#[tokio::test]
async fn node_uploads_through_xml_sessions_of_the_broker() {
    sessions(Language::Node, "xml", &NODE_SESSIONS).await;
}

#[tokio::test]
async fn node_works_with_the_emulator() {
    let names = [
        "buckets",
        "uploads",
        "files",
        "session_by_the_library",
        "downloads",
        "listing",
        "attributes",
        "preconditions",
        "wrong_digests",
        "deletion",
        "retries",
    ];
    ordinary(Language::Node, &names).await;
}

#[tokio::test]
async fn python_uploads_through_signed_urls() {
    let names = [
        "simple_of_the_broker",
        "simple_is_held_to_its_promise",
        "resumable_of_the_broker",
        "resumable_by_the_library",
        "signed_by_the_library",
        "resumable_signed_by_the_library",
        "token_of_the_account",
    ];
    signed(Language::Python, &names).await;
}

#[tokio::test]
async fn node_uploads_through_signed_urls() {
    let names =
        ["simple_of_the_broker", "resumable_of_the_broker", "signed_by_the_library", "resumable_signed_by_the_library"];
    signed(Language::Node, &names).await;
}
