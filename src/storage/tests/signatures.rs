//! Signed URLs: by a key at hand, and by IAM Credentials.

use std::sync::Arc;

use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::task::JoinSet;

use super::signer::{RemoteAccount, SigningIdentity};
use super::*;
use crate::model::chain;
use crate::model::secret::SecretText;

const NOW: Timestamp = Timestamp::from_secs(1_772_841_600);
const QUARTER: Duration = Duration::from_secs(900);
const BROKER: &str = "broker@acme.example";

/// A small file's URL.
async fn sign(storage: &Storage, lifetime: Duration) -> Result<SessionUri, Error> {
    sign_with(storage, "videos/u 17/ä.mp4", &BTreeMap::new(), lifetime).await
}

async fn sign_with(
    storage: &Storage,
    object: &str,
    metadata: &BTreeMap<String, String>,
    lifetime: Duration,
) -> Result<SessionUri, Error> {
    let (bucket, object, promise) = (bucket(), object.parse().unwrap(), promise());
    let initiation = small(&bucket, &object, &promise, metadata);
    storage.sign(SignedMethod::Put, &initiation, NOW, lifetime, soon()).await
}

fn promise() -> Promise {
    Promise {
        content_type: "video/mp4".parse().unwrap(),
        size: PromisedSize::Exactly(ByteCount(73)),
        md5: None,
        crc32c: None,
    }
}

fn small<'a>(
    bucket: &'a BucketName,
    object: &'a ObjectName,
    promise: &'a Promise,
    metadata: &'a BTreeMap<String, String>,
) -> Initiation<'a> {
    Initiation {
        note: None,
        id: UploadId::new(Partition(0x3f), [7; 16]),
        bucket,
        object,
        promise,
        metadata,
        cache_control: None,
        overwrite: Overwrite::Forbidden,
        origin: None,
    }
}

/// A client without credentials whose URLs IAM Credentials, which is `server`, signs.
async fn remote(server: &Scripted, account: RemoteAccount) -> Storage {
    let mut storage = client(server).await;
    storage.signer = Some(Signer::new(remote_identity(server, account)).unwrap());
    storage
}

fn remote_identity(server: &Scripted, account: RemoteAccount) -> SigningIdentity {
    SigningIdentity::Remote { account, iam_credentials: Url::parse(&format!("http://{}", server.address)).unwrap() }
}

fn named() -> RemoteAccount {
    RemoteAccount::Named(BROKER.to_owned())
}

fn of_machine(metadata: &Scripted) -> RemoteAccount {
    let path = "computeMetadata/v1/instance/service-accounts/default/email";
    RemoteAccount::OfMachine(Url::parse(&format!("http://{}/{path}", metadata.address)).unwrap())
}

/// What IAM Credentials says when it has signed.
fn signed() -> Step {
    let body = serde_json::json!({ "keyId": "1", "signedBlob": STANDARD.encode([0xAB; 256]) });
    answer(200, &[], &body.to_string())
}

