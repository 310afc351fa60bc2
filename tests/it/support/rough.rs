//! A rough road to storage: it cuts, loses, repeats and refuses what clients send to sessions.
//!
//! It keeps `Host`, so that the sessions that storage opens through it lead through it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What chunks are multiples of.
pub const QUANTUM: usize = 256 << 10;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bump {
    None,
    /// So many bytes of the body get through, and then neither side hears of the other again.
    Cut(usize),
    /// Storage acts, and its answer is lost.
    LoseAnswer,
    /// Storage gets it twice, and the second answer counts.
    Twice,
    /// The chunk before this one, of the same session, comes once more first.
    Again,
    /// Storage gets only so much of the chunk, in units of 256 KiB, and says so in its answer.
    Shorten(usize),
    /// It takes so many milliseconds longer.
    Delay(u64),
    /// Refused with 503 before storage sees it.
    Refuse,
    /// Storage acts, and 503 is answered.
    RefuseAfter,
}

/// A request as it came.
type Whole = (Parts, Bytes);

struct Road {
    storage: SocketAddr,
    bumps: Mutex<VecDeque<Bump>>,
    last_chunk: Mutex<Option<Whole>>,
}

/// The road. It goes when it is dropped.
pub struct Rough {
    address: SocketAddr,
    road: Arc<Road>,
    _task: AbortOnDropHandle<()>,
}

impl Rough {
    pub async fn to(storage: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let road = Arc::new(Road { storage, bumps: Mutex::default(), last_chunk: Mutex::default() });
        let travelled = Arc::clone(&road);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let road = Arc::clone(&travelled);
                let service = service_fn(move |request| travel(Arc::clone(&road), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, road, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to the next requests of clients to sessions, in order. Then the road is smooth.
    pub fn bumps(&self, bumps: Vec<Bump>) {
        *self.road.bumps.lock().unwrap() = bumps.into();
        *self.road.last_chunk.lock().unwrap() = None;
    }

    /// How many of them are still to come.
    pub fn left(&self) -> usize {
        self.road.bumps.lock().unwrap().len()
    }
}

async fn travel(road: Arc<Road>, request: Request<Incoming>) -> std::io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let lost = |_| std::io::Error::other("the body broke off");
    let body = body.collect().await.map_err(lost)?.to_bytes();
    let range = parts.headers.get(CONTENT_RANGE).map(HeaderValue::as_bytes);
    let is_chunk = range.is_some_and(|range| !range.starts_with(b"bytes */"));
    // The broker asks with `bytes */*`, and clients who do not know the size; all else is of clients.
    let has_session = parts.uri.query().is_some_and(|query| query.contains("upload_id="));
    let is_client = has_session && range.is_some_and(|range| range != b"bytes */*");
    let bump = if is_client { road.bumps.lock().unwrap().pop_front().unwrap_or(Bump::None) } else { Bump::None };
    let before = if is_chunk { road.last_chunk.lock().unwrap().replace((parts.clone(), body.clone())) } else { None };
    let whole = (parts, body);
    let refused = || Response::builder().status(503).body(Full::default()).unwrap();
    let cut = || Err(std::io::Error::other("cut on purpose"));
    match bump {
        Bump::None => road.forward(&whole).await,
        Bump::Cut(after) => {
            road.forward_some(&whole, after).await?;
            cut()
        }
        Bump::LoseAnswer => {
            road.forward(&whole).await?;
            cut()
        }
        Bump::Twice => {
            road.forward(&whole).await?;
            road.forward(&whole).await
        }
        Bump::Again => {
            if let Some(before) = before {
                road.forward(&before).await?;
            }
            road.forward(&whole).await
        }
        Bump::Shorten(units) => match shortened(&whole, units) {
            Some(beginning) => road.forward(&beginning).await,
            None => road.forward(&whole).await,
        },
        Bump::Delay(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            road.forward(&whole).await
        }
        Bump::Refuse => Ok(refused()),
        Bump::RefuseAfter => {
            road.forward(&whole).await?;
            Ok(refused())
        }
    }
}

/// The beginning of a chunk, as a chunk of its own; `None` when it is too small to have one.
fn shortened((parts, body): &Whole, units: usize) -> Option<Whole> {
    let kept = units.min(body.len().checked_sub(1)? / QUANTUM) * QUANTUM;
    let range = parts.headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (positions, total) = range.split_once('/')?;
    let first: usize = positions.split_once('-')?.0.parse().ok()?;
    let last = first + kept.checked_sub(1)?;
    let mut parts = parts.clone();
    parts.headers.insert(CONTENT_RANGE, format!("bytes {first}-{last}/{total}").parse().ok()?);
    parts.headers.insert(CONTENT_LENGTH, kept.into());
    Some((parts, body.slice(..kept)))
}

impl Road {
    /// Sends it on, as it is, and gives the answer.
    async fn forward(&self, (parts, body): &Whole) -> std::io::Result<Response<Full<Bytes>>> {
        let failed = std::io::Error::other;
        let stream = TcpStream::connect(self.storage).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::from_parts(parts.clone(), Full::new(body.clone()));
        let (parts, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    /// Sends the head and the beginning of the body, and hangs up.
    async fn forward_some(&self, (parts, body): &Whole, after: usize) -> std::io::Result<()> {
        let mut sent = format!("{} {} HTTP/1.1\r\n", parts.method, parts.uri).into_bytes();
        for (name, value) in &parts.headers {
            sent.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        sent.extend_from_slice(b"\r\n");
        sent.extend_from_slice(&body[..after.min(body.len())]);
        let mut stream = TcpStream::connect(self.storage).await?;
        stream.write_all(&sent).await?;
        stream.shutdown().await
    }
}
