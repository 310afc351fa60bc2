//! What holds of the whole: tokens go in at [`Identity::verify`], keys come from a file or a server on loopback.
//!
//! Tokens are signed by another implementation than the one that checks them.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm as Alg, EncodingKey};
use serde_json::{Map, Value, json};

use super::*;
use crate::model::time::Span;

mod hostile;
mod key_server;
mod key_set;
mod settings;

/// When the tests take place.
const NOW: i64 = 1_800_000_000;

const ISSUER: &str = "https://id.example/";

/// A private key, and what its issuer publishes of it.
struct Signer {
    algorithm: Alg,
    key: EncodingKey,
    /// `kty` and what belongs to it; no `kid`, `alg` or `use`.
    jwk: Value,
}

/// Making RSA keys takes time, so all tests share these.
static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa(Alg::RS256));
static OTHER_RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa(Alg::RS256));
static P256: LazyLock<Signer> = LazyLock::new(Signer::p256);
static OTHER_P256: LazyLock<Signer> = LazyLock::new(Signer::p256);
static P384: LazyLock<Signer> = LazyLock::new(Signer::p384);
static ED25519: LazyLock<Signer> = LazyLock::new(Signer::ed25519);

impl Signer {
    fn new(algorithm: Alg, key: EncodingKey) -> Self {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk.as_object_mut().unwrap().remove("alg");
        Self { algorithm, key, jwk }
    }

    fn rsa(algorithm: Alg) -> Self {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
        Self::new(algorithm, EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap())
    }

    fn p256() -> Self {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        Self::new(Alg::ES256, EncodingKey::from_ec_pem(pem.as_bytes()).unwrap())
    }

    fn p384() -> Self {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        Self::new(Alg::ES384, EncodingKey::from_ec_pem(pem.as_bytes()).unwrap())
    }

    fn ed25519() -> Self {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).unwrap();
        // The other implementation makes JWKs only of Ed25519 keys in the short form of PKCS#8.
        let pair = rcgen::KeyPair::from_pem(&pem).unwrap();
        let x = URL_SAFE_NO_PAD.encode(rcgen::PublicKeyData::der_bytes(&pair));
        Self { algorithm: Alg::EdDSA, key, jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}) }
    }

    /// The public key with these members beside it.
    fn jwk(&self, more: Value) -> Value {
        let mut jwk = self.jwk.clone();
        let Value::Object(more) = more else { panic!("members") };
        jwk.as_object_mut().unwrap().extend(more);
        jwk
    }

    /// A token of exactly these texts.
    fn sign(&self, header: &str, claims: &str) -> String {
        self.sign_as(self.algorithm, header, claims)
    }

    /// A token signed with another algorithm that the key can be used for.
    fn sign_as(&self, algorithm: Alg, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, algorithm).unwrap();
        format!("{signed}.{signature}")
    }

    /// A token as its issuer would make it.
    fn token(&self, key_id: &str, claims: &Value) -> String {
        let header = json!({"alg": format!("{:?}", self.algorithm), "kid": key_id, "typ": "JWT"});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Claims against which nothing can be said.
fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "uploads", "sub": "ada", "iat": NOW - 60, "exp": NOW + 3600})
}

/// The same with these members changed; `null` takes one away.
fn claims_with(changes: Value) -> Value {
    let mut all = claims();
    let (Value::Object(changes), Some(members)) = (changes, all.as_object_mut()) else { panic!("members") };
    for (name, value) in changes {
        match value {
            Value::Null => members.remove(&name),
            value => members.insert(name, value),
        };
    }
    all
}

fn issuer_settings(issuer: &str) -> IssuerSettings {
    IssuerSettings {
        issuer: issuer.to_owned(),
        audiences: vec!["uploads".to_owned()],
        jwks_url: None,
        jwks_file: None,
        algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        leeway: Span::seconds(30),
        max_lifetime: Span::seconds(24 * 3600),
        tenant_claim: None,
        admin_when: None,
    }
}

fn write_keys(path: &Path, keys: &[Value]) {
    std::fs::write(path, json!({"keys": keys}).to_string()).unwrap();
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_secs(NOW))
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

