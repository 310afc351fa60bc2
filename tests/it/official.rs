//! Google's own client libraries, for Python and for Node: they upload through what the broker issues, and work with the
//! emulator as with storage.
//!
//! The programs stand in `tests/clients`; `./test --prepare` installs the libraries. A program runs checks by name, and
//! says which ones passed.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// A broker whose time is that of the libraries.
async fn broker() -> Broker {
    let clock = Clock::System;
    Broker::start_beside(emulator(clock.clone()).await, clock, Settings::default()).await
}

fn around_emulator(storage: &Emulator, credentials: &str) -> Vec<(&'static str, String)> {
    vec![
        ("STORAGE_EMULATOR_HOST", storage.url()),
        ("BUCKET", BUCKET.to_owned()),
        ("CREDENTIALS", credentials.to_owned()),
    ]
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

#[tokio::test]
async fn python_uploads_through_sessions_of_the_broker() {
    let broker = broker().await;
    let names = [
        "chunked",
        "chunked_as_advised",
        "unknown_total",
        "one_request",
        "resumed",
        "recovered",
        "recovered_by_hand",
        "refused",
        "wrong_digest_on_the_wire",
        "straight_to_storage",
    ];
    Language::Python.checks("sessions", &names, &around(&broker)).await;
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

#[tokio::test]
async fn node_uploads_through_sessions_of_the_broker() {
    let broker = broker().await;
    let names = ["chunked", "streamed", "saved", "partly", "resumed", "recovered", "refused", "straight_to_storage"];
    Language::Node.checks("sessions", &names, &around(&broker)).await;
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
