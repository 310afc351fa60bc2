//! What Redis had acknowledged and lost: a replica that was cut off takes the place of its master.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::support::hooks::Hooks;
use crate::support::pair::{self, Pair};
use crate::support::pusher::{Pusher, SECTION, finalized};
use crate::support::user::{Answer, token};
use crate::support::{BUCKET, Broker, Settings, User, noise};

const POLICIES: &str = "[[policies]]\nname = \"files\"\nobject = \"files/{sub}/{id}\"\nmax_size = \"64MiB\"\n\
                        max_active = 5\nsession_lifetime = \"2d\"\n";

const IDLE: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What one user has had acknowledged, and what of it Redis has lost.
struct Owner {
    user: User,
    /// Created before the replica was cut off, completed after.
    completed: Answer,
    /// Created before, cancelled after.
    cancelled: Answer,
    /// Created after; the first was completed and the second cancelled.
    lost: Vec<Answer>,
}

fn path(created: &Answer) -> String {
    format!("/v1/uploads/{}", created.id())
}

async fn active(user: &User) -> u64 {
    let policies = user.get("/v1/policies").await.is(200);
    policies.body["policies"][0]["active"].as_u64().unwrap()
}

fn is_there(broker: &Broker, created: &Answer) -> bool {
    broker.storage.object(BUCKET, &created.text("/object")).is_some()
}

/// No event contradicts another, and every upload of `ended` has one.
fn events_are(hooks: &Hooks, ended: &BTreeMap<String, &str>) {
    let told = hooks.by_id();
    for (id, events) in &told {
        let types: Vec<_> = events.iter().map(|event| event.body["type"].clone()).collect();
        assert!(types.iter().all(|one| *one == types[0]), "{id}: {types:?}");
        assert_eq!(*id, format!("evt_{}", events[0].body["data"]["upload"]["id"].as_str().unwrap()));
    }
    for (id, state) in ended {
        let events = told.get(&format!("evt_{id}")).unwrap_or_else(|| panic!("nobody was told that {id} is {state}"));
        assert_eq!(events[0].body["type"], format!("upload.{state}"));
    }
}

/// The recipe: a replica is cut off, writes are acknowledged, the master dies and the replica takes its place.
struct Recipe {
    redis: Pair,
    hooks: Hooks,
    owners: Vec<Owner>,
    /// Somebody of whom Redis has lost everything, and the upload that one key has made.
    newcomer: (User, Answer),
    /// How each upload has ended that was acknowledged as ended.
    ended: BTreeMap<String, &'static str>,
    settings: Box<dyn Fn() -> Settings>,
    _folder: TempDir,
}

