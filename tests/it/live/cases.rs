//! What can be amiss around a broker, each by itself.

use std::time::Duration;

use serde_json::{Value, json};
use upload_broker::emulator::BucketSettings;
use upload_broker::emulator::journal::Operation;
use upload_broker::live::report::Status;
use upload_broker::live::report::Status::{Failed, Skipped, Warning};

use super::{edit, finalize, withhold};

/// What is otherwise than where all is well, and the rows that are not `ok` then.
pub struct Case {
    pub name: &'static str,
    pub zone: &'static str,
    pub bucket: fn(&mut BucketSettings),
    pub config: fn(String) -> String,
    pub notification: Option<Value>,
    pub redis: &'static [(&'static str, &'static str)],
    pub fault: Option<(Operation, u16)>,
    pub expected: &'static [(&'static str, Status, &'static str)],
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "all is well",
            zone: "europe-west1-b",
            bucket: |_| {},
            config: |text| text,
            notification: Some(finalize()),
            redis: &[],
            fault: None,
            expected: &[],
        }
    }
}

/// All of them, and that nothing is.
pub fn all() -> Vec<Case> {
    [places(), of_the_bucket(), servers()].into_iter().flatten().collect()
}

fn case(name: &'static str, expected: &'static [(&'static str, Status, &'static str)]) -> Case {
    Case { name, expected, ..Case::default() }
}

fn places() -> Vec<Case> {
    vec![
        Case::default(),
        Case { zone: "us-east1-c", ..case("elsewhere", &[("instance", Failed, "this machine is in us-east1")]) },
        Case {
            config: |text| edit(&text, "region = \"europe-west1\"", "region = \"auto\""),
            ..case("the machine's region", &[])
        },
        Case {
            zone: "asia-east1-a",
            config: |text| edit(&text, "region = \"europe-west1\"", "region = \"auto\""),
            ..case(
                "the machine in no region",
                &[("instance", Failed, "none of the [[regions]]"), ("bucket", Skipped, ""), ("signing", Skipped, "")],
            )
        },
        Case {
            config: |text| edit(&text, "name = \"us-east1\"", "name = \"us-eats1\"\nlocation = [33.2, -80.0]"),
            ..case(
                "a slip in a name",
                &[("regions", Warning, "us-eats1"), ("broker", Failed, "is the broker of us-east1")],
            )
        },
        Case {
            bucket: |bucket| bucket.location = "US-EAST1".into(),
            ..case("a bucket elsewhere", &[("location", Failed, "every byte makes a detour")])
        },
        Case { bucket: |bucket| bucket.location = "EU".into(), ..case("a multi-region", &[]) },
        Case {
            bucket: |bucket| bucket.placement = vec!["europe-west1-b".to_owned()],
            ..case("a bucket in a zone", &[("location", Failed, "no resumable sessions")])
        },
        Case {
            config: |text| edit(&text, "bucket = \"media-us\"", "bucket = \"media-eu\""),
            ..case("one bucket for two regions", &[("location", Failed, "us-east1 is not in there")])
        },
    ]
}

fn of_the_bucket() -> Vec<Case> {
    vec![
        Case {
            bucket: |bucket| withhold(bucket, "storage.objects.delete"),
            ..case("no deleting", &[("permissions", Failed, "rejected objects stay")])
        },
        Case {
            bucket: |bucket| withhold(bucket, "storage.buckets.get"),
            ..case(
                "the place alone can be seen",
                &[("cors", Warning, ""), ("retention", Skipped, ""), ("notifications", Warning, "cannot be seen")],
            )
        },
        Case {
            bucket: |bucket| bucket.cors.clear(),
            ..case("no rules for browsers", &[("cors", Failed, "has no rule for PUT")])
        },
        Case {
            bucket: |bucket| bucket.retention = Some(Duration::from_secs(3600)),
            ..case("retention", &[("retention", Warning, "rejected ones stay")])
        },
        Case {
            notification: Some(json!({"topic": "//pubsub.googleapis.com/projects/a/topics/t",
                                      "event_types": ["OBJECT_DELETE"]})),
            ..case("nobody is told", &[("notifications", Failed, "no config of the bucket")])
        },
        Case {
            notification: Some(json!({"topic": "//pubsub.googleapis.com/projects/a/topics/t",
                                      "object_name_prefix": "photos/"})),
            ..case("some are told", &[("notifications", Warning, "photos/")])
        },
        Case {
            fault: Some((Operation::Bucket, 404)),
            ..case(
                "no such bucket",
                &[("location", Failed, "no such bucket"), ("cors", Warning, ""), ("retention", Skipped, "")],
            )
        },
    ]
}

fn servers() -> Vec<Case> {
    vec![
        Case {
            fault: Some((Operation::SignBlob, 403)),
            ..case("nobody signs", &[("signing", Failed, "IAM Credentials refused to sign, with status 403")])
        },
        Case {
            redis: &[("maxmemory-policy", "allkeys-lru")],
            ..case("a store that forgets", &[("store", Failed, "Redis ")])
        },
        Case { redis: &[("save", "")], ..case("a store in memory only", &[("store", Warning, "Redis ")]) },
        Case {
            config: |text| edit(&text, "redis+unix://", "redis+unix:///nowhere"),
            ..case("no store", &[("store", Failed, "No such file")])
        },
        Case {
            config: |text| {
                edit(&text, "[[issuers]]\nissuer = \"https://localhost", "[[issuers]]\nissuer = \"https://127.0.0.1")
            },
            ..case("an issuer that is not trusted", &[("issuer", Failed, "cannot be reached")])
        },
        Case {
            config: |text| edit(&text, "\"\naudiences", "/other\"\naudiences"),
            ..case("a document of another issuer", &[("issuer", Failed, "that of another issuer")])
        },
        Case {
            config: |text| edit(&text, "algorithms = [\"ES256\"]", "algorithms = [\"ES256\", \"RS256\"]"),
            ..case("an algorithm without a key", &[("issuer", Warning, "none for RS256")])
        },
        Case {
            config: |text| edit(&text, "jwks_file = \"push.json\"", "jwks_url = \"https://localhost:1/keys\""),
            ..case("no keys of pushes", &[("push issuer", Failed, "cannot be reached")])
        },
        Case {
            config: |text| {
                edit(&text, "[[webhooks]]\nurl = \"https://localhost", "[[webhooks]]\nurl = \"https://127.0.0.1")
            },
            ..case("a receiver that is not trusted", &[("webhook", Failed, "invalid peer certificate")])
        },
        Case {
            config: |text| {
                edit(
                    &text,
                    "name = \"us-east1\"\nbucket = \"media-us\"\nurl = \"https://localhost",
                    "name = \"us-east1\"\nbucket = \"media-us\"\nurl = \"https://127.0.0.1",
                )
            },
            ..case("another region away", &[("broker", Warning, "https://127.0.0.1")])
        },
        Case {
            config: |text| edit(&text, "name = \"us-east1\"", "name = \"us-east4\""),
            ..case("another region's broker", &[("broker", Failed, "is the broker of us-east1")])
        },
        Case {
            config: |text| edit(&text, "public_url = \"https://eu.", "public_url = \"https://fr."),
            ..case("a certificate for another name", &[("certificate", Failed, "not for this name")])
        },
    ]
}
