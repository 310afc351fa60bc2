//! Live progress: whoever listens to an upload learns what becomes of it, whoever finds out.

use std::time::Duration;

use axum::http::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::{Client, Method};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use upload_broker::app::Ended;
use upload_broker::emulator::journal::Operation;
use upload_broker::uploads::WatchLimits;

use crate::support::listening::Listening;
use crate::support::{Broker, Settings, User, join_all, noise, redis};

const KIB_256: usize = 256 << 10;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// Looks and asks all the time.
fn lively() -> WatchLimits {
    WatchLimits {
        look_every: Duration::from_millis(20),
        ask_after: Duration::from_millis(40),
        ask_after_signed: Duration::from_millis(40),
        ask_at_least_every: Duration::from_millis(80),
        ..WatchLimits::default()
    }
}

/// Learns only what this instance records.
fn nudged() -> WatchLimits {
    WatchLimits { look_every: NEVER, ask_after: NEVER, ask_after_signed: NEVER, ..WatchLimits::default() }
}

async fn broker(watching: WatchLimits) -> Broker {
    Broker::start_with(Settings { watching, ..Settings::default() }).await
}

/// The same user by HTTP/2.
fn by_http_2(mut user: User) -> User {
    user.client = Client::builder().http2_prior_knowledge().build().unwrap();
    user
}

async fn metric(broker: &Broker, line: &str) -> bool {
    broker.operator_get("/metrics").await.1.lines().any(|found| found == line)
}

