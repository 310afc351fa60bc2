//! The backend of a customer: it is told how uploads end, and is not always well.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use upload_broker::clock::Randomness;

/// What it and the brokers share.
const SECRET: &[u8; 32] = b"a secret of thirty-two bytes or ";

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes everything at once.
    Well,
    /// Of first deliveries it refuses some, takes some late, and takes others that it says it has not. The number decides
    /// which.
    Ill(u64),
}

/// An event as it was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its `type`, and the upload in it.
    pub kind: String,
    pub upload: Value,
    /// How often it came, and how often it was accepted.
    pub deliveries: u32,
    pub accepted: u32,
}

#[derive(Default)]
struct Heard {
    /// By `webhook-id`.
    events: BTreeMap<String, Told>,
    /// What must not happen.
    complaints: Vec<String>,
}

/// A running receiver.
pub struct Hooks {
    url: String,
    heard: Arc<Mutex<Heard>>,
    _task: AbortOnDropHandle<()>,
}

impl Hooks {
    pub async fn start(health: Health) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let heard = Arc::default();
        let router = Router::new().fallback(receive).with_state((Arc::clone(&heard), health));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, heard, _task: AbortOnDropHandle::new(task) }
    }

    /// The section that leads here, with its secret in a file in `folder`.
    pub fn section(&self, folder: &Path) -> String {
        std::fs::write(folder.join("hooks.secret"), format!("whsec_{}\n", STANDARD.encode(SECRET))).unwrap();
        format!(
            "[[webhooks]]\nurl = \"{}\"\nname = \"backend\"\nsecret_file = \"hooks.secret\"\n\
             allow_private_addresses = true\n",
            self.url
        )
    }

    /// Everything that came, by `webhook-id`.
    pub fn events(&self) -> BTreeMap<String, Told> {
        self.heard.lock().unwrap().events.clone()
    }

    /// Whether this event was accepted.
    pub fn has_accepted(&self, id: &str) -> bool {
        self.heard.lock().unwrap().events.get(id).is_some_and(|told| told.accepted > 0)
    }

    /// What came and must not: unsigned, unreadable, or another thing under an id that was there before.
    pub fn complaints(&self) -> Vec<String> {
        self.heard.lock().unwrap().complaints.clone()
    }
}

async fn receive(
    State((heard, health)): State<(Arc<Mutex<Heard>>, Health)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let (id, deliveries) = match note(&mut heard.lock().unwrap(), &headers, &body) {
        Ok(noted) => noted,
        Err(complaint) => {
            heard.lock().unwrap().complaints.push(complaint);
            return StatusCode::BAD_REQUEST;
        }
    };
    if let (Health::Ill(seed), 1) = (health, deliveries) {
        let of_id = id.bytes().fold(seed, |sum, byte| sum.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte));
        match Randomness::seeded(of_id).fraction() {
            0.0..0.1 => return StatusCode::INTERNAL_SERVER_ERROR,
            0.1..0.15 => tokio::time::sleep(Duration::from_secs(2)).await,
            // It was taken, and whoever sent it will not know.
            0.15..0.18 => {
                heard.lock().unwrap().events.entry(id).and_modify(|told| told.accepted += 1);
                return StatusCode::GATEWAY_TIMEOUT;
            }
            _ => {}
        }
    }
    heard.lock().unwrap().events.entry(id).and_modify(|told| told.accepted += 1);
    StatusCode::NO_CONTENT
}

/// Checks a message and keeps it; gives its id, and how often it has come by now.
fn note(heard: &mut Heard, headers: &HeaderMap, body: &[u8]) -> Result<(String, u32), String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, sent_at) = (header("webhook-id"), header("webhook-timestamp"));
    let signature = header("webhook-signature").strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
    let signed = [id.as_bytes(), b".", sent_at.as_bytes(), b".", body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    if hmac::verify(&key, &signed, &signature.unwrap_or_default()).is_err() {
        return Err(format!("{id:?} is not signed as it should be"));
    }
    let payload: Value = serde_json::from_slice(body).map_err(|error| format!("{id}: {error}"))?;
    let (kind, upload) = (&payload["type"], &payload["data"]["upload"]);
    let told = heard.events.entry(id.to_owned()).or_default();
    if told.deliveries == 0 {
        *told = Told { kind: kind.as_str().unwrap_or_default().to_owned(), upload: upload.clone(), ..Told::default() };
    } else if told.kind != *kind || told.upload != *upload {
        return Err(format!("{id} told {} of {}, and now {kind} of {upload}", told.kind, told.upload));
    }
    told.deliveries += 1;
    Ok((id.to_owned(), told.deliveries))
}
