//! How a store behaves, continued: what is due, who is to be told, who is behind a principal, and what was lost.

use std::sync::Arc;

use super::suite::Behaviour;
use super::testing::*;
use super::*;
use crate::model::id::Partition;
use crate::model::name::RegionName;
use crate::model::principal::Owner;
use crate::model::upload::Evidence;

pub(super) const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("what is due is given to one for a while", |s| Box::pin(what_is_due_is_given_to_one(s))),
    ("what nobody settles stays as old as it is", |s| Box::pin(what_nobody_settles_stays_as_old(s))),
    ("the longest overdue comes first, and no more than asked for", |s| Box::pin(the_longest_overdue_comes_first(s))),
    ("regions and partitions have queues of their own", |s| Box::pin(queues_are_apart(s))),
    ("an upload is scheduled as decided for its revision", |s| Box::pin(scheduling_needs_the_revision(s))),
    ("what cannot be read is put off while it is claimed", |s| Box::pin(what_is_claimed_can_be_put_off(s))),
    ("what is not known any more leaves the queue", |s| Box::pin(what_is_gone_leaves_the_queue(s))),
    ("claims at once share what is due", |s| Box::pin(claims_at_once_share(s))),
    ("an end is recorded for all who are to be told", |s| Box::pin(an_end_is_recorded_for_all(s))),
    ("an end that lost is told to nobody", |s| Box::pin(an_end_that_lost_is_told_to_nobody(s))),
    ("a delivery that fails is due again when it was said", |s| Box::pin(a_failed_delivery_is_due_again(s))),
    ("a delivery that is given up waits to be replayed", |s| Box::pin(what_is_given_up_can_be_replayed(s))),
    ("an outcome that comes late changes nothing", |s| Box::pin(a_late_outcome_changes_nothing(s))),
    ("what was parked long ago leaves, whatever else fails", |s| Box::pin(what_was_parked_long_ago_leaves(s))),
    ("parked deliveries are told in pages", |s| Box::pin(parked_deliveries_are_paged(s))),
    ("principals are known by name, in pages", |s| Box::pin(principals_are_known_by_name(s))),
    ("a principal whose name was lost is known by its next upload", |s| Box::pin(a_lost_name_is_known_again(s))),
    ("a lost idempotency key names its upload again", |s| Box::pin(a_lost_key_names_its_upload_again(s))),
    ("a lost upload is restored once, and counted", |s| Box::pin(a_lost_upload_is_restored(s))),
];

const PARTITION: Partition = Partition(0x3F);
const ONE: EndpointId = EndpointId([1; 8]);
const OTHER: EndpointId = EndpointId([2; 8]);

fn region() -> RegionName {
    intent_of(user(1), 1, NOW).region
}

impl Store {
    async fn due_at(&self, now: Timestamp) -> Vec<UploadId> {
        let claimed = self.claim_due(PARTITION, &region(), 100, now, now.plus(SECONDS(60))).await.unwrap();
        claimed.into_iter().map(|due| due.id).collect()
    }

    async fn deliveries_at(&self, endpoint: EndpointId, now: Timestamp) -> Vec<Delivery> {
        let wanted = [Wanted { endpoint, limit: 100 }];
        self.claim_deliveries(PARTITION, &wanted, now, now.plus(SECONDS(60))).await.unwrap()
    }

    /// Ends an upload, and records that these are to be told.
    async fn end_and_tell(&self, tracked: &Tracked, seen: Evidence, tell: &[EndpointId]) -> Advanced {
        let next = tracked.upload.state.after(seen, NOW).unwrap();
        self.advance(tracked, next, None, tell, NOW).await.unwrap()
    }

    async fn ended(&self, number: u32, tell: &[EndpointId]) -> UploadId {
        let tracked = self.create(&plain(&intent_of(user(1), number, NOW), UNLIMITED)).await;
        let ended = self.end_and_tell(&tracked, Evidence::CancelRequested, tell).await;
        assert!(matches!(ended, Advanced::Done(_)), "{ended:?}");
        tracked.upload.id
    }
}

fn failed(count: u32) -> Failures {
    Failures { count, last: "answered 503".to_owned() }
}

