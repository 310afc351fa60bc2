//! Who signs: the emulator's own service account, whose key it gives away, and others of which it knows the public key.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, KeyPair as _, ParsedPublicKey, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// The emulator's own service account.
pub const OWN_ACCOUNT: &str = "broker@emulator.example";

/// What IAM Credentials does for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    SignBlob,
    GenerateAccessToken,
}

/// Why an account cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The emulator's own key could not be made.
    #[error("no RSA key can be made for {OWN_ACCOUNT}")]
    NoKey,
    /// What was given for a signer is no public RSA key.
    #[error("the public key of {0} is not an RSA key of 2048 bits or more in PEM (BEGIN PUBLIC KEY)")]
    PublicKey(String),
    /// The emulator's own account has its own key.
    #[error("{OWN_ACCOUNT} is the emulator's own account, and has a key")]
    Taken,
}

/// The key of [`OWN_ACCOUNT`].
struct OwnKey {
    pair: RsaKeyPair,
    public: ParsedPublicKey,
    id: String,
}

/// Made when first asked for, since that takes a while, and once a process: every emulator in it has the same.
fn own_key() -> Result<&'static OwnKey, AccountError> {
    static KEY: OnceLock<Option<OwnKey>> = OnceLock::new();
    let make = || {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
        let der = pair.public_key().as_ref();
        let public = ParsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der).ok()?;
        let id = hex(&digest(&SHA256, der).as_ref()[..20]);
        Some(OwnKey { pair, public, id })
    };
    KEY.get_or_init(make).as_ref().ok_or(AccountError::NoKey)
}

/// A signature and the name of the key that it was made with.
pub(super) struct Signed {
    pub(super) key_id: &'static str,
    pub(super) signature: Vec<u8>,
}

/// What a signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// There is no such account.
    Unknown,
}

/// Every account.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    others: BTreeMap<String, ParsedPublicKey>,
}

impl Accounts {
    /// Takes further accounts with their public keys in PEM.
    pub(super) fn new(signers: &BTreeMap<String, String>) -> Result<Self, AccountError> {
        let mut others = BTreeMap::new();
        for (account, pem) in signers {
            if account == OWN_ACCOUNT {
                return Err(AccountError::Taken);
            }
            let key = from_pem(pem)
                .and_then(|der| ParsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der).ok())
                .ok_or_else(|| AccountError::PublicKey(account.clone()))?;
            others.insert(account.clone(), key);
        }
        Ok(Self { others })
    }

    /// Whether the account has signed `message` (RSASSA-PKCS1-v1_5 with SHA-256).
    pub(super) fn verify(&self, account: &str, message: &[u8], signature: &[u8]) -> Verdict {
        let key = match self.others.get(account) {
            Some(key) => key,
            None if account == OWN_ACCOUNT => match own_key() {
                Ok(own) => &own.public,
                Err(_) => return Verdict::Wrong,
            },
            None => return Verdict::Unknown,
        };
        if key.verify_sig(message, signature).is_ok() { Verdict::Right } else { Verdict::Wrong }
    }
}

/// Signs as [`OWN_ACCOUNT`].
pub(super) fn sign(message: &[u8]) -> Result<Signed, AccountError> {
    let own = own_key()?;
    let mut signature = vec![0; own.pair.public_modulus_len()];
    own.pair
        .sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| AccountError::NoKey)?;
    Ok(Signed { key_id: &own.id, signature })
}

/// The public key of [`OWN_ACCOUNT`].
pub(super) struct PublicKey {
    pub(super) id: &'static str,
    /// Big-endian and without zeros in front, as is the exponent.
    pub(super) modulus: &'static [u8],
    pub(super) exponent: &'static [u8],
}

/// The key that checks what [`sign`] signs.
pub(super) fn public_key() -> Result<PublicKey, AccountError> {
    let own = own_key()?;
    // RFC 8017, appendix A.1.1: a sequence of the two integers.
    let (modulus, exponent) = der_element(0x30, own.pair.public_key().as_ref())
        .and_then(|(sequence, _)| der_element(0x02, sequence))
        .and_then(|(modulus, rest)| Some((modulus, der_element(0x02, rest)?.0)))
        .ok_or(AccountError::NoKey)?;
    // A zero in front says that a number is not negative.
    let unsigned = |number: &'static [u8]| number.strip_prefix(&[0]).unwrap_or(number);
    Ok(PublicKey { id: &own.id, modulus: unsigned(modulus), exponent: unsigned(exponent) })
}

/// The content of the first element of `der`, if it has that tag, and what follows it.
fn der_element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    // From 128 on, the first byte says how many bytes the length has.
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length).filter(|_| found == tag)
}

/// The key file of [`OWN_ACCOUNT`], for an emulator that is called `url` (Google's IAM documentation, "Create and delete
/// service account keys").
pub(super) fn key_file(url: &str) -> Result<String, AccountError> {
    let own = own_key()?;
    let der = own.pair.as_der().map_err(|_| AccountError::NoKey)?;
    let file = json!({
        "type": "service_account",
        "project_id": "emulator",
        "private_key_id": own.id,
        "private_key": to_pem("PRIVATE KEY", der.as_ref()),
        "client_email": OWN_ACCOUNT,
        "client_id": "100000000000000000001",
        "auth_uri": format!("{url}/auth"),
        "token_uri": format!("{url}/token"),
        "universe_domain": "googleapis.com",
    });
    Ok(format!("{file:#}\n"))
}

/// RFC 7468.
fn to_pem(label: &str, der: &[u8]) -> String {
    let mut body = String::new();
    for (index, character) in STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            body.push('\n');
        }
        body.push(character);
    }
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn from_pem(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