fn refusal(outcome: &Result<Arc<Principal>, Error>) -> Option<Reason> {
    match outcome {
        Err(Error::Unauthenticated(reason)) => Some(*reason),
        _ => None,
    }
}

/// One issuer with one P-256 key, `e1`, in a file.
fn identity_with_file(directory: &Path, change: impl FnOnce(&mut IssuerSettings)) -> (Identity, Clock) {
    let path = directory.join("keys.json");
    write_keys(&path, &[P256.jwk(json!({"kid": "e1"}))]);
    let mut settings = IssuerSettings { jwks_file: Some(path), ..issuer_settings(ISSUER) };
    change(&mut settings);
    let clock = clock();
    (Identity::new(&[settings], clock.clone(), client()).unwrap(), clock)
}

#[tokio::test]
async fn a_principal_says_what_its_token_says() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, _) = identity_with_file(directory.path(), |settings| {
        settings.tenant_claim = Some("firebase.tenant".to_owned());
        settings.admin_when = Some(r#"claims.role == "admin""#.to_owned());
    });
    let claims = claims_with(json!({"firebase": {"tenant": "acme"}, "role": "admin", "big": u64::MAX}));
    let principal = identity.verify(&P256.token("e1", &claims)).await.unwrap();
    assert_eq!((&*principal.issuer, &*principal.subject, principal.tenant.as_deref()), (ISSUER, "ada", Some("acme")));
    assert_eq!(principal.id, crate::model::principal::PrincipalId::of(ISSUER, Some("acme"), "ada"));
    assert!(principal.admin);
    assert_eq!(principal.expires_at, Timestamp::from_secs(NOW + 3600));
    assert_eq!(Value::Object(principal.claims.clone()), claims);

    let other = identity.verify(&P256.token("e1", &claims_with(json!({"role": "editor"})))).await.unwrap();
    assert!(!other.admin);
    assert_eq!(other.tenant, None);
    assert_ne!(other.id, principal.id);
}

#[tokio::test]
async fn a_tenant_is_found_by_its_path_and_nothing_but_a_name_is_taken_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let unfit = Err(Some(Reason::Unfit("tenant")));
    for (name, path, more, expected) in [
        ("a claim", "org", json!({"org": "acme"}), Ok(Some("acme"))),
        ("two levels", "a.b", json!({"a": {"b": "acme"}}), Ok(Some("acme"))),
        ("no dots in names", "a.b", json!({"a.b": "acme"}), Ok(None)),
        ("a URL is one name", "https://acme.example/org", json!({"https://acme.example/org": "x"}), Ok(Some("x"))),
        ("nothing there", "a.b", json!({}), Ok(None)),
        ("nothing at the last level", "a.b", json!({"a": {}}), Ok(None)),
        ("a number", "org", json!({"org": 7}), unfit),
        ("a list", "org", json!({"org": ["acme"]}), unfit),
        ("an object", "org", json!({"org": {"id": "acme"}}), unfit),
        ("an empty name", "org", json!({"org": ""}), unfit),
        ("a name with a line break", "org", json!({"org": "a\nb"}), unfit),
        ("a name beyond all measure", "org", json!({"org": "a".repeat(256)}), unfit),
        ("a text above the last level", "a.b", json!({"a": "acme"}), unfit),
    ] {
        let (identity, _) =
            identity_with_file(directory.path(), |settings| settings.tenant_claim = Some(path.to_owned()));
        let outcome = identity.verify(&P256.token("e1", &claims_with(more))).await;
        let tenant = outcome.as_ref().map(|principal| principal.tenant.as_deref());
        assert_eq!(tenant.map_err(|_| refusal(&outcome)), expected, "{name}");
    }

    let (identity, _) = identity_with_file(directory.path(), |settings| settings.tenant_claim = Some("org".to_owned()));
    let with_null =
        P256.sign(r#"{"alg":"ES256","kid":"e1"}"#, &claims().to_string().replacen('{', r#"{"org":null,"#, 1));
    assert_eq!(refusal(&identity.verify(&with_null).await), Some(Reason::Unfit("tenant")), "a null");
}

