//! Answers on their way to the client, who may take them or not.
//!
//! hyper says nothing of what becomes of a body after it was read. So the bytes tell it themselves: a [`Part`] notes when
//! it is written, and a request is under way until the last of its parts is gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Buf, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use super::connection::InFlight;

tokio::task_local! {
    /// Ends the HTTP/2 stream that this task answers.
    static END: CancellationToken;
}

/// Runs the streams of HTTP/2, each in a task that can be ended alone. Nothing else resets a stream whose client grants no
/// window: hyper does not ask its body for more.
#[derive(Clone, Copy)]
pub(super) struct Streams;

impl Streams {
    /// What ends the stream that is answered here; `None` on HTTP/1.
    pub(super) fn end_of_this() -> Option<CancellationToken> {
        END.try_with(CancellationToken::clone).ok()
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let end = CancellationToken::new();
        // A stream that is dropped before its end is reset with CANCEL.
        let run = END.scope(end.clone(), async move { end.run_until_cancelled(stream).await });
        tokio::spawn(run);
    }
}

/// An answer's body.
pub(super) struct Tracked {
    body: Body,
    request: Arc<InFlight>,
}

impl Tracked {
    pub(super) fn new(body: Body, request: InFlight) -> Self {
        Self { body, request: Arc::new(request) }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.request.given();
    }
}

impl hyper::body::Body for Tracked {
    type Data = Part;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Part>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(|bytes| Part { bytes, request: Arc::clone(&self.request) }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of an answer, until it is written.
pub(super) struct Part {
    bytes: Bytes,
    request: Arc<InFlight>,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.request.moves();
    }
}
