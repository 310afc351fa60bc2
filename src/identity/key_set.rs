//! A key set document (RFC 7517) becomes the keys that can verify something.
//!
//! A [`Key`] is bound to *one* algorithm when it is read, so no token can make a key do what it is not for: choosing by
//! the header's algorithm is a lookup, never an instruction. A JWK that names no algorithm becomes one [`Key`] for each
//! algorithm that fits its type and that the issuer may use.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Algorithm, json};
use crate::model::Invalid;

/// Longer key ids are refused, in tokens as in key sets.
pub(super) const MAX_KEY_ID_BYTES: usize = 255;

/// Larger sets are refused: the largest public ones hold about a dozen keys.
const MAX_KEYS: usize = 256;

/// A public key, and the one algorithm that it verifies.
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    material: ParsedPublicKey,
    fingerprint: Fingerprint,
}

/// Tells a key from every other: equal as long as id, algorithm and the key itself are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 16]);

impl Key {
    fn new(id: Option<&str>, algorithm: Algorithm, material: ParsedPublicKey) -> Self {
        let bytes = material.as_ref();
        // Each part stands behind its length, so no two keys run together.
        let described =
            format!("{algorithm:?} {} {} {}", id.map_or(usize::MAX, str::len), id.unwrap_or(""), bytes.len());
        let digest = digest(&SHA256, &[described.as_bytes(), bytes].concat());
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&digest.as_ref()[..16]);
        Self { id: id.map(str::to_owned), algorithm, material, fingerprint: Fingerprint(fingerprint) }
    }

    /// Whether `signature` over `message` was made with the private half of this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.material.verify_sig(message, signature).is_ok()
    }

    /// What remembers this key after the set that it came in is gone.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Why a set has no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// No key of that name; without a name, none of that algorithm. A newer set may have it.
    Unknown,
    /// There is a key of that name, but it is for another algorithm.
    Unfit,
    /// Several keys fit, and nothing says which one is meant.
    Ambiguous,
}

/// The keys of one issuer that can verify tokens.
pub(super) struct KeySet(Vec<Arc<Key>>);

impl KeySet {
    /// Reads a JWK Set and keeps what can verify one of the `accepted` algorithms. Keys of unknown types, for other
    /// uses, or broken, are passed over, as RFC 7517, section 5, asks.
    ///
    /// # Errors
    /// When the document is no key set, or nothing in it can be used.
    pub(super) fn parse(document: &[u8], accepted: &[Algorithm]) -> Result<Self, Invalid> {
        let document = json::object(document).ok_or_else(|| Invalid::new("is not a JSON object"))?;
        let Some(Value::Array(entries)) = document.get("keys") else {
            return Err(Invalid::new("has no array \"keys\""));
        };
        if entries.len() > MAX_KEYS {
            return Err(Invalid::new(format!("has more than {MAX_KEYS} keys")));
        }
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for key in entries.iter().filter_map(Value::as_object).flat_map(|jwk| usable(jwk, accepted)) {
            if !keys.iter().any(|known| known.fingerprint == key.fingerprint) {
                keys.push(Arc::new(key));
            }
        }
        if keys.is_empty() {
            return Err(Invalid::new("has no key that verifies any of the issuer's algorithms"));
        }
        Ok(Self(keys))
    }

    /// The one key that a token with this `kid` and algorithm can have been signed with.
    pub(super) fn select(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Arc<Key>, NoKey> {
        let mut named = self.0.iter().filter(|key| id.is_none() || key.id.as_deref() == id).peekable();
        let any_named = id.is_some() && named.peek().is_some();
        let mut fitting = named.filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(NoKey::Ambiguous),
            (None, _) if any_named => Err(NoKey::Unfit),
            (None, _) => Err(NoKey::Unknown),
        }
    }

    /// Whether the key is still among these.
    pub(super) fn holds(&self, fingerprint: Fingerprint) -> bool {
        self.0.iter().any(|key| key.fingerprint == fingerprint)
    }