/// Waits until the broker counts so many listeners.
async fn listeners(broker: &Broker, count: usize) {
    let line = format!("upload_broker_event_listeners {count}");
    for _ in 0..500 {
        if metric(broker, &line).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {line}");
}

#[tokio::test]
async fn an_upload_is_followed_to_its_end_by_both_protocols() {
    let broker = broker(lively()).await;
    for user in [broker.user("ada"), by_http_2(broker.user("bob"))] {
        let created = user.create(3 * KIB_256 as u64).await.is(201);
        let mut listening = Listening::to(&user, &created.id(), None).await;
        let pending = listening.state("pending").await;
        assert_eq!((&pending.data["id"], &pending.data["received_bytes"]), (&created.body["id"], &0.into()));

        // The bytes go to storage, and the client says nothing of them.
        let sender = broker.user("anybody");
        let put = async |range: &str| sender.put(&created.uri(), Some(range), noise(KIB_256, 1)).await;
        assert_eq!(put("bytes 0-262143/786432").await, 308);
        let uploading = listening.state("uploading").await;
        assert_eq!(uploading.data["received_bytes"], KIB_256);
        assert_eq!(put("bytes 262144-524287/786432").await, 308);
        let progress = listening.next().await.unwrap();
        assert_eq!(progress.event, "progress");
        let expected =
            serde_json::json!({"id": created.id(), "received_bytes": 2 * KIB_256, "size_bytes": 3 * KIB_256});
        assert_eq!(progress.data, expected);
        assert_eq!(put("bytes 524288-786431/786432").await, 200);
        // Whether the question or this comes first, it is completed once.
        user.complete(&created.id()).await.is_upload(200, "completed");
        let completed = listening.state("completed").await;
        assert_eq!(completed.data["result"]["size_bytes"], 3 * KIB_256);
        assert_eq!(listening.block().await, None, "the end is the end");

        let ids: Vec<u32> = [pending, uploading, progress, completed].iter().map(|b| b.id.parse().unwrap()).collect();
        assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
        for secret in ["upload_id", "transfer", "uri"] {
            assert!(!listening.text.contains(secret), "{secret} in {}", listening.text);
        }
    }
    listeners(&broker, 0).await;
    assert!(metric(&broker, "upload_broker_events_sent_total{event=\"state\"} 6").await);
    assert!(metric(&broker, "upload_broker_events_sent_total{event=\"progress\"} 2").await);
}

#[tokio::test]
async fn what_this_instance_records_is_told_at_once() {
    let broker = broker(nudged()).await;
    let ada = broker.user("ada");
    let created = ada.create(KIB_256 as u64 + 1).await.is(201);
    let (mut one, mut two) =
        (Listening::to(&ada, &created.id(), None).await, Listening::to(&ada, &created.id(), None).await);
    for listening in [&mut one, &mut two] {
        listening.state("pending").await;
    }
    ada.put(&created.uri(), Some("bytes 0-262143/262145"), noise(KIB_256, 1)).await;
    ada.look(&created.id()).await.is_upload(200, "uploading");
    for listening in [&mut one, &mut two] {
        listening.state("uploading").await;
    }
    ada.call(Method::POST, &format!("/v1/uploads/{}/renew", created.id()), None).await.is_upload(200, "pending");
    for listening in [&mut one, &mut two] {
        assert_eq!(listening.state("pending").await.data["received_bytes"], 0, "another session");
    }
    ada.cancel(&created.id()).await.is_upload(200, "cancelled");
    for mut listening in [one, two] {
        listening.state("cancelled").await;
        assert_eq!(listening.block().await, None);
    }
}

#[tokio::test]
async fn what_another_instance_records_is_told_too() {
    let Some(redis) = redis::start().await else { return };
    let settings = |watching| Settings { store: redis.url(), watching, ..Settings::default() };
    // It reads records and asks storage nothing.
    let reading = WatchLimits { look_every: Duration::from_millis(20), ..nudged() };
    let one = Broker::start_with(settings(reading)).await;
    let two = Broker::start_beside(one.storage.clone(), one.clock.clone(), settings(reading)).await;
    let (here, there) = (one.user("ada"), two.user("ada"));
    let created = here.create(KIB_256 as u64 + 1).await.is(201);
    let mut listening = Listening::to(&there, &created.id(), None).await;
    listening.state("pending").await;
    here.put(&created.uri(), Some("bytes 0-262143/262145"), noise(KIB_256, 1)).await;
    here.look(&created.id()).await.is_upload(200, "uploading");
    let uploading = listening.state("uploading").await;
    assert_eq!(uploading.data["received_bytes"], KIB_256);
    drop(listening);

    // And a stream goes on where another instance has begun it.
    let mut resumed = Listening::to(&here, &created.id(), Some(&uploading.id)).await;
    there.cancel(&created.id()).await.is_upload(200, "cancelled");
    resumed.state("cancelled").await;
    assert_eq!(resumed.block().await, None);
}

#[tokio::test]
async fn a_stream_that_is_resumed_repeats_only_the_end() {
    let broker = broker(nudged()).await;
    let ada = broker.user("ada");
    let created = ada.create(KIB_256 as u64 + 1).await.is(201);
    let pending = Listening::to(&ada, &created.id(), None).await.state("pending").await;
    let mut resumed = Listening::to(&ada, &created.id(), Some(&pending.id)).await;
    ada.put(&created.uri(), Some("bytes 0-262143/262145"), noise(KIB_256, 1)).await;
    ada.look(&created.id()).await.is(200);
    let uploading = resumed.state("uploading").await;
    drop(resumed);

    let mut behind = Listening::to(&ada, &created.id(), Some(&pending.id)).await;
    assert_eq!(behind.state("uploading").await, uploading, "what was missed is told");
    for unknown in ["no-id-of-ours", "-1", ""] {
        let mut anew = Listening::to(&ada, &created.id(), Some(unknown)).await;
        assert_eq!(anew.state("uploading").await, uploading, "{unknown:?}");
    }
    ada.cancel(&created.id()).await.is_upload(200, "cancelled");
    let cancelled = behind.state("cancelled").await;
    for last in [None, Some(&pending.id[..]), Some(&uploading.id), Some(&cancelled.id)] {
        let mut after = Listening::to(&ada, &created.id(), last).await;
        assert_eq!(after.state("cancelled").await, cancelled, "after {last:?}");
        assert_eq!(after.block().await, None);
    }
}

#[tokio::test]
async fn an_upload_whose_time_is_over_is_ended_for_those_who_listen() {
    let policies =
        "[[policies]]\nname = \"videos\"\nobject = \"{id}\"\nmax_size = \"1MiB\"\nsession_lifetime = \"10m\"\n";
    let watching = WatchLimits { ask_after: NEVER, ..lively() };
    let broker = Broker::start_with(Settings { policies: policies.to_owned(), watching, ..Settings::default() }).await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    let mut listening = Listening::to(&ada, &created.id(), None).await;
    listening.state("pending").await;
    broker.clock.advance(Duration::from_secs(10 * 60));
    listening.state("expired").await;
    assert_eq!(listening.block().await, None);
    assert_eq!(broker.storage.sessions(), 0, "its session is revoked");
}

#[tokio::test]
async fn a_finished_upload_is_completed_although_nobody_says_so() {
    let policies = "[[policies]]\nname = \"videos\"\nobject = \"{id}\"\nmax_size = \"1MiB\"\ntransfers = [\"resumable\", \"simple\"]\n";
    let storage = "credentials = { file = \"sa.json\" }".to_owned();
    let settings = Settings { policies: policies.to_owned(), storage, watching: lively(), ..Settings::default() };
    let broker = Broker::start_with(settings).await;
    let ada = broker.user("ada");
    for kind in ["resumable", "simple"] {
        let mut request = crate::support::user::request(10);
        request["transfer_kind"] = kind.into();
        let created = ada.create_from(request).await.is(201);
        let mut listening = Listening::to(&ada, &created.id(), None).await;
        let mut put = ada.client.put(created.uri()).body(noise(10, 2));
        for (name, value) in created.body["transfer"]["headers"].as_object().unwrap() {
            put = put.header(name, value.as_str().unwrap());
        }
        assert_eq!(put.send().await.unwrap().status(), 200, "{kind}");
        listening.until("completed").await;
        assert_eq!(listening.block().await, None, "{kind}");
    }
}

#[tokio::test]
async fn many_who_listen_to_one_upload_cost_what_one_costs_and_nobody_costs_nothing() {
    let broker = broker(lively()).await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut listening = Listening::to(&ada, &created.id(), None).await;
        listening.state("pending").await;
        open.push(listening);
    }
    listeners(&broker, 10).await;
    // The questions come one after the other, each at least 40 ms after the last, though ten listen.
    let journal = broker.storage.journal();
    let before = journal.count(Operation::Status);
    let begun = tokio::time::Instant::now();
    while journal.count(Operation::Status) < before + 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let most = begun.elapsed().as_millis() / 40 + 2;
    assert!(u128::from((journal.count(Operation::Status) - before) as u64) <= most);

    drop(open);
    listeners(&broker, 0).await;
    // A question may be under way, and no more than one.
    let mut asked = 0;
    for _ in 0..20 {
        let before = std::mem::replace(&mut asked, journal.count(Operation::Status));
        if asked == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    panic!("nobody listens, and storage is asked");
}

#[tokio::test]
async fn nobody_listens_to_what_is_not_theirs_or_not_there() {
    let broker = broker(nudged()).await;
    let created = broker.user("ada").create(10).await.is(201);
    let path = format!("/v1/uploads/{}/events", created.id());
    broker.user("eve").get(&path).await.is_problem(404, "not-found");
    broker.user("ada").get(&format!("/v1/uploads/{}/events", "0".repeat(34))).await.is_problem(404, "not-found");
    broker.user("ada").get("/v1/uploads/x/events").await.is_problem(404, "not-found");
    broker.user("ada").call(Method::POST, &path, None).await.is_problem(405, "method-not-allowed");
    broker.user("ada").bearing("x".to_owned()).get(&path).await.is_problem(401, "unauthenticated");
    let json = broker.user("ada").with("accept", "application/json").get(&path).await;
    assert!(json.is_problem(406, "not-acceptable").text("/detail").contains("text/event-stream"));
    listeners(&broker, 0).await;
}

#[tokio::test]
async fn listeners_are_bounded_for_each_principal_and_for_all() {
    let broker = broker(WatchLimits { listeners: 5, listeners_each: 3, ..nudged() }).await;
    let (ada, bob) = (broker.user("ada"), broker.user("bob"));
    let (adas, bobs) = (ada.create(10).await.is(201).id(), bob.create(10).await.is(201).id());
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Listening::to(&ada, &adas, None).await);
    }
    let path = |id: &str| format!("/v1/uploads/{id}/events");
    let refused = ada.get(&path(&adas)).await.is_problem(429, "quota-exceeded");
    assert_eq!(refused.text("/limit"), "event_listeners");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"event_listeners\";q=3"));
    for _ in 0..2 {
        open.push(Listening::to(&bob, &bobs, None).await);
    }
    bob.get(&path(&bobs)).await.is_problem(503, "overloaded");
    // At once, as many as there is room for.
    drop(open);
    listeners(&broker, 0).await;
    let attempts = (0..20).map(|_| {
        let (client, token, url) = (ada.client.clone(), ada.token.clone(), format!("{}{}", ada.broker, path(&adas)));
        async move { client.get(url).bearer_auth(token).send().await.unwrap() }
    });
    let answers = join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 3);
    assert_eq!(answers.iter().filter(|answer| answer.status() == 429).count(), 17);
    drop(answers);
    listeners(&broker, 0).await;
}

