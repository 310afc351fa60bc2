//! What holds in Redis beyond the behaviour that both stores share: keys, lives, secrets, outages, size.

use std::collections::BTreeMap;
use std::time::Instant;

use ::redis::{Cmd, Value, cmd};

use super::testing::*;
use super::*;
use crate::model::id::Partition;
use crate::model::upload::Evidence;

const UNLIMITED: Limits = Limits { max_active: None, rate: None, daily_bytes: None };

fn redis(store: &Store) -> &RedisStore {
    match store {
        Store::Redis(store) => store,
        Store::Memory(_) => panic!("not a Redis store"),
    }
}

fn keyed(upload: &Upload, limits: Limits) -> Intent<'_> {
    Intent { idempotency: Some((IdempotencyKey([7; 16]), Fingerprint([8; 16]))), ..plain(upload, limits) }
}

/// Every key of the server with its serialised value.
async fn everything(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let store = redis(store);
    let keys: Vec<Vec<u8>> = store.raw(cmd("KEYS").arg("*")).await;
    let mut all = BTreeMap::new();
    for key in keys {
        let value: Vec<u8> = store.raw(cmd("DUMP").arg(&key)).await;
        all.insert(key, value);
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn an_operation_touches_the_keys_of_its_principal_and_no_other() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let all = limits(Some(5), Some("9/1m"), Some(1 << 40));
    for other in 1..=3 {
        store.create(&keyed(&intent_of(user(other), 1, NOW), all)).await;
    }
    let due = redis(&store).keys.due(Partition(0x3F), &crate::store::record::tests::upload().region);
    let owners = redis(&store).keys.owners(Partition(0x3F));
    let others = |mut all: BTreeMap<Vec<u8>, Vec<u8>>, except: &[Vec<u8>]| {
        all.retain(|key, _| *key != due && *key != owners && !except.contains(key));
        all
    };
    let before = everything(&store).await;
    let upload = intent_of(user(4), 1, NOW);
    let keys = &redis(&store).keys;
    let own = [
        keys.record(upload.id),
        keys.ledger(user(4), &upload.policy),
        keys.index(user(4)),
        keys.idempotency(user(4), IdempotencyKey([7; 16])),
    ];
    let tracked = store.create(&keyed(&upload, all)).await;
    let with_upload = everything(&store).await;
    assert!(own.iter().all(|key| with_upload.contains_key(key)));
    assert_eq!(others(with_upload.clone(), &own), others(before.clone(), &[]));
    // Whoever counts slots of a cluster looks at what stands between the first braces.
    assert!(with_upload.keys().all(|key| contains(key, b":{p3f}")), "{:?}", with_upload.keys());

    let uploading = store.end(&tracked, Evidence::Persisted(ByteCount(1)), NOW).await;
    store.end(&uploading, verified(1), NOW).await;
    assert_eq!(others(everything(&store).await, &own), others(before, &[]));
    let queued: Vec<Vec<u8>> = redis(&store).raw(cmd("ZRANGE").arg(&due).arg(0).arg(-1)).await;
    assert_eq!(queued.len(), 3, "a final upload is not due any more");
}

#[tokio::test]
async fn every_key_but_the_due_queue_ends_by_itself() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let all = limits(Some(5), Some("9/1m"), Some(1 << 40));
    let upload = intent_of(user(1), 1, NOW);
    let keys = &redis(&store).keys;
    let life = async |key: &[u8]| {
        let millis: i64 = redis(&store).raw(cmd("PTTL").arg(key)).await;
        u64::try_from(millis).map_or(0, |millis| millis.div_ceil(3_600_000))
    };
    let lease = store.grant(&keyed(&upload, all)).await;
    let record = keys.record(upload.id);
    assert_eq!(life(&record).await, 24 + 8 * 24, "until it expires, and the retention");
    let tracked = store.track(&lease, &upload).await;
    assert_eq!(life(&record).await, 24 + 8 * 24, "attaching keeps it");
    let tracked = store.end(&tracked, Evidence::Persisted(ByteCount(1)), NOW).await;
    assert_eq!(life(&record).await, 24 + 8 * 24, "progress keeps it");
    assert_eq!(life(&keys.ledger(user(1), &upload.policy)).await, 9 * 24);
    assert_eq!(life(&keys.index(user(1))).await, 24 * 24);
    assert_eq!(life(&keys.idempotency(user(1), IdempotencyKey([7; 16]))).await, 24);
    assert_eq!(life(&keys.due(Partition(0x3F), &crate::store::record::tests::upload().region)).await, 0);
    store.end(&tracked, verified(1), NOW).await;
    assert_eq!(life(&record).await, 8 * 24, "the retention");

    // A ledger whose only field was the reservation lives on with what was settled.
    let second = intent_of(user(2), 1, NOW);
    let tracked = store.create(&plain(&second, UNLIMITED)).await;
    store.end(&tracked, verified(1), NOW).await;
    let ledger = keys.ledger(user(2), &second.policy);
    assert_eq!(life(&ledger).await, 48);
    // So does one that would have ended before the day did.
    let third = intent_of(user(2), 2, NOW);
    let tracked = store.create(&plain(&third, UNLIMITED)).await;
    let _: Value = redis(&store).raw(cmd("PEXPIRE").arg(&ledger).arg(1_000)).await;
    store.end(&tracked, verified(1), NOW).await;
    assert_eq!(life(&ledger).await, 48);
}

