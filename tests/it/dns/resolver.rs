//! A client's side of DNS: questions that say in which network it is, and answers that are kept for as long as they may be.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::NAME;

/// How long one question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client has between itself and the name server: asked again, it gives the answer that it had before until that
/// one's time is over.
pub struct Resolver {
    server: SocketAddr,
    network: Ipv4Addr,
    kept: Option<(Ipv4Addr, Instant)>,
}

impl Resolver {
    /// One for clients in `network`, which knows nothing yet.
    pub fn new(server: SocketAddr, network: Ipv4Addr) -> Self {
        Self { server, network, kept: None }
    }

    /// The address of [`NAME`]; `None` when the name server does not answer.
    pub async fn resolve(&mut self) -> Option<Ipv4Addr> {
        if let Some((address, until)) = self.kept
            && Instant::now() < until
        {
            return Some(address);
        }
        let (address, ttl) = ask(self.server, self.network).await?;
        self.kept = Some((address, Instant::now() + ttl));
        Some(address)
    }
}

/// Asks the name server itself for a client in `network`: an address, and for how long it may be kept.
pub async fn ask(server: SocketAddr, network: Ipv4Addr) -> Option<(Ipv4Addr, Duration)> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Where the port is closed, a question is answered by an error.
    socket.connect(server).await.ok()?;
    socket.send(&question(network)).await.ok()?;
    let mut answer = [0; 512];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.ok()?.ok()?;
    first_address(&answer[..length])
}

/// A question for the address of [`NAME`] (RFC 1035, section 4), asked for a client in that network (RFC 7871, section 6).
fn question(network: Ipv4Addr) -> Vec<u8> {
    // Id 7; a standard query; one question, no answers, no authorities, one additional record.
    let mut message = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in NAME.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    // The root, type A, class IN; the root, type OPT, 1232 bytes, no flags, 12 bytes of options: client subnet, of 8 bytes:
    // IPv4, 26 bits, and no scope yet.
    message.extend([0, 0, 1, 0, 1]);
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 8, 0, 8, 0, 1, 26, 0]);
    message.extend(network.octets());
    message
}

/// The first address in an answer, if it has one, and its time to live.
fn first_address(answer: &[u8]) -> Option<(Ipv4Addr, Duration)> {
    let answers = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    // The header, and the question as it was sent: the name's labels, their end, type and class.
    let mut at = 12 + NAME.len() + 2 + 4;
    for _ in 0..answers {
        // The name, mostly as a pointer.
        while let Some(length @ 1..=63) = answer.get(at) {
            at += usize::from(*length) + 1;
        }
        at += if *answer.get(at)? >= 0xC0 { 2 } else { 1 };
        // Type, class, time to live in seconds, length (RFC 1035, section 3.2.1).
        let [kind @ .., _, _, t0, t1, t2, t3, l0, l1]: [u8; 10] = answer.get(at..at + 10)?.try_into().ok()?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        at += 10;
        if kind == [0, 1] && length == 4 {
            let octets: [u8; 4] = answer.get(at..at + 4)?.try_into().ok()?;
            return Some((octets.into(), Duration::from_secs(u32::from_be_bytes([t0, t1, t2, t3]).into())));
        }
        at += length;
    }
    None
}