#[tokio::test]
async fn a_url_bears_the_signature_of_the_key_over_what_the_client_will_send() {
    let server = Scripted::start([opened()]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let (_tokens, credentials) = key_for(&file, [answer(200, &[], &token_answer("t1"))]).await;
    let settings = settings(&format!("http://{}", server.address), Duration::from_secs(5));
    let settings = Settings { credentials, ..settings };
    let wanted = Options { signing: Signing::Wanted, ..options() };
    let storage = Storage::open_with(&settings, wanted, QUICK).await.unwrap();

    let uri = sign(&storage, QUARTER).await.unwrap();
    let (signed, signature) = uri.expose().split_once("&X-Goog-Signature=").unwrap();
    let path = "/media-eu/videos/u%2017/%C3%A4.mp4";
    assert!(signed.starts_with(&format!("http://{}{path}?X-Goog-Algorithm=GOOG4-RSA-SHA256&", server.address)));
    assert!(signed.contains("&X-Goog-Credential=broker%40acme.example%2F20260307%2Fauto%2Fstorage%2Fgoog4_request&"));
    assert_eq!(signed_until(&uri), Some(NOW.plus(QUARTER)));
    assert_eq!(server.count(), 0, "storage is not asked");

    let (bucket, object, promise, metadata) = (bucket(), object(), promise(), BTreeMap::new());
    let headers = signed_headers(SignedMethod::Put, &small(&bucket, &object, &promise, &metadata));
    let origin = format!("http://{}", server.address);
    let request = Canonical { method: "PUT", origin: &origin, path, query: &[], headers: &headers };
    let text = request.unsigned(BROKER, NOW, QUARTER).unwrap().string_to_sign;
    let signature: Vec<u8> =
        (0..signature.len()).step_by(2).map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap()).collect();
    let key = RsaKeyPair::from_pkcs8(PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap().secret_pkcs8_der());
    let key = key.unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    assert!(public.verify(text.as_bytes(), &signature).is_ok());
    assert!(public.verify(text.replace("20260307T", "20260308T").as_bytes(), &signature).is_err());

    for (name, object, metadata, lifetime) in [
        ("longer than storage allows", "a", ("k", "v"), Duration::from_secs(604_801)),
        ("a name that URL types read otherwise", "a/../b", ("k", "v"), QUARTER),
        ("metadata beyond ASCII", "a", ("k", "ä"), QUARTER),
        ("metadata with a line break", "a", ("k", "v\r\nx-goog-acl: public-read"), QUARTER),
    ] {
        let metadata = BTreeMap::from([(metadata.0.to_owned(), metadata.1.to_owned())]);
        let refused = sign_with(&storage, object, &metadata, lifetime).await;
        assert!(matches!(refused, Err(Error::Nonsense(_))), "{name}: {refused:?}");
    }
    let longest = sign(&storage, Duration::from_secs(604_800)).await;
    assert!(longest.is_ok(), "a key at hand is not bound to twelve hours");
}

#[tokio::test]
async fn a_key_signs_no_more_at_a_time_than_there_are_processors() {
    let server = Scripted::start([opened()]).await;
    let mut storage = client(&server).await;
    let identity = SigningIdentity::Key { email: BROKER.to_owned(), private_key: SecretText::new(KEY.clone()) };
    let signer = Signer::new(identity).unwrap();
    let Signer::Key { slots, .. } = &signer else { panic!("the key is at hand") };
    let slots = Arc::clone(slots);
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(slots.available_permits(), processors);
    storage.signer = Some(signer);

    let all = slots.acquire_many(u32::try_from(processors).unwrap()).await.unwrap();
    let (bucket, object, promise, metadata) = (bucket(), object(), promise(), BTreeMap::new());
    let initiation = small(&bucket, &object, &promise, &metadata);
    let deadline = Instant::now() + Duration::from_millis(50);
    let late = storage.sign(SignedMethod::Put, &initiation, NOW, QUARTER, deadline).await;
    assert!(matches!(late, Err(Error::Overloaded)), "{late:?}");
    drop(all);
    assert!(sign(&storage, QUARTER).await.is_ok());
    let operations = storage.caller.signing.hold_operations();
    assert!(matches!(sign(&storage, QUARTER).await, Err(Error::Overloaded)), "and the queue has an end");
    drop(operations);
    assert!(sign(&storage, QUARTER).await.is_ok());
}

