//! What a history is played in: two brokers on one store, a storage emulator, a clock that stands still, three users.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tempfile::TempDir;

use super::*;
use crate::emulator::{self, BucketSettings, Emulator, ObjectSnapshot};
use crate::model::endpoint::EndpointId;
use crate::model::principal::PrincipalId;
use crate::model::upload::StateKind;
use crate::routing;
use crate::storage::{self, Signing};
use crate::store;

pub(in crate::uploads) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

pub(in crate::uploads) const BUCKET: &str = "media-eu";

/// Small sizes, so that a few steps come to every limit.
const POLICIES: &str = r#"
[[policies]]
name = "files"
object = "files/{sub}/{id}"
max_size = 1000
unknown_size = true
max_active = 4
rate = "6/1m"
daily_bytes = 4000
session_lifetime = "2h"
transfers = ["resumable", "simple", "signed_resumable"]

[[policies]]
name = "latest"
object = "latest/{sub}"
overwrite = true
max_size = 1000
max_active = 2
session_lifetime = "1d"

[[policies]]
name = "streams"
object = "{id}"
min_size = 1
max_size = 1000
unknown_size = true
session_lifetime = "7d"
"#;

/// Of which policies there are limits to be kept, in the order of the configuration.
pub(in crate::uploads) const POLICY_NAMES: [&str; 3] = ["files", "latest", "streams"];

/// One is told of everything, the other of completed uploads alone.
pub(in crate::uploads) fn endpoints() -> Vec<Endpoint> {
    let everything = vec![StateKind::Completed, StateKind::Rejected, StateKind::Cancelled, StateKind::Expired];
    [("backend", everything), ("archive", vec![StateKind::Completed])]
        .map(|(name, states)| Endpoint {
            id: EndpointId::of(name),
            name: name.to_owned(),
            host: format!("{name}.example"),
            states,
        })
        .into()
}

/// Ada and Bob share a partition, so that a mistake between them would show; Eve is in another one.
pub(in crate::uploads) fn users() -> [Arc<Principal>; 3] {
    [("ada", 0x3F, 1), ("bob", 0x3F, 2), ("eve", 0xA1, 3)].map(|(name, partition, number)| {
        let mut id = [number; 16];
        id[0] = partition;
        Arc::new(Principal {
            id: PrincipalId(id),
            issuer: "https://issuer.example".into(),
            tenant: None,
            subject: name.into(),
            claims: serde_json::Map::new(),
            admin: false,
            expires_at: NOW.plus(Duration::from_secs(3_600)),
        })
    })
}

pub(in crate::uploads) struct World {
    pub(in crate::uploads) emulator: Emulator,
    pub(in crate::uploads) clock: Clock,
    pub(in crate::uploads) brokers: [Arc<Uploads>; 2],
    pub(in crate::uploads) users: [Arc<Principal>; 3],
    pub(in crate::uploads) client: reqwest::Client,
    _files: TempDir,
}

#[derive(serde::Deserialize)]
struct PolicyFile {
    policies: Vec<crate::policy::PolicySettings>,
}

impl World {
    pub(in crate::uploads) async fn open(seed: u64, api: storage::Api, settings: &store::Settings) -> Self {
        let clock = Clock::manual(NOW);
        let emulator = Emulator::start(emulator::Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            buckets: vec![BucketSettings { name: BUCKET.to_owned(), ..BucketSettings::default() }],
            clock: clock.clone(),
            randomness: Randomness::seeded(seed),
            ..emulator::Settings::default()
        })
        .await
        .unwrap();
        let files = tempfile::tempdir().unwrap();
        let key = files.path().join("sa.json");
        std::fs::write(&key, emulator.service_account_key().unwrap()).unwrap();
        let storage_settings = storage::Settings {
            endpoint: emulator.url().parse().unwrap(),
            api,
            credentials: storage::Credentials::File { file: key },
            ..storage::Settings::default()
        };
        let first = Arc::new(Store::open(settings, Randomness::seeded(seed ^ 3)).await.unwrap());
        let second = match &*first {
            Store::Memory(_) => Arc::clone(&first),
            Store::Redis(_) => Arc::new(Store::open(settings, Randomness::seeded(seed ^ 5)).await.unwrap()),
        };
        let mut brokers = Vec::new();
        for (number, store) in [first, second].into_iter().enumerate() {
            brokers.push(broker(seed ^ (7 + number as u64), &clock, &storage_settings, store).await);
        }
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let brokers = brokers.try_into().unwrap_or_else(|_| panic!("two brokers"));
        Self { emulator, clock, brokers, users: users(), client, _files: files }
    }

    pub(in crate::uploads) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits until nothing is under way that was left behind when somebody went away.
    pub(in crate::uploads) async fn calm_down(&self) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        while self.brokers.iter().any(|broker| Arc::strong_count(broker) > 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(in crate::uploads) fn object(&self, name: &str) -> Option<ObjectSnapshot> {
        self.emulator.object(BUCKET, name)
    }
}

