//! Who signs URLs that clients use by themselves, and with what.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroize as _;

use super::call::Caller;
use super::error::{Error, OpenError, Upstream};
use super::json::{Answer, Authority, Body, Request, parse};
use super::metrics::Operation;
use super::signing::Canonical;
use crate::model::secret::{SecretText, SessionUri};
use crate::model::time::Timestamp;

/// Who can sign in the name of the broker's credentials.
pub(super) enum SigningIdentity {
    /// A service account whose private key is at hand.
    Key {
        /// The service account.
        email: String,
        /// Its RSA key: PKCS#8 in PEM.
        private_key: SecretText,
    },
    /// A service account whose key Google holds: IAM Credentials signs for it.
    Remote {
        /// The service account.
        account: RemoteAccount,
        /// Where IAM Credentials is: scheme, host and port.
        iam_credentials: Url,
    },
    /// These credentials are not those of a service account that could sign.
    Nobody {
        /// Whose they are, for a message: "a person's login".
        whose: &'static str,
    },
}

/// A service account whose key Google holds.
pub(super) enum RemoteAccount {
    /// The one of this name.
    Named(String),
    /// The one of the machine: its metadata server knows the name, at this address.
    OfMachine(Url),
}

/// The longest life of a URL that IAM Credentials signs: the keys that Google holds are only good for that long after
/// they were used (IAM documentation, "Service account keys", Google-managed keys).
const LONGEST_REMOTE_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Signs, with a key at hand or by IAM Credentials.
pub(super) enum Signer {
    /// With this key.
    Key {
        email: String,
        key: Arc<RsaKeyPair>,
        /// As many as there are processors: more at a time would only take them from the threads that serve requests.
        slots: Arc<Semaphore>,
    },
    /// By IAM Credentials, with the broker's token. Its account needs the permission `iam.serviceAccounts.signBlob` on
    /// itself.
    Remote {
        account: Account,
        /// Scheme, host and port.
        iam_credentials: String,
    },
}

/// The account that IAM Credentials signs for.
pub(super) enum Account {
    Named(String),
    /// The machine's. Its name is asked for once: before the first signature, and again only as long as nobody says it.
    OfMachine {
        address: Url,
        name: OnceCell<String>,
    },
}

impl Signer {
    /// Prepares to sign in the name of `identity`. Asks nobody.
    pub(super) fn new(identity: SigningIdentity) -> Result<Self, OpenError> {
        match identity {
            SigningIdentity::Key { email, private_key } => {
                let key = read_key(&private_key)
                    .ok_or(OpenError::CannotSign { whose: "a key that is no RSA key of 2048 to 8192 bits in PEM" })?;
                let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
                Ok(Self::Key { email, key: Arc::new(key), slots: Arc::new(Semaphore::new(processors)) })
            }
            SigningIdentity::Remote { account: RemoteAccount::Named(name), .. } if !is_account(&name) => {
                Err(OpenError::CannotSign { whose: "those of an account whose name is no e-mail address" })
            }
            SigningIdentity::Remote { account, iam_credentials } => {
                let account = match account {
                    RemoteAccount::Named(name) => Account::Named(name),
                    RemoteAccount::OfMachine(address) => Account::OfMachine { address, name: OnceCell::new() },
                };
                Ok(Self::Remote { account, iam_credentials: iam_credentials.origin().ascii_serialization() })
            }
            SigningIdentity::Nobody { whose } => Err(OpenError::CannotSign { whose }),
        }
    }

    /// The URL of `request`, signed, good from `now` for `lifetime`.
    pub(super) async fn sign(
        &self,
        caller: &Caller,
        request: &Canonical<'_>,
        now: Timestamp,
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<SessionUri, Error> {
        match self {
            Self::Key { email, key, slots } => {
                let unsigned = request.unsigned(email, now, lifetime)?;
                let _operation = caller.enter(Operation::Sign)?;
                let signature = sign_with(key, slots, unsigned.string_to_sign.clone(), deadline).await?;
                unsigned.signed(&signature)
            }
            Self::Remote { account, iam_credentials } => {
                if lifetime > LONGEST_REMOTE_LIFE {
                    return Err(Error::Nonsense("a URL signed by IAM Credentials lives twelve hours at most"));
                }
                let email = account.name(caller, deadline).await?;
                let unsigned = request.unsigned(email, now, lifetime)?;
                let request = signature_request(iam_credentials, email, &unsigned.string_to_sign)?;
                let signature = caller.call(Operation::Sign, &request, deadline, read_signature).await?;
                unsigned.signed(&signature)
            }
        }
    }
}

/// Says whose signature it is, and who makes it.
impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { email, .. } => write!(f, "the key of {email} at hand"),
            Self::Remote { account, .. } => {
                let name = match account {
                    Account::Named(name) => Some(name),
                    Account::OfMachine { name, .. } => name.get(),
                };
                let name = name.map_or("the service account of this machine", String::as_str);
                write!(f, "IAM Credentials, for {name}")
            }
        }
    }
}

