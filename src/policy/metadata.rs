//! The custom metadata of an object: what storage takes, and what the broker keeps for itself.

use std::collections::BTreeMap;

use crate::model::Invalid;
use crate::model::id::UploadId;
use crate::model::upload::{MAX_METADATA_BYTES, UPLOAD_HINT, UPLOAD_NOTE};

/// The bounds that storage sets, in bytes (storage RPC interface, `ServiceConstants`: `MAX_CUSTOM_METADATA_FIELD_NAME_BYTES`,
/// `MAX_CUSTOM_METADATA_FIELD_VALUE_BYTES`).
const MAX_KEY: usize = 1024;
const MAX_VALUE: usize = 4096;
/// Of storage's 8 KiB, what is left beside the broker's own entry. Its note is left out where it does not fit.
const MAX_TOTAL: usize = MAX_METADATA_BYTES - UPLOAD_HINT.len() - UploadId::TEXT_LEN;

/// Checks metadata from a configuration or a client.
///
/// Keys are the rest of the header name `x-goog-meta-…`, which storage lower-cases where it serves them.
pub(super) fn check(metadata: &BTreeMap<String, String>) -> Result<(), Invalid> {
    for (key, value) in metadata {
        let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(token) {
            let shown: String = key.escape_debug().take(64).collect();
            return Err(Invalid::new(format!(
                "the key \"{shown}\" is not 1 to {MAX_KEY} characters of a to z, 0 to 9 and !#$%&'*+-.^_`|~"
            )));
        }
        let shown: String = key.chars().take(64).collect();
        if key == UPLOAD_HINT || key == UPLOAD_NOTE {
            return Err(Invalid::new(format!("the key \"{key}\" belongs to the broker")));
        }
        if value.len() > MAX_VALUE {
            return Err(Invalid::new(format!("the value of \"{shown}\" has more than {MAX_VALUE} bytes")));
        }
        // It is served as a header.
        if value.chars().any(char::is_control) {
            return Err(Invalid::new(format!("the value of \"{shown}\" has control characters")));
        }
    }
    let total: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if total > MAX_TOTAL {
        return Err(Invalid::new(format!("keys and values have {total} bytes in all, more than {MAX_TOTAL}")));
    }
    Ok(())
}

/// What the object gets: the policy's entries, and those of the client's that the policy does not set.
pub(super) fn merge(
    policy: &BTreeMap<String, String>,
    client: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    // Checked apart, so that a client's entry is told off even where the policy's takes its place.
    check(client)?;
    if policy.is_empty() {
        return Ok(client.clone());
    }
    let mut merged = client.clone();
    merged.extend(policy.iter().map(|(key, value)| (key.clone(), value.clone())));
    check(&merged).map(|()| merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn metadata_is_held_to_the_bounds_of_storage() {
        let (key, long_key) = ("k".repeat(1024), "k".repeat(1025));
        let (value, long_value) = ("v".repeat(4096), "v".repeat(4097));
        let rest = "v".repeat(MAX_TOTAL - 4097 - 1);
        let too_much = "v".repeat(MAX_TOTAL - 4097);
        for (name, entries, accepted) in [
            ("nothing", &[][..], true),
            ("plain", &[("album", "summer ☀")], true),
            ("an empty value", &[("album", "")], true),
            ("the longest key", &[(&key, "")], true),
            ("too long a key", &[(&long_key, "")], false),
            ("the longest value", &[("k", &value)], true),
            ("too long a value", &[("k", &long_value)], false),
            ("all that fits beside the broker's own", &[("a", &value), ("b", &rest)], true),
            ("one byte more", &[("a", &value), ("b", &too_much)], false),
            ("an empty key", &[("", "v")], false),
            ("a key in capitals", &[("Album", "v")], false),
            ("a key with a space", &[("my album", "v")], false),
            ("a key with a line break", &[("a\r\nb", "v")], false),
            ("a key beyond ASCII", &[("größe", "v")], false),
            ("a value with a line break", &[("k", "a\r\nx-goog-acl: public-read")], false),
            ("the broker's own key", &[("upload-broker-id", "v")], false),
        ] {
            assert_eq!(check(&metadata(entries)).is_ok(), accepted, "{name}");
        }
    }

    #[test]
    fn the_entries_of_the_policy_win() {
        let policy = metadata(&[("source", "mobile")]);
        let merged = merge(&policy, &metadata(&[("source", "forged"), ("album", "summer")]));
        assert_eq!(merged, Ok(metadata(&[("source", "mobile"), ("album", "summer")])));
        let fits = metadata(&[("a", &"v".repeat(4000)), ("b", &"v".repeat(4000))]);
        assert!(check(&fits).is_ok());
        assert!(merge(&metadata(&[("c", &"v".repeat(200))]), &fits).is_err(), "the total counts after merging");
    }
}