#[tokio::test]
async fn who_cannot_sign_is_told_before_anything_is_signed() {
    let server = Scripted::start([opened()]).await;
    let settings = settings(&format!("http://{}", server.address), Duration::from_secs(5));
    let wanted = Options { signing: Signing::Wanted, ..options() };
    let told = Storage::open_with(&settings, wanted, QUICK).await.err().unwrap().to_string();
    assert_eq!(told, "there is nobody to sign URLs: the credentials for storage are a token that means nothing");
    assert!(matches!(sign(&client(&server).await, QUARTER).await, Err(Error::Nonsense(_))), "nor later");

    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    // What is in it behind 26 bytes that say that it is an RSA key.
    let pkcs1 = STANDARD.encode(&pkcs8.secret_pkcs8_der()[26..]);
    let pkcs1 = format!("-----BEGIN RSA PRIVATE KEY-----\n{pkcs1}\n-----END RSA PRIVATE KEY-----\n");
    let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let key =
        |pem: &str| SigningIdentity::Key { email: BROKER.to_owned(), private_key: SecretText::new(pem.to_owned()) };
    let account = |name: &str| remote_identity(&server, RemoteAccount::Named(name.to_owned()));
    let person = "a person's login";
    for (name, identity, expected) in [
        ("PKCS#8", key(&KEY), None),
        ("PKCS#1", key(&pkcs1), None),
        ("another kind of key", key(&elliptic), Some("no RSA key")),
        ("no key", key("-----BEGIN s3cret"), Some("no RSA key")),
        ("half a key", key(&KEY.replace("MII", "")), Some("no RSA key")),
        ("a person", SigningIdentity::Nobody { whose: person }, Some(person)),
        ("an account", account(BROKER), None),
        ("another path", account("a@b/../c"), Some("no e-mail address")),
        ("a query", account("a@b?c"), Some("no e-mail address")),
        ("two accounts", account("a@b@c"), Some("no e-mail address")),
        ("no account", account("acme.svc.id.goog"), Some("no e-mail address")),
    ] {
        let told = Signer::new(identity).err().map(|error| error.to_string());
        assert_eq!(told.is_some(), expected.is_some(), "{name}: {told:?}");
        let told = told.unwrap_or_default();
        assert!(told.contains(expected.unwrap_or_default()) && !told.contains("s3cret"), "{name}: {told}");
    }
}

