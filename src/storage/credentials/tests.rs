use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

const KEY: &str = r#"{"type":"service_account","client_email":"a@example.com","private_key":"PEM","token_uri":"https://oauth2.googleapis.com/token"}"#;

const ACCOUNT_URL: &str =
    "https://iam.example/v1/projects/-/serviceAccounts/b-1@acme.iam.gserviceaccount.com:generateAccessToken";

fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(&text.parse().unwrap()).unwrap()
}

fn key() -> Value {
    serde_json::from_str(KEY).unwrap()
}

fn person() -> Value {
    json!({"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r", "account": ""})
}

fn federation() -> Value {
    json!({
        "type": "external_account", "universe_domain": "googleapis.com",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.example/v1/token",
        "credential_source": {"file": "/run/token", "format": {"type": "json", "subject_token_field_name": "id_token"}},
        "service_account_impersonation_url": ACCOUNT_URL,
        "service_account_impersonation": {"token_lifetime_seconds": 600},
    })
}

fn by_url() -> Value {
    with(
        federation(),
        "credential_source",
        json!({"url": "https://idp.example/t?a=b", "headers": {"Metadata": "True"}}),
    )
}

fn impersonated(source: &Value) -> Value {
    json!({
        "type": "impersonated_service_account", "service_account_impersonation_url": ACCOUNT_URL, "delegates": [],
        "quota_project_id": "acme", "source_credentials": source,
    })
}

fn with(mut document: Value, member: &str, value: Value) -> Value {
    let place = member.split('.').fold(&mut document, |at, step| &mut at[step]);
    *place = value;
    document
}

fn without(document: &Value, member: &str) -> Value {
    let (above, last) = member.rsplit_once('.').unwrap_or(("", member));
    let mut document = document.clone();
    let place = above.split('.').filter(|step| !step.is_empty()).fold(&mut document, |at, step| &mut at[step]);
    place.as_object_mut().unwrap().remove(last).unwrap();
    document
}

fn parse(text: &str) -> Result<FileCredentials, String> {
    file::parse(text.as_bytes(), Path::new("/x.json")).map_err(|error| error.to_string())
}

#[test]
fn every_supported_kind_is_read() {
    let nested = impersonated(&impersonated(&person()));
    for (name, document, kind, impersonations) in [
        ("a key", key(), "service_account", 0),
        (
            "a key with tokens from loopback",
            with(key(), "token_uri", json!("http://127.0.0.1:9")),
            "service_account",
            0,
        ),
        ("a person", person(), "authorized_user", 0),
        ("federation by a file", federation(), "external_account", 1),
        ("federation by a URL", by_url(), "external_account", 1),
        (
            "federation without an account",
            without(&federation(), "service_account_impersonation_url"),
            "external_account",
            0,
        ),
        ("federation without a format", without(&federation(), "credential_source.format"), "external_account", 1),
        ("an account by a person", impersonated(&person()), "impersonated_service_account", 1),
        ("an account by a key", impersonated(&key()), "impersonated_service_account", 1),
        ("an account by federation", impersonated(&federation()), "impersonated_service_account", 2),
        ("an account by an account", nested, "impersonated_service_account", 2),
        ("nulls", with(person(), "token_uri", Value::Null), "authorized_user", 0),
    ] {
        let found = parse(&document.to_string()).unwrap_or_else(|told| panic!("{name}: {told}"));
        assert_eq!((found.kind, found.impersonations.len()), (kind, impersonations), "{name}");
    }
}

#[test]
fn accounts_are_impersonated_from_the_innermost_outwards() {
    let outer = ACCOUNT_URL.replace("b-1@", "outer@");
    let document = with(impersonated(&federation()), "service_account_impersonation_url", json!(outer));
    let found = parse(&with(document, "delegates", json!(["d"])).to_string()).unwrap();
    let accounts: Vec<_> = found
        .impersonations
        .iter()
        .map(|account| (&*account.email, account.delegates.len(), account.lifetime.as_secs()))
        .collect();
    let domain = "acme.iam.gserviceaccount.com";
    assert_eq!(accounts, [(&*format!("b-1@{domain}"), 0, 600), (&*format!("outer@{domain}"), 1, 3600)]);
}