#[tokio::test]
async fn a_verified_token_is_remembered_until_it_expires_and_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, clock) = identity_with_file(directory.path(), |_| ());
    let token = P256.token("e1", &claims());
    let first = identity.verify(&token).await.unwrap();
    let second = identity.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((identity.metrics().verified.get(), identity.metrics().remembered.get()), (1, 1));

    clock.advance(Duration::from_secs(3600 + 29));
    assert!(identity.verify(&token).await.is_ok(), "within the leeway");
    clock.advance(Duration::from_secs(1));
    assert_eq!(refusal(&identity.verify(&token).await), Some(Reason::Expired));
    assert_eq!(identity.verified.len(), 0);
}

#[tokio::test]
async fn what_is_remembered_is_bounded_in_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, _) = identity_with_file(directory.path(), |_| ());
    for number in 0..1300 {
        let token = P256.token("e1", &claims_with(json!({"sub": number.to_string(), "ballast": "x".repeat(5700)})));
        identity.verify(&token).await.unwrap();
    }
    assert!(identity.verified.weight() <= REMEMBERED_BYTES);
    assert!(identity.verified.len() > 100);
}

#[tokio::test]
async fn a_key_file_is_read_again_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, clock) = identity_with_file(directory.path(), |_| ());
    let (old, new) = (P256.token("e1", &claims()), OTHER_P256.token("e2", &claims()));
    identity.verify(&old).await.unwrap();

    std::fs::write(directory.path().join("keys.json"), "{}").unwrap();
    clock.advance(Duration::from_secs(601));
    identity.verify(&old).await.unwrap();
    identity.issuers[0].keys.settled().await;
    identity.verify(&old).await.unwrap();

    write_keys(&directory.path().join("keys.json"), &[OTHER_P256.jwk(json!({"kid": "e2"}))]);
    clock.advance(Duration::from_secs(31));
    identity.verify(&new).await.unwrap();
    assert_eq!(refusal(&identity.verify(&old).await), Some(Reason::UnknownKey), "remembered, but withdrawn");
}

#[tokio::test]
async fn a_development_key_is_an_issuer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("development.json");
    let key = development::DevelopmentKey::generate().unwrap();
    std::fs::write(&path, key.key_set().to_string()).unwrap();
    let settings = IssuerSettings { jwks_file: Some(path), ..issuer_settings(ISSUER) };
    let identity = Identity::new(&[settings], clock(), client()).unwrap();
    let members: Map<String, Value> = serde_json::from_value(claims()).unwrap();
    assert_eq!(&*identity.verify(&key.sign(&members).unwrap()).await.unwrap().subject, "ada");
    let stranger = development::DevelopmentKey::generate().unwrap();
    assert_eq!(refusal(&identity.verify(&stranger.sign(&members).unwrap()).await), Some(Reason::UnknownKey));
}

#[test]
fn refusals_may_stand_in_a_header_and_metrics_name_nobody() {
    use Reason::{
        Algorithm, AmbiguousKey, Audience, Claims, Critical, Expired, Header, IssuedAhead, Issuer, KeyId, LivesTooLong,
        Malformed, Missing, NotYet, Signature, TooLong, Type, Unfit, UnknownKey,
    };
    for reason in [
        TooLong,
        Malformed,
        Header,
        Type,
        Critical,
        Algorithm,
        KeyId,
        Claims,
        Missing("exp"),
        Unfit("sub"),
        Issuer,
        Audience,
        Expired,
        NotYet,
        IssuedAhead,
        LivesTooLong,
        UnknownKey,
        AmbiguousKey,
        Signature,
    ] {
        let text = Error::from(reason).to_string();
        // RFC 6750, section 3: %x20-21 / %x23-5B / %x5D-7E.
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte)), "{text}");
    }

    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = Metrics::new();
    metrics.register(&mut registry);
    metrics.count_fetch(ISSUER, super::metrics::FetchResult::Failure);
    metrics.note_confirmed(ISSUER, NOW);
    metrics.remembered.inc();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "identity_token_checks_total{result=\"remembered\"} 1",
        "identity_token_checks_total{result=\"keys_unavailable\"} 0",
        "identity_key_fetches_total{issuer=\"https://id.example/\",result=\"failure\"} 1",
        "identity_keys_confirmed_timestamp_seconds{issuer=\"https://id.example/\"} 1800000000",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }
}