/// Serves `count` users up to the loss, at one broker, and loses what they have had acknowledged since the cut.
async fn lose(count: u64) -> Option<(Broker, Recipe)> {
    let redis = pair::start().await?;
    let (hooks, folder) = (Hooks::start().await, TempDir::new().unwrap());
    let (store, more) = (redis.url(), format!("{SECTION}{}", hooks.section(folder.path())));
    let settings = move || Settings {
        store: store.clone(),
        policies: POLICIES.to_owned(),
        issuer: "admin_when = 'claims.role == \"admin\"'".to_owned(),
        more: more.clone(),
        storage_timeout: "10s",
        ..Settings::default()
    };
    let broker = Broker::start_with(settings()).await;
    let mut before = Vec::new();
    for number in 0..count {
        let user = broker.user(&format!("user-{number}"));
        let created = [user.create(10).await.is(201), user.create(10).await.is(201)];
        before.push((user, created));
    }
    redis.cut_off().await;
    let newcomer = broker.user("newcomer").with("idempotency-key", "once");
    let created = newcomer.create(10).await.is(201);
    let mut recipe = Recipe {
        redis,
        hooks,
        owners: Vec::new(),
        newcomer: (newcomer, created),
        ended: BTreeMap::new(),
        settings: Box::new(settings),
        _folder: folder,
    };
    for (number, (user, [completed, cancelled])) in (0..).zip(before) {
        assert_eq!(user.put(&completed.uri(), None, noise(10, number)).await, 200);
        let mut lost = Vec::new();
        let completed = user.complete(&completed.id()).await.is_upload(200, "completed");
        user.cancel(&cancelled.id()).await.is_upload(200, "cancelled");
        for _ in 0..5 {
            lost.push(user.create(10).await.is(201));
        }
        assert_eq!(user.put(&lost[0].uri(), None, noise(10, number)).await, 200);
        lost[0] = user.complete(&lost[0].id()).await.is_upload(200, "completed");
        user.cancel(&lost[1].id()).await.is_upload(200, "cancelled");
        for (ended, state) in
            [(&completed, "completed"), (&cancelled, "cancelled"), (&lost[0], "completed"), (&lost[1], "cancelled")]
        {
            recipe.ended.insert(ended.id(), state);
        }
        recipe.owners.push(Owner { user, completed, cancelled, lost });
    }
    recipe.hooks.has(recipe.ended.len()).await;
    recipe.redis.lose_master().await;
    broker.ready().await;
    for Owner { user, completed, cancelled, lost } in &recipe.owners {
        for known in [completed, cancelled] {
            user.get(&path(known)).await.is_upload(200, "pending");
        }
        for lost in lost {
            user.get(&path(lost)).await.is_problem(404, "not-found");
        }
        assert_eq!(active(user).await, 2, "the recipe loses what it should");
    }
    Some((broker, recipe))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_acknowledged_and_lost_is_written_again_by_the_broker_that_remembers() {
    let Some((broker, mut recipe)) = lose(20).await else { return };
    let round = broker.sweep().await;
    assert_eq!(round.failed, 0);
    for Owner { user, completed, cancelled, lost } in &recipe.owners {
        for (name, ended, state) in [
            ("completed", completed, "completed"),
            ("cancelled", cancelled, "cancelled"),
            ("created and completed", &lost[0], "completed"),
            ("created and cancelled", &lost[1], "cancelled"),
        ] {
            let found = user.get(&path(ended)).await.is_upload(200, state);
            assert_eq!(is_there(&broker, ended), state == "completed", "{name}");
            if state == "completed" {
                assert_eq!(found.body["result"], ended.body["result"], "{name}: what was said before");
            }
        }
        for open in &lost[2..] {
            let found = user.get(&path(open)).await.is_upload(200, "pending");
            assert_eq!(found.uri(), open.uri(), "its client goes on");
        }
        assert_eq!(active(user).await, 3);
    }
    // A repeat gets its upload, and administrators see whose it is.
    let (newcomer, created) = &recipe.newcomer;
    let again = newcomer.create(10).await.is(201);
    assert_eq!((again.id(), again.uri()), (created.id(), created.uri()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let root = token("root", broker.clock.now(), &[("role", json!("admin"))]);
    let listed = broker.user("root").bearing(root).get("/v1/admin/uploads?subject=newcomer").await.is(200);
    assert_eq!(listed.text("/uploads/0/id"), created.id());
    newcomer.cancel(&created.id()).await.is_upload(200, "cancelled");
    recipe.ended.insert(created.id(), "cancelled");
    // The limit is right again, and what was lost goes its way.
    let storage = Pusher::new(&broker);
    for (number, Owner { user, lost, .. }) in (0..).zip(&recipe.owners) {
        let fresh = [user.create(10).await.is(201), user.create(10).await.is(201)];
        user.create(10).await.is_problem(429, "quota-exceeded");
        for open in [&lost[2], &lost[3], &fresh[0]] {
            assert_eq!(user.put(&open.uri(), None, noise(10, number)).await, 200);
            recipe.ended.insert(open.id(), "completed");
        }
        storage.push(&finalized(&broker, &lost[2])).await.is(204);
        user.complete(&lost[3].id()).await.is_upload(200, "completed");
        for open in [&lost[4], &fresh[1]] {
            user.cancel(&open.id()).await.is_upload(200, "cancelled");
            recipe.ended.insert(open.id(), "cancelled");
        }
    }
    broker.pass(IDLE);
    assert_eq!(broker.sweep().await.failed, 0);
    for Owner { user, .. } in &recipe.owners {
        assert_eq!(active(user).await, 0);
    }
    assert_eq!(broker.storage.sessions(), 0);
    // Those of before the loss came twice: each under its own id.
    recipe.hooks.has(recipe.ended.len() + 4 * recipe.owners.len()).await;
    events_are(&recipe.hooks, &recipe.ended);
    let metrics = broker.operator_get("/metrics").await.1;
    let recalled = "upload_broker_uploads_recalled_total{policy=\"files\",region=\"europe-west1\"} 141";
    assert!(metrics.contains(recalled), "{metrics}");
    assert_eq!(broker.sweep().await.due, 0, "nothing is left to do");
}

/// The broker died as well: nobody remembers, and what can be known is what storage has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_together_with_its_broker_is_told_by_storage() {
    let Some((first, mut recipe)) = lose(5).await else { return };
    let (storage, clock) = (first.storage.clone(), first.clock.clone());
    first.stop().await;
    let broker = Broker::start_beside(storage, clock, (recipe.settings)()).await;
    for owner in &mut recipe.owners {
        owner.user.broker = format!("http://{}", broker.address);
    }
    let storage = Pusher::new(&broker);
    assert_eq!(broker.sweep().await.failed, 0);
    for (number, Owner { user, completed, cancelled, lost }) in (0..).zip(&recipe.owners) {
        // A client that has a session does not know that nobody else does.
        assert_eq!(user.put(&lost[2].uri(), None, noise(10, number)).await, 200);
        for told in [&lost[2], &lost[0], &lost[2]] {
            storage.push(&finalized(&broker, told)).await.is(204);
            let found = user.get(&path(told)).await.is_upload(200, "completed");
            assert_eq!(found.text("/result/evidence"), "notification");
        }
        recipe.ended.insert(lost[2].id(), "completed");
        assert_eq!(active(user).await, 2);
        // Who cancelled and sees it pending does so again.
        user.get(&path(cancelled)).await.is_upload(200, "pending");
        user.cancel(&cancelled.id()).await.is_upload(200, "cancelled");
        assert_eq!(active(user).await, 1);
        let fresh = [user.create(10).await.is(201), user.create(10).await.is(201)];
        for open in &fresh {
            user.cancel(&open.id()).await.is_upload(200, "cancelled");
            recipe.ended.insert(open.id(), "cancelled");
        }
        user.get(&path(completed)).await.is_upload(200, "pending");
    }
    // At its next look, the sweep finds what was completed.
    broker.pass(IDLE);
    assert_eq!(broker.sweep().await.failed, 0);
    for Owner { user, completed, lost, .. } in &recipe.owners {
        let found = user.get(&path(completed)).await.is_upload(200, "completed");
        assert_eq!(found.text("/result/generation"), completed.text("/result/generation"));
        assert_eq!(active(user).await, 0);
        // Nothing is at storage that would tell of it.
        user.get(&path(&lost[1])).await.is_problem(404, "not-found");
        user.get(&path(&lost[3])).await.is_problem(404, "not-found");
    }
    // Twice came: what was completed, cancelled and found again.
    recipe.hooks.has(recipe.ended.len() + 3 * recipe.owners.len()).await;
    events_are(&recipe.hooks, &recipe.ended);
    broker.pass(2 * DAY);
    assert_eq!(broker.sweep().await.failed, 0);
    for (number, Owner { completed, lost, .. }) in (0..).zip(&recipe.owners) {
        let user = broker.user(&format!("user-{number}"));
        for stays in [completed, &lost[0], &lost[2]] {
            user.get(&path(stays)).await.is_upload(200, "completed");
        }
    }
}
