//! The examples of the OpenAPI document: of each operation's bodies here, and of each kind of problem in `problem`.
//!
//! A linter holds them to the schemas. An operation that is added needs its bodies here, which a test asks for.

use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr};

use super::problem::Code;

const ID: &str = "3f9a0c51e2b7d84f6011c3a5e79b2d40f8";

/// A body: its name, what it shows, and itself.
type Named = (&'static str, &'static str, Value);

/// Adds the examples to all operations, and those of problems as components that operations refer to.
pub(super) fn add(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    for code in Code::ALL {
        let example = ExampleBuilder::new().summary(code.title()).value(Some(code.example()));
        components.examples.insert(code.as_str().to_owned(), example.build().into());
    }
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            add_to(operation);
        }
    }
}

fn add_to(operation: &mut Operation) {
    let id = operation.operation_id.clone().unwrap_or_default();
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for (kind, content) in &mut body.content {
            insert(content, requests(&id, kind));
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        for (kind, content) in &mut response.content {
            match &kind[..] {
                "application/json" => insert(content, answers(&id)),
                "application/problem+json" => {
                    let RefOr::T(content) = content else { continue };
                    for code in codes(&response.description) {
                        let reference = Ref::new(format!("#/components/examples/{}", code.as_str()));
                        content.examples.insert(code.as_str().to_owned(), RefOr::Ref(reference));
                    }
                }
                _ => {}
            }
        }
    }
}

fn insert(content: &mut RefOr<Content>, examples: Vec<Named>) {
    let RefOr::T(content) = content else { return };
    for (name, summary, value) in examples {
        let example = ExampleBuilder::new().summary(summary).value(Some(value)).build();
        content.examples.insert(name.to_owned(), example.into());
    }
}

/// The codes that the description of a response names.
fn codes(description: &str) -> impl Iterator<Item = Code> {
    description
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|word| Code::ALL.into_iter().find(|code| code.as_str() == word))
}

/// What an operation is asked with.
fn requests(operation: &str, media_type: &str) -> Vec<Named> {
    match (operation, media_type) {
        ("createUpload", _) => vec![
            (
                "video",
                "A video, with its digest",
                json!({"policy": "videos", "filename": "holiday.mp4", "content_type": "video/mp4",
                       "size_bytes": 73_400_320, "crc32c": "yZRlqg==", "metadata": {"album": "summer"}}),
            ),
            (
                "smallest",
                "What cannot be left out where one policy admits the caller",
                json!({"filename": "notes.txt", "size_bytes": 0}),
            ),
            (
                "simple",
                "A small file that goes in one signed request",
                json!({"filename": "photo.jpg", "content_type": "image/jpeg", "size_bytes": 204_800,
                       "transfer_kind": "simple"}),
            ),
        ],
        ("receiveStorageNotification", "application/json") => vec![(
            "pubsub",
            "A wrapped message of a Pub/Sub push subscription",
            json!({"subscription": "projects/acme/subscriptions/uploads", "message": {"messageId": "13370042",
                   "publishTime": "2026-11-22T10:03:00.000Z", "attributes": {"eventType": "OBJECT_FINALIZE",
                   "bucketId": "media-eu", "objectId": "videos/u-17/3f9a0c51e2b7d84f6011c3a5e79b2d40f8.mp4",
                   "objectGeneration": "1763805600123456", "payloadFormat": "NONE"}}}),
        )],
        ("receiveStorageNotification", _) => vec![(
            "cloudevent",
            "A CloudEvent of an Eventarc trigger",
            json!({"specversion": "1.0", "id": "13370042", "type": "google.cloud.storage.object.v1.finalized",
                   "source": "//storage.googleapis.com/projects/_/buckets/media-eu",
                   "subject": "objects/videos/u-17/3f9a0c51e2b7d84f6011c3a5e79b2d40f8.mp4",
                   "datacontenttype": "application/json",
                   "data": {"bucket": "media-eu", "name": "videos/u-17/3f9a0c51e2b7d84f6011c3a5e79b2d40f8.mp4",
                            "generation": "1763805600123456"}}),
        )],
        _ => Vec::new(),
    }
}