#[test]
fn no_member_that_is_needed_may_be_missing_or_of_another_type() {
    let needed: [(Value, &[&str]); 5] = [
        (key(), &["type", "client_email", "private_key", "token_uri"]),
        (person(), &["type", "client_id", "client_secret", "refresh_token"]),
        (
            federation(),
            &[
                "type",
                "audience",
                "subject_token_type",
                "token_url",
                "credential_source",
                "credential_source.file",
                "credential_source.format.subject_token_field_name",
            ],
        ),
        (by_url(), &["credential_source.url"]),
        (
            impersonated(&person()),
            &["service_account_impersonation_url", "source_credentials", "source_credentials.type"],
        ),
    ];
    for (document, members) in needed {
        for member in members {
            let told = parse(&without(&document, member).to_string()).err().unwrap_or_default();
            let last = member.rsplit('.').next().unwrap();
            let no_source = told == "has a \"credential_source\" that has neither a file nor a URL";
            assert!(told.starts_with("has no \"") && told.contains(last) || no_source, "without {member}: {told}");
            for (value, kind) in [(json!([{"s3cret": 1}]), "an array"), (json!(17), "a number")] {
                let told = parse(&with(document.clone(), member, value).to_string()).err().unwrap_or_default();
                assert!(told.contains("line 1, column") && !told.contains("s3cret"), "{member} as {kind}: {told}");
            }
        }
    }
}

