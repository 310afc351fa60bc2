//! A broker process with files that change, and those who notice.

use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc};
use upload_broker::clock::Clock;

use crate::support::broker::configuration;
use crate::support::process::Process;
use crate::support::{Settings, User};

/// How long is waited for what must come. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A policy of this name, whose objects begin with it, and more of its section.
pub fn policy(name: &str, more: &str) -> String {
    format!("[[policies]]\nname = \"{name}\"\nobject = \"{name}/{{id}}\"\n{more}\n")
}

pub fn with_policies(policies: &str) -> Settings {
    Settings { policies: policies.to_owned(), storage_timeout: "10s", ..Settings::default() }
}

/// A running broker, with its files and its storage.
pub struct Scene {
    pub folder: TempDir,
    /// The configuration that it began with.
    pub good: String,
    pub ada: User,
    pub broker: Process,
    /// Where clients reach it.
    pub address: String,
    operations: String,
    _storage: Process,
}

impl Scene {
    pub async fn start(settings: Settings) -> Self {
        Self::start_with_files(settings, |_| {}).await
    }

    /// The same, with more files in the folder.
    pub async fn start_with_files(settings: Settings, files: impl FnOnce(&Path)) -> Self {
        Self::begin(settings, |folder, text| {
            files(folder);
            std::fs::write(folder.join("broker.toml"), text).unwrap();
        })
        .await
    }

    /// The same as Kubernetes mounts it: the file is a link into a directory that is itself a link.
    pub async fn start_linked(settings: Settings) -> Self {
        Self::begin(settings, |folder, text| {
            swap(folder, text);
            std::os::unix::fs::symlink("..data/broker.toml", folder.join("broker.toml")).unwrap();
        })
        .await
    }

    async fn begin(settings: Settings, write: impl FnOnce(&Path, &str)) -> Self {
        let (storage, storage_url) = Process::emulator();
        let folder = TempDir::new().unwrap();
        let good = configuration(folder.path(), &storage_url, &settings);
        write(folder.path(), &good);
        let (broker, address, operations) = Process::serve(&folder.path().join("broker.toml"), "info");
        let ada = User::new(format!("http://{address}"), "ada", Clock::System.now());
        let scene = Self { folder, good, ada, broker, address, operations, _storage: storage };
        soon("the broker is ready", async || scene.operator_get("/readyz").await.0 == 200).await;
        // It looks at its files once more after it has begun to serve, and must not find there what a test writes next.
        scene.hang_up();
        scene.metric("config_reloads_total{result=\"unchanged\"}", 1).await;
        scene
    }

    /// The configuration that it began with.
    pub fn text(&self) -> String {
        self.good.clone()
    }

    /// Replaces the configuration in one step.
    pub fn write(&self, text: &str) {
        self.file("broker.toml", text);
    }

    /// Replaces a file in one step.
    pub fn file(&self, name: &str, text: &str) {
        replace(self.folder.path(), name, text);
    }

    /// Replaces the configuration as Kubernetes does.
    pub fn swap(&self, text: &str) {
        swap(self.folder.path(), text);
    }

    pub fn hang_up(&self) {
        self.broker.signal("HUP");
    }

    /// Puts this configuration in force.
    pub async fn reload(&self, text: &str) {
        const APPLIED: &str = "config_reloads_total{result=\"applied\"}";
        let before = self.value(APPLIED).await;
        self.write(text);
        self.hang_up();
        self.metric(APPLIED, before + 1).await;
    }

    /// What a metric of the broker's own has.
    pub async fn value(&self, name: &str) -> i64 {
        let (_, text) = self.operator_get("/metrics").await;
        let begin = format!("upload_broker_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&begin));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until a metric has this value.
    pub async fn metric(&self, name: &str, expected: i64) {
        let begun = Instant::now();
        loop {
            let value = self.value(name).await;
            if value == expected {
                return;
            }
            let printed = || self.broker.printed();
            assert!(begun.elapsed() < PATIENCE, "{name} is {value}, and not {expected}: {}", printed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn operator_get(&self, path: &str) -> (u16, String) {
        let response = self.ada.client.get(format!("http://{}{path}", self.operations)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

/// Waits until something holds.
pub async fn soon(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn replace(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join("fresh"), text).unwrap();
    std::fs::rename(folder.join("fresh"), folder.join(name)).unwrap();
}

fn swap(folder: &Path, text: &str) {
    let target = format!("..{:016x}", fastrand());
    std::fs::create_dir(folder.join(&target)).unwrap();
    std::fs::write(folder.join(&target).join("broker.toml"), text).unwrap();
    // Other files of the configuration are beside its link, as relative paths say.
    std::os::unix::fs::symlink(&target, folder.join("..fresh")).unwrap();
    std::fs::rename(folder.join("..fresh"), folder.join("..data")).unwrap();
}

fn fastrand() -> u64 {
    u64::from_le_bytes(upload_broker::clock::Randomness::System.bytes())
}

/// Writes a certificate that is good until the beginning of that year, and its key; gives the certificate.
pub fn certificate(folder: &Path, year: i32) -> reqwest::Certificate {
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = parameters.self_signed(&key).unwrap();
    replace(folder, "tls.key", &key.serialize_pem());
    replace(folder, "tls.crt", &made.pem());
    reqwest::Certificate::from_pem(made.pem().as_bytes()).unwrap()
}

/// The content of a secret's file; the number decides which.
pub fn secret(number: u8) -> String {
    format!("whsec_{}\n", STANDARD.encode([number; 32]))
}

/// A receiver of webhooks that accepts everything.
pub struct Hooks {
    pub url: String,
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
    task: tokio::task::JoinHandle<()>,
}

/// What came.
pub struct Event {
    headers: HeaderMap,
    body: String,
}

impl Hooks {
    pub async fn start() -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let take = async |State(sender): State<mpsc::UnboundedSender<Event>>, headers: HeaderMap, body: String| {
            sender.send(Event { headers, body }).unwrap();
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/hooks", post(take)).with_state(sender);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, events: Mutex::new(events), task }
    }

    /// The next event, once it has come.
    pub async fn next(&self) -> Event {
        let mut events = self.events.lock().await;
        tokio::time::timeout(PATIENCE, events.recv())
            .await
            .unwrap_or_else(|_| panic!("waited in vain for an event"))
            .unwrap()
    }

    /// How many events have come that nobody has asked for.
    pub fn waiting(&self) -> usize {
        self.events.try_lock().unwrap().len()
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Event {
    /// Whether it bears a signature by the secret of this number, computed by the specification.
    pub fn is_signed_with(&self, number: u8) -> bool {
        let header = |name: &str| self.headers[name].to_str().unwrap();
        let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), self.body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[number; 32]), signed.as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(tag));
        header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}
