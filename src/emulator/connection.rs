//! Connections: accepted up to a number, served as HTTP/1.1, and reset where a fault wants it.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::World;
use super::http::{Cut, serve};
use super::network::Wire;
use super::problem::Answer;

/// How many connections are served at a time; more wait to be accepted.
const CONNECTIONS: usize = 10_000;

/// How long a connection may take for the head of a request, or idle before it.
const HEAD: Duration = Duration::from_secs(60);

/// How long accepting rests after it failed, for instance for want of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// Accepts connections until told to stop.
pub(super) async fn accept(listener: TcpListener, world: Arc<World>, tasks: TaskTracker, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let accepting = async {
        // The semaphore is never closed, so that this loop ends only by being dropped.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            let (world, stop) = (Arc::clone(&world), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = converse(stream, world) => {}
                }
                drop(slot);
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Answer, Cut>> + Send>>;

async fn converse(stream: TcpStream, world: Arc<World>) {
    // Without it small answers may wait for the client's acknowledgement; with an error they only do so.
    let _ = stream.set_nodelay(true);
    let wire = Arc::new(Wire::default());
    let service = service_fn(move |request: Request<Incoming>| -> Answering {
        Box::pin(serve(Arc::clone(&world), Arc::clone(&wire), request))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let is_cut = ended.is_err_and(|error| error.source().is_some_and(<dyn Error>::is::<Cut>));
    if is_cut {
        // Closing a socket that does not linger resets the connection.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}
