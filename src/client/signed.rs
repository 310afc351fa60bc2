//! What a signed URL is for: one request that puts the whole object, or one that opens a session.
//!
//! Who sees no answer to a `PUT` cannot ask storage what became of it: reading the object takes a permission that the
//! URL does not give. The broker can look, so it is asked before anything is sent again. Whether a URL has ended is the
//! broker's to say too, whose clock made it.

use reqwest::header::{CONTENT_LENGTH, LOCATION};
use reqwest::{Method, StatusCode};

use super::error::{Error, Trouble};
use super::http::{Http, is_transient, retry_after};
use super::pace::Pace;
use super::progress::Event;
use super::session::{Ended, Session, Tally};
use super::source::Source;
use super::target::{Target, drain, exchange};

/// A URL that takes the whole object.
pub(super) struct SignedPut {
    target: Target,
    /// Whether storage said once that it has the object.
    has_arrived: bool,
    /// The end of patience, if it came while nobody had seen yet what became of the object.
    gave_up: Option<Error>,
}

impl SignedPut {
    pub(super) const fn new(target: Target) -> Self {
        Self { target, has_arrived: false, gave_up: None }
    }

    /// Why nothing is to be sent again, if the broker has no object either.
    pub(super) const fn gave_up(&mut self) -> Option<Error> {
        self.gave_up.take()
    }

    /// Sends everything, once.
    pub(super) async fn run(
        &mut self,
        http: &Http,
        source: &mut Source<'_>,
        tally: &mut Tally,
        pace: &mut Pace<'_>,
    ) -> Result<Ended, Error> {
        let part = source.part(0, u64::MAX).await?;
        let bytes = part.length;
        tally.chunks += 1;
        let (request, streaming) = part.attach(self.target.request(http, Method::PUT));
        let (trouble, wait) = match exchange(request, Some(&streaming), pace).await {
            Err(trouble) => {
                source.blame(&streaming).await?;
                (trouble, None)
            }
            Ok(response) => {
                let (status, wait) = (response.status().as_u16(), retry_after(response.headers()));
                let reason = drain(response, pace).await;
                match status {
                    200 | 201 => {
                        if !std::mem::replace(&mut self.has_arrived, true) {
                            pace.progressed();
                            pace.tell(Event::Persisted { bytes, total: Some(bytes) });
                        }
                        return Ok(Ended::Stored);
                    }
                    // The object may be ours, from a request whose answer was lost.
                    412 => return Ok(Ended::Exists),
                    status if is_transient(status) => (Trouble::Storage(status), wait),
                    status => {
                        source.expect_unchanged_after(status).await?;
                        return Ok(Ended::Refused { status, reason });
                    }
                }
            }
        };
        // One request may take longer than patience lasts, and still have put the object.
        self.gave_up = pace.pause(trouble, wait).await.err();
        Ok(Ended::Unsure)
    }
}

/// A URL that opens a session, and another one each time.
pub(super) struct SignedStart {
    target: Target,
    chunk: u64,
}

impl SignedStart {
    pub(super) const fn new(target: Target, chunk: u64) -> Self {
        Self { target, chunk }
    }

    /// Opens a session. A session whose answer was lost stays behind, empty, and is forgotten by storage in a week.
    pub(super) async fn run(&self, http: &Http, pace: &mut Pace<'_>) -> Result<Result<Session, Ended>, Error> {
        loop {
            let request = self.target.request(http, Method::POST).header(CONTENT_LENGTH, 0);
            let (trouble, wait) = match exchange(request, None, pace).await {
                Err(trouble) => (trouble, None),
                Ok(response) => {
                    let (status, wait) = (response.status(), retry_after(response.headers()));
                    let location = response.headers().get(LOCATION).cloned();
                    let reason = drain(response, pace).await;
                    match status {
                        StatusCode::OK | StatusCode::CREATED => {
                            let location = location.as_ref().and_then(|location| location.to_str().ok());
                            let location = location.ok_or(Error::StorageNonsense("it names no session"))?;
                            return Ok(Ok(Session::new(Target::opened(location)?, self.chunk)));
                        }
                        StatusCode::PRECONDITION_FAILED => return Ok(Err(Ended::Exists)),
                        status if is_transient(status.as_u16()) => (Trouble::Storage(status.as_u16()), wait),
                        status => return Ok(Err(Ended::Refused { status: status.as_u16(), reason })),
                    }
                }
            };
            pace.pause(trouble, wait).await?;
        }
    }
}
