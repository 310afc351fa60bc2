//! The retry matrix, with the emulator's journal as the witness: how often storage was asked, after which pauses, what
//! the client was told, and what was left behind.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use upload_broker::clock::Clock;
use upload_broker::emulator::faults::{Action, Body, Fault, Reply};
use upload_broker::emulator::journal::{Entry, Operation};

use crate::secrets::{service_account, token_server};
use crate::support::broker::emulator;
use crate::support::door::Door;
use crate::support::user::Answer;
use crate::support::{Broker, Settings, User, join_all, noise};

/// `storage.timeout` in these tests.
const TIMEOUT: Duration = Duration::from_secs(6);

/// What a busy machine may add to a whole request.
const SLACK: Duration = Duration::from_secs(2);

/// How many brokers are started at a time.
const AT_ONCE: usize = 4;

/// The pauses after the first, second and third try, in milliseconds: doubled each time, and up to a quarter of a
/// second by chance.
const PAUSES: [RangeInclusive<u64>; 3] = [250..=500, 500..=750, 1000..=1250];

/// Room for one upload at a time: what a failure leaves behind is noticed at once.
fn tight() -> Settings {
    let policies = "[[policies]]\nname = \"any\"\nobject = \"any/{id}\"\nunknown_size = true\nmax_size = 100\n\
                    max_active = 1\ndaily_bytes = \"1MiB\"\n";
    Settings { policies: policies.to_owned(), storage_timeout: "6s", ..Settings::default() }
}

/// An operation of the broker on storage, by the request of a client that leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Initiate,
    Look,
    ReadBack,
    Delete,
    Cancel,
}

impl Step {
    /// What the emulator calls it.
    const fn operation(self) -> Operation {
        match self {
            Self::Initiate => Operation::Initiate,
            Self::Look => Operation::Status,
            Self::ReadBack => Operation::Get,
            Self::Delete => Operation::Delete,
            Self::Cancel => Operation::Cancel,
        }
    }

    /// Whether it bears the broker's token. The others bear the session URI, which no refresh makes valid.
    const fn has_token(self) -> bool {
        matches!(self, Self::Initiate | Self::ReadBack | Self::Delete)
    }

    /// Brings an upload to where this operation comes next.
    async fn prepare(self, ada: &User) -> Option<String> {
        let created = match self {
            Self::Initiate => return None,
            // More than the policy allows, which storage cannot know.
            Self::Delete => ada.create_from(json!({"filename": "f", "content_type": "video/mp4"})).await.is(201),
            Self::Look | Self::ReadBack | Self::Cancel => ada.create(10).await.is(201),
        };
        let bytes = match self {
            Self::Initiate | Self::Cancel => None,
            Self::Look | Self::ReadBack => Some(10),
            Self::Delete => Some(101),
        };
        if let Some(bytes) = bytes {
            assert_eq!(ada.put(&created.uri(), None, noise(bytes, 1)).await, 200);
        }
        Some(created.id())
    }

    /// The request that leads to the operation.
    async fn act(self, ada: &User, id: Option<&str>) -> Answer {
        match (self, id) {
            (Self::Cancel, Some(id)) => ada.cancel(id).await,
            (_, Some(id)) => ada.complete(id).await,
            (_, None) => ada.create(10).await,
        }
    }

    /// The answer to it when all is well.
    const fn done(self) -> (u16, &'static str) {
        match self {
            Self::Initiate => (201, "pending"),
            Self::Look | Self::ReadBack => (200, "completed"),
            Self::Delete => (200, "rejected"),
            Self::Cancel => (200, "cancelled"),
        }
    }
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// That it is done.
    Done,
    /// A problem, by status and code.
    Problem(u16, &'static str),
}

const REFUSED: Told = Told::Problem(502, "storage-error");
const AWAY: Told = Told::Problem(503, "storage-unavailable");
const LATE: Told = Told::Problem(504, "storage-timeout");
const LOST: Told = Told::Problem(409, "session-lost");

/// One line of the matrix.
struct Row {
    name: String,
    /// What goes wrong,
    action: Action,
    /// with how many calls of the operation; `None` for all.
    count: Option<u32>,
    told: Told,
    /// How often storage is asked.
    tries: RangeInclusive<usize>,
    /// The bounds of the pauses between the tries, as far as they are looked at.
    pauses: Vec<RangeInclusive<u64>>,
    /// `Retry-After` for the client.
    retry_after: Option<&'static str>,
}

impl Row {
    /// `count` calls go wrong, and the next one does not.
    fn passes(name: &str, action: Action, count: u32) -> Self {
        let tries = count as usize;
        Self {
            name: name.to_owned(),
            action,
            count: Some(count),
            told: Told::Done,
            tries: tries + 1..=tries + 1,
            pauses: PAUSES[..tries].to_vec(),
            retry_after: None,
        }
    }

