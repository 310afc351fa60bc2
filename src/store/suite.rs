//! How a store behaves: one table, run for memory, one Redis server, Sentinels and a cluster.

use std::pin::Pin;
use std::sync::Arc;

use super::fleet::Fleet;
use super::testing::*;
use super::*;
use crate::model::upload::{Evidence, Overwrite, StateKind};

pub(super) type Behaviour = fn(Arc<Store>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("an intent is recorded, counted and due", |s| Box::pin(an_intent_is_recorded(s))),
    ("what is no intent is not admitted", |s| Box::pin(what_is_no_intent_is_not_admitted(s))),
    ("a session is attached once", |s| Box::pin(a_session_is_attached_once(s))),
    ("a lapsed reservation is prolonged while its place is free", |s| Box::pin(a_lapsed_reservation_is_prolonged(s))),
    ("an abandoned intent leaves nothing", |s| Box::pin(an_abandoned_intent_leaves_nothing(s))),
    ("a repeated request is the same upload", |s| Box::pin(a_repeated_request_is_the_same_upload(s))),
    ("a lapsed lease is taken over", |s| Box::pin(a_lapsed_lease_is_taken_over(s))),
    ("an intent that ran out of time frees its key", |s| Box::pin(an_intent_out_of_time_frees_its_key(s))),
    ("a change is made to the revision it was decided for", |s| Box::pin(a_change_needs_its_revision(s))),
    ("a session is replaced, and nothing else", |s| Box::pin(a_session_is_replaced(s))),
    ("what is made no more is forgotten", |s| Box::pin(what_is_made_no_more_is_forgotten(s))),
    ("a final state is entered once and settled once", |s| Box::pin(a_final_state_is_entered_once(s))),
    ("bytes count whenever they are known to be stored", |s| Box::pin(bytes_count_whenever_they_are_known(s))),
    ("a key is forgotten after a day of the caller's clock", |s| Box::pin(a_key_is_forgotten_after_a_day(s))),
    ("a listing is in pages, newest first", |s| Box::pin(a_listing_is_in_pages(s))),
    ("a listing goes on behind what is gone", |s| Box::pin(a_listing_goes_on_behind_what_is_gone(s))),
    ("a listing looks at no more than 1000 uploads", |s| Box::pin(a_listing_is_bounded(s))),
    ("one of many takes a lapsed lease over", |s| Box::pin(one_of_many_takes_over(s))),
    ("one of many equal requests is granted", |s| Box::pin(one_of_many_equal_requests_is_granted(s))),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_behaves() {
    for (name, behaviour) in all() {
        run(name, *behaviour, memory()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_store_behaves() {
    let Some(server) = Server::start() else { return };
    for (name, behaviour) in all() {
        run(name, *behaviour, server.store().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_store_behaves_behind_sentinels() {
    let Some(fleet) = Fleet::sentinels() else { return };
    for (name, behaviour) in all() {
        run(name, *behaviour, fleet.store().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_store_behaves_in_a_cluster() {
    let Some(fleet) = Fleet::cluster() else { return };
    for (name, behaviour) in all() {
        run(name, *behaviour, fleet.store().await).await;
    }
}

fn all() -> impl Iterator<Item = &'static (&'static str, Behaviour)> {
    BEHAVIOURS.iter().chain(suite_limits::BEHAVIOURS).chain(suite_queues::BEHAVIOURS)
}

async fn run(name: &str, behaviour: Behaviour, store: Store) {
    let finished = tokio::spawn(behaviour(Arc::new(store))).await;
    assert!(finished.is_ok(), "not so: {name}");
}

fn keyed(upload: &Upload, key: u8, fingerprint: u8, limits: Limits) -> Intent<'_> {
    Intent { idempotency: Some((IdempotencyKey([key; 16]), Fingerprint([fingerprint; 16]))), ..plain(upload, limits) }
}

async fn an_intent_is_recorded(store: Arc<Store>) {
    let upload = intent_of(user(1), 1, NOW);
    assert_eq!(store.find(upload.id).await.unwrap(), None);
    let lease = store.grant(&plain(&upload, UNLIMITED)).await;
    assert_eq!(lease.until, NOW.plus(SECONDS(30)));
    let found = store.find(upload.id).await.unwrap().unwrap();
    assert_eq!((&found.upload, &found.session), (&upload, &None));
    assert_eq!(store.due(upload.id).await, Some(lease.until));
    let usage = store.used(user(1), UNLIMITED, NOW).await;
    assert_eq!((usage.active, usage.bytes_today), (1, ByteCount(73_400_320)));
    assert_eq!((usage.rate_left, usage.rate_resets_at), (None, None));
    let again = store.grant(&plain(&upload, UNLIMITED)).await;
    assert_eq!(again, lease, "a repeat is granted the same");
    assert_eq!(store.used(user(1), UNLIMITED, NOW).await, usage, "and counted once");
}

async fn what_is_no_intent_is_not_admitted(store: Arc<Store>) {
    let pending = Upload { state: UploadState::Pending, ..intent_of(user(1), 1, NOW) };
    let foreign = Upload { principal: PrincipalId([9; 16]), ..intent_of(user(1), 2, NOW) };
    for upload in [pending, foreign] {
        let refused = store.admit(&plain(&upload, UNLIMITED)).await;
        assert!(matches!(refused, Err(Error::Corrupt { id, .. }) if id == upload.id), "{refused:?}");
        assert_eq!(store.find(upload.id).await.unwrap(), None);
    }
}

async fn a_session_is_attached_once(store: Arc<Store>) {
    let upload = intent_of(user(1), 1, NOW);
    let lease = store.grant(&plain(&upload, UNLIMITED)).await;
    let due = NOW.plus(SECONDS(900));
    let tracked = store.track(&lease, &upload).await;
    assert_eq!(tracked.upload, Upload { state: UploadState::Pending, ..upload.clone() });
    assert_eq!(tracked.session, Some(session_of(&upload, 0)));
    assert_eq!(store.find(upload.id).await.unwrap(), Some(tracked.clone()));
    assert_eq!(store.due(upload.id).await, Some(due));
    assert_eq!(store.track(&lease, &upload).await, tracked, "a repeat has the same result");

    let other = store.attach(&lease, &upload, &session_of(&upload, 1), due).await.unwrap();
    assert_eq!(other, Attached::LeaseLost(Some(tracked.clone())), "another session");
    let ended = store.end(&tracked, Evidence::CancelRequested, NOW).await;
    let late = store.attach(&lease, &upload, &session_of(&upload, 0), due).await.unwrap();
    assert_eq!(late, Attached::LeaseLost(Some(ended)), "after the end");
    let unknown = intent_of(user(1), 2, NOW);
    let none = store.attach(&lease, &unknown, &session_of(&unknown, 0), due).await.unwrap();
    assert_eq!(none, Attached::LeaseLost(None), "nothing to attach to");
}

async fn a_lapsed_reservation_is_prolonged(store: Arc<Store>) {
    let one = limits(Some(1), None, None);
    let (first, late) = (intent_of(user(1), 1, NOW), NOW.plus(SECONDS(31)));
    let lease = store.grant(&plain(&first, one)).await;
    assert_eq!(store.used(user(1), one, late).await.active, 0, "the lease is over");
    store.track(&lease, &first).await;
    assert_eq!(store.used(user(1), one, late).await.active, 1, "and the place was free");

    let (second, third) = (intent_of(user(2), 1, NOW), intent_of(user(2), 2, late));
    let lease = store.grant(&plain(&second, one)).await;
    store.grant(&plain(&third, one)).await;
    let lost = store.attach(&lease, &second, &session_of(&second, 0), late).await.unwrap();
    assert!(matches!(lost, Attached::LeaseLost(Some(found)) if found.upload == second), "the place is taken");
    assert_eq!(store.used(user(2), one, late).await.active, 1);
}

async fn an_abandoned_intent_leaves_nothing(store: Arc<Store>) {
    let one = limits(Some(1), None, Some(73_400_320));
    let upload = intent_of(user(1), 1, NOW);
    let lease = store.grant(&keyed(&upload, 1, 1, one)).await;
    for _ in 0..2 {
        store.abandon(&lease, &upload).await.unwrap();
        assert_eq!(store.find(upload.id).await.unwrap(), None);
        assert_eq!(store.due(upload.id).await, None);
        let listing = store.list(user(1), &Page { limit: 9, ..Page::default() }, NOW).await.unwrap();
        assert_eq!(listing, Listing::default());
    }
    let second = intent_of(user(1), 2, NOW);
    let tracked = store.create(&keyed(&second, 1, 2, one)).await;
    // Neither the lease of another, nor one that was used up.
    store.abandon(&lease, &second).await.unwrap();
    assert_eq!(store.find(second.id).await.unwrap(), Some(tracked));
    assert_eq!(store.used(user(1), one, NOW).await.active, 1);
}

async fn a_repeated_request_is_the_same_upload(store: Arc<Store>) {
    let (first, repeat) = (intent_of(user(1), 1, NOW), intent_of(user(1), 2, NOW));
    let lease = store.grant(&keyed(&first, 1, 1, UNLIMITED)).await;
    let in_progress = Admitted::InProgress { until: lease.until };
    assert_eq!(store.admit(&keyed(&repeat, 1, 1, UNLIMITED)).await.unwrap(), in_progress);
    assert_eq!(store.admit(&keyed(&repeat, 1, 2, UNLIMITED)).await.unwrap(), Admitted::Mismatch);
    let tracked = store.track(&lease, &first).await;
    let late = Intent { now: NOW.plus(SECONDS(3_600)), ..keyed(&repeat, 1, 1, limits(Some(0), None, None)) };
    assert_eq!(store.admit(&late).await.unwrap(), Admitted::Replayed(tracked.clone()), "limits do not count it again");
    let ended = store.end(&tracked, verified(3), NOW).await;
    assert_eq!(ended.session, None, "a completed upload needs no session");
    assert_eq!(store.admit(&late).await.unwrap(), Admitted::Replayed(ended));
    assert_eq!(store.admit(&keyed(&repeat, 1, 2, UNLIMITED)).await.unwrap(), Admitted::Mismatch);
    assert_eq!(store.find(repeat.id).await.unwrap(), None, "no repeat wrote anything");
    store.grant(&keyed(&intent_of(user(2), 1, NOW), 1, 2, UNLIMITED)).await;
    store.grant(&keyed(&repeat, 2, 2, UNLIMITED)).await;
}

async fn a_lapsed_lease_is_taken_over(store: Arc<Store>) {
    let tight = limits(Some(1), Some("1/1h"), Some(73_400_320));
    let (first, late) = (intent_of(user(1), 1, NOW), NOW.plus(SECONDS(30)));
    let old = store.grant(&keyed(&first, 1, 1, tight)).await;
    let repeat = intent_of(user(1), 2, late);
    let admitted = store.admit(&keyed(&repeat, 1, 1, tight)).await.unwrap();
    let Admitted::Resumed { upload, lease } = admitted else { panic!("{admitted:?}") };
    let until = late.plus(SECONDS(30));
    assert_eq!(upload, Upload { state: UploadState::Admitted { lease_until: until }, ..first.clone() });
    assert_eq!((lease.until, store.due(first.id).await), (until, Some(until)));
    assert_eq!(store.used(user(1), tight, late).await.active, 1, "counted once");

    let lost = store.attach(&old, &first, &session_of(&first, 1), late).await.unwrap();
    assert!(matches!(lost, Attached::LeaseLost(Some(_))), "{lost:?}");
    store.abandon(&old, &first).await.unwrap();
    let tracked = store.track(&lease, &upload).await;
    assert_eq!(tracked.session, Some(session_of(&upload, 0)));

    // Its place may have been taken meanwhile.
    let (first, other) = (intent_of(user(2), 1, NOW), intent_of(user(2), 2, late));
    let one = limits(Some(1), None, None);
    store.grant(&keyed(&first, 1, 1, one)).await;
    store.create(&plain(&other, one)).await;
    let hit = store.refuse(&keyed(&intent_of(user(2), 3, late), 1, 1, one)).await;
    assert!(matches!(hit, LimitHit::Active { limit: 1, .. }), "{hit:?}");
}

async fn an_intent_out_of_time_frees_its_key(store: Arc<Store>) {
    let first = Upload { expires_at: NOW.plus(SECONDS(60)), ..intent_of(user(1), 1, NOW) };
    store.grant(&keyed(&first, 1, 1, UNLIMITED)).await;
    let fresh = intent_of(user(1), 2, NOW.plus(SECONDS(60)));
    let tracked = store.create(&keyed(&fresh, 1, 1, UNLIMITED)).await;
    let repeat = intent_of(user(1), 3, NOW.plus(SECONDS(61)));
    assert_eq!(store.admit(&keyed(&repeat, 1, 1, UNLIMITED)).await.unwrap(), Admitted::Replayed(tracked));
}

async fn a_change_needs_its_revision(store: Arc<Store>) {
    let pending = store.create(&plain(&intent_of(user(1), 1, NOW), UNLIMITED)).await;
    let later = NOW.plus(SECONDS(10));
    let uploading = store.end(&pending, Evidence::Persisted(ByteCount(5)), later).await;
    assert_eq!(uploading.upload.state, UploadState::Uploading { received: ByteCount(5) });
    assert_eq!(uploading.session, pending.session);
    assert!(uploading.revision > pending.revision);
    assert_eq!(store.due(pending.upload.id).await, Some(later.plus(SECONDS(900))));
    assert_eq!(
        store.learn(&pending, Evidence::Persisted(ByteCount(5)), later).await,
        Advanced::Done(uploading.clone())
    );
    let conflict = store.learn(&pending, Evidence::Persisted(ByteCount(9)), later).await;
    assert_eq!(conflict, Advanced::Conflict(uploading.clone()));
    let conflict = store.learn(&pending, Evidence::CancelRequested, later).await;
    assert_eq!(conflict, Advanced::Conflict(uploading.clone()));
    assert_eq!(store.find(pending.upload.id).await.unwrap(), Some(uploading));

    let unknown = Tracked { upload: intent_of(user(1), 2, NOW), session: None, revision: Revision::FIRST };
    assert_eq!(store.learn(&unknown, Evidence::CancelRequested, NOW).await, Advanced::Vanished);
    assert_eq!(store.find(unknown.upload.id).await.unwrap(), None);
    // An intent ends like any upload, and its lease with it.
    let intent = intent_of(user(1), 3, NOW);
    let lease = store.grant(&plain(&intent, UNLIMITED)).await;
    let found = store.find(intent.id).await.unwrap().unwrap();
    let expired = store.end(&found, Evidence::TimeRanOut, later).await;
    assert_eq!(store.due(intent.id).await, None);
    let lost = store.attach(&lease, &intent, &session_of(&intent, 0), later).await.unwrap();
    assert_eq!(lost, Attached::LeaseLost(Some(expired)));
}

async fn a_session_is_replaced(store: Arc<Store>) {
    let tight = limits(Some(1), Some("1/1m"), Some(73_400_320));
    let pending = store.create(&plain(&intent_of(user(1), 1, NOW), tight)).await;
    let uploading = store.end(&pending, Evidence::Persisted(ByteCount(5)), NOW).await;
    let used = store.used(user(1), tight, NOW).await;
    let (later, fresh) = (NOW.plus(SECONDS(10)), session_of(&pending.upload, 1));
    let due = Some(later.plus(SECONDS(900)));
    let renew = async |tracked: &Tracked, session: &SessionUri| {
        let next = tracked.upload.state.after(Evidence::SessionRenewed, later).unwrap();
        store.renew(tracked, next, session, due, later).await.unwrap()
    };
    let Advanced::Done(renewed) = renew(&uploading, &fresh).await else { panic!("not renewed") };
    assert_eq!((&renewed.upload, &renewed.session), (&pending.upload, &Some(fresh.clone())));
    assert_eq!(store.find(pending.upload.id).await.unwrap(), Some(renewed.clone()));
    assert_eq!(store.due(pending.upload.id).await, due);
    assert_eq!(store.used(user(1), tight, NOW).await, used, "counted once, with one token");
    assert_eq!(renew(&uploading, &fresh).await, Advanced::Done(renewed.clone()), "a repeat has the same result");

    let other = session_of(&pending.upload, 2);
    assert_eq!(renew(&uploading, &other).await, Advanced::Conflict(renewed.clone()), "another renewal lost");
    let ended = store.end(&renewed, Evidence::CancelRequested, later).await;
    assert_eq!(ended.session, Some(fresh));
    assert_eq!(renew(&renewed, &other).await, Advanced::Conflict(ended), "after the end");
}

/// Metadata may be 8 KiB, and ended uploads are kept for a week.
async fn what_is_made_no_more_is_forgotten(store: Arc<Store>) {
    let attributes = Attributes {
        metadata: [("album".to_owned(), "summer".repeat(100))].into(),
        cache_control: Some("private".to_owned()),
        overwrite: Overwrite::Allowed,
    };
    let bare = Attributes { overwrite: Overwrite::Allowed, ..Attributes::default() };
    for (number, evidence) in [(1, verified(1)), (2, Evidence::CancelRequested), (3, Evidence::TimeRanOut)] {
        let upload = Upload { attributes: attributes.clone(), ..intent_of(user(1), number, NOW) };
        let pending = store.create(&plain(&upload, UNLIMITED)).await;
        let uploading = store.end(&pending, Evidence::Persisted(ByteCount(5)), NOW).await;
        assert_eq!(uploading.upload.attributes, attributes);
        let ended = store.end(&uploading, evidence.clone(), NOW).await;
        assert_eq!(ended.upload.attributes, bare);
        assert_eq!(store.find(upload.id).await.unwrap(), Some(ended.clone()));
        let repeated = store.learn(&uploading, evidence, NOW).await;
        assert_eq!(repeated, Advanced::Done(ended), "a repeat has the same result");
    }
}

async fn a_final_state_is_entered_once(store: Arc<Store>) {
    let day = limits(Some(5), None, Some(1_000));
    let pending = store.create(&plain(&with_size(&intent_of(user(1), 1, NOW), 100), day)).await;
    let completed = store.end(&pending, verified(70), NOW).await;
    let again = store.learn(&pending, verified(70), NOW).await;
    assert_eq!(again, Advanced::Done(completed.clone()), "a repeat has the same result");
    for (name, evidence, now) in [
        ("another object", verified(80), NOW),
        ("later", verified(70), NOW.plus(SECONDS(1))),
        ("a cancel", Evidence::CancelRequested, NOW),
    ] {
        assert_eq!(store.learn(&pending, evidence, now).await, Advanced::Conflict(completed.clone()), "{name}");
    }
    // Not even based on the final revision.
    let forced = store.advance(&completed, UploadState::Pending, None, &[], NOW).await.unwrap();
    assert_eq!(forced, Advanced::Conflict(completed));
    let usage = store.used(user(1), day, NOW).await;
    assert_eq!((usage.active, usage.bytes_today), (0, ByteCount(70)), "settled once");
}

async fn bytes_count_whenever_they_are_known(store: Arc<Store>) {
    let day = limits(None, None, Some(100));
    let late = NOW.plus(SECONDS(86_400 + 301));
    let upload = |number, at| with_size(&intent_of(user(1), number, at), 30);
    let (first, second) = (upload(1, NOW), upload(2, NOW));
    let first = store.create(&plain(&first, day)).await;
    let second = store.create(&plain(&second, day)).await;
    // Its reservations have ended: the next admission forgets them.
    assert_eq!(store.used(user(1), day, late).await.bytes_today, ByteCount(0));
    store.grant(&plain(&upload(3, late), day)).await;
    for (tracked, expected) in [(&first, 60), (&second, 90)] {
        let completed = store.end(tracked, verified(30), late).await;
        let again = store.learn(tracked, verified(30), late).await;
        assert_eq!(again, Advanced::Done(completed.clone()), "a repeat has the same result");
        let conflict = store.learn(tracked, verified(31), late).await;
        assert_eq!(conflict, Advanced::Conflict(completed));
        assert_eq!(store.used(user(1), day, late).await.bytes_today, ByteCount(expected), "counted once");
    }
    let hit = store.refuse(&plain(&upload(4, late), day)).await;
    assert!(matches!(hit, LimitHit::DailyBytes { left: ByteCount(10), .. }), "{hit:?}");

    // An intent that was taken for dead, whose object is there all the same.
    let intent = with_size(&intent_of(user(2), 1, NOW), 30);
    store.grant(&plain(&intent, day)).await;
    let found = store.find(intent.id).await.unwrap().unwrap();
    let late = NOW.plus(SECONDS(31));
    store.grant(&plain(&with_size(&intent_of(user(2), 2, late), 70), day)).await;
    store.end(&found, verified(30), late).await;
    assert_eq!(store.used(user(2), day, late).await.bytes_today, ByteCount(100));
}

async fn a_key_is_forgotten_after_a_day(store: Arc<Store>) {
    // Records live longer than keys: it is the key that is forgotten, by the clock of whoever asks.
    let at = |number, seconds| intent_of(user(1), number, NOW.plus(SECONDS(seconds)));
    let first = at(1, 0);
    let tracked = store.create(&keyed(&first, 1, 1, UNLIMITED)).await;
    let last_moment =
        Intent { now: NOW.plus(KEY_LIFE).minus(Duration::from_millis(1)), ..keyed(&first, 1, 1, UNLIMITED) };
    let repeat = Upload { id: at(2, 0).id, ..first.clone() };
    let last_repeat = Intent { upload: &repeat, ..last_moment };
    let knows = async |number, key, now| store.knows_key(user(number), IdempotencyKey([key; 16]), now).await.unwrap();
    assert!(knows(1, 1, NOW).await && knows(1, 1, last_moment.now).await);
    assert!(!knows(1, 1, NOW.plus(KEY_LIFE)).await, "a day is over");
    assert!(!knows(1, 2, NOW).await && !knows(2, 1, NOW).await, "another key, and another's");
    assert_eq!(store.admit(&last_repeat).await.unwrap(), Admitted::Replayed(tracked.clone()));
    let (next_day, other) = (at(3, 86_400), at(4, 86_401));
    let fresh = store.create(&keyed(&next_day, 1, 2, UNLIMITED)).await;
    assert_eq!(store.find(first.id).await.unwrap(), Some(tracked), "the upload is still known");
    assert_eq!(
        store.admit(&keyed(&other, 1, 2, UNLIMITED)).await.unwrap(),
        Admitted::Replayed(fresh),
        "the key names the new upload now"
    );
    assert_eq!(store.admit(&keyed(&other, 1, 1, UNLIMITED)).await.unwrap(), Admitted::Mismatch);
}

async fn ids(store: &Store, page: Page) -> (Vec<u32>, Option<Cursor>) {
    let Listing { uploads, next } = store.list(user(1), &page, NOW.plus(SECONDS(3_600))).await.unwrap();
    let number = |tracked: Tracked| {
        assert_eq!(tracked.upload.principal, user(1));
        u32::from_be_bytes(*tracked.upload.id.random().first_chunk().unwrap())
    };
    (uploads.into_iter().map(number).collect(), next)
}

async fn a_listing_is_in_pages(store: Arc<Store>) {
    // Two at a time have the same instant.
    for number in 0..7_u32 {
        let at = NOW.plus(SECONDS(u64::from(number / 2)));
        let tracked = store.create(&plain(&intent_of(user(1), number, at), UNLIMITED)).await;
        if number % 3 == 0 {
            store.end(&tracked, Evidence::CancelRequested, at).await;
        }
        store.grant(&plain(&intent_of(user(2), number, at), UNLIMITED)).await;
    }
    let all = Page { limit: 50, ..Page::default() };
    assert_eq!(ids(&store, all).await, (vec![6, 5, 4, 3, 2, 1, 0], None));
    for limit in 1..=8 {
        let (mut seen, mut page) = (Vec::new(), Page { limit, ..Page::default() });
        for _ in 0..7_usize.div_ceil(limit) {
            let (numbers, next) = ids(&store, page).await;
            assert!(numbers.len() == limit || next.is_none(), "{limit}");
            seen.extend(numbers);
            page.after = next;
        }
        assert_eq!((seen, page.after), (vec![6, 5, 4, 3, 2, 1, 0], None), "{limit}");
    }
    let cancelled = Page { state: Some(StateKind::Cancelled), limit: 2, ..Page::default() };
    let (numbers, next) = ids(&store, cancelled).await;
    assert_eq!(numbers, [6, 3]);
    assert_eq!(ids(&store, Page { after: next, ..cancelled }).await, (vec![0], None));
    let pending = Page { state: Some(StateKind::Pending), ..all };
    assert_eq!(ids(&store, pending).await, (vec![5, 4, 2, 1], None));
    let nobody = store.list(user(3), &all, NOW).await.unwrap();
    assert_eq!(nobody, Listing::default());
    let too_old = NOW.plus(SECONDS(30 * 86_400));
    assert_eq!(store.list(user(1), &all, too_old).await.unwrap(), Listing::default());
}

async fn a_listing_goes_on_behind_what_is_gone(store: Arc<Store>) {
    let mut leases = Vec::new();
    for number in 0..6 {
        let upload = intent_of(user(1), number, NOW);
        leases.push((store.grant(&plain(&upload, UNLIMITED)).await, upload));
    }
    let (numbers, next) = ids(&store, Page { limit: 3, ..Page::default() }).await;
    assert_eq!(numbers, [5, 4, 3]);
    store.abandon(&leases[3].0, &leases[3].1).await.unwrap();
    let rest = Page { after: next, limit: 9, state: None };
    assert_eq!(ids(&store, rest).await, (vec![2, 1, 0], None));
    assert_eq!(ids(&store, Page { limit: 2, ..rest }).await.0, [2, 1]);
}

async fn a_listing_is_bounded(store: Arc<Store>) {
    let first = store.create(&plain(&intent_of(user(1), 0, NOW), UNLIMITED)).await;
    store.end(&first, Evidence::CancelRequested, NOW).await;
    for number in 1..=1_500 {
        let upload = intent_of(user(1), number, NOW.plus(Duration::from_millis(u64::from(number))));
        store.grant(&plain(&upload, UNLIMITED)).await;
    }
    let cancelled = Page { state: Some(StateKind::Cancelled), limit: 5, ..Page::default() };
    let (numbers, next) = ids(&store, cancelled).await;
    assert_eq!(numbers, [0_u32; 0]);
    assert!(next.is_some(), "more follow");
    assert_eq!(ids(&store, Page { after: next, ..cancelled }).await, (vec![0], None));
    let (numbers, _) = ids(&store, Page { limit: 10_000, ..Page::default() }).await;
    assert_eq!(numbers.len(), Page::LARGEST);
}

async fn one_of_many_takes_over(store: Arc<Store>) {
    let late = NOW.plus(SECONDS(30));
    store.grant(&keyed(&intent_of(user(1), 1_000, NOW), 1, 1, UNLIMITED)).await;
    let attempts = (0..50).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(
            async move { store.admit(&keyed(&intent_of(user(1), number, late), 1, 1, UNLIMITED)).await.unwrap() },
        )
    });
    let mut resumed = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Admitted::Resumed { .. } => resumed += 1,
            Admitted::InProgress { until } => assert_eq!(until, late.plus(SECONDS(30))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resumed, 1);
}

async fn one_of_many_equal_requests_is_granted(store: Arc<Store>) {
    let attempts = (0..50).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(
            async move { store.admit(&keyed(&intent_of(user(1), number, NOW), 1, 1, UNLIMITED)).await.unwrap() },
        )
    });
    let mut granted = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Admitted::Granted { .. } => granted += 1,
            Admitted::InProgress { until } => assert_eq!(until, NOW.plus(SECONDS(30))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 1);
    assert_eq!(store.used(user(1), UNLIMITED, NOW).await.active, 1);
}