async fn what_is_due_is_given_to_one(store: Arc<Store>) {
    let upload = intent_of(user(1), 1, NOW);
    store.create(&plain(&upload, UNLIMITED)).await;
    let due = NOW.plus(SECONDS(900));
    assert_eq!(store.due_at(due.minus(Duration::from_millis(1))).await, [], "not before it is due");
    let claimed = store.claim_due(PARTITION, &region(), 1, due, due.plus(SECONDS(60))).await.unwrap();
    assert_eq!(claimed, [Due { id: upload.id, since: due }]);
    assert_eq!(store.due_at(due.plus(SECONDS(59))).await, [], "it is leased");
    assert_eq!(store.due_at(due.plus(SECONDS(60))).await, [upload.id], "nobody said what came of it");
}

async fn what_nobody_settles_stays_as_old(store: Arc<Store>) {
    let upload = intent_of(user(1), 1, NOW);
    let tracked = store.create(&plain(&upload, UNLIMITED)).await;
    let due = NOW.plus(SECONDS(900));
    let claim = async |now: Timestamp| {
        let until = now.plus(SECONDS(120));
        assert_eq!(store.claim_due(PARTITION, &region(), 9, until, until).await.unwrap().len(), 1);
        let claimed = store.claim_due(PARTITION, &region(), 9, until, until.plus(SECONDS(120))).await.unwrap();
        claimed.into_iter().map(|due| due.since).collect::<Vec<_>>()
    };
    for claimed in 0..20 {
        assert_eq!(claim(due.plus(SECONDS(130 * claimed))).await, [due], "{claimed}");
    }
    // What is late by more than can be written is late all the same.
    let weeks_later = due.plus(SECONDS(20 * 86_400));
    claim(weeks_later).await;
    let [since] = claim(weeks_later.plus(SECONDS(120))).await[..] else { panic!("it is not due") };
    assert!(since <= weeks_later.minus(SECONDS(11 * 3_600)), "{since:?}");
    assert!(store.schedule(&tracked, Some(NOW)).await.unwrap());
    assert_eq!(claim(NOW).await, [NOW], "somebody has looked at it");
}

async fn the_longest_overdue_comes_first(store: Arc<Store>) {
    let mut ids = Vec::new();
    for number in 0..5 {
        let upload = intent_of(user(1), number, NOW.minus(SECONDS(u64::from(number))));
        store.create(&plain(&upload, UNLIMITED)).await;
        ids.insert(0, upload.id);
    }
    let late = NOW.plus(SECONDS(1_000));
    let mut taken = Vec::new();
    for expected in [2, 2, 1, 0] {
        let some = store.claim_due(PARTITION, &region(), 2, late, late.plus(SECONDS(60))).await.unwrap();
        assert_eq!(some.len(), expected);
        taken.extend(some.into_iter().map(|due| due.id));
    }
    assert_eq!(taken, ids);
}

async fn queues_are_apart(store: Arc<Store>) {
    let elsewhere: RegionName = "us-east4".parse().unwrap();
    let there = Upload { region: elsewhere.clone(), ..intent_of(user(1), 1, NOW) };
    let here = intent_of(user(1), 2, NOW);
    store.create(&plain(&there, UNLIMITED)).await;
    store.create(&plain(&here, UNLIMITED)).await;
    let late = NOW.plus(SECONDS(900));
    assert_eq!(store.due_at(late).await, [here.id]);
    let others = store.claim_due(Partition(0x40), &region(), 9, late, late.plus(SECONDS(60))).await.unwrap();
    assert_eq!(others, []);
    let claimed = store.claim_due(PARTITION, &elsewhere, 9, late, late.plus(SECONDS(60))).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].id, there.id);
}

async fn scheduling_needs_the_revision(store: Arc<Store>) {
    let upload = intent_of(user(1), 1, NOW);
    let before = store.create(&plain(&upload, UNLIMITED)).await;
    let now = store.end(&before, Evidence::Persisted(ByteCount(1)), NOW).await;
    let late = NOW.plus(SECONDS(5_000));
    assert!(!store.schedule(&before, Some(late)).await.unwrap(), "it has changed since");
    assert_eq!(store.due(upload.id).await, Some(NOW.plus(SECONDS(900))));
    assert!(store.schedule(&now, Some(late)).await.unwrap());
    assert_eq!(store.due(upload.id).await, Some(late));
    assert!(store.schedule(&now, None).await.unwrap());
    assert_eq!(store.due(upload.id).await, None);
}

