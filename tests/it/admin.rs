//! What administrators may do with the uploads of others, and nobody else.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt as _;
use upload_broker::model::principal::PrincipalId;

use crate::support::user::{request, token};
use crate::support::{Broker, ISSUER, Settings, User, noise, redis};

const POLICIES: &str = "[[policies]]\nname = \"videos\"\nobject = \"videos/{sub}/{id}\"\nmax_active = 9\n\
    daily_bytes = \"1MiB\"\nrate = \"30/1m\"\n\n[[policies]]\nname = \"images\"\nobject = \"images/{sub}/{id}\"\n";

/// A service that knows administrators and tenants.
async fn broker(store: String) -> Broker {
    let issuer = "admin_when = 'claims.role == \"admin\"'\ntenant_claim = \"tenant\"".to_owned();
    Broker::start_with(Settings { store, policies: POLICIES.to_owned(), issuer, ..Settings::default() }).await
}

fn bearer(broker: &Broker, subject: &str, more: &[(&str, Value)]) -> User {
    broker.user(subject).bearing(token(subject, broker.clock.now(), more))
}

fn administrator(broker: &Broker) -> User {
    bearer(broker, "root", &[("role", json!("admin")), ("tenant", json!("operators"))])
}

/// Somebody of a tenant; all of them are called alike.
fn member(broker: &Broker, tenant: &str) -> User {
    bearer(broker, "ada", &[("tenant", json!(tenant))])
}

fn principal(tenant: Option<&str>) -> PrincipalId {
    PrincipalId::of(ISSUER, tenant, "ada")
}

async fn create(user: &User, policy: &str, size: u64) -> String {
    let mut body = request(size);
    body["policy"] = json!(policy);
    user.create_from(body).await.is(201).id()
}

/// The field of every row of every page.
async fn walk(root: &User, path: &str, list: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    for _ in 0..100 {
        let page = root.get(&format!("{path}{cursor}")).await.is(200);
        assert!(!page.body.to_string().contains("upload_id="), "a session is its owner's alone: {}", page.body);
        rows.extend(page.body[list].as_array().unwrap().clone());
        let Some(next) = page.body["next_cursor"].as_str() else { return rows };
        cursor = format!("&cursor={next}");
    }
    panic!("{path} has no end");
}

fn ids(uploads: &[Value]) -> Vec<String> {
    uploads.iter().map(|upload| upload["id"].as_str().unwrap().to_owned()).collect()
}

async fn stores() -> Vec<(Option<redis::RedisServer>, String)> {
    let mut stores = vec![(None, "memory".to_owned())];
    if let Some(server) = redis::start().await {
        let url = server.url();
        stores.push((Some(server), url));
    }
    stores
}

#[tokio::test]
async fn only_administrators_get_in() {
    let broker = broker("memory".to_owned()).await;
    let id = create(&broker.user("ada"), "videos", 10).await;
    for (method, path, status) in [
        (Method::GET, "uploads".to_owned(), 200),
        (Method::GET, format!("uploads/{id}"), 200),
        (Method::GET, "usage".to_owned(), 200),
        (Method::GET, "webhooks".to_owned(), 200),
        (Method::GET, "webhooks/none/parked".to_owned(), 404),
        (Method::POST, format!("webhooks/none/parked/evt_{id}/replay"), 404),
        (Method::POST, "webhooks/none/replay".to_owned(), 404),
        (Method::DELETE, format!("uploads/{id}"), 200),
    ] {
        let path = format!("/v1/admin/{path}");
        let nobody = broker.user("x");
        let request = nobody.client.request(method.clone(), format!("{}{path}", nobody.broker));
        assert_eq!(request.send().await.unwrap().status(), 401, "{method} {path}");
        let ordinary = bearer(&broker, "ada", &[("role", json!("user"))]);
        for user in [broker.user("ada"), ordinary] {
            user.call(method.clone(), &path, None).await.is_problem(403, "forbidden");
            // Who may not come in learns nothing of what is malformed, either.
            user.call(method.clone(), &format!("{path}?no=thing"), None).await.is_problem(403, "forbidden");
        }
        broker
            .user("ada")
            .bearing("x".to_owned())
            .call(method.clone(), &path, None)
            .await
            .is_problem(401, "unauthenticated");
        administrator(&broker).call(method, &path, None).await.is(status);
    }
}

