//! The XML interface: the requests of an initiation, and what storage answers in headers.

use super::*;
use crate::model::chain;

async fn client_of_xml(server: &Scripted) -> Storage {
    let settings = settings(&format!("http://{}", server.address), Duration::from_secs(5));
    Storage::open_with(&Settings { api: Api::Xml, ..settings }, options(), QUICK).await.unwrap()
}

fn begun() -> Step {
    answer(201, &["location: /media-eu/videos/u%2017/%C3%A4.mp4?upload_id=s3cret", "content-type: text/plain"], "")
}

#[tokio::test]
async fn an_initiation_says_all_in_headers() {
    let server = Scripted::start([begun()]).await;
    let storage = client_of_xml(&server).await;
    assert!(storage.initiates_by_headers());
    assert!(!client(&server).await.initiates_by_headers());
    let (promise, metadata) = (full_promise(), full_metadata());
    let initiation = Initiation {
        note: None,
        id: UploadId::new(Partition(0x3f), [7; 16]),
        bucket: &bucket(),
        object: &object(),
        promise: &promise,
        metadata: &metadata,
        cache_control: Some("private"),
        overwrite: Overwrite::Forbidden,
        origin: Some("https://app.example.com"),
    };
    let session = storage.initiate(&initiation, soon()).await.unwrap();
    let path = "/media-eu/videos/u%2017/%C3%A4.mp4";
    assert_eq!(session.expose(), format!("http://{}{path}?upload_id=s3cret", server.address));
    let id = "x-goog-meta-upload-broker-id: 3f07070707070707070707070707070707";
    assert_eq!(
        sorted(&server.seen()[0]),
        [
            &format!("POST {path} HTTP/1.1"),
            "accept: */*",
            "authorization: Bearer stand-in",
            "cache-control: private",
            "content-length: 0",
            "content-type: video/mp4",
            "origin: https://app.example.com",
            "user-agent: upload-broker/test",
            "x-goog-content-length-range: 73400320,73400320",
            "x-goog-if-generation-match: 0",
            "x-goog-meta-album: \"summer\"",
            id,
            "x-goog-resumable: start",
            "x-upload-content-length: 73400320",
            "",
        ]
    );

    let bounds = PromisedSize::Between { least: ByteCount(1), most: ByteCount(5) };
    let bare = Promise { size: bounds, md5: None, crc32c: None, ..promise.clone() };
    let none = BTreeMap::new();
    let initiation = Initiation {
        promise: &bare,
        metadata: &none,
        cache_control: None,
        overwrite: Overwrite::Allowed,
        origin: None,
        ..initiation
    };
    storage.initiate(&initiation, soon()).await.unwrap();
    assert_eq!(
        sorted(&server.seen()[1]),
        [
            &format!("POST {path} HTTP/1.1"),
            "accept: */*",
            "authorization: Bearer stand-in",
            "content-length: 0",
            "content-type: video/mp4",
            "user-agent: upload-broker/test",
            "x-goog-content-length-range: 1,5",
            id,
            "x-goog-resumable: start",
            "",
        ]
    );
    for (name, object, (key, value), cache_control) in [
        ("a name that is another path", "a/../b", ("k", "v"), "private"),
        ("a line break in metadata", "a", ("k", "v\r\nx-goog-acl: public-read"), "private"),
        ("a line break in a key", "a", ("k\r\nx", "v"), "private"),
        ("a blank that would be lost", "a", ("k", "v"), "private "),
        ("a line break elsewhere", "a", ("k", "v"), "private\r\nx-goog-acl: public-read"),
    ] {
        let metadata = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let object = object.parse().unwrap();
        let initiation =
            Initiation { object: &object, metadata: &metadata, cache_control: Some(cache_control), ..initiation };
        let refused = storage.initiate(&initiation, soon()).await;
        assert!(matches!(refused, Err(Error::Nonsense(_))), "{name}: {refused:?}");
    }
    assert_eq!(server.count(), 2, "what cannot be said is not sent");
}