impl Account {
    /// The name. Callers that come before it is known wait for the one of them that asks.
    async fn name(&self, caller: &Caller, deadline: Instant) -> Result<&str, Error> {
        match self {
            Self::Named(name) => Ok(name),
            Self::OfMachine { address, name } => {
                let ask = name.get_or_try_init(async || {
                    let mut headers = HeaderMap::with_capacity(1);
                    headers.insert(FLAVOR, HeaderValue::from_static("Google"));
                    let (method, url) = (Method::GET, address.clone());
                    let request = Request { method, url, headers, body: Vec::new(), authority: Authority::Nothing };
                    caller.call(Operation::Sign, &request, deadline, read_account).await
                });
                // Whoever waits for another's question has a deadline of its own.
                timeout_at(deadline, ask)
                    .await
                    .map_err(|_| Error::TimedOut { whom: Upstream::MetadataServer })?
                    .map(String::as_str)
            }
        }
    }
}

/// The header that tells the metadata server from whatever else answers to its name (Compute Engine documentation, "View
/// and query VM metadata").
const FLAVOR: &str = "metadata-flavor";

/// The name of the machine's account.
fn read_account(answer: &Answer) -> Result<String, Error> {
    if answer.headers.get(FLAVOR).is_none_or(|flavor| flavor != "Google") {
        return Err(Error::Nonsense("the name of the machine's account is not from a metadata server of Google"));
    }
    if answer.status != StatusCode::OK {
        // 404 is what a machine without a service account says.
        return Err(Error::Nonsense("the metadata server does not name the machine's service account"));
    }
    let name = match &answer.body {
        Body::Whole(body) => std::str::from_utf8(body).map(str::trim).unwrap_or_default(),
        Body::TooLong => "",
    };
    if is_account(name) {
        Ok(name.to_owned())
    } else {
        // On GKE it may be a workload identity pool, which cannot sign.
        Err(Error::Nonsense("the account of the machine is no service account"))
    }
}

/// Whether `name` is an e-mail address of the kind that service accounts have, which can stand in a path as it is.
pub(super) fn is_account(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte);
    let part = |part: &str| !part.is_empty() && part.bytes().all(plain);
    name.len() <= 254 && name.split_once('@').is_some_and(|(local, domain)| part(local) && part(domain))
}

/// `POST …:signBlob` (IAM documentation, Service Account Credentials API, `projects.serviceAccounts.signBlob`).
fn signature_request(iam_credentials: &str, email: &str, text: &str) -> Result<Request, Error> {
    let url = parse(&format!("{iam_credentials}/v1/projects/-/serviceAccounts/{email}:signBlob"))?;
    let body = serde_json::json!({ "payload": STANDARD.encode(text) }).to_string().into_bytes();
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(Request { method: Method::POST, url, headers, body, authority: Authority::Token })
}

fn read_signature(answer: &Answer) -> Result<Vec<u8>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Signature {
        signed_blob: String,
    }
    if answer.status.is_client_error() {
        return Err(Error::SigningRefused { status: answer.status.as_u16(), reason: answer.reason() });
    }
    if answer.status != StatusCode::OK {
        return Err(Error::Nonsense("an answer of IAM Credentials with a status that does not belong to the request"));
    }
    let nonsense = Error::Nonsense("an answer of IAM Credentials without a signature");
    let Body::Whole(body) = &answer.body else { return Err(nonsense) };
    let Ok(Signature { signed_blob }) = serde_json::from_slice(body) else { return Err(nonsense) };
    // As long as an RSA key from 1024 to 8192 bits makes them.
    STANDARD.decode(signed_blob).ok().filter(|bytes| (128..=1024).contains(&bytes.len())).ok_or(nonsense)
}

/// The key of PKCS#8 or PKCS#1 in PEM.
fn read_key(pem: &SecretText) -> Option<RsaKeyPair> {
    let mut der = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).ok()?;
    let key = match &der {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
        _ => None,
    };
    der.zeroize();
    key
}

/// Signs away from the threads that serve requests: it takes about a millisecond of computing, in which such a thread
/// would serve nobody, and handing it over takes a hundredth of that. Who does not get a slot until the deadline leaves
/// nothing behind that would be computed for nobody.
async fn sign_with(
    key: &Arc<RsaKeyPair>,
    slots: &Arc<Semaphore>,
    text: String,
    deadline: Instant,
) -> Result<Vec<u8>, Error> {
    let slot = timeout_at(deadline, Arc::clone(slots).acquire_owned()).await.ok().and_then(Result::ok);
    let slot = slot.ok_or(Error::Overloaded)?;
    let key = Arc::clone(key);
    let signing = spawn_blocking(move || {
        // Kept to the end, also when nobody waits for it any more.
        let _slot = slot;
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).map(|()| signature)
    });
    match timeout_at(deadline, signing).await {
        Ok(Ok(Ok(signature))) => Ok(signature),
        Ok(_) => Err(Error::Nonsense("the key of the credentials did not sign")),
        // Nobody else was asked: it is this process that has too much to do.
        Err(_) => Err(Error::Overloaded),
    }
}
