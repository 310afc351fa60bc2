use serde_json::json;

use super::super::journal::Operation;
use super::*;

async fn stand_with_objects(names: &[&str]) -> Stand {
    let stand = stand().await;
    for name in names {
        let path = format!("/upload/storage/v1/b/media/o?uploadType=media&name={name}");
        assert_eq!(send(stand.request(Method::POST, &path).body(format!("content of {name}"))).await.status, 200);
    }
    stand
}

#[tokio::test]
async fn an_object_is_read_downloaded_and_removed_by_generation() {
    let stand = stand_with_objects(&["a%2Fb"]).await;
    let generation = stand.emulator.object("media", "a/b").unwrap().generation;
    let path = "/storage/v1/b/media/o/a%2Fb";
    let other = generation + 1;
    for (name, method, query, status) in [
        ("read", Method::GET, String::new(), 200),
        ("its generation", Method::GET, format!("?generation={generation}"), 200),
        ("another generation", Method::GET, format!("?generation={other}"), 404),
        ("no generation", Method::GET, "?generation=x".to_owned(), 400),
        ("matching", Method::GET, format!("?ifGenerationMatch={generation}"), 200),
        ("not matching", Method::GET, format!("?ifGenerationMatch={other}"), 412),
        ("nothing new", Method::GET, format!("?ifGenerationNotMatch={generation}"), 304),
        ("not supported", Method::PUT, String::new(), 405),
        ("remove another generation", Method::DELETE, format!("?generation={other}"), 404),
        ("remove if another", Method::DELETE, format!("?ifGenerationMatch={other}"), 412),
        ("remove", Method::DELETE, format!("?generation={generation}&ifGenerationMatch={generation}"), 204),
        ("remove again", Method::DELETE, String::new(), 404),
        ("read again", Method::GET, String::new(), 404),
    ] {
        let seen = send(stand.request(method, &format!("{path}{query}"))).await;
        assert_eq!(seen.status, status, "{name}");
    }
    let anonymous = send(stand.client.get(format!("{}{path}", stand.emulator.url()))).await;
    assert_eq!(anonymous.status, 401);
}

#[tokio::test]
async fn a_resource_shows_the_fields_that_are_asked_for() {
    let stand = stand_with_objects(&["a"]).await;
    let seen = send(stand.request(Method::GET, "/storage/v1/b/media/o/a?fields=name,size,metageneration")).await;
    assert_eq!(seen.json(), json!({"name": "a", "size": "12", "metageneration": "1"}));
    let seen = send(stand.request(Method::GET, "/storage/v1/b/media/o/a?fields=name(")).await;
    assert_eq!(seen.reason(), "invalid");
    let link = send(stand.request(Method::GET, "/storage/v1/b/media/o/a")).await.json();
    let media = send(stand.client.get(link["mediaLink"].as_str().unwrap()).bearer_auth("t")).await;
    assert_eq!(media.body, "content of a");
}

#[tokio::test]
async fn a_download_serves_ranges_and_facts() {
    let stand = stand_with_objects(&["a"]).await;
    let path = "/storage/v1/b/media/o/a?alt=media";
    let whole = send(stand.request(Method::GET, path)).await;
    assert_eq!((whole.status, whole.body.as_str()), (200, "content of a"));
    let crc32c = crate::model::digest::Crc32c(crc32c::crc32c(b"content of a"));
    assert!(whole.header("x-goog-hash").unwrap().starts_with(&format!("crc32c={crc32c},md5=")));
    assert_eq!(whole.header("x-goog-generation"), Some("1763805600000000"));
    for (range, status, body, given) in [
        ("bytes=0-6", 206, "content", Some("bytes 0-6/12")),
        ("bytes=-1", 206, "a", Some("bytes 11-11/12")),
        ("bytes=8-", 206, "of a", Some("bytes 8-11/12")),
        ("bytes=5-2", 200, "content of a", None),
    ] {
        let seen = send(stand.request(Method::GET, path).header("range", range)).await;
        assert_eq!((seen.status, seen.body.as_str(), seen.header("content-range")), (status, body, given), "{range}");
    }
    let seen = send(stand.request(Method::GET, path).header("range", "bytes=12-")).await;
    assert_eq!(seen.status, 416);
}

