//! What the tests of both stores share: a Redis server of their own, and uploads to put into a store.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::record::tests::upload;
use super::seal::tests::key_file;
use super::*;
use crate::model::id::Partition;
use crate::model::upload::{Evidence, StoredObject, Witness};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_763_805_600_120);

/// Whose all uploads of these tests are.
pub(super) const OWNER: Owner<'_> = Owner { issuer: "https://issuer.example", tenant: None, subject: "ada" };

pub(super) const UNLIMITED: Limits = Limits { max_active: None, rate: None, daily_bytes: None };

pub(super) const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A `redis-server` on a socket of its own, which ends with this value.
pub(crate) struct Server {
    process: Process,
    directory: TempDir,
    stores: AtomicU32,
}

impl Server {
    /// Starts one, or says that the test is skipped for want of it; continuous integration must have it.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        key_file(directory.path(), "k1", 1);
        let Ok(process) = spawn(&directory).map(Process) else {
            #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
            let must_run = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!must_run, "redis-server is not installed");
            #[expect(clippy::print_stderr, reason = "whoever runs the tests should see it")]
            {
                eprintln!("skipped: redis-server is not installed");
            }
            return None;
        };
        let server = Self { process, directory, stores: AtomicU32::new(0) };
        server.wait();
        Some(server)
    }

    /// Ends the process without warning, and all that it knew with it.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Makes the process hang, as a whole: connections stay open, and nothing is answered.
    pub(super) fn hang(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on after [`Server::hang`].
    pub(super) fn go_on(&self) {
        self.process.signal("CONT");
    }

    /// Starts it again on the same socket.
    pub(crate) fn restart(&mut self) {
        std::fs::remove_file(self.directory.path().join("s")).unwrap();
        self.process = Process(spawn(&self.directory).unwrap());
        self.wait();
    }

    pub(crate) fn settings(&self, key_prefix: &str) -> Settings {
        Settings {
            url: format!("redis+unix://{}", self.directory.path().join("s").display()),
            key_prefix: key_prefix.to_owned(),
            tls: None,
            trusted_ca: None,
            encryption_keys: vec![EncryptionKeySettings {
                id: "k1".to_owned(),
                file: self.directory.path().join("k1.key"),
            }],
        }
    }

    /// A store of its own in this server.
    pub(super) async fn store(&self) -> Store {
        let number = self.stores.fetch_add(1, Ordering::SeqCst);
        Store::open(&self.settings(&format!("t{number}")), Randomness::System).await.unwrap()
    }

    fn wait(&self) {
        for _ in 0..500 {
            if std::os::unix::net::UnixStream::connect(self.directory.path().join("s")).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not listen");
    }
}

fn spawn(directory: &TempDir) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(directory.path().join("s"))
        .arg("--dir")
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The process of a server, gone with whoever has it.
pub(super) struct Process(pub(super) Child);

impl Process {
    /// Ends it without warning.
    pub(super) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends it the signal of that name.
    pub(super) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Whether it ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn memory() -> Store {
    Store::Memory(Box::new(MemoryStore::new()))
}

/// Users of one partition, so that a mistake between them would show.
pub(super) fn user(number: u8) -> PrincipalId {
    let mut id = [number; 16];
    id[0] = 0x3F;
    PrincipalId(id)
}

/// An intent of `user`, the `number`th, created at `now`, whose lease lasts 30 seconds and whose session a day.
pub(super) fn intent_of(user: PrincipalId, number: u32, now: Timestamp) -> Upload {
    let mut random = [0xA5; 16];
    random[..4].copy_from_slice(&number.to_be_bytes());
    random[4] = user.0[1];
    let id = UploadId::new(user.partition(), random);
    Upload {
        id,
        principal: user,
        object: format!("videos/u-17/{id}.mp4").parse().unwrap(),
        created_at: now,
        expires_at: now.plus(SECONDS(86_400)),
        state: UploadState::Admitted { lease_until: now.plus(SECONDS(30)) },
        ..upload()
    }
}

/// The session that storage opens for `upload`, with a secret of the usual length; `attempt` tells several apart.
pub(super) fn session_of(upload: &Upload, attempt: u32) -> SessionUri {
    let (bucket, object) = (&upload.bucket, upload.object.as_str().replace('/', "%2F"));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, format!("{}{attempt}", upload.id).as_bytes());
    let secret: Vec<u8> = digest.as_ref().iter().copied().cycle().take(135).collect();
    let secret = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret);
    SessionUri::parse(&format!(
        "https://storage.googleapis.com/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name={object}\
         &ifGenerationMatch=0&upload_id={secret}"
    ))
    .unwrap()
}

/// Something that is tracked under `id`, at its first revision and without a session.
pub(crate) fn tracked(id: UploadId) -> Tracked {
    Tracked { upload: Upload { id, ..upload() }, session: None, revision: Revision::FIRST }
}

pub(super) fn limits(max_active: Option<u32>, rate: Option<&str>, daily_bytes: Option<u64>) -> Limits {
    Limits { max_active, rate: rate.map(|rate| rate.parse().unwrap()), daily_bytes: daily_bytes.map(ByteCount) }
}

