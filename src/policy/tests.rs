//! Decisions, policy by policy, and the settings that are refused.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::digest::{Crc32c, Md5};
use crate::model::id::Partition;
use crate::model::principal::PrincipalId;
use crate::model::size::ByteCount;
use crate::model::upload::{Overwrite, PromisedSize, TransferKind, UPLOAD_HINT};

const ID: UploadId = UploadId::new(Partition(1), [7; 16]);
const NOW: Timestamp = Timestamp::from_secs(1_772_841_600);

/// The `[[policies]]` sections of a configuration.
fn read(toml: &str) -> Vec<PolicySettings> {
    #[derive(serde::Deserialize)]
    struct Document {
        policies: Vec<PolicySettings>,
    }
    toml::from_str::<Document>(toml).unwrap_or_else(|error| panic!("{toml}: {error}")).policies
}

/// One policy that admits everybody, with these keys beside `name` and `object`.
fn policy(keys: &str) -> Policies {
    Policies::new(&read(&format!("[[policies]]\nname = \"p\"\nobject = \"up/{{id}}\"\n{keys}"))).unwrap()
}

fn principal(claims: Value) -> Principal {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    Principal {
        id: PrincipalId::of("https://issuer.example", None, "ada"),
        issuer: "https://issuer.example".into(),
        tenant: None,
        subject: "ada".into(),
        claims,
        admin: false,
        expires_at: NOW,
    }
}

fn request() -> NewUpload {
    NewUpload {
        policy: None,
        filename: "holiday.mp4".parse().unwrap(),
        content_type: "video/mp4".parse().unwrap(),
        size: Some(ByteCount(100)),
        md5: None,
        crc32c: None,
        metadata: BTreeMap::new(),
        transfer: TransferKind::Resumable,
    }
}

fn decide(policies: &Policies, request: &NewUpload) -> Result<Admission, Denial> {
    policies.decide(&principal(json!({})), request, ID, NOW)
}

