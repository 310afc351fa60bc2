//! What a request is addressed to: its path and query, decoded once and told apart by kind.

/// The place that a path names. A further interface of storage, such as its XML API, would be further variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/upload/storage/v1/b/{bucket}/o`: initiations, session requests and simple uploads.
    Upload {
        bucket: String,
    },
    Buckets,
    Bucket {
        bucket: String,
    },
    Permissions {
        bucket: String,
    },
    Objects {
        bucket: String,
    },
    Object {
        bucket: String,
        object: String,
    },
    /// `/download/storage/v1/…`: the object's bytes, whatever `alt` says.
    Media {
        bucket: String,
        object: String,
    },
    Unknown,
}

impl Route {
    /// The place that `path` names; `None` when it is not percent-encoded UTF-8.
    pub(super) fn of(path: &str) -> Option<Self> {
        let segments: Vec<String> =
            path.split('/').skip(1).map(|segment| decode(segment, Plus::Plus)).collect::<Option<_>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let owned = str::to_owned;
        Some(match segments[..] {
            ["upload", "storage", "v1", "b", bucket, "o"]
            | ["resumable", "upload", "storage", "v1", "b", bucket, "o"] => Self::Upload { bucket: owned(bucket) },
            ["storage", "v1", "b"] => Self::Buckets,
            ["storage", "v1", "b", bucket] => Self::Bucket { bucket: owned(bucket) },
            ["storage", "v1", "b", bucket, "iam", "testPermissions"] => Self::Permissions { bucket: owned(bucket) },
            ["storage", "v1", "b", bucket, "o"] => Self::Objects { bucket: owned(bucket) },
            ["storage", "v1", "b", bucket, "o", object] => {
                Self::Object { bucket: owned(bucket), object: owned(object) }
            }
            ["download", "storage", "v1", "b", bucket, "o", object] => {
                Self::Media { bucket: owned(bucket), object: owned(object) }
            }
            _ => Self::Unknown,
        })
    }

    /// The bucket and, where the path names one, the object.
    pub(super) fn names(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Upload { bucket }
            | Self::Bucket { bucket }
            | Self::Permissions { bucket }
            | Self::Objects { bucket } => (Some(bucket), None),
            Self::Object { bucket, object } | Self::Media { bucket, object } => (Some(bucket), Some(object)),
            Self::Buckets | Self::Unknown => (None, None),
        }
    }
}

/// A decoded query, in the order given.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    /// The query as sent, less `upload_id`, which is a secret.
    raw: String,
}

impl Query {
    /// Decodes `raw`; `None` when it is not percent-encoded UTF-8.
    pub(super) fn of(raw: &str) -> Option<Self> {
        let mut query = Self::default();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name, Plus::Blank)?;
            if name != "upload_id" {
                if !query.raw.is_empty() {
                    query.raw.push('&');
                }
                query.raw.push_str(part);
            }
            query.pairs.push((name, decode(value, Plus::Blank)?));
        }
        Some(query)
    }

    /// The first value of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Every value of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The query as sent, without `upload_id`.
    pub(super) fn without_secret(&self) -> &str {
        &self.raw
    }
}

#[derive(Clone, Copy)]
enum Plus {
    /// In a path, a plus is a plus.
    Plus,
    /// In a query, it is a blank.
    Blank,
}

fn decode(text: &str, plus: Plus) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match (byte, plus) {
            (b'%', _) => {
                let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit()? << 4 | digit()?
            }
            (b'+', Plus::Blank) => b' ',
            (byte, _) => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart_and_decoded_once() {
        let bucket = || "media-eu".to_owned();
        for (path, expected) in [
            ("/upload/storage/v1/b/media-eu/o", Some(Route::Upload { bucket: bucket() })),
            ("/resumable/upload/storage/v1/b/media-eu/o", Some(Route::Upload { bucket: bucket() })),
            ("/storage/v1/b/media-eu", Some(Route::Bucket { bucket: bucket() })),
            ("/storage/v1/b/media-eu/o/a%2Fb+c", Some(Route::Object { bucket: bucket(), object: "a/b+c".into() })),
            ("/storage/v1/b/media-eu/o/a%252Fb", Some(Route::Object { bucket: bucket(), object: "a%2Fb".into() })),
            ("/storage/v1/b/media-eu/o/a/b", Some(Route::Unknown)),
            ("/storage/v1/b/media-eu/", Some(Route::Unknown)),
            ("/media-eu/object", Some(Route::Unknown)),
            ("/storage/v1/b/%FF", None),
            ("/storage/v1/b/%4", None),
            ("*", Some(Route::Unknown)),
        ] {
            assert_eq!(Route::of(path), expected, "{path}");
        }
    }

    #[test]
    fn a_query_keeps_its_text_but_not_its_secret() {
        let query = Query::of("name=a%2Fb+c&&upload_id=secret&flag&name=second").unwrap();
        assert_eq!(query.get("name"), Some("a/b c"));
        assert_eq!(query.all("name").count(), 2);
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.get("upload_id"), Some("secret"));
        assert_eq!(query.without_secret(), "name=a%2Fb+c&flag&name=second");
        assert!(Query::of("name=%zz").is_none());
        assert_eq!(Query::of("%75pload_id=secret").unwrap().without_secret(), "");
    }
}