async fn what_is_claimed_can_be_put_off(store: Arc<Store>) {
    let upload = intent_of(user(1), 1, NOW);
    let tracked = store.create(&plain(&upload, UNLIMITED)).await;
    let (now, late) = (NOW.plus(SECONDS(1_000)), NOW.plus(SECONDS(9_000)));
    let until = now.plus(SECONDS(60));
    assert!(!store.postpone(upload.id, &upload.region, until, late).await.unwrap(), "nobody has claimed it");
    for claim in [now, until] {
        assert_eq!(store.due_at(claim).await, [upload.id]);
    }
    assert!(!store.postpone(upload.id, &upload.region, until, late).await.unwrap(), "that claim was over");
    let until = until.plus(SECONDS(60));
    assert!(store.postpone(upload.id, &upload.region, until, late).await.unwrap());
    assert_eq!(store.due(upload.id).await, Some(late));
    assert_eq!(store.due_at(late).await, [upload.id]);
    // Somebody who can read it has said something else.
    assert!(store.schedule(&tracked, Some(NOW)).await.unwrap());
    assert!(!store.postpone(upload.id, &upload.region, late.plus(SECONDS(60)), late).await.unwrap());
    assert_eq!(store.due(upload.id).await, Some(NOW));
}

async fn what_is_gone_leaves_the_queue(store: Arc<Store>) {
    let upload = intent_of(user(1), 1, NOW);
    let tracked = store.create(&plain(&upload, UNLIMITED)).await;
    store.unschedule(upload.id, &upload.region).await.unwrap();
    assert!(store.due(upload.id).await.is_some(), "it is known, so its entry stays");
    // What is forgotten by its life cannot be waited for here: an upload that never was is as good.
    let never = intent_of(user(1), 2, NOW);
    store.unschedule(never.id, &never.region).await.unwrap();
    let gone = Tracked { upload: never, ..tracked };
    assert!(!store.schedule(&gone, Some(NOW)).await.unwrap(), "what is not known is not scheduled");
    assert_eq!(store.due(gone.upload.id).await, None);
}

async fn claims_at_once_share(store: Arc<Store>) {
    for number in 0..60 {
        store.create(&plain(&intent_of(user(1), number, NOW), UNLIMITED)).await;
    }
    let late = NOW.plus(SECONDS(900));
    let sweepers = (0..6).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(
            async move { store.claim_due(PARTITION, &region(), 20, late, late.plus(SECONDS(60))).await.unwrap() },
        )
    });
    let mut taken = std::collections::BTreeSet::new();
    for sweeper in sweepers.collect::<Vec<_>>() {
        for due in sweeper.await.unwrap() {
            assert!(taken.insert(due.id), "{} was given to two", due.id);
        }
    }
    assert_eq!(taken.len(), 60);
}

async fn an_end_is_recorded_for_all(store: Arc<Store>) {
    let told = store.ended(1, &[ONE, OTHER]).await;
    let quiet = store.ended(2, &[]).await;
    for endpoint in [ONE, OTHER] {
        let expected = Delivery { id: told, endpoint, failures: Failures::default() };
        assert_eq!(
            store.deliveries_at(endpoint, NOW).await,
            std::slice::from_ref(&expected),
            "{quiet} is told to nobody"
        );
        assert_eq!(store.deliveries_at(endpoint, NOW.plus(SECONDS(59))).await, [], "it is leased");
        assert_eq!(
            store.deliveries_at(endpoint, NOW.plus(SECONDS(60))).await,
            [expected],
            "nobody said what came of it"
        );
    }
    store.settle_delivery(told, ONE, &Attempted::Done).await.unwrap();
    let late = NOW.plus(SECONDS(600));
    assert_eq!(store.deliveries_at(ONE, late).await, []);
    assert_eq!(store.deliveries_at(OTHER, late).await.len(), 1, "one endpoint says nothing of the other");
}