#[tokio::test]
async fn what_is_parked_and_what_is_known_of_it_end_together() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let endpoint = EndpointId([1; 8]);
    let mut ids = Vec::new();
    for number in 0..2 {
        let tracked = store.create(&plain(&intent_of(user(1), number, NOW), UNLIMITED)).await;
        let next = tracked.upload.state.clone().after(Evidence::CancelRequested, NOW).unwrap();
        store.advance(&tracked, next, None, &[endpoint], NOW).await.unwrap();
        ids.push(tracked.upload.id);
    }
    let keys = &redis(&store).keys;
    let both = [keys.parked(Partition(0x3F), endpoint), keys.failures(Partition(0x3F), endpoint)];
    let failures = Failures { count: 1, last: "answered 503".to_owned() };
    let given_up = Attempted::GivenUp { failures: failures.clone(), at: NOW };
    store.settle_delivery(ids[0], endpoint, &given_up).await.unwrap();
    for key in &both {
        let _: Value = redis(&store).raw(cmd("PEXPIRE").arg(key).arg(60_000)).await;
    }
    // The failures of others must not outlive what they are of, nor the other way round.
    store.settle_delivery(ids[1], endpoint, &Attempted::Failed { failures, next: NOW, at: NOW }).await.unwrap();
    for key in &both {
        let life: u64 = redis(&store).raw(cmd("PTTL").arg(key)).await;
        assert!(life > 7 * 86_400_000, "{life} ms");
    }
}

#[tokio::test]
async fn no_session_is_stored_in_plain_text() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let upload = intent_of(user(1), 1, NOW);
    let tracked = store.create(&keyed(&upload, UNLIMITED)).await;
    store.end(&tracked, Evidence::CancelRequested, NOW).await;
    let session = session_of(&upload, 0);
    let secret = session.expose().split("upload_id=").nth(1).unwrap().as_bytes();
    let raw = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret).unwrap();
    // Values as they are, since a dump may be compressed.
    let record: Vec<u8> = redis(&store).raw(cmd("GET").arg(redis(&store).keys.record(upload.id))).await;
    for value in everything(&store).await.into_values().chain([record]) {
        for needle in [b"upload_id".as_slice(), &secret[..8], &secret[60..68], &raw[..8], &raw[60..68]] {
            assert!(!contains(&value, needle));
        }
    }
    let printed = format!("{tracked:?} {:?}", Attached::Tracked(tracked.clone()));
    assert!(
        !printed.contains("upload_id") && !printed.contains(&session.expose()[session.expose().len() - 8..]),
        "{printed}"
    );
}

