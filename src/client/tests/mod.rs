//! The client against a broker and a storage that fail on demand.

mod faults;
mod resume;
mod signed;
pub(crate) mod stand_in;
mod streams;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::model::secret::SecretText;
use stand_in::{SECRET, StandIn};

/// One user with one file, and a stand-in to upload it to.
struct Scene {
    directory: tempfile::TempDir,
    server: StandIn,
    client: Client,
    file: PathBuf,
    order: Order,
    /// Every event, as `Debug` prints it.
    events: Mutex<Vec<String>>,
}

fn content(size: usize) -> Vec<u8> {
    // No period that is a power of two: bytes from a wrong offset must not look right.
    (0..size).map(|position| u8::try_from(position % 251).unwrap()).collect()
}

impl Scene {
    async fn with(bytes: &[u8]) -> Self {
        Self::over(Http::new(&[]).unwrap(), bytes).await
    }

    async fn over(http: Http, bytes: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("holiday.mp4");
        std::fs::write(&file, bytes).unwrap();
        let server = StandIn::start(bytes).await;
        let client = Client {
            http,
            broker: format!("http://{}", server.address).parse().unwrap(),
            token: Token::Fixed(SecretText::new("token-1".into())),
            patience: Patience {
                first_pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(2),
                give_up_after: Duration::from_secs(30),
                stalled_after: Duration::from_secs(20),
            },
            randomness: Randomness::seeded(7),
        };
        Self { directory, server, client, file, order: Order::default(), events: Mutex::default() }
    }

    async fn upload(&self) -> Result<UploadReport, Error> {
        self.watched(async |watch| self.client.upload(&self.file, &self.order, watch).await).await
    }

    async fn watched(
        &self,
        upload: impl AsyncFnOnce(Watch<'_>) -> Result<UploadReport, Error>,
    ) -> Result<UploadReport, Error> {
        let watch = |event: Event<'_>| self.events.lock().unwrap().push(format!("{event:?}"));
        let outcome = upload(&watch).await;
        assert_eq!(self.server.world().offences, Vec::<String>::new());
        let seen = format!("{outcome:?} {:?}", self.events.lock().unwrap());
        assert!(!seen.contains(SECRET) && !seen.contains("token-"), "a secret shows: {seen}");
        outcome
    }

    async fn completes(&self) -> UploadReport {
        self.is_complete(self.upload().await)
    }

    /// Checks that an upload ended as it should.
    fn is_complete(&self, outcome: Result<UploadReport, Error>) -> UploadReport {
        let report = outcome.unwrap();
        assert_eq!(report.state, FinalState::Completed);
        let world = self.server.world();
        assert!(world.uploads.last().unwrap().stored == world.expected, "what is stored is the file");
        drop(world);
        assert!(!self.state_file().exists(), "nothing is left to resume");
        report
    }

    fn state_file(&self) -> PathBuf {
        self.directory.path().join("holiday.mp4.upload-broker.json")
    }

    fn saw(&self, event: &str) -> bool {
        self.events.lock().unwrap().iter().any(|seen| seen.contains(event))
    }
}

#[tokio::test]
async fn a_file_goes_up_in_chunks_and_is_verified() {
    let scene = Scene::with(&content(2000)).await;
    let report = scene.completes().await;
    assert_eq!(scene.server.journal(), ["create", "send 0-767", "send 768-1535", "send 1536-1999", "complete"]);
    assert_eq!((report.bytes, report.chunks, report.resumes), (2000, 3, 0));
    assert_eq!((report.policy.as_str(), report.region.as_deref()), ("videos", Some("here")));
    assert_eq!(report.crc32c, Crc32c(crc32c::crc32c(&content(2000))));
    assert_eq!(
        scene.server.world().uploads[0].body,
        json!({
            "filename": "holiday.mp4", "content_type": "video/mp4", "size_bytes": 2000,
            "crc32c": report.crc32c.to_string(), "md5": md5_of(&content(2000)),
        })
    );
}

fn md5_of(bytes: &[u8]) -> String {
    use md5::Digest as _;
    crate::model::digest::Md5(md5::Md5::digest(bytes).into()).to_string()
}

#[tokio::test]
async fn an_order_is_passed_on() {
    let mut scene = Scene::with(b"x").await;
    scene.order.policy = Some("videos".parse().unwrap());
    scene.order.content_type = Some("text/plain".parse().unwrap());
    scene.order.metadata = [("album".to_owned(), "summer".to_owned())].into();
    scene.completes().await;
    let body = scene.server.world().uploads[0].body.clone();
    assert_eq!(body["policy"], "videos");
    assert_eq!(body["content_type"], "text/plain");
    assert_eq!(body["metadata"], json!({"album": "summer"}));
}

#[tokio::test]
async fn sizes_at_the_edges_of_chunks_work() {
    for (size, sends) in [(0, 1), (1, 1), (767, 1), (768, 1), (769, 2), (1536, 2)] {
        let scene = Scene::with(&content(size)).await;
        let report = scene.completes().await;
        assert_eq!(report.chunks, sends, "{size} bytes");
        assert_eq!(scene.server.journal().len(), usize::try_from(sends).unwrap() + 2, "{size} bytes");
    }
}

#[tokio::test]
async fn a_chunk_may_be_larger_than_what_is_read_at_once() {
    let size = 3 << 20;
    let mut scene = Scene::with(&content(size)).await;
    scene.order.chunk = Some("2MiB".parse().unwrap());
    scene.completes().await;
    assert_eq!(scene.server.journal()[1..3], ["send 0-2097151", "send 2097152-3145727"]);
}

#[tokio::test]
async fn other_final_states_are_reported_as_such() {
    for (state, expected) in [
        ("rejected", FinalState::Rejected { code: "size-limit".into(), detail: "too large".into() }),
        ("cancelled", FinalState::Cancelled),
        ("expired", FinalState::Expired),
    ] {
        let scene = Scene::with(b"x").await;
        let upload = json!({
            "id": format!("3f{:032x}", 0), "state": state, "policy": "p", "object": "o",
            "rejection": {"code": "size-limit", "detail": "too large"},
        });
        scene.server.refuse("complete", 200, upload);
        assert_eq!(scene.upload().await.unwrap().state, expected);
        assert!(!scene.state_file().exists(), "{state}: there is nothing to resume");
    }
}

#[tokio::test]
async fn an_object_that_is_not_the_file_is_an_error() {
    let scene = Scene::with(&content(300)).await;
    scene.server.world().lies = true;
    let error = scene.upload().await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_state_that_nobody_knows_is_waited_out() {
    let scene = Scene::with(b"x").await;
    let upload = json!({"id": format!("3f{:032x}", 0), "state": "quarantined", "policy": "p", "object": "o"});
    scene.server.refuse("complete", 200, upload);
    scene.completes().await;
    assert!(scene.saw("BrokerUnaware"));
}