async fn an_end_that_lost_is_told_to_nobody(store: Arc<Store>) {
    let tracked = store.create(&plain(&intent_of(user(1), 1, NOW), UNLIMITED)).await;
    let won = store.end_and_tell(&tracked, Evidence::CancelRequested, &[ONE]).await;
    assert!(matches!(won, Advanced::Done(_)), "{won:?}");
    let lost = store.end_and_tell(&tracked, Evidence::TimeRanOut, &[ONE, OTHER]).await;
    assert!(matches!(lost, Advanced::Conflict(_)), "{lost:?}");
    let again = store.end_and_tell(&tracked, Evidence::CancelRequested, &[ONE]).await;
    assert!(matches!(again, Advanced::Done(_)), "a repeat is told that it happened: {again:?}");
    assert_eq!(store.deliveries_at(ONE, NOW).await.len(), 1);
    assert_eq!(store.deliveries_at(OTHER, NOW).await, []);
}

async fn a_failed_delivery_is_due_again(store: Arc<Store>) {
    let id = store.ended(1, &[ONE]).await;
    assert_eq!(store.deliveries_at(ONE, NOW).await.len(), 1);
    let next = NOW.plus(SECONDS(300));
    store.settle_delivery(id, ONE, &Attempted::Failed { failures: failed(1), next, at: NOW }).await.unwrap();
    assert_eq!(store.deliveries_at(ONE, next.minus(Duration::from_millis(1))).await, []);
    let again = store.deliveries_at(ONE, next).await;
    assert_eq!(again, [Delivery { id, endpoint: ONE, failures: failed(1) }]);
}

async fn what_is_given_up_can_be_replayed(store: Arc<Store>) {
    let id = store.ended(1, &[ONE]).await;
    let at = NOW.plus(SECONDS(1));
    assert!(!store.replay(id, ONE, at).await.unwrap(), "it still waits");
    store.settle_delivery(id, ONE, &Attempted::GivenUp { failures: failed(9), at }).await.unwrap();
    let late = NOW.plus(SECONDS(86_400));
    assert_eq!(store.deliveries_at(ONE, late).await, []);
    let page = store.parked(ONE, None, 10).await.unwrap();
    assert_eq!(page, ParkedPage { parked: vec![Parked { id, since: at, failures: failed(9) }], next: None });
    assert!(!store.replay(id, OTHER, late).await.unwrap(), "nothing is parked for the other");
    assert!(store.replay(id, ONE, late).await.unwrap());
    assert!(!store.replay(id, ONE, late).await.unwrap(), "once");
    assert_eq!(store.parked(ONE, None, 10).await.unwrap(), ParkedPage::default());
    let again = store.deliveries_at(ONE, late).await;
    assert_eq!(again, [Delivery { id, endpoint: ONE, failures: Failures::default() }], "its failures are forgotten");
}

async fn a_late_outcome_changes_nothing(store: Arc<Store>) {
    let id = store.ended(1, &[ONE]).await;
    store.settle_delivery(id, ONE, &Attempted::Done).await.unwrap();
    store.settle_delivery(id, ONE, &Attempted::Failed { failures: failed(1), next: NOW, at: NOW }).await.unwrap();
    store.settle_delivery(id, ONE, &Attempted::GivenUp { failures: failed(1), at: NOW }).await.unwrap();
    assert_eq!(store.deliveries_at(ONE, NOW.plus(SECONDS(600))).await, []);
    assert_eq!(store.parked(ONE, None, 10).await.unwrap(), ParkedPage::default());
}

async fn what_was_parked_long_ago_leaves(store: Arc<Store>) {
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(store.ended(number, &[ONE, OTHER]).await);
    }
    let park = async |id, endpoint, at| {
        store.settle_delivery(id, endpoint, &Attempted::GivenUp { failures: failed(9), at }).await.unwrap();
    };
    let parked = async |endpoint| -> Vec<_> {
        let page = store.parked(endpoint, None, 10).await.unwrap();
        page.parked.into_iter().map(|parked| parked.id).collect()
    };
    for id in &ids[..2] {
        park(*id, ONE, NOW).await;
        park(*id, OTHER, NOW).await;
    }
    let just_before = NOW.plus(FINAL_RETENTION).minus(Duration::from_millis(1));
    park(ids[2], ONE, just_before).await;
    assert_eq!(parked(ONE).await, ids[..3], "as long as their uploads are remembered");
    let then = NOW.plus(FINAL_RETENTION);
    park(ids[3], ONE, then).await;
    assert_eq!(parked(ONE).await, ids[2..4]);
    assert_eq!(parked(OTHER).await, ids[..2], "one endpoint says nothing of the other");
    // A receiver that fails now and then parks nothing for a long time.
    store
        .settle_delivery(
            ids[4],
            ONE,
            &Attempted::Failed { failures: failed(1), next: then, at: then.plus(FINAL_RETENTION) },
        )
        .await
        .unwrap();
    assert_eq!(parked(ONE).await, []);
    assert_eq!(store.deliveries_at(ONE, then).await.len(), 1, "what waits stays");
    if let Store::Redis(redis) = &*store {
        let failures = redis.keys.failures(PARTITION, ONE);
        let kept: Vec<Vec<u8>> = redis.raw(::redis::cmd("HKEYS").arg(failures)).await;
        assert_eq!(kept, [ids[4].random().to_vec()], "nor does anything else stay behind");
    }
}

