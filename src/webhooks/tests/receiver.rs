//! A receiver of webhooks on loopback that misbehaves on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::super::sign::Secrets;
use super::super::{EventKind, WebhookSettings};
use crate::model::time::Timestamp;

/// What the receiver does with a request, once it has read it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Answers with this status and these headers.
    Status(u16, String),
    /// Says nothing, and keeps the connection.
    Silence,
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Begins to answer 200 and never comes to an end.
    Endless,
    /// Answers 200, announces a body and says nothing more.
    Stalled,
    /// Closes without a word.
    Close,
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self::Status(status, String::new())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) request_line: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// Whether one of the signatures is the one that `secret` makes.
    pub(super) fn is_signed_with(&self, secret: &str) -> bool {
        let at = Timestamp::from_secs(self.header("webhook-timestamp").parse().unwrap());
        let expected = Secrets::parse(secret).unwrap().signature(self.id(), at, self.body.as_bytes());
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

pub(super) struct Receiver {
    pub(super) url: String,
    script: Arc<Script>,
}

struct Script {
    answer: Mutex<Answer>,
    received: Mutex<Vec<Received>>,
    arrived: Semaphore,
}

impl Receiver {
    /// One that answers 200 until it is told otherwise.
    pub(super) async fn start() -> Self {
        let (listener, port, script) = Self::listen().await;
        let served = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&served)));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}/hooks?tenant=a"), script }
    }

    /// One with TLS, and the certificate that it shows.
    pub(super) async fn start_with_tls() -> (Self, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (listener, port, script) = Self::listen().await;
        let served = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                if let Ok(connection) = acceptor.accept(connection).await {
                    tokio::spawn(serve(connection, Arc::clone(&served)));
                }
            }
        });
        (Self { url: format!("https://localhost:{port}/"), script }, certificate)
    }

    async fn listen() -> (TcpListener, u16, Arc<Script>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script =
            Script { answer: Mutex::new(Answer::status(200)), received: Mutex::default(), arrived: Semaphore::new(0) };
        (listener, port, Arc::new(script))
    }

    pub(super) fn says(&self, answer: Answer) {
        *self.script.answer.lock().unwrap() = answer;
    }

    /// Waits until so many more requests have come.
    pub(super) async fn arrivals(&self, count: u32) {
        self.script.arrived.acquire_many(count).await.unwrap().forget();
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.script.received.lock().unwrap().clone()
    }

    /// A section that leads here, with `secrets` in a file in `directory`.
    pub(super) fn section(&self, name: &str, secrets: &str, directory: &std::path::Path) -> WebhookSettings {
        let secret_file = directory.join(format!("{name}.secret"));
        std::fs::write(&secret_file, secrets).unwrap();
        WebhookSettings {
            url: self.url.parse().unwrap(),
            name: Some(name.parse().unwrap()),
            secret_file,
            events: EventKind::ALL.to_vec(),
            allow_private_addresses: true,
        }
    }
}

async fn serve(mut connection: impl AsyncRead + AsyncWrite + Unpin, script: Arc<Script>) {
    while let Some(request) = read(&mut connection).await {
        script.received.lock().unwrap().push(request);
        let answer = script.answer.lock().unwrap().clone();
        script.arrived.add_permits(1);
        match answer {
            Answer::Status(status, headers) => {
                let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{headers}\r\nok");
                connection.write_all(text.as_bytes()).await.unwrap();
            }
            Answer::Silence => std::future::pending::<()>().await,
            Answer::Bytes(bytes) => {
                let _ = connection.write_all(&bytes).await;
                return;
            }
            Answer::Endless => {
                connection.write_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
                let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
                while connection.write_all(chunk.as_bytes()).await.is_ok() {}
                return;
            }
            Answer::Stalled => {
                connection.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n").await.unwrap();
                std::future::pending::<()>().await;
            }
            Answer::Close => return,
        }
    }
}

/// Reads one request with its body; `None` at the end of the connection.
async fn read(connection: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let (request_line, headers) = text.split_once("\r\n").unwrap();
    let headers: HashMap<_, _> = headers
        .lines()
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers["content-length"].parse().unwrap();
    while bytes.len() < head + 4 + length {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes[head + 4..].to_vec()).unwrap();
    Some(Received { request_line: request_line.to_owned(), headers, body })
}