#[tokio::test]
async fn a_stream_in_which_nothing_happens_shows_that_it_is_alive() {
    let broker = broker(WatchLimits { heartbeat: Duration::from_millis(50), ..nudged() }).await;
    for user in [broker.user("ada"), by_http_2(broker.user("bob"))] {
        let created = user.create(10).await.is(201);
        let mut listening = Listening::to(&user, &created.id(), None).await;
        listening.state("pending").await;
        for _ in 0..3 {
            assert_eq!(listening.block().await.unwrap().event, "");
        }
        assert!(listening.text.ends_with("\n\n:\n\n:\n\n:\n\n"), "{}", listening.text);
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_its_life() {
    let watching = WatchLimits { heartbeat: Duration::from_millis(50), ..nudged() };
    let broker = broker(watching).await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    let mut listening = Listening::to(&ada, &created.id(), None).await;
    let pending = listening.state("pending").await;
    // Tokens of these tests are good for an hour.
    broker.clock.advance(Duration::from_secs(3599));
    assert!(listening.block().await.is_some());
    broker.clock.advance(Duration::from_secs(1));
    assert_eq!(listening.next().await, None);
    // And it goes on with the next.
    let fresh = broker.user("ada");
    let mut resumed = Listening::to(&fresh, &created.id(), Some(&pending.id)).await;
    fresh.cancel(&created.id()).await.is_upload(200, "cancelled");
    resumed.state("cancelled").await;

    let short = WatchLimits { life: Duration::from_millis(50), ..nudged() };
    let broker = Broker::start_with(Settings { watching: short, ..Settings::default() }).await;
    let created = broker.user("ada").create(10).await.is(201);
    let mut listening = Listening::to(&broker.user("ada"), &created.id(), None).await;
    listening.state("pending").await;
    assert_eq!(listening.block().await, None);
}

/// Listens ten times over one connection, on which nothing of an answer is taken; other requests go on there meanwhile.
async fn ten_that_take_nothing(user: &User, id: &str) -> JoinHandle<()> {
    let authority = user.broker.strip_prefix("http://").unwrap();
    let stream = TokioIo::new(TcpStream::connect(authority).await.unwrap());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(0).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let ask = {
        let (broker, token) = (user.broker.clone(), user.token.clone());
        move |path: &str| {
            let request = Request::get(format!("{broker}{path}")).header("authorization", format!("Bearer {token}"));
            let mut sender = sender.clone();
            async move { sender.send_request(request.body(String::new()).unwrap()).await.unwrap() }
        }
    };
    let mut open = Vec::new();
    for _ in 0..10 {
        let response = ask(&format!("/v1/uploads/{id}/events")).await;
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    tokio::spawn(async move {
        loop {
            ask("/v1/route").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(open.len(), 10);
        }
    })
}

#[tokio::test]
async fn who_takes_nothing_has_a_seat_no_longer_than_others() {
    let life = Duration::from_secs(2);
    for (name, watching) in [
        ("its life", WatchLimits { life, ..lively() }),
        ("its token", WatchLimits { heartbeat: Duration::from_millis(50), ..lively() }),
    ] {
        let broker = broker(watching).await;
        let ada = broker.user("ada");
        let id = ada.create(10).await.is(201).id();
        let begun = tokio::time::Instant::now();
        let going = ten_that_take_nothing(&ada, &id).await;
        listeners(&broker, 10).await;
        ada.get(&format!("/v1/uploads/{id}/events")).await.is_problem(429, "quota-exceeded");
        if name == "its token" {
            broker.clock.advance(Duration::from_secs(3600));
        }
        listeners(&broker, 0).await;
        assert!(name == "its token" || begun.elapsed() >= life, "{name}: over before its time");
        // Nor is the upload watched for them any more. A question may be under way.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let journal = broker.storage.journal();
        let asked = journal.count(Operation::Status);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(journal.count(Operation::Status), asked, "{name}: nobody listens, and storage is asked");
        assert!(!going.is_finished(), "{name}: the connection goes on");
        Listening::to(&broker.user("ada"), &id, None).await.state("pending").await;
        going.abort();
    }
}

#[tokio::test]
async fn draining_does_not_wait_for_streams() {
    let broker = broker(WatchLimits { heartbeat: NEVER, ..nudged() }).await;
    let users = [broker.user("ada"), by_http_2(broker.user("bob"))];
    let mut open = Vec::new();
    for user in &users {
        let created = user.create(10).await.is(201);
        let mut listening = Listening::to(user, &created.id(), None).await;
        listening.state("pending").await;
        open.push(listening);
    }
    let stopped = tokio::time::timeout(Duration::from_secs(5), broker.stop());
    assert_eq!(stopped.await.expect("it waits for streams"), Ended::Drained);
    for mut listening in open {
        assert_eq!(listening.block().await, None, "it ends as it should, and does not break off");
    }
}