#[tokio::test]
async fn an_initiation_ends_with_a_session_of_this_storage_or_an_error() {
    let code = |code: &str| format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>");
    let page = "<html><Code>s3cret</Code></html>";
    for (name, step, expected) in [
        ("201", begun(), "ok"),
        ("200", answer(200, &["location: /media-eu/a?upload_id=A"], ""), "ok"),
        ("no Location", answer(201, &[], ""), "a session was opened without a Location"),
        ("a foreign host", answer(201, &["location: http://evil.example/?upload_id=s3cret"], ""), "is not https"),
        ("no session", answer(201, &["location: /media-eu/a"], ""), "the session URI has no upload_id"),
        ("a page", answer(200, &["content-type: text/html"], page), "a session was opened without a Location"),
        (
            "no content",
            answer(204, &["location: /media-eu/a?upload_id=A"], ""),
            "a status that does not belong to the request",
        ),
        ("403", answer(403, &[], &code("AccessDenied")), "storage refused with status 403, AccessDenied"),
        ("404", answer(404, &[], "<Error><Code>NoSuchBucket</Code>"), "storage refused with status 404, NoSuchBucket"),
        ("400, not a word", answer(400, &[], &code("see s3cret")), "storage refused with status 400"),
        ("400, a page", answer(400, &[], page), "storage refused with status 400"),
        ("501", answer(501, &[], ""), "storage is not available: it answered with status 501"),
    ] {
        let server = Scripted::start([step]).await;
        let storage = client_of_xml(&server).await;
        let told = match initiate(&storage, Instant::now() + Duration::from_millis(300)).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => chain(&error),
        };
        assert!(told.ends_with(expected), "{name}: {told}");
        assert!(!told.contains("s3cret") && !told.contains("evil"), "{name}: {told}");
    }
}

