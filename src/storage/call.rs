//! One call from the operation's point of view: tries, pauses, tokens and limits, until there is an answer or no time.

use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{Error, Outage, Upstream};
use super::json::{Answer, Authority, Request};
use super::metrics::{CallResult, Metrics, Operation};
use super::retry::{Backoff, Budget, Verdict, judge, patience};
use super::token::{Token, TokenSource};
use super::transport::Clients;
use crate::clock::Randomness;
use crate::telemetry::trace::{self, Kind};

/// How many calls are under way at a time, in all.
pub(super) const CALLS: usize = 256;

/// How many operations are under way, pauses between tries and waiting for a call included. What is beyond is refused at
/// once: it would not be served within a deadline anyway.
const OPERATIONS: usize = 4 * CALLS;

/// How long an operation waits for one of the [`CALLS`].
const QUEUE: Duration = Duration::from_secs(1);

/// What all calls share.
pub(super) struct Caller {
    pub(super) clients: Clients,
    pub(super) tokens: TokenSource,
    pub(super) randomness: Randomness,
    pub(super) metrics: Metrics,
    pub(super) limits: Limits,
    /// Those of signatures. On their own, so that an outage of IAM Credentials takes no calls, and no retries, from storage.
    pub(super) signing: Limits,
}

/// What bounds the calls.
pub(super) struct Limits {
    /// How long an operation may take, whatever its own deadline is.
    timeout: Duration,
    backoff: Backoff,
    budget: Budget,
    operations: Semaphore,
    calls: Semaphore,
}

/// Why a try did not bring an answer to be read.
struct Failure {
    error: Error,
    result: CallResult,
    /// How long who was asked wants to be left alone.
    after: Option<Duration>,
}

impl Limits {
    pub(super) fn new(timeout: Duration, backoff: Backoff) -> Self {
        Self {
            timeout,
            backoff,
            budget: Budget::new(Instant::now()),
            operations: Semaphore::new(OPERATIONS),
            calls: Semaphore::new(CALLS),
        }
    }
}

/// What a call is told that ends with `error` after the `outage` of an earlier try: that the time was over in the middle
/// of the last try says less than what went wrong with those before.
fn tell(error: Error, outage: &mut Option<Error>) -> Error {
    match error {
        Error::TimedOut { .. } => outage.take().unwrap_or(error),
        other => other,
    }
}

/// What the answer means, told in the trace.
fn told(answer: &Answer) -> Verdict {
    trace::record("http.response.status_code", || answer.status.as_u16());
    judge(answer)
}

/// Who is asked.
fn whom(operation: Operation, authority: Authority) -> Upstream {
    match (operation, authority) {
        (Operation::Sign, Authority::Nothing) => Upstream::MetadataServer,
        (Operation::Sign, _) => Upstream::IamCredentials,
        _ => Upstream::Storage,
    }
}

/// What one try came to.
enum Try {
    Answered(Answer, Duration),
    /// 401 to a request with this token.
    Unauthenticated(Token),
    Failed(Failure),
}

