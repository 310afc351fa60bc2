//! The command itself, as processes that can be killed.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A running `upload-broker`, with all that it has printed so far.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// The command, ready for arguments. It inherits no setting from the environment.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upload-broker"));
    command.env_remove("RUST_LOG").env_remove("GOOGLE_APPLICATION_CREDENTIALS").env("HOME", "/nonexistent");
    command
}

/// `serve` with this configuration, over HTTPS only and with no credentials but what is added.
pub fn serve(config: &Path, log: &str) -> Command {
    let mut command = command();
    command.args(["serve", "--config"]).arg(config).env("RUST_LOG", log);
    command
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            });
        }
        Self { child, lines }
    }

    /// `serve` with this configuration, once it listens: the process, its public address, its operators' address.
    pub fn serve(config: &Path, log: &str) -> (Self, String, String) {
        let mut command = serve(config, log);
        command.arg("--insecure-loopback");
        Self::listening(command)
    }

    /// What [`serve`] gave, once it listens: the process, its public address, its operators' address.
    pub fn listening(command: Command) -> (Self, String, String) {
        let process = Self::spawn(command);
        let line = process.line_with("\"listening\"");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |field: &str| line[field].as_str().unwrap().to_owned();
        let addresses = (address("address"), address("operations"));
        (process, addresses.0, addresses.1)
    }

    /// `emulator` with the one bucket, once it listens: the process and its URL.
    pub fn emulator() -> (Self, String) {
        Self::emulator_with(|_| {})
    }

    /// The same, with something more about the command.
    pub fn emulator_with(more: impl FnOnce(&mut Command)) -> (Self, String) {
        let mut command = command();
        command.args(["emulator", "--port", "0", "--bucket", super::BUCKET]);
        more(&mut command);
        let process = Self::spawn(command);
        let line = process.line_with("storage emulator: ");
        let url = line.trim_start_matches("storage emulator: ").to_owned();
        (process, url)
    }

    /// The first line that holds `text`, once it is there.
    pub fn line_with(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.lines.lock().unwrap().iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "no {text:?} in {:#?}", self.lines.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything printed so far.
    pub fn printed(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
