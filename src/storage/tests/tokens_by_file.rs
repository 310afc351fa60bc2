//! Tokens by every kind of credentials file, over the wire.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::telemetry::testing::Log;

/// Where access tokens are asked for on `server`, and so on: one server plays all parts, in the order of its script.
struct Files {
    directory: TempDir,
    server: Scripted,
}

const ACCOUNT: &str = "/v1/projects/-/serviceAccounts/b@acme.example:generateAccessToken";

impl Files {
    async fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap(), server: Scripted::start(steps).await };
        files.subject("subject-s3cret-1\n");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts another subject token in place.
    fn subject(&self, token: &str) {
        std::fs::write(self.path("subject"), token).unwrap();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    fn credentials(&self, document: &Value) -> Credentials {
        std::fs::write(self.path("c.json"), document.to_string()).unwrap();
        Credentials::File { file: self.path("c.json") }
    }

    async fn origin(&self, kind: Kind) -> Origin {
        origin(&self.credentials(&self.document(kind)), &Environment::default()).await
    }

    fn document(&self, kind: Kind) -> Value {
        match kind {
            Kind::Key => json!({
                "type": "service_account", "client_email": "a@acme.example", "private_key": *KEY,
                "token_uri": self.url("/token"),
            }),
            Kind::Person => json!({
                "type": "authorized_user", "client_id": "c", "client_secret": "s3cret&1", "refresh_token": "s3cret 2",
                "token_uri": self.url("/token"),
            }),
            Kind::FederationByFile => json!({
                "type": "external_account", "audience": "//iam.example/pool", "subject_token_type": "urn:jwt",
                "token_url": self.url("/token"), "credential_source": {"file": self.path("subject")},
            }),
            Kind::FederationByUrl => {
                let mut document = self.document(Kind::FederationByFile);
                document["credential_source"] = json!({
                    "url": self.url("/subject?key=s3cret"), "headers": {"X-Key": "s3cret"},
                    "format": {"type": "json", "subject_token_field_name": "id_token"},
                });
                document
            }
            Kind::FederatedAccount => {
                let mut document = self.document(Kind::FederationByFile);
                document["service_account_impersonation_url"] = json!(self.url(ACCOUNT));
                document["service_account_impersonation"] = json!({"token_lifetime_seconds": 1200});
                document
            }
            Kind::AccountByPerson => json!({
                "type": "impersonated_service_account", "service_account_impersonation_url": self.url(ACCOUNT),
                "delegates": ["projects/-/serviceAccounts/d@acme.example"],
                "source_credentials": self.document(Kind::Person),
            }),
            Kind::AccountByKey => json!({
                "type": "impersonated_service_account", "service_account_impersonation_url": self.url(ACCOUNT),
                "source_credentials": self.document(Kind::Key),
            }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Key,
    Person,
    FederationByFile,
    FederationByUrl,
    FederatedAccount,
    AccountByPerson,
    AccountByKey,
}

const KINDS: [Kind; 7] = [
    Kind::Key,
    Kind::Person,
    Kind::FederationByFile,
    Kind::FederationByUrl,
    Kind::FederatedAccount,
    Kind::AccountByPerson,
    Kind::AccountByKey,
];

/// A question that a kind asks on the way to a token.
#[derive(Clone, Copy)]
enum Asked {
    Subject,
    Login,
    Account,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "service_account",
            Self::Person => "authorized_user",
            Self::FederationByFile | Self::FederationByUrl | Self::FederatedAccount => "external_account",
            Self::AccountByPerson | Self::AccountByKey => "impersonated_service_account",
        }
    }

    fn asks(self) -> &'static [Asked] {
        match self {
            Self::Key | Self::Person | Self::FederationByFile => &[Asked::Login],
            Self::FederationByUrl => &[Asked::Subject, Asked::Login],
            Self::FederatedAccount | Self::AccountByPerson | Self::AccountByKey => &[Asked::Login, Asked::Account],
        }
    }

    /// The answers that lead to `token`.
    fn grants(self, token: &str, life: u64) -> Vec<Step> {
        self.asks()
            .iter()
            .enumerate()
            .map(|(index, asked)| {
                let last = index + 1 == self.asks().len();
                asked.grants(if last { token } else { "s3cret-source" }, life)
            })
            .collect()
    }
}

