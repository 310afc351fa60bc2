//! Tokens over the wire, and what becomes of calls without one.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::telemetry::testing::Log;

/// A client of `server` whose tokens are got by a key.
async fn client_with_key(server: &Scripted, credentials: Credentials) -> Storage {
    let settings = settings(&format!("http://{}", server.address), Duration::from_secs(5));
    Storage::open_with(&Settings { credentials, ..settings }, options(), QUICK).await.unwrap()
}

#[tokio::test]
async fn a_key_gets_one_token_for_fifty_callers() {
    let server = Scripted::start([opened()]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let slowly = Step::Later(Duration::from_millis(100), raw(&answer(200, &[], &token_answer("t1"))));
    let (tokens, key) = key_for(&file, [slowly]).await;
    let storage = Arc::new(client_with_key(&server, key).await);
    assert_eq!(storage.ready(), Err(NotReady(TokenError::NotYet)));
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let storage = Arc::clone(&storage);
        callers.spawn(async move { initiate(&storage, soon()).await.is_ok() });
    }
    assert!(callers.join_all().await.into_iter().all(|served| served));
    assert_eq!(storage.ready(), Ok(()));
    assert_eq!((server.count(), tokens.count()), (50, 1));
    assert!(server.seen().iter().all(|request| request.contains("authorization: Bearer t1\r\n")));
    assert!(tokens.seen()[0].contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey"));
}

fn raw(step: &Step) -> String {
    match step {
        Step::Answer(bytes) => bytes.clone(),
        step => panic!("{step:?} has no bytes that stay"),
    }
}

#[tokio::test]
async fn a_token_that_storage_refuses_is_replaced() {
    let server = Scripted::start([answer(401, &[], ""), opened(), answer(401, &[], "")]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let grants = ["t1", "t2", "t3"].map(|token| answer(200, &[], &token_answer(token)));
    let (tokens, key) = key_for(&file, grants).await;
    let storage = client_with_key(&server, key).await;
    initiate(&storage, soon()).await.unwrap();
    assert!(server.seen()[0].contains("Bearer t1\r\n") && server.seen()[1].contains("Bearer t2\r\n"));
    for _ in 0..5 {
        assert!(matches!(initiate(&storage, soon()).await, Err(Error::Unauthenticated { whom: Upstream::Storage })));
    }
    assert_eq!(tokens.count(), 2, "a storage that refuses everything does not flood the token server");
}

#[tokio::test]
async fn a_token_server_that_fails_is_told_apart_and_asked_again() {
    let error = r#"{"error":"invalid_grant","error_description":"Invalid JWT: s3cret"}"#;
    let google = r#"{"error":{"code":500,"message":"s3cret"}}"#;
    for (name, step, expected) in [
        // The library takes these for a success without a token, and would keep that.
        ("an empty object", answer(500, &[], "{}"), "makes no sense: it holds no bearer token"),
        ("an error of Google's form", answer(500, &[], google), "makes no sense: it holds no bearer token"),
        ("an error of OAuth's form", answer(400, &[], error), "/token refused: invalid_grant"),
        ("a page", answer(502, &[], "<html>s3cret"), "makes no sense: it is no JSON"),
        ("no token", answer(200, &[], r#"{"token_type":"Bearer","expires_in":3599}"#), "it holds no bearer token"),
        (
            "another kind",
            answer(200, &[], r#"{"access_token":"s3cret","token_type":"mac"}"#),
            "it holds no bearer token",
        ),
        ("a cut", Step::Close, "/token cannot be reached: "),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (tokens, key) = key_for(&file, [step, answer(200, &[], &token_answer("t2"))]).await;
        let origin = origin(&key, &Environment::default()).await;
        let told = fetch(&origin).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains(expected) && !told.contains("s3cret"), "{name}: {told}");
        let whom = whom(file.path(), "service_account", &tokens);
        assert!(told.starts_with(&whom), "{name}: {told}");
        assert_eq!(fetch(&origin).await, Ok("t2".to_owned()), "{name}: it gets over that");
    }
}

/// Who is asked, as errors name it.
fn whom(file: &Path, kind: &str, tokens: &Scripted) -> String {
    format!("the credentials file {} ({kind}): the token server http://{}/token", file.display(), tokens.address)
}

#[tokio::test]
async fn storage_is_not_asked_without_a_token() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (tokens, key) = key_for(&file, [answer(400, &[], r#"{"error":"invalid_grant"}"#)]).await;
    let server = Scripted::start([opened()]).await;
    let storage = client_with_key(&server, key).await;
    let told = chain(&initiate(&storage, soon()).await.unwrap_err());
    let reason = format!("{} refused: invalid_grant", whom(file.path(), "service_account", &tokens));
    assert_eq!(told, format!("there is no token for storage: {reason}"));
    assert_eq!(storage.ready().unwrap_err().to_string(), reason);
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn the_metadata_server_is_believed_if_it_is_one() {
    let flavor = "metadata-flavor: Google";
    let grant = token_answer("t1");
    for (name, step, expected) in [
        ("a token", answer(200, &[flavor], &grant), Ok("t1")),
        ("no flavor", answer(200, &[], &grant), Err("not from a metadata server of Google")),
        ("another flavor", answer(200, &["metadata-flavor: Vanilla"], &grant), Err("not from a metadata server")),
        ("no service account", answer(404, &[flavor], "Not Found"), Err(" refused: 404")),
        ("a failure with a token", answer(503, &[flavor], &grant), Err(" refused: 503")),
        ("no JSON", answer(200, &[flavor], "s3cret"), Err("it holds no bearer token")),
        ("no end", answer(200, &[flavor], &"x".repeat(100_000)), Err("it has no end")),
        ("a redirect", answer(302, &[flavor, "location: https://evil.example/"], ""), Err("refused: 302")),
        ("no answer", Step::Close, Err("GOOGLE_APPLICATION_CREDENTIALS is not set")),
    ] {
        let server = Scripted::start([step]).await;
        let environment = Environment { gce_metadata_host: Some(server.address.to_string()), ..Environment::default() };
        let origin = origin(&Credentials::Auto, &environment).await;
        match (fetch(&origin).await, expected) {
            (Ok(token), Ok(expected)) => assert_eq!(token, expected, "{name}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part) && !error.to_string().contains("s3cret"), "{name}: {error}");
            }
            (fetched, _) => panic!("{name}: {fetched:?}"),
        }
        let request = sorted(&server.seen()[0]);
        let scope = "https://www.googleapis.com/auth/devstorage.read_write";
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        assert_eq!(request[0], format!("GET {path}?scopes={scope} HTTP/1.1"), "{name}");
        assert!(request.contains(&"metadata-flavor: Google".to_owned()), "{name}");
    }
}

#[tokio::test]
async fn nothing_found_is_explained() {
    let server = Scripted::start([opened()]).await;
    let address = server.address;
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let environment = Environment {
        home: Some("/nonexistent".into()),
        gce_metadata_host: Some(address.to_string()),
        ..Environment::default()
    };
    let told = fetch(&origin(&Credentials::Auto, &environment).await).await.unwrap_err().to_string();
    let expected = format!(
        "no credentials were found: GOOGLE_APPLICATION_CREDENTIALS is not set, \
         /nonexistent/.config/gcloud/application_default_credentials.json does not exist, \
         the metadata server {address} cannot be reached: Connection refused"
    );
    assert!(told.starts_with(&expected), "{told}");
}

#[tokio::test]
async fn a_client_that_cannot_work_is_not_built() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let ecdsa = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let key = Credentials::File { file: file.path().to_owned() };
    let google = settings("https://storage.googleapis.com", Duration::from_secs(1));
    for (name, private_key) in [("no PEM", "s3cret"), ("no RSA key", &*ecdsa)] {
        write_key(&file, private_key, "https://oauth2.googleapis.com/token");
        let opened = Storage::open(&Settings { credentials: key.clone(), ..google.clone() }, options()).await;
        let told = opened.err().map(|error| chain(&error)).unwrap_or_default();
        let expected = format!("the credentials file {path} has a \"private_key\" that is no RSA key in PEM");
        assert_eq!(told, expected, "{name}");
    }
    let queried = settings("https://storage.example/?a=b", Duration::from_secs(1));
    assert!(matches!(Storage::open(&queried, options()).await, Err(OpenError::Endpoint(_))));
    for timeout in [Duration::ZERO, Duration::MAX] {
        let timed = settings("https://storage.googleapis.com", timeout);
        assert!(matches!(Storage::open(&timed, options()).await, Err(OpenError::Timeout)), "{timeout:?}");
    }
    let distrustful = Options { trusted_ca: vec![CertificateDer::from(vec![1, 2, 3])], ..options() };
    assert!(matches!(Storage::open(&google, distrustful).await, Err(OpenError::Trust(_))));
    let split = Options { user_agent: "a\r\nb".to_owned(), ..options() };
    assert!(matches!(Storage::open(&google, split).await, Err(OpenError::Client(_))));
}

#[tokio::test]
async fn no_log_line_holds_a_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // A lone dispatcher is asked only on the thread that comes to a log line first, which may be that of another test;
    // of two, each is asked.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let flavor = "metadata-flavor: Google";
    let tokens = Scripted::start([answer(200, &[flavor], &token_answer("s3cret"))]).await;
    let server = Scripted::start([answer(503, &[], "s3cret"), opened(), answer(400, &[], "s3cret"), Step::Stall]).await;
    let environment = Environment { gce_metadata_host: Some(tokens.address.to_string()), ..Environment::default() };
    let settings = settings(&format!("http://{}", server.address), Duration::from_millis(500));
    let storage = Storage::open_with(&settings, Options { environment, ..options() }, QUICK).await.unwrap();
    let session = initiate(&storage, soon()).await.unwrap();
    assert!(storage.look(&session, soon()).await.is_err());
    assert!(storage.cancel(&session, soon()).await.is_err());
    drop(guard);
    let text = log.text();
    assert!(text.contains("storage is asked again") && text.contains("a storage token was received"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(server.seen().iter().any(|request| request.contains("s3cret")), "the secrets were in use");
}
