use super::*;

#[tokio::test]
async fn an_initiation_answers_a_secret_absolute_uri() {
    let stand = stand().await;
    let query = "name=videos%2Fu-17%2Fa%20b.mp4&ifGenerationMatch=0";
    let seen = send(stand.initiation(query, "")).await;
    assert_eq!((seen.status, seen.body.as_str()), (200, ""));
    let location = seen.header("location").unwrap();
    let (before, id) = location.split_once("&upload_id=").unwrap();
    let expected = format!("{}/upload/storage/v1/b/media/o?uploadType=resumable&{query}", stand.emulator.url());
    assert_eq!(before, expected);
    assert_eq!(seen.header("x-guploader-uploadid"), Some(id));
    assert_eq!(id.len(), 178);
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{id}");
    assert_eq!(stand.emulator.sessions(), 1);

    let path = "/resumable/upload/storage/v1/b/media/o?uploadType=resumable&name=a";
    let other = send(stand.request(Method::POST, path).header("content-length", 0)).await;
    assert_eq!(other.status, 200);
    assert_ne!(other.header("x-guploader-uploadid"), Some(id));
    assert_eq!(stand.put(other.header("location").unwrap(), None, "x").await.status, 200);
}

#[tokio::test]
async fn what_cannot_become_an_object_is_refused() {
    let stand = stand().await;
    let long = format!("name={}", "k".repeat(1025));
    let large = format!(r#"{{"metadata": {{"k": "{}"}}}}"#, "v".repeat(4097));
    for (name, query, body, status, reason) in [
        ("no name", "", "", 400, "required"),
        ("name of dots", "name=..", "", 400, "invalid"),
        ("line break", "name=a%0Ab", "", 400, "invalid"),
        ("1025 bytes", long.as_str(), "", 400, "invalid"),
        ("acme", "name=.well-known%2Facme-challenge%2Fx", "", 400, "invalid"),
        ("no JSON", "name=a", "{", 400, "parseError"),
        ("no resource", "name=a", "[]", 400, "parseError"),
        ("name is a number", "", r#"{"name": 1}"#, 400, "invalid"),
        ("bad md5", "name=a", r#"{"md5Hash": "yZRlqg=="}"#, 400, "invalid"),
        ("bad crc32c", "name=a", r#"{"crc32c": 7}"#, 400, "invalid"),
        ("key in the body", "name=a", r#"{"kmsKeyName": "k"}"#, 400, "invalid"),
        ("large metadata", "name=a", large.as_str(), 400, "invalid"),
        ("metadata of numbers", "name=a", r#"{"metadata": {"k": 1}}"#, 400, "invalid"),
        ("bogus acl", "name=a&predefinedAcl=everyone", "", 400, "invalid"),
        ("bogus precondition", "name=a&ifGenerationMatch=x", "", 400, "invalid"),
        ("bogus fields", "name=a&fields=a(", "", 400, "invalid"),
    ] {
        let seen = send(stand.initiation(query, body)).await;
        assert_eq!((seen.status, seen.reason().as_str()), (status, reason), "{name}");
    }
    for (name, size, status) in [
        ("5 TiB", "5497558138880", 200),
        ("more", "5497558138881", 400),
        ("a word", "many", 400),
        ("a sign", "+5", 400),
        ("nothing", "", 400),
    ] {
        let seen = send(stand.initiation("name=a", "").header("x-upload-content-length", size)).await;
        assert_eq!(seen.status, status, "{name}");
    }
    assert_eq!(stand.emulator.sessions(), 1);
}

#[tokio::test]
async fn who_asks_for_what_is_looked_at_first() {
    let stand = stand().await;
    let bare = |path: &str| {
        let url = format!("{}{path}", stand.emulator.url());
        stand.client.post(url).header("content-length", 0)
    };
    let path = "/upload/storage/v1/b/media/o?uploadType=resumable&name=a";
    let seen = send(bare(path)).await;
    assert_eq!((seen.status, seen.reason().as_str()), (401, "required"));
    assert!(seen.header("www-authenticate").unwrap().starts_with("Bearer"));
    assert_eq!(send(bare(path).header("authorization", "Basic dTpw")).await.status, 401);
    assert_eq!(
        send(stand.client.post(format!("{}{path}", stand.emulator.url())).body("{")).await.status,
        401,
        "before the body is parsed"
    );
    assert_eq!(send(bare(path).header("authorization", "Bearer ")).await.status, 401);

    let elsewhere = send(bare("/upload/storage/v1/b/other/o?uploadType=resumable&name=a").bearer_auth("t")).await;
    assert_eq!((elsewhere.status, elsewhere.reason().as_str()), (404, "notFound"));

    let host = "host: x\r\nconnection: close\r\nauthorization: Bearer t\r\n";
    let answer = stand.raw(format!("POST {path} HTTP/1.1\r\n{host}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    let answer = stand
        .raw(format!("POST {path} HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\n0\r\n\r\n").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    assert_eq!(stand.emulator.sessions(), 0);
}

#[tokio::test]
async fn tokens_can_be_switched_off() {
    let stand = stand_with(|settings| settings.authorization = super::super::Authorization::Ignored).await;
    let url = format!("{}/upload/storage/v1/b/media/o?uploadType=resumable&name=a", stand.emulator.url());
    assert_eq!(send(stand.client.post(url).header("content-length", 0)).await.status, 200);
}

#[tokio::test]
async fn the_query_and_the_body_win_over_what_else_is_said() {
    let stand = stand().await;
    let body = r#"{"name": "loser", "contentType": "video/mp4", "cacheControl": "private", "unknown": 1,
                   "contentEncoding": "br", "metadata": {"upload": "u1"}, "retention": {"mode": "Unlocked"}}"#;
    let initiation = stand.initiation("name=winner&contentEncoding=gzip&kmsKeyName=k", body);
    let uri = location(&initiation.header("x-upload-content-type", "text/plain").send().await.unwrap());
    let seen = stand.put_with(&uri, None, "hello", &[("content-type", "application/x-www-form-urlencoded")]).await;
    let object = seen.json();
    for (field, expected) in [
        ("name", "winner"),
        ("bucket", "media"),
        ("contentType", "video/mp4"),
        ("contentEncoding", "gzip"),
        ("cacheControl", "private"),
        ("kmsKeyName", "k"),
        ("size", "5"),
        ("metageneration", "1"),
        ("generation", "1763805600000000"),
        ("crc32c", "mnG7TA=="),
        ("md5Hash", "XUFAKrxLKna5cZ2REBfFkg=="),
        ("timeCreated", "2025-11-22T10:00:00.000Z"),
        ("kind", "storage#object"),
        ("id", "media/winner/1763805600000000"),
        ("storageClass", "STANDARD"),
    ] {
        assert_eq!(object[field], expected, "{field}");
    }
    assert_eq!(object["metadata"], serde_json::json!({"upload": "u1"}));
    assert_eq!(object["retention"]["mode"], "Unlocked");

    let in_body = stand.initiation("", r#"{"name": "in body"}"#).header("x-upload-content-type", "text/plain");
    let object = stand.put(&location(&in_body.send().await.unwrap()), None, "").await.json();
    assert_eq!((&object["name"], &object["contentType"]), (&"in body".into(), &"text/plain".into()));
    let untyped = stand.put(&stand.session("untyped", None).await, None, "").await.json();
    assert_eq!(untyped["contentType"], "application/octet-stream");
}

#[tokio::test]
async fn the_selection_of_the_initiation_shapes_the_last_answer() {
    let stand = stand().await;
    let uri = location(&stand.initiation("name=a&fields=name,size", "").send().await.unwrap());
    assert_eq!(stand.put(&uri, None, "abc").await.json(), serde_json::json!({"name": "a", "size": "3"}));
}
