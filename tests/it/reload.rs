//! Another configuration for a process that runs: by signal, and because a file has changed.

pub mod scene;
mod under_load;

use std::time::Duration;

use serde_json::{Value, json};
use upload_broker::clock::Clock;

use crate::support::user::request;
use crate::support::{Settings, push_key, redis};
use scene::{Hooks, Scene, policy, with_policies};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_keeps_the_old_state_says_why_and_shows_in_a_metric() {
    let scene = Scene::start(with_policies(&policy("one", ""))).await;
    let good = scene.text();
    let line = |text: &str, key: &str| text.lines().position(|line| line.starts_with(key)).unwrap() + 1;
    let two = good.replace("name = \"one\"", "name = \"two\"");
    let of_two = line(&two, "name = \"two\"");
    for (round, (name, bad, expected)) in (1..).zip([
        ("no TOML", two.replace("[[policies]]", "[[policies]"), format!("broker.toml:{}:", of_two - 1)),
        (
            "a bad value",
            format!("{two}\nmax_size = \"lots\"\n"),
            format!("broker.toml:{}:1: policies[0].max_size", two.lines().count() + 2),
        ),
        (
            "a bad condition",
            two.replace("name = \"two\"", "name = \"two\"\nwhen = 'claims.'"),
            format!("broker.toml:{}:1: policies[0].when", of_two + 1),
        ),
        (
            "a key that needs a restart",
            two.replace("timeout = ", "api = \"xml\"\ntimeout = "),
            "storage.api: has changed, which needs a restart".to_owned(),
        ),
        (
            "another address",
            two.replace("[server]\nlisten = \"127.0.0.1:0\"", "[server]\nlisten = \"127.0.0.1:1\""),
            format!("broker.toml:{}:1: server.listen: has changed", line(&two, "listen")),
        ),
        (
            "a secret that is not there",
            format!("{two}\n[[webhooks]]\nurl = \"https://a.example\"\nsecret_file = \"absent\"\n"),
            "webhooks[0].secret_file".to_owned(),
        ),
        (
            "signed URLs, for which nobody was prepared",
            format!("{two}\ntransfers = [\"simple\"]\n"),
            "policies[0].transfers: signed URLs need a restart".to_owned(),
        ),
    ]) {
        scene.write(&bad);
        scene.hang_up();
        scene.metric("config_reloads_total{result=\"refused\"}", round).await;
        scene.metric("config_last_reload_successful", 0).await;
        let refusal = scene.broker.line_with(&expected);
        assert!(refusal.contains("the old one stays"), "{name}: {refusal}");
        let created = scene.ada.create(10).await.is(201);
        assert_eq!(created.body["policy"], "one", "{name}");
    }
    scene.write(&good);
    scene.hang_up();
    scene.metric("config_reloads_total{result=\"unchanged\"}", 2).await;
    scene.metric("config_last_reload_successful", 1).await;
    scene.broker.line_with("the files can be used again, and say what is in force");
    let loaded = scene.value("config_loaded_timestamp_seconds").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    scene.write(&two);
    scene.hang_up();
    scene.metric("config_reloads_total{result=\"applied\"}", 1).await;
    assert_eq!(scene.ada.create(10).await.is(201).body["policy"], "two");
    assert!(scene.value("config_loaded_timestamp_seconds").await > loaded);
    let told = scene.broker.line_with("another configuration is in force");
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["changed"], "policies");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tokens_of_an_issuer_that_is_removed_stop_at_once_and_those_of_a_new_one_count() {
    let settings = with_policies(&policy("one", ""));
    let other = "[[issuers]]\nissuer = \"https://other.example\"\naudiences = [\"upload-broker\"]\n\
                 jwks_file = \"push.json\"\nalgorithms = [\"ES256\"]\n";
    let scene = Scene::start(settings).await;
    let one = scene.text();
    let both = one.replace("[[regions]]", &format!("{other}\n[[regions]]"));
    let now = Clock::System.now().as_secs();
    let claims =
        json!({"iss": "https://other.example", "aud": "upload-broker", "sub": "eve", "iat": now, "exp": now + 3600});
    let eve = scene.ada.clone().bearing(push_key().sign(claims.as_object().unwrap()).unwrap());
    eve.create(10).await.is_problem(401, "unauthenticated");
    for _ in 0..2 {
        scene.reload(&both).await;
        eve.create(10).await.is(201);
        // Remembered, and forgotten again.
        eve.create(10).await.is(201);
        scene.reload(&one).await;
        eve.create(10).await.is_problem(401, "unauthenticated");
        scene.ada.create(10).await.is(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_secret_signs_the_next_event_and_a_new_endpoint_is_told() {
    let (first, second) = (Hooks::start().await, Hooks::start().await);
    let scene = Scene::start(with_policies(&policy("one", ""))).await;
    let section = |name: &str, hooks: &Hooks| {
        format!(
            "\n[[webhooks]]\nname = \"{name}\"\nurl = \"{}\"\nsecret_file = \"{name}.secret\"\n\
             allow_private_addresses = true\n",
            hooks.url
        )
    };
    let text = scene.text();
    scene.file("first.secret", &scene::secret(1));
    scene.file("second.secret", &scene::secret(2));
    scene.reload(&(text.clone() + &section("first", &first))).await;
    let end = async || {
        let id = scene.ada.create(10).await.is(201).id();
        scene.ada.cancel(&id).await.is_upload(200, "cancelled");
    };
    end().await;
    assert!(first.next().await.is_signed_with(1));

    // Of the file's change nobody says anything.
    scene.file("first.secret", &scene::secret(3));
    scene.metric("config_reloads_total{result=\"applied\"}", 2).await;
    end().await;
    let event = first.next().await;
    assert!(event.is_signed_with(3) && !event.is_signed_with(1));
    let told = scene.broker.printed();
    let told = told.lines().rfind(|line| line.contains("another configuration is in force")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(told).unwrap()["changed"], "webhooks");

    scene.reload(&(text.clone() + &section("second", &second))).await;
    end().await;
    assert!(second.next().await.is_signed_with(2));
    scene.reload(&(text + &section("second", &second) + &section("first", &first))).await;
    end().await;
    assert!(second.next().await.is_signed_with(2));
    assert!(first.next().await.is_signed_with(3));
    assert_eq!((first.waiting(), second.waiting()), (0, 0), "nobody was told of what was not for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mounted_directory_holds_is_noticed_when_its_link_is_swapped() {
    let scene = Scene::start_linked(with_policies(&policy("one", ""))).await;
    assert_eq!(scene.ada.create(10).await.is(201).body["policy"], "one");
    scene.swap(&scene.text().replace("name = \"one\"", "name = \"two\""));
    scene.metric("config_reloads_total{result=\"applied\"}", 1).await;
    assert_eq!(scene.ada.create(10).await.is(201).body["policy"], "two");
    // Refused once, and not again and again.
    scene.swap("nonsense");
    scene.metric("config_reloads_total{result=\"refused\"}", 1).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(scene.value("config_reloads_total{result=\"refused\"}").await, 1);
    assert_eq!(scene.ada.create(10).await.is(201).body["policy"], "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_refused_configuration_waits_for_is_noticed_when_it_comes() {
    let scene = Scene::start(with_policies(&policy("one", ""))).await;
    let other = "[[issuers]]\nissuer = \"https://other.example\"\naudiences = [\"a\"]\njwks_file = \"late.json\"\n\
                 algorithms = [\"ES256\"]\n\n[[regions]]";
    scene.write(&scene.text().replace("name = \"one\"", "name = \"two\"").replace("[[regions]]", other));
    scene.hang_up();
    scene.metric("config_reloads_total{result=\"refused\"}", 1).await;
    scene.file("late.json", &push_key().key_set().to_string());
    scene.metric("config_reloads_total{result=\"applied\"}", 1).await;
    assert_eq!(scene.ada.create(10).await.is(201).body["policy"], "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_seal_are_changed_in_three_steps_without_losing_a_session() {
    let Some(server) = redis::start().await else { return };
    let scene = Scene::start(Settings { store: server.url(), ..with_policies(&policy("one", "")) }).await;
    let text = scene.text();
    scene.file("other.key", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n");
    let keys = |keys: &str| text.replace("[{ id = \"k1\", file = \"session.key\" }]", keys);
    let [k1, k2] = ["{ id = \"k1\", file = \"session.key\" }", "{ id = \"k2\", file = \"other.key\" }"];
    let session = async |id: &str| scene.ada.get(&format!("/v1/uploads/{id}")).await;
    let old = scene.ada.create(10).await.is(201);
    for order in [format!("[{k1}, {k2}]"), format!("[{k2}, {k1}]")] {
        scene.reload(&keys(&order)).await;
        assert_eq!(session(&old.id()).await.is(200).uri(), old.uri(), "{order}");
    }
    let new = scene.ada.create(10).await.is(201);
    scene.reload(&keys(&format!("[{k2}]"))).await;
    assert_eq!(session(&new.id()).await.is(200).uri(), new.uri(), "the new key has sealed it");
    assert_eq!(session(&old.id()).await.status, 500, "what only the old key opens");
    scene.write(&keys("[]"));
    scene.hang_up();
    scene.metric("config_reloads_total{result=\"refused\"}", 1).await;
    assert_eq!(session(&new.id()).await.is(200).uri(), new.uri());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_although_the_configuration_is_broken() {
    const EXPIRY: &str = "tls_certificate_expiry_timestamp_seconds{}";
    let tls = "tls = { certificate = \"tls.crt\", key = \"tls.key\" }".to_owned();
    let settings = Settings { server: tls, ..with_policies(&policy("one", "")) };
    let scene = Scene::start_with_files(settings, |folder| drop(scene::certificate(folder, 2090))).await;
    scene.metric(EXPIRY, 3_786_912_000).await;
    scene.write("nonsense");
    scene.hang_up();
    scene.metric("config_reloads_total{result=\"refused\"}", 1).await;
    let fresh = scene::certificate(scene.folder.path(), 2091);
    let client = reqwest::Client::builder().tls_certs_only([fresh]).no_proxy().pool_max_idle_per_host(0);
    let client = client.build().unwrap();
    let served = async || client.get(format!("https://{}/openapi.json", scene.address)).send().await.is_ok();
    scene::soon("the new certificate is served", served).await;
    scene.broker.line_with("the TLS certificate was replaced");
    scene.metric(EXPIRY, 3_818_448_000).await;
    scene.metric("config_last_reload_successful", 0).await;

    scene.write(&scene.good);
    scene.file("tls.crt", "no certificate");
    scene.hang_up();
    scene.broker.line_with("the old one is served on");
    assert!(served().await, "it is still served");
    scene.metric("config_last_reload_successful", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_tried_out_before_it_binds() {
    let scene = Scene::start(with_policies(&policy("one", ""))).await;
    let with = |more: &str| scene.good.replace("name = \"one\"", &format!("name = \"one\"\n{more}"));
    scene.ada.create(100).await.is(201);
    scene.reload(&with("max_size = 10\nreport_only = true")).await;
    scene.ada.create(100).await.is(201);
    scene.metric("policy_reports_total{policy=\"one\",limit=\"max_size\"}", 1).await;
    let line = scene.broker.line_with("the policy would refuse this upload");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["policy"], &line["limit"]), (&json!("one"), &json!("max_size")));
    scene.reload(&with("max_size = 10")).await;
    scene.ada.create(100).await.is_problem(422, "policy-violation");
    // What was counted goes on being counted.
    scene.metric("policy_reports_total{policy=\"one\",limit=\"max_size\"}", 1).await;
    scene.metric("uploads_created_total{policy=\"one\",region=\"europe-west1\"}", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_over_a_reload_and_who_listens_goes_on_listening() {
    let hooks = Hooks::start().await;
    let scene = Scene::start(with_policies(&policy("one", "max_active = 2"))).await;
    let [first, second] = [scene.ada.create(10).await.is(201).id(), scene.ada.create(10).await.is(201).id()];
    let mut events = crate::support::listening::Listening::to(&scene.ada, &first, None).await;
    events.state("pending").await;
    scene.file("backend.secret", &scene::secret(1));
    let section = format!(
        "\n[[webhooks]]\nname = \"backend\"\nurl = \"{}\"\nsecret_file = \"backend.secret\"\n\
         allow_private_addresses = true\n\n[notifications]\naudience = \"a\"\nservice_account = \"a@b.example\"\n\
         jwks_file = \"push.json\"\nalgorithms = [\"ES256\"]\n",
        hooks.url
    );
    scene.ada.create_from(request(10)).await.is_problem(429, "quota-exceeded");
    let pushed = async || {
        let url = format!("{}/v1/notifications/storage", scene.ada.broker);
        scene.ada.client.post(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(pushed().await, 404);
    scene.reload(&(scene.good.replace("max_active = 2", "max_active = 3") + &section)).await;
    assert_eq!(pushed().await, 401, "notifications are configured now");
    scene.ada.create(10).await.is(201);
    scene.ada.create(10).await.is_problem(429, "quota-exceeded");
    // The stream goes on, and an endpoint that came later is told of an upload that was there before.
    scene.ada.cancel(&first).await.is_upload(200, "cancelled");
    events.state("cancelled").await;
    assert!(hooks.next().await.is_signed_with(1));
    scene.ada.cancel(&second).await.is_upload(200, "cancelled");
    scene.reload(&scene.good).await;
    assert_eq!(pushed().await, 404);
}
