//! Connections: accepted with bounds, spoken to over TLS, drained on the way out.
//!
//! The module exists because `axum::serve` bounds nothing in time: a client that says nothing, half a header or half a
//! body keeps its connection for as long as it likes. Here every wait on a client has an end ([`Limits`] names each),
//! and everything that a client can make the broker hold has a size.
//!
//! The data structure is one `Activity` per connection: which requests are under way and when each last went on, since
//! when there is none, and whether the next one has begun. The stream and the requests write to it, the connection's task
//! reads from it when to give up. Each connection is one task, and holds one of the permits that count connections.
//!
//! ```text
//! listener.rs    accept, cap, hand over; drain at the end
//! connection.rs  one connection from its handshake to its close, and its Activity
//! answer.rs      one answer, until its client has taken it
//! stream.rs      the bytes: notices when they begin and when they stall
//! framing.rs     finds heads with two framings, which hyper resolves before anyone can see it
//! front.rs       each request before the router: refuses what two readers could read differently
//! tls.rs         the certificate, and its replacement while connections live
//! validity.rs    the dates in it
//! ```

mod answer;
mod connection;
mod framing;
mod front;
mod limits;
mod listener;
mod settings;
mod stream;
mod tls;
mod validity;

pub use front::{BodyTimedOut, Peer};
pub use limits::Limits;
pub use listener::{Drained, Listener};
pub use settings::{Settings, TlsSettings};
pub use tls::{Reloaded, TlsCertificate, TlsError};
pub use validity::Validity;

#[cfg(test)]
mod tests;