#[test]
fn what_is_not_supported_says_so() {
    let sourced = |member: &str| with(federation(), "credential_source", json!({member: {"command": "/s3cret"}}));
    for (name, document, expected) in [
        (
            "a federated person",
            json!({"type": "external_account_authorized_user", "audience": 1}),
            "external_account_authorized_user\"; supported are service_account, authorized_user, external_account and impersonated_service_account",
        ),
        ("a device", json!({"type": "gdch_service_account"}), "\"gdch_service_account\"; supported are"),
        ("an unknown source", impersonated(&json!({"type": "gdch_service_account"})), "\"gdch_service_account\""),
        ("a type of another type", json!({"type": ["s3cret"]}), "line 1, column"),
        ("an array", json!([1]), "is no JSON of the form that credentials have: line 1"),
        ("no type", json!({}), "has no \"type\""),
        (
            "an executable",
            sourced("executable"),
            "gets its subject tokens from an executable; supported are a file and a URL",
        ),
        ("AWS", sourced("environment_id"), "from Amazon Web Services"),
        ("a certificate", sourced("certificate"), "from a certificate"),
        ("no source", sourced("other"), "has neither a file nor a URL"),
        ("two sources", with(federation(), "credential_source.url", json!("https://a")), "both a file and a URL"),
        ("a workforce pool", with(federation(), "workforce_pool_user_project", json!("1")), "workforce pool"),
        (
            "another format",
            with(federation(), "credential_source.format.type", json!("xml")),
            "neither \"text\" nor \"json\"",
        ),
    ] {
        let told = parse(&document.to_string()).err().unwrap_or_default();
        assert!(told.contains(expected) && !told.contains("s3cret"), "{name}: {told}");
    }
    let deep = format!("{}{}", r#"{"type":"impersonated_service_account","source_credentials":"#.repeat(900), "1");
    for (name, text) in
        [("no JSON", "-----BEGIN s3cret"), ("a deep one", &*deep), ("twice", r#"{"type":"a","type":"b"}"#)]
    {
        let told = parse(text).err().unwrap_or_default();
        assert!(told.contains("line 1, column") && !told.contains("s3cret"), "{name}: {told}");
    }
}

#[test]
fn what_a_member_cannot_be_says_so() {
    let long_url = format!("https://a/{}", "\"".repeat(30_000));
    for (name, document, expected) in [
        (
            "tokens without TLS",
            with(key(), "token_uri", json!("http://a.example/s3cret")),
            "\"token_uri\" that is not an https address",
        ),
        ("tokens from nowhere", with(key(), "token_uri", json!("https://")), "\"token_uri\" that is not an https"),
        ("tokens from far away", with(key(), "token_uri", json!(long_url)), "\"token_uri\" that is not an https"),
        ("a login without TLS", with(person(), "token_uri", json!("http://a.example/")), "\"token_uri\" that is not"),
        (
            "an exchange without TLS",
            with(federation(), "token_url", json!("http://a.example/")),
            "\"token_url\" that is not",
        ),
        (
            "a source without TLS",
            with(by_url(), "credential_source.url", json!("http://169.254.169.254/")),
            "\"credential_source.url\" that is not",
        ),
        (
            "an account without TLS",
            with(federation(), "service_account_impersonation_url", json!(ACCOUNT_URL.replace("https", "http"))),
            "\"service_account_impersonation_url\" that is not an https",
        ),
        (
            "a person in an address",
            with(person(), "token_uri", json!("https://u:s3cret@a.example/")),
            "\"token_uri\" that is not",
        ),
        (
            "no account",
            with(federation(), "service_account_impersonation_url", json!("https://iam.example/v1")),
            "does not end in /serviceAccounts/EMAIL:generateAccessToken",
        ),
        (
            "a crooked account",
            with(federation(), "service_account_impersonation_url", json!(ACCOUNT_URL.replace("b-1", "b%2F1"))),
            "does not end in",
        ),
        (
            "a header of two lines",
            with(by_url(), "credential_source.headers", json!({"a": "b\r\ns3cret: 1"})),
            "cannot stand in a header",
        ),
        (
            "a header without a name",
            with(by_url(), "credential_source.headers", json!({"": "b"})),
            "cannot stand in a header",
        ),
        (
            "a short life",
            with(federation(), "service_account_impersonation.token_lifetime_seconds", json!(599)),
            "from 600 to 43200",
        ),
        (
            "a long life",
            with(federation(), "service_account_impersonation.token_lifetime_seconds", json!(43_201)),
            "from 600 to 43200",
        ),
        (
            "a negative life",
            with(federation(), "service_account_impersonation.token_lifetime_seconds", json!(-1)),
            "line 1, column",
        ),
    ] {
        let told = parse(&document.to_string()).err().unwrap_or_default();
        assert!(told.contains(expected) && !told.contains("s3cret"), "{name}: {told}");
    }
}

#[tokio::test]
async fn credentials_are_looked_for_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), text).unwrap();
    };
    write("named.json", KEY);
    write("federation.json", &federation().to_string());
    write("sdk/application_default_credentials.json", &impersonated(&person()).to_string());
    write("home/.config/gcloud/application_default_credentials.json", KEY);
    write("person/.config/gcloud/application_default_credentials.json", &person().to_string());
    write("device/.config/gcloud/application_default_credentials.json", r#"{"type":"gdch_service_account"}"#);
    write("long.json", &" ".repeat(65 * 1024));
    let none = Environment::default();
    let home = Environment { home: Some(path("home")), ..none.clone() };
    let person = Environment { home: Some(path("person")), ..none.clone() };
    let device = Environment { home: Some(path("device")), ..none.clone() };
    let sdk = Environment { cloudsdk_config: Some(path("sdk")), ..home.clone() };
    let named = Environment { google_application_credentials: Some(path("named.json")), ..sdk.clone() };
    let absent = Environment { google_application_credentials: Some(path("absent.json")), ..sdk.clone() };
    let long = Environment { google_application_credentials: Some(path("long.json")), ..none.clone() };
    let metadata = Environment { gce_metadata_host: Some("127.0.0.1:8174".to_owned()), ..none.clone() };
    let both = Environment { home: Some(path("person")), ..metadata.clone() };
    let crooked = Environment { gce_metadata_host: Some("127.0.0.1/x?".to_owned()), ..none.clone() };
    let iam = Environment { iam_credentials: Some("http://iam.example/".to_owned()), ..none.clone() };
    let empty_home = Environment { home: Some(path("empty")), ..none.clone() };
    let auto = Credentials::Auto;
    let file = Credentials::File { file: path("federation.json") };
    let (google, loopback) = (endpoint("https://storage.googleapis.com"), endpoint("http://127.0.0.1:9023"));
    for (name, credentials, environment, endpoint, expected) in [
        ("the file of the configuration", &file, &absent, &google, "external_account federation.json"),
        ("the file of the environment", &auto, &named, &google, "service_account named.json"),
        ("that file is not there", &auto, &absent, &google, "absent.json cannot be read: entity not found"),
        ("that file is too long", &auto, &long, &google, "long.json is longer than 64 KiB"),
        ("the tool's directory", &auto, &sdk, &google, "impersonated_service_account application_default"),
        ("the tool's directory at home", &auto, &home, &google, "service_account application_default_credentials.json"),
        ("a person's login", &auto, &person, &google, "authorized_user application_default_credentials.json"),
        ("a login that is not supported", &auto, &device, &google, "holds credentials of the type \"gdch_service"),
        ("no file at all", &auto, &empty_home, &google, "metadata metadata.google.internal"),
        ("nothing at all", &auto, &none, &google, "metadata metadata.google.internal"),
        ("another metadata server", &auto, &metadata, &google, "metadata 127.0.0.1:8174"),
        ("no host", &auto, &crooked, &google, "GCE_METADATA_HOST is not a host"),
        ("signing without TLS", &auto, &iam, &google, "OVERRIDES_IAMCREDENTIALS is not an https address"),
        ("a stand-in", &auto, &none, &loopback, "stand-in"),
        ("a stand-in and a person's login", &auto, &person, &loopback, "stand-in"),
        ("a stand-in and a file", &auto, &named, &loopback, "service_account named.json"),
        ("a stand-in, a login and a metadata server", &auto, &both, &loopback, "metadata 127.0.0.1:8174"),
        ("a stand-in and a metadata server", &auto, &metadata, &loopback, "metadata 127.0.0.1:8174"),
    ] {
        let found = match find(credentials, environment, endpoint).await {
            Ok(Found::File(found)) => format!("{} {}", found.kind, found.file.file_name().unwrap().display()),
            Ok(Found::Machine(machine)) => format!("metadata {}", machine.host),
            Ok(Found::StandIn) => "stand-in".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{name}: {found}");
    }
}

#[tokio::test]
async fn who_signs_follows_from_the_credentials() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let google = endpoint("https://storage.googleapis.com");
    let iam = Environment { iam_credentials: Some("http://127.0.0.1:9023/x".to_owned()), ..Environment::default() };
    let metadata = Environment { gce_metadata_host: Some("127.0.0.1:8174".to_owned()), ..iam.clone() };
    let account = "b-1@acme.iam.gserviceaccount.com at https://iam.example/";
    let machine = "computeMetadata/v1/instance/service-accounts/default/email";
    for (name, document, environment, expected) in [
        ("a key", Some(key()), &iam, "a@example.com by PEM".to_owned()),
        ("federation", Some(federation()), &iam, account.to_owned()),
        ("an account by a key", Some(impersonated(&key())), &iam, account.to_owned()),
        ("a person", Some(person()), &iam, "a person's login".to_owned()),
        (
            "federation without an account",
            Some(without(&federation(), "service_account_impersonation_url")),
            &iam,
            "a federated identity that impersonates no service account".to_owned(),
        ),
        (
            "the machine",
            None,
            &Environment::default(),
            format!("http://metadata.google.internal/{machine} at https://iamcredentials.googleapis.com/"),
        ),
        ("another machine", None, &metadata, format!("http://127.0.0.1:8174/{machine} at http://127.0.0.1:9023/")),
    ] {
        let credentials = match document {
            Some(document) => {
                fs::write(file.path(), document.to_string()).unwrap();
                Credentials::File { file: file.path().to_owned() }
            }
            None => Credentials::Auto,
        };
        let identity = find(&credentials, environment, &google).await.unwrap().signing_identity();
        let found = match identity {
            SigningIdentity::Key { email, private_key } => format!("{email} by {}", private_key.expose()),
            SigningIdentity::Remote { account: RemoteAccount::Named(email), iam_credentials } => {
                format!("{email} at {iam_credentials}")
            }
            SigningIdentity::Remote { account: RemoteAccount::OfMachine(address), iam_credentials } => {
                format!("{address} at {iam_credentials}")
            }
            SigningIdentity::Nobody { whose } => whose.to_owned(),
        };
        assert_eq!(found, expected, "{name}");
    }
}
