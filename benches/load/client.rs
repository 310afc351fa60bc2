//! The load generator: HTTP/1.1 on plain TCP connections that are kept alive.
//!
//! No client library, because its processor time would be taken from what is measured on the same machine. Requests
//! are bytes made once; of an answer only the status and the length are looked at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Longer answers are refused: no answer to a create comes near.
const MAX_ANSWER: usize = 64 * 1024;

/// How long a phase may take beyond its time before the run is given up.
const GRACE: Duration = Duration::from_secs(30);

/// What is asked, of whom, and what status every answer must have.
pub(crate) struct Target {
    /// The server.
    pub(crate) address: SocketAddr,
    /// Whole requests, which the connections send in turn. Never empty.
    pub(crate) requests: Vec<Vec<u8>>,
    /// The only acceptable status.
    pub(crate) expected: u16,
}

/// When a closed loop ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many answers.
    Answers(u64),
}

/// What a phase came to.
pub(crate) struct Outcome {
    /// How many answers came, all of them of the expected status.
    pub(crate) answers: u32,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
}

/// Every connection sends its next request as soon as it has the answer to the one before.
pub(crate) async fn closed_loop(target: &Arc<Target>, connections: usize, until: Until) -> anyhow::Result<Outcome> {
    let opened = open(target, connections).await?;
    let taken = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (first, mut connection) in opened.into_iter().enumerate() {
        let (target, taken) = (Arc::clone(target), Arc::clone(&taken));
        tasks.spawn(async move {
            let mut answers = 0_u32;
            let mine = target.requests.iter().cycle().skip(first).step_by(connections);
            for request in mine {
                let over = match until {
                    Until::Elapsed(time) => started.elapsed() >= time,
                    Until::Answers(wanted) => taken.fetch_add(1, Ordering::Relaxed) >= wanted,
                };
                if over {
                    break;
                }
                connection.exchange(request, target.expected).await?;
                answers += 1;
            }
            anyhow::Ok(answers)
        });
    }
    let limit = match until {
        Until::Elapsed(time) => time + GRACE,
        Until::Answers(_) => GRACE * 10,
    };
    let answers = join(tasks, limit).await?.into_iter().sum();
    Ok(Outcome { answers, elapsed: started.elapsed() })
}

/// Requests begin at fixed times, `rate` a second, whether or not earlier ones were answered. The latencies count from
/// the scheduled time: what waits behind a slow answer is late, and says so.
pub(crate) async fn paced(
    target: &Arc<Target>,
    connections: usize,
    rate: u32,
    time: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::with_capacity(connections);
    for (first, mut connection) in open(target, connections).await?.into_iter().enumerate() {
        // Unbounded, so that the schedule is never held up; it ends by itself.
        let (queue, mut scheduled) = mpsc::unbounded_channel::<Instant>();
        queues.push(queue);
        let target = Arc::clone(target);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut mine = target.requests.iter().cycle().skip(first).step_by(connections);
            while let (Some(at), Some(request)) = (scheduled.recv().await, mine.next()) {
                connection.exchange(request, target.expected).await?;
                latencies.push(at.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    // A thread, because the runtime's timer counts whole milliseconds, about as long as what is measured.
    std::thread::spawn(move || {
        let interval = Duration::from_secs(1) / rate.max(1);
        let started = Instant::now();
        let mut at = started;
        for queue in queues.iter().cycle() {
            at += interval;
            if at.duration_since(started) > time {
                break;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            // Fails when the connection's task has ended with an error, which the join reports.
            let _ = queue.send(at);
        }
    });
    Ok(join(tasks, time + GRACE).await?.concat())
}

/// Opens connections, lets each one have one answer, and hands them over: they stay open until dropped.
pub(crate) async fn hold(target: &Arc<Target>, connections: usize) -> anyhow::Result<Vec<Connection>> {
    let mut held = Vec::with_capacity(connections);
    for request in target.requests.iter().cycle().take(connections) {
        let mut connection = Connection::open(target.address).await?;
        connection.exchange(request, target.expected).await?;
        held.push(connection);
    }
    Ok(held)
}

async fn open(target: &Target, connections: usize) -> anyhow::Result<Vec<Connection>> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(Connection::open(target.address).await?);
    }
    Ok(opened)
}

/// What all the tasks returned; the first error ends the others.
async fn join<T: 'static>(mut tasks: JoinSet<anyhow::Result<T>>, limit: Duration) -> anyhow::Result<Vec<T>> {
    let all = async {
        let mut results = Vec::with_capacity(tasks.len());
        while let Some(result) = tasks.join_next().await {
            results.push(result.context("a connection's task panicked")??);
        }
        anyhow::Ok(results)
    };
    tokio::time::timeout(limit, all).await.context("answers stopped coming")?
}

/// One connection, kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("a connection was refused")?;
        stream.set_nodelay(true).context("a connection cannot be set up")?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends one request and reads its whole answer.
    ///
    /// # Errors
    /// When the answer has another status than `expected`; the message quotes it.
    async fn exchange(&mut self, request: &[u8], expected: u16) -> anyhow::Result<()> {
        self.stream.write_all(request).await.context("a request could not be sent")?;
        self.buffer.clear();
        let mut end = None;
        while end.is_none_or(|end| self.buffer.len() < end) {
            let read = self.stream.read_buf(&mut self.buffer).await.context("an answer could not be read")?;
            if read == 0 {
                bail!("the connection was closed in the middle of an answer");
            }
            if end.is_none() {
                end = answer_length(&self.buffer)?;
            }
            if self.buffer.len().max(end.unwrap_or(0)) > MAX_ANSWER {
                bail!("an answer is longer than {MAX_ANSWER} bytes");
            }
        }
        // "HTTP/1.1 201 Created": the status stands at a fixed place.
        if self.buffer.get(9..12) != Some(expected.to_string().as_bytes()) {
            bail!("expected {expected}, got:\n{}", String::from_utf8_lossy(&self.buffer));
        }
        Ok(())
    }
}

/// The length of head and body together, once the head is there.
fn answer_length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(end) = bytes.windows(END.len()).position(|window| window == END) else { return Ok(None) };
    let head = str::from_utf8(&bytes[..end]).context("the head of an answer is no text")?;
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    let length = length.with_context(|| format!("an answer does not tell its length:\n{head}"))?;
    Ok(Some(end.saturating_add(END.len()).saturating_add(length)))
}
