//! A load balancer as simple as can be: each connection goes to a broker that lives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// One address for many brokers.
pub struct Front {
    pub address: SocketAddr,
    behind: Arc<Mutex<Vec<Option<SocketAddr>>>>,
    _task: AbortOnDropHandle<()>,
}

impl Front {
    pub async fn start(places: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new(vec![None; places]));
        let task = tokio::spawn(accept(listener, Arc::clone(&behind)));
        Self { address, behind, _task: AbortOnDropHandle::new(task) }
    }

    /// Who is at a place from now on.
    pub fn set(&self, place: usize, broker: Option<SocketAddr>) {
        self.behind.lock().unwrap()[place] = broker;
    }
}

async fn accept(listener: TcpListener, behind: Arc<Mutex<Vec<Option<SocketAddr>>>>) {
    let mut connections = JoinSet::new();
    let mut turn = 0;
    while let Ok((mut near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut living: Vec<SocketAddr> = behind.lock().unwrap().iter().flatten().copied().collect();
        turn += 1;
        if !living.is_empty() {
            let first = turn % living.len();
            living.rotate_left(first);
        }
        connections.spawn(async move {
            for broker in living {
                if let Ok(mut far) = TcpStream::connect(broker).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                    return;
                }
            }
        });
    }
}
