//! An address whose other side a test decides: a broker that can go away and come back under the same name.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What is on the other side.
#[derive(Clone)]
pub enum Side {
    /// Connections end at once.
    Nothing,
    /// Connections stay, and nothing comes.
    Silence,
    /// Whoever comes is told this, whatever they ask.
    Says(String),
    /// A server.
    Server(SocketAddr),
}

/// The address.
pub struct Crossing {
    pub address: SocketAddr,
    side: Arc<Mutex<(Side, CancellationToken)>>,
    _task: AbortOnDropHandle<()>,
}

impl Crossing {
    /// With nothing on the other side yet.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let side = Arc::new(Mutex::new((Side::Nothing, CancellationToken::new())));
        let task = tokio::spawn({
            let side = Arc::clone(&side);
            async move {
                while let Ok((near, _)) = listener.accept().await {
                    let (side, changed) = side.lock().unwrap().clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = changed.cancelled() => {}
                            () = cross(near, side) => {}
                        }
                    });
                }
            }
        });
        Self { address, side, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this is on the other side. Connections to what was there before end.
    pub fn lead_to(&self, side: Side) {
        let before = std::mem::replace(&mut *self.side.lock().unwrap(), (side, CancellationToken::new()));
        before.1.cancel();
    }
}

async fn cross(mut near: TcpStream, side: Side) {
    match side {
        Side::Nothing => {}
        Side::Silence => std::future::pending().await,
        Side::Says(text) => {
            let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
            // The request has come by then, or its rest is of no interest.
            let mut request = [0; 16 * 1024];
            let _ = near.read(&mut request).await;
            let head = head.replace('\n', "\r\n");
            let answer =
                format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = near.write_all(answer.as_bytes()).await;
            let _ = near.shutdown().await;
            // Until the other side has read it: a reset could overtake it.
            let _ = tokio::io::copy(&mut near, &mut tokio::io::sink()).await;
        }
        Side::Server(address) => {
            let Ok(mut far) = TcpStream::connect(address).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
    }
}