#[tokio::test]
async fn forgotten_scripts_and_records_are_survived() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let one = limits(Some(1), None, None);
    let upload = intent_of(user(1), 1, NOW);
    let lease = store.grant(&keyed(&upload, one)).await;
    let _: Value = redis(&store).raw(cmd("SCRIPT").arg("FLUSH")).await;
    let tracked = store.track(&lease, &upload).await;
    let _: Value = redis(&store).raw(cmd("SCRIPT").arg("FLUSH")).await;
    store.end(&tracked, Evidence::Persisted(ByteCount(1)), NOW).await;

    let second = intent_of(user(2), 2, NOW);
    let lease = store.grant(&keyed(&second, one)).await;
    let _: Value = redis(&store).raw(&cmd("FLUSHALL")).await;
    let lost = store.attach(&lease, &second, &session_of(&second, 0), NOW).await.unwrap();
    assert_eq!(lost, Attached::LeaseLost(None), "nothing is tracked that is not counted");
    store.abandon(&lease, &second).await.unwrap();
    assert_eq!(store.learn(&tracked, Evidence::CancelRequested, NOW).await, Advanced::Vanished);
    assert_eq!(everything(&store).await, BTreeMap::new(), "and nothing came back");

    // A key that outlived its upload stands in nobody's way, even for another request.
    let third = intent_of(user(3), 3, NOW);
    store.create(&keyed(&third, one)).await;
    let keys = &redis(&store).keys;
    let _: Value = redis(&store).raw(cmd("DEL").arg(keys.record(third.id)).arg(keys.index(user(3)))).await;
    let fresh = intent_of(user(3), 4, NOW);
    let other =
        Intent { idempotency: Some((IdempotencyKey([7; 16]), Fingerprint([9; 16]))), ..plain(&fresh, UNLIMITED) };
    store.create(&other).await;
    assert!(store.find(fresh.id).await.unwrap().is_some());

    // Names that were lost alone are written by the next upload.
    let _: Value = redis(&store).raw(cmd("DEL").arg(keys.owners(Partition(0x3F)))).await;
    store.create(&plain(&intent_of(user(3), 6, NOW), UNLIMITED)).await;
    assert_eq!(store.owners(None, 9).await.unwrap().owners.len(), 1);

    // A ledger that was lost with its reservation: the place is not known to be free.
    let fourth = intent_of(user(4), 5, NOW);
    let lease = store.grant(&plain(&fourth, one)).await;
    let _: Value = redis(&store).raw(cmd("DEL").arg(keys.ledger(user(4), &fourth.policy))).await;
    let lost = store.attach(&lease, &fourth, &session_of(&fourth, 0), NOW).await.unwrap();
    assert!(matches!(lost, Attached::LeaseLost(Some(_))), "{lost:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_hides_nothing_else() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let (good, bad) = (intent_of(user(1), 1, NOW), intent_of(user(1), 2, NOW));
    let readable = store.create(&keyed(&good, UNLIMITED)).await;
    let over = store.create(&plain(&intent_of(user(2), 3, NOW), UNLIMITED)).await;
    let over = store.end(&over, Evidence::CancelRequested, NOW).await;
    store.create(&plain(&bad, UNLIMITED)).await;
    let key = redis(&store).keys.record(bad.id);
    let record: Vec<u8> = redis(&store).raw(cmd("GET").arg(&key)).await;
    let mut wrong_tag = record.clone();
    *wrong_tag.last_mut().unwrap() ^= 1;
    for (name, stored) in [
        ("empty", Vec::new()),
        ("cut off", record[..40].to_vec()),
        ("a version from the future", [&[9], &record[1..]].concat()),
        ("another state", [&record[..1], &[0], &record[2..]].concat()),
        ("a changed seal", wrong_tag),
    ] {
        let _: Value = redis(&store).raw(cmd("SET").arg(&key).arg(stored)).await;
        let error = store.find(bad.id).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { id, .. } if id == bad.id), "{name}: {error}");
        let listing = store.list(user(1), &Page { limit: 9, ..Page::default() }, NOW).await.unwrap();
        assert_eq!(listing.uploads, std::slice::from_ref(&readable), "{name}");
        let based_on = Tracked { upload: bad.clone(), session: None, revision: Revision(9) };
        let error = store.advance(&based_on, UploadState::Pending, None, &[], NOW).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { id, .. } if id == bad.id), "{name}: {error}");
    }

    let directory = tempfile::tempdir().unwrap();
    let mut settings = server.settings("t0");
    settings.encryption_keys = vec![super::seal::tests::key_file(directory.path(), "k2", 2)];
    let rotated_away = Store::open(&settings, Randomness::System).await.unwrap();
    let error = rotated_away.find(good.id).await.unwrap_err();
    assert!(matches!(&error, Error::SealedByUnknownKey { key, .. } if key == "k1"), "{error}");
    // Nobody is given the session of what has ended, and only who revokes it needs it.
    let shown = Tracked { session: None, ..over.clone() };
    assert_eq!(rotated_away.find(over.upload.id).await.unwrap().as_ref(), Some(&shown));
    let listing = rotated_away.list(user(2), &Page { limit: 9, ..Page::default() }, NOW).await.unwrap();
    assert_eq!(listing.uploads, [shown]);
    let error = rotated_away.find_whole(over.upload.id).await.unwrap_err();
    assert!(matches!(&error, Error::SealedByUnknownKey { key, .. } if key == "k1"), "{error}");
    settings.encryption_keys.extend(server.settings("t0").encryption_keys);
    let rotated = Store::open(&settings, Randomness::System).await.unwrap();
    assert_eq!(rotated.find(good.id).await.unwrap(), Some(readable));
    assert_eq!(rotated.find_whole(over.upload.id).await.unwrap(), Some(over));
}

