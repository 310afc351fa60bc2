//! Keys and tokens for development: an issuer that is no more than a key in a file.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::model::secret::SecretText;

/// A P-256 key that signs tokens with ES256.
pub struct DevelopmentKey {
    pair: EcdsaKeyPair,
    /// The private key in PKCS#8.
    document: Zeroizing<Vec<u8>>,
    public: PublicPoint,
    /// The thumbprint of the public key (RFC 7638).
    id: String,
}

/// The coordinates of the public key, as a JWK has them.
struct PublicPoint {
    x: String,
    y: String,
}

/// Why there is no key, or no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no PKCS#8 in PEM.
    #[error("this is not a private key in PEM, which begins with -----BEGIN PRIVATE KEY-----")]
    NotPem,
    /// It is a key, but not on P-256.
    #[error("this is not a P-256 private key")]
    NotP256,
    /// The cryptographic library refused.
    #[error("the cryptographic library failed")]
    Cryptography,
}

impl DevelopmentKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate() -> Result<Self, Error> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Self::from_pkcs8(document.map_err(|_| Error::Cryptography)?.as_ref())
    }

    /// Reads what [`DevelopmentKey::to_pem`] has written, or any other P-256 key in PKCS#8.
    ///
    /// # Errors
    /// When the text is no such key. The error holds nothing of it.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| Error::NotPem)?;
        Self::from_pkcs8(key.secret_pkcs8_der())
    }

    fn from_pkcs8(document: &[u8]) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document).map_err(|_| Error::NotP256)?;
        // The uncompressed point of SEC 1, section 2.3.3: 4, then both coordinates.
        let [4, point @ ..] = pair.public_key().as_ref() else { return Err(Error::NotP256) };
        let (x, y) = point.split_at_checked(32).ok_or(Error::NotP256)?;
        let public = PublicPoint { x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y) };
        // RFC 7638, section 3: the required members in the order of their names, and no white space.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, public.x, public.y);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Ok(Self { pair, document: Zeroizing::new(document.to_vec()), public, id })
    }

    /// The private key, for a file that only its owner can read.
    pub fn to_pem(&self) -> SecretText {
        let encoded = Zeroizing::new(STANDARD.encode(&*self.document));
        // Room for all of it at once: growing would leave copies of the key behind in memory.
        let mut text = String::with_capacity(2 * encoded.len() + 128);
        text.push_str("-----BEGIN PRIVATE KEY-----\n");
        // RFC 7468, section 2: 64 characters a line.
        for (position, character) in encoded.char_indices() {
            if position > 0 && position.is_multiple_of(64) {
                text.push('\n');
            }
            text.push(character);
        }
        text.push_str("\n-----END PRIVATE KEY-----\n");
        SecretText::new(text)
    }

    /// The public key, as the JWK Set (RFC 7517, section 5) that `jwks_file` or `jwks_url` leads to.
    pub fn key_set(&self) -> Value {
        let PublicPoint { x, y } = &self.public;
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256", "kid": self.id},
        ]})
    }

    /// A token with these claims, as they are: nothing is added.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, Error> {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.id});
        let claims = Value::Object(claims.clone());
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| Error::Cryptography)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for DevelopmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevelopmentKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_shows_itself_nowhere_else() {
        let key = DevelopmentKey::generate().unwrap();
        let pem = key.to_pem();
        assert!(pem.expose().lines().all(|line| line.len() <= 64));
        let again = DevelopmentKey::from_pem(pem.expose()).unwrap();
        assert_eq!(again.key_set(), key.key_set());
        assert_eq!(format!("{key:?}"), format!("DevelopmentKey {{ id: {:?}, .. }}", key.id));
        assert!(key.key_set()["keys"][0].get("d").is_none());
    }

    #[test]
    fn the_key_id_is_the_thumbprint_that_another_implementation_computes() {
        let key = DevelopmentKey::generate().unwrap();
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.key_set()["keys"][0].clone()).unwrap();
        assert_eq!(jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap(), key.id);
    }

    #[test]
    fn what_is_no_p256_key_is_refused_without_repeating_it() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        for (name, text) in [
            ("nothing", ""),
            ("no PEM", "s3cret"),
            ("PEM of something else", "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n"),
            ("no key in it", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"),
            ("another curve", &other),
        ] {
            let error = DevelopmentKey::from_pem(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{name}");
        }
    }
}
