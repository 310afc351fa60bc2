//! Tokens that must be refused, each for its own reason, and beside them the odd ones that are sound.

use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::*;

/// The issuer of the tables, with every kind of key, and a second one that shares nothing with it.
struct Stage {
    identity: Identity,
    _directory: tempfile::TempDir,
}

const SECOND: &str = "https://second.example";

fn stage() -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first.json"), directory.path().join("second.json"));
    write_keys(
        &first,
        &[
            RSA.jwk(json!({"kid": "r1", "alg": "RS256", "use": "sig"})),
            RSA.jwk(json!({"kid": "any-rsa"})),
            P256.jwk(json!({"kid": "e1", "key_ops": ["verify"]})),
            ED25519.jwk(json!({"kid": "d1"})),
            OTHER_P256.jwk(json!({"kid": "encrypts", "use": "enc"})),
            OTHER_P256.jwk(json!({"kid": "signs", "key_ops": ["sign"]})),
            OTHER_P256.jwk(json!({"kid": "private", "d": "AAAA"})),
            OTHER_RSA.jwk(json!({"kid": "oaep", "alg": "RSA-OAEP"})),
            json!({"kty": "oct", "kid": "secret", "k": encode("s3cret"), "alg": "HS256"}),
        ],
    );
    write_keys(&second, &[OTHER_P256.jwk(json!({"kid": "e2"})), OTHER_RSA.jwk(json!({"kid": "e1"}))]);
    let settings = [
        IssuerSettings {
            jwks_file: Some(first),
            audiences: vec!["uploads".to_owned(), "https://uploads.example".to_owned()],
            algorithms: vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA],
            tenant_claim: Some("org.id".to_owned()),
            ..issuer_settings(ISSUER)
        },
        IssuerSettings { jwks_file: Some(second), ..issuer_settings(SECOND) },
    ];
    Stage { identity: Identity::new(&settings, clock(), client()).unwrap(), _directory: directory }
}

/// A token of the P-256 key `e1` with these members of the header changed.
fn with_header(changes: Value) -> String {
    let mut header = json!({"alg": "ES256", "kid": "e1", "typ": "JWT"});
    let (Value::Object(changes), Some(members)) = (changes, header.as_object_mut()) else { panic!("members") };
    for (name, value) in changes {
        match value {
            Value::Null => members.remove(&name),
            value => members.insert(name, value),
        };
    }
    P256.sign(&header.to_string(), &claims().to_string())
}

/// A token of the P-256 key `e1` with these claims changed.
fn with_claims(changes: Value) -> String {
    P256.token("e1", &claims_with(changes))
}

const HEADER: &str = r#"{"alg":"ES256","kid":"e1"}"#;

/// A token of the P-256 key `e1` whose claims begin with this text.
fn with_text(first: &str) -> String {
    P256.sign(HEADER, &claims().to_string().replacen('{', &format!("{{{first},"), 1))
}

/// The parts of a good token.
fn parts() -> [String; 3] {
    let token = P256.token("e1", &claims());
    let parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

/// A token whose HMAC is made with a secret that is public knowledge.
fn hmac_token(kid: &str, secret: &[u8]) -> String {
    let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"}).to_string();
    let signed = format!("{}.{}", encode(header), encode(claims().to_string()));
    let key = EncodingKey::from_secret(secret);
    format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Alg::HS256).unwrap())
}

