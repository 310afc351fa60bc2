//! Addresses at storage: how they are composed, and which ones are believed.

use reqwest::Url;

use super::error::{Error, OpenError};
use crate::model::address::{UpstreamUrl, is_loopback};
use crate::model::name::{BucketName, ObjectName};

/// Where storage is.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: Url,
    /// The text that every path is appended to: no slash at its end.
    base: String,
}

impl Endpoint {
    pub(super) fn new(url: &UpstreamUrl) -> Result<Self, OpenError> {
        let url = url.as_url();
        if url.query().is_some() || url.fragment().is_some() {
            return Err(OpenError::Endpoint("must not hold a query or a fragment"));
        }
        Ok(Self { url: url.clone(), base: url.as_str().trim_end_matches('/').to_owned() })
    }

    /// Whether storage is a stand-in on this machine, reached without TLS.
    pub(super) fn is_plain_loopback(&self) -> bool {
        self.url.scheme() == "http" && is_loopback(&self.url)
    }

    /// Where sessions for `object` are opened. The query holds `uploadType` and `name`, and can be continued with `&`.
    pub(super) fn upload(&self, bucket: &BucketName, object: &ObjectName) -> String {
        let name = percent_encode(object.as_str());
        format!("{}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name={name}", self.base)
    }

    /// The bucket resource, without a query.
    pub(super) fn bucket(&self, bucket: &BucketName) -> String {
        format!("{}/storage/v1/b/{bucket}", self.base)
    }

    /// The object resource, without a query.
    pub(super) fn object(&self, bucket: &BucketName, object: &ObjectName) -> String {
        format!("{}/storage/v1/b/{bucket}/o/{}", self.base, percent_encode(object.as_str()))
    }

    /// Scheme, host and, if it is not the usual one, port.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The path of `object` in the XML interface, which keeps slashes (storage documentation, "Encoding URI path parts").
    ///
    /// # Errors
    /// When URL types would take the name for something else: `.` and `..` between slashes.
    pub(super) fn xml_path(&self, bucket: &BucketName, object: &ObjectName) -> Result<String, Error> {
        let parts: Vec<String> = object.as_str().split('/').map(percent_encode).collect();
        let path = format!("{}/{bucket}/{}", self.url.path().trim_end_matches('/'), parts.join("/"));
        match Url::parse(&(self.origin() + &path)) {
            Ok(url) if url.path() == path => Ok(path),
            _ => Err(Error::Nonsense("the name of the object cannot stand in the path of a URL")),
        }
    }

    /// Checks that `url` can be a session of this storage, so that no answer and no record can send the broker, or a
    /// client with a capability, anywhere else.
    ///
    /// # Errors
    /// With the reason.
    pub(super) fn check_session(&self, url: &Url) -> Result<(), &'static str> {
        let loopback_pair = is_loopback(url) && is_loopback(&self.url);
        let google_pair = is_google_storage(url) && is_google_storage(&self.url);
        match url.scheme() {
            "https" => {}
            "http" if loopback_pair && self.url.scheme() == "http" => {}
            _ => return Err("the session URI is not https"),
        }
        let same_host = url.host() == self.url.host() || loopback_pair || google_pair;
        if !same_host || url.port_or_known_default() != self.url.port_or_known_default() {
            return Err("the session URI leads to a foreign host");
        }
        if url.query_pairs().all(|(name, value)| name != "upload_id" || value.is_empty()) {
            return Err("the session URI has no upload_id");
        }
        Ok(())
    }
}