#[tokio::test]
async fn all_uploads_are_listed_by_principal_in_pages_and_by_what_is_asked() {
    for (_server, store) in stores().await {
        let broker = broker(store).await;
        let root = administrator(&broker);
        assert_eq!(root.get("/v1/admin/uploads").await.is(200).body, json!({"uploads": []}));

        let tenants = [None, Some("acme"), Some("beta")];
        let mut principals = tenants.map(|tenant| (principal(tenant), tenant, Vec::new()));
        for round in 0..4 {
            for (_, tenant, uploads) in &mut principals {
                let user = tenant.map_or_else(|| broker.user("ada"), |tenant| member(&broker, tenant));
                let policy = if round == 1 { "images" } else { "videos" };
                uploads.insert(0, create(&user, policy, 10).await);
                if round == 2 {
                    user.cancel(&uploads[0]).await.is_upload(200, "cancelled");
                }
            }
            broker.clock.advance(Duration::from_secs(1));
        }
        principals.sort_unstable();
        let of_all = |pick: &dyn Fn(&[String]) -> Vec<String>| -> Vec<String> {
            principals.iter().flat_map(|(_, _, uploads)| pick(uploads)).collect()
        };
        let all = of_all(&|uploads| uploads.to_vec());
        for limit in [1, 2, 3, 4, 5, 8, 11, 12, 13, 200] {
            let path = format!("/v1/admin/uploads?limit={limit}");
            assert_eq!(ids(&walk(&root, &path, "uploads").await), all, "{limit}");
        }
        let listed = walk(&root, "/v1/admin/uploads?limit=12", "uploads").await;
        for (upload, (digest, tenant, _)) in listed.iter().step_by(4).zip(&principals) {
            let mut owner = json!({"principal": digest.to_string(), "issuer": ISSUER, "subject": "ada"});
            if let Some(tenant) = tenant {
                owner["tenant"] = json!(tenant);
            }
            assert_eq!(upload["owner"], owner);
            assert_eq!(upload.get("transfer"), None);
        }

        let one = |tenant: Option<&str>| principals.iter().find(|(_, other, _)| *other == tenant).unwrap().2.clone();
        for (query, expected) in [
            ("state=cancelled", of_all(&|uploads| vec![uploads[1].clone()])),
            ("policy=images", of_all(&|uploads| vec![uploads[2].clone()])),
            ("policy=images&state=cancelled", Vec::new()),
            ("state=pending", of_all(&|uploads| vec![uploads[0].clone(), uploads[2].clone(), uploads[3].clone()])),
            ("policy=gone", Vec::new()),
            ("subject=ada", all.clone()),
            ("subject=bob", Vec::new()),
            ("tenant=acme", one(Some("acme"))),
            (&format!("issuer={ISSUER}"), all.clone()),
            (&format!("issuer={ISSUER}&subject=ada"), one(None)),
            (&format!("issuer={ISSUER}&subject=ada&tenant=beta"), one(Some("beta"))),
            (&format!("issuer={ISSUER}&subject=ada&tenant=beta&state=cancelled"), vec![one(Some("beta"))[1].clone()]),
            (&format!("issuer={ISSUER}&subject=bob"), Vec::new()),
        ] {
            for limit in [1, 2, 50] {
                let path = format!("/v1/admin/uploads?limit={limit}&{query}");
                assert_eq!(ids(&walk(&root, &path, "uploads").await), expected, "{query} by {limit}");
            }
        }
    }
}

