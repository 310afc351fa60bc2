//! Many users, each with a token of their own, and the requests that they send.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::storage;

/// The `iss` of every token.
pub(crate) const ISSUER: &str = "https://issuer.load.example";
/// The `aud` of every token.
pub(crate) const AUDIENCE: &str = "uploads";
/// The policy that every request names.
pub(crate) const POLICY: &str = "videos";

/// The users of one run. Their key is made for the run and known nowhere else.
pub(crate) struct Users {
    /// The key set that their tokens are verified with, as JSON (RFC 7517).
    pub(crate) key_set: String,
    /// A whole `POST /v1/uploads` of each user.
    pub(crate) creates: Vec<Vec<u8>>,
}

impl Users {
    /// Makes `count` users, whose tokens are good for an hour.
    pub(crate) fn new(count: u32) -> anyhow::Result<Self> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
        // The uncompressed point: a byte 4, then both coordinates (SEC 1, section 2.3.3).
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let key_set = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "load",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]});

        let header = Header { kid: Some("load".to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        let now = jiff::Timestamp::now().as_second();
        let creates = (0..count).map(|user| {
            let claims = json!({
                "iss": ISSUER, "aud": AUDIENCE, "sub": format!("user-{user}"), "roles": ["creator", "member"],
                "iat": now, "exp": now + 3600,
            });
            Ok(create(&jsonwebtoken::encode(&header, &claims, &key)?, user))
        });
        Ok(Self { creates: creates.collect::<anyhow::Result<_>>()?, key_set: key_set.to_string() })
    }
}

/// A create as a client's library would send it.
fn create(token: &str, user: u32) -> Vec<u8> {
    let body = json!({
        "policy": POLICY, "filename": format!("holiday-{user}.mp4"), "content_type": "video/mp4", "size_bytes": 1_048_576,
    })
    .to_string();
    format!(
        "POST /v1/uploads HTTP/1.1\r\nhost: uploads.load.example\r\nuser-agent: load\r\naccept: application/json\r\n\
         authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An initiation, to measure storage alone.
pub(crate) fn initiation() -> Vec<u8> {
    let body = r#"{"contentType":"video/mp4"}"#;
    format!(
        "POST /upload/storage/v1/b/{}/o?uploadType=resumable&name=videos%2Fuser-1%2F1.mp4&ifGenerationMatch=0 HTTP/1.1\r\n\
         host: storage.load.example\r\nauthorization: Bearer load\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        storage::BUCKET,
        body.len()
    )
    .into_bytes()
}