/// The names of the limits that the answer says are broken.
fn broken(answer: Result<Admission, Denial>) -> Vec<&'static str> {
    match answer {
        Ok(_) => Vec::new(),
        Err(Denial::Violations(violations)) => violations.iter().map(|violation| violation.limit.as_str()).collect(),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn an_admission_says_all_that_the_upload_needs() {
    let policies = policy(
        r#"
        content_types = ["video/*"]
        max_size = "1MiB"
        session_lifetime = "2h"
        max_active = 5
        rate = "30/1m"
        daily_bytes = "50GiB"
        overwrite = true
        cache_control = "private, max-age=60"
        metadata = { source = "mobile" }
        regions = ["europe-west1"]
        "#,
    );
    let metadata = BTreeMap::from([("album".to_owned(), "summer".to_owned()), ("source".to_owned(), "x".to_owned())]);
    let request = NewUpload { metadata, crc32c: Some(Crc32c(7)), ..request() };
    let admission = decide(&policies, &request).unwrap();
    assert_eq!(admission.policy.as_str(), "p");
    assert_eq!(admission.object.as_str(), format!("up/{ID}"));
    assert_eq!(admission.promise.content_type, request.content_type);
    assert_eq!(admission.promise.size, PromisedSize::Exactly(ByteCount(100)));
    assert_eq!((admission.promise.md5, admission.promise.crc32c), (None, Some(Crc32c(7))));
    let expected = [("album", "summer"), ("source", "mobile")];
    assert!(admission.attributes.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(expected));
    assert_eq!(admission.attributes.cache_control.as_deref(), Some("private, max-age=60"));
    assert_eq!(admission.attributes.overwrite, Overwrite::Allowed);
    assert_eq!(admission.limits.max_active, Some(5));
    assert_eq!(admission.limits.rate, "30/1m".parse().ok());
    assert_eq!(admission.limits.daily_bytes, Some(ByteCount::gib(50)));
    assert_eq!(admission.enforcement, Enforcement::Enforce);
    assert_eq!(admission.session_lifetime, Duration::from_secs(7200));
    assert_eq!(admission.regions.as_deref(), Some(&["europe-west1".parse().unwrap()][..]));
    assert_eq!(admission.would_refuse, []);
}

#[test]
fn a_policy_without_keys_admits_everything_that_storage_takes() {
    let admission = decide(&policy(""), &request()).unwrap();
    assert_eq!(admission.attributes.overwrite, Overwrite::Forbidden);
    assert_eq!(admission.limits, Limits::default());
    assert_eq!(admission.session_lifetime, Duration::from_secs(86_400));
    assert_eq!((admission.attributes.cache_control, admission.regions), (None, None));
}

#[test]
fn each_limit_is_kept_to_the_byte() {
    let sized = |size| NewUpload { size, ..request() };
    let at = |size| sized(Some(ByteCount(size)));
    let typed = |text: &str| NewUpload { content_type: text.parse().unwrap(), ..request() };
    let md5 = NewUpload { md5: Some(Md5([0; 16])), ..request() };
    let crc32c = NewUpload { crc32c: Some(Crc32c(0)), ..request() };
    let moved = |transfer| NewUpload { transfer, ..request() };
    let noted = |key: &str| NewUpload { metadata: BTreeMap::from([(key.to_owned(), String::new())]), ..request() };
    let bounds = "min_size = 10\nmax_size = 1000";
    let largest = ByteCount::LARGEST_OBJECT.0;
    for (name, keys, request, expected) in [
        ("the smallest", bounds, at(10), &[][..]),
        ("one byte less", bounds, at(9), &["min_size"]),
        ("the largest", bounds, at(1000), &[]),
        ("one byte more", bounds, at(1001), &["max_size"]),
        ("nothing, where that is allowed", "", at(0), &[]),
        ("all that storage takes", "", at(largest), &[]),
        ("more than storage takes", "", at(largest + 1), &["max_size"]),
        ("more than storage takes is said once", bounds, at(largest + 1), &["max_size"]),
        ("the size is required", bounds, sized(None), &["size_bytes"]),
        ("the size may be unknown", "unknown_size = true", sized(None), &[]),
        ("the type", "content_types = [\"video/*\"]", typed("Video/MP4; codecs=x"), &[]),
        ("another type", "content_types = [\"video/*\"]", typed("image/png"), &["content_types"]),
        ("no digest is required", "", request(), &[]),
        ("a digest is required", "digest = \"required\"", request(), &["digest"]),
        ("MD5 will do", "digest = \"required\"", md5.clone(), &[]),
        ("CRC32C will do", "digest = \"required\"", crc32c.clone(), &[]),
        ("no MD5 is wanted", "digest = \"none\"", md5, &["digest"]),
        ("no CRC32C is wanted", "digest = \"none\"", crc32c, &["digest"]),
        ("none wanted, none given", "digest = \"none\"", request(), &[]),
        ("a signed PUT", "", moved(TransferKind::Simple), &["transfers"]),
        ("a signed start", "", moved(TransferKind::SignedResumable), &["transfers"]),
        ("a key of its own", "", noted("album"), &[]),
        ("the broker's key", "", noted(UPLOAD_HINT), &["metadata"]),
        ("a key in capitals", "metadata = { a = \"b\" }", noted("A"), &["metadata"]),
    ] {
        assert_eq!(broken(decide(&policy(keys), &request)), expected, "{name}");
    }
}

#[test]
fn all_violations_are_told_at_once_with_what_is_allowed() {
    let policies = Policies::new(&read(
        r#"
        [[policies]]
        name = "p"
        object = "{tenant}/{id}"
        content_types = ["video/*", "image/png"]
        max_size = 10
        digest = "required"
        "#,
    ))
    .unwrap();
    let request = NewUpload {
        content_type: "text/html".parse().unwrap(),
        transfer: TransferKind::Simple,
        metadata: BTreeMap::from([("K".to_owned(), String::new())]),
        ..request()
    };
    let Err(Denial::Violations(violations)) = decide(&policies, &request) else { panic!("admitted") };
    let told: Vec<_> = violations.iter().map(|v| (v.limit.as_str(), v.allowed.as_str(), v.given.as_str())).collect();
    assert_eq!(
        told[..4],
        [
            ("content_types", "video/*, image/png", "text/html"),
            ("max_size", "10", "100"),
            ("digest", "md5, crc32c or both", "none"),
            ("transfers", "resumable", "simple"),
        ]
    );
    assert_eq!(told[4], ("object", "callers whose token has {tenant}", "none"));
    assert_eq!(told[5].0, "metadata");
    assert!(told[5].2.contains("\"K\""), "{}", told[5].2);
    assert_eq!(told.len(), 6);
}

#[test]
fn an_unknown_size_is_bounded_by_the_policy() {
    let request = NewUpload { size: None, ..request() };
    for (keys, least, most, reserve) in [
        ("unknown_size = true\nmax_size = 1000", ByteCount::ZERO, ByteCount(1000), ByteCount(1000)),
        ("unknown_size = true\nmin_size = 10", ByteCount(10), ByteCount::LARGEST_OBJECT, ByteCount::LARGEST_OBJECT),
        // An object beyond the bounds would be deleted, and a policy that only reports refuses nothing.
        (
            "unknown_size = true\nmin_size = 10\nmax_size = 1000\nreport_only = true",
            ByteCount::ZERO,
            ByteCount::LARGEST_OBJECT,
            // What would be counted if it refused: what it reports would be of no use otherwise.
            ByteCount(1000),
        ),
    ] {
        let admission = decide(&policy(keys), &request).unwrap();
        assert_eq!(admission.promise.size, PromisedSize::Between { least, most }, "{keys}");
        assert_eq!(admission.reserve, reserve, "{keys}");
    }
}

#[test]
fn a_policy_that_only_reports_admits_and_says_what_it_would_refuse() {
    let policies = policy("report_only = true\ncontent_types = [\"video/*\"]\nmax_size = 10\ndigest = \"required\"");
    let html = NewUpload { content_type: "text/html".parse().unwrap(), ..request() };
    let admission = decide(&policies, &html).unwrap();
    assert_eq!(admission.enforcement, Enforcement::Report);
    let reported: Vec<_> = admission.would_refuse.iter().map(|violation| violation.limit).collect();
    assert_eq!(reported, [ViolatedLimit::ContentTypes, ViolatedLimit::MaxSize, ViolatedLimit::Digest]);
    assert_eq!(admission.promise.size, PromisedSize::Exactly(ByteCount(100)));
    // What cannot be done is refused all the same, and only that is given as the reason.
    let metadata = BTreeMap::from([("K".to_owned(), String::new())]);
    for (name, request, expected) in [
        ("too large for storage", NewUpload { size: Some(ByteCount(u64::MAX)), ..html.clone() }, "max_size"),
        ("a transfer that there is not", NewUpload { transfer: TransferKind::Simple, ..html.clone() }, "transfers"),
        ("metadata that storage does not take", NewUpload { metadata, ..html.clone() }, "metadata"),
    ] {
        assert_eq!(broken(decide(&policies, &request)), [expected], "{name}");
    }
    let unnamed = read("[[policies]]\nname = \"p\"\nobject = \"{tenant}/{id}\"\nreport_only = true");
    assert_eq!(broken(decide(&Policies::new(&unnamed).unwrap(), &request())), ["object"]);
}

fn by_role() -> Policies {
    Policies::new(&read(
        r#"
        [[policies]]
        name = "videos"
        when = '"creator" in claims.roles'
        object = "videos/{id}"
        [[policies]]
        name = "reports"
        when = '"auditor" in claims.roles'
        object = "reports/{id}"
        [[policies]]
        name = "deep"
        when = "claims.level > 3"
        object = "deep/{id}"
        "#,
    ))
    .unwrap()
}

#[test]
fn the_policy_is_the_one_named_or_the_only_one() {
    let policies = by_role();
    let candidates =
        |names: &[&str]| Denial::Ambiguous { candidates: names.iter().map(|name| name.parse().unwrap()).collect() };
    let creator = json!({"roles": ["creator"]});
    let both = json!({"roles": ["auditor", "creator"]});
    let all = json!({"roles": ["auditor", "creator"], "level": 4});
    for (name, claims, named, expected) in [
        ("the only one", creator.clone(), None, Ok("videos")),
        ("the one named", both.clone(), Some("reports"), Ok("reports")),
        ("one of two", both, None, Err(candidates(&["videos", "reports"]))),
        ("one of three", all, None, Err(candidates(&["videos", "reports", "deep"]))),
        ("named, but not for this caller", creator.clone(), Some("reports"), Err(Denial::NotAdmitted)),
        ("named, but there is none", creator, Some("nothing"), Err(Denial::NotAdmitted)),
        ("none at all", json!({"roles": []}), None, Err(Denial::NotAdmitted)),
        ("conditions that fail", json!({}), None, Err(Denial::NotAdmitted)),
        ("a condition that fails, by name", json!({"level": "4"}), Some("deep"), Err(Denial::NotAdmitted)),
    ] {
        let request = NewUpload { policy: named.map(|name: &str| name.parse().unwrap()), ..request() };
        let decided = policies.decide(&principal(claims), &request, ID, NOW);
        assert_eq!(decided.map(|admission| admission.policy), expected.map(|name| name.parse().unwrap()), "{name}");
    }
}

#[test]
fn the_policies_of_a_caller_come_in_configuration_order() {
    let policies = by_role();
    let caller = principal(json!({"roles": ["creator"], "level": 9}));
    let names: Vec<_> = policies.admitting(&caller).map(|policy| policy.name().as_str()).collect();
    assert_eq!(names, ["videos", "deep"]);
    assert_eq!(policies.get(&"reports".parse().unwrap()).unwrap().settings().object, "reports/{id}");
    assert!(policies.get(&"nothing".parse().unwrap()).is_none());
}

#[test]
fn settings_that_cannot_be_are_refused_by_key_and_reason() {
    for (name, keys, key, reason) in [
        ("bounds that cross", "min_size = 11\nmax_size = 10", "min_size", "more than max_size"),
        ("more than storage takes", "max_size = \"6TiB\"", "max_size", "5TiB"),
        ("a day too small for any", "min_size = 11\ndaily_bytes = 10", "daily_bytes", "min_size"),
        (
            "a day too small for an unknown size",
            "unknown_size = true\ndaily_bytes = \"1GiB\"",
            "daily_bytes",
            "unknown size",
        ),
        ("a short life", "session_lifetime = \"59s\"", "session_lifetime", "1m"),
        ("a long life", "session_lifetime = \"604801s\"", "session_lifetime", "7d"),
        ("no types", "content_types = []", "content_types", "empty"),
        ("no type", "content_types = [\"video\"]", "content_types", "\"video\""),
        ("none active", "max_active = 0", "max_active", "0"),
        ("more active than can be told", "max_active = 2147483648", "max_active", "2147483647"),
        ("more a day than can be told", "daily_bytes = \"4097TiB\"", "daily_bytes", "4096TiB"),
        ("no transfers", "transfers = []", "transfers", "empty"),
        ("transfers twice", "transfers = [\"resumable\", \"resumable\"]", "transfers", "twice"),
        ("no regions", "regions = []", "regions", "empty"),
        ("regions twice", "regions = [\"a\", \"a\"]", "regions", "twice"),
        ("the broker's metadata", "metadata = { upload-broker-id = \"x\" }", "metadata", "belongs to the broker"),
        ("metadata in capitals", "metadata = { Source = \"x\" }", "metadata", "\"Source\""),
        ("a header that ends", "cache_control = \"private\\r\\nx: y\"", "cache_control", "printable"),
        ("an empty header", "cache_control = \"\"", "cache_control", "printable"),
        ("no condition", "when = \"claims.level >\"", "when", "line 1"),
        ("a condition on nothing", "when = \"user.level > 1\"", "when", "\"user\""),
    ] {
        let sound = "[[policies]]\nname = \"a\"\nobject = \"{id}\"\n";
        let settings = read(&format!("{sound}[[policies]]\nname = \"b\"\nobject = \"{{id}}\"\n{keys}"));
        let error = Policies::new(&settings).map(drop).expect_err(name);
        assert_eq!((error.index, error.key), (1, key), "{name}");
        assert!(error.reason.contains(reason), "{name}: {error}");
        assert!(error.to_string().starts_with(&format!("policies[1].{key}: ")), "{name}: {error}");
    }
    for keys in [
        "session_lifetime = \"1m\"",
        "session_lifetime = \"7d\"",
        "min_size = 10\nmax_size = 10\ndaily_bytes = 10",
        "unknown_size = true\ntransfers = [\"resumable\", \"simple\"]\ndaily_bytes = \"8MiB\"",
    ] {
        policy(keys);
    }
}

#[test]
fn names_and_templates_are_refused_by_key_too() {
    for (name, toml, index, key) in [
        (
            "two of one name",
            "[[policies]]\nname = \"a\"\nobject = \"{id}\"\n[[policies]]\nname = \"a\"\nobject = \"{id}\"",
            1,
            "name",
        ),
        ("no id", "[[policies]]\nname = \"a\"\nobject = \"{sub}\"", 0, "object"),
        ("no such place", "[[policies]]\nname = \"a\"\nobject = \"{id}{user}\"", 0, "object"),
    ] {
        let error = Policies::new(&read(toml)).map(drop).expect_err(name);
        assert_eq!((error.index, error.key), (index, key), "{name}");
    }
    assert!(Policies::new(&read("[[policies]]\nname = \"a\"\nobject = \"{sub}\"\noverwrite = true")).is_ok());
}

#[test]
fn the_example_of_the_documentation_is_a_policy() {
    let policies = Policies::new(&read(
        r#"
        [[policies]]
        name = "videos"
        when = '"creator" in claims.roles'
        object = "videos/{sub}/{id}.{ext}"
        content_types = ["video/*"]
        min_size = 1
        max_size = "20GiB"
        unknown_size = false
        digest = "optional"
        session_lifetime = "24h"
        max_active = 5
        rate = "30/1m"
        daily_bytes = "50GiB"
        overwrite = false
        transfers = ["resumable"]
        cache_control = "private"
        metadata = { source = "mobile" }
        regions = ["europe-west1"]
        report_only = false
        "#,
    ))
    .unwrap();
    let admission = policies.decide(&principal(json!({"roles": ["creator"]})), &request(), ID, NOW).unwrap();
    assert_eq!(admission.object.as_str(), format!("videos/ada/{ID}.mp4"));
}
