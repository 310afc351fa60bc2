//! What many live uploads cost: memory in Redis for each, and a sweep that finds a thousand of them due.
//!
//! `cargo bench --bench live` makes a million live uploads in a `redis-server` of its own, by the same operations as
//! creates do, and then lets a broker sweep, whose storage is the emulator in this process. `-- --uploads N --due N` for
//! other numbers. Nothing is asserted about time or memory.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use clap::Parser;
use tokio::task::JoinSet;
use upload_broker::clock::{Clock, Randomness};
use upload_broker::emulator::{self, BucketSettings, Emulator};
use upload_broker::model::id::UploadId;
use upload_broker::model::limits::{Enforcement, Limits};
use upload_broker::model::principal::{Owner, PrincipalId};
use upload_broker::model::secret::SessionUri;
use upload_broker::model::size::ByteCount;
use upload_broker::model::time::Timestamp;
use upload_broker::model::upload::{Attributes, Promise, PromisedSize, TransferKind, Upload, UploadState};
use upload_broker::policy::Policies;
use upload_broker::routing::{self, Routing};
use upload_broker::storage::{self, Signing, Storage};
use upload_broker::store::{Admitted, Intent, Settings, Store};
use upload_broker::uploads::{Metrics, Region, SweepSettings, Uploads};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const ISSUER: &str = "https://securetoken.google.com/acme";
/// Where storage is.
const GOOGLE: &str = "https://storage.googleapis.com";

const LIMITS: Limits = Limits { max_active: Some(5), rate: None, daily_bytes: Some(ByteCount::LARGEST_OBJECT) };

/// Measures what many live uploads cost.
#[derive(Parser)]
struct Arguments {
    /// How many live uploads there are, five for each principal.
    #[arg(long, default_value_t = 1_000_000)]
    uploads: u64,
    /// How many of them are due.
    #[arg(long, default_value_t = 1_000)]
    due: u64,
    /// Given by `cargo bench`; without it, as under `cargo test`, nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if !arguments.bench {
        return Ok(());
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Runtime::new()?.block_on(measure(&arguments))
}

