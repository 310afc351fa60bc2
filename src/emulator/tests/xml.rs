use super::*;

impl Stand {
    /// A request of the XML API for `/media/o` with a token.
    async fn xml(&self, method: Method, headers: &[(&str, &str)], body: &str) -> Seen {
        self.xml_at("/media/o", method, headers, body).await
    }

    async fn xml_at(&self, target: &str, method: Method, headers: &[(&str, &str)], body: &str) -> Seen {
        let has_body = !matches!(method, Method::GET | Method::HEAD);
        let mut request = self.request(method, target);
        if has_body {
            request = request.header("content-length", body.len()).body(body.to_owned());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }

    /// The URI of a new session of the XML API.
    async fn xml_session(&self, headers: &[(&str, &str)]) -> String {
        let headers: Vec<_> = headers.iter().copied().chain([("x-goog-resumable", "start")]).collect();
        let seen = self.xml(Method::POST, &headers, "").await;
        assert_eq!((seen.status, seen.body.as_str()), (201, ""), "{seen:?}");
        seen.header("location").unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_initiation_gives_a_session_that_answers_in_headers() {
    let stand = stand().await;
    let uri = stand
        .xml_session(&[
            ("content-type", "video/mp4"),
            ("cache-control", "no-store"),
            ("content-language", "de"),
            ("X-Goog-Meta-Owner", "someone"),
        ])
        .await;
    assert!(uri.starts_with(&format!("{}/media/o?upload_id=", stand.emulator.url())), "{uri}");
    let chunk = stand.put(&uri, Some("bytes 0-262143/*"), bytes(Q)).await;
    assert_eq!(chunk.persisted(), Q);
    assert_eq!(stand.ask(&uri).await.persisted(), Q);
    let last = stand.put(&uri, Some("bytes 262144-262146/262147"), "end").await;
    assert_eq!((last.status, last.body.as_str()), (200, ""), "{last:?}");
    let object = stand.emulator.object("media", "o").unwrap();
    let hash = format!("crc32c={},md5={}", object.crc32c, object.md5);
    for (name, expected) in [
        ("x-goog-generation", object.generation.to_string().as_str()),
        ("x-goog-metageneration", "1"),
        ("x-goog-hash", &hash),
        ("x-goog-stored-content-length", "262147"),
        ("x-goog-stored-content-encoding", "identity"),
    ] {
        assert_eq!(last.header(name), Some(expected), "{name}");
    }
    assert!(last.header("etag").is_some_and(|tag| tag.starts_with('"')));
    assert_eq!((object.content_type.as_str(), object.metadata["owner"].as_str()), ("video/mp4", "someone"));
    let later = stand.ask(&uri).await;
    assert_eq!(
        (later.status, later.header("x-goog-hash")),
        (200, Some(hash.as_str())),
        "a finished session says it again"
    );
    assert_eq!(stand.cancel(&uri).await, 499);
    assert!(stand.emulator.object("media", "o").is_some(), "the object stays");
}
