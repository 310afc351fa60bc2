//! A deployment of real processes: Redis, the emulator, and brokers that die and come back, on one clock that can be moved.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use upload_broker::clock::Clock;

use super::ahead::Ahead;
use super::broker::configuration;
use super::front::Front;
use super::process::{Process, serve};
use super::user::token;
use super::{BUCKET, Settings, User, redis};

/// How many brokers there are.
pub const BROKERS: usize = 3;

/// As whom storage's notifications are pushed.
const PUSHER: &str = "push@acme.iam.gserviceaccount.com";

/// For whom.
const AUDIENCE: &str = "https://eu.uploads.example.com/v1/notifications/storage";

/// What is running. It goes with its test.
pub struct Fleet {
    /// Where a broker is reached, whichever lives.
    pub url: String,
    /// One for all users, of whom there are hundreds.
    pub client: Client,
    pub ahead: Ahead,
    config: PathBuf,
    front: Front,
    brokers: Mutex<Vec<Option<Member>>>,
    /// What dead brokers have printed that is not usual.
    remains: Mutex<Vec<String>>,
    storage: Process,
    storage_url: String,
    _redis: redis::RedisServer,
    _folder: TempDir,
}

struct Member {
    process: Process,
    operations: String,
}

impl Fleet {
    /// All of it, under these policies; `more` gives the sections that need a folder. `None` where something is missing that
    /// the tests do not bring along.
    pub async fn start(policies: &str, more: impl FnOnce(&std::path::Path) -> String) -> Option<Arc<Self>> {
        let ahead = Ahead::build()?;
        let redis = redis::start().await?;
        let (storage, storage_url) = Process::emulator_with(|command| ahead.rule(command));
        let folder = TempDir::new().unwrap();
        let notifications = format!(
            "[notifications]\nissuer = \"{storage_url}\"\njwks_url = \"{storage_url}/oauth2/v3/certs\"\n\
             audience = \"{AUDIENCE}\"\nservice_account = \"{PUSHER}\"\n\n[sweeper]\nidle_after = \"1m\"\n\n"
        );
        let settings = Settings {
            store: redis.url(),
            policies: policies.to_owned(),
            issuer: "admin_when = 'claims.role == \"admin\"'".to_owned(),
            more: notifications + &more(folder.path()),
            storage_timeout: "5s",
            ..Settings::default()
        };
        let config = folder.path().join("broker.toml");
        std::fs::write(&config, configuration(folder.path(), &storage_url, &settings)).unwrap();
        let front = Front::start(BROKERS).await;
        // Connections are not kept for long: each new one may lead to another broker.
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .pool_idle_timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        let fleet = Arc::new(Self {
            url: format!("http://{}", front.address),
            client,
            ahead,
            config,
            front,
            brokers: Mutex::new((0..BROKERS).map(|_| None).collect()),
            remains: Mutex::default(),
            storage,
            storage_url,
            _redis: redis,
            _folder: folder,
        });
        for place in 0..BROKERS {
            fleet.revive(place).await;
        }
        Some(fleet)
    }

    /// Starts a broker where there is none.
    pub async fn revive(self: &Arc<Self>, place: usize) {
        let mut command = serve(&self.config, "warn,upload_broker::cli=info");
        command.arg("--insecure-loopback");
        self.ahead.rule(&mut command);
        let started = tokio::task::spawn_blocking(move || Process::listening(command)).await.unwrap();
        let (process, address, operations) = started;
        self.brokers.lock().unwrap()[place] = Some(Member { process, operations });
        self.front.set(place, Some(address.parse().unwrap()));
    }

    /// `kill -9`, in the middle of whatever it does.
    pub fn kill(&self, place: usize) {
        let killed = self.brokers.lock().unwrap()[place].take();
        self.front.set(place, None);
        let mut killed = killed.unwrap_or_else(|| panic!("broker {place} does not live"));
        killed.process.kill();
        self.remains.lock().unwrap().extend(unusual(&killed.process));
    }

    /// What brokers have logged that is not usual, the dead ones included.
    pub fn unusual(&self) -> Vec<String> {
        let mut lines = self.remains.lock().unwrap().clone();
        lines.extend(self.brokers.lock().unwrap().iter().flatten().flat_map(|member| unusual(&member.process)));
        lines.extend(self.storage.printed().lines().filter(|line| line.contains("panicked")).map(str::to_owned));
        lines
    }

    /// Somebody with a token for the whole test, however far the clock is moved.
    pub fn user(&self, subject: &str, more: &[(&str, Value)]) -> User {
        let now = Clock::System.now();
        let until = ("exp", json!(now.as_secs() + 12 * 3600));
        let mut user = User::new(self.url.clone(), subject, now);
        user.client = self.client.clone();
        user.bearing(token(subject, now, &[&[until], more].concat()))
    }

    pub fn administrator(&self) -> User {
        self.user("root", &[("role", json!("admin"))])
    }

    /// How many rounds of sweeping each broker has ended so far.
    pub async fn rounds(&self) -> Vec<u64> {
        let operations: Vec<String> =
            self.brokers.lock().unwrap().iter().flatten().map(|member| member.operations.clone()).collect();
        let mut rounds = Vec::new();
        for address in operations {
            let text = self.client.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
            // Each round asks once who is to be forgotten, as its last step; nobody else does while a test waits for rounds.
            let line =
                text.lines().find(|line| line.contains("store_operations_total{operation=\"Owners\",result=\"Ok\"}"));
            rounds.push(line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap()));
        }
        rounds
    }

    /// Has every notification pushed to the front, with these things going wrong.
    pub async fn subscribe(&self, mischief: &Value) {
        let mut body = json!({
            "push_endpoint": format!("{}/v1/notifications/storage", self.url),
            "audience": AUDIENCE, "service_account": PUSHER,
        });
        body.as_object_mut().unwrap().extend(mischief.as_object().unwrap().clone());
        self.emulator(Method::POST, "subscriptions", Some(&body)).await;
    }

    /// Asks the emulator for what it has below `/_emulator/`.
    pub async fn emulator(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let mut request = self.client.request(method, format!("{}/_emulator/{path}", self.storage_url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Every object in the bucket, by name.
    pub async fn objects(&self) -> BTreeMap<String, Value> {
        let (mut objects, mut page) = (BTreeMap::new(), String::new());
        loop {
            let url = format!("{}/storage/v1/b/{BUCKET}/o?{page}", self.storage_url);
            let answer = self.client.get(url).bearer_auth("any").send().await.unwrap().error_for_status().unwrap();
            let listed: Value = answer.json().await.unwrap();
            for object in listed["items"].as_array().into_iter().flatten() {
                objects.insert(object["name"].as_str().unwrap().to_owned(), object.clone());
            }
            let Some(next) = listed["nextPageToken"].as_str() else { return objects };
            page = format!("pageToken={}", url::form_urlencoded::byte_serialize(next.as_bytes()).collect::<String>());
        }
    }
}

/// Lines other than that it listens: warnings, errors, and what a panic prints.
fn unusual(process: &Process) -> Vec<String> {
    process.printed().lines().filter(|line| !line.contains("\"listening\"")).map(str::to_owned).collect()
}