#[tokio::test]
async fn iam_credentials_signs_what_a_key_would() {
    let server = Scripted::start([signed()]).await;
    let storage = remote(&server, named()).await;
    let uri = sign(&storage, QUARTER).await.unwrap();
    let (_, signature) = uri.expose().split_once("&X-Goog-Signature=").unwrap();
    assert_eq!(signature, "ab".repeat(256));

    let (bucket, object, promise, metadata) = (bucket(), object(), promise(), BTreeMap::new());
    let headers = signed_headers(SignedMethod::Put, &small(&bucket, &object, &promise, &metadata));
    let origin = format!("http://{}", server.address);
    let path = "/media-eu/videos/u%2017/%C3%A4.mp4";
    let request = Canonical { method: "PUT", origin: &origin, path, query: &[], headers: &headers };
    let text = request.unsigned(BROKER, NOW, QUARTER).unwrap().string_to_sign;
    let body = format!(r#"{{"payload":"{}"}}"#, STANDARD.encode(text));
    assert_eq!(
        sorted(&server.seen()[0]),
        [
            "POST /v1/projects/-/serviceAccounts/broker@acme.example:signBlob HTTP/1.1",
            "accept: */*",
            "authorization: Bearer stand-in",
            &format!("content-length: {}", body.len()),
            "content-type: application/json",
            "user-agent: upload-broker/test",
            &body,
        ]
    );
    assert!(sign(&storage, Duration::from_secs(12 * 3600)).await.is_ok());
    let longer = sign(&storage, Duration::from_secs(12 * 3600 + 1)).await;
    assert!(matches!(longer, Err(Error::Nonsense(_))));
    assert_eq!(server.count(), 2, "what could not be kept is not signed");
}

#[tokio::test]
async fn what_iam_credentials_may_say_beside_a_signature_is_told_apart() {
    let forbidden = r#"{"error":{"code":403,"message":"s3cret","status":"PERMISSION_DENIED"}}"#;
    let with = |text: &str| answer(200, &[], &serde_json::json!({ "signedBlob": text }).to_string());
    let no_signature = "makes no sense: an answer of IAM Credentials without a signature";
    for (name, steps, count, expected) in [
        ("503, then a signature", vec![answer(503, &[], ""), signed()], 2, "ok"),
        ("503 always", vec![answer(503, &["retry-after: 60"], "")], 1, "IAM Credentials is not available: it answered"),
        ("429, then a signature", vec![answer(429, &[], ""), signed()], 2, "ok"),
        ("a cut, then a signature", vec![Step::Close, signed()], 2, "ok"),
        (
            "403",
            vec![answer(403, &[], forbidden)],
            1,
            "IAM Credentials refused to sign, with status 403, PERMISSION_DENIED",
        ),
        ("404", vec![answer(404, &[], "<html>")], 1, "IAM Credentials refused to sign, with status 404"),
        ("401 always", vec![answer(401, &[], "")], 2, "IAM Credentials does not accept the broker's token"),
        ("a page", vec![answer(200, &[], "<html>s3cret")], 1, no_signature),
        ("nothing", vec![answer(200, &[], "")], 1, no_signature),
        ("no member", vec![answer(200, &[], r#"{"keyId":"s3cret"}"#)], 1, no_signature),
        ("no base64", vec![with("s3cret!")], 1, no_signature),
        ("too short for RSA", vec![with(&STANDARD.encode([0; 64]))], 1, no_signature),
        ("too long for RSA", vec![with(&STANDARD.encode([0; 1025]))], 1, no_signature),
        ("longer than is read", vec![with(&"A".repeat(80_000))], 1, no_signature),
        (
            "a redirect",
            vec![answer(302, &["location: http://127.0.0.1:1/"], "")],
            1,
            "of IAM Credentials with a status",
        ),
    ] {
        let server = Scripted::start(steps).await;
        let storage = remote(&server, named()).await;
        let told = match sign(&storage, QUARTER).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => chain(&error),
        };
        assert!(told.contains(expected) && !told.contains("s3cret"), "{name}: {told}");
        assert_eq!(server.count(), count, "{name}");
        let metrics = metrics(&storage);
        assert!(metrics.contains("operation=\"sign\",class=\"free\""), "{name}: {metrics}");
    }
}

fn metrics(storage: &Storage) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    storage.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test]
async fn a_token_that_iam_credentials_refuses_is_replaced() {
    let server = Scripted::start([answer(401, &[], ""), signed()]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let grants = ["t1", "t2"].map(|token| answer(200, &[], &token_answer(token)));
    let (tokens, credentials) = key_for(&file, grants).await;
    let settings = settings(&format!("http://{}", server.address), Duration::from_secs(5));
    let mut storage = Storage::open_with(&Settings { credentials, ..settings }, options(), QUICK).await.unwrap();
    storage.signer = Some(Signer::new(remote_identity(&server, named())).unwrap());
    assert!(sign(&storage, QUARTER).await.is_ok());
    assert!(server.seen()[0].contains("Bearer t1\r\n") && server.seen()[1].contains("Bearer t2\r\n"));
    assert_eq!(tokens.count(), 2);
}

#[tokio::test]
async fn an_outage_of_iam_credentials_takes_nothing_from_storage() {
    let iam = Scripted::start([answer(503, &[], "")]).await;
    let server = Scripted::start([answer(503, &[], ""), opened()]).await;
    let mut storage = client(&server).await;
    storage.signer = Some(Signer::new(remote_identity(&iam, named())).unwrap());
    let storage = Arc::new(storage);
    let mut callers = JoinSet::new();
    for _ in 0..60 {
        let storage = Arc::clone(&storage);
        let deadline = Instant::now() + Duration::from_millis(500);
        callers.spawn(async move {
            let (bucket, object, promise, metadata) = (bucket(), object(), promise(), BTreeMap::new());
            let initiation = small(&bucket, &object, &promise, &metadata);
            storage.sign(SignedMethod::Put, &initiation, NOW, QUARTER, deadline).await
        });
    }
    assert!(callers.join_all().await.iter().all(Result::is_err));
    assert!(iam.count() > 100, "all retries that there were for signatures: {}", iam.count());
    let _calls = storage.caller.signing.hold_calls(CALLS).await;
    let _operations = storage.caller.signing.hold_operations();
    assert!(matches!(sign(&storage, QUARTER).await, Err(Error::Overloaded)));
    assert!(initiate(&storage, soon()).await.is_ok(), "and storage is asked, and asked again");
}

/// The machine's account, as the metadata server says it.
fn account(name: &str) -> Step {
    answer(200, &["metadata-flavor: Google"], name)
}

#[tokio::test]
async fn the_account_of_the_machine_is_asked_for_once_by_all() {
    let server = Scripted::start([signed()]).await;
    let Step::Answer(slow) = account(&format!("{BROKER}\n")) else { panic!("an answer is one") };
    let metadata = Scripted::start([Step::Later(Duration::from_millis(100), slow)]).await;
    let storage = Arc::new(remote(&server, of_machine(&metadata)).await);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let storage = Arc::clone(&storage);
        callers.spawn(async move { sign(&storage, QUARTER).await });
    }
    for uri in callers.join_all().await {
        assert!(uri.unwrap().expose().contains("X-Goog-Credential=broker%40acme.example%2F"));
    }
    assert_eq!((server.count(), metadata.count()), (20, 1));
    let seen = &metadata.seen()[0];
    assert!(seen.starts_with("GET /computeMetadata/v1/instance/service-accounts/default/email HTTP/1.1\r\n"));
    assert!(seen.contains("metadata-flavor: Google\r\n") && !seen.contains("authorization"), "{seen}");
}

#[tokio::test]
async fn a_machine_without_an_account_is_asked_again_the_next_time() {
    for (name, step, expected) in [
        ("none", answer(404, &["metadata-flavor: Google"], ""), "does not name the machine's service account"),
        ("another server", answer(200, &[], BROKER), "not from a metadata server of Google"),
        ("an outage", answer(503, &["retry-after: 60"], ""), "the metadata server is not available"),
        ("a pool of GKE", account("acme.svc.id.goog"), "is no service account"),
        ("a way out of the path", account("a@b/../../c"), "is no service account"),
        ("an endless one", account(&"a".repeat(80_000)), "is no service account"),
    ] {
        let server = Scripted::start([signed()]).await;
        let metadata = Scripted::start([step, account(BROKER)]).await;
        let storage = remote(&server, of_machine(&metadata)).await;
        let told = sign(&storage, QUARTER).await.unwrap_err().to_string();
        assert!(told.contains(expected), "{name}: {told}");
        assert_eq!(server.count(), 0, "{name}");
        assert!(sign(&storage, QUARTER).await.is_ok(), "{name}");
        assert!(sign(&storage, QUARTER).await.is_ok(), "{name}");
        assert_eq!((server.count(), metadata.count()), (2, 2), "{name}");
    }
}

#[tokio::test]
async fn a_deadline_bounds_the_wait_for_a_signature() {
    for stalled in [Upstream::IamCredentials, Upstream::MetadataServer] {
        let server = Scripted::start([Step::Stall]).await;
        let metadata =
            Scripted::start([if stalled == Upstream::IamCredentials { account(BROKER) } else { Step::Stall }]).await;
        let storage = remote(&server, of_machine(&metadata)).await;
        let (bucket, object, promise, metadata) = (bucket(), object(), promise(), BTreeMap::new());
        let initiation = small(&bucket, &object, &promise, &metadata);
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(200);
        let late = storage.sign(SignedMethod::Put, &initiation, NOW, QUARTER, deadline).await;
        assert!(matches!(late, Err(Error::TimedOut { whom }) if whom == stalled), "{stalled}: {late:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{stalled}");
    }
}
