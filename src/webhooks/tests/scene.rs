//! A store with uploads that end, and instances that tell of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{ENDINGS_AT_ONCE, Endpoint, Metrics, WebhookSettings, Webhooks};
use super::SECRET;
use super::receiver::Receiver;
use crate::clock::{Clock, Randomness};
use crate::model::endpoint::EndpointId;
use crate::model::id::{Partition, UploadId};
use crate::model::limits::{Enforcement, Limits};
use crate::model::principal::{Owner, PrincipalId};
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::{Attributes, Evidence, Promise, PromisedSize, TransferKind, Upload, UploadState};
use crate::store::{Admitted, Advanced, Attached, Delivery, Intent, Settings, Store, Tracked, Wanted};
use crate::telemetry::trace::Tracer;

pub(super) const START: Timestamp = Timestamp::from_millis(1_763_805_600_120);

pub(super) struct Scene {
    pub(super) clock: Clock,
    pub(super) store: Arc<Store>,
    /// Whether deliveries are traced.
    pub(super) tracer: Option<Arc<Tracer>>,
    directory: TempDir,
}

/// One instance of the broker, as far as it tells others.
pub(super) struct Instance {
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) stop: CancellationToken,
    ended: mpsc::Sender<Partition>,
    task: JoinHandle<()>,
}

/// What these sections say.
pub(super) fn endpoints(sections: &[WebhookSettings]) -> Vec<Arc<Endpoint>> {
    Endpoint::open_all(sections, &[], "upload-broker/0").unwrap()
}

impl Scene {
    pub(super) async fn new() -> Self {
        let settings = Settings {
            url: "memory".to_owned(),
            tls: None,
            trusted_ca: None,
            key_prefix: "test".to_owned(),
            encryption_keys: Vec::new(),
        };
        let store = Arc::new(Store::open(&settings, Randomness::seeded(1)).await.unwrap());
        Self { clock: Clock::manual(START), store, tracer: None, directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts an instance that tells `receivers`, each by its name.
    pub(super) fn tell(&self, receivers: &[(&str, &Receiver)]) -> Instance {
        let section = |(name, receiver): &(&str, &Receiver)| receiver.section(name, SECRET, self.directory());
        self.start(&receivers.iter().map(section).collect::<Vec<_>>())
    }

    pub(super) fn start(&self, sections: &[WebhookSettings]) -> Instance {
        let webhooks = Arc::new(Webhooks {
            clock: self.clock.clone(),
            randomness: Randomness::seeded(2),
            store: Arc::clone(&self.store),
            endpoints: watch::Sender::new(endpoints(sections)),
            render,
            tracer: self.tracer.clone(),
            metrics: Metrics::default(),
        });
        let (sender, receiver) = mpsc::channel(ENDINGS_AT_ONCE);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&webhooks).run(receiver, stop.clone()));
        Instance { webhooks, stop, ended: sender, task }
    }

    /// Creates an upload of the partition that `number` modulo 4 decides, which its owner then cancels.
    pub(super) async fn cancelled_upload(&self, number: u8, tell: &[&str]) -> UploadId {
        let now = self.clock.now();
        let principal = PrincipalId([number % 4; 16]);
        let mut entropy = [number; 16];
        entropy[0] = 0xEE;
        let id = UploadId::new(principal.partition(), entropy);
        let lease_until = now.plus(Duration::from_secs(30));
        let upload = Upload {
            id,
            principal,
            policy: "videos".parse().unwrap(),
            region: "europe-west1".parse().unwrap(),
            bucket: "media-eu".parse().unwrap(),
            object: format!("videos/{id}").parse().unwrap(),
            promise: Promise {
                content_type: "video/mp4".parse().unwrap(),
                size: PromisedSize::Exactly(ByteCount(3)),
                md5: None,
                crc32c: None,
            },
            attributes: Attributes::default(),
            transfer: TransferKind::Resumable,
            created_at: now,
            expires_at: now.plus(Duration::from_secs(86_400)),
            state: UploadState::Admitted { lease_until },
        };
        let intent = Intent {
            upload: &upload,
            owner: Owner { issuer: "https://issuer.example", tenant: None, subject: "ada" },
            reserve: ByteCount(3),
            limits: Limits { max_active: None, rate: None, daily_bytes: None },
            enforcement: Enforcement::Enforce,
            idempotency: None,
            now,
        };
        let Admitted::Granted { lease, .. } = self.store.admit(&intent).await.unwrap() else { panic!("not admitted") };
        let session = SessionUri::parse("https://storage.example/?upload_id=s3cret").unwrap();
        let attached = self.store.attach(&lease, &upload, &session, lease_until).await.unwrap();
        let Attached::Tracked(tracked) = attached else { panic!("not attached") };
        let next = tracked.upload.state.after(Evidence::CancelRequested, now).unwrap();
        let tell: Vec<_> = tell.iter().map(|name| EndpointId::of(name)).collect();
        let advanced = self.store.advance(&tracked, next, None, &tell, now).await.unwrap();
        assert!(matches!(advanced, Advanced::Done(_)));
        id
    }

    /// What of `endpoint` is due, and is nobody's for the moment. Takes it.
    pub(super) async fn take_due(&self, partition: Partition, endpoint: &str) -> Vec<Delivery> {
        let now = self.clock.now();
        let wanted = Wanted { endpoint: EndpointId::of(endpoint), limit: 100 };
        self.store.claim_deliveries(partition, &[wanted], now, now.plus(Duration::from_secs(60))).await.unwrap()
    }
}

impl Instance {
    /// Says that something has ended, as whoever recorded it does.
    pub(super) async fn notice(&self, id: UploadId) {
        self.ended.send(id.partition()).await.unwrap();
    }

    /// Ends as a process does that is killed.
    pub(super) async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Ends as a process does that was asked to.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Waits until the metrics have this line.
    pub(super) async fn shows(&self, line: &str) {
        let mut registry = Registry::default();
        self.webhooks.metrics.register(&mut registry);
        loop {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            if text.lines().any(|found| found == line) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn render(tracked: &Tracked) -> Value {
    assert!(tracked.session.is_none(), "a receiver must not learn of the session");
    json!({"id": tracked.upload.id.to_string(), "state": tracked.upload.state.name()})
}
