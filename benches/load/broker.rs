//! Starts what is measured, and what it stands on, as processes of their own.
//!
//! Each system has a Redis of its own, so that neither pays for what the other left there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::client::{self, Target};
use crate::process::Process;
use crate::storage::BUCKET;
use crate::users::{AUDIENCE, ISSUER, POLICY, Users, initiation};

/// The `upload-broker` that was built with this driver.
const BROKER: &str = env!("CARGO_BIN_EXE_upload-broker");

/// One of the two programs that are compared, running.
pub(crate) struct System {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// The program itself.
    pub(crate) process: Process,
    /// The Redis that only this program uses.
    pub(crate) redis: Redis,
    /// Its `POST /v1/uploads`.
    pub(crate) creates: Arc<Target>,
}

impl System {
    /// The broker, configured as in production, but for TLS and real storage.
    pub(crate) async fn broker(directory: &Path, storage: &Storage, users: &Users) -> anyhow::Result<Self> {
        let redis = Redis::start("broker-redis", directory).await?;
        let file = directory.join("broker.toml");
        fs::write(&file, configuration(directory, &redis.url(), &storage.endpoint)?)?;
        // An empty environment, so that neither credentials nor settings of the user come in.
        let mut command = Command::new(BROKER);
        command.arg("serve").arg("--config").arg(&file).arg("--insecure-loopback");
        command.env_clear().env("RUST_LOG", "info").env("HOME", directory);
        let mut process = Process::start("broker", &mut command, directory)?;
        let (address, operations) =
            process.wait_until("it told its addresses", async |log| announced_by_broker(log)).await?;

        let ready = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
        let ready = Target { address: operations, requests: vec![ready], expected: 200 }.into();
        process.wait_until("it was ready", async |_| client::hold(&ready, 1).await.ok()).await?;
        Ok(Self { name: "broker", process, redis, creates: creates(address, users) })
    }

    /// The bare program.
    pub(crate) async fn bare(directory: &Path, storage: &Storage, users: &Users) -> anyhow::Result<Self> {
        let redis = Redis::start("bare-redis", directory).await?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg(redis.url()).arg(&storage.endpoint).arg(key_set_file(directory)).env_clear();
        let mut process = Process::start("bare", &mut command, directory)?;
        let address = process.wait_until("it told its address", async |log| announced(log)).await?;
        Ok(Self { name: "bare", process, redis, creates: creates(address, users) })
    }
}

/// Writes the files that both systems read.
pub(crate) fn write_keys(directory: &Path, users: &Users) -> anyhow::Result<()> {
    let mut sealing = [0; 32];
    aws_lc_rs::rand::fill(&mut sealing)?;
    fs::write(directory.join("session.key"), STANDARD.encode(sealing))?;
    fs::write(key_set_file(directory), &users.key_set)?;
    Ok(())
}

fn key_set_file(directory: &Path) -> PathBuf {
    directory.join("jwks.json")
}

fn creates(address: SocketAddr, users: &Users) -> Arc<Target> {
    Arc::new(Target { address, requests: users.creates.clone(), expected: 201 })
}

/// Every kind of limit is set, so that all of them are counted, and none so low that it binds.
fn configuration(directory: &Path, redis: &str, endpoint: &str) -> anyhow::Result<String> {
    let path = directory.to_str().context("the directory of temporary files has a name that is no text")?;
    Ok(format!(
        r#"
region = "europe-west1"

[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
public_url = "https://uploads.load.example"

[store]
url = "{redis}"
encryption_keys = [{{ id = "k1", file = "{path}/session.key" }}]

[storage]
endpoint = "{endpoint}"

[[issuers]]
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
jwks_file = "{path}/jwks.json"
algorithms = ["ES256"]

[[regions]]
name = "europe-west1"
bucket = "{BUCKET}"
url = "https://uploads.load.example"

[[policies]]
name = "{POLICY}"
when = '"creator" in claims.roles'
object = "videos/{{sub}}/{{id}}.{{ext}}"
content_types = ["video/*"]
max_size = "20GiB"
max_active = 100000
rate = "100000/1m"
daily_bytes = "64TiB"
"#
    ))
}

/// The addresses in the broker's log: the public one, and the one for probes.
fn announced_by_broker(log: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line);
        let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
        Some((address("address")?, address("operations")?))
    })
}

/// The address that a process of this program printed (`crate::announce`).
fn announced(log: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    text.split_once('\n')?.0.parse().ok()
}

/// A Redis that writes nothing to disk, on a Unix socket: no port to be taken, and less of its cost is the network's.
pub(crate) struct Redis {
    /// The server.
    pub(crate) process: Process,
    socket: PathBuf,
}

impl Redis {
    async fn start(name: &'static str, directory: &Path) -> anyhow::Result<Self> {
        let socket = directory.join(format!("{name}.sock"));
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"]).arg(directory);
        command.arg("--unixsocket").arg(&socket);
        let mut process = Process::start(name, &mut command, directory)?;
        process.wait_until("it could be reached", async |_| UnixStream::connect(&socket).ok()).await?;
        Ok(Self { process, socket })
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    /// Forgets every upload, so that each round begins with an empty store. Scripts stay loaded.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        let mut stream = UnixStream::connect(&self.socket).context("Redis cannot be reached")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"FLUSHALL SYNC\r\n").context("Redis cannot be emptied")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).context("Redis did not answer")?;
        if &answer != b"+OK\r\n" {
            bail!("Redis refused to be emptied");
        }
        Ok(())
    }
}

/// The storage that both systems open their sessions at.
pub(crate) struct Storage {
    /// Holds the process, which ends with it.
    _process: Process,
    endpoint: String,
    /// Its initiation, to be measured alone.
    pub(crate) initiations: Arc<Target>,
}

impl Storage {
    /// The fast stand-in.
    pub(crate) async fn stand_in(directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = Process::start("storage", command.arg("storage").env_clear(), directory)?;
        let address = process.wait_until("it told its address", async |log| announced(log)).await?;
        Ok(Self::at(address, process))
    }

    /// The faithful emulator, which costs more processor time.
    pub(crate) async fn emulator(directory: &Path) -> anyhow::Result<Self> {
        // Free a moment ago; whoever takes it in between makes the emulator leave, and the run fail.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(BROKER);
        command.args(["emulator", "--port", &address.port().to_string(), "--bucket", BUCKET]);
        command.args(["--location", "europe-west1"]).env_clear().env("RUST_LOG", "warn");
        let mut process = Process::start("emulator", &mut command, directory)?;
        process.wait_until("it could be reached", async |_| tokio::net::TcpStream::connect(address).await.ok()).await?;
        Ok(Self::at(address, process))
    }

    fn at(address: SocketAddr, process: Process) -> Self {
        let initiations = Target { address, requests: vec![initiation()], expected: 200 };
        Self { _process: process, endpoint: format!("http://{address}"), initiations: Arc::new(initiations) }
    }
}