    /// Whether one of them is for `algorithm`.
    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        self.0.iter().any(|key| key.algorithm == algorithm)
    }

    /// How many keys there are, one for each algorithm that a JWK serves.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The keys that one JWK gives; none when it is not for verifying, or cannot be read.
fn usable(jwk: &Map<String, Value>, accepted: &[Algorithm]) -> Vec<Key> {
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Some(id.as_str()),
        Some(_) => return Vec::new(),
    };
    let for_signatures = jwk.get("use").is_none_or(|usage| usage == "sig");
    let for_verifying = jwk
        .get("key_ops")
        .is_none_or(|operations| operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify")));
    // Whoever publishes the private half has published everyone's signature.
    let private = jwk.contains_key("d");
    let alg = match jwk.get("alg") {
        None => None,
        Some(Value::String(name)) => match Algorithm::named(name) {
            Some(algorithm) => Some(algorithm),
            None => return Vec::new(),
        },
        Some(_) => return Vec::new(),
    };
    if !for_signatures || !for_verifying || private {
        return Vec::new();
    }
    let algorithms = accepted.iter().copied().filter(|one| alg.is_none_or(|alg| alg == *one));
    algorithms.filter_map(|algorithm| Some(Key::new(id, algorithm, material(jwk, algorithm)?))).collect()
}

/// The public key in `jwk`, made ready for `algorithm`; `None` where they do not fit (RFC 7518, section 6; RFC 8037).
fn material(jwk: &Map<String, Value>, algorithm: Algorithm) -> Option<ParsedPublicKey> {
    match algorithm {
        Algorithm::RS256 => rsa(jwk, &signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => rsa(jwk, &signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => rsa(jwk, &signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => rsa(jwk, &signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => rsa(jwk, &signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => rsa(jwk, &signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => elliptic(jwk, "P-256", 32, &signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => elliptic(jwk, "P-384", 48, &signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => edwards(jwk),
    }
}

fn rsa(jwk: &Map<String, Value>, parameters: &'static RsaParameters) -> Option<ParsedPublicKey> {
    if jwk.get("kty")? != "RSA" {
        return None;
    }
    let (n, e) = (member(jwk, "n")?, member(jwk, "e")?);
    // RFC 7518, section 6.3.1.1, forbids leading zeros, and warns that some implementations write one.
    let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
    // RFC 7518, sections 3.3 and 3.5: 2048 bits or more. The upper end keeps one verification cheap.
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    // An even modulus has a known factor; an exponent of 1, or an even one, is no signature at all.
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    if !(2048..=8192).contains(&bits) || !odd(n) || !odd(e) || e == [1] || e.len() > 4 {
        return None;
    }
    RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()
}

fn elliptic(
    jwk: &Map<String, Value>,
    curve: &str,
    coordinate_bytes: usize,
    algorithm: &'static dyn VerificationAlgorithm,
) -> Option<ParsedPublicKey> {
    if jwk.get("kty")? != "EC" || jwk.get("crv")? != curve {
        return None;
    }
    let (x, y) = (member(jwk, "x")?, member(jwk, "y")?);
    // RFC 7518, section 6.2.1.2: each coordinate has the full length of the curve.
    if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
        return None;
    }
    // The uncompressed point of SEC 1, section 2.3.3. Parsing checks that it lies on the curve.
    ParsedPublicKey::new(algorithm, [&[4], x.as_slice(), y.as_slice()].concat()).ok()
}

fn edwards(jwk: &Map<String, Value>) -> Option<ParsedPublicKey> {
    if jwk.get("kty")? != "OKP" || jwk.get("crv")? != "Ed25519" {
        return None;
    }
    let x = member(jwk, "x")?;
    // Only the bare key of RFC 8037, section 2; the parser would take other encodings as well.
    if x.len() != 32 {
        return None;
    }
    ParsedPublicKey::new(&signature::ED25519, x).ok()
}

fn member(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok()
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