#[tokio::test]
async fn a_patch_changes_metadata_and_counts() {
    let stand = stand_with_objects(&["a"]).await;
    let object = "/storage/v1/b/media/o/a";
    let patch = |query: &str, body: serde_json::Value| {
        send(stand.request(Method::PATCH, &format!("{object}{query}")).body(body.to_string()))
    };
    let first = patch("", json!({"metadata": {"k": "v", "gone": "soon"}, "contentType": "text/plain"})).await.json();
    assert_eq!((&first["metageneration"], &first["contentType"]), (&json!("2"), &json!("text/plain")));
    stand.emulator.advance(Duration::from_secs(60));
    let change = json!({"metadata": {"gone": null, "new": "n"}, "contentType": null, "size": "7"});
    let second = patch("?ifMetagenerationMatch=2", change).await.json();
    assert_eq!(second["metadata"], json!({"k": "v", "new": "n"}));
    assert_eq!((&second["metageneration"], &second["size"]), (&json!("3"), &json!("12")));
    assert_eq!(second["generation"], first["generation"]);
    assert_eq!(second["updated"], "2025-11-22T10:01:00.000Z");
    assert_eq!(second["timeCreated"], "2025-11-22T10:00:00.000Z");
    assert_eq!(patch("?ifMetagenerationMatch=2", json!({})).await.status, 412);
    assert_eq!(patch("", json!({"metadata": {"k": 1}})).await.status, 400);
    assert_eq!(patch("", json!({"metadata": null})).await.json().get("metadata"), None);
    assert_eq!(stand.emulator.object("media", "a").unwrap().metageneration, 4);
}

#[tokio::test]
async fn a_listing_has_pages_prefixes_and_common_beginnings() {
    let stand = stand_with_objects(&["a", "d%2F1", "d%2F2", "e%2F1", "f"]).await;
    for (name, query, pages) in [
        ("all", "", vec!["a d/1 d/2 e/1 f"]),
        ("a prefix", "prefix=d%2F", vec!["d/1 d/2"]),
        ("another prefix", "prefix=x", vec![""]),
        ("pages", "maxResults=2", vec!["a d/1", "d/2 e/1", "f"]),
        ("pages that end evenly", "maxResults=1&prefix=d", vec!["d/1", "d/2"]),
        ("common beginnings", "delimiter=%2F", vec!["a f d/ e/"]),
        ("pages of them", "delimiter=%2F&maxResults=2", vec!["a d/", "f e/"]),
        ("below one", "delimiter=%2F&prefix=d%2F", vec!["d/1 d/2"]),
    ] {
        let mut token: Option<String> = None;
        for page in pages {
            let after = token.map(|token| format!("&pageToken={token}")).unwrap_or_default();
            let seen = send(stand.request(Method::GET, &format!("/storage/v1/b/media/o?{query}{after}"))).await.json();
            let empty = Vec::new();
            let items = seen["items"].as_array().unwrap_or(&empty).iter().map(|item| item["name"].as_str().unwrap());
            let prefixes = seen["prefixes"].as_array().unwrap_or(&empty).iter().map(|prefix| prefix.as_str().unwrap());
            assert_eq!(items.chain(prefixes).collect::<Vec<_>>().join(" "), page, "{name}");
            token = seen["nextPageToken"].as_str().map(str::to_owned);
        }
        assert_eq!(token, None, "{name}");
    }
    for query in ["maxResults=0", "maxResults=x", "pageToken=!"] {
        let seen = send(stand.request(Method::GET, &format!("/storage/v1/b/media/o?{query}"))).await;
        assert_eq!(seen.status, 400, "{query}");
    }
    assert_eq!(send(stand.request(Method::GET, "/storage/v1/b/other/o")).await.status, 404);
}