impl Asked {
    fn grants(self, token: &str, life: u64) -> Step {
        let end = jiff::Timestamp::from_second(Clock::System.now().as_secs() + i64::try_from(life).unwrap()).unwrap();
        let body = match self {
            Self::Subject => json!({"id_token": "subject-s3cret-url", "other": 1}),
            Self::Login => json!({"access_token": token, "expires_in": life, "token_type": "Bearer"}),
            Self::Account => json!({"accessToken": token, "expireTime": end.to_string()}),
        };
        answer(200, &[], &body.to_string())
    }

    /// As errors name who is asked.
    fn whom(self, files: &Files) -> String {
        match self {
            Self::Subject => format!("the subject token server {}", files.url("/subject")),
            Self::Login => format!("the token server {}", files.url("/token")),
            Self::Account => format!("the token server {}", files.url(ACCOUNT)),
        }
    }
}

const STORAGE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
const IAM: &str = "https://www.googleapis.com/auth/iam";

/// The form or JSON of each request, and what it bears, decoded.
fn questions(server: &Scripted) -> Vec<String> {
    let question = |request: &String| {
        let lines = sorted(request);
        let authorization = lines.iter().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or("-");
        let body = lines.last().unwrap();
        let body = if body.starts_with('{') {
            body.clone()
        } else {
            let pairs = url::form_urlencoded::parse(body.as_bytes());
            pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("|")
        };
        format!("{} {authorization} {body}", lines[0].strip_suffix(" HTTP/1.1").unwrap())
    };
    server.seen().iter().map(question).collect()
}

fn exchange(subject: &str, scope: &str) -> String {
    let urn = "urn:ietf:params:oauth";
    format!(
        "POST /token - grant_type={urn}:grant-type:token-exchange|audience=//iam.example/pool|scope={scope}\
         |requested_token_type={urn}:token-type:access_token|subject_token_type=urn:jwt|subject_token={subject}"
    )
}

fn impersonation(scopes: &str, lifetime: u64, delegates: &str) -> String {
    let body = format!(r#"{{"scope":[{scopes}],"lifetime":"{lifetime}s","delegates":[{delegates}]}}"#);
    format!("POST {ACCOUNT} Bearer s3cret-source {body}")
}

#[tokio::test]
async fn each_kind_asks_what_it_should() {
    let refresh = "POST /token - grant_type=refresh_token|client_id=c|client_secret=s3cret&1|refresh_token=s3cret 2";
    let delegate = "\"projects/-/serviceAccounts/d@acme.example\"";
    let (for_storage, for_signing) = (format!("\"{STORAGE}\""), format!("\"{STORAGE}\",\"{IAM}\""));
    for (kind, signing, expected) in [
        (Kind::Person, Signing::Unused, vec![refresh.to_owned()]),
        (Kind::Person, Signing::Wanted, vec![refresh.to_owned()]),
        (Kind::FederationByFile, Signing::Unused, vec![exchange("subject-s3cret-1", STORAGE)]),
        (Kind::FederationByFile, Signing::Wanted, vec![exchange("subject-s3cret-1", STORAGE)]),
        (
            Kind::FederationByUrl,
            Signing::Unused,
            vec!["GET /subject?key=s3cret - ".to_owned(), exchange("subject-s3cret-url", STORAGE)],
        ),
        (
            Kind::FederatedAccount,
            Signing::Unused,
            vec![exchange("subject-s3cret-1", CLOUD), impersonation(&for_storage, 1200, "")],
        ),
        (
            Kind::FederatedAccount,
            Signing::Wanted,
            vec![exchange("subject-s3cret-1", CLOUD), impersonation(&for_signing, 1200, "")],
        ),
        (Kind::AccountByPerson, Signing::Wanted, vec![refresh.to_owned(), impersonation(&for_signing, 3600, delegate)]),
    ] {
        let files = Files::new(kind.grants("t1", 3600)).await;
        let credentials = files.credentials(&files.document(kind));
        let origin = origin_for(&credentials, &Environment::default(), signing).await;
        assert_eq!(fetch(&origin).await, Ok("t1".to_owned()), "{kind:?}");
        assert_eq!(questions(&files.server), expected, "{kind:?}, {signing:?}");
    }
}

#[tokio::test]
async fn a_key_and_a_machine_ask_for_the_scopes_that_they_need() {
    for (kind, signing, expected) in [
        (Kind::Key, Signing::Unused, STORAGE),
        // It signs by itself.
        (Kind::Key, Signing::Wanted, STORAGE),
        (Kind::AccountByKey, Signing::Wanted, CLOUD),
    ] {
        let files = Files::new(kind.grants("t1", 3600)).await;
        let credentials = files.credentials(&files.document(kind));
        fetch(&origin_for(&credentials, &Environment::default(), signing).await).await.unwrap();
        let question = questions(&files.server).remove(0);
        let claims = question.split('.').nth(1).unwrap();
        let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE, claims)
            .or_else(|_| base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims));
        let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
        assert_eq!(claims["scope"], expected, "{kind:?}");
    }
    let server = Scripted::start([answer(200, &["metadata-flavor: Google"], &token_answer("t1"))]).await;
    let environment = Environment { gce_metadata_host: Some(server.address.to_string()), ..Environment::default() };
    fetch(&origin_for(&Credentials::Auto, &environment, Signing::Wanted).await).await.unwrap();
    assert!(server.seen()[0].contains(&format!("/token?scopes={STORAGE},{IAM} HTTP/1.1\r\n")));
}