#[tokio::test]
async fn an_outage_is_told_at_once_and_ends_by_itself() {
    let Some(mut server) = Server::start() else { return };
    let store = server.store().await;
    store.create(&plain(&intent_of(user(1), 1, NOW), UNLIMITED)).await;
    for round in 0..2 {
        server.kill();
        for number in 0..4 {
            let started = Instant::now();
            let error = store.admit(&plain(&intent_of(user(1), number, NOW), UNLIMITED)).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
            assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
        }
        assert!(store.ping().await.is_err());
        server.restart();
        for number in 0..4 {
            store.grant(&plain(&intent_of(user(1), 10 * round + number, NOW), UNLIMITED)).await;
        }
        store.ping().await.unwrap();
    }
    assert!(redis(&store).metrics().reconnects.get() > 0);
}

#[tokio::test]
async fn a_store_opens_without_its_server() {
    let Some(mut server) = Server::start() else { return };
    server.kill();
    let store = server.store().await;
    assert!(matches!(store.ping().await, Err(Error::Unavailable(_))));
    server.restart();
    store.ping().await.unwrap();
    let mut settings = server.settings("t");
    settings.encryption_keys.clear();
    assert!(matches!(Store::open(&settings, Randomness::System).await, Err(OpenError::NoKeys)));
    settings.key_prefix = "{t}".to_owned();
    assert!(matches!(Store::open(&settings, Randomness::System).await, Err(OpenError::KeyPrefix)));
    let printed = format!("{settings:?}");
    assert!(!printed.contains("unix"), "{printed}");
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_and_found_again() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let upload = intent_of(user(1), 1, NOW);
    store.grant(&plain(&upload, UNLIMITED)).await;
    let replicate = |of: [&str; 2]| {
        let mut command: Cmd = cmd("REPLICAOF");
        command.arg(&of);
        command
    };
    let _: Value = redis(&store).raw(&replicate(["127.0.0.1", "1"])).await;
    let before = redis(&store).metrics().reconnects.get();
    let error = store.admit(&plain(&intent_of(user(1), 2, NOW), UNLIMITED)).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(_)), "{error}");
    assert!(redis(&store).metrics().reconnects.get() > before, "the connection was made anew");
    let _: Value = redis(&store).raw(&replicate(["NO", "ONE"])).await;
    store.grant(&plain(&intent_of(user(1), 2, NOW), UNLIMITED)).await;
}

