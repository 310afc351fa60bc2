//! What the parts of one create cost, each by itself: the token's check, the decision, a URL's signature, and the two
//! scripts in Redis.
//!
//! `cargo bench --bench load` tells what they come to together, and whether that is much.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing better to do than to stop")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use upload_broker::clock::{Clock, Randomness};
use upload_broker::identity::development::DevelopmentKey;
use upload_broker::identity::{Identity, IssuerSettings};
use upload_broker::model::id::{Partition, UploadId};
use upload_broker::model::limits::{Enforcement, Limits};
use upload_broker::model::name::PolicyName;
use upload_broker::model::principal::{Owner, Principal, PrincipalId};
use upload_broker::model::secret::SessionUri;
use upload_broker::model::size::ByteCount;
use upload_broker::model::time::Timestamp;
use upload_broker::model::upload::{
    Attributes, NewUpload, Overwrite, Promise, PromisedSize, TransferKind, Upload, UploadState,
};
use upload_broker::policy::{Policies, PolicySettings};
use upload_broker::storage::{self, Initiation, SignedMethod, Storage};
use upload_broker::store::seal::Keyring;
use upload_broker::store::{Admitted, Attached, EncryptionKeySettings, Intent, Settings, Store};

const ISSUER: &str = "https://issuer.example";
const NOW: Timestamp = Timestamp::from_secs(1_772_841_600);

fn claims() -> Map<String, Value> {
    let claims = json!({
        "iss": ISSUER, "aud": ["broker"], "sub": "ada", "exp": 1_772_845_200, "iat": 1_772_841_600,
        "email": "ada@example.com", "email_verified": true, "roles": ["viewer", "creator"], "org": {"unit": "north"},
    });
    claims.as_object().unwrap().clone()
}

fn identity(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("jwks.json");
    let key = DevelopmentKey::generate().unwrap();
    std::fs::write(&key_file, key.key_set().to_string()).unwrap();
    let issuer: IssuerSettings = serde_json::from_value(json!({
        "issuer": ISSUER, "audiences": ["broker"], "jwks_file": key_file, "algorithms": ["ES256"],
    }))
    .unwrap();
    #[expect(clippy::disallowed_methods, reason = "it asks nobody: the keys are in a file")]
    let client = reqwest::Client::new();
    let new = || Identity::new(std::slice::from_ref(&issuer), Clock::manual(NOW), client.clone()).unwrap();
    let token = key.sign(&claims()).unwrap();
    let threads = runtime();

    let identity = new();
    // No two tokens of ECDSA are alike, even about the same claims.
    criterion.bench_function("token, seen for the first time", |bencher| {
        bencher.iter_batched(
            || key.sign(&claims()).unwrap(),
            |token| threads.block_on(identity.verify(black_box(&token))).unwrap(),
            BatchSize::SmallInput,
        );
    });
    let identity = new();
    threads.block_on(identity.verify(&token)).unwrap();
    criterion.bench_function("token, remembered", |bencher| {
        bencher.iter(|| threads.block_on(identity.verify(black_box(&token))).unwrap());
    });
}

fn policies() -> Policies {
    #[derive(serde::Deserialize)]
    struct Document {
        policies: Vec<PolicySettings>,
    }
    let document: Document = toml::from_str(
        r#"
        [[policies]]
        name = "open"
        object = "open/{id}"
        [[policies]]
        name = "videos"
        when = '"creator" in claims.roles'
        object = "videos/{sub}/{date}/{id}.{ext}"
        content_types = ["video/*"]
        max_size = "20GiB"
        metadata = { source = "mobile" }
        "#,
    )
    .unwrap();
    Policies::new(&document.policies).unwrap()
}

fn policy(criterion: &mut Criterion) {
    let policies = policies();
    let principal = Principal {
        id: PrincipalId::of(ISSUER, None, "ada"),
        issuer: ISSUER.into(),
        tenant: None,
        subject: "ada".into(),
        claims: claims(),
        admin: false,
        expires_at: NOW,
    };
    let id = UploadId::new(Partition(7), [0x5a; 16]);
    for (name, policy) in [("without a condition", "open"), ("with a condition", "videos")] {
        let request = NewUpload {
            policy: Some(policy.parse::<PolicyName>().unwrap()),
            filename: "holiday.mp4".parse().unwrap(),
            content_type: "video/mp4".parse().unwrap(),
            size: Some(ByteCount(73_400_320)),
            md5: None,
            crc32c: None,
            metadata: BTreeMap::from([("album".to_owned(), "summer".to_owned())]),
            transfer: TransferKind::Resumable,
        };
        criterion.bench_function(&format!("decision, {name}"), |bencher| {
            bencher.iter(|| policies.decide(black_box(&principal), black_box(&request), id, NOW).unwrap());
        });
    }
}

