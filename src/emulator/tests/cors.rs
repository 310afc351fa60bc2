use super::*;

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example.com";
const ALLOW: &str = "access-control-allow-origin";

#[tokio::test]
async fn a_session_answers_to_the_origin_of_its_initiation() {
    for (name, initiated, asked, allowed, at_last) in [
        ("the same", Some(APP), Some(APP), Some(APP), Some(APP)),
        ("another later", Some(APP), Some(EVIL), Some(APP), Some(APP)),
        ("none later", Some(APP), None, Some(APP), Some(APP)),
        ("none at first", None, Some(APP), None, None),
        ("a star", Some("*"), Some(APP), Some("*"), None),
    ] {
        let stand = stand().await;
        let mut initiation = stand.initiation("name=o", "");
        if let Some(origin) = initiated {
            initiation = initiation.header("origin", origin);
        }
        let initiation = send(initiation).await;
        assert_eq!(initiation.header(ALLOW), initiated, "{name}");
        let uri = initiation.header("location").unwrap();
        let asked: Vec<_> = asked.iter().map(|origin| ("origin", *origin)).collect();

        let chunk = stand.put_with(uri, Some("bytes 0-262143/*"), bytes(Q), &asked).await;
        assert_eq!(chunk.header(ALLOW), allowed, "{name}");
        if allowed.is_some() {
            let exposed = chunk.header("access-control-expose-headers").unwrap();
            assert!(exposed.contains("Range") && exposed.contains("Location"), "{name}");
            assert_eq!(chunk.header("vary"), Some("Origin"), "{name}");
        }
        let wrong = stand.put_with(uri, Some("bytes 900000-*/*"), "x", &asked).await;
        assert_eq!((wrong.status, wrong.header(ALLOW)), (503, allowed), "{name}: errors as well");
        let mut preflight = stand.client.request(Method::OPTIONS, uri).header("access-control-request-method", "PUT");
        for (header, value) in &asked {
            preflight = preflight.header(*header, *value);
        }
        let preflight = send(preflight.header("access-control-request-headers", "content-range,x-goog-hash")).await;
        assert_eq!((preflight.status, preflight.header(ALLOW)), (200, allowed), "{name}");
        assert!(preflight.header("access-control-allow-methods").unwrap().contains("PUT"), "{name}");
        assert_eq!(preflight.header("access-control-allow-headers"), Some("content-range,x-goog-hash"), "{name}");

        let last = stand.put_with(uri, Some("bytes */262144"), "", &asked).await;
        assert_eq!((last.status, last.header(ALLOW)), (200, at_last), "{name}");
    }
}

#[tokio::test]
async fn other_calls_answer_to_whoever_asks() {
    let stand = stand().await;
    let seen = send(stand.request(Method::GET, "/storage/v1/b/media").header("origin", APP)).await;
    assert_eq!((seen.status, seen.header(ALLOW)), (200, Some(APP)));
    let url = format!("{}/upload/storage/v1/b/media/o?uploadType=resumable&name=a", stand.emulator.url());
    let preflight = stand.client.request(Method::OPTIONS, url).header("origin", APP);
    let seen = send(preflight.header("access-control-request-method", "POST")).await;
    assert_eq!((seen.status, seen.header(ALLOW)), (200, Some(APP)));
    let unknown = format!("{}/upload/storage/v1/b/media/o?upload_id=unknown", stand.emulator.url());
    let seen = send(stand.client.put(unknown).header("origin", APP).body("x")).await;
    assert_eq!((seen.status, seen.header(ALLOW)), (404, None), "nothing is known of it, its origin neither");
}