fn misshapen() -> Vec<(&'static str, String, Reason)> {
    let [header, body, signature] = parts();
    let whole = format!("{header}.{body}.{signature}");
    let decoded = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    let mut unused_bits = signature.clone();
    let last = unused_bits.pop().unwrap();
    // 64 bytes fill 85 characters and two bits more, so the last character has four bits to spare.
    unused_bits.push(if last == 'A' { 'B' } else { char::from(last as u8 + 1) });
    vec![
        ("nothing", String::new(), Reason::Malformed),
        ("no dot", "token".to_owned(), Reason::Malformed),
        ("dots only", "..".to_owned(), Reason::Malformed),
        ("two parts", format!("{header}.{body}"), Reason::Malformed),
        ("four parts", format!("{whole}.{signature}"), Reason::Malformed),
        ("five parts, as when encrypted", format!("{header}.{body}.{signature}.{body}.{signature}"), Reason::Malformed),
        ("no header", format!(".{body}.{signature}"), Reason::Malformed),
        ("no claims", format!("{header}..{signature}"), Reason::Malformed),
        ("no signature", format!("{header}.{body}."), Reason::Malformed),
        ("a space before it", format!(" {whole}"), Reason::Malformed),
        ("a line break after it", format!("{whole}\n"), Reason::Malformed),
        ("a scheme before it", format!("Bearer {whole}"), Reason::Malformed),
        ("padding", format!("{header}.{body}.{}", URL_SAFE.encode(&decoded)), Reason::Malformed),
        ("the other base64", format!("{header}.{body}.{}", STANDARD.encode([0xfb; 64])), Reason::Malformed),
        ("unused bits that are set", format!("{header}.{body}.{unused_bits}"), Reason::Malformed),
        ("letters beyond ASCII", format!("{header}.{body}.é"), Reason::Malformed),
        ("too long", P256.token("e1", &claims_with(json!({"x": "x".repeat(6100)}))), Reason::TooLong),
        ("a header that is no JSON", P256.sign("alg=ES256", "{}"), Reason::Header),
        ("a header that is an array", P256.sign(r#"["ES256"]"#, "{}"), Reason::Header),
        ("a header with alg twice", P256.sign(r#"{"alg":"none","alg":"ES256","kid":"e1"}"#, "{}"), Reason::Header),
        ("a header with kid twice", P256.sign(r#"{"alg":"ES256","kid":"e1","kid":"r1"}"#, "{}"), Reason::Header),
        ("a header with a name twice below", P256.sign(r#"{"alg":"ES256","jwk":{"x":1,"x":2}}"#, "{}"), Reason::Header),
        ("claims that are no JSON", P256.sign(HEADER, "sub=ada"), Reason::Claims),
        ("claims that are an array", P256.sign(HEADER, &json!([claims()]).to_string()), Reason::Claims),
        ("claims that are a token", P256.sign(HEADER, &whole), Reason::Claims),
        ("claims of endless depth", P256.sign(HEADER, &format!("{{\"a\":{}", "[".repeat(3000))), Reason::Claims),
        ("two subjects", with_text(r#""sub":"eve""#), Reason::Claims),
        ("two issuers, one escaped", with_text(r#""\u0069ss":"https://evil.example""#), Reason::Claims),
        ("two expiries", with_text(r#""exp":99999999999"#), Reason::Claims),
        ("two roles, below", with_text(r#""x":{"role":"user","role":"admin"}"#), Reason::Claims),
        ("a number beyond a double", with_text(r#""x":1e999"#), Reason::Claims),
    ]
}

fn misdirected_keys() -> Vec<(&'static str, String, Reason)> {
    let public = RSA.jwk.to_string();
    let text = claims().to_string();
    vec![
        ("no typ of ours", with_header(json!({"typ": "logout+jwt"})), Reason::Type),
        ("an encrypted typ", with_header(json!({"typ": "JWE"})), Reason::Type),
        ("a typ that is a number", with_header(json!({"typ": 1})), Reason::Type),
        ("an unknown extension", with_header(json!({"crit": ["exp"], "exp": 1})), Reason::Critical),
        ("an empty list of extensions", with_header(json!({"crit": []})), Reason::Critical),
        ("claims that are not encoded", with_header(json!({"b64": false})), Reason::Critical),
        ("a kid that is a number", with_header(json!({"kid": 1})), Reason::KeyId),
        ("a kid that is a list", with_header(json!({"kid": ["e1"]})), Reason::KeyId),
        ("a kid beyond all measure", with_header(json!({"kid": "e".repeat(256)})), Reason::KeyId),
        ("no algorithm", with_header(json!({"alg": null})), Reason::Algorithm),
        ("an algorithm that is a list", with_header(json!({"alg": ["ES256"]})), Reason::Algorithm),
        ("none", with_header(json!({"alg": "none"})), Reason::Algorithm),
        ("none in other letters", with_header(json!({"alg": "nOnE"})), Reason::Algorithm),
        ("an algorithm in small letters", with_header(json!({"alg": "es256"})), Reason::Algorithm),
        ("an HMAC with the public key", hmac_token("r1", public.as_bytes()), Reason::Algorithm),
        ("an HMAC with a published secret", hmac_token("secret", b"s3cret"), Reason::Algorithm),
        ("an HMAC with nothing", hmac_token("e1", b""), Reason::Algorithm),
        (
            "an algorithm that the issuer may not use",
            P384.sign(r#"{"alg":"ES384","kid":"e1"}"#, &text),
            Reason::Algorithm,
        ),
        (
            "another issuer's algorithm",
            ED25519.sign(r#"{"alg":"EdDSA","kid":"e2"}"#, &claims_with(json!({"iss": SECOND})).to_string()),
            Reason::Algorithm,
        ),
        ("RSA with the name of a P-256 key", RSA.sign(r#"{"alg":"RS256","kid":"e1"}"#, &text), Reason::Algorithm),
        ("P-256 with the name of an RSA key", P256.sign(r#"{"alg":"ES256","kid":"r1"}"#, &text), Reason::Algorithm),
        (
            "PS256 with a key for RS256",
            RSA.sign_as(Alg::PS256, r#"{"alg":"PS256","kid":"r1"}"#, &text),
            Reason::Algorithm,
        ),
        ("RS256 under the name PS256", RSA.sign(r#"{"alg":"PS256","kid":"any-rsa"}"#, &text), Reason::Signature),
        ("no kid, and two keys", RSA.sign(r#"{"alg":"RS256"}"#, &text), Reason::AmbiguousKey),
        ("an unknown kid", with_header(json!({"kid": "e9"})), Reason::UnknownKey),
        ("an empty kid", with_header(json!({"kid": ""})), Reason::UnknownKey),
        ("a kid that is a path", with_header(json!({"kid": "../../dev/null"})), Reason::UnknownKey),
        ("a kid with a space more", with_header(json!({"kid": "e1 "})), Reason::UnknownKey),
        ("a key for encryption", OTHER_P256.token("encrypts", &claims()), Reason::UnknownKey),
        ("a key that may only sign", OTHER_P256.token("signs", &claims()), Reason::UnknownKey),
        ("a key whose private half is published", OTHER_P256.token("private", &claims()), Reason::UnknownKey),
        ("a key for another algorithm", OTHER_RSA.token("oaep", &claims()), Reason::UnknownKey),
        ("another issuer's key", OTHER_P256.token("e2", &claims()), Reason::UnknownKey),
        ("a stranger under a known name", OTHER_P256.token("e1", &claims()), Reason::Signature),
        (
            "a key that came along",
            OTHER_P256.sign(&json!({"alg": "ES256", "kid": "e1", "jwk": OTHER_P256.jwk}).to_string(), &text),
            Reason::Signature,
        ),
        (
            "this issuer's key for another's token",
            P256.token("e2", &claims_with(json!({"iss": SECOND}))),
            Reason::Signature,
        ),
    ]
}

fn forged_signatures() -> Vec<(&'static str, String, Reason)> {
    let [header, body, signature] = parts();
    let other_body = encode(claims_with(json!({"sub": "eve"})).to_string());
    let other_header = encode(r#"{"alg":"ES256","kid":"e1","typ":"at+jwt"}"#);
    let raw = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    let with = |signature: &[u8]| format!("{header}.{body}.{}", encode(signature));
    let mut flipped = raw.clone();
    flipped[63] ^= 1;
    // The same signature in the ASN.1 form of X.509, which RFC 7518, section 3.4, does not allow.
    let integer = |number: &[u8]| {
        let number = [&[0], number].concat();
        [&[2, 33], number.as_slice()].concat()
    };
    let sequence = [&[0x30, 70], integer(&raw[..32]).as_slice(), &integer(&raw[32..])].concat();
    vec![
        ("claims exchanged", format!("{header}.{other_body}.{signature}"), Reason::Signature),
        ("header exchanged", format!("{other_header}.{body}.{signature}"), Reason::Signature),
        ("one bit of the signature", with(&flipped), Reason::Signature),
        ("a signature of zeros", with(&[0; 64]), Reason::Signature),
        ("a signature of one byte", with(&[1]), Reason::Signature),
        ("a signature cut short", with(&raw[..63]), Reason::Signature),
        ("a signature and a byte", with(&[raw.as_slice(), &[0]].concat()), Reason::Signature),
        ("a signature in ASN.1", with(&sequence), Reason::Signature),
        ("both halves exchanged", with(&[&raw[32..], &raw[..32]].concat()), Reason::Signature),
    ]
}

fn false_claims() -> Vec<(&'static str, String, Reason)> {
    vec![
        ("no issuer", with_claims(json!({"iss": null})), Reason::Missing("iss")),
        ("an issuer that is null", P256.sign(HEADER, r#"{"iss":null}"#), Reason::Unfit("iss")),
        ("an issuer in a list", with_claims(json!({"iss": [ISSUER]})), Reason::Unfit("iss")),
        ("an issuer in an object", with_claims(json!({"iss": {"a": ISSUER}})), Reason::Unfit("iss")),
        ("an unknown issuer", with_claims(json!({"iss": "https://evil.example/"})), Reason::Issuer),
        ("an issuer without its slash", with_claims(json!({"iss": "https://id.example"})), Reason::Issuer),
        ("an issuer in capitals", with_claims(json!({"iss": "HTTPS://ID.EXAMPLE/"})), Reason::Issuer),
        ("no audience", with_claims(json!({"aud": null})), Reason::Missing("aud")),
        ("an empty list of audiences", with_claims(json!({"aud": []})), Reason::Audience),
        ("another audience", with_claims(json!({"aud": "billing"})), Reason::Audience),
        ("other audiences", with_claims(json!({"aud": ["billing", "mail"]})), Reason::Audience),
        ("an audience that begins like ours", with_claims(json!({"aud": "uploads2"})), Reason::Audience),
        ("several audiences in one text", with_claims(json!({"aud": "uploads billing"})), Reason::Audience),
        ("an audience that is a number", with_claims(json!({"aud": 1})), Reason::Unfit("aud")),
        ("audiences of several types", with_claims(json!({"aud": ["uploads", 1]})), Reason::Unfit("aud")),
        ("an audience in an object", with_claims(json!({"aud": {"uploads": true}})), Reason::Unfit("aud")),
        ("no subject", with_claims(json!({"sub": null})), Reason::Missing("sub")),
        ("an empty subject", with_claims(json!({"sub": ""})), Reason::Unfit("sub")),
        ("a subject that is a number", with_claims(json!({"sub": 17})), Reason::Unfit("sub")),
        ("a subject in a list", with_claims(json!({"sub": ["ada"]})), Reason::Unfit("sub")),
        ("a subject with a line break", with_claims(json!({"sub": "ada\nadmin"})), Reason::Unfit("sub")),
        ("a subject with a zero byte", with_claims(json!({"sub": "ada\u{0}"})), Reason::Unfit("sub")),
        ("a subject beyond all measure", with_claims(json!({"sub": "a".repeat(256)})), Reason::Unfit("sub")),
        ("a tenant that is a number", with_claims(json!({"org": {"id": 5}})), Reason::Unfit("tenant")),
        ("no expiry", with_claims(json!({"exp": null})), Reason::Missing("exp")),
        ("an expiry in a text", with_claims(json!({"exp": "1800003600"})), Reason::Unfit("exp")),
        ("an expiry before the epoch", with_claims(json!({"exp": -1})), Reason::Unfit("exp")),
        ("an expiry after all time", with_claims(json!({"exp": 1e300})), Reason::Unfit("exp")),
        ("an expiry beyond 64 bits", with_text_instead(r#""exp":18446744073709551616"#), Reason::Unfit("exp")),
        ("an expiry that is true", with_claims(json!({"exp": true})), Reason::Unfit("exp")),
        ("expired, leeway and all", with_claims(json!({"exp": NOW - 30})), Reason::Expired),
        ("expired at the epoch", with_claims(json!({"exp": 0, "iat": 0})), Reason::Expired),
        ("in 2999", with_claims(json!({"exp": 32_472_144_000_u64})), Reason::LivesTooLong),
        ("a second more than a day", with_claims(json!({"iat": NOW, "exp": NOW + 86_401})), Reason::LivesTooLong),
        ("milliseconds for seconds", with_claims(json!({"exp": (NOW + 60) * 1000})), Reason::Unfit("exp")),
        ("no time of issue", with_claims(json!({"iat": null})), Reason::Missing("iat")),
        ("a time of issue in a text", with_claims(json!({"iat": "now"})), Reason::Unfit("iat")),
        ("issued ahead of us", with_claims(json!({"iat": NOW + 31})), Reason::IssuedAhead),
        ("over before it was issued", with_claims(json!({"iat": NOW + 20, "exp": NOW - 20})), Reason::Unfit("exp")),
        ("not yet valid", with_claims(json!({"nbf": NOW + 31})), Reason::NotYet),
        ("a beginning in a text", with_claims(json!({"nbf": "0"})), Reason::Unfit("nbf")),
        ("a beginning that is null", with_text(r#""nbf":null"#), Reason::Unfit("nbf")),
    ]
}

/// A token of the P-256 key `e1` with this text in place of its expiry.
fn with_text_instead(text: &str) -> String {
    let without = claims_with(json!({"exp": null})).to_string();
    P256.sign(HEADER, &without.replacen('{', &format!("{{{text},"), 1))
}

#[tokio::test]
async fn hostile_tokens_are_refused_each_for_its_own_reason() {
    let Stage { identity, _directory } = stage();
    let rows: Vec<_> =
        [misshapen(), misdirected_keys(), forged_signatures(), false_claims()].into_iter().flatten().collect();
    assert!(rows.len() >= 60, "{}", rows.len());
    for (position, (name, token, expected)) in rows.iter().enumerate() {
        assert!(rows[..position].iter().all(|other| other.0 != *name), "two rows are called {name}");
        assert_eq!(refusal(&identity.verify(token).await), Some(*expected), "{name}");
        assert_eq!(refusal(&identity.verify(token).await), Some(*expected), "{name}, once more");
    }
    assert_eq!(identity.metrics().refused.get(), 2 * rows.len() as u64);
    assert_eq!(identity.verified.len(), 0);
    // The tokens are hostile by what the rows say of them: the one that they are made from is accepted.
    assert_eq!(identity.verify(&P256.token("e1", &claims())).await.map(|_| ()), Ok(()));
}

#[tokio::test]
async fn odd_tokens_are_accepted_where_the_standards_allow_them() {
    let Stage { identity, _directory } = stage();
    let text = claims().to_string();
    let fitting = "x".repeat(5900);
    for (name, token) in [
        ("RS256", RSA.token("r1", &claims())),
        ("RS256 with a key for any", RSA.token("any-rsa", &claims())),
        ("PS256 with a key for any", RSA.sign_as(Alg::PS256, r#"{"alg":"PS256","kid":"any-rsa"}"#, &text)),
        ("ES256", P256.token("e1", &claims())),
        ("EdDSA", ED25519.token("d1", &claims())),
        ("no kid, and one key that fits", P256.sign(r#"{"alg":"ES256"}"#, &text)),
        ("no typ", with_header(json!({"typ": null}))),
        ("typ in small letters", with_header(json!({"typ": "jwt"}))),
        ("an access token", with_header(json!({"typ": "at+jwt"}))),
        ("an access token, in full", with_header(json!({"typ": "Application/AT+JWT"}))),
        ("a key that came along and is not used", with_header(json!({"jwk": OTHER_P256.jwk, "x5c": ["AAAA"]}))),
        ("several audiences", with_claims(json!({"aud": ["mail", "https://uploads.example"]}))),
        ("a time with a fraction", with_claims(json!({"exp": 1_800_000_000.75}))),
        ("expired within the leeway", with_claims(json!({"exp": NOW - 29}))),
        ("issued ahead within the leeway", with_claims(json!({"iat": NOW + 30}))),
        ("valid soon, within the leeway", with_claims(json!({"nbf": NOW + 30}))),
        ("a day to the second", with_claims(json!({"iat": NOW, "exp": NOW + 86_400}))),
        ("a subject of 255 bytes", with_claims(json!({"sub": "a".repeat(255)}))),
        ("a subject in other letters", with_claims(json!({"sub": "Ädä 🦀"}))),
        ("almost too long", with_claims(json!({"x": fitting}))),
        ("another issuer", OTHER_P256.token("e2", &claims_with(json!({"iss": SECOND})))),
        ("a kid that two issuers use", OTHER_RSA.token("e1", &claims_with(json!({"iss": SECOND})))),
    ] {
        assert_eq!(identity.verify(&token).await.map(|_| ()), Ok(()), "{name}");
    }
}

#[tokio::test]
async fn noise_is_refused_without_a_panic() {
    let Stage { identity, _directory } = stage();
    let token = P256.token("e1", &claims());
    let randomness = crate::clock::Randomness::seeded(11);
    for round in 0..2000 {
        let [at_high, at_low, with]: [u8; 3] = randomness.bytes();
        let position = usize::from(u16::from_be_bytes([at_high, at_low])) % token.len();
        let mut bytes = token.clone().into_bytes();
        bytes[position] = with & 0x7f;
        let text = String::from_utf8(bytes).unwrap();
        if text != token {
            assert!(refusal(&identity.verify(&text).await).is_some(), "round {round}: {text:?}");
        }
    }
}