/// The hosts that answer for one another: the global endpoint, its older name, and the regional ones
/// (storage documentation, "Cloud Storage request endpoints" and "Regional endpoints").
fn is_google_storage(url: &Url) -> bool {
    let regional = |host: &str| {
        host.strip_prefix("storage.").and_then(|rest| rest.strip_suffix(".rep.googleapis.com")).is_some_and(|region| {
            !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    url.host_str().is_some_and(|host| matches!(host, "storage.googleapis.com" | "www.googleapis.com") || regional(host))
}

/// Encodes all but the unreserved characters of RFC 3986, section 2.3, so that the text stands as one path segment or
/// one query value (storage documentation, "Encoding URI path parts").
pub(super) fn percent_encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn names_survive_the_url_type_byte_for_byte() {
        let storage = endpoint("https://storage.googleapis.com");
        let bucket: BucketName = "media-eu".parse().unwrap();
        for (name, expected) in [
            ("videos/u-17/a.mp4", "videos%2Fu-17%2Fa.mp4"),
            ("a/../b", "a%2F..%2Fb"),
            ("...", "..."),
            ("%2e%2e", "%252e%252e"),
            ("a b+c&d=e?f#g", "a%20b%2Bc%26d%3De%3Ff%23g"),
            ("'\"<>|\\^`{}", "%27%22%3C%3E%7C%5C%5E%60%7B%7D"),
            ("~é\u{2028}☀", "~%C3%A9%E2%80%A8%E2%98%80"),
            ("\0\t\u{7f}", "%00%09%7F"),
        ] {
            let object: ObjectName = name.parse().unwrap();
            let text = storage.object(&bucket, &object);
            assert_eq!(text, format!("https://storage.googleapis.com/storage/v1/b/media-eu/o/{expected}"), "{name:?}");
            assert_eq!(Url::parse(&text).unwrap().as_str(), text, "{name:?}");
            let text = storage.upload(&bucket, &object);
            assert!(text.ends_with(&format!("/b/media-eu/o?uploadType=resumable&name={expected}")), "{text}");
            assert_eq!(Url::parse(&text).unwrap().as_str(), text, "{name:?}");
        }
    }

    #[test]
    fn names_in_paths_keep_their_slashes_and_are_read_by_url_types_as_they_are() {
        let storage = endpoint("https://storage.googleapis.com");
        let bucket: BucketName = "media-eu".parse().unwrap();
        for (name, expected) in [
            ("videos/u-17/a.mp4", Some("videos/u-17/a.mp4")),
            ("/a//b/", Some("/a//b/")),
            ("~é☀", Some("~%C3%A9%E2%98%80")),
            ("a b+c&d=e?f#g;h", Some("a%20b%2Bc%26d%3De%3Ff%23g%3Bh")),
            ("'\"<>|\\^`{}", Some("%27%22%3C%3E%7C%5C%5E%60%7B%7D")),
            ("%2e%2e/%2F", Some("%252e%252e/%252F")),
            ("a/.../.b", Some("a/.../.b")),
            ("\0", Some("%00")),
            ("a/../b", None),
            ("../b", None),
            ("a/.", None),
            ("./b", None),
        ] {
            let path = storage.xml_path(&bucket, &name.parse().unwrap()).ok();
            assert_eq!(path, expected.map(|expected| format!("/media-eu/{expected}")), "{name:?}");
        }
        let behind_a_base = endpoint("http://127.0.0.1:9/base/").xml_path(&bucket, &"a".parse().unwrap());
        assert_eq!(behind_a_base.ok().as_deref(), Some("/base/media-eu/a"));
        assert_eq!(endpoint("http://127.0.0.1:9/base/").origin(), "http://127.0.0.1:9");
    }

    #[test]
    fn a_base_path_stays_in_front_and_a_query_is_refused() {
        let bucket: BucketName = "media-eu".parse().unwrap();
        let object: ObjectName = "a".parse().unwrap();
        let address = endpoint("http://127.0.0.1:9/base/").object(&bucket, &object);
        assert_eq!(address, "http://127.0.0.1:9/base/storage/v1/b/media-eu/o/a");
        assert!(Endpoint::new(&"https://storage.example/?a=b".parse().unwrap()).is_err());
        assert!(Endpoint::new(&"https://storage.example/#a".parse().unwrap()).is_err());
    }

    #[test]
    fn only_sessions_of_this_storage_are_believed() {
        let google = "https://storage.googleapis.com";
        for (name, at, session, believed) in [
            ("the same host", google, "https://storage.googleapis.com/upload?upload_id=A", true),
            ("the port said aloud", google, "https://storage.googleapis.com:443/u?upload_id=A", true),
            ("one of the XML interface", google, "https://storage.googleapis.com/media-eu/a//b?upload_id=A", true),
            ("the older name", google, "https://www.googleapis.com/upload?upload_id=A", true),
            ("a regional one", google, "https://storage.europe-west1.rep.googleapis.com/u?upload_id=A", true),
            (
                "from a regional one",
                "https://storage.us.rep.googleapis.com",
                "https://storage.googleapis.com/?upload_id=A",
                true,
            ),
            ("another service", google, "https://oauth2.googleapis.com/u?upload_id=A", false),
            ("a dotted region", google, "https://storage.a.b.rep.googleapis.com/u?upload_id=A", false),
            ("a likeness in front", google, "https://storage.googleapis.com.example.com/u?upload_id=A", false),
            ("a likeness behind", google, "https://evil-storage.googleapis.com/u?upload_id=A", false),
            ("another port", google, "https://storage.googleapis.com:8443/u?upload_id=A", false),
            ("without TLS", google, "http://storage.googleapis.com/u?upload_id=A", false),
            ("loopback", google, "http://127.0.0.1/u?upload_id=A", false),
            ("the metadata server", google, "http://169.254.169.254/u?upload_id=A", false),
            ("no upload_id", google, "https://storage.googleapis.com/u?uploadType=resumable", false),
            ("an empty upload_id", google, "https://storage.googleapis.com/u?upload_id=", false),
            ("a likeness of upload_id", google, "https://storage.googleapis.com/u?x_upload_id=A", false),
            ("a stand-in", "http://127.0.0.1:9023", "http://127.0.0.1:9023/u?upload_id=A", true),
            ("a stand-in by its name", "http://127.0.0.1:9023", "http://localhost:9023/u?upload_id=A", true),
            ("a stand-in elsewhere", "http://127.0.0.1:9023", "http://127.0.0.1:9024/u?upload_id=A", false),
            ("away from a stand-in", "http://127.0.0.1:9023", "https://storage.googleapis.com/u?upload_id=A", false),
            ("a private endpoint", "https://storage.example", "https://storage.example/u?upload_id=A", true),
            (
                "away from a private one",
                "https://storage.example",
                "https://storage.googleapis.com/u?upload_id=A",
                false,
            ),
            ("TLS given up", "https://127.0.0.1:9023", "http://127.0.0.1:9023/u?upload_id=A", false),
        ] {
            let session = Url::parse(session).unwrap();
            assert_eq!(endpoint(at).check_session(&session).is_ok(), believed, "{name}");
        }
    }
}
