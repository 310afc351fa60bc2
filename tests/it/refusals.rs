//! Requests that cannot be granted: each answer names the field, or the limit, that is the reason.

use serde_json::{Value, json};

use crate::support::user::token;
use crate::support::{Broker, Settings};

/// An ordinary request with another value for one field.
fn with(field: &str, value: impl Into<Value>) -> Value {
    let mut body = json!({"filename": "a", "size_bytes": 1});
    body[field] = value.into();
    body
}

#[tokio::test]
async fn a_field_that_cannot_be_right_is_named() {
    let broker = Broker::start().await;
    let ada = broker.user("ada");
    let (md5, crc32c) = ("XUFAKrxLKna5cZ2REBfFkg==", "mnG7TA==");
    for (name, body, pointer) in [
        ("an MD5 of 15 bytes", with("md5", "AAAAAAAAAAAAAAAAAAAA"), "/md5"),
        ("an MD5 of 17 bytes", with("md5", "AAAAAAAAAAAAAAAAAAAAAAA="), "/md5"),
        ("an MD5 without padding", with("md5", md5.trim_end_matches('=')), "/md5"),
        ("an MD5 in the alphabet of URLs", with("md5", "______________________=="), "/md5"),
        ("an MD5 in hexadecimal", with("md5", "5d41402abc4b2a76b9719d911017c592"), "/md5"),
        ("an MD5 with a blank", with("md5", format!(" {md5}")), "/md5"),
        ("an MD5 with bits to spare", with("md5", "XUFAKrxLKna5cZ2REBfFkh=="), "/md5"),
        ("an empty MD5", with("md5", ""), "/md5"),
        ("a CRC32C where the MD5 goes", with("md5", crc32c), "/md5"),
        ("a CRC32C of 3 bytes", with("crc32c", "AAAA"), "/crc32c"),
        ("a CRC32C of 5 bytes", with("crc32c", "AAAAAAA="), "/crc32c"),
        ("a CRC32C as a number", with("crc32c", 0xE306_9283_u32), "/crc32c"),
        ("an MD5 where the CRC32C goes", with("crc32c", md5), "/crc32c"),
        ("one byte more than storage takes", with("size_bytes", 5_497_558_138_881_u64), "/size_bytes"),
        ("as many bytes as can be counted", with("size_bytes", u64::MAX), "/size_bytes"),
        ("a file name of 256 bytes", with("filename", "n".repeat(256)), "/filename"),
        ("a file name of 86 characters in 258 bytes", with("filename", "€".repeat(86)), "/filename"),
        ("a file name with a control character", with("filename", "a\u{7f}b"), "/filename"),
        ("a transfer that there is not", with("transfer_kind", "multipart"), "/transfer_kind"),
    ] {
        let refused = ada.create_from(body).await.is_problem(400, "invalid-request");
        assert_eq!(refused.text("/errors/0/pointer"), pointer, "{name}: {}", refused.body);
        assert!(refused.body["errors"].as_array().unwrap().len() == 1, "{name}: {}", refused.body);
    }
    for (name, body) in [
        ("a right MD5", with("md5", md5)),
        ("a right CRC32C", with("crc32c", crc32c)),
        ("a file name of 255 bytes", with("filename", "€".repeat(85))),
    ] {
        let created = ada.create_from(body).await;
        assert_eq!(created.status, 201, "{name}: {}", created.body);
    }
    assert_eq!(broker.storage.sessions(), 3, "none was opened for those that were refused");
}

#[tokio::test]
async fn what_a_policy_does_not_allow_is_named_by_its_limit() {
    let policies = "[[policies]]\nname = \"any\"\nobject = \"{claims.album}/{id}\"\nmax_active = 1\n";
    let broker = Broker::start_with(Settings { policies: policies.to_owned(), ..Settings::default() }).await;
    let with_album = |album: String| {
        let token = token("ada", broker.clock.now(), &[("album", json!(album))]);
        broker.user("ada").bearing(token)
    };
    // What follows the claim is a slash and 34 characters.
    let (short, long) = (with_album("a".repeat(900)), with_album("a".repeat(1024)));
    for (name, user, body, limit) in [
        ("a signed PUT", &short, with("transfer_kind", "simple"), "transfers"),
        ("a signed start", &short, with("transfer_kind", "signed_resumable"), "transfers"),
        ("a name of more than 1024 bytes", &long, with("size_bytes", 1), "object"),
        ("a name without the claim", &broker.user("ada"), with("size_bytes", 1), "object"),
        ("no size", &short, json!({"filename": "a"}), "size_bytes"),
    ] {
        let refused = user.create_from(body).await.is_problem(422, "policy-violation");
        let limits: Vec<_> = refused.body["violations"].as_array().unwrap().iter().map(|it| &it["limit"]).collect();
        assert_eq!(limits, [limit], "{name}");
    }
    assert_eq!(broker.storage.sessions(), 0);
    short.create(1).await.is(201);
}