async fn parked_deliveries_are_paged(store: Arc<Store>) {
    let mut expected = Vec::new();
    for partition in [0x10, 0x20] {
        for number in 0..3 {
            let mut principal = user(1);
            principal.0[0] = partition;
            let tracked = store.create(&plain(&intent_of(principal, number, NOW), UNLIMITED)).await;
            let id = tracked.upload.id;
            store.end_and_tell(&tracked, Evidence::CancelRequested, &[ONE]).await;
            let at = NOW.plus(SECONDS(u64::from(number)));
            store.settle_delivery(id, ONE, &Attempted::GivenUp { failures: failed(number), at }).await.unwrap();
            expected.push(id);
        }
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.parked(ONE, after, 2).await.unwrap();
        assert!(page.parked.len() <= 2);
        seen.extend(page.parked.into_iter().map(|parked| parked.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected);
}

async fn principals_are_known_by_name(store: Arc<Store>) {
    let long = "x".repeat(2_000);
    let owners = [("ada", Some("acme")), ("bob", None), ("eve", Some("acme")), (long.as_str(), None)];
    let mut expected = Vec::new();
    for (number, (subject, tenant)) in (0..).zip(owners) {
        let owner = Owner { issuer: "https://issuer.example", tenant, subject };
        let principal = PrincipalId::of(owner.issuer, tenant, subject);
        for repeat in 0..2 {
            let upload = intent_of(principal, number * 2 + repeat, NOW);
            store.grant(&Intent { owner, ..plain(&upload, UNLIMITED) }).await;
        }
        let names =
            Names { issuer: owner.issuer.to_owned(), tenant: tenant.map(str::to_owned), subject: subject.to_owned() };
        expected.push(KnownOwner { principal, names: Some(names).filter(|_| subject.len() < 1_000) });
    }
    for owner in &expected {
        assert_eq!(store.owner(owner.principal).await.unwrap(), *owner);
        store.forget_owners(owner.principal.partition()).await.unwrap();
    }
    expected.sort_by_key(|owner| owner.principal);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.owners(after, 3).await.unwrap();
        assert!(page.owners.len() <= 3);
        seen.extend(page.owners);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected, "those who have uploads are not forgotten");
}

async fn a_lost_name_is_known_again(store: Arc<Store>) {
    let owner = Owner { issuer: "https://issuer.example", tenant: None, subject: "ada" };
    let named = |subject: &str| KnownOwner { principal: user(1), names: Names::of(Owner { subject, ..owner }) };
    let owners = async || store.owners(None, 10).await.unwrap().owners;
    let upload = |number| Upload { state: UploadState::Pending, ..intent_of(user(1), number, NOW) };
    store.restore(&upload(1), NOW).await.unwrap();
    assert_eq!(owners().await, [KnownOwner { principal: user(1), names: None }], "it has an upload");
    store.grant(&Intent { owner, ..plain(&intent_of(user(1), 2, NOW), UNLIMITED) }).await;
    assert_eq!(owners().await, [named("ada")]);
    // Whoever remembers more says so, and what is known stays.
    let restored = store.restore(&intent_of(user(2), 3, NOW), NOW).await.unwrap();
    let lost = Lost { tracked: &restored, owner: Some(owner), idempotency: None };
    store.restore_lost(&lost, NOW).await.unwrap();
    let other = Owner { subject: "bob", ..owner };
    store.restore_lost(&Lost { owner: Some(other), ..lost }, NOW).await.unwrap();
    store.restore(&intent_of(user(2), 4, NOW), NOW).await.unwrap();
    assert_eq!(owners().await, [named("ada"), KnownOwner { principal: user(2), ..named("ada") }]);
}

async fn a_lost_key_names_its_upload_again(store: Arc<Store>) {
    let (first, later) = (intent_of(user(1), 1, NOW), NOW.plus(SECONDS(60)));
    let key = |number: u8| (IdempotencyKey([number; 16]), Fingerprint([number; 16]));
    let tracked = Tracked {
        upload: Upload { state: UploadState::Pending, ..first.clone() },
        session: Some(session_of(&first, 0)),
        revision: Revision::FIRST.next(),
    };
    let lost = Lost { tracked: &tracked, owner: None, idempotency: Some(key(1)) };
    let keyed = |upload, number, now| Intent { idempotency: Some(key(number)), now, ..plain(upload, UNLIMITED) };
    // Its record was written anew by somebody who did not remember the key.
    for lost in [Lost { idempotency: None, ..lost }, lost, lost] {
        assert_eq!(store.restore_lost(&lost, later).await.unwrap(), tracked);
    }
    let repeat = intent_of(user(1), 2, later);
    assert_eq!(store.admit(&keyed(&repeat, 1, later)).await.unwrap(), Admitted::Replayed(tracked.clone()));
    let mismatch = Intent { idempotency: Some((key(1).0, key(2).1)), ..keyed(&repeat, 1, later) };
    assert_eq!(store.admit(&mismatch).await.unwrap(), Admitted::Mismatch);

    // A client that came back before us has another upload under its key, and keeps that.
    let second = intent_of(user(1), 3, NOW);
    let lease = store.grant(&keyed(&second, 2, NOW)).await;
    store.restore_lost(&Lost { idempotency: Some(key(2)), ..lost }, later).await.unwrap();
    let second = store.track(&lease, &second).await;
    assert_eq!(store.admit(&keyed(&repeat, 2, later)).await.unwrap(), Admitted::Replayed(second));

    // It is forgotten when it would have been.
    let a_day_later = NOW.plus(KEY_LIFE);
    store.restore_lost(&Lost { idempotency: Some(key(3)), ..lost }, a_day_later).await.unwrap();
    assert!(!store.knows_key(user(1), key(3).0, a_day_later).await.unwrap());
    assert!(store.knows_key(user(1), key(1).0, a_day_later.minus(SECONDS(1))).await.unwrap());
    assert!(!store.knows_key(user(1), key(1).0, a_day_later).await.unwrap());
}

async fn a_lost_upload_is_restored(store: Arc<Store>) {
    let upload = Upload { state: UploadState::Pending, ..intent_of(user(1), 1, NOW) };
    let note = store.note(&upload).unwrap();
    if let Some(note) = &note {
        assert!(note.len() < 400 && note.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_eq!(store.read_note(upload.id, note).as_ref(), Some(&upload));
        assert_eq!(store.read_note(intent_of(user(1), 2, NOW).id, note), None, "it is good for one upload");
        assert_eq!(store.read_note(upload.id, &note[1..]), None);
    }
    let later = NOW.plus(SECONDS(30));
    let restored = store.restore(&upload, later).await.unwrap();
    assert_eq!((&restored.upload, &restored.session), (&upload, &None));
    assert_eq!(store.find(upload.id).await.unwrap(), Some(restored.clone()));
    assert_eq!(store.due(upload.id).await, Some(later));
    assert_eq!(store.used(user(1), UNLIMITED, later).await.active, 1);
    let listed = store.list(user(1), &Page { after: None, limit: 10, state: None }, later).await.unwrap();
    assert_eq!(listed.uploads, std::slice::from_ref(&restored));
    let uploading = store.end(&restored, Evidence::Persisted(ByteCount(1)), later).await;
    assert_eq!(store.restore(&upload, later).await.unwrap(), uploading, "what is known stays as it is");
    assert_eq!(store.used(user(1), UNLIMITED, later).await.active, 1);
    store.end(&uploading, verified(5), later).await;
    let used = store.used(user(1), UNLIMITED, later).await;
    assert_eq!((used.active, used.bytes_today), (0, ByteCount(5)));
}
