//! What an initiation or a simple upload asks for: the object's name, its attributes, and under which conditions it may
//! come to be (storage documentation, "Objects: insert").

use std::ops::RangeInclusive;

use hyper::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::attributes::Attributes;
use super::content::Sealed;
use super::fields;
use super::problem::Problem;
use super::target::Query;
use crate::model::digest::{Crc32c, Md5};
use crate::model::name::ObjectName;

/// Which of storage's interfaces something came by: it decides what answers look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    Json,
    Xml,
}

/// An object that is to be.
#[derive(Debug)]
pub(super) struct Insertion {
    pub(super) name: ObjectName,
    pub(super) attributes: Attributes,
    pub(super) digests: Digests,
    pub(super) preconditions: Preconditions,
    pub(super) interface: Interface,
    /// How large the object may be, as `x-goog-content-length-range` has it.
    pub(super) sizes: Option<RangeInclusive<u64>>,
    /// The `fields` of the initiation, which also shape the last answer.
    pub(super) fields: Option<Box<str>>,
}

impl Insertion {
    /// Composes it from the query, which wins, the resource in the body, and the media type of the bytes as headers
    /// have it. Fields of the resource that mean nothing here are ignored.
    pub(super) fn new(query: &Query, resource: &Map<String, Value>, media_type: Option<&str>) -> Result<Self, Problem> {
        let name = match (query.get("name"), resource.get("name")) {
            (Some(name), _) => name,
            (None, Some(Value::String(name))) => name,
            (None, Some(_)) => return Err(Problem::invalid("The object name must be text.")),
            (None, None) => return Err(Problem::required("Required parameter: name")),
        };
        let name = name.parse().map_err(|invalid| Problem::invalid(format!("Invalid object name: {invalid}.")))?;
        if resource.contains_key("kmsKeyName") {
            return Err(Problem::invalid("kmsKeyName is a query parameter, not a field of the resource."));
        }
        if let Some(acl) = query.get("predefinedAcl")
            && !PREDEFINED_ACLS.contains(&acl)
        {
            return Err(Problem::invalid(format!("Invalid value for predefinedAcl: {acl:?}.")));
        }
        if fields::select(Value::Null, query.get("fields")).is_none() {
            return Err(Problem::invalid("Invalid field selection."));
        }
        let mut attributes = Attributes::default();
        attributes.apply(resource)?;
        if attributes.content_type.is_none() {
            attributes.content_type = media_type.map(str::to_owned);
        }
        if let Some(encoding) = query.get("contentEncoding") {
            attributes.content_encoding = Some(encoding.to_owned());
        }
        attributes.kms_key_name = query.get("kmsKeyName").map(str::to_owned);
        Ok(Self {
            name,
            attributes,
            digests: Digests::of_resource(resource)?,
            preconditions: Preconditions::of(query)?,
            interface: Interface::Json,
            sizes: None,
            fields: query.get("fields").map(Into::into),
        })
    }
}

const PREDEFINED_ACLS: [&str; 6] =
    ["authenticatedRead", "bucketOwnerFullControl", "bucketOwnerRead", "private", "projectPrivate", "publicRead"];

/// Digests that the content must have.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) md5: Option<Md5>,
    pub(super) crc32c: Option<Crc32c>,
}

impl Digests {
    fn of_resource(resource: &Map<String, Value>) -> Result<Self, Problem> {
        fn read<T: std::str::FromStr<Err = crate::model::Invalid>>(
            resource: &Map<String, Value>,
            field: &str,
        ) -> Result<Option<T>, Problem> {
            match resource.get(field) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => {
                    text.parse().map(Some).map_err(|invalid| Problem::invalid(format!("{field}: {invalid}.")))
                }
                Some(_) => Err(Problem::invalid(format!("{field} must be text."))),
            }
        }
        Ok(Self { md5: read(resource, "md5Hash")?, crc32c: read(resource, "crc32c")? })
    }

    /// Reads `X-Goog-Hash: crc32c=…,md5=…`, also spread over several headers. A blank after the comma is refused, so
    /// that no client comes to rely on it.
    pub(super) fn of_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut digests = Self::default();
        for value in headers.get_all("x-goog-hash") {
            let value = value.to_str().map_err(|_| Problem::invalid("Invalid X-Goog-Hash header."))?;
            for part in value.split(',') {
                let invalid =
                    |why: crate::model::Invalid| Problem::invalid(format!("Invalid X-Goog-Hash header: {why}."));
                match part.split_once('=') {
                    Some(("md5", digest)) => digests.md5 = Some(digest.parse().map_err(invalid)?),
                    Some(("crc32c", digest)) => digests.crc32c = Some(digest.parse().map_err(invalid)?),
                    _ => return Err(Problem::invalid("Invalid X-Goog-Hash header: expected crc32c=… or md5=….")),
                }
            }
        }
        Ok(digests)
    }

    /// Compares with what arrived.
    pub(super) fn check(&self, content: &Sealed) -> Result<(), Problem> {
        if let Some(expected) = self.crc32c
            && expected != content.crc32c
        {
            return Err(Problem::digest("CRC32C", &expected, &content.crc32c));
        }
        match self.md5 {
            Some(expected) if expected != content.md5 => Err(Problem::digest("MD5", &expected, &content.md5)),
            _ => Ok(()),
        }
    }
}