impl Caller {
    /// Counts an operation as long as what is returned lives.
    ///
    /// # Errors
    /// When as many are under way as this process allows.
    pub(super) fn enter(&self, operation: Operation) -> Result<SemaphorePermit<'_>, Error> {
        self.limits_of(operation).operations.try_acquire().map_err(|_| Error::Overloaded)
    }

    const fn limits_of(&self, operation: Operation) -> &Limits {
        match operation {
            Operation::Sign => &self.signing,
            _ => &self.limits,
        }
    }

    /// Sends `request` until there is an answer that `read` can be given, within `deadline`.
    ///
    /// One span for all tries. Its address is left out but for the host: path and query may be a session.
    pub(super) fn call<T>(
        &self,
        operation: Operation,
        request: &Request,
        deadline: Instant,
        read: impl FnOnce(&Answer) -> Result<T, Error>,
    ) -> impl Future<Output = Result<T, Error>> {
        let tries = self.tries(operation, request, deadline, read);
        trace::child_told(operation.span_name(), Kind::Client, tries, |span, outcome| {
            span.record("http.request.method", request.method.to_string());
            span.record("server.address", request.url.host_str().unwrap_or_default().to_owned());
            if let Err(error) = outcome {
                span.fail(error.kind());
            }
        })
    }

    async fn tries<T>(
        &self,
        operation: Operation,
        request: &Request,
        deadline: Instant,
        read: impl FnOnce(&Answer) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let now = Instant::now();
        let limits = self.limits_of(operation);
        let deadline = deadline.min(now + limits.timeout);
        let whom = whom(operation, request.authority);
        let _operation = self.enter(operation)?;
        limits.budget.earn(now);
        let mut token = match request.authority {
            Authority::Token => Some(self.tokens.bearer(deadline).await.map_err(Error::NoToken)?),
            Authority::Session | Authority::Nothing => None,
        };
        let mut renewed = false;
        let mut tried = 0;
        let mut outage = None;
        loop {
            let outcome = self.try_once(operation, request, token.as_ref(), deadline).await;
            let failure = match outcome.map_err(|error| tell(error, &mut outage))? {
                Try::Answered(answer, took) => {
                    let outcome = read(&answer);
                    let result = match &outcome {
                        Ok(_) => CallResult::Ok,
                        Err(Error::Nonsense(_)) => CallResult::Nonsense,
                        Err(_) => CallResult::Refused,
                    };
                    self.metrics.called(operation, result, took);
                    return outcome;
                }
                Try::Unauthenticated(refused) => {
                    if renewed {
                        return Err(Error::Unauthenticated { whom });
                    }
                    renewed = true;
                    let newer = self.tokens.after_refusal(&refused, deadline).await.map_err(Error::NoToken)?;
                    token = Some(newer.ok_or(Error::Unauthenticated { whom })?);
                    self.metrics.retried(operation);
                    continue;
                }
                Try::Failed(failure) => failure,
            };
            let pause = limits.backoff.pause_until(tried, self.randomness.fraction(), failure.after);
            // Not worth waiting for: the answer would come too late.
            if Instant::now() + pause >= deadline {
                return Err(tell(failure.error, &mut outage));
            }
            if !limits.budget.spend(Instant::now()) {
                self.metrics.withheld();
                return Err(tell(failure.error, &mut outage));
            }
            tracing::debug!(operation = operation.as_str(), error = %failure.error, "{whom} is asked again");
            self.metrics.retried(operation);
            if matches!(failure.error, Error::Unavailable { .. }) {
                outage = Some(failure.error);
            }
            sleep(pause).await;
            tried += 1;
            trace::record("http.request.resend_count", || tried);
        }
    }

    /// One request and its answer. An error ends the call.
    async fn try_once(
        &self,
        operation: Operation,
        request: &Request,
        token: Option<&Token>,
        deadline: Instant,
    ) -> Result<Try, Error> {
        let whom = whom(operation, request.authority);
        let Some(remaining) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            return Err(Error::TimedOut { whom });
        };
        let _call = timeout(QUEUE.min(remaining), self.limits_of(operation).calls.acquire())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or(Error::Overloaded)?;
        let started = Instant::now();
        let bearer: Option<HeaderValue> = token.map(|token| token.header.clone());
        let until = started + patience(deadline.saturating_duration_since(started));
        let sent = timeout_at(until, self.clients.send(request, bearer)).await;
        let took = started.elapsed();
        let unavailable = |cause, after| Error::Unavailable { whom, cause, retry_after: after };
        let failure = match sent {
            Err(_) => Failure { error: Error::TimedOut { whom }, result: CallResult::TimedOut, after: None },
            Ok(Err(outage)) => {
                Failure { error: unavailable(outage, None), result: CallResult::Connection, after: None }
            }
            Ok(Ok(answer)) => match (told(&answer), token) {
                (Verdict::Refresh, Some(token)) => {
                    self.metrics.called(operation, CallResult::Unauthenticated, took);
                    return Ok(Try::Unauthenticated(token.clone()));
                }
                // A session bears no token that could be renewed.
                (Verdict::Final, _) | (Verdict::Refresh, None) => return Ok(Try::Answered(answer, took)),
                (Verdict::Again { after }, _) => {
                    let status = answer.status.as_u16();
                    let result =
                        if matches!(status, 403 | 429) { CallResult::Throttled } else { CallResult::Unavailable };
                    Failure { error: unavailable(Outage::Answered(status), after), result, after }
                }
            },
        };
        self.metrics.called(operation, failure.result, took);
        Ok(Try::Failed(failure))
    }
}

#[cfg(test)]
impl Limits {
    /// Takes `count` of the calls away.
    pub(super) async fn hold_calls(&self, count: usize) -> tokio::sync::SemaphorePermit<'_> {
        self.calls.acquire_many(u32::try_from(count).unwrap()).await.unwrap()
    }

    /// Takes all operations away.
    pub(super) fn hold_operations(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.operations.try_acquire_many(u32::try_from(OPERATIONS).unwrap()).unwrap()
    }
}
