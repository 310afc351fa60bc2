//! What a request is addressed to: its host, path and query, decoded once and told apart by kind.

use super::accounts::Deed;

/// The place that a request is for.
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
    /// `…/b/{bucket}/storageLayout`: where the bucket is.
    Layout {
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
    /// `/{bucket}` or `/{bucket}/` of the XML API.
    XmlBucket {
        bucket: String,
    },
    /// `/{bucket}/{object}` of the XML API, where slashes of the object's name stay as they are; or `/{object}` on a host
    /// that names the bucket.
    XmlObject {
        bucket: String,
        object: String,
    },
    NotificationConfigs {
        bucket: String,
    },
    NotificationConfig {
        bucket: String,
        id: String,
    },
    /// `/oauth2/v3/certs`: the public keys that check the tokens of pushes.
    SigningKeys,
    /// `/.well-known/openid-configuration`: where these are.
    Discovery,
    /// `/token`: where service accounts and people's logins get access tokens.
    Token,
    /// `/v1/projects/-/serviceAccounts/{account}:{deed}` of IAM Credentials.
    Account {
        account: String,
        deed: Deed,
    },
    Unknown,
}

/// What the other interfaces begin with. A bucket of such a name is out of the XML API's reach here.
const RESERVED: [&str; 5] = ["storage", "upload", "download", "resumable", "batch"];

/// A host below one of these names a bucket (storage documentation, "Request endpoints"; `localhost` is of the
/// emulator's own making).
const HOSTING: [&str; 2] = [".storage.googleapis.com", ".localhost"];

impl Route {
    /// The place that `path` names on `host`; `None` when the path is not percent-encoded UTF-8.
    pub(super) fn of(host: Option<&str>, path: &str) -> Option<Self> {
        match Self::of_other_interfaces(path)? {
            Self::Unknown => {}
            known => return Some(known),
        }
        let Some(rest) = path.strip_prefix('/') else { return Some(Self::Unknown) };
        let first = rest.split('/').next().unwrap_or_default();
        if RESERVED.contains(&first) || rest.starts_with("v1/projects/") {
            return Some(Self::Unknown);
        }
        let host = host.map(|host| without_port(host).to_ascii_lowercase()).unwrap_or_default();
        let hosted = HOSTING.iter().find_map(|end| host.strip_suffix(end));
        let (bucket, object) = if let Some(bucket) = hosted.filter(|bucket| !bucket.is_empty()) {
            (bucket.to_owned(), rest)
        } else {
            let (bucket, object) = rest.split_once('/').unwrap_or((rest, ""));
            (decode(bucket, Plus::Plus)?, object)
        };
        let object = decode(object, Plus::Plus)?;
        Some(match (bucket.is_empty(), object.is_empty()) {
            (true, _) => Self::Unknown,
            (false, true) => Self::XmlBucket { bucket },
            (false, false) => Self::XmlObject { bucket, object },
        })
    }

    fn of_other_interfaces(path: &str) -> Option<Self> {
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
            ["storage", "v1", "b", bucket, "storageLayout"] => Self::Layout { bucket: owned(bucket) },
            ["storage", "v1", "b", bucket, "notificationConfigs"] => {
                Self::NotificationConfigs { bucket: owned(bucket) }
            }
            ["storage", "v1", "b", bucket, "notificationConfigs", id] => {
                Self::NotificationConfig { bucket: owned(bucket), id: owned(id) }
            }
            ["oauth2", "v3", "certs"] => Self::SigningKeys,
            [".well-known", "openid-configuration"] => Self::Discovery,
            ["storage", "v1", "b", bucket, "o"] => Self::Objects { bucket: owned(bucket) },
            ["storage", "v1", "b", bucket, "o", object] => {
                Self::Object { bucket: owned(bucket), object: owned(object) }
            }
            ["download", "storage", "v1", "b", bucket, "o", object] => {
                Self::Media { bucket: owned(bucket), object: owned(object) }
            }
            ["token"] => Self::Token,
            ["v1", "projects", "-", "serviceAccounts", named] => match named.rsplit_once(':') {
                Some((account, "signBlob")) => Self::Account { account: owned(account), deed: Deed::SignBlob },
                Some((account, "generateAccessToken")) => {
                    Self::Account { account: owned(account), deed: Deed::GenerateAccessToken }
                }
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        })
    }

    /// Whether it is a place of the XML API.
    pub(super) fn is_xml(&self) -> bool {
        matches!(self, Self::XmlBucket { .. } | Self::XmlObject { .. })
    }

    /// The bucket and, where the path names one, the object.
    pub(super) fn names(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Upload { bucket }
            | Self::Bucket { bucket }
            | Self::Permissions { bucket }
            | Self::Layout { bucket }
            | Self::Objects { bucket }
            | Self::NotificationConfigs { bucket }
            | Self::NotificationConfig { bucket, .. }
            | Self::XmlBucket { bucket } => (Some(bucket), None),
            Self::Object { bucket, object } | Self::Media { bucket, object } | Self::XmlObject { bucket, object } => {
                (Some(bucket), Some(object))
            }
            Self::Buckets
            | Self::SigningKeys
            | Self::Discovery
            | Self::Token
            | Self::Account { .. }
            | Self::Unknown => (None, None),
        }
    }
}

/// Parameters whose value opens something, by their lower-case names.
const SECRETS: [&str; 9] = [
    "access_token",
    "assertion",
    "client_secret",
    "key",
    "oauth_token",
    "refresh_token",
    "signature",
    "upload_id",
    "x-goog-signature",
];