/// How many uploads are created at once.
const WORKERS: u64 = 32;

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("s");
    let redis = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .context("redis-server cannot be started")?;
    let redis = Redis(redis);
    for _ in 0..200 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let client = redis::Client::open(format!("redis+unix://{}", socket.display()))?;
    let mut connection = client.get_multiplexed_async_connection().await?;

    std::fs::write(folder.path().join("k"), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")?;
    let settings: Settings = serde_json::from_value(serde_json::json!({
        "url": format!("redis+unix://{}", socket.display()),
        "encryption_keys": [{"id": "k1", "file": folder.path().join("k")}],
    }))?;
    let store = Arc::new(Store::open(&settings, Randomness::System).await?);

    let clock = Clock::manual(NOW);
    let emulator = Emulator::start(emulator::Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        buckets: vec![BucketSettings { name: "media-eu".to_owned(), ..BucketSettings::default() }],
        clock: clock.clone(),
        ..emulator::Settings::default()
    })
    .await?;
    let storage = emulator.url();

    store.ping().await?;
    let before = memory(&mut connection).await?;
    let began = Instant::now();
    let mut filling = JoinSet::new();
    for worker in 0..WORKERS {
        let (store, storage, all, due) = (Arc::clone(&store), storage.clone(), arguments.uploads, arguments.due);
        filling.spawn(async move {
            for number in (worker..all).step_by(usize::try_from(WORKERS)?) {
                let (host, look) =
                    if number < due { (storage.as_str(), NOW) } else { (GOOGLE, NOW.plus(Duration::from_secs(900))) };
                create(&store, number, host, look).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filled) = filling.join_next().await {
        filled??;
    }
    let filled = began.elapsed();
    let per_upload = (memory(&mut connection).await? - before) / arguments.uploads;
    println!("{} live uploads, created in {:.0} s", arguments.uploads, filled.as_secs_f64());
    println!("memory in Redis for each, all keys included: {per_upload} bytes");

    let uploads = Arc::new(uploads(clock, store, &emulator).await?);
    for (name, expected) in [("with so many due", arguments.due), ("with none due", 0)] {
        let (commands, cpu) = (commands(&mut connection).await?, cpu(&redis)?);
        let began = Instant::now();
        let round = uploads.sweep().await;
        let took = began.elapsed();
        let commands = self::commands(&mut connection).await? - commands;
        println!(
            "a sweep {name}: {} looked at, {} failed, {:.2} s, {} commands of Redis taking {:.0} ms of its processor time",
            round.due,
            round.failed,
            took.as_secs_f64(),
            commands,
            self::cpu(&redis)?.saturating_sub(cpu).as_secs_f64() * 1000.0,
        );
        if round.due != usize::try_from(expected)? {
            bail!("{} were due, where {expected} should have been", round.due);
        }
    }
    Ok(())
}

/// One live upload, whose session is at `host`, to be looked at when it says `look`.
async fn create(store: &Store, number: u64, host: &str, look: Timestamp) -> anyhow::Result<()> {
    let subject = format!("user-{}", number / 5);
    let principal = PrincipalId::of(ISSUER, None, &subject);
    let random: [u8; 16] = Randomness::System.bytes();
    let id = UploadId::new(principal.partition(), random);
    let upload = Upload {
        id,
        principal,
        policy: "videos".parse()?,
        region: "europe-west1".parse()?,
        bucket: "media-eu".parse()?,
        object: format!("videos/{subject}/{id}.mp4").parse()?,
        promise: Promise {
            content_type: "video/mp4".parse()?,
            size: PromisedSize::Exactly(ByteCount(73_400_320)),
            md5: None,
            crc32c: None,
        },
        attributes: Attributes::default(),
        transfer: TransferKind::Resumable,
        created_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(86_400)),
        state: UploadState::Admitted { lease_until: NOW.plus(Duration::from_secs(20)) },
    };
    let intent = Intent {
        upload: &upload,
        owner: Owner { issuer: ISSUER, tenant: None, subject: &subject },
        reserve: upload.promise.size.reserve(),
        limits: LIMITS,
        enforcement: Enforcement::Enforce,
        idempotency: None,
        now: NOW,
    };
    let Admitted::Granted { lease, .. } = store.admit(&intent).await? else { bail!("an upload was not admitted") };
    store.attach(&lease, &upload, &session(&upload, host)?, look).await?;
    Ok(())
}

/// A session as storage opens them: its secret has 180 characters.
fn session(upload: &Upload, host: &str) -> anyhow::Result<SessionUri> {
    let secret: [u8; 135] = Randomness::System.bytes();
    let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
    let object = upload.object.as_str().replace('/', "%2F");
    Ok(SessionUri::parse(&format!(
        "{host}/upload/storage/v1/b/media-eu/o?uploadType=resumable&name={object}\
         &ifGenerationMatch=0&upload_id={secret}"
    ))?)
}

async fn uploads(clock: Clock, store: Arc<Store>, emulator: &Emulator) -> anyhow::Result<Uploads> {
    let settings = storage::Settings { endpoint: emulator.url().parse()?, ..storage::Settings::default() };
    let options = storage::Options {
        randomness: Randomness::System,
        trusted_ca: Vec::new(),
        user_agent: "upload-broker/bench".to_owned(),
        environment: storage::Environment::default(),
        signing: Signing::Unused,
    };
    let region = Region { name: "europe-west1".parse()?, bucket: "media-eu".parse()?, url: emulator.url().parse()? };
    let routing = routing::Settings::of_one_region(region.name.clone(), region.url.clone());
    Ok(Uploads {
        routing: Arc::new(Routing::new(routing, clock.clone(), Randomness::System)?),
        clock,
        randomness: Randomness::System,
        policies: Policies::new(&[toml::from_str("name = \"videos\"\nobject = \"{id}\"")?])?,
        store,
        storage: Arc::new(Storage::open(&settings, options).await?),
        regions: vec![region.clone()],
        region,
        endpoints: Vec::new(),
        ended: tokio::sync::mpsc::channel(1).0,
        storage_timeout: Duration::from_secs(10),
        sweeper: SweepSettings::default(),
        watchers: Arc::default(),
        recent: Arc::default(),
        tracer: None,
        metrics: Metrics::default(),
    })
}

/// What the server has allocated for data.
async fn memory(connection: &mut redis::aio::MultiplexedConnection) -> anyhow::Result<u64> {
    number(connection, "memory", "used_memory_dataset").await
}

/// How many commands the server has executed, those of scripts included.
async fn commands(connection: &mut redis::aio::MultiplexedConnection) -> anyhow::Result<u64> {
    number(connection, "stats", "total_commands_processed").await
}

async fn number(connection: &mut redis::aio::MultiplexedConnection, section: &str, name: &str) -> anyhow::Result<u64> {
    let text: String = redis::cmd("INFO").arg(section).query_async(connection).await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("INFO has no {name}"))?.trim().parse()?)
}

/// User and system time of the server (proc(5), `/proc/pid/stat`), in whole hundredths of a second.
fn cpu(Redis(child): &Redis) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}
