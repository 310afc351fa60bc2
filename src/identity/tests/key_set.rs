//! What of a key set can verify a token, and how the one key for a token is found.

use super::super::key_set::{KeySet, NoKey};
use super::*;

const ALL: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// An RSA key of this many bits; nobody knows what its factors are.
fn rsa_of(bits: usize) -> Value {
    let mut modulus = vec![0x55; bits.div_ceil(8)];
    modulus[0] = 0x80_u8 >> ((8 - bits % 8) % 8);
    json!({"kty": "RSA", "n": encode(modulus), "e": "AQAB"})
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

#[test]
fn only_sound_public_keys_for_signatures_are_kept() {
    let padded = |name: &str| {
        let mut bytes = URL_SAFE_NO_PAD.decode(RSA.jwk[name].as_str().unwrap()).unwrap();
        bytes.insert(0, 0);
        encode(bytes)
    };
    // The same point, cut in two at another place.
    let (x, y) = (P256.jwk["x"].as_str().unwrap(), P256.jwk["y"].as_str().unwrap());
    let point = [x, y].map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).concat();
    let uneven = json!({"x": encode(&point[..31]), "y": encode(&point[31..])});
    for (name, jwk, kept) in [
        ("RSA serves six algorithms", RSA.jwk.clone(), 6),
        ("RSA for one of them", RSA.jwk(json!({"alg": "PS384"})), 1),
        ("RSA with a zero before the modulus", RSA.jwk(json!({"n": padded("n")})), 6),
        ("P-256", P256.jwk.clone(), 1),
        ("P-384", P384.jwk.clone(), 1),
        ("Ed25519", ED25519.jwk.clone(), 1),
        ("for signatures", P256.jwk(json!({"use": "sig", "key_ops": ["verify"]})), 1),
        ("with a certificate", P256.jwk(json!({"x5c": ["AAAA"], "x5t": "AAAA"})), 1),
        ("RSA of 1024 bits", rsa_of(1024), 0),
        ("RSA of 2047 bits", rsa_of(2047), 0),
        ("RSA of 2048 bits", rsa_of(2048), 6),
        ("RSA of 8192 bits", rsa_of(8192), 6),
        ("RSA of 8193 bits", rsa_of(8193), 0),
        ("RSA without exponent", with(rsa_of(2048), "e", Value::Null), 0),
        ("RSA with exponent 1", with(rsa_of(2048), "e", json!("AQ")), 0),
        ("RSA with an even exponent", with(rsa_of(2048), "e", json!("AQAA")), 0),
        ("RSA with exponent 0", with(rsa_of(2048), "e", json!("AA")), 0),
        ("RSA with a huge exponent", with(rsa_of(2048), "e", json!(encode([0xff; 200]))), 0),
        ("RSA with an even modulus", with(rsa_of(2048), "n", json!(encode([0xfe; 256]))), 0),
        ("RSA with no modulus", with(rsa_of(2048), "n", json!("")), 0),
        ("RSA for ES256", RSA.jwk(json!({"alg": "ES256"})), 0),
        ("P-256 for RS256", P256.jwk(json!({"alg": "RS256"})), 0),
        ("P-256 for ES384", P256.jwk(json!({"alg": "ES384"})), 0),
        ("P-256 off the curve", P256.jwk(json!({"y": P256.jwk["x"]})), 0),
        ("P-256 at infinity", P256.jwk(json!({"x": encode([0; 32]), "y": encode([0; 32])})), 0),
        ("P-256 with uneven coordinates", P256.jwk(uneven), 0),
        ("P-256 under another curve's name", P256.jwk(json!({"crv": "P-384"})), 0),
        ("a curve that nobody accepts", P256.jwk(json!({"crv": "secp256k1"})), 0),
        ("Ed25519 of 31 bytes", ED25519.jwk(json!({"x": encode([1; 31])})), 0),
        ("X25519", ED25519.jwk(json!({"crv": "X25519"})), 0),
        ("a secret", json!({"kty": "oct", "k": "AAAA"}), 0),
        ("a secret for RS256", json!({"kty": "oct", "k": "AAAA", "alg": "RS256"}), 0),
        ("an unknown type", json!({"kty": "LWE"}), 0),
        ("no type", json!({"n": RSA.jwk["n"], "e": "AQAB"}), 0),
        ("a type that is a list", P256.jwk(json!({"kty": ["EC"]})), 0),
        ("for encryption", P256.jwk(json!({"use": "enc"})), 0),
        ("a use that is null", P256.jwk(json!({"use": null})), 0),
        ("for signing only", P256.jwk(json!({"key_ops": ["sign"]})), 0),
        ("for nothing", P256.jwk(json!({"key_ops": []})), 0),
        ("operations in a text", P256.jwk(json!({"key_ops": "verify"})), 0),
        ("an algorithm that is a number", P256.jwk(json!({"alg": 5})), 0),
        ("for none", P256.jwk(json!({"alg": "none"})), 0),
        ("a name that is a number", P256.jwk(json!({"kid": 5})), 0),
        ("a name beyond all measure", P256.jwk(json!({"kid": "k".repeat(256)})), 0),
        ("with its private half", P256.jwk(json!({"d": "AAAA"})), 0),
        ("in padded base64", P256.jwk(json!({"x": format!("{}=", P256.jwk["x"].as_str().unwrap())})), 0),
        ("a text", json!("key"), 0),
    ] {
        let alone = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), ALL);
        assert_eq!(alone.map_or(0, |keys| keys.len()), kept, "{name}");
        // A key that cannot be used takes none of the others with it.
        let beside = json!({"keys": [jwk, OTHER_P256.jwk(json!({"kid": "beside"}))]}).to_string();
        let beside = KeySet::parse(beside.as_bytes(), ALL).unwrap();
        assert!(beside.select(Some("beside"), Algorithm::ES256).is_ok(), "{name}");
    }
}