/// With a key at hand; where Google holds it, the time is that of a call.
fn signature(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("account.json");
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let key: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_ref()));
    let account = json!({
        "type": "service_account", "client_email": "broker@acme.example", "private_key": key, "private_key_id": "1",
        // Nobody listens there, and no token is needed.
        "token_uri": "http://127.0.0.1:9/token",
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let settings: storage::Settings = serde_json::from_value(json!({"credentials": {"file": file}})).unwrap();
    let options = storage::Options {
        randomness: Randomness::System,
        trusted_ca: Vec::new(),
        user_agent: "upload-broker/bench".to_owned(),
        environment: storage::Environment::default(),
        signing: storage::Signing::Wanted,
    };
    let threads = runtime();
    let storage = threads.block_on(Storage::open(&settings, options)).unwrap();
    let upload = intent(1);
    let initiation = Initiation {
        note: None,
        id: upload.id,
        bucket: &upload.bucket,
        object: &upload.object,
        promise: &upload.promise,
        metadata: &BTreeMap::new(),
        cache_control: None,
        overwrite: Overwrite::Forbidden,
        origin: None,
    };
    let life = Duration::from_secs(900);
    criterion.bench_function("URL, signed", |bencher| {
        bencher.iter(|| {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
            let signed = storage.sign(SignedMethod::Put, black_box(&initiation), NOW, life, deadline);
            threads.block_on(signed).unwrap()
        });
    });
}

/// The times are those of two round trips, and most of them is Redis's own.
fn seal(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session.key");
    std::fs::write(&file, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    let settings: Vec<EncryptionKeySettings> = serde_json::from_value(json!([{"id": "k1", "file": file}])).unwrap();
    let keys = runtime().block_on(Keyring::open(&settings, Randomness::System)).unwrap();
    let id = UploadId::new(Partition(7), [9; 16]);
    // About what is left of a session URI once its known parts are taken out.
    let plain = [0x5a; 160];
    criterion.bench_function("session, sealed", |bencher| bencher.iter(|| keys.seal(id, black_box(&plain)).unwrap()));
    let sealed = keys.seal(id, &plain).unwrap();
    criterion.bench_function("session, opened", |bencher| {
        bencher.iter(|| keys.open_sealed(id, black_box(&sealed)).unwrap());
    });
}

fn store(criterion: &mut Criterion) {
    let Some(server) = Server::start() else { return };
    let threads = runtime();
    let store = threads.block_on(Store::open(&server.settings(), Randomness::System)).unwrap();
    let limits = Limits {
        max_active: Some(1000),
        rate: Some("100000/1m".parse().unwrap()),
        daily_bytes: Some(ByteCount::LARGEST_OBJECT),
    };
    let number = Cell::new(0);
    let next_intent = || {
        number.set(number.get() + 1);
        intent(number.get())
    };
    let admit = async |upload: &Upload| {
        let reserve = upload.promise.size.reserve();
        let owner = Owner { issuer: "https://issuer.example", tenant: None, subject: "ada" };
        let enforcement = Enforcement::Enforce;
        let intent = Intent { upload, owner, reserve, limits, enforcement, idempotency: None, now: NOW };
        match store.admit(&intent).await.unwrap() {
            Admitted::Granted { lease, .. } => lease,
            other => panic!("not granted: {other:?}"),
        }
    };
    criterion.bench_function("store, admit", |bencher| {
        bencher.iter_batched(next_intent, |upload| threads.block_on(admit(&upload)), BatchSize::SmallInput);
    });
    criterion.bench_function("store, attach", |bencher| {
        bencher.iter_batched(
            || {
                let upload = next_intent();
                let lease = threads.block_on(admit(&upload));
                let session = session(&upload);
                (upload, lease, session)
            },
            |(upload, lease, session)| {
                let attached = threads.block_on(store.attach(&lease, &upload, &session, upload.expires_at)).unwrap();
                assert!(matches!(attached, Attached::Tracked(_)));
            },
            BatchSize::SmallInput,
        );
    });
}

/// The `number`th intent, of one user among so many that none comes near a limit.
fn intent(number: u64) -> Upload {
    let user = number % 4096;
    let principal = PrincipalId::of(ISSUER, None, &user.to_string());
    let mut random = [0xa5; 16];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let id = UploadId::new(principal.partition(), random);
    Upload {
        id,
        principal,
        policy: "videos".parse().unwrap(),
        region: "europe-west1".parse().unwrap(),
        bucket: "media-eu".parse().unwrap(),
        object: format!("videos/{user}/{id}.mp4").parse().unwrap(),
        promise: Promise {
            content_type: "video/mp4".parse().unwrap(),
            size: PromisedSize::Exactly(ByteCount(1 << 20)),
            md5: None,
            crc32c: None,
        },
        attributes: Attributes::default(),
        transfer: TransferKind::Resumable,
        created_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(24 * 3600)),
        state: UploadState::Admitted { lease_until: NOW.plus(Duration::from_secs(30)) },
    }
}

/// As long as storage's are.
fn session(upload: &Upload) -> SessionUri {
    let (bucket, name) = (&upload.bucket, upload.object.to_string().replace('/', "%2F"));
    let secret = "A".repeat(170);
    let uri = format!(
        "https://storage.googleapis.com/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name={name}&ifGenerationMatch=0&upload_id={secret}"
    );
    SessionUri::parse(&uri).unwrap()
}

/// A `redis-server` on a socket of its own, which ends with this value.
struct Server {
    process: Child,
    folder: TempDir,
}

impl Server {
    /// Starts one; `None`, said aloud, where there is none to be started.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("session.key"), "pqampqampqampqampqampqampqampqampqampqampqY=").unwrap();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.path().join("redis.sock"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            #[expect(clippy::print_stderr, reason = "whoever runs the benchmarks should see it")]
            {
                eprintln!("skipped: redis-server is not installed");
            }
            return None;
        };
        let server = Self { process, folder };
        let listens = || UnixStream::connect(server.socket()).is_ok();
        let waited = (0..500).any(|_| {
            listens() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        });
        assert!(waited, "redis-server does not listen");
        Some(server)
    }

    fn socket(&self) -> impl AsRef<Path> + use<> {
        self.folder.path().join("redis.sock")
    }

    fn settings(&self) -> Settings {
        let folder = self.folder.path().display();
        serde_json::from_value(json!({
            "url": format!("redis+unix://{folder}/redis.sock"),
            "encryption_keys": [{"id": "k1", "file": format!("{folder}/session.key")}],
        }))
        .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have died already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

criterion_group!(benches, identity, policy, signature, seal, store);
criterion_main!(benches);