/// A decoded query, in the order given.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    /// The query as sent, less `upload_id`.
    initial: String,
    /// The query as sent, less [`SECRETS`].
    shown: String,
}

impl Query {
    /// Decodes `raw`; `None` when it is not percent-encoded UTF-8.
    pub(super) fn of(raw: &str) -> Option<Self> {
        let mut query = Self::default();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name, Plus::Blank)?;
            let is_session = name == "upload_id";
            let is_secret = SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret));
            for (text, leaves_out) in [(&mut query.initial, is_session), (&mut query.shown, is_secret)] {
                if !leaves_out {
                    text.push_str(if text.is_empty() { "" } else { "&" });
                    text.push_str(part);
                }
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

    /// The query as sent, without `upload_id`: that of the initiation.
    pub(super) fn of_initiation(&self) -> &str {
        &self.initial
    }

    /// The query as sent, without what is secret.
    pub(super) fn without_secret(&self) -> &str {
        &self.shown
    }
}

/// A host without its port.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[derive(Clone, Copy)]
pub(super) enum Plus {
    /// In a path, and in a query that is signed, a plus is a plus.
    Plus,
    /// In a query, it is a blank.
    Blank,
}

/// Percent-decodes; `None` when the text is not percent-encoded UTF-8.
pub(super) fn decode(text: &str, plus: Plus) -> Option<String> {
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
        let xml = |object: &str| Some(Route::XmlObject { bucket: bucket(), object: object.to_owned() });
        for (path, expected) in [
            ("/upload/storage/v1/b/media-eu/o", Some(Route::Upload { bucket: bucket() })),
            ("/resumable/upload/storage/v1/b/media-eu/o", Some(Route::Upload { bucket: bucket() })),
            ("/storage/v1/b/media-eu", Some(Route::Bucket { bucket: bucket() })),
            ("/storage/v1/b/media-eu/o/a%2Fb+c", Some(Route::Object { bucket: bucket(), object: "a/b+c".into() })),
            ("/storage/v1/b/media-eu/o/a%252Fb", Some(Route::Object { bucket: bucket(), object: "a%2Fb".into() })),
            ("/storage/v1/b/media-eu/o/a/b", Some(Route::Unknown)),
            ("/storage/v1/b/media-eu/", Some(Route::Unknown)),
            ("/media-eu/object", xml("object")),
            ("/media-eu/a//b%2Fc%20+/", xml("a//b/c +/")),
            ("/media-eu//a", xml("/a")),
            ("/media-eu", Some(Route::XmlBucket { bucket: bucket() })),
            ("/media-eu/", Some(Route::XmlBucket { bucket: bucket() })),
            ("/", Some(Route::Unknown)),
            ("//object", Some(Route::Unknown)),
            ("/batch/storage/v1", Some(Route::Unknown)),
            ("/storage/v1/b/media-eu/notificationConfigs", Some(Route::NotificationConfigs { bucket: bucket() })),
            (
                "/storage/v1/b/media-eu/notificationConfigs/3",
                Some(Route::NotificationConfig { bucket: bucket(), id: "3".into() }),
            ),
            ("/oauth2/v3/certs", Some(Route::SigningKeys)),
            ("/.well-known/openid-configuration", Some(Route::Discovery)),
            ("/token", Some(Route::Token)),
            ("/token/x", Some(Route::XmlObject { bucket: "token".into(), object: "x".into() })),
            (
                "/v1/projects/-/serviceAccounts/a%40b.example:signBlob",
                Some(Route::Account { account: "a@b.example".into(), deed: Deed::SignBlob }),
            ),
            ("/v1/projects/-/serviceAccounts/a@b.example:signJwt", Some(Route::Unknown)),
            ("/media-eu/%FF", None),
            ("/storage/v1/b/%FF", None),
            ("/storage/v1/b/%4", None),
            ("*", Some(Route::Unknown)),
        ] {
            assert_eq!(Route::of(Some("127.0.0.1:1"), path), expected, "{path}");
        }
    }

    #[test]
    fn a_host_can_name_the_bucket() {
        let hosted = Route::XmlObject { bucket: "media-eu".into(), object: "a/b".into() };
        for (host, path, expected) in [
            ("media-eu.storage.googleapis.com", "/a/b", hosted.clone()),
            ("media-eu.localhost:8080", "/a/b", hosted.clone()),
            ("Media-EU.LocalHost", "/a/b", hosted),
            ("media-eu.localhost", "/", Route::XmlBucket { bucket: "media-eu".into() }),
            ("media-eu.localhost", "/storage/v1/b", Route::Buckets),
            ("localhost:8080", "/a/b", Route::XmlObject { bucket: "a".into(), object: "b".into() }),
            ("[::1]:8080", "/a/b", Route::XmlObject { bucket: "a".into(), object: "b".into() }),
            (".localhost", "/a/b", Route::XmlObject { bucket: "a".into(), object: "b".into() }),
        ] {
            assert_eq!(Route::of(Some(host), path), Some(expected), "{host} {path}");
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
        let signed = Query::of("X-Goog-Expires=1&X-Goog-Signature=ab&upload_id=secret").unwrap();
        assert_eq!(signed.of_initiation(), "X-Goog-Expires=1&X-Goog-Signature=ab");
        assert_eq!(signed.without_secret(), "X-Goog-Expires=1");
        for name in ["access_token", "Access_Token", "Signature", "key", "refresh_token", "assertion", "Upload_Id"] {
            assert_eq!(Query::of(&format!("a=1&{name}=secret")).unwrap().without_secret(), "a=1", "{name}");
        }
    }
}