/// An intent without idempotency key under limits that refuse.
pub(super) fn plain(upload: &Upload, limits: Limits) -> Intent<'_> {
    let reserve = upload.promise.size.reserve();
    Intent {
        upload,
        owner: OWNER,
        reserve,
        limits,
        enforcement: Enforcement::Enforce,
        idempotency: None,
        now: upload.created_at,
    }
}

pub(super) fn with_size(upload: &Upload, size: u64) -> Upload {
    let mut upload = upload.clone();
    upload.promise.size = crate::model::upload::PromisedSize::Between { least: ByteCount::ZERO, most: ByteCount(size) };
    upload
}

pub(super) fn verified(size: u64) -> Evidence {
    let object = StoredObject {
        generation: 7,
        size: ByteCount(size),
        content_type: None,
        md5: None,
        crc32c: Some(crate::model::digest::Crc32c(7)),
    };
    Evidence::Verified(object, Witness::Sweep)
}

/// What tests do over and over. Each panics unless it goes as its name says.
impl Store {
    pub(super) async fn grant(&self, intent: &Intent<'_>) -> Lease {
        match self.admit(intent).await.unwrap() {
            Admitted::Granted { lease, would_refuse: None } => lease,
            other => panic!("not granted: {other:?}"),
        }
    }

    pub(super) async fn refuse(&self, intent: &Intent<'_>) -> LimitHit {
        match self.admit(intent).await.unwrap() {
            Admitted::Refused(hit) => hit,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(super) async fn track(&self, lease: &Lease, upload: &Upload) -> Tracked {
        let due = upload.created_at.plus(SECONDS(900));
        match self.attach(lease, upload, &session_of(upload, 0), due).await.unwrap() {
            Attached::Tracked(tracked) => tracked,
            Attached::LeaseLost(found) => panic!("the lease is lost: {found:?}"),
        }
    }

    pub(super) async fn create(&self, intent: &Intent<'_>) -> Tracked {
        let lease = self.grant(intent).await;
        self.track(&lease, intent.upload).await
    }

    /// Moves `tracked` as `seen` demands.
    pub(super) async fn learn(&self, tracked: &Tracked, seen: Evidence, now: Timestamp) -> Advanced {
        let next = tracked.upload.state.after(seen, now).unwrap();
        let due = (!next.is_final()).then(|| now.plus(SECONDS(900)));
        self.advance(tracked, next, due, &[], now).await.unwrap()
    }

    pub(super) async fn end(&self, tracked: &Tracked, seen: Evidence, now: Timestamp) -> Tracked {
        match self.learn(tracked, seen, now).await {
            Advanced::Done(tracked) => tracked,
            other => panic!("not done: {other:?}"),
        }
    }

    pub(super) async fn used(&self, user: PrincipalId, limits: Limits, now: Timestamp) -> Usage {
        self.usage(user, &[(&"videos".parse().unwrap(), limits)], now).await.unwrap()[0]
    }

    /// When the upload is to be looked at next.
    pub(crate) async fn due(&self, id: UploadId) -> Option<Timestamp> {
        match self {
            Self::Memory(store) => store.due(id),
            Self::Redis(store) => {
                let mut command = ::redis::cmd("ZSCORE");
                command.arg(store.keys.due(id.partition(), &upload().region)).arg(&id.random()[..]);
                let at: Option<f64> = store.raw(&command).await;
                #[expect(clippy::cast_possible_truncation, reason = "behind the point stands how late it is")]
                at.map(|at| Timestamp::from_millis(at as i64))
            }
        }
    }

    /// Whose end is still to be told to the endpoint, what is parked included.
    pub(crate) async fn outbox(&self, partition: Partition, endpoint: EndpointId) -> Vec<UploadId> {
        match self {
            Self::Memory(store) => {
                let known = store.known();
                let ours = known.deliveries.keys().filter(|(to, id)| *to == endpoint && id.partition() == partition);
                ours.map(|(_, id)| *id).collect()
            }
            Self::Redis(store) => {
                let mut found = Vec::new();
                for key in [store.keys.outbox(partition, endpoint), store.keys.parked(partition, endpoint)] {
                    let mut command = ::redis::cmd("ZRANGE");
                    command.arg(key).arg(0).arg(-1);
                    found.extend(store.raw::<Vec<Vec<u8>>>(&command).await);
                }
                found.into_iter().map(|random| UploadId::new(partition, random.try_into().unwrap())).collect()
            }
        }
    }

    /// Forgets a record as Redis does when its life is over. The memory store does so by the clock.
    pub(crate) async fn forget(&self, id: UploadId) {
        if let Self::Redis(store) = self {
            let mut command = ::redis::cmd("DEL");
            command.arg(store.keys.record(id));
            store.raw::<u32>(&command).await;
        }
    }

    /// Cuts every connection to the server but the one that says so.
    pub(crate) async fn cut(&self) {
        if let Self::Redis(store) = self {
            let mut command = ::redis::cmd("CLIENT");
            command.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
            store.raw::<u32>(&command).await;
        }
    }
}
