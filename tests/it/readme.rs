//! The README's session, as it stands there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::process::Process;

/// The shell blocks of the README between the marker and the next heading.
fn blocks() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let session = readme.split("<!-- tests/it/readme.rs runs each of these blocks -->").nth(1).unwrap();
    let session = session.split("\n## ").next().unwrap();
    session.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// A port that is free now: the README has fixed ones, and this machine may be using them.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A shell in `folder` that knows the command by its name.
fn shell(folder: &Path, script: &str) -> Command {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_upload-broker"));
    let path = std::env::var_os("PATH").unwrap();
    let mut paths = vec![binary.parent().unwrap().to_owned()];
    paths.extend(std::env::split_paths(&path));
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(folder);
    command.env("PATH", std::env::join_paths(paths).unwrap()).env_remove("RUST_LOG").env("HOME", "/nonexistent");
    command
}

/// Runs a block to its end, which must be a good one.
fn run(folder: &Path, script: &str) {
    let output = shell(folder, script).output().unwrap();
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{printed}\n{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_of_the_readme_works_word_for_word() {
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "redis-server is needed");
        return;
    }
    let ports: Vec<(&str, String)> =
        ["8443", "9090", "6379", "9023"].into_iter().map(|port| (port, free_port().to_string())).collect();
    let mut blocks = blocks().into_iter().map(|mut block| {
        for (port, free) in &ports {
            block = block.replace(port, free);
        }
        block
    });
    let folder = TempDir::new().unwrap();
    run(folder.path(), &blocks.next().unwrap());
    let folder = folder.path().join("try");
    // Each line of the second block is a terminal of its own.
    let terminals = blocks.next().unwrap();
    let servers: Vec<Process> =
        terminals.lines().map(|line| Process::spawn(shell(&folder, &format!("exec {line}")))).collect();
    let ready = format!("upload-broker healthcheck http://127.0.0.1:{}/readyz", ports[1].1);
    for attempt in 0.. {
        if shell(&folder, &ready).output().unwrap().status.success() {
            break;
        }
        assert!(attempt < 100, "the broker is not ready: {}", servers[2].printed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    run(&folder, &blocks.next().unwrap());
    run(&folder, &blocks.next().unwrap());
    assert!(blocks.next().is_none(), "a block that nothing runs");
}