/// Most that is asked for follows a thousand uploads that are not.
#[tokio::test]
async fn a_page_that_looked_at_enough_says_where_to_go_on() {
    let broker = Broker::start_with(Settings {
        policies: "[[policies]]\nname = \"videos\"\nobject = \"{id}\"\n".to_owned(),
        issuer: "admin_when = 'claims.role == \"admin\"'".to_owned(),
        ..Settings::default()
    })
    .await;
    let root = administrator(&broker);
    let ada = broker.user("ada");
    let first = ada.create(10).await.is(201).id();
    ada.cancel(&first).await.is(200);
    for _ in 0..1_050 {
        broker.clock.advance(Duration::from_millis(1));
        ada.create(10).await.is(201);
    }
    let page = root.get("/v1/admin/uploads?state=cancelled").await.is(200);
    assert_eq!(page.body["uploads"], json!([]));
    assert!(page.body["next_cursor"].is_string());
    assert_eq!(ids(&walk(&root, "/v1/admin/uploads?state=cancelled", "uploads").await), [first]);
}

#[tokio::test]
async fn an_upload_is_shown_to_administrators_without_what_sends_its_bytes() {
    let broker = broker("memory".to_owned()).await;
    let (root, ada) = (administrator(&broker), member(&broker, "acme"));
    let id = create(&ada, "videos", 10).await;
    let mut owned = ada.get(&format!("/v1/uploads/{id}")).await.is_upload(200, "pending").body;
    assert!(owned["transfer"]["uri"].is_string());
    let shown = root.get(&format!("/v1/admin/uploads/{id}")).await.is_upload(200, "pending").body;
    owned.as_object_mut().unwrap().remove("transfer");
    owned["owner"] = json!({
        "principal": principal(Some("acme")).to_string(), "issuer": ISSUER, "tenant": "acme", "subject": "ada",
    });
    assert_eq!(shown, owned, "but for that, it is what its owner sees");

    broker.clock.advance(Duration::from_secs(24 * 3600));
    administrator(&broker).get(&format!("/v1/admin/uploads/{id}")).await.is_upload(200, "expired");
    let missing = "0".repeat(34);
    for id in [&*missing, "x", "%FF", &format!("{id}0")] {
        let path = format!("/v1/admin/uploads/{id}");
        administrator(&broker).get(&path).await.is_problem(404, "not-found");
        administrator(&broker).call(Method::DELETE, &path, None).await.is_problem(404, "not-found");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_cancel_by_an_administrator_revokes_and_is_written_down() {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
    let filter = tracing_subscriber::EnvFilter::new("upload_broker::audit=info");
    let subscriber = tracing_subscriber::registry().with(filter).with(layer.with_writer(move || writer.clone()));
    // The broker runs on this thread.
    let _guard = tracing::subscriber::set_default(subscriber);

    let broker = broker("memory".to_owned()).await;
    let (root, ada) = (administrator(&broker), broker.user("ada"));
    let (open, done) = (ada.create_from(named(10)).await.is(201), ada.create_from(named(10)).await.is(201));
    assert_eq!(ada.put(&done.uri(), None, noise(10, 1)).await, 200);
    root.get(&format!("/v1/admin/uploads/{}", open.id())).await.is(200);
    let cancelled = root.call(Method::DELETE, &format!("/v1/admin/uploads/{}", open.id()), None).await;
    let cancelled = cancelled.is_upload(200, "cancelled");
    assert_eq!((cancelled.body.get("transfer"), cancelled.text("/owner/subject")), (None, "ada".to_owned()));
    assert_eq!(broker.storage.sessions(), 0, "the capability is revoked");
    assert!(ada.put(&open.uri(), None, noise(10, 2)).await.is_client_error());
    ada.get(&format!("/v1/uploads/{}", open.id())).await.is_upload(200, "cancelled");
    let late = root.call(Method::DELETE, &format!("/v1/admin/uploads/{}", done.id()), None).await;
    late.is_upload(200, "completed");
    let policies = ada.get("/v1/policies").await.is(200);
    assert_eq!(policies.body["policies"][0]["active"], 0, "what was reserved is free");

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.filter(|line: &Value| line["administrator"].is_string()).collect();
    let by = PrincipalId::of(ISSUER, Some("operators"), "root").to_string();
    let acts = [(open.id(), "read", "read"), (open.id(), "cancel", "cancelled"), (done.id(), "cancel", "completed")];
    assert_eq!(lines.len(), acts.len(), "{text}");
    for (line, (id, action, outcome)) in lines.iter().zip(acts) {
        assert_eq!((&line["administrator"], &line["upload.id"]), (&json!(by), &json!(id)), "{line}");
        assert_eq!((&line["action"], &line["outcome"]), (&json!(action), &json!(outcome)), "{line}");
    }
}

/// A create request that says which policy it is for.
fn named(size: u64) -> Value {
    let mut body = request(size);
    body["policy"] = json!("videos");
    body
}

#[tokio::test]
async fn usage_is_what_users_see_and_sums_are_sums_of_it() {
    for (_server, store) in stores().await {
        let broker = broker(store).await;
        let root = administrator(&broker);
        assert_eq!(root.get("/v1/admin/usage").await.is(200).body, json!({"rows": []}));
        let users = [
            (None, broker.user("ada")),
            (Some("acme"), member(&broker, "acme")),
            (Some("acme"), bearer(&broker, "bob", &[("tenant", json!("acme"))])),
            (Some("beta"), member(&broker, "beta")),
        ];
        for (number, (_, user)) in (1_u64..).zip(&users) {
            for _ in 0..number {
                create(user, "videos", 100 * number).await;
            }
            let stored = user.create_from(named(7)).await.is(201);
            assert_eq!(user.put(&stored.uri(), None, noise(7, 3)).await, 200);
            user.complete(&stored.id()).await.is_upload(200, "completed");
        }
        let last = &users[3].1;
        create(last, "images", 1000).await;

        // What each of them is told, as rows.
        let (mut expected, mut active, mut bytes) = (Vec::new(), 0, 0);
        for (tenant, user) in &users {
            let policies = user.get("/v1/policies").await.is(200);
            for policy in policies.body["policies"].as_array().unwrap() {
                if policy["active"] == 0 && policy["bytes_today"] == 0 {
                    continue;
                }
                let subject = if std::ptr::eq(user, &raw const users[2].1) { "bob" } else { "ada" };
                let id = PrincipalId::of(ISSUER, *tenant, subject).to_string();
                let mut row = json!({"principal": id, "issuer": ISSUER, "subject": subject, "policy": policy["name"]});
                if let Some(tenant) = tenant {
                    row["tenant"] = json!(tenant);
                }
                for field in ["active", "bytes_today", "max_active", "daily_bytes", "rate_left"] {
                    if let Some(value) = policy.get(field) {
                        row[field] = value.clone();
                    }
                }
                active += policy["active"].as_u64().unwrap();
                bytes += policy["bytes_today"].as_u64().unwrap();
                expected.push(row);
            }
        }
        assert_eq!((expected.len(), active, bytes), (5, 11, 100 + 400 + 900 + 1600 + 4 * 7 + 1000));
        // By principal; of each in the order of policies, in which they stand already.
        expected.sort_by_key(|row| row["principal"].as_str().unwrap().to_owned());
        for limit in [1, 2, 3, 4, 500] {
            let path = format!("/v1/admin/usage?limit={limit}");
            assert_eq!(walk(&root, &path, "rows").await, expected, "{limit}");
        }

        let row =
            |pairs: &[(&str, Value)]| Value::Object(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect());
        let sum = |of: &[(&str, Value)], principals: u64, active: u64, bytes: u64| {
            let counts = [("principals", principals), ("active", active), ("bytes_today", bytes)];
            row(&[of, &counts.map(|(name, count)| (name, json!(count)))].concat())
        };
        let issuer = ("issuer", json!(ISSUER));
        for (query, expected) in [
            (
                "by=policy",
                vec![
                    sum(&[("policy", json!("images"))], 1, 1, 1000),
                    sum(&[("policy", json!("videos"))], 4, 10, 3000 + 4 * 7),
                ],
            ),
            (
                "by=tenant",
                vec![
                    sum(std::slice::from_ref(&issuer), 1, 1, 100 + 7),
                    sum(&[issuer.clone(), ("tenant", json!("acme"))], 2, 5, 1300 + 2 * 7),
                    sum(&[issuer.clone(), ("tenant", json!("beta"))], 1, 5, 2600 + 7),
                ],
            ),
            ("by=tenant&policy=images", vec![sum(&[issuer.clone(), ("tenant", json!("beta"))], 1, 1, 1000)]),
            ("by=policy&tenant=acme", vec![sum(&[("policy", json!("videos"))], 2, 5, 1300 + 2 * 7)]),
            ("by=policy&policy=gone", Vec::new()),
            ("by=policy&subject=eve", Vec::new()),
        ] {
            assert_eq!(
                root.get(&format!("/v1/admin/usage?{query}")).await.is(200).body["rows"],
                json!(expected),
                "{query}"
            );
        }
        // Over pages of one principal each, sums add up to the same.
        let parts = walk(&root, "/v1/admin/usage?by=policy&limit=1", "rows").await;
        let total = |field: &str| parts.iter().map(|part| part[field].as_u64().unwrap()).sum::<u64>();
        assert_eq!((total("active"), total("bytes_today")), (active, bytes));

        let path = format!("/v1/admin/usage?issuer={ISSUER}&subject=ada&tenant=beta");
        let one = root.get(&path).await.is(200);
        let beta = principal(Some("beta")).to_string();
        let expected: Vec<_> = expected.iter().filter(|row| row["principal"] == beta).collect();
        assert_eq!(one.body, json!({"rows": expected}));
    }
}

#[tokio::test]
async fn what_is_malformed_or_of_another_walk_is_refused() {
    let broker = broker("memory".to_owned()).await;
    let root = administrator(&broker);
    for tenant in ["acme", "beta"] {
        for _ in 0..2 {
            create(&member(&broker, tenant), "videos", 10).await;
        }
    }
    let cursor = |path: &'static str| {
        let root = root.clone();
        async move { root.get(path).await.is(200).text("/next_cursor") }
    };
    let within = cursor("/v1/admin/uploads?limit=1").await;
    let between = cursor("/v1/admin/usage?limit=1").await;
    let own = member(&broker, "acme").get("/v1/uploads?limit=1").await.is(200).text("/next_cursor");
    for query in [
        "uploads?limit=0".to_owned(),
        "uploads?limit=201".to_owned(),
        "uploads?limit=x".to_owned(),
        "uploads?state=lost".to_owned(),
        "uploads?policy=No%20Such".to_owned(),
        "uploads?page=2".to_owned(),
        "uploads?cursor=".to_owned(),
        "uploads?cursor=%00".to_owned(),
        format!("uploads?cursor={own}"),
        format!("uploads?cursor={within}A"),
        format!("uploads?cursor={within}&issuer={ISSUER}&subject=ada"),
        "usage?limit=0".to_owned(),
        "usage?limit=2001".to_owned(),
        "usage?by=day".to_owned(),
        "usage?state=pending".to_owned(),
        "usage?policy=No%20Such".to_owned(),
        "usage?cursor=x".to_owned(),
        format!("usage?cursor={within}"),
        format!("usage?cursor={between}&issuer={ISSUER}&subject=ada"),
    ] {
        root.get(&format!("/v1/admin/{query}")).await.is_problem(400, "invalid-request");
    }
    root.get(&format!("/v1/admin/usage?cursor={between}")).await.is(200);
}
