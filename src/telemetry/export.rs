//! Finished spans on their way to a collector: gathered, posted, and given up before they cost more than they are worth.
//!
//! Between the requests and the one task that posts is a queue with an end. Whatever the collector does, a request never
//! waits for it, and memory is bounded by the queue and one batch.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use super::metrics::{Metrics, SpanResult};
use super::otlp::{self, Resource};
use super::outage::Outage;
use super::settings::{CollectorUrl, TelemetrySettings};
use super::trace::{Finished, Tracer};
use crate::clock::{Clock, Randomness};
use crate::model::chain;

/// How many spans may wait, of less than a kilobyte each. One more is dropped.
const QUEUE: usize = 2048;

/// How many are posted at once.
const BATCH: usize = 512;

/// How long a span waits for others to be posted with.
const LINGER: Duration = Duration::from_secs(1);

/// How long one request may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How long the same spans are tried to be posted. Those that wait behind them are younger, and more is dropped meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first pause between two tries, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How long what has ended may be posted for when all is to end.
pub(crate) const FLUSH: Duration = Duration::from_secs(2);

/// How much of an answer is read: it may say that some spans were not wanted.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Posts what a [`Tracer`] has recorded.
pub struct Exporter {
    finished: mpsc::Receiver<Finished>,
    client: Client,
    url: Url,
    resource: Resource,
    randomness: Randomness,
    outage: Outage,
    /// What became of spans.
    pub metrics: Metrics,
}

/// Why a batch was not taken.
enum Refusal {
    /// It may be taken later.
    ForNow(String),
    /// It will not.
    ForGood(String),
}

/// A tracer and its exporter, if there is a collector. `roots` are trusted besides the system's.
///
/// # Errors
/// When the HTTP client cannot be set up.
pub fn open(
    settings: &TelemetrySettings,
    clock: Clock,
    randomness: Randomness,
    region: &str,
    roots: Vec<Certificate>,
) -> Result<Option<(Arc<Tracer>, Exporter)>, reqwest::Error> {
    let Some(url) = settings.otlp_endpoint.as_ref().map(CollectorUrl::traces) else { return Ok(None) };
    let client = Client::builder()
        .tls_certs_merge(roots)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .retry(reqwest::retry::never())
        .timeout(ANSWER_TIME)
        .pool_max_idle_per_host(1)
        .build()?;
    let (sender, finished) = mpsc::channel(QUEUE);
    let metrics = Metrics::default();
    let resource = Resource::new(region, u128::from_be_bytes(randomness.bytes()));
    let tracer = Tracer {
        clock,
        randomness: randomness.clone(),
        ratio: settings.trace_ratio,
        finished: sender,
        metrics: metrics.clone(),
    };
    let exporter = Exporter { finished, client, url, resource, randomness, outage: Outage::default(), metrics };
    Ok(Some((Arc::new(tracer), exporter)))
}

impl Exporter {
    /// Posts until `stop` is cancelled, then what is left, for two seconds at most.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(()) = stop.run_until_cancelled(self.gather(&mut batch)).await {
            if batch.is_empty() {
                // Nobody is left to record anything.
                return;
            }
            if stop.run_until_cancelled(self.insist(&mut batch)).await.is_none() {
                break;
            }
        }
        if timeout(FLUSH, self.flush(&mut batch)).await.is_err() {
            let left = batch.len() + self.finished.len();
            self.metrics.count(SpanResult::Undelivered, left);
            warn!(spans = left, "the last spans could not be delivered in time");
        }
    }

    /// Fills the batch, as far as spans come within a time. Empty when there can be no more.
    async fn gather(&mut self, batch: &mut Vec<Finished>) {
        if self.finished.recv_many(batch, BATCH).await == 0 {
            return;
        }
        let until = Instant::now() + LINGER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match timeout_at(until, self.finished.recv_many(batch, room)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Posts the batch, again and again while that is of use. Empties it, unless this is dropped.
    async fn insist(&self, batch: &mut Vec<Finished>) {
        let until = Instant::now() + PATIENCE;
        let (mut pause, longest) = PAUSES;
        while !self.post(batch).await {
            if Instant::now() + pause > until {
                self.metrics.count(SpanResult::Undelivered, batch.len());
                break;
            }
            // Instances that lost the collector together do not all come back at once.
            sleep(pause.mul_f64(0.5 + self.randomness.fraction())).await;
            pause = (2 * pause).min(longest);
        }
        batch.clear();
    }

    /// Posts the batch and then all that waits, each once.
    async fn flush(&mut self, batch: &mut Vec<Finished>) {
        loop {
            while batch.len() < BATCH
                && let Ok(span) = self.finished.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            if !self.post(batch).await {
                self.metrics.count(SpanResult::Undelivered, batch.len());
            }
            batch.clear();
        }
    }

    /// One request. Gives whether the batch is done with.
    async fn post(&self, batch: &[Finished]) -> bool {
        let reason = match self.try_post(batch).await {
            Ok(rejected) => {
                let rejected = rejected.min(batch.len());
                self.metrics.count(SpanResult::Rejected, rejected);
                self.metrics.count(SpanResult::Exported, batch.len() - rejected);
                if self.outage.worked() {
                    info!("the collector takes traces again");
                }
                return true;
            }
            Err(Refusal::ForGood(reason)) => {
                self.metrics.count(SpanResult::Rejected, batch.len());
                if self.outage.failed() {
                    warn!(reason, "the collector does not take traces");
                }
                return true;
            }
            Err(Refusal::ForNow(reason)) => reason,
        };
        if self.outage.failed() {
            warn!(reason, "traces cannot be delivered");
        }
        false
    }

    /// How many spans were not wanted.
    async fn try_post(&self, batch: &[Finished]) -> Result<usize, Refusal> {
        let away = |error: reqwest::Error| Refusal::ForNow(chain(&error.without_url()));
        let body = otlp::request(&self.resource, batch).to_string();
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let mut answer = request.send().await.map_err(away)?;
        let status = answer.status();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if text.len() + chunk.len() > LONGEST_ANSWER {
                break;
            }
            text.extend_from_slice(&chunk);
        }
        let reason = format!("it answered with status {}", status.as_u16());
        match status {
            status if status.is_success() => Ok(otlp::rejected(&text)),
            // OTLP specification, "Failures": these may pass, all others do not.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Refusal::ForNow(reason)),
            _ => Err(Refusal::ForGood(reason)),
        }
    }
}