#[tokio::test]
async fn a_finished_session_says_in_headers_what_was_stored() {
    let generation = "x-goog-generation: 1712345678901234";
    let length = "x-goog-stored-content-length: 73400320";
    let (md5, crc32c) = ("XrY7u+Ae7tCTyyK7j1rNww==", "yZRlqg==");
    let both = format!("x-goog-hash: crc32c={crc32c},md5={md5}");
    let (one, other) = (format!("x-goog-hash: crc32c={crc32c}"), format!("x-goog-hash: md5={md5}"));
    let object = StoredObject {
        generation: 1_712_345_678_901_234,
        size: ByteCount(73_400_320),
        content_type: None,
        md5: Some(md5.parse().unwrap()),
        crc32c: Some(crc32c.parse().unwrap()),
    };
    let finished = |object: &StoredObject| format!("{:?}", Progress::Finished(Some(object.clone())));
    let without_md5 = StoredObject { md5: None, ..object.clone() };
    let without_digest = StoredObject { crc32c: None, ..without_md5.clone() };
    let unsaid = "Finished(None)".to_owned();
    let form = "the exchange with storage makes no sense: a finished session with a header of another form".to_owned();
    let digest =
        "the exchange with storage makes no sense: a finished session with a digest of another form".to_owned();
    for (name, headers, body, expected) in [
        ("both digests in one header", vec![generation, length, &both], "", finished(&object)),
        ("a header for each", vec![generation, length, &one, &other], "", finished(&object)),
        ("one digest", vec![generation, length, &one], "", finished(&without_md5)),
        (
            "a digest of another kind",
            vec![generation, length, "x-goog-hash: sha256=AA=="],
            "",
            finished(&without_digest),
        ),
        ("no digest", vec![generation, length], "", finished(&without_digest)),
        ("no length", vec![generation, &both], "", unsaid.clone()),
        ("no generation", vec![length, &both], "", unsaid.clone()),
        ("nothing", vec![], "", unsaid),
        ("a generation that is none", vec!["x-goog-generation: -1", length], "", form.clone()),
        ("a length that is none", vec![generation, "x-goog-stored-content-length: 1e3"], "", form.clone()),
        ("a length beyond numbers", vec![generation, "x-goog-stored-content-length: 18446744073709551616"], "", form),
        ("a digest that is none", vec![generation, length, "x-goog-hash: md5=AA=="], "", digest),
        (
            "a page",
            vec![generation, length],
            "<html>",
            "the exchange with storage makes no sense: a finished session without an object resource".to_owned(),
        ),
    ] {
        let server = Scripted::start([answer(200, &headers, body)]).await;
        let told = match client_of_xml(&server).await.look(&session(&server), soon()).await {
            Ok(progress) => format!("{progress:?}"),
            Err(error) => chain(&error),
        };
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn metadata_travels_in_headers_only_as_it_is() {
    let (half, long) = ("v".repeat(3900), "v".repeat(4096));
    let keys: Vec<String> = (0..40).map(|number| format!("{number:02}{}", "k".repeat(40))).collect();
    let many: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
    for (name, entries, accepted) in [
        ("nothing", vec![], true),
        ("plain", vec![("album", "summer of 26"), ("a.b_c-d~", "{\"a\": 1}")], true),
        ("an empty value", vec![("album", "")], true),
        ("beyond ASCII", vec![("album", "☀")], false),
        ("a tab", vec![("album", "a\tb")], false),
        ("a line break", vec![("album", "a\nb")], false),
        ("a blank in front", vec![("album", " a")], false),
        ("a blank behind", vec![("album", "a ")], false),
        ("a key in capitals", vec![("Album", "a")], false),
        ("a key with a blank", vec![("my album", "a")], false),
        ("no key", vec![("", "a")], false),
        ("nearly 8 KiB", vec![("a", &half), ("b", &half)], true),
        ("more than 8 KiB", vec![("a", &long), ("b", &long)], false),
        ("thirty keys", many[..30].to_vec(), true),
        ("more keys than a URL has room for", many, false),
    ] {
        let metadata = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(metadata_in_headers(&metadata).is_ok(), accepted, "{name}");
    }
}

/// The longest of all that a URL names: it must come out, since it is refused nowhere before.
#[test]
fn the_longest_name_with_all_the_metadata_keys_fits_in_a_signed_url() {
    let bucket: BucketName = vec!["b".repeat(55); 4].join(".")[..222].parse().unwrap();
    let object: ObjectName = "é".repeat(512).parse().unwrap();
    let keys = (0..4).map(|number| (format!("{number}{}", "k".repeat(480)), String::new()));
    let mut metadata: BTreeMap<String, String> = keys.collect();
    metadata.insert("k".repeat(20), String::new());
    assert!(metadata_in_headers(&metadata).is_ok());
    let promise = Promise {
        content_type: "video/mp4".parse().unwrap(),
        size: PromisedSize::Exactly(ByteCount::LARGEST_OBJECT),
        md5: None,
        crc32c: Some("yZRlqg==".parse().unwrap()),
    };
    let initiation = Initiation {
        note: None,
        id: UploadId::new(Partition(0x3f), [7; 16]),
        bucket: &bucket,
        object: &object,
        promise: &promise,
        metadata: &metadata,
        cache_control: Some("private"),
        overwrite: Overwrite::Forbidden,
        origin: None,
    };
    let endpoint = Endpoint::new(&"https://storage.googleapis.com".parse().unwrap()).unwrap();
    for method in [SignedMethod::Put, SignedMethod::ResumableStart] {
        let request = Canonical {
            method: method.as_str(),
            origin: &endpoint.origin(),
            path: &endpoint.xml_path(&bucket, &object).unwrap(),
            query: &[],
            headers: &signed_headers(method, &initiation),
        };
        let signer = "a".repeat(30) + "@" + &"b".repeat(30) + ".iam.gserviceaccount.com";
        let unsigned = request.unsigned(&signer, Timestamp::from_secs(0), Duration::from_secs(900)).unwrap();
        let uri = unsigned.signed(&[0; 512]).unwrap();
        assert!(uri.expose().len() > 6500, "{}", uri.expose().len());
    }
}
