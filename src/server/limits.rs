//! What one client, and all of them, may take.

use std::time::Duration;

/// The bounds of a listener. They are constants of the program, set otherwise only by tests: no deployment has a
/// reason of its own to wait longer for a header.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once. One more is closed at once, unanswered: the client or the load balancer then knows,
    /// and tries elsewhere, where a connection left waiting would look like a slow broker.
    pub connections: usize,
    /// How long the TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// How long a request's header may take: the first one from the moment the connection stands, later ones from
    /// their first byte.
    pub header_timeout: Duration,
    /// How long a request's whole body may take, from the end of its header.
    pub body_timeout: Duration,
    /// How long a client may refuse to take a single byte of an answer.
    pub write_timeout: Duration,
    /// How long a request may be under way without its answer going on: because the client takes nothing of it, as a rule.
    /// On HTTP/2 its stream is reset then; on HTTP/1, and where the stream has all of the answer, the connection ends.
    /// Longer than `header_timeout`, and than any handler works in silence; streams of events have to send something more often.
    pub stall_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// The same for connections of trusted proxies.
    pub proxy_idle_timeout: Duration,
    /// How long an idle connection may take to close after it was asked to.
    pub closing_timeout: Duration,
    /// The size of a request's header: the buffer of an HTTP/1 connection, and the header list of HTTP/2. HTTP/1 has a
    /// floor of 8 KiB, which is the parser's.
    pub max_header_bytes: u32,
    /// Requests under way at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Streams that an HTTP/2 client may have reset before we came to look at them; with more, the connection is
    /// closed. Resetting streams is how CVE-2023-44487 made servers work for nothing.
    pub pending_resets: usize,
    /// How long the requests under way may take when the listener closes.
    pub drain: Duration,
}

impl Limits {
    /// Those of a connection of a trusted proxy.
    pub(super) fn of_proxy(self) -> Self {
        Self { idle_timeout: self.proxy_idle_timeout, ..self }
    }

    /// How long the requests under way may take when the listener closes.
    pub const DRAIN: Duration = Duration::from_secs(25);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // About 30 KiB each with TLS when it is idle: 300 MiB when all are open, which the chart's limit has room for.
            connections: 10_000,
            // Two round trips of the slowest mobile network, with retransmissions.
            tls_handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            // Bodies of clients are at most 64 KiB of JSON: this is 17 kbit/s.
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(120),
            // Longer than the 60 s after which common proxies close that nobody has named here, so that they close first,
            // and never send a request into a connection that is being closed.
            idle_timeout: Duration::from_secs(75),
            // Google's application load balancers close after 600 s, which cannot be changed, and have servers close
            // later (Cloud Load Balancing documentation, "Timeouts and retries"). Of proxies there are few connections.
            proxy_idle_timeout: Duration::from_secs(620),
            closing_timeout: Duration::from_secs(5),
            // A token of 8 KiB, and as much again for what browsers and proxies add.
            max_header_bytes: 16 * 1024,
            max_streams: 128,
            pending_resets: 20,
            drain: Self::DRAIN,
        }
    }
}
