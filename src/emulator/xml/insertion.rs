//! What the headers of an initiation or a `PUT` ask for (storage documentation, "HTTP headers and common query string
//! parameters for XML").

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::super::attributes::Attributes;
use super::super::insertion::{Digests, Insertion, Interface, Preconditions};
use super::super::problem::Problem;
use super::super::range::number;
use crate::model::digest::Md5;

/// Headers with the fields of the object resource that they set.
const FIELDS: [(&str, &str); 7] = [
    ("content-type", "contentType"),
    ("content-encoding", "contentEncoding"),
    ("content-disposition", "contentDisposition"),
    ("content-language", "contentLanguage"),
    ("cache-control", "cacheControl"),
    ("x-goog-custom-time", "customTime"),
    ("x-goog-storage-class", "storageClass"),
];

const ACLS: [&str; 6] = [
    "private",
    "project-private",
    "public-read",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];

/// Reads all but the digests, which only a `PUT` has.
pub(super) fn read(name: &str, headers: &HeaderMap) -> Result<Insertion, Problem> {
    let name = name.parse().map_err(|why| Problem::invalid(format!("Invalid object name: {why}.")))?;
    let mut resource = Map::new();
    for (header, field) in FIELDS {
        if let Some(text) = text(headers, header)? {
            resource.insert(field.to_owned(), Value::String(text));
        }
    }
    let mut attributes = Attributes::default();
    attributes.apply(&resource)?;
    attributes.kms_key_name = text(headers, "x-goog-encryption-kms-key-name")?;
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix("x-goog-meta-")
            && let Some(value) = text(headers, header.as_str())?
        {
            attributes.metadata.insert(key.to_owned(), value);
        }
    }
    attributes.check_metadata()?;
    if let Some(acl) = text(headers, "x-goog-acl")?
        && !ACLS.contains(&acl.as_str())
    {
        return Err(Problem::invalid(format!("Invalid value for x-goog-acl: {acl:?}.")));
    }
    Ok(Insertion {
        name,
        attributes,
        digests: Digests::default(),
        preconditions: Preconditions::of_headers(headers)?,
        interface: Interface::Xml,
        sizes: sizes(headers)?,
        fields: None,
    })
}

/// The digests of a `PUT`: `Content-MD5` and `x-goog-hash`.
pub(super) fn digests(headers: &HeaderMap) -> Result<[Digests; 2], Problem> {
    let md5 = match text(headers, "content-md5")? {
        None => None,
        Some(text) => {
            let digest = STANDARD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok()).map(Md5);
            let message = "The Content-MD5 you specified was invalid.";
            let invalid = || Problem::xml(StatusCode::BAD_REQUEST, "InvalidDigest", message, text);
            Some(digest.ok_or_else(invalid)?)
        }
    };
    Ok([Digests { md5, crc32c: None }, Digests::of_headers(headers)?])
}

/// `x-goog-content-length-range: MIN,MAX`.
fn sizes(headers: &HeaderMap) -> Result<Option<RangeInclusive<u64>>, Problem> {
    let Some(text) = text(headers, "x-goog-content-length-range")? else { return Ok(None) };
    let bounds = text.split_once(',').and_then(|(least, most)| Some((number(least)?, number(most)?)));
    let bounds = bounds.filter(|(least, most)| least <= most);
    let invalid = || Problem::invalid(format!("Invalid value for x-goog-content-length-range: {text:?}."));
    bounds.map(|(least, most)| Some(least..=most)).ok_or_else(invalid)
}

/// A header's text, repeated ones joined as HTTP does; `None` when it is not there or empty.
fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut joined = String::new();
    for value in headers.get_all(name) {
        let value = std::str::from_utf8(value.as_bytes());
        let value = value.map_err(|_| Problem::invalid(format!("Invalid value for {name}.")))?;
        joined.push_str(if joined.is_empty() { "" } else { "," });
        joined.push_str(value);
    }
    Ok(Some(joined).filter(|joined| !joined.is_empty()))
}
