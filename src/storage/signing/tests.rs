//! What is signed, against the vectors that Google publishes and against some of our own.

use std::path::PathBuf;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::*;
use crate::model::id::{Partition, UploadId};
use crate::model::size::ByteCount;
use crate::model::upload::{Overwrite, Promise, PromisedSize};
use crate::storage::Initiation;
use crate::storage::endpoint::Endpoint;
use crate::storage::xml::{SignedMethod, sendable};

/// One of the URL vectors in `v4_signatures.json` of the conformance tests that Google publishes for client libraries.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    description: String,
    bucket: String,
    object: Option<String>,
    method: String,
    expiration: u64,
    timestamp: String,
    scheme: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    query_parameters: BTreeMap<String, String>,
    url_style: Option<String>,
    bucket_bound_hostname: Option<String>,
    hostname: Option<String>,
    client_endpoint: Option<String>,
    emulator_hostname: Option<String>,
    universe_domain: Option<String>,
    expected_canonical_request: String,
    expected_string_to_sign: String,
    expected_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    signing_v4_tests: Vec<Vector>,
}

impl Vector {
    /// Where the request goes, and its path.
    fn target(&self) -> (String, String) {
        let universe = format!("storage.{}", self.universe_domain.as_deref().unwrap_or("googleapis.com"));
        let named = self.hostname.as_ref().or(self.client_endpoint.as_ref()).or(self.emulator_hostname.as_ref());
        let named = named.map_or(universe.as_str(), String::as_str);
        let (own_scheme, host) = named.split_once("://").unwrap_or(("https", named));
        let scheme = self.scheme.as_deref().unwrap_or(own_scheme);
        let object = self.object.iter().flat_map(|name| name.split('/')).map(percent_encode);
        let object = object.fold(String::new(), |path, part| path + "/" + &part);
        match self.url_style.as_deref() {
            None | Some("PATH_STYLE") => (format!("{scheme}://{host}"), format!("/{}{object}", self.bucket)),
            Some("VIRTUAL_HOSTED_STYLE") => (format!("{scheme}://{}.{host}", self.bucket), object),
            Some("BUCKET_BOUND_HOSTNAME") => {
                (format!("{scheme}://{}", self.bucket_bound_hostname.as_ref().unwrap()), object)
            }
            Some(style) => panic!("{}: the style {style}", self.description),
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The vectors are not ours to pass on, so they are looked for in a directory of which the environment tells.
#[test]
fn the_published_vectors_come_out_and_their_signatures_fit() {
    let directory = std::env::var_os("GCS_TEST_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"), PathBuf::from);
    let Ok(text) = std::fs::read(directory.join("v4_signatures.json")) else {
        #[expect(clippy::print_stderr, reason = "who runs the test must see that it proved nothing")]
        {
            eprintln!("the published vectors are not in {} (GCS_TEST_VECTORS)", directory.display());
        }
        return;
    };
    let pem = std::fs::read(directory.join("v4_signatures.public_key.pem")).unwrap();
    let key = SubjectPublicKeyInfoDer::from_pem_slice(&pem).unwrap();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.as_ref());
    let vectors: Vectors = serde_json::from_slice(&text).unwrap();
    assert_eq!(vectors.signing_v4_tests.len(), 29);
    for vector in &vectors.signing_v4_tests {
        let name = &vector.description;
        let headers = vector.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        let query: Vec<_> = vector.query_parameters.iter().map(|(name, value)| (&**name, &**value)).collect();
        let (origin, path) = vector.target();
        let request =
            Canonical { method: &vector.method, origin: &origin, path: &path, query: &query, headers: &headers };
        let signer = "test-iam-credentials@dummy-project-id.iam.gserviceaccount.com";
        let now = Timestamp::from_secs(vector.timestamp.parse::<jiff::Timestamp>().unwrap().as_second());
        let unsigned = request.unsigned(signer, now, Duration::from_secs(vector.expiration)).unwrap();

        let (expected_url, signature) = vector.expected_url.split_once("&X-Goog-Signature=").unwrap();
        assert_eq!(unsigned.url, expected_url, "{name}");
        let (_, query) = unsigned.url.split_once('?').unwrap();
        // This one prints the path of the other style, which neither its string to sign nor its signature belongs to.
        if name != "Universe domain with virtual hosted style" {
            assert_eq!(request.request(query).unwrap(), vector.expected_canonical_request, "{name}");
        }
        assert_eq!(unsigned.string_to_sign, vector.expected_string_to_sign, "{name}");
        let signature = bytes(signature);
        assert!(key.verify(unsigned.string_to_sign.as_bytes(), &signature).is_ok(), "{name}");
        assert_eq!(unsigned.signed(&signature).unwrap().expose(), vector.expected_url, "{name}");
    }
}

/// 2026-03-07T00:00:00.5Z: less than a second is not signed.
const NOW: Timestamp = Timestamp::from_millis(1_772_841_600_500);

const SIGNER: &str = "broker@acme.iam.gserviceaccount.com";

/// The beginning of the query of every vector of ours.
macro_rules! query {
    ($names:literal) => {
        concat!(
            "X-Goog-Algorithm=GOOG4-RSA-SHA256",
            "&X-Goog-Credential=broker%40acme.iam.gserviceaccount.com%2F20260307%2Fauto%2Fstorage%2Fgoog4_request",
            "&X-Goog-Date=20260307T000000Z&X-Goog-Expires=900&X-Goog-SignedHeaders=",
            $names
        )
    };
}

struct Own {
    name: &'static str,
    endpoint: &'static str,
    object: &'static str,
    method: SignedMethod,
    size: PromisedSize,
    digests: (Option<&'static str>, Option<&'static str>),
    metadata: &'static [(&'static str, &'static str)],
    cache_control: Option<&'static str>,
    overwrite: Overwrite,
    canonical: &'static str,
    /// Of the canonical request, in hexadecimal: computed by another program.
    sha256: &'static str,
    path: &'static str,
}

const OWN: [Own; 4] = [
    Own {
        name: "a small file with all that can be said of it",
        endpoint: "https://storage.googleapis.com",
        object: "videos/u 17//ä~(1).mp4",
        method: SignedMethod::Put,
        size: PromisedSize::Exactly(ByteCount(73)),
        digests: (Some("XrY7u+Ae7tCTyyK7j1rNww=="), Some("yZRlqg==")),
        metadata: &[("album", "summer  of 26"), ("a%b", "")],
        cache_control: Some("private, max-age=0"),
        overwrite: Overwrite::Forbidden,
        canonical: concat!(
            "PUT\n/media-eu/videos/u%2017//%C3%A4~%281%29.mp4\n",
            query!(
                "cache-control%3Bcontent-md5%3Bcontent-type%3Bhost%3Bx-goog-content-length-range%3Bx-goog-if-generation-match%3Bx-goog-meta-a%25b%3Bx-goog-meta-album%3Bx-goog-meta-upload-broker-id"
            ),
            "\ncache-control:private, max-age=0\ncontent-md5:XrY7u+Ae7tCTyyK7j1rNww==\ncontent-type:video/mp4\n",
            "host:storage.googleapis.com\nx-goog-content-length-range:73,73\nx-goog-if-generation-match:0\n",
            "x-goog-meta-a%b:\nx-goog-meta-album:summer of 26\n",
            "x-goog-meta-upload-broker-id:3f07070707070707070707070707070707\n\n",
            "cache-control;content-md5;content-type;host;x-goog-content-length-range;x-goog-if-generation-match;x-goog-meta-a%b;x-goog-meta-album;x-goog-meta-upload-broker-id\n",
            "UNSIGNED-PAYLOAD",
        ),
        sha256: "8b3c6aee2c2ffdd9d84892cd32c0b800aec3e07636d94d27add1bb4c335874fc",
        path: "/media-eu/videos/u%2017//%C3%A4~%281%29.mp4",
    },
    Own {
        name: "a small file with the other digest, within bounds, in place of another",
        endpoint: "https://storage.googleapis.com",
        object: "a",
        method: SignedMethod::Put,
        size: PromisedSize::Between { least: ByteCount(1), most: ByteCount(8_388_608) },
        digests: (None, Some("yZRlqg==")),
        metadata: &[],
        cache_control: None,
        overwrite: Overwrite::Allowed,
        canonical: concat!(
            "PUT\n/media-eu/a\n",
            query!("content-type%3Bhost%3Bx-goog-content-length-range%3Bx-goog-hash%3Bx-goog-meta-upload-broker-id"),
            "\ncontent-type:video/mp4\nhost:storage.googleapis.com\nx-goog-content-length-range:1,8388608\n",
            "x-goog-hash:crc32c=yZRlqg==\nx-goog-meta-upload-broker-id:3f07070707070707070707070707070707\n\n",
            "content-type;host;x-goog-content-length-range;x-goog-hash;x-goog-meta-upload-broker-id\n",
            "UNSIGNED-PAYLOAD",
        ),
        sha256: "691d8c4f1c39ce828e8a0fbc369a36d99fe1348ac9d2656fd4c098e85cbccb2e",
        path: "/media-eu/a",
    },
    Own {
        name: "the start of a session",
        endpoint: "https://storage.googleapis.com",
        object: "a",
        method: SignedMethod::ResumableStart,
        size: PromisedSize::Exactly(ByteCount(73_400_320)),
        // Nothing in that request could hold storage to them.
        digests: (Some("XrY7u+Ae7tCTyyK7j1rNww=="), Some("yZRlqg==")),
        metadata: &[],
        cache_control: None,
        overwrite: Overwrite::Forbidden,
        canonical: concat!(
            "POST\n/media-eu/a\n",
            query!(
                "content-type%3Bhost%3Bx-goog-content-length-range%3Bx-goog-if-generation-match%3Bx-goog-meta-upload-broker-id%3Bx-goog-resumable%3Bx-upload-content-length"
            ),
            "\ncontent-type:video/mp4\nhost:storage.googleapis.com\nx-goog-content-length-range:73400320,73400320\n",
            "x-goog-if-generation-match:0\nx-goog-meta-upload-broker-id:3f07070707070707070707070707070707\n",
            "x-goog-resumable:start\nx-upload-content-length:73400320\n\n",
            "content-type;host;x-goog-content-length-range;x-goog-if-generation-match;x-goog-meta-upload-broker-id;x-goog-resumable;x-upload-content-length\n",
            "UNSIGNED-PAYLOAD",
        ),
        sha256: "3a184cd98b0fdb87b8dce1ff87286689dcb3af4afc3d38e9029fe47024238fa5",
        path: "/media-eu/a",
    },
    Own {
        name: "the start of a session at a stand-in, of unknown size",
        endpoint: "http://127.0.0.1:9023",
        object: "a",
        method: SignedMethod::ResumableStart,
        size: PromisedSize::Between { least: ByteCount::ZERO, most: ByteCount(5) },
        digests: (None, None),
        metadata: &[],
        cache_control: None,
        overwrite: Overwrite::Allowed,
        canonical: concat!(
            "POST\n/media-eu/a\n",
            query!(
                "content-type%3Bhost%3Bx-goog-content-length-range%3Bx-goog-meta-upload-broker-id%3Bx-goog-resumable"
            ),
            "\ncontent-type:video/mp4\nhost:127.0.0.1\nx-goog-content-length-range:0,5\n",
            "x-goog-meta-upload-broker-id:3f07070707070707070707070707070707\nx-goog-resumable:start\n\n",
            "content-type;host;x-goog-content-length-range;x-goog-meta-upload-broker-id;x-goog-resumable\n",
            "UNSIGNED-PAYLOAD",
        ),
        sha256: "f8e9e55281875aef2b6f8f88cc24cd78e057ecee69b7e15bfaf8927bdf0f41f6",
        path: "/media-eu/a",
    },
];

#[test]
fn what_is_signed_is_worked_out_by_hand_too() {
    for own in OWN {
        let name = own.name;
        let promise = Promise {
            content_type: "video/mp4".parse().unwrap(),
            size: own.size,
            md5: own.digests.0.map(|text| text.parse().unwrap()),
            crc32c: own.digests.1.map(|text| text.parse().unwrap()),
        };
        let (bucket, object) = ("media-eu".parse().unwrap(), own.object.parse().unwrap());
        let initiation = Initiation {
            note: None,
            id: UploadId::new(Partition(0x3f), [7; 16]),
            bucket: &bucket,
            object: &object,
            promise: &promise,
            metadata: &own.metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            cache_control: own.cache_control,
            overwrite: own.overwrite,
            // Not signed: whoever has the URL may use it from anywhere.
            origin: Some("https://app.example.com"),
        };
        let headers = sendable(own.method, &initiation).unwrap();
        let endpoint = Endpoint::new(&own.endpoint.parse().unwrap()).unwrap();
        let path = endpoint.xml_path(&bucket, &object).unwrap();
        assert_eq!(path, own.path, "{name}");
        let origin = endpoint.origin();
        let method = own.method.as_str();
        let request = Canonical { method, origin: &origin, path: &path, query: &[], headers: &headers };
        let unsigned = request.unsigned(SIGNER, NOW, Duration::from_millis(900_999)).unwrap();
        let (address, query) = unsigned.url.split_once('?').unwrap();
        assert_eq!(address, format!("{}{}", own.endpoint, own.path), "{name}");
        assert_eq!(request.request(query).unwrap(), own.canonical, "{name}");
        let expected =
            format!("GOOG4-RSA-SHA256\n20260307T000000Z\n20260307/auto/storage/goog4_request\n{}", own.sha256);
        assert_eq!(unsigned.string_to_sign, expected, "{name}");
        let uri = unsigned.signed(&[0xA0, 0x0B]).unwrap();
        assert!(uri.expose().ends_with("&X-Goog-Signature=a00b"), "{name}");
        assert_eq!(Url::parse(uri.expose()).unwrap().as_str(), uri.expose(), "{name}: no URL type changes it");
        assert_eq!(signed_until(&uri), Some(Timestamp::from_secs(1_772_841_600 + 900)), "{name}");
    }
}

#[test]
fn a_life_that_storage_would_not_accept_is_not_signed() {
    let request = Canonical {
        method: "PUT",
        origin: "https://storage.googleapis.com",
        path: "/b/o",
        query: &[],
        headers: &BTreeMap::new(),
    };
    for (milliseconds, accepted) in [(0, false), (999, false), (1000, true), (604_800_000, true), (604_800_001, false)]
    {
        let unsigned = request.unsigned(SIGNER, NOW, Duration::from_millis(milliseconds));
        assert_eq!(unsigned.is_ok(), accepted, "{milliseconds} ms");
    }
    let never = Timestamp::from_millis(i64::MAX);
    assert!(request.unsigned(SIGNER, never, Duration::from_secs(1)).is_err(), "a time without a date");
}

#[test]
fn a_url_that_is_too_long_is_not_handed_out() {
    let path = "/b/".to_owned() + &"%00".repeat(2600);
    let request = Canonical {
        method: "PUT",
        origin: "https://storage.googleapis.com",
        path: &path,
        query: &[],
        headers: &BTreeMap::new(),
    };
    let unsigned = request.unsigned(SIGNER, NOW, Duration::from_secs(1)).unwrap();
    assert!(unsigned.signed(&[0; 256]).is_err());
}

#[test]
fn the_end_is_read_from_signed_urls_only() {
    let signed = "X-Goog-Date=20260307T000000Z&X-Goog-Expires=900&X-Goog-Signature=ab";
    for (name, query, expected) in [
        ("a signed URL", signed.to_owned(), Some(1_772_842_500)),
        ("a session", "upload_id=A".to_owned(), None),
        ("a session that a signed URL opened", format!("{signed}&upload_id=A"), None),
        ("no signature", "X-Goog-Date=20260307T000000Z&X-Goog-Expires=900".to_owned(), None),
        ("no date", "X-Goog-Expires=900&X-Goog-Signature=ab".to_owned(), None),
        ("a date that is none", signed.replace("0307", "1307"), None),
        ("a life that is none", signed.replace("900", "-1"), None),
        ("for ever", signed.replace("900", "18446744073709551615"), Some(i64::MAX / 1000)),
    ] {
        let uri = SessionUri::parse(&format!("https://storage.googleapis.com/b/o?{query}")).unwrap();
        assert_eq!(signed_until(&uri).map(Timestamp::as_secs), expected, "{name}");
    }
}
