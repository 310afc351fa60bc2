//! An address in front of storage that can be shut, and that listens to what storage answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A shut door: the address is taken, and every connection refused.
pub struct Door {
    socket: TcpSocket,
    address: SocketAddr,
}

/// An open one. It goes when it is dropped.
pub struct Opened {
    answered: Arc<Mutex<Vec<u8>>>,
    _task: AbortOnDropHandle<()>,
}

impl Door {
    pub fn shut() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Bound and not listening: nobody else gets the port, and the system refuses connections.
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Leads to `storage` from now on.
    pub fn open(self, storage: SocketAddr) -> Opened {
        let listener = self.socket.listen(64).unwrap();
        let answered = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&answered);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(storage).await else { continue };
                connections.spawn(pass(near, far, Arc::clone(&heard)));
            }
        });
        Opened { answered, _task: AbortOnDropHandle::new(task) }
    }
}

impl Opened {
    /// Everything that storage has answered.
    pub fn answered(&self) -> String {
        String::from_utf8_lossy(&self.answered.lock().unwrap()).into_owned()
    }
}

/// Both directions of one connection, until one side ends it.
async fn pass(near: TcpStream, far: TcpStream, heard: Arc<Mutex<Vec<u8>>>) {
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    let asking = async { drop(tokio::io::copy(&mut from_near, &mut to_far).await) };
    let answering = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_far.read(&mut buffer).await {
            heard.lock().unwrap().extend_from_slice(&buffer[..length]);
            if to_near.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}
