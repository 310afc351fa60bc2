//! What happens between two steps of an operation, where no request from outside can be placed.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::emulator::{self, BucketSettings, Emulator};
use crate::model::principal::PrincipalId;
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::upload::{Breach, BreachCode, NewUpload, StoredObject, TransferKind};
use crate::storage::{self, Signing};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn ada() -> Arc<Principal> {
    Arc::new(Principal {
        id: PrincipalId([0x3F; 16]),
        issuer: "https://issuer.example".into(),
        tenant: None,
        subject: "ada".into(),
        claims: serde_json::Map::new(),
        admin: false,
        expires_at: NOW.plus(Duration::from_secs(3_600)),
    })
}

async fn uploads() -> (Emulator, Arc<Uploads>) {
    let clock = Clock::manual(NOW);
    let emulator = Emulator::start(emulator::Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        buckets: vec![BucketSettings { name: "media-eu".to_owned(), ..BucketSettings::default() }],
        clock: clock.clone(),
        ..emulator::Settings::default()
    })
    .await
    .unwrap();
    let settings = storage::Settings { endpoint: emulator.url().parse().unwrap(), ..storage::Settings::default() };
    let options = storage::Options {
        randomness: Randomness::seeded(1),
        trusted_ca: Vec::new(),
        user_agent: "upload-broker/test".to_owned(),
        environment: storage::Environment::default(),
        signing: Signing::Unused,
    };
    let storage = Storage::open(&settings, options).await.unwrap();
    let policy = "name = \"streams\"\nobject = \"{id}\"\nmax_size = 1000\nunknown_size = true";
    let region = Region {
        name: "europe-west1".parse().unwrap(),
        bucket: "media-eu".parse().unwrap(),
        url: "https://eu.example.com".parse().unwrap(),
    };
    let uploads = Uploads {
        clock,
        randomness: Randomness::seeded(2),
        policies: Policies::new(&[toml::from_str(policy).unwrap()]).unwrap(),
        store: Store::open(&toml::from_str("url = \"memory\"").unwrap(), Randomness::seeded(3)).await.unwrap(),
        storage,
        regions: vec![region.clone()],
        region,
        storage_timeout: Duration::from_secs(2),
        watchers: Watchers::default(),
        metrics: Metrics::default(),
    };
    (emulator, Arc::new(uploads))
}

async fn create(uploads: &Arc<Uploads>) -> Tracked {
    let request = NewUpload {
        policy: None,
        filename: "f".parse().unwrap(),
        content_type: "video/mp4".parse().unwrap(),
        size: None,
        md5: None,
        crc32c: None,
        metadata: [("album".to_owned(), "summer".to_owned())].into(),
        transfer: TransferKind::Resumable,
    };
    let context = CreateContext { idempotency: None, origin: None, deadline: soon() };
    uploads.create(ada(), request, context).await.unwrap().tracked
}

async fn renew(uploads: &Uploads, tracked: &Tracked) -> Tracked {
    uploads.renew(&ada(), tracked.upload.id, None, soon()).await.unwrap()
}

fn session(tracked: &Tracked) -> &SessionUri {
    tracked.session.as_ref().unwrap()
}

/// The store takes the new session, its answer is lost, and before it is asked once more somebody looks.
#[tokio::test]
async fn a_renewal_does_not_cancel_the_session_that_it_has_recorded() {
    let (emulator, uploads) = uploads().await;
    let created = create(&uploads).await;
    let fresh = uploads.open_transfer(&created.upload, None, soon()).await.unwrap();
    let Advanced::Done(renewed) = uploads.swap(&created, &fresh).await.unwrap() else { panic!("not renewed") };
    let looked = uploads.record(renewed, Evidence::Persisted(ByteCount(5))).await.unwrap();

    let repeated = uploads.replace(created.clone(), session(&created), &fresh).await.unwrap();
    assert_eq!(repeated, looked);
    assert_eq!(emulator.sessions(), 2, "the new session was cancelled");
}

/// The owner cancels while the new session is being opened.
#[tokio::test]
async fn a_renewal_of_what_has_ended_meanwhile_is_refused_and_leaves_nothing_open() {
    let (emulator, uploads) = uploads().await;
    let created = create(&uploads).await;
    let fresh = uploads.open_transfer(&created.upload, None, soon()).await.unwrap();
    uploads.cancel(&ada(), created.upload.id, soon()).await.unwrap();
    let refused = uploads.replace(created.clone(), session(&created), &fresh).await;
    assert!(matches!(refused, Err(Error::InvalidState { state: "cancelled" })), "{refused:?}");
    assert_eq!(emulator.sessions(), 0);
}

/// Somebody found the object of the old session, and writes that down after a renewal.
#[tokio::test]
async fn what_ends_a_renewed_upload_ends_its_new_session_too() {
    let object = StoredObject {
        generation: 1,
        size: ByteCount(5),
        content_type: Some("video/mp4".parse().unwrap()),
        md5: None,
        crc32c: None,
    };
    let breach = Breach { code: BreachCode::SizeLimit, detail: String::new() };
    for evidence in [Evidence::Verified(object, Witness::Client), Evidence::Broken(breach, ByteCount(5))] {
        let (emulator, uploads) = uploads().await;
        let created = create(&uploads).await;
        renew(&uploads, &created).await;
        assert_eq!(emulator.sessions(), 1);
        let ended = uploads.record(created, evidence).await.unwrap();
        assert!(ended.upload.state.is_final());
        assert_eq!(emulator.sessions(), 0, "{:?}", ended.upload.state);
    }
}

#[tokio::test]
async fn that_a_session_outgrew_its_limit_says_nothing_of_the_one_after_it() {
    let (emulator, uploads) = uploads().await;
    let created = create(&uploads).await;
    let renewed = renew(&uploads, &created).await;
    let outgrown = created.upload.promise.outgrown_by(ByteCount(1_001)).unwrap();
    let broken = Evidence::Broken(outgrown, ByteCount(1_001));
    let after = uploads.end(created, broken, Witness::Client, soon()).await.unwrap();
    assert_eq!((after, emulator.sessions()), (renewed, 1));
}

/// A session is pinned to the region that opens it, which must be the one beside the upload's bucket.
#[tokio::test]
async fn a_region_does_not_renew_what_another_one_took() {
    let (emulator, uploads) = uploads().await;
    let created = create(&uploads).await;
    let mut elsewhere = Arc::into_inner(uploads).unwrap();
    elsewhere.region.name = "us-east1".parse().unwrap();
    let refused = elsewhere.renew(&ada(), created.upload.id, None, soon()).await;
    assert!(
        matches!(&refused, Err(Error::Misdirected { region, .. }) if region.as_str() == "europe-west1"),
        "{refused:?}"
    );
    assert_eq!(elsewhere.store.find(created.upload.id).await.unwrap(), Some(created));
    assert_eq!(emulator.sessions(), 1, "and the session works on");
}
