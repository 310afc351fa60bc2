//! The client as a whole, against servers that are told what to say.

use std::sync::LazyLock;

use super::*;
use crate::clock::Clock;
use crate::model::chain;
use crate::model::id::Partition;
use crate::model::time::Span;
use crate::model::upload::{Overwrite, PromisedSize};

mod calls;
mod http2;
mod scripted;
mod signatures;
mod tokens;
mod tokens_by_file;
mod xml;

use scripted::{Scripted, Step, answer};

/// Pauses that a test can bear.
const QUICK: Backoff = Backoff { first: Duration::from_millis(5), cap: Duration::from_millis(20) };

fn settings(endpoint: &str, timeout: Duration) -> Settings {
    Settings { endpoint: endpoint.parse().unwrap(), timeout: Span(timeout), ..Settings::default() }
}

fn options() -> Options {
    Options {
        randomness: Randomness::seeded(1),
        trusted_ca: Vec::new(),
        user_agent: "upload-broker/test".to_owned(),
        environment: Environment::default(),
        signing: Signing::Unused,
    }
}

async fn client(server: &Scripted) -> Storage {
    client_with_timeout(server, Duration::from_secs(5)).await
}

async fn client_with_timeout(server: &Scripted, timeout: Duration) -> Storage {
    let endpoint = format!("http://{}", server.address);
    Storage::open_with(&settings(&endpoint, timeout), options(), QUICK).await.unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn bucket() -> BucketName {
    "media-eu".parse().unwrap()
}

fn object() -> ObjectName {
    "videos/u 17/ä.mp4".parse().unwrap()
}

fn session(server: &Scripted) -> SessionUri {
    let uri = format!("http://{}/upload/storage/v1/b/media-eu/o?name=a%2Fb&upload_id=s3cret", server.address);
    SessionUri::parse(&uri).unwrap()
}

fn opened() -> Step {
    answer(200, &["location: /upload/storage/v1/b/media-eu/o?upload_id=s3cret", "x-guploader-uploadid: s3cret"], "")
}

/// A promise of all that can be promised.
fn full_promise() -> Promise {
    Promise {
        content_type: "video/mp4".parse().unwrap(),
        size: PromisedSize::Exactly(ByteCount(73_400_320)),
        md5: Some("XrY7u+Ae7tCTyyK7j1rNww==".parse().unwrap()),
        crc32c: Some("yZRlqg==".parse().unwrap()),
    }
}

/// Metadata with a mark that is not the broker's to leave as it is.
fn full_metadata() -> BTreeMap<String, String> {
    let entry = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    [("album", "\"summer\""), (UPLOAD_HINT, "somebody else's")].map(entry).into()
}

/// Opens a session for a plain upload.
async fn initiate(storage: &Storage, deadline: Instant) -> Result<SessionUri, Error> {
    let promise = Promise {
        content_type: "video/mp4".parse().unwrap(),
        size: PromisedSize::Between { least: ByteCount::ZERO, most: ByteCount::gib(1) },
        md5: None,
        crc32c: None,
    };
    let initiation = Initiation {
        note: None,
        id: UploadId::new(Partition(0x3f), [7; 16]),
        bucket: &bucket(),
        object: &object(),
        promise: &promise,
        metadata: &BTreeMap::new(),
        cache_control: None,
        overwrite: Overwrite::Forbidden,
        origin: None,
    };
    storage.initiate(&initiation, deadline).await
}

/// A request as its first line, its header lines in order of the alphabet, and its body.
fn sorted(request: &str) -> Vec<String> {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines().map(ToOwned::to_owned);
    let mut all = vec![lines.next().unwrap()];
    let mut headers: Vec<_> = lines.filter(|line| !line.starts_with("host: ")).collect();
    headers.sort();
    all.extend(headers);
    all.push(body.to_owned());
    all
}

/// One key for all tests: making one takes a moment.
static KEY: LazyLock<String> =
    LazyLock::new(|| rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem());

fn token_answer(token: &str) -> String {
    format!(r#"{{"access_token":"{token}","expires_in":3599,"token_type":"Bearer"}}"#)
}

/// Whom to trust: reading the system's authorities takes a while.
static TRUST: LazyLock<rustls::ClientConfig> = LazyLock::new(|| transport::trust(&google(), &[]).unwrap());

fn google() -> Endpoint {
    Endpoint::new(&"https://storage.example".parse().unwrap()).unwrap()
}

async fn origin(credentials: &Credentials, environment: &Environment) -> Origin {
    origin_for(credentials, environment, Signing::Unused).await
}

async fn origin_for(credentials: &Credentials, environment: &Environment, signing: Signing) -> Origin {
    let found = credentials::find(credentials, environment, &google()).await.unwrap();
    Origin::new(found, &TRUST, signing).await.unwrap()
}

/// The token that is fetched, without `Bearer`.
async fn fetch(origin: &Origin) -> Result<String, TokenError> {
    let granted = origin.fetch(soon()).await?;
    Ok(granted.header.to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned())
}

/// A token server, and credentials in `file` that lead there.
async fn key_for(file: &tempfile::NamedTempFile, steps: impl IntoIterator<Item = Step>) -> (Scripted, Credentials) {
    let tokens = Scripted::start(steps).await;
    write_key(file, &KEY, &format!("http://{}/token", tokens.address));
    (tokens, Credentials::File { file: file.path().to_owned() })
}

fn write_key(file: &tempfile::NamedTempFile, private_key: &str, token_uri: &str) {
    let key = serde_json::json!({
        "type": "service_account", "client_email": "broker@acme.example", "private_key": private_key,
        "private_key_id": "1", "token_uri": token_uri,
    });
    std::fs::write(file.path(), key.to_string()).unwrap();
}
