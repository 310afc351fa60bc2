//! Names, each of a type of its own: policies, regions, buckets, objects, files and media types.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;

/// Declares a checked, cheaply cloned text type whose constructor is `FromStr`.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path $(, of: $tidy:path)?) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                $(let text = $tidy(text);)?
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// The name of a policy: 1 to 63 characters of `a–z`, `0–9`, `-` and `_`.
    PolicyName,
    check_label
);
name_type!(
    /// The name of a region of this deployment, such as `europe-west1`: 1 to 63 characters of `a–z`, `0–9`, `-` and `_`.
    RegionName,
    check_label
);
name_type!(
    /// The name of a bucket, by the rules of storage (storage documentation, "Bucket naming guidelines").
    BucketName,
    check_bucket
);
name_type!(
    /// The name of an object: 1 to 1024 bytes of UTF-8 that storage accepts (storage documentation, "Object naming
    /// guidelines"). What a client may choose of it is bounded further where names are composed.
    ObjectName,
    check_object
);
name_type!(
    /// A client's own name for its file: 1 to 255 bytes of UTF-8 without `/`, `\` and control characters.
    FileName,
    check_file
);
name_type!(
    /// A media type such as `video/mp4` or `text/plain; charset=utf-8` (RFC 9110, section 8.3.1), kept as given but for
    /// blanks around it: these do not travel in a header (section 5.5), and so are no part of what is stored and compared.
    ContentType,
    check_content_type,
    of: without_outer_blanks
);

/// RFC 9110, section 5.5.
fn without_outer_blanks(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn require(holds: bool, reason: &str) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid::new(reason)) }
}

fn check_label(text: &str) -> Result<(), Invalid> {
    let characters =
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    require(
        (1..=63).contains(&text.len()) && characters,
        "a name has 1 to 63 characters of a to z, 0 to 9, \"-\" and \"_\"",
    )
}

fn check_bucket(text: &str) -> Result<(), Invalid> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    require((3..=222).contains(&bytes.len()), "a bucket name has 3 to 63 characters, 222 with dots")?;
    require(
        bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(byte)),
        "a bucket name has only a to z, 0 to 9, \"-\", \"_\" and \".\"",
    )?;
    require(edge(bytes.first()) && edge(bytes.last()), "a bucket name begins and ends with a letter or digit")?;
    require(
        text.split('.').all(|part| (1..=63).contains(&part.len())),
        "each dotted part of a bucket name has 1 to 63 characters",
    )?;
    require(text.parse::<std::net::Ipv4Addr>().is_err(), "a bucket name is not an IP address")
}

fn check_object(text: &str) -> Result<(), Invalid> {
    require((1..=1024).contains(&text.len()), "an object name has 1 to 1024 bytes")?;
    require(!text.contains(['\r', '\n']), "an object name has no line breaks")?;
    require(!matches!(text, "." | ".."), "an object cannot be named \".\" or \"..\"")?;
    require(
        !text.starts_with(".well-known/acme-challenge/"),
        "an object name cannot begin with \".well-known/acme-challenge/\"",
    )
}

fn check_file(text: &str) -> Result<(), Invalid> {
    require((1..=255).contains(&text.len()), "a file name has 1 to 255 bytes of UTF-8")?;
    require(
        !text.chars().any(|character| matches!(character, '/' | '\\') || character.is_control()),
        "a file name has no \"/\", no \"\\\" and no control characters",
    )
}

fn check_content_type(text: &str) -> Result<(), Invalid> {
    let invalid = "a content type has the form type/subtype, at most 255 printable ASCII characters";
    let token_character = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let token = |part: &str| !part.is_empty() && part.bytes().all(token_character);
    require(text.len() <= 255, invalid)?;
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    // No other white space: it could not stand in a header.
    let (kind, subtype) = essence.trim_end_matches(' ').split_once('/').ok_or_else(|| Invalid::new(invalid))?;
    require(token(kind) && token(subtype), invalid)?;
    require(parameters.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), invalid)
}

