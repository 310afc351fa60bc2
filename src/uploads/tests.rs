//! What happens between two steps of an operation, where no request from outside can be placed.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::emulator::{self, BucketSettings, Emulator};
use crate::model::endpoint::EndpointId;
use crate::model::notice::ObjectNotice;
use crate::model::principal::PrincipalId;
use crate::model::secret::SessionUri;
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::{Breach, BreachCode, NewUpload, StateKind, StoredObject, TransferKind, UploadState};
use crate::routing::{self, Arrival};
use crate::storage::{self, Signing};
use crate::store::{Admitted, Intent, Lease, Wanted};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub(crate) fn ada() -> Arc<Principal> {
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

pub(crate) async fn uploads() -> (Emulator, Arc<Uploads>) {
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
    let routing = routing::Settings::of_one_region(region.name.clone(), region.url.clone());
    let uploads = Uploads {
        routing: Arc::new(Routing::new(routing, clock.clone(), Randomness::seeded(4)).unwrap()),
        clock,
        randomness: Randomness::seeded(2),
        policies: Policies::new(&[toml::from_str(policy).unwrap()]).unwrap(),
        store: Arc::new(
            Store::open(&toml::from_str("url = \"memory\"").unwrap(), Randomness::seeded(3)).await.unwrap(),
        ),
        storage: Arc::new(storage),
        regions: vec![region.clone()],
        endpoints: Vec::new(),
        ended: mpsc::channel(1).0,
        region,
        storage_timeout: Duration::from_secs(2),
        sweeper: SweepSettings::default(),
        watchers: Arc::default(),
        recent: Arc::default(),
        tracer: None,
        metrics: Metrics::default(),
    };
    (emulator, Arc::new(uploads))
}

fn request() -> NewUpload {
    NewUpload {
        policy: None,
        filename: "f".parse().unwrap(),
        content_type: "video/mp4".parse().unwrap(),
        size: None,
        md5: None,
        crc32c: None,
        metadata: [("album".to_owned(), "summer".to_owned())].into(),
        transfer: TransferKind::Resumable,
    }
}

pub(crate) async fn create(uploads: &Arc<Uploads>) -> Tracked {
    let context = CreateContext { idempotency: None, origin: None, arrival: Arrival::UNKNOWN, deadline: soon() };
    here(uploads.create(ada(), request(), context).await.unwrap()).tracked
}

/// What was created here, as all is where there is one region.
pub(super) fn here(creation: Creation) -> Created {
    match creation {
        Creation::Here(created) => *created,
        Creation::Elsewhere { region, .. } => panic!("sent to {region}"),
    }
}

/// An upload with a session that is not recorded: not yet, or because the store has lost it.
pub(super) async fn admit(uploads: &Uploads) -> (Upload, Lease, SessionUri) {
    admit_for(uploads, &ada(), &request()).await
}

pub(super) async fn admit_for(
    uploads: &Uploads,
    owner: &Principal,
    request: &NewUpload,
) -> (Upload, Lease, SessionUri) {
    let now = uploads.clock.now();
    let id = UploadId::new(owner.id.partition(), uploads.randomness.bytes());
    let admission = uploads.policies.decide(owner, request, id, now).unwrap();
    let upload = Upload {
        id,
        principal: owner.id,
        policy: admission.policy,
        region: uploads.region.name.clone(),
        bucket: uploads.region.bucket.clone(),
        object: admission.object,
        promise: admission.promise,
        attributes: admission.attributes,
        transfer: TransferKind::Resumable,
        created_at: now,
        expires_at: now.plus(admission.session_lifetime),
        state: UploadState::Admitted { lease_until: now.plus(Duration::from_secs(7)) },
    };
    let intent = Intent {
        upload: &upload,
        owner: owner.owner(),
        reserve: admission.reserve,
        limits: admission.limits,
        enforcement: admission.enforcement,
        idempotency: None,
        now,
    };
    let Admitted::Granted { lease, .. } = uploads.store.admit(&intent).await.unwrap() else { panic!("not admitted") };
    let session = uploads.open_transfer(&upload, None, soon()).await.unwrap();
    (upload, lease, session)
}

pub(super) async fn put(session: &SessionUri, size: usize) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.put(session.expose()).body(vec![7; size]).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

/// What storage says of the upload's object.
fn notice(upload: &Upload) -> ObjectNotice {
    ObjectNotice {
        bucket: upload.bucket.clone(),
        object: upload.object.clone(),
        generation: None,
        hint: Some(upload.id),
    }
}

pub(super) async fn renew(uploads: &Uploads, tracked: &Tracked) -> Tracked {
    uploads.renew(&ada(), tracked.upload.id, None, soon()).await.unwrap()
}

pub(super) fn session(tracked: &Tracked) -> &SessionUri {
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

#[tokio::test]
async fn an_interrupted_creation_is_withdrawn_once_nobody_repeats_it() {
    let (_emulator, uploads) = uploads().await;
    let (upload, ..) = admit(&uploads).await;
    uploads.clock.advance(Duration::from_secs(7));
    let round = uploads.sweep().await;
    assert_eq!((round.due, round.failed), (1, 0));
    assert!(uploads.store.find(upload.id).await.unwrap().is_some(), "its client may repeat it with its key");
    uploads.clock.advance(Duration::from_secs(600));
    assert_eq!(uploads.sweep().await.due, 1);
    assert_eq!(uploads.store.find(upload.id).await.unwrap(), None);
    uploads.clock.advance(Duration::from_secs(86_400));
    assert_eq!(uploads.sweep().await.due, 0);
}

/// The store had acknowledged the session, and has lost it since; its client has it, and was quick.
#[tokio::test]
async fn what_an_interrupted_creation_has_left_at_storage_is_adopted() {
    let (emulator, uploads) = uploads().await;
    let (upload, _, session) = admit(&uploads).await;
    put(&session, 5).await;
    uploads.clock.advance(Duration::from_secs(7));
    assert_eq!(uploads.sweep().await.failed, 0);
    let found = uploads.store.find(upload.id).await.unwrap().unwrap();
    assert!(
        matches!(&found.upload.state, UploadState::Completed { witness: Witness::Sweep, .. }),
        "{:?}",
        found.upload.state
    );
    assert!(emulator.object("media-eu", upload.object.as_str()).is_some());
}

/// The store has not recorded the session yet, or has lost that it had; the object is there all the same.
#[tokio::test]
async fn a_notification_ends_an_upload_whose_session_is_not_recorded() {
    for (size, expected) in [(5, "completed"), (1_001, "rejected")] {
        let (emulator, uploads) = uploads().await;
        let (upload, lease, session) = admit(&uploads).await;
        put(&session, size).await;
        let noticed = uploads.notified(&notice(&upload), soon()).await.unwrap();
        let Noticed::Advanced(ended) = noticed else { panic!("{noticed:?}") };
        assert_eq!(ended.upload.state.name(), expected);
        if let UploadState::Completed { witness, .. } = ended.upload.state {
            assert_eq!(witness, Witness::Notification);
        }
        let is_there = emulator.object("media-eu", upload.object.as_str()).is_some();
        assert_eq!(is_there, expected == "completed", "what is rejected is deleted");

        let late = uploads.attach(&upload, &lease, &session).await;
        assert!(matches!(late, Err(Error::Contended)), "{late:?}");
        let kept = uploads.store.find(upload.id).await.unwrap().unwrap();
        assert_eq!(kept.upload.state.name(), expected, "one final state");
        let repeated = uploads.notified(&notice(&upload), soon()).await.unwrap();
        assert_eq!(repeated, Noticed::AlreadyFinal(kept));
    }
}

#[tokio::test]
async fn a_notification_without_an_object_leaves_an_upload_whose_session_is_not_recorded_alone() {
    let (_emulator, uploads) = uploads().await;
    let (upload, lease, session) = admit(&uploads).await;
    let before = uploads.store.find(upload.id).await.unwrap().unwrap();
    let noticed = uploads.notified(&notice(&upload), soon()).await.unwrap();
    assert_eq!(noticed, Noticed::StillOpen(before));
    let tracked = uploads.attach(&upload, &lease, &session).await.unwrap();
    assert_eq!(tracked.upload.state, UploadState::Pending, "its session is recorded as if nothing had been");
}

/// Its session says for days what it made, long after that was deleted.
#[tokio::test]
async fn what_was_deleted_when_it_was_rejected_is_not_deleted_again_and_again() {
    let (emulator, uploads) = uploads().await;
    let created = create(&uploads).await;
    put(session(&created), 1_001).await;
    let noticed = uploads.notified(&notice(&created.upload), soon()).await.unwrap();
    assert!(matches!(&noticed, Noticed::Advanced(ended) if ended.upload.state.name() == "rejected"), "{noticed:?}");
    let repeated = uploads.notified(&notice(&created.upload), soon()).await.unwrap();
    assert!(matches!(repeated, Noticed::AlreadyFinal(_)), "nothing was cleaned up: {repeated:?}");
    for (hour, due) in [(1, 1), (2, 0), (3, 0)] {
        uploads.clock.advance(Duration::from_secs(3_600));
        assert_eq!(uploads.sweep().await.due, due, "after {hour} hours");
    }
    assert_eq!(emulator.object("media-eu", created.upload.object.as_str()).map(|object| object.size), None);
}

#[tokio::test]
async fn only_the_record_tells_whose_object_it_is() {
    let (_emulator, uploads) = uploads().await;
    let (upload, other) = (create(&uploads).await, create(&uploads).await);
    put(session(&upload), 5).await;
    let told = notice(&upload.upload);
    for (name, notice, expected) in [
        ("another bucket", ObjectNotice { bucket: "media-us".parse().unwrap(), ..told.clone() }, Noticed::Foreign),
        ("another object", ObjectNotice { object: "elsewhere".parse().unwrap(), ..told.clone() }, Noticed::Unknown),
        (
            "an object whose name begins like it",
            ObjectNotice { object: format!("{}.mp4", upload.upload.id).parse().unwrap(), ..told.clone() },
            Noticed::Unknown,
        ),
    ] {
        assert_eq!(uploads.notified(&notice, soon()).await.unwrap(), expected, "{name}");
        assert_eq!(uploads.store.find(upload.upload.id).await.unwrap().as_ref(), Some(&upload), "{name}");
    }
    // The client has put another upload's id into the metadata.
    let misled = ObjectNotice { hint: Some(other.upload.id), ..told };
    let noticed = uploads.notified(&misled, soon()).await.unwrap();
    let Noticed::Advanced(completed) = noticed else { panic!("{noticed:?}") };
    assert_eq!((completed.upload.id, completed.upload.state.name()), (upload.upload.id, "completed"));
    assert_eq!(uploads.store.find(other.upload.id).await.unwrap(), Some(other));
}

#[tokio::test]
async fn an_end_that_a_watcher_finds_is_recorded_for_those_who_are_told_by_then() {
    let (_emulator, before) = uploads().await;
    let tracked = create(&before).await;
    let mut listener = before.listen(&lasting(&ada()), tracked.upload.id, None, soon()).await.unwrap();
    assert!(matches!(listener.next().await, Some(Told::State(_))));
    let endpoint = Endpoint {
        id: EndpointId::of("late"),
        name: "late".to_owned(),
        host: "backend.example.com".to_owned(),
        states: vec![StateKind::Expired],
    };
    let after = Arc::new(Uploads {
        clock: before.clock.clone(),
        randomness: before.randomness.clone(),
        policies: Policies::new(&[]).unwrap(),
        store: Arc::clone(&before.store),
        storage: Arc::clone(&before.storage),
        region: before.region.clone(),
        regions: before.regions.clone(),
        routing: Arc::clone(&before.routing),
        endpoints: vec![endpoint],
        ended: before.ended.clone(),
        storage_timeout: before.storage_timeout,
        sweeper: before.sweeper,
        watchers: Arc::clone(&before.watchers),
        recent: Arc::clone(&before.recent),
        tracer: None,
        metrics: before.metrics.clone(),
    });
    after.watchers.follow(&after);
    after.clock.advance(Duration::from_secs(25 * 3600));
    let Some(Told::State(sight)) = listener.next().await else { panic!("the end is not told") };
    assert_eq!(sight.upload.state.kind(), StateKind::Expired);
    let wanted = [Wanted { endpoint: EndpointId::of("late"), limit: 10 }];
    let now = after.clock.now();
    let partition = tracked.upload.id.partition();
    let waiting =
        after.store.claim_deliveries(partition, &wanted, now, now.plus(Duration::from_secs(60))).await.unwrap();
    assert_eq!(waiting.len(), 1);
}

/// Its region has another bucket by now, as a reload or a restart can have it.
#[tokio::test]
async fn a_notice_of_the_bucket_that_was_is_not_foreign() {
    let (_emulator, uploads) = uploads().await;
    let (tracked, other) = (create(&uploads).await, create(&uploads).await);
    put(session(&tracked), 5).await;
    let Some(mut uploads) = Arc::into_inner(uploads) else { panic!("shared") };
    uploads.region.bucket = "media-eu-2".parse().unwrap();
    let noticed = uploads.notified(&notice(&tracked.upload), soon()).await.unwrap();
    assert!(matches!(&noticed, Noticed::Advanced(ended) if ended.upload.id == tracked.upload.id), "{noticed:?}");
    let unknown = ObjectNotice { hint: None, object: "else".parse().unwrap(), ..notice(&other.upload) };
    assert_eq!(uploads.notified(&unknown, soon()).await.unwrap(), Noticed::Foreign);
    // What another region has made with the same store is for that one to hear of.
    uploads.region.name = "us-east4".parse().unwrap();
    assert_eq!(uploads.notified(&notice(&other.upload), soon()).await.unwrap(), Noticed::Foreign);
}

/// With a token that lasts longer than any upload here.
fn lasting(principal: &Principal) -> Principal {
    Principal { expires_at: NOW.plus(Duration::from_secs(1_000_000)), ..principal.clone() }
}