#[tokio::test]
async fn what_goes_wrong_names_who_was_asked_and_is_got_over() {
    let oauth = r#"{"error":"invalid_grant","error_description":"s3cret"}"#;
    let google = r#"{"error":{"code":403,"message":"s3cret","status":"PERMISSION_DENIED"}}"#;
    let crooked = r#"{"error":"s3cret: it was!"}"#;
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Key) {
        for (index, asked) in kind.asks().iter().enumerate() {
            for (name, step, expected) in [
                ("OAuth's refusal", answer(400, &[], oauth), "refused: invalid_grant"),
                ("Google's refusal", answer(403, &[], google), "refused: PERMISSION_DENIED"),
                ("a crooked refusal", answer(400, &[], crooked), "refused: 400"),
                ("an outage", answer(503, &[], "s3cret"), "refused: 503"),
                ("an outage with a token", answer(503, &[], &token_answer("s3cret")), "refused: 503"),
                ("a redirect", answer(307, &["location: https://evil.example/"], ""), "refused: 307"),
                ("nothing", answer(200, &[], "{}"), ""),
                ("a page", answer(200, &[], "<html>s3cret"), ""),
                ("another kind of token", answer(200, &[], r#"{"access_token":"s3cret","token_type":"mac"}"#), ""),
                ("no end", answer(200, &[], &"x".repeat(100_000)), "gave an answer that makes no sense: it has no end"),
                ("a cut", Step::Close, "cannot be reached: "),
                ("silence", Step::Stall, "did not answer in time"),
            ] {
                if kind == Kind::AccountByKey && index == 0 {
                    // The library's own exchange, looked at elsewhere.
                    continue;
                }
                let nonsense = match asked {
                    Asked::Subject => "holds no subject token in the configured format",
                    Asked::Login | Asked::Account => "gave an answer that makes no sense: it holds no bearer token",
                };
                let expected = if expected.is_empty() { nonsense } else { expected };
                let mut steps = kind.grants("t1", 3600);
                steps.truncate(index);
                let silent = matches!(step, Step::Stall);
                steps.push(step);
                steps.extend(kind.grants("t2", 3600));
                let files = Files::new(steps).await;
                let origin = files.origin(kind).await;
                let deadline = if silent { Instant::now() + Duration::from_millis(200) } else { soon() };
                let told = origin.fetch(deadline).await.err().map(|error| error.to_string()).unwrap_or_default();
                let file = files.path("c.json").display().to_string();
                let whom = format!("the credentials file {file} ({}): {}", kind.name(), asked.whom(&files));
                assert!(told.starts_with(&format!("{whom} {expected}")), "{kind:?}, {name}: {told}");
                assert!(!told.contains("s3cret") && !told.contains("evil"), "{kind:?}, {name}: {told}");
                assert_eq!(fetch(&origin).await, Ok("t2".to_owned()), "{kind:?}, {name}: it gets over that");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    for kind in KINDS {
        let files = Files::new(kind.grants("t1", 3600)).await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nowhere = listener.local_addr().unwrap().to_string();
        drop(listener);
        let text = files.document(kind).to_string().replace(&files.server.address.to_string(), &nowhere);
        let credentials = files.credentials(&serde_json::from_str(&text).unwrap());
        let told = fetch(&origin(&credentials, &Environment::default()).await).await.unwrap_err().to_string();
        let expected = format!("({}): the ", kind.name());
        assert!(told.contains(&expected) && told.contains(&nowhere), "{kind:?}: {told}");
        assert!(told.contains(" cannot be reached: Connection refused"), "{kind:?}: {told}");
    }
}

#[tokio::test]
async fn subject_tokens_are_read_anew_each_time() {
    let files = Files::new([Asked::Login.grants("t", 3600)]).await;
    let origin = files.origin(Kind::FederationByFile).await;
    let long = "x".repeat(12 * 1024);
    for subject in ["first", "second", &*long] {
        files.subject(&format!("{subject}\n"));
        fetch(&origin).await.unwrap();
        assert_eq!(questions(&files.server).last(), Some(&exchange(subject, STORAGE)));
    }
    let asked = files.server.count();
    for (name, subject, expected) in [
        ("empty", Some(" \n".to_owned()), "holds no subject token"),
        ("endless", Some("x".repeat(65 * 1024)), "is longer than 64 KiB"),
        ("gone", None, "cannot be read: entity not found"),
    ] {
        match subject {
            Some(subject) => files.subject(&subject),
            None => std::fs::remove_file(files.path("subject")).unwrap(),
        }
        let told = fetch(&origin).await.unwrap_err().to_string();
        let whom = format!("(external_account): the subject token file {} {expected}", files.path("subject").display());
        assert!(told.contains(&whom), "{name}: {told}");
    }
    assert_eq!(files.server.count(), asked, "nothing was sent without one");
    files.subject("back");
    assert_eq!(fetch(&origin).await, Ok("t".to_owned()));
}

#[tokio::test]
async fn a_subject_token_in_json_is_the_member_of_its_name() {
    let files = Files::new([Asked::Login.grants("t", 3600)]).await;
    let mut document = files.document(Kind::FederationByFile);
    document["credential_source"]["format"] = json!({"type": "json", "subject_token_field_name": "id_token"});
    let origin = origin(&files.credentials(&document), &Environment::default()).await;
    for (name, text, expected) in [
        ("a token", r#"{"other":1,"id_token":"s3cret"}"#, true),
        ("no such member", r#"{"other":"s3cret"}"#, false),
        ("a number", r#"{"id_token":1}"#, false),
        ("an empty one", r#"{"id_token":""}"#, false),
        ("an array", r#"["s3cret"]"#, false),
        ("a bare one", "s3cret", false),
    ] {
        files.subject(text);
        let fetched = fetch(&origin).await;
        assert_eq!(fetched.is_ok(), expected, "{name}");
        assert!(!format!("{fetched:?}").contains("s3cret"), "{name}");
    }
}

#[tokio::test]
async fn the_life_of_an_impersonated_token_is_what_is_left_of_it() {
    let end = |seconds: i64| jiff::Timestamp::from_second(Clock::System.now().as_secs() + seconds).unwrap().to_string();
    for (name, end, expected) in [
        ("what was asked for", end(1200), Some(1200)),
        ("less", end(300), Some(300)),
        ("a server whose clock is ahead", end(90_000), Some(1200)),
        ("over", end(-5), None),
        ("an offset", "2999-01-01T00:00:00.123456789+02:00".to_owned(), Some(1200)),
        ("no instant", "soon".to_owned(), None),
    ] {
        let account = answer(200, &[], &json!({"accessToken": "t1", "expireTime": end}).to_string());
        let files = Files::new([Asked::Login.grants("s3cret", 3600), account]).await;
        let granted = files.origin(Kind::FederatedAccount).await.fetch(soon()).await;
        let life = granted.ok().map(|granted| granted.life.as_secs());
        let near = match (life, expected) {
            (Some(life), Some(expected)) => (expected - 2..=expected).contains(&life),
            (life, expected) => life == expected,
        };
        assert!(near, "{name}: {life:?}");
    }
}

/// A client of `server` that gets its tokens by `credentials`.
async fn client_by(server: &Scripted, credentials: Credentials) -> Storage {
    let settings = settings(&format!("http://{}", server.address), Duration::from_secs(5));
    Storage::open_with(&Settings { credentials, ..settings }, options(), QUICK).await.unwrap()
}

#[tokio::test]
async fn a_token_that_ends_under_load_is_asked_for_once() {
    let mut kinds = JoinSet::new();
    for kind in KINDS {
        kinds.spawn(async move {
            // The first is good for a second.
            let steps = [kind.grants("t1", 2), kind.grants("t2", 3600)].concat();
            let by = |files: &Files| (files.credentials(&files.document(kind)), Environment::default());
            fifty_callers_after_the_first_token(&format!("{kind:?}"), steps, by).await;
        });
    }
    kinds.spawn(async {
        let grant = |token: &str, life: u64| {
            let body = json!({"access_token": token, "expires_in": life, "token_type": "Bearer"});
            answer(200, &["metadata-flavor: Google"], &body.to_string())
        };
        let by = |files: &Files| {
            let gce_metadata_host = Some(files.server.address.to_string());
            (Credentials::Auto, Environment { gce_metadata_host, ..Environment::default() })
        };
        fifty_callers_after_the_first_token("the machine", vec![grant("t1", 2), grant("t2", 3600)], by).await;
    });
    kinds.join_all().await;
}

/// Whoever calls while the second token is awaited gets it, by the steps of the script and no more.
async fn fifty_callers_after_the_first_token(
    name: &str,
    mut steps: Vec<Step>,
    by: impl Fn(&Files) -> (Credentials, Environment),
) {
    let expected = steps.len();
    let Some(Step::Answer(last)) = steps.pop() else { panic!("the last step is an answer") };
    steps.push(Step::Later(Duration::from_millis(400), last));
    let files = Files::new(steps).await;
    let storage = Scripted::start([opened()]).await;
    let (credentials, environment) = by(&files);
    let settings = settings(&format!("http://{}", storage.address), Duration::from_secs(5));
    let options = Options { environment, ..options() };
    let client = Storage::open_with(&Settings { credentials, ..settings }, options, QUICK).await.unwrap();
    let client = Arc::new(client);
    initiate(&client, soon()).await.unwrap();
    // Beyond the end of the first.
    sleep(Duration::from_millis(1150)).await;
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let client = Arc::clone(&client);
        callers.spawn(async move { initiate(&client, soon()).await.is_ok() });
    }
    assert!(callers.join_all().await.into_iter().all(|served| served), "{name}");
    assert_eq!(files.server.count(), expected, "{name}");
    let by_second = storage.seen().iter().filter(|request| request.contains("Bearer t2\r\n")).count();
    assert_eq!(storage.count(), 51, "{name}");
    assert!(by_second >= 50, "{name}: {by_second}");
}

#[tokio::test]
async fn storage_is_called_again_once_the_token_server_is_back() {
    let mut steps = vec![answer(503, &[], "s3cret"), Step::Close];
    steps.extend(Kind::FederatedAccount.grants("t1", 3600));
    let files = Files::new(steps).await;
    let storage = Scripted::start([opened()]).await;
    let credentials = files.credentials(&files.document(Kind::FederatedAccount));
    let client = client_by(&storage, credentials).await;
    let told = chain(&initiate(&client, soon()).await.unwrap_err());
    let expected = format!("(external_account): {} refused: 503", Asked::Login.whom(&files));
    assert!(told.starts_with("there is no token for storage: the credentials file ") && told.ends_with(&expected));
    for _ in 0..100 {
        if client.ready().is_ok() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    initiate(&client, soon()).await.unwrap();
    assert!(storage.seen().iter().all(|request| request.contains("Bearer t1\r\n")));
}

#[tokio::test]
async fn no_log_line_holds_what_a_file_holds() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // As in the test of the metadata server.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    for kind in [Kind::Person, Kind::FederationByUrl, Kind::FederatedAccount, Kind::AccountByPerson] {
        let files = Files::new(kind.grants("s3cret", 3600)).await;
        let credentials = files.credentials(&files.document(kind));
        let storage = Scripted::start([opened()]).await;
        initiate(&client_by(&storage, credentials).await, soon()).await.unwrap();
        assert!(files.server.seen().concat().contains("s3cret"), "{kind:?}: the secrets were in use");
    }
    drop(guard);
    let text = log.text();
    assert!(text.contains("a storage token was received"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
