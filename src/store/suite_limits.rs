//! How a store behaves, continued: what the limits of a principal admit.

use std::sync::Arc;

use super::suite::Behaviour;
use super::testing::*;
use super::*;
use crate::model::upload::{Breach, BreachCode, Evidence};

pub(super) const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("no more are active than allowed", |s| Box::pin(no_more_are_active_than_allowed(s))),
    ("a reservation ends by itself", |s| Box::pin(a_reservation_ends_by_itself(s))),
    ("the rate is a token bucket", |s| Box::pin(the_rate_is_a_token_bucket(s))),
    ("daily bytes are reserved and settled", |s| Box::pin(daily_bytes_are_reserved_and_settled(s))),
    ("limits that report refuse nothing", |s| Box::pin(limits_that_report_refuse_nothing(s))),
    ("policies and principals are counted apart", |s| Box::pin(ledgers_are_apart(s))),
    ("limits hold under concurrency", |s| Box::pin(limits_hold_under_concurrency(s))),
];

async fn no_more_are_active_than_allowed(store: Arc<Store>) {
    let one = limits(Some(1), None, None);
    let breach = Breach { code: BreachCode::SizeLimit, detail: "too large".to_owned() };
    for (number, evidence) in [
        (1, verified(3)),
        (2, Evidence::Broken(breach, ByteCount(3))),
        (3, Evidence::CancelRequested),
        (4, Evidence::TimeRanOut),
    ] {
        let (first, second) = (intent_of(user(number), 1, NOW), intent_of(user(number), 2, NOW));
        let tracked = store.create(&plain(&first, one)).await;
        let tracked = store.end(&tracked, Evidence::Persisted(ByteCount(1)), NOW).await;
        let hit = store.refuse(&plain(&second, one)).await;
        assert_eq!(hit, LimitHit::Active { limit: 1, retry_after: SECONDS(60) }, "{evidence:?}");
        assert_eq!(store.find(second.id).await.unwrap(), None, "nothing was written");
        assert_eq!(store.due(second.id).await, None);
        store.end(&tracked, evidence.clone(), NOW).await;
        store.grant(&plain(&second, one)).await;
        assert_eq!(store.used(user(number), one, NOW).await.active, 1, "{evidence:?}");
    }
    let none = limits(Some(0), None, None);
    let hit = store.refuse(&plain(&intent_of(user(5), 1, NOW), none)).await;
    assert_eq!(hit, LimitHit::Active { limit: 0, retry_after: SECONDS(60) });
}

async fn a_reservation_ends_by_itself(store: Arc<Store>) {
    let one = limits(Some(1), None, None);
    store.grant(&plain(&intent_of(user(1), 1, NOW), one)).await;
    let soon = NOW.plus(SECONDS(20));
    let hit = store.refuse(&plain(&intent_of(user(1), 2, soon), one)).await;
    assert_eq!(hit, LimitHit::Active { limit: 1, retry_after: SECONDS(10) }, "the rest of the lease");
    store.create(&plain(&intent_of(user(1), 3, NOW.plus(SECONDS(30))), one)).await;
    // A day of session and five minutes.
    let end = NOW.plus(SECONDS(30 + 86_400 + 300));
    store.refuse(&plain(&intent_of(user(1), 4, end.minus(SECONDS(1))), one)).await;
    store.grant(&plain(&intent_of(user(1), 5, end), one)).await;
}

async fn the_rate_is_a_token_bucket(store: Arc<Store>) {
    let rate = limits(None, Some("2/1m"), None);
    let at = |seconds, number| intent_of(user(1), number, NOW.plus(SECONDS(seconds)));
    let left = |seconds| store.used(user(1), rate, NOW.plus(SECONDS(seconds)));
    let full = left(0).await;
    assert_eq!((full.rate_left, full.rate_resets_at), (Some(2), Some(NOW)));
    let first = at(0, 1);
    for _ in 0..3 {
        store.grant(&plain(&first, rate)).await;
    }
    assert_eq!(left(0).await.rate_left, Some(1), "repeats take no token");
    store.grant(&plain(&at(0, 2), rate)).await;
    for _ in 0..3 {
        let hit = store.refuse(&plain(&at(0, 3), rate)).await;
        let limit = rate.rate.unwrap();
        assert_eq!(hit, LimitHit::Rate { limit, retry_after: SECONDS(30) }, "nor do refusals");
    }
    let empty = left(0).await;
    assert_eq!((empty.rate_left, empty.rate_resets_at), (Some(0), Some(NOW.plus(SECONDS(60)))));
    store.refuse(&plain(&at(29, 3), rate)).await;
    store.grant(&plain(&at(30, 3), rate)).await;
    store.refuse(&plain(&at(59, 4), rate)).await;
    assert_eq!(left(600).await.rate_left, Some(2), "no more than it holds");
    // A rate that was slower before the configuration changed.
    let slow = limits(None, Some("1/1h"), None);
    store.grant(&plain(&at(600, 5), slow)).await;
    store.refuse(&plain(&at(629, 6), rate)).await;
    store.refuse(&plain(&at(631, 7), slow)).await;
}