    /// All calls go wrong, and asking again is of no use.
    fn ends(name: &str, action: Action, told: Told) -> Self {
        let row = Self::passes(name, action, 1);
        Self { count: None, told, tries: 1..=1, pauses: Vec::new(), ..row }
    }

    /// All calls go wrong, and are repeated while there is time.
    fn lasts(name: &str, action: Action, told: Told, tries: RangeInclusive<usize>) -> Self {
        let pauses = PAUSES[..tries.start() - 1].to_vec();
        Self { tries, pauses, ..Self::ends(name, action, told) }
    }
}

fn status(status: u16) -> Action {
    Action::Respond(Reply::status(status))
}

fn reply(status: u16, retry_after: Option<u32>, body: Body) -> Action {
    Action::Respond(Reply { status, retry_after, body })
}

/// The matrix of one operation.
fn rows(step: Step) -> Vec<Row> {
    let mut rows = vec![
        Row { pauses: vec![1000..=1250], ..Row::passes("429 with Retry-After", reply(429, Some(1), Body::Json), 1) },
        Row::passes("a reset before the deed", Action::Reset, 1),
        Row::passes("a reset after the deed", Action::ActThenReset, 1),
        Row::passes("silence", Action::Hold, 1),
        Row::lasts("503 for good", status(503), AWAY, 4..=5),
        Row {
            retry_after: Some("60"),
            ..Row::ends("429 for longer than the deadline", reply(429, Some(60), Body::Json), AWAY)
        },
        if step.has_token() {
            Row { pauses: vec![0..=100], ..Row::passes("401", status(401), 1) }
        } else {
            Row::ends("401", status(401), REFUSED)
        },
    ];
    if step.has_token() {
        rows.push(Row { tries: 2..=2, ..Row::ends("401 for good", status(401), REFUSED) });
    }
    let refusals = match step {
        // That there is nothing to be seen or deleted is an answer, and so is that another object took the place.
        Step::Initiate => [REFUSED, REFUSED, REFUSED, REFUSED],
        Step::Look | Step::Cancel => [REFUSED, REFUSED, Told::Done, REFUSED],
        Step::ReadBack => [REFUSED, REFUSED, LOST, REFUSED],
        // An object that storage keeps does not keep the upload from being rejected.
        Step::Delete => [Told::Done, Told::Done, Told::Done, Told::Done],
    };
    for (code, told) in [400, 403, 404, 412].into_iter().zip(refusals) {
        let action = match (step, code) {
            // That a session is gone is believed of one that is: not while it answers as if it were open.
            (Step::Cancel, 404) => Action::ForgetSession,
            _ => reply(code, Some(1), Body::Json),
        };
        rows.push(Row::ends(&code.to_string(), action, told));
    }
    if step == Step::Cancel {
        rows.push(Row::ends("404 of a session that is open", status(404), REFUSED));
    }
    // One judgement for all operations, so these are looked at for one.
    if step == Step::Initiate {
        rows.push(Row::passes("408", status(408), 1));
        rows.push(Row::passes("429", reply(429, None, Body::Json), 1));
        rows.push(Row::passes("500", reply(500, None, Body::Json), 1));
        rows.push(Row::passes("502 with a page", reply(502, None, Body::Html), 1));
        rows.push(Row::passes("503 with Retry-After at once", reply(503, Some(0), Body::Text), 1));
        rows.push(Row::passes("503 twice", status(503), 2));
        rows.push(Row::passes("504 and nothing", reply(504, None, Body::Empty), 1));
        rows.push(Row::passes("a failure after the deed", Action::ActThenRespond(Reply::status(503)), 1));
        rows.push(Row::lasts("resets for good", Action::Reset, AWAY, 4..=5));
        // A held call ends when the broker gives it up: the pause, and half of the time that was left then.
        let pauses = vec![1500..=1875];
        rows.push(Row { pauses, ..Row::lasts("silence for good", Action::Hold, LATE, 2..=4) });
        let elsewhere = Action::WrongLocation { host: "evil.example.com".to_owned() };
        rows.push(Row::ends("a session elsewhere", elsewhere, REFUSED));
        rows.push(Row::ends("a session without Location", Action::OmitLocation, REFUSED));
        rows.push(Row::ends("a page", reply(200, None, Body::Html), REFUSED));
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_of_every_operation_is_met_as_the_matrix_says() {
    let steps = [Step::Initiate, Step::Look, Step::ReadBack, Step::Delete, Step::Cancel];
    let matrix = steps.into_iter().flat_map(|step| rows(step).into_iter().map(move |row| (step, row)));
    // Starting brokers is most of the work, and is over before anything is measured.
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let ada = Broker::start().await.user("ada");
    let trials = join_all(matrix.map(|(step, row)| {
        let (slots, ada) = (Arc::clone(&slots), ada.clone());
        async move {
            let _slot = slots.acquire().await.unwrap();
            Trial::prepare(step, row, ada).await
        }
    }));
    let trials = trials.await;
    let pace = Pace::watch();
    join_all(trials.into_iter().map(|trial| trial.meet(pace.clone()))).await;
}

/// How late this process is when it wants to wake up: what a busy machine adds to every pause.
#[derive(Clone)]
struct Pace {
    worst_ms: Arc<AtomicU64>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Pace {
    fn watch() -> Self {
        const TICK: Duration = Duration::from_millis(20);
        let worst_ms = Arc::new(AtomicU64::new(0));
        let worst = Arc::clone(&worst_ms);
        let task = tokio::spawn(async move {
            loop {
                let due = Instant::now() + TICK;
                tokio::time::sleep(TICK).await;
                worst.fetch_max(u64::try_from(due.elapsed().as_millis()).unwrap(), Ordering::Relaxed);
            }
        });
        Self { worst_ms, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// What a pause may have had added, in milliseconds: it takes about ten wake-ups of broker and storage.
    fn slack_ms(&self) -> u64 {
        100 + 10 * self.worst_ms.load(Ordering::Relaxed)
    }
}

/// A line of the matrix with all that it needs, in the moment before it goes wrong.
struct Trial {
    name: String,
    step: Step,
    row: Row,
    broker: Broker,
    ada: User,
    id: Option<String>,
    /// The last call before.
    before: u64,
}

impl Trial {
    /// `ada` is somebody else's user, whose client serves for this broker as well: making one takes a while.
    async fn prepare(step: Step, row: Row, mut ada: User) -> Self {
        let name = format!("{step:?}, {}", row.name);
        let broker = Broker::start_with(tight()).await;
        ada.broker = format!("http://{}", broker.address);
        let id = step.prepare(&ada).await;
        let before = broker.storage.journal().entries().last().map_or(0, |entry| entry.sequence);
        let fault = Fault { count: row.count, ..Fault::once(step.operation(), row.action.clone()) };
        broker.storage.faults().add(fault);
        Self { name, step, row, broker, ada, id, before }
    }

    async fn meet(self, pace: Pace) {
        let Self { name, step, row, broker, ada, id, before } = self;
        let begun = Instant::now();
        let answer = step.act(&ada, id.as_deref()).await;
        let took = begun.elapsed();
        assert!(took < TIMEOUT + SLACK, "{name}: the client waited for {took:?}");
        let (field, told) = match row.told {
            Told::Done => ("state", step.done()),
            Told::Problem(status, code) => ("code", (status, code)),
        };
        assert_eq!((answer.status, answer.body[field].as_str()), (told.0, Some(told.1)), "{name}: {}", answer.body);
        if let Some(expected) = row.retry_after {
            assert_eq!(answer.header("retry-after"), Some(expected), "{name}");
        }

        let tries = tries(&broker, step, before, *row.tries.start()).await;
        assert!(row.tries.contains(&tries.len()), "{name}: {} tries", tries.len());
        for (number, (pair, expected)) in tries.windows(2).zip(&row.pauses).enumerate() {
            let pause = pair[1].elapsed_ms - pair[0].elapsed_ms;
            // Both ends are rounded to milliseconds.
            let bounds = expected.start().saturating_sub(1)..=expected.end() + pace.slack_ms();
            assert!(bounds.contains(&pause), "{name}: {pause} ms after try {number}, not in {bounds:?}");
        }

        broker.storage.faults().clear();
        match (step, row.told) {
            (Step::Initiate, Told::Done) => only_the_last_session_is_anybodys(&name, &broker, &ada, &answer).await,
            (Step::Initiate, Told::Problem(..)) => nothing_is_left(&name, &broker, &ada).await,
            (_, Told::Done) => {}
            // Nothing was decided, and the next request finds out. A session that was "lost" is there again.
            (_, Told::Problem(..)) => {
                assert_eq!(usage(&ada).await.0, 1, "{name}: the upload is not over");
                let (status, state) = step.done();
                step.act(&ada, id.as_deref()).await.is_upload(status, state);
            }
        }
        if step != Step::Initiate {
            assert_eq!(usage(&ada).await.0, 0, "{name}: an upload that is over counts no more");
        }
    }
}

/// The calls of the operation, once there are as many as there must be: a call that the broker gave up is journalled
/// when storage notices.
async fn tries(broker: &Broker, step: Step, before: u64, least: usize) -> Vec<Entry> {
    let begun = Instant::now();
    loop {
        let entries = broker.storage.journal().since(before);
        let tries: Vec<_> = entries.into_iter().filter(|entry| entry.operation == step.operation()).collect();
        if tries.len() >= least || begun.elapsed() > SLACK {
            return tries;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many uploads are under way, and how many bytes count for today.
async fn usage(ada: &User) -> (u64, u64) {
    let policies = ada.get("/v1/policies").await.is(200);
    let number = |field: &str| policies.body["policies"][0][field].as_u64().unwrap();
    (number("active"), number("bytes_today"))
}

/// A session that storage opened and whose answer was lost is known to nobody: neither the client nor the record has
/// it, and no call names it again.
async fn only_the_last_session_is_anybodys(name: &str, broker: &Broker, ada: &User, created: &Answer) {
    let journal = broker.storage.journal();
    let opened: Vec<_> = journal.entries().iter().filter_map(|entry| entry.session).collect();
    let last = *opened.last().unwrap();
    let recorded = ada.get(&format!("/v1/uploads/{}", created.id())).await.is(200);
    assert_eq!(recorded.uri(), created.uri(), "{name}: the record has the one that was given out");

    let before = journal.entries().last().unwrap().sequence;
    assert_eq!(ada.put(&created.uri(), None, noise(10, 2)).await, 200, "{name}");
    ada.complete(&created.id()).await.is_upload(200, "completed");
    let used: Vec<_> = journal.since(before).iter().filter_map(|entry| entry.session).collect();
    assert!(used.iter().all(|session| *session == last), "{name}: of {opened:?}, {used:?} were used");
    assert_eq!(broker.storage.sessions(), opened.len() - 1, "{name}: the others wait for their week to be over");
    assert_eq!(usage(ada).await, (0, 10), "{name}");
}

/// Nobody was told of a session, and there is room for the next upload.
async fn nothing_is_left(name: &str, broker: &Broker, ada: &User) {
    assert_eq!(usage(ada).await, (0, 0), "{name}: what was reserved is free");
    let listed = ada.get("/v1/uploads").await.is(200);
    assert!(!listed.body.to_string().contains("upload_id"), "{name}: {}", listed.body);
    let created = ada.create(10).await.is(201);
    only_the_last_session_is_anybodys(name, broker, ada, &created).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_not_multiplied() {
    const CREATES: usize = 200;
    let broker = Broker::start_with(Settings { storage_timeout: "6s", ..Settings::default() }).await;
    broker.storage.faults().add(Fault { count: None, ..Fault::once(Operation::Initiate, status(503)) });
    let ada = broker.user("ada");
    let begun = Instant::now();
    let creates = join_all((0..CREATES).map(|_| {
        let ada = ada.clone();
        async move { ada.create(10).await }
    }));
    for answer in creates.await {
        answer.is_problem(503, "storage-unavailable");
    }
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
    // Fifty retries that were saved up, one for five calls, and one a second. Without a budget it would be four tries
    // a create.
    let tries = broker.storage.journal().count(Operation::Initiate);
    let most = CREATES + 50 + CREATES / 5 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!((CREATES + 50..=most).contains(&tries), "{tries} tries, where {most} are the most");
    let (status, metrics) = broker.operator_get("/metrics").await;
    assert_eq!(status, 200);
    let withheld = metrics.lines().find(|line| line.contains("withheld") && !line.starts_with('#')).unwrap();
    assert!(!withheld.ends_with(" 0"), "{withheld}");
    assert_eq!(usage(&ada).await, (0, 0), "nothing stays reserved");
    broker.storage.faults().clear();
    ada.create(10).await.is(201);
}

#[tokio::test]
async fn a_storage_that_takes_no_connections_is_waited_for_within_the_deadline() {
    let door = Door::shut();
    let broker = Broker::start_with(Settings { endpoint: Some(door.url()), ..tight() }).await;
    let ada = broker.user("ada");
    let begun = Instant::now();
    ada.create(10).await.is_problem(503, "storage-unavailable");
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
    assert_eq!(usage(&ada).await, (0, 0));
    let retries = |metrics: &str| {
        let line = metrics.lines().find(|line| line.contains("retries") && line.contains("initiate")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let counted = retries(&broker.operator_get("/metrics").await.1);
    assert!((3..=4).contains(&counted), "{counted} retries");

    // It opens while a create waits for its next try.
    let creating = tokio::spawn({
        let ada = ada.clone();
        async move { ada.create(10).await }
    });
    while retries(&broker.operator_get("/metrics").await.1) == counted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(broker.storage.journal().count(Operation::Initiate), 0);
    let _opened = door.open(broker.storage.address());
    let created = creating.await.unwrap().is(201);
    assert_eq!(broker.storage.journal().count(Operation::Initiate), 1);
    only_the_last_session_is_anybodys("opened late", &broker, &ada, &created).await;
}

/// A token that storage refuses is replaced once, and the token server is not asked for every call.
#[tokio::test]
async fn a_refused_token_is_replaced_once_and_not_in_a_loop() {
    let files = TempDir::new().unwrap();
    let (token_uri, assertions) = token_server().await;
    let key = files.path().join("account.json");
    service_account(&key, &token_uri);
    let storage = format!("credentials = {{ file = {:?} }}", key.display().to_string());
    let granted = || assertions.lock().unwrap().len();

    let broker = Broker::start_with(Settings { storage: storage.clone(), ..tight() }).await;
    assert_eq!(granted(), 1);
    broker.storage.faults().add(Fault::once(Operation::Initiate, status(401)));
    let created = broker.user("ada").create(10).await.is(201);
    assert_eq!((granted(), broker.storage.journal().count(Operation::Initiate)), (2, 2));
    only_the_last_session_is_anybodys("401", &broker, &broker.user("ada"), &created).await;

    let broker = Broker::start_with(Settings { storage, ..tight() }).await;
    assert_eq!(granted(), 3);
    broker.storage.faults().add(Fault { count: None, ..Fault::once(Operation::Initiate, status(401)) });
    let ada = broker.user("ada");
    let refused = ada.create(10).await.is_problem(502, "storage-error");
    assert_eq!(refused.text("/detail"), "storage does not accept the broker's token");
    assert_eq!((granted(), broker.storage.journal().count(Operation::Initiate)), (4, 2));
    for _ in 0..5 {
        ada.create(10).await.is_problem(502, "storage-error");
    }
    assert_eq!((granted(), broker.storage.journal().count(Operation::Initiate)), (4, 7), "one try each from then on");
    broker.storage.faults().clear();
    nothing_is_left("401 for good", &broker, &ada).await;
}

/// Where IAM Credentials signs, its outage is told as its own, and takes nothing from what needs no signature.
#[tokio::test]
async fn an_outage_of_iam_credentials_is_not_told_as_one_of_storage() {
    let storage = emulator(Clock::System).await;
    let source: Value = serde_json::from_str(&storage.service_account_key().unwrap()).unwrap();
    let account = source["client_email"].as_str().unwrap();
    let url = format!("{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken", storage.url());
    let files = TempDir::new().unwrap();
    let file = files.path().join("account.json");
    let credentials = json!({"type": "impersonated_service_account", "service_account_impersonation_url": url,
                             "source_credentials": source});
    std::fs::write(&file, credentials.to_string()).unwrap();
    let policies = "[[policies]]\nname = \"any\"\nobject = \"any/{id}\"\nmax_active = 1\n\
                    transfers = [\"resumable\", \"simple\"]\n";
    let settings = Settings {
        policies: policies.to_owned(),
        storage: format!("credentials = {{ file = {:?} }}", file.display().to_string()),
        ..tight()
    };
    let broker = Broker::start_beside(storage, Clock::System, settings).await;
    let ada = broker.user("ada");
    let small = || json!({"filename": "f", "content_type": "video/mp4; ", "size_bytes": 10, "transfer_kind": "simple"});
    for (name, reply, told, tries) in [
        ("away", reply(503, Some(60), Body::Text), (503, "storage-unavailable", "IAM Credentials is not available"), 1),
        (
            "a refused token",
            status(401),
            (502, "storage-error", "IAM Credentials does not accept the broker's token"),
            2,
        ),
    ] {
        broker.storage.faults().add(Fault { count: None, ..Fault::once(Operation::SignBlob, reply) });
        let before = broker.storage.journal().count(Operation::SignBlob);
        let refused = ada.create_from(small()).await.is_problem(told.0, told.1);
        assert_eq!(refused.text("/detail"), told.2, "{name}");
        assert_eq!(broker.storage.journal().count(Operation::SignBlob), before + tries, "{name}");
        assert_eq!(usage(&ada).await.0, 0, "{name}: nothing stays reserved");
        let created = ada.create(10).await.is(201);
        ada.cancel(&created.id()).await.is_upload(200, "cancelled");
        broker.storage.faults().clear();
    }
    // A blank behind the type is no part of it, so it does not stand in the way of a signed header.
    let created = ada.create_from(small()).await.is(201);
    assert_eq!(created.text("/transfer/headers/content-type"), "video/mp4;");
}

/// While the client waits for a slow storage, it can leave: what it asked for is done or undone all the same.
#[tokio::test]
async fn a_client_that_leaves_during_the_retries_leaves_nothing_reserved() {
    let broker = Broker::start_with(tight()).await;
    broker.storage.faults().add(Fault { count: None, ..Fault::once(Operation::Initiate, status(503)) });
    let ada = broker.user("ada");
    let journal = broker.storage.journal();
    tokio::select! {
        answer = ada.create(10) => panic!("answered already: {answer:?}"),
        _ = journal.wait_for(|entry| entry.operation == Operation::Initiate) => {}
    }
    assert_eq!(usage(&ada).await.0, 1, "it is still being tried");
    let begun = Instant::now();
    while usage(&ada).await != (0, 0) {
        assert!(begun.elapsed() < TIMEOUT + SLACK, "the reservation stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The first answer to a renewal is lost: the old session is cancelled, and of the two new ones the last is the upload's.
#[tokio::test]
async fn a_renewal_whose_answer_was_lost_leaves_one_session_that_anybody_knows() {
    let broker = Broker::start_with(tight()).await;
    let ada = broker.user("ada");
    let created = ada.create(10).await.is(201);
    broker.storage.faults().add(Fault::once(Operation::Initiate, Action::ActThenReset));
    let path = format!("/v1/uploads/{}/renew", created.id());
    let renewed = ada.call(Method::POST, &path, None).await.is_upload(200, "pending");
    assert_eq!(broker.storage.journal().count(Operation::Initiate), 3);
    assert_eq!(broker.storage.sessions(), 2, "the old one takes nothing more");
    assert!(ada.put(&created.uri(), None, noise(10, 3)).await.is_client_error());
    assert_eq!(ada.get(&format!("/v1/uploads/{}", created.id())).await.uri(), renewed.uri());
    let before = broker.storage.journal().entries().last().unwrap().sequence;
    assert_eq!(ada.put(&renewed.uri(), None, noise(10, 4)).await, 200);
    assert_eq!(broker.storage.journal().since(before)[0].session, Some(3), "the last that was opened");
    ada.complete(&created.id()).await.is_upload(200, "completed");
    assert_eq!(usage(&ada).await, (0, 10));
}