/// What a successful operation answers.
fn answers(operation: &str) -> Vec<Named> {
    let page = |uploads: Value| json!({"uploads": uploads, "next_cursor": "AZp8Zu0Avhxi0ZbGQoKzYhr2n9tnEg"});
    match operation {
        "createUpload" => vec![
            ("resumable", "A session that takes chunks", pending(&session())),
            ("simple", "A signed URL that takes one request", pending(&signed())),
        ],
        "listUploads" => {
            vec![("page", "Two uploads, and where the next page begins", page(json!([uploading(), completed()])))]
        }
        "getUpload" => vec![
            ("uploading", "Some bytes are there", uploading()),
            ("completed", "Storage has the object, and it is what was declared", completed()),
            ("rejected", "The object was not what was declared, and is deleted", rejected()),
        ],
        "completeUpload" => vec![
            ("completed", "Storage has the object, and it is what was declared", completed()),
            ("rejected", "The object was not what was declared, and is deleted", rejected()),
        ],
        "renewUpload" => vec![
            ("renewed", "Another session: begin at byte 0", pending(&session())),
            ("completed", "The old session had finished", completed()),
        ],
        "cancelUpload" => vec![("cancelled", "It is over", ended("cancelled"))],
        "listPolicies" => {
            vec![("policies", "One policy, with what is left of its limits", json!({"policies": [policy()]}))]
        }
        "route" => vec![(
            "regions",
            "For a client in Belgium",
            json!({"region": "europe-west1", "located_by": "header", "country": "BE", "regions": [
                {"name": "europe-west1", "url": "https://eu.uploads.example.com", "distance_km": 70, "healthy": true},
                {"name": "us-east4", "url": "https://us.uploads.example.com", "distance_km": 6210, "healthy": true},
            ]}),
        )],
        "adminListUploads" => {
            vec![("page", "Somebody's upload", page(json!([with(uploading_of_another(), "owner", owner())])))]
        }
        "adminGetUpload" => vec![("upload", "Somebody's upload", with(uploading_of_another(), "owner", owner()))],
        "adminCancelUpload" => vec![("cancelled", "It is over", with(ended("cancelled"), "owner", owner()))],
        "adminUsage" => usage(),
        "adminListWebhooks" => vec![(
            "webhooks",
            "One endpoint, told of two kinds of events",
            json!({"webhooks": [{"name": "backend.example.com", "url_host": "backend.example.com",
                   "events": ["upload.completed", "upload.rejected"]}]}),
        )],
        "adminListParkedDeliveries" => vec![(
            "parked",
            "One delivery that was given up",
            json!({"deliveries": [{"event_id": format!("evt_{ID}"), "upload_id": ID, "type": "upload.completed",
                   "parked_at": "2026-11-22T10:03:00.000Z", "attempts": 14, "last_error": "answered 503"}]}),
        )],
        "adminReplayAllDeliveries" => {
            vec![("replayed", "All are due again", json!({"replayed": 3, "remaining": false}))]
        }
        _ => Vec::new(),
    }
}

fn with(mut upload: Value, field: &str, value: Value) -> Value {
    upload[field] = value;
    upload
}

fn upload(state: &str, received: u64) -> Value {
    json!({"id": ID, "state": state, "policy": "videos", "region": "europe-west1", "bucket": "media-eu",
           "object": format!("videos/u-17/{ID}.mp4"), "content_type": "video/mp4", "size_bytes": 73_400_320,
           "received_bytes": received, "created_at": "2026-11-22T10:00:00.000Z",
           "expires_at": "2026-11-23T10:00:00.000Z", "routing": {"served_by": "europe-west1"}})
}

fn pending(transfer: &Value) -> Value {
    with(upload("pending", 0), "transfer", transfer.clone())
}