impl ContentType {
    /// What an upload has whose client named no type.
    pub const DEFAULT: &str = "application/octet-stream";

    /// `type/subtype` in lower case, without parameters: what policies are matched against.
    pub fn essence(&self) -> String {
        self.0.split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase()
    }
}

impl FileName {
    /// What follows the last dot, if something stands before it and something follows: `mp4` of `holiday.mp4`.
    pub fn extension(&self) -> Option<&str> {
        self.0.rsplit_once('.').filter(|(stem, extension)| !stem.is_empty() && !extension.is_empty()).map(|(_, e)| e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_name_takes_what_it_should_and_nothing_else() {
        fn fits<T: std::str::FromStr>(text: &str) -> bool {
            text.parse::<T>().is_ok()
        }
        let kilobyte = "k".repeat(1024);
        let long = "k".repeat(1025);
        for (name, holds) in [
            ("a policy", fits::<PolicyName>("videos-2_x")),
            ("a policy in upper case", !fits::<PolicyName>("Videos")),
            ("an empty policy", !fits::<PolicyName>("")),
            ("a region", fits::<RegionName>("europe-west1")),
            ("a bucket", fits::<BucketName>("media-eu")),
            ("a dotted bucket", fits::<BucketName>("media.example.com")),
            ("a bucket of two characters", !fits::<BucketName>("ab")),
            ("a bucket like an address", !fits::<BucketName>("10.0.0.1")),
            ("a bucket with an empty part", !fits::<BucketName>("a..b")),
            ("a bucket ending in a dash", !fits::<BucketName>("media-")),
            ("an object of 1024 bytes", fits::<ObjectName>(&kilobyte)),
            ("an object of 1025 bytes", !fits::<ObjectName>(&long)),
            ("an object named ..", !fits::<ObjectName>("..")),
            ("an object with a line break", !fits::<ObjectName>("a\nb")),
            ("an object for ACME", !fits::<ObjectName>(".well-known/acme-challenge/x")),
            ("a file", fits::<FileName>("Ferien 2026 ☀.mp4")),
            ("a file with a slash", !fits::<FileName>("a/b")),
            ("a file with a NUL", !fits::<FileName>("a\0b")),
            ("a file of 256 bytes", !fits::<FileName>(&"é".repeat(128))),
            ("a type", fits::<ContentType>("video/mp4")),
            ("a type with a parameter", fits::<ContentType>("text/plain; charset=utf-8")),
            ("a type without a subtype", !fits::<ContentType>("video")),
            ("a type with a line break", !fits::<ContentType>("video/mp4\r\nx: y")),
            ("a type with a line break in a parameter", !fits::<ContentType>("video/mp4;\r\nx: y")),
        ] {
            assert!(holds, "{name}");
        }
    }

    #[test]
    fn blanks_around_a_content_type_are_no_part_of_it() {
        for (given, kept) in [
            ("text/plain; ", "text/plain;"),
            (" text/plain\t", "text/plain"),
            ("text/plain ;  charset=utf-8", "text/plain ;  charset=utf-8"),
        ] {
            assert_eq!(given.parse::<ContentType>().unwrap().as_str(), kept, "{given:?}");
        }
        for given in
            [" ", "text/plain\n", "text/plain;\r\n ", "text/plain\n;a=b", "text/plain\t;a=b", "text/plain\u{2003};a=b"]
        {
            assert!(given.parse::<ContentType>().is_err(), "{given:?}");
        }
    }

    #[test]
    fn an_essence_is_lower_case_and_has_no_parameters() {
        let given: ContentType = "Text/Plain; charset=UTF-8".parse().unwrap();
        assert_eq!(given.essence(), "text/plain");
    }

    #[test]
    fn the_extension_is_what_follows_the_last_dot() {
        for (name, extension) in
            [("a.mp4", Some("mp4")), ("a.tar.gz", Some("gz")), (".profile", None), ("a.", None), ("a", None)]
        {
            assert_eq!(name.parse::<FileName>().unwrap().extension(), extension, "{name}");
        }
    }
}