#[test]
fn a_key_is_chosen_by_name_and_algorithm_and_never_guessed() {
    let set = json!({"keys": [
        RSA.jwk(json!({"kid": "a", "alg": "RS256"})),
        RSA.jwk(json!({"kid": "a", "alg": "RS256"})),
        P256.jwk(json!({"kid": "a"})),
        OTHER_RSA.jwk(json!({"kid": "b", "alg": "RS256"})),
        P256.jwk(json!({"kid": "twice"})),
        OTHER_P256.jwk(json!({"kid": "twice"})),
        P384.jwk,
    ]});
    let keys = KeySet::parse(set.to_string().as_bytes(), ALL).unwrap();
    for (name, id, algorithm, expected) in [
        ("one name for two types", Some("a"), Algorithm::ES256, Ok(())),
        ("the same key listed twice", Some("a"), Algorithm::RS256, Ok(())),
        ("two keys of one name", Some("twice"), Algorithm::ES256, Err(NoKey::Ambiguous)),
        ("the algorithm of none of that name", Some("b"), Algorithm::ES256, Err(NoKey::Unfit)),
        ("an unknown name", Some("c"), Algorithm::RS256, Err(NoKey::Unknown)),
        ("no name, and one that fits", None, Algorithm::ES384, Ok(())),
        ("no name, and several that fit", None, Algorithm::RS256, Err(NoKey::Ambiguous)),
        ("no name, and none that fits", None, Algorithm::EdDSA, Err(NoKey::Unknown)),
        ("a key without name is not found by one", Some(""), Algorithm::ES384, Err(NoKey::Unknown)),
    ] {
        assert_eq!(keys.select(id, algorithm).map(|_| ()), expected, "{name}");
    }
}

#[test]
fn each_algorithm_verifies_what_another_implementation_signs() {
    let every = [RSA.jwk.clone(), P256.jwk.clone(), P384.jwk.clone(), ED25519.jwk.clone()];
    let keys = KeySet::parse(json!({"keys": every}).to_string().as_bytes(), ALL).unwrap();
    for (signer, theirs, ours) in [
        (&RSA, Alg::RS256, Algorithm::RS256),
        (&RSA, Alg::RS384, Algorithm::RS384),
        (&RSA, Alg::RS512, Algorithm::RS512),
        (&RSA, Alg::PS256, Algorithm::PS256),
        (&RSA, Alg::PS384, Algorithm::PS384),
        (&RSA, Alg::PS512, Algorithm::PS512),
        (&P256, Alg::ES256, Algorithm::ES256),
        (&P384, Alg::ES384, Algorithm::ES384),
        (&ED25519, Alg::EdDSA, Algorithm::EdDSA),
    ] {
        let signature = jsonwebtoken::crypto::sign(b"message", &signer.key, theirs).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for algorithm in ALL {
            let verifies = keys.select(None, *algorithm).unwrap().verifies(b"message", &signature);
            assert_eq!(verifies, *algorithm == ours, "{theirs:?} under {algorithm:?}");
        }
    }
}