fn uploading_of_another() -> Value {
    upload("uploading", 16_777_216)
}

fn uploading() -> Value {
    with(uploading_of_another(), "transfer", session())
}

fn completed() -> Value {
    let result = json!({"generation": "1763805600123456", "size_bytes": 73_400_320, "md5": "XrY7u+Ae7tCTyyK7j1rNww==",
                        "crc32c": "yZRlqg==", "completed_at": "2026-11-22T10:03:00.000Z", "evidence": "client"});
    with(upload("completed", 73_400_320), "result", result)
}

fn rejected() -> Value {
    let rejection = json!({"code": "digest-mismatch", "detail": "the CRC32C is another one than declared"});
    with(upload("rejected", 73_400_320), "rejection", rejection)
}

fn ended(state: &str) -> Value {
    upload(state, 16_777_216)
}

fn session() -> Value {
    json!({"kind": "resumable", "method": "PUT", "headers": {"content-type": "video/mp4"},
           "uri": "https://storage.googleapis.com/upload/storage/v1/b/media-eu/o?uploadType=resumable&upload_id=ABgVH8-example",
           "chunk_multiple_bytes": 262_144, "chunk_bytes": 8_388_608, "expires_at": "2026-11-23T10:00:00.000Z"})
}

fn signed() -> Value {
    json!({"kind": "simple", "method": "PUT", "headers": {"content-type": "video/mp4", "x-goog-if-generation-match": "0"},
           "uri": "https://storage.googleapis.com/media-eu/videos/u-17/3f9a0c51e2b7d84f6011c3a5e79b2d40f8.mp4?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature=example",
           "expires_at": "2026-11-22T10:15:00.000Z"})
}

fn owner() -> Value {
    json!({"principal": "3f1b0f7c9a52de6430b8c1e7d2a94f05", "issuer": "https://securetoken.google.com/acme",
           "subject": "u-17"})
}

fn policy() -> Value {
    json!({"name": "videos", "content_types": ["video/*"], "min_size_bytes": 1, "max_size_bytes": 21_474_836_480_u64,
           "unknown_size": false, "digest": "optional", "transfers": ["resumable", "simple"],
           "simple_max_size_bytes": 8_388_608, "session_lifetime_seconds": 86_400, "active": 2, "max_active": 5,
           "rate": "30/1m", "rate_left": 28, "bytes_today": 146_800_640, "daily_bytes": 53_687_091_200_u64,
           "daily_bytes_left": 53_540_290_560_u64, "regions": ["europe-west1"]})
}

fn usage() -> Vec<Named> {
    let row = |row: Value| json!({"rows": [row]});
    vec![
        (
            "principal",
            "`by=principal`",
            row(
                json!({"principal": "3f1b0f7c9a52de6430b8c1e7d2a94f05", "issuer": "https://securetoken.google.com/acme",
                       "subject": "u-17", "policy": "videos", "active": 2, "bytes_today": 146_800_640, "max_active": 5,
                       "daily_bytes": 53_687_091_200_u64, "rate_left": 28}),
            ),
        ),
        (
            "tenant",
            "`by=tenant`",
            row(
                json!({"issuer": "https://securetoken.google.com/acme", "tenant": "north", "principals": 12, "active": 17,
                       "bytes_today": 9_663_676_416_u64}),
            ),
        ),
        (
            "policy",
            "`by=policy`",
            row(json!({"policy": "videos", "principals": 230, "active": 311, "bytes_today": 536_870_912_000_u64})),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_a_description_are_found_among_its_other_words() {
        let found = |description| codes(description).map(Code::as_str).collect::<Vec<_>>();
        assert_eq!(found("`not-found`: there is no such webhook"), ["not-found"]);
        assert_eq!(found("`forbidden`: not `upload`; `https-required`"), ["forbidden", "https-required"]);
        assert_eq!(found("no code"), [""; 0]);
    }
}
