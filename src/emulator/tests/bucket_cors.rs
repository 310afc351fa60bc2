use serde_json::json;

use super::super::CorsRule;
use super::*;

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example.com";
const ALLOW: &str = "access-control-allow-origin";

fn rule(origin: &str) -> CorsRule {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    CorsRule {
        origin: texts(&[origin]),
        method: texts(&["PUT", "POST"]),
        response_header: texts(&["Content-Type", "Range", "x-goog-resumable"]),
        max_age_seconds: Some(600),
    }
}

async fn stand_for(rules: Vec<CorsRule>) -> Stand {
    stand_with(|settings| settings.buckets[0].cors = rules).await
}

impl Stand {
    async fn asking(&self, method: &str, url: &str, origin: Option<&str>, wish: Option<&str>) -> Seen {
        let mut request = self.client.request(method.parse().unwrap(), url).header("content-length", 0);
        request = request.header("x-goog-resumable", "start");
        if !url.contains("upload_id") && method != "OPTIONS" {
            request = request.bearer_auth("t");
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if let Some(wish) = wish {
            request = request.header("access-control-request-method", wish);
        }
        send(request).await
    }
}

#[tokio::test]
async fn the_bucket_decides_who_reads() {
    let everyone = || CorsRule { method: vec!["*".into()], max_age_seconds: None, ..rule("*") };
    let both = || vec![rule(APP), everyone()];
    for (name, rules, method, origin, wish, allowed) in [
        ("no rules", vec![], "PUT", APP, None, None),
        ("named", vec![rule(APP)], "PUT", APP, None, Some(APP)),
        ("another", vec![rule(APP)], "PUT", EVIL, None, None),
        ("a slash more", vec![rule("https://app.example.com/")], "PUT", APP, None, None),
        ("another method", vec![rule(APP)], "GET", APP, None, None),
        ("everyone", vec![everyone()], "GET", EVIL, None, Some("*")),
        ("the first that fits", both(), "PUT", APP, None, Some(APP)),
        ("the first that fits", both(), "PUT", EVIL, None, Some("*")),
        ("the first that fits", both(), "GET", APP, None, Some("*")),
        ("a preflight", vec![rule(APP)], "OPTIONS", APP, Some("PUT"), Some(APP)),
        ("a preflight for another method", vec![rule(APP)], "OPTIONS", APP, Some("DELETE"), None),
        ("a preflight of another", vec![rule(APP)], "OPTIONS", EVIL, Some("PUT"), None),
        ("a preflight for everyone", vec![everyone()], "OPTIONS", EVIL, Some("DELETE"), Some("*")),
    ] {
        let stand = stand_for(rules).await;
        let url = format!("{}/media/o", stand.emulator.url());
        let seen = stand.asking(method, &url, Some(origin), wish).await;
        assert_eq!(seen.header(ALLOW), allowed, "{name}");
        let (exposed, age) = (seen.header("access-control-expose-headers"), seen.header("access-control-max-age"));
        let headers = "Content-Type, Range, x-goog-resumable";
        if method == "OPTIONS" {
            assert_eq!((seen.status, exposed), (200, None), "{name}");
            assert_eq!(seen.header("access-control-allow-headers"), allowed.map(|_| headers), "{name}");
            let methods = allowed.map(|allowed| if allowed == "*" { "DELETE" } else { "PUT, POST" });
            assert_eq!(seen.header("access-control-allow-methods"), methods, "{name}");
            assert_eq!(age, allowed.map(|allowed| if allowed == "*" { "3600" } else { "600" }), "{name}");
        } else {
            assert_eq!((exposed, age), (allowed.map(|_| headers), None), "{name}");
        }
        assert_eq!(seen.header("vary"), allowed.filter(|allowed| *allowed == APP).map(|_| "Origin"), "{name}");
    }
}

#[tokio::test]
async fn a_session_answers_to_its_first_origin_unless_all_may_read() {
    for (name, rules, initiated, asked, allowed) in [
        ("the same", vec![rule(APP)], Some(APP), Some(APP), Some(APP)),
        ("another later", vec![rule(APP), rule(EVIL)], Some(APP), Some(EVIL), Some(APP)),
        ("none later", vec![rule(APP)], Some(APP), None, Some(APP)),
        ("none at first", vec![rule(APP)], None, Some(APP), None),
        ("one that the bucket does not know", vec![rule(APP)], Some(EVIL), Some(APP), None),
        ("all", vec![rule("*")], Some(APP), Some(EVIL), Some("*")),
        ("all, none at first", vec![rule("*")], None, Some(APP), Some("*")),
    ] {
        let stand = stand_for(rules).await;
        let url = format!("{}/media/o", stand.emulator.url());
        let started = stand.asking("POST", &url, initiated, None).await;
        let uri = started.header("location").unwrap().to_owned();
        let preflight = stand.asking("OPTIONS", &uri, asked, Some("PUT")).await;
        assert_eq!((preflight.status, preflight.header(ALLOW)), (200, allowed), "{name}");
        let gap = stand
            .put_with(
                &uri,
                Some("bytes 9-*/*"),
                "x",
                &asked.map(|origin| ("origin", origin)).into_iter().collect::<Vec<_>>(),
            )
            .await;
        assert_eq!((gap.status, gap.header(ALLOW)), (503, allowed), "{name}: errors as well");
        let last = stand.asking("PUT", &uri, asked, None).await;
        assert_eq!((last.status, last.header(ALLOW)), (200, allowed), "{name}");
    }
}

#[tokio::test]
async fn rules_are_set_by_the_bucket_resource() {
    let stand = stand().await;
    let rules = json!([{"origin": [APP], "method": ["PUT"], "responseHeader": ["Range"], "maxAgeSeconds": 60}]);
    let patch =
        |body: serde_json::Value| send(stand.request(Method::PATCH, "/storage/v1/b/media").body(body.to_string()));
    let patched = patch(json!({"cors": rules})).await.json();
    assert_eq!((&patched["cors"], &patched["metageneration"]), (&rules, &json!("2")));
    assert_eq!(patch(json!({"labels": {}})).await.json()["cors"], rules, "what is left out stays");
    let url = format!("{}/media/o", stand.emulator.url());
    assert_eq!(stand.asking("PUT", &url, Some(APP), None).await.header(ALLOW), Some(APP));
    assert!(patch(json!({"cors": null})).await.json()["cors"].is_null());
    assert_eq!(stand.asking("PUT", &url, Some(APP), None).await.header(ALLOW), None);
    for wrong in [json!({"cors": {}}), json!({"cors": [{"origin": "*"}]}), json!({"cors": [{"maxAgeSeconds": -1}]})] {
        let seen = patch(wrong).await;
        assert_eq!((seen.status, seen.reason().as_str()), (400, "invalid"));
    }
    let made = json!({"name": "other", "cors": rules});
    let made = send(stand.request(Method::POST, "/storage/v1/b").body(made.to_string())).await.json();
    assert_eq!(made["cors"], rules);
    assert_eq!(send(stand.request(Method::PATCH, "/storage/v1/b/none").body("{}")).await.status, 404);
    let json_api = send(stand.initiation("name=o", "").header("origin", EVIL)).await;
    assert_eq!(json_api.header(ALLOW), Some(EVIL), "the JSON API does not ask the bucket");
}