/// Refuses an object that is larger or smaller than it may be.
pub(super) fn check_size(sizes: Option<&RangeInclusive<u64>>, size: u64) -> Result<(), Problem> {
    let (code, message) = match sizes {
        Some(sizes) if size > *sizes.end() => ("EntityTooLarge", "Your proposed upload is larger than it may be."),
        Some(sizes) if size < *sizes.start() => ("EntityTooSmall", "Your proposed upload is smaller than it may be."),
        _ => return Ok(()),
    };
    Err(Problem::xml(StatusCode::BAD_REQUEST, code, message, format!("The object has {size} bytes.")))
}

/// What must hold of the live object of that name, as in the query.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preconditions {
    generation: Option<i64>,
    not_generation: Option<i64>,
    metageneration: Option<i64>,
    not_metageneration: Option<i64>,
}

/// A precondition that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmet {
    /// One of the `…Match` forms.
    Match,
    /// One of the `…NotMatch` forms: a read is then answered 304.
    NotMatch,
}

impl Preconditions {
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
        let read = |name: &str| match query.get(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Problem::invalid(format!("Invalid value for {name}: {text:?} is not a 64-bit integer."))),
        };
        Ok(Self {
            generation: read("ifGenerationMatch")?,
            not_generation: read("ifGenerationNotMatch")?,
            metageneration: read("ifMetagenerationMatch")?,
            not_metageneration: read("ifMetagenerationNotMatch")?,
        })
    }

    /// Reads the headers of the XML API, which has no `…NotMatch` forms.
    pub(super) fn of_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let read = |name: &str| match headers.get(name) {
            None => Ok(None),
            Some(value) => {
                let number = value.to_str().ok().and_then(|text| text.parse().ok());
                number.map(Some).ok_or_else(|| Problem::invalid(format!("Invalid value for {name}.")))
            }
        };
        Ok(Self {
            generation: read("x-goog-if-generation-match")?,
            metageneration: read("x-goog-if-metageneration-match")?,
            ..Self::default()
        })
    }

    /// Checks against the live object's generation and metageneration. The generation of an object that does not exist
    /// is 0; its metageneration equals nothing.
    pub(super) fn check(&self, live: Option<(i64, i64)>) -> Result<(), Unmet> {
        let generation = live.map_or(0, |(generation, _)| generation);
        let metageneration = live.map(|(_, metageneration)| metageneration);
        if self.generation.is_some_and(|expected| expected != generation)
            || self.metageneration.is_some_and(|expected| Some(expected) != metageneration)
        {
            return Err(Unmet::Match);
        }
        if self.not_generation == Some(generation)
            || (self.not_metageneration.is_some() && self.not_metageneration == metageneration)
        {
            return Err(Unmet::NotMatch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_are_those_of_the_documentation() {
        let live = Some((7, 2));
        for (query, live, expected) in [
            ("", None, Ok(())),
            ("ifGenerationMatch=0", None, Ok(())),
            ("ifGenerationMatch=0", live, Err(Unmet::Match)),
            ("ifGenerationMatch=7", live, Ok(())),
            ("ifGenerationMatch=8", live, Err(Unmet::Match)),
            ("ifGenerationMatch=7", None, Err(Unmet::Match)),
            ("ifGenerationNotMatch=0", None, Err(Unmet::NotMatch)),
            ("ifGenerationNotMatch=0", live, Ok(())),
            ("ifGenerationNotMatch=7", live, Err(Unmet::NotMatch)),
            ("ifMetagenerationMatch=2", live, Ok(())),
            ("ifMetagenerationMatch=1", live, Err(Unmet::Match)),
            ("ifMetagenerationMatch=1", None, Err(Unmet::Match)),
            ("ifMetagenerationNotMatch=2", live, Err(Unmet::NotMatch)),
            ("ifMetagenerationNotMatch=2", None, Ok(())),
        ] {
            let preconditions = Preconditions::of(&Query::of(query).unwrap()).unwrap();
            assert_eq!(preconditions.check(live), expected, "{query} {live:?}");
        }
        assert!(Preconditions::of(&Query::of("ifGenerationMatch=x").unwrap()).is_err());
    }

    #[test]
    fn hash_headers_are_read_strictly() {
        let both = Digests { crc32c: "yZRlqg==".parse().ok(), md5: "XrY7u+Ae7tCTyyK7j1rNww==".parse().ok() };
        for (values, expected) in [
            (&[][..], Some(Digests::default())),
            (&["crc32c=yZRlqg==,md5=XrY7u+Ae7tCTyyK7j1rNww=="], Some(both)),
            (&["md5=XrY7u+Ae7tCTyyK7j1rNww==", "crc32c=yZRlqg=="], Some(both)),
            (&["crc32c=yZRlqg==, md5=XrY7u+Ae7tCTyyK7j1rNww=="], None),
            (&["crc32c=yZRlqg"], None),
            (&["sha256=yZRlqg=="], None),
            (&[""], None),
        ] {
            let headers: HeaderMap = values
                .iter()
                .map(|value| (hyper::http::HeaderName::from_static("x-goog-hash"), value.parse().unwrap()))
                .collect();
            assert_eq!(Digests::of_headers(&headers).ok(), expected, "{values:?}");
        }
    }
}