#[tokio::test]
async fn buckets_are_made_and_shown() {
    let stand = stand().await;
    let bucket = send(stand.request(Method::GET, "/storage/v1/b/media?fields=name,location,locationType")).await.json();
    assert_eq!(bucket, json!({"name": "media", "location": "EUROPE-WEST1", "locationType": "region"}));
    assert_eq!(send(stand.request(Method::GET, "/storage/v1/b/other")).await.status, 404);
    for (body, status, location, kind) in [
        (json!({"name": "other", "location": "eu"}), 200, "EU", "multi-region"),
        (json!({"name": "two", "location": "EUR4"}), 200, "EUR4", "dual-region"),
        (json!({"name": "usual"}), 200, "US", "multi-region"),
        (json!({"name": "usual"}), 409, "", ""),
        (json!({"name": "No"}), 400, "", ""),
        (json!({}), 400, "", ""),
    ] {
        let seen = send(stand.request(Method::POST, "/storage/v1/b?project=p").body(body.to_string())).await;
        assert_eq!(seen.status, status, "{body}");
        if status == 200 {
            let made = seen.json();
            assert_eq!((&made["location"], &made["locationType"]), (&json!(location), &json!(kind)), "{body}");
        }
    }
    let path =
        "/storage/v1/b/media/iam/testPermissions?permissions=storage.objects.create&permissions=storage.objects.get";
    let granted = send(stand.request(Method::GET, path)).await.json();
    assert_eq!(granted["permissions"], json!(["storage.objects.create", "storage.objects.get"]));
    let pair = json!({"name": "pair", "location": "EU",
        "customPlacementConfig": {"dataLocations": ["EUROPE-WEST1", "EUROPE-WEST4"]}});
    let made = send(stand.request(Method::POST, "/storage/v1/b").body(pair.to_string())).await.json();
    assert_eq!((&made["location"], &made["locationType"]), (&json!("EU"), &json!("dual-region")));
    assert_eq!(made["customPlacementConfig"], pair["customPlacementConfig"]);
    let three = json!({"name": "three", "customPlacementConfig": {"dataLocations": ["a", "b", "c"]}});
    assert_eq!(send(stand.request(Method::POST, "/storage/v1/b").body(three.to_string())).await.status, 400);
    assert_eq!(send(stand.request(Method::GET, "/nowhere")).await.status, 404);
    assert_eq!(send(stand.request(Method::GET, "/storage/v1/b/%FF")).await.status, 400);
}

#[tokio::test]
async fn simple_uploads_make_objects_in_one_request() {
    let stand = stand().await;
    let upload = |query: &str| stand.request(Method::POST, &format!("/upload/storage/v1/b/media/o?{query}"));
    let typed = upload("uploadType=media&name=a").header("content-type", "text/plain").body("hello");
    let object = send(typed).await.json();
    assert_eq!((&object["contentType"], &object["crc32c"]), (&json!("text/plain"), &json!("mnG7TA==")));

    let resource = json!({"name": "b", "metadata": {"k": "v"}, "crc32c": "mnG7TA=="});
    let parts = |resource: &serde_json::Value, media: &str| {
        format!(
            "--xyz\r\nContent-Type: application/json\r\n\r\n{resource}\r\n--xyz\r\nContent-Type: text/x\r\n\r\n{media}\r\n--xyz--"
        )
    };
    let related = ("content-type", "multipart/related; boundary=xyz");
    let multipart = |query: &str, body: String| send(upload(query).header(related.0, related.1).body(body));
    let object = multipart("uploadType=multipart&fields=name,contentType", parts(&resource, "hello")).await.json();
    assert_eq!(object, json!({"name": "b", "contentType": "text/x"}));
    assert_eq!(stand.bytes("b").unwrap(), b"hello");
    assert_eq!(stand.emulator.object("media", "b").unwrap().metadata["k"], "v");

    for (name, query, body, status) in [
        ("wrong digest", "uploadType=multipart", parts(&resource, "other"), 400),
        ("taken", "uploadType=multipart&ifGenerationMatch=0", parts(&resource, "hello"), 412),
        ("no parts", "uploadType=multipart&name=c", "hello".to_owned(), 400),
        ("no JSON", "uploadType=multipart&name=c", parts(&json!([]), "x"), 400),
        ("no type", "name=c", "hello".to_owned(), 400),
        ("unknown type", "uploadType=other&name=c", "hello".to_owned(), 400),
        ("no name", "uploadType=media", "hello".to_owned(), 400),
    ] {
        assert_eq!(multipart(query, body).await.status, status, "{name}");
    }
    let hashed = upload("uploadType=media&name=c").header("x-goog-hash", "crc32c=AAAAAA==").body("hello");
    assert_eq!(send(hashed).await.status, 400);
    assert!(stand.bytes("c").is_none());
    let path = "/upload/storage/v1/b/media/o?uploadType=media&name=c";
    let cut = format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\ncontent-length: 9\r\n\r\nhello");
    assert_eq!(stand.cut(cut.as_bytes()).await, "");
    stand.emulator.journal().wait_for(|entry| entry.status.is_none()).await;
    assert!(stand.bytes("c").is_none());
}