async fn broker(seed: u64, clock: &Clock, settings: &storage::Settings, store: Arc<Store>) -> Arc<Uploads> {
    let options = storage::Options {
        randomness: Randomness::seeded(seed),
        trusted_ca: Vec::new(),
        user_agent: "upload-broker/test".to_owned(),
        environment: storage::Environment::default(),
        signing: Signing::Wanted,
    };
    let storage = Storage::open(settings, options).await.unwrap();
    let file: PolicyFile = toml::from_str(POLICIES).unwrap();
    let region = Region {
        name: "europe-west1".parse().unwrap(),
        bucket: BUCKET.parse().unwrap(),
        url: "https://eu.example.com".parse().unwrap(),
    };
    let routing = routing::Settings::of_one_region(region.name.clone(), region.url.clone());
    Arc::new(Uploads {
        routing: Arc::new(Routing::new(routing, clock.clone(), Randomness::seeded(seed.wrapping_mul(13))).unwrap()),
        recent: Arc::default(),
        tracer: None,
        clock: clock.clone(),
        randomness: Randomness::seeded(seed.wrapping_mul(11)),
        policies: Policies::new(&file.policies).unwrap(),
        store,
        storage: Arc::new(storage),
        regions: vec![region.clone()],
        endpoints: endpoints(),
        ended: mpsc::channel(1).0,
        region,
        storage_timeout: Duration::from_secs(2),
        sweeper: SweepSettings::default(),
        watchers: Arc::default(),
        metrics: Metrics::default(),
    })
}

/// All that is known at one moment, read from the store and from storage themselves.
pub(in crate::uploads) struct Snapshot {
    pub(in crate::uploads) now: Timestamp,
    pub(in crate::uploads) records: BTreeMap<UploadId, Tracked>,
    /// By user and policy, as numbered in [`World::users`] and [`POLICY_NAMES`].
    pub(in crate::uploads) usage: BTreeMap<(usize, usize), Usage>,
    /// What waits or is parked, for each endpoint.
    pub(in crate::uploads) outboxes: BTreeMap<EndpointId, BTreeSet<UploadId>>,
    /// Of the uploads that have not ended.
    pub(in crate::uploads) due: BTreeMap<UploadId, Timestamp>,
    /// By name.
    pub(in crate::uploads) objects: BTreeMap<String, ObjectSnapshot>,
}

impl World {
    pub(in crate::uploads) async fn snapshot(&self) -> Snapshot {
        let (store, now) = (&self.brokers[0].store, self.now());
        let mut records = BTreeMap::new();
        let mut usage = BTreeMap::new();
        for (number, user) in self.users.iter().enumerate() {
            let mut page = Page { limit: Page::LARGEST, ..Page::default() };
            loop {
                let listing = store.list(user.id, &page, now).await.unwrap();
                records.extend(listing.uploads.into_iter().map(|tracked| (tracked.upload.id, tracked)));
                page.after = listing.next;
                if page.after.is_none() {
                    break;
                }
            }
            let policies: Vec<_> = self.policies().map(|policy| (policy.name(), policy.limits())).collect();
            let used = store.usage(user.id, &policies, now).await.unwrap();
            usage.extend(used.into_iter().enumerate().map(|(policy, used)| ((number, policy), used)));
        }
        let mut outboxes: BTreeMap<EndpointId, BTreeSet<UploadId>> = BTreeMap::new();
        for Endpoint { id, .. } in &self.brokers[0].endpoints {
            for partition in self.partitions() {
                outboxes.entry(*id).or_default().extend(store.outbox(partition, *id).await);
            }
        }
        let (mut due, mut objects) = (BTreeMap::new(), BTreeMap::new());
        for Tracked { upload, .. } in records.values() {
            if !upload.state.is_final() {
                due.extend(store.due(upload.id).await.map(|at| (upload.id, at)));
            }
            let name = upload.object.to_string();
            objects.extend(self.object(&name).map(|object| (name, object)));
        }
        Snapshot { now, records, usage, outboxes, due, objects }
    }

    pub(in crate::uploads) fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.brokers[0].policies.admitting(&self.users[0])
    }

    pub(in crate::uploads) fn partitions(&self) -> BTreeSet<Partition> {
        self.users.iter().map(|user| user.id.partition()).collect()
    }

    /// What a session says of itself.
    pub(in crate::uploads) async fn ask(&self, session: &SessionUri) -> Truth {
        let request = self.client.put(session.expose()).header("content-range", "bytes */*");
        let response = request.header("content-length", "0").send().await.unwrap();
        match response.status().as_u16() {
            200 | 201 => {
                let generation = response.headers().get("x-goog-generation").cloned();
                let body = response.text().await.unwrap();
                let told = generation.map(|value| value.to_str().unwrap().to_owned()).or_else(|| {
                    let resource: serde_json::Value = serde_json::from_str(&body).ok()?;
                    Some(resource["generation"].as_str()?.to_owned())
                });
                Truth::Made(told.unwrap().parse().unwrap())
            }
            308 => Truth::Open(response.headers().get("range").map_or(0, |range| {
                let (_, last) = range.to_str().unwrap().rsplit_once('-').unwrap();
                last.parse::<u64>().unwrap() + 1
            })),
            404 | 410 | 499 => Truth::Dead,
            other => panic!("a session answers {other}"),
        }
    }
}

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::uploads) enum Truth {
    /// It takes bytes, and has so many.
    Open(u64),
    /// It became the object of this generation.
    Made(i64),
    /// It takes nothing any more.
    Dead,
}