async fn daily_bytes_are_reserved_and_settled(store: Arc<Store>) {
    let day = limits(None, None, Some(100));
    let upload = |number, size, seconds| with_size(&intent_of(user(1), number, NOW.plus(SECONDS(seconds))), size);
    let first = store.create(&plain(&upload(1, 60, 0), day)).await;
    let second = store.create(&plain(&upload(2, 40, 0), day)).await;
    let midnight = Timestamp::start_of_utc_day(NOW.utc_day() + 1);
    let hit = store.refuse(&plain(&upload(3, 1, 0), day)).await;
    assert_eq!(
        hit,
        LimitHit::DailyBytes { limit: ByteCount(100), left: ByteCount(0), retry_after: midnight.since(NOW) }
    );
    store.end(&first, verified(10), NOW).await;
    assert_eq!(store.used(user(1), day, NOW).await.bytes_today, ByteCount(50), "settled at the true size");
    store.end(&second, Evidence::CancelRequested, NOW).await;
    assert_eq!(store.used(user(1), day, NOW).await.bytes_today, ByteCount(10), "released");
    let hit = store.refuse(&plain(&upload(4, 91, 0), day)).await;
    assert!(matches!(hit, LimitHit::DailyBytes { left: ByteCount(90), .. }), "{hit:?}");
    let third = store.create(&plain(&upload(5, 90, 0), day)).await;
    assert_eq!(store.used(user(1), day, midnight).await.bytes_today, ByteCount(90), "the old day is over");
    store.end(&third, verified(90), midnight).await;
    assert_eq!(store.used(user(1), day, midnight).await.bytes_today, ByteCount(90), "it counts when it settles");
    // An instance whose clock is behind does not bring the old day back.
    assert_eq!(store.used(user(1), day, NOW).await.bytes_today, ByteCount(90));
    let fourth = store.create(&plain(&upload(6, 5, 0), day)).await;
    store.end(&fourth, verified(5), NOW).await;
    assert_eq!(store.used(user(1), day, midnight).await.bytes_today, ByteCount(95));
}

async fn limits_that_report_refuse_nothing(store: Arc<Store>) {
    let tight = limits(Some(1), Some("2/1m"), Some(100));
    let upload = |number, size| with_size(&intent_of(user(1), number, NOW), size);
    for (number, size, expected) in [(1, 60, ""), (2, 10, "active"), (3, 10, "rate"), (4, 50, "rate")] {
        let upload = upload(number, size);
        let admitted = store.admit(&Intent { enforcement: Enforcement::Report, ..plain(&upload, tight) }).await;
        let Ok(Admitted::Granted { would_refuse, .. }) = admitted else { panic!("{number}: {admitted:?}") };
        let hit = match would_refuse {
            None => "",
            Some(LimitHit::Active { .. }) => "active",
            Some(LimitHit::Rate { .. }) => "rate",
            Some(LimitHit::DailyBytes { .. }) => "bytes",
        };
        assert_eq!(hit, expected, "{number}");
    }
    let usage = store.used(user(1), tight, NOW).await;
    assert_eq!((usage.active, usage.bytes_today, usage.rate_left), (4, ByteCount(130), Some(0)));
    // What was only reported does not have to be waited for twice.
    assert_eq!(store.used(user(1), tight, NOW.plus(SECONDS(60))).await.rate_left, Some(2));
}

async fn ledgers_are_apart(store: Arc<Store>) {
    let (videos, images) = ("videos".parse().unwrap(), "images".parse().unwrap());
    let one = limits(Some(1), Some("1/1h"), Some(73_400_320));
    store.create(&plain(&intent_of(user(1), 1, NOW), one)).await;
    store.create(&plain(&Upload { policy: "images".parse().unwrap(), ..intent_of(user(1), 2, NOW) }, one)).await;
    store.create(&plain(&intent_of(user(2), 1, NOW), one)).await;
    let other = "other".parse().unwrap();
    let usage = store.usage(user(1), &[(&images, one), (&other, one), (&videos, UNLIMITED)], NOW).await.unwrap();
    let seen = usage.iter().map(|usage| (usage.active, usage.rate_left)).collect::<Vec<_>>();
    assert_eq!(seen, [(1, Some(0)), (0, Some(1)), (1, None)]);
    assert_eq!(store.usage(user(1), &[], NOW).await.unwrap(), []);
    store.ping().await.unwrap();
}

async fn limits_hold_under_concurrency(store: Arc<Store>) {
    let ten = limits(Some(10), None, None);
    let attempts = (0..200).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.admit(&plain(&intent_of(user(1), number, NOW), ten)).await.unwrap() })
    });
    let mut granted = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Admitted::Granted { .. } => granted += 1,
            Admitted::Refused(LimitHit::Active { limit: 10, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 10);
    assert_eq!(store.used(user(1), ten, NOW).await.active, 10);
}
