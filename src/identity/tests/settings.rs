//! What is refused before any token is seen.

use super::*;
use crate::model::address::UpstreamUrl;

/// The section that `change` makes of a good one, and the key that is at fault.
type Row = (&'static str, fn(&mut IssuerSettings), Option<&'static str>);

fn url(text: &str) -> UpstreamUrl {
    text.parse().unwrap()
}

#[test]
fn sections_that_could_not_work_are_refused_by_key() {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = vec![
        ("discovery", |_| (), None),
        ("discovery on loopback", |one| one.issuer = "http://127.0.0.1:8080/realms/a".to_owned(), None),
        (
            "a name and an address",
            |one| (one.issuer, one.jwks_url) = ("accounts.google.com".to_owned(), Some(url("https://k.example"))),
            None,
        ),
        ("a minute of leeway", |one| one.leeway = Span::seconds(60), None),
        ("a name without address", |one| one.issuer = "accounts.google.com".to_owned(), Some("issuer")),
        ("plain http", |one| one.issuer = "http://id.example".to_owned(), Some("issuer")),
        ("an issuer with a query", |one| one.issuer = "https://id.example/?a".to_owned(), Some("issuer")),
        ("an issuer with a fragment", |one| one.issuer = "https://id.example/#a".to_owned(), Some("issuer")),
        ("no name", |one| (one.issuer, one.jwks_url) = (String::new(), Some(url("https://k.example"))), Some("issuer")),
        (
            "a name of two lines",
            |one| (one.issuer, one.jwks_url) = ("a\nb".to_owned(), Some(url("https://k.example"))),
            Some("issuer"),
        ),
        ("no audience", |one| one.audiences.clear(), Some("audiences")),
        ("an empty audience", |one| one.audiences.push(String::new()), Some("audiences")),
        ("no algorithm", |one| one.algorithms.clear(), Some("algorithms")),
        ("too much leeway", |one| one.leeway = Span(Duration::from_millis(60_001)), Some("leeway")),
        ("no lifetime", |one| one.max_lifetime = Span::seconds(0), Some("max_lifetime")),
        ("a tenant of nothing", |one| one.tenant_claim = Some(String::new()), Some("tenant_claim")),
        ("a tenant between two dots", |one| one.tenant_claim = Some("a..b".to_owned()), Some("tenant_claim")),
        ("a condition that is none", |one| one.admin_when = Some("claims.role ==".to_owned()), Some("admin_when")),
        (
            "two origins",
            |one| (one.jwks_url, one.jwks_file) = (Some(url("https://k.example")), Some("keys.json".into())),
            Some("jwks_file"),
        ),
        ("a file that is not there", |one| one.jwks_file = Some("/nonexistent/keys.json".into()), Some("jwks_file")),
    ];
    for (name, change, expected) in rows {
        let mut section = issuer_settings(ISSUER);
        change(&mut section);
        let good = issuer_settings("https://other.example");
        let outcome = Identity::new(&[good, section], clock(), client());
        let fault = outcome.err().map(|error| (error.index, error.key));
        assert_eq!(fault, expected.map(|key| (1, key)), "{name}");
    }

    let path = directory.path().join("keys.json");
    for (name, content) in [
        ("no JSON", "keys".to_owned()),
        ("no keys", json!({"keys": []}).to_string()),
        ("no key of use", json!({"keys": [P384.jwk]}).to_string()),
        ("too much", format!("{}{}", json!({"keys": [P256.jwk]}), " ".repeat(1024 * 1024))),
    ] {
        std::fs::write(&path, content).unwrap();
        let section = IssuerSettings { jwks_file: Some(path.clone()), ..issuer_settings(ISSUER) };
        let error = Identity::new(&[section], clock(), client()).err();
        assert_eq!(error.map(|error| error.key), Some("jwks_file"), "{name}");
    }
}

#[test]
fn one_issuer_has_one_section() {
    let twice =
        [issuer_settings(ISSUER), IssuerSettings { audiences: vec!["b".to_owned()], ..issuer_settings(ISSUER) }];
    let error = Identity::new(&twice, clock(), client()).err().unwrap();
    assert!(error.to_string().starts_with("issuers[1].issuer: "), "{error}");
}

#[test]
fn symmetric_algorithms_cannot_be_configured() {
    for (name, accepted) in [("RS256", true), ("EdDSA", true), ("HS256", false), ("none", false), ("rs256", false)] {
        let text = format!("issuer = \"https://a.example\"\naudiences = [\"a\"]\nalgorithms = [\"{name}\"]");
        assert_eq!(toml::from_str::<IssuerSettings>(&text).is_ok(), accepted, "{name}");
        assert_eq!(Algorithm::named(name).is_some(), accepted, "{name}");
    }
}
