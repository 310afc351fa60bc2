//! A server on loopback that says what a test tells it to, byte for byte, and keeps what it was sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What happens after a request has been read.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// These bytes, and the connection stays.
    Answer(String),
    /// These bytes after a while.
    Later(Duration, String),
    /// These bytes, and the connection ends.
    Last(String),
    /// Not a byte, and the connection ends.
    Close,
    /// Not a byte, and the connection stays.
    Stall,
}

/// An answer with the status, further header lines, and the body.
pub(super) fn answer(status: u16, headers: &[&str], body: &str) -> Step {
    let headers = headers.iter().fold(String::new(), |lines, line| lines + line + "\r\n");
    Step::Answer(format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

/// A server's side of TLS as `localhost`, and its certificate, which is its own authority.
pub(super) fn tls(protocols: &[&[u8]]) -> (Arc<rustls::ServerConfig>, CertificateDer<'static>) {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    (Arc::new(config), certificate)
}

/// The server. Each request takes the next step, whatever connection it comes on; the last step is taken for ever.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Scripted {
    pub(super) async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::listen(steps, None).await
    }

    /// The same over TLS, without HTTP/2, and whom to trust for it.
    pub(super) async fn start_tls(steps: impl IntoIterator<Item = Step>) -> (Self, CertificateDer<'static>) {
        let (config, certificate) = tls(&[]);
        (Self::listen(steps, Some(TlsAcceptor::from(config))).await, certificate)
    }

    async fn listen(steps: impl IntoIterator<Item = Step>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let steps = Arc::new(Mutex::new(steps.into_iter().collect::<VecDeque<_>>()));
        let keep = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (steps, seen, tls) = (Arc::clone(&steps), Arc::clone(&keep), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => converse(socket, &steps, &seen).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                converse(socket, &steps, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Each request as it came: head and body.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests came.
    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn converse(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    steps: &Mutex<VecDeque<Step>>,
    seen: &Mutex<Vec<String>>,
) {
    while let Some(request) = read_request(&mut socket).await {
        seen.lock().unwrap().push(request);
        let step = {
            let mut steps = steps.lock().unwrap();
            if steps.len() > 1 { steps.pop_front() } else { steps.front().cloned() }
        };
        let (bytes, stays) = match step.expect("a script has a step") {
            Step::Answer(bytes) => (bytes, true),
            Step::Later(pause, bytes) => {
                sleep(pause).await;
                (bytes, true)
            }
            Step::Last(bytes) => (bytes, false),
            Step::Close => return,
            Step::Stall => return std::future::pending().await,
        };
        if socket.write_all(bytes.as_bytes()).await.is_err() || socket.flush().await.is_err() || !stays {
            return;
        }
    }
}

async fn read_request(socket: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").map(|length| length.parse().unwrap())
        })
        .unwrap_or(0);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}