/// Waits for a store that had no answer to have one again, and tells how long that took.
async fn until_it_answers(store: &Store) -> Duration {
    let started = Instant::now();
    while store.ping().await.is_err() {
        assert!(started.elapsed() < SECONDS(5), "the store does not find its server again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.elapsed()
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_time_out() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    for round in 0..2_u32 {
        let upload = |number| intent_of(user(1), 20 * round + number, NOW);
        store.grant(&plain(&upload(0), UNLIMITED)).await;
        server.hang();
        let started = Instant::now();
        let first = store.admit(&plain(&upload(1), UNLIMITED)).await.unwrap_err();
        assert!(matches!(first, Error::TimedOut(_)), "{first}");
        assert!(started.elapsed() < Duration::from_millis(2_600), "{:?}", started.elapsed());
        for number in 2..10 {
            let started = Instant::now();
            let error = store.admit(&plain(&upload(number), UNLIMITED)).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
            assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if round == 1 {
            // Long enough for the connections to be made anew, and to be given up in their turn.
            tokio::time::sleep(Duration::from_millis(4_500)).await;
            assert!(store.ping().await.is_err());
        }
        server.go_on();
        let took = until_it_answers(&store).await;
        assert!(took < SECONDS(1), "{took:?}");
        store.grant(&plain(&upload(2), UNLIMITED)).await;
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_stops_asking_its_silent_server() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    store.ping().await.unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    server.hang();
    assert!(matches!(store.ping().await, Err(Error::TimedOut(_))));
    drop(store);
    for _ in 0..500 {
        if metrics.num_alive_tasks() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} tasks go on", metrics.num_alive_tasks());
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_no_longer_than_promised() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    store.ping().await.unwrap();
    let _: Value = redis(&store).raw(cmd("CLIENT").arg("PAUSE").arg(2_300)).await;
    let (started, before) = (Instant::now(), redis(&store).metrics().reconnects.get());
    let upload = intent_of(user(1), 1, NOW);
    let intent = plain(&upload, UNLIMITED);
    let ask = || store.admit(&intent);
    let (one, two, three, four, five, six) = tokio::join!(ask(), ask(), ask(), ask(), ask(), ask());
    for answer in [one, two, three, four, five, six] {
        assert!(matches!(answer, Err(Error::TimedOut(_))), "{answer:?}");
    }
    assert!(started.elapsed() < Duration::from_millis(2_900), "{:?}", started.elapsed());
    let after = redis(&store).metrics().reconnects.get();
    assert!(after > before, "a connection whose time-outs come in a row is made anew");
    until_it_answers(&store).await;
    // The script may run all the same, when the server goes on: repeating it counts nothing twice.
    store.grant(&plain(&upload, limits(Some(1), None, None))).await;
    assert_eq!(store.used(user(1), UNLIMITED, NOW).await.active, 1);
}

/// What a tracked upload takes in the server, with everything that belongs to it.
#[tokio::test]
async fn a_live_upload_takes_at_most_700_bytes() {
    const UPLOADS: u32 = 5_000;
    let Some(server) = Server::start() else { return };
    let store = Store::open(&server.settings("upload-broker"), Randomness::System).await.unwrap();
    let all = limits(Some(5), Some("30/1m"), Some(50 << 30));
    let used = async || {
        let info: String = redis(&store).raw(cmd("INFO").arg("memory")).await;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    let create = async |number: u32| {
        // One partition: its due queue has the form that all have when there are many uploads.
        let principal = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &(number / 5).to_be_bytes());
        let mut principal = PrincipalId(*principal.as_ref().first_chunk().unwrap());
        principal.0[0] = 0x3F;
        let template = intent_of(principal, number, NOW.plus(Duration::from_millis(u64::from(number))));
        let id = UploadId::new(principal.partition(), Randomness::System.bytes());
        let object = format!("videos/u-17/{id}.mp4").parse().unwrap();
        store.create(&plain(&Upload { id, object, ..template }, all)).await;
    };
    // Scripts and connections are not counted as uploads.
    store.create(&plain(&intent_of(user(1), 0, NOW), all)).await;
    let before = used().await;
    for numbers in (0..UPLOADS).collect::<Vec<_>>().chunks(5) {
        let &[one, two, three, four, five] = numbers else { panic!("five uploads a principal") };
        tokio::join!(create(one), create(two), create(three), create(four), create(five));
    }
    let each = (used().await - before) / u64::from(UPLOADS);
    #[expect(clippy::print_stderr, reason = "the number is the result")]
    {
        eprintln!("a live upload takes {each} bytes");
    }
    assert!(each <= 700, "{each} bytes");
}