#[tokio::test]
async fn a_bucket_says_what_it_was_told_to_say() {
    let stand = stand_with(|settings| {
        settings.buckets[0] = BucketSettings {
            placement: vec!["europe-west1-b".into()],
            soft_delete: Some(Duration::from_secs(604_800)),
            retention: Some(Duration::from_secs(60)),
            versioning: true,
            ..settings.buckets[0].clone()
        };
    })
    .await;
    let get = async |path: &str| send(stand.request(Method::GET, &format!("/storage/v1/b/{path}"))).await;
    let bucket = get("media").await.json();
    assert_eq!(bucket["locationType"], "zone");
    assert_eq!(bucket["softDeletePolicy"]["retentionDurationSeconds"], "604800");
    assert_eq!(bucket["retentionPolicy"]["retentionPeriod"], "60");
    assert_eq!(bucket["versioning"]["enabled"], true);
    let layout = get("media/storageLayout").await.json();
    let placement = json!({"dataLocations": ["EUROPE-WEST1-B"]});
    let expected = json!({"kind": "storage#storageLayout", "bucket": "media", "location": "EUROPE-WEST1",
        "locationType": "zone", "customPlacementConfig": placement});
    assert_eq!(layout, expected);
    assert_eq!(get("other/storageLayout").await.status, 404);
    assert_eq!(stand.emulator.journal().count(Operation::Layout), 2);
}

#[tokio::test]
async fn what_is_withheld_is_refused_and_nothing_else() {
    for (withheld, method, path, status) in [
        ("storage.buckets.get", Method::GET, "/storage/v1/b/media", 403),
        ("storage.buckets.get", Method::GET, "/storage/v1/b/media/notificationConfigs", 403),
        ("storage.buckets.get", Method::GET, "/storage/v1/b/media/storageLayout", 200),
        ("storage.objects.list", Method::GET, "/storage/v1/b/media/storageLayout", 403),
        ("storage.objects.get", Method::GET, "/storage/v1/b/media/o/a", 403),
        ("storage.objects.get", Method::DELETE, "/storage/v1/b/media/o/a", 404),
        ("storage.objects.delete", Method::DELETE, "/storage/v1/b/media/o/a", 403),
        ("storage.objects.create", Method::POST, "/upload/storage/v1/b/media/o?uploadType=resumable&name=a", 403),
        ("storage.objects.create", Method::POST, "/upload/storage/v1/b/media/o?uploadType=media&name=a", 403),
        ("storage.objects.get", Method::POST, "/upload/storage/v1/b/media/o?uploadType=media&name=a", 200),
        ("storage.objects.create", Method::POST, "/upload/storage/v1/b/none/o?uploadType=media&name=a", 404),
    ] {
        let stand = stand_with(|settings| settings.buckets[0].withheld.push(withheld.into())).await;
        let seen = send(stand.request(method, path).header("content-length", 0)).await;
        assert_eq!(seen.status, status, "{path} without {withheld}: {seen:?}");
        if status == 403 {
            assert_eq!(seen.reason(), "forbidden");
        }
        let asked = format!("/storage/v1/b/media/iam/testPermissions?permissions={withheld}&permissions=storage.x");
        let granted = send(stand.request(Method::GET, &asked)).await.json();
        assert_eq!(granted["permissions"], json!(["storage.x"]));
    }
}
