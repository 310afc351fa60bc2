//! Spans: what was done within a trace, from when to when.
//!
//! The current span travels with the work, in a task-local value, and not with the subscriber of log lines: no filter of
//! log lines takes spans away, no library adds any, and a span holds what is said here and nothing else. Where nothing is
//! traced, all that a span costs is a look at that value.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use tokio::sync::mpsc;
use tokio_util::either::Either;
use tracing::Instrument as _;

use super::context::{SpanId, TraceId, Traceparent};
use super::metrics::{Metrics, SpanResult};
use crate::clock::{Clock, Randomness};

tokio::task_local! {
    /// The span that whatever runs belongs to.
    static CURRENT: Active;
}

/// Begins traces, and hands their spans on when they end.
pub struct Tracer {
    pub(super) clock: Clock,
    pub(super) randomness: Randomness,
    /// Of what begins here.
    pub(super) ratio: f64,
    pub(super) finished: mpsc::Sender<Finished>,
    pub(super) metrics: Metrics,
}

/// What a span is to the program that it happens in (OpenTelemetry specification, `SpanKind`); the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody else takes part.
    Internal = 1,
    /// A request is answered.
    Server = 2,
    /// Somebody else is asked.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text. Never a secret, and nothing that says who a user is.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Where a trace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It begins here.
    Here,
    /// A caller who is believed has begun it, and has decided whether it is recorded.
    Continued(Traceparent),
    /// It begins here, and points to what a caller says of itself who is not believed: nobody from outside has spans
    /// recorded, nor adds to traces of others.
    Linked(Traceparent),
}

/// A span that has begun. It ends when the future that [`Active::run`] gives ends or is dropped. Clones are the same span.
#[derive(Clone)]
pub struct Active(Arc<Span>);

struct Span {
    tracer: Arc<Tracer>,
    is_recorded: bool,
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    link: Option<Traceparent>,
    name: Cow<'static, str>,
    kind: Kind,
    /// When the trace began here, by both clocks: all its spans are timed from there, so that none begins before its
    /// parent.
    origin: (Duration, Instant),
    begun: Instant,
    details: Mutex<Details>,
}

#[derive(Default)]
struct Details {
    attributes: Vec<(&'static str, Value)>,
    has_failed: bool,
}

/// A span that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) link: Option<Traceparent>,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    /// Since the Unix epoch.
    pub(super) begun: Duration,
    /// Since the Unix epoch.
    pub(super) ended: Duration,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) has_failed: bool,
}

impl Tracer {
    /// Begins the first span that this program has in a trace.
    pub fn begin(self: &Arc<Self>, origin: Origin, name: impl Into<Cow<'static, str>>, kind: Kind) -> Active {
        let now = Instant::now();
        let millis = u64::try_from(self.clock.now().as_millis()).unwrap_or_default();
        let (trace, parent, link, is_recorded) = match origin {
            Origin::Continued(caller) => (caller.trace, Some(caller.span), None, caller.sampled),
            Origin::Here => (self.trace_id(), None, None, self.samples()),
            Origin::Linked(caller) => (self.trace_id(), None, Some(caller), self.samples()),
        };
        Active(Arc::new(Span {
            tracer: Arc::clone(self),
            is_recorded,
            trace,
            id: self.span_id(),
            parent,
            link,
            name: name.into(),
            kind,
            origin: (Duration::from_millis(millis), now),
            begun: now,
            details: Mutex::default(),
        }))
    }

    /// By chance, and not by the trace's id: no caller can have chosen it.
    fn samples(&self) -> bool {
        // `fraction` is below 1, so that 1 is all of them, and 0 none.
        self.randomness.fraction() < self.ratio
    }

    fn trace_id(&self) -> TraceId {
        TraceId(u128::from_be_bytes(self.randomness.bytes()).max(1))
    }

    fn span_id(&self) -> SpanId {
        SpanId(u64::from_be_bytes(self.randomness.bytes()).max(1))
    }
}

impl Active {
    /// Begins a span below this one.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: Kind) -> Self {
        let Span { tracer, is_recorded, trace, id, origin, .. } = &*self.0;
        Self(Arc::new(Span {
            tracer: Arc::clone(tracer),
            is_recorded: *is_recorded,
            trace: *trace,
            id: tracer.span_id(),
            parent: Some(*id),
            link: None,
            name: name.into(),
            kind,
            origin: *origin,
            begun: Instant::now(),
            details: Mutex::default(),
        }))
    }

    /// The trace, as in log lines.
    pub fn trace_id(&self) -> impl std::fmt::Display + use<> {
        self.0.trace
    }

    /// The span, as in log lines.
    pub fn span_id(&self) -> impl std::fmt::Display + use<> {
        self.0.id
    }

    /// Does `work` in the span, which ends with it, also when it is dropped.
    pub fn run<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        self.run_told(work, |_, _| {})
    }

    /// The same, with something to say of the span once it is known what came of the work.
    fn run_told<F: Future>(self, work: F, tell: impl FnOnce(&Self, &F::Output)) -> impl Future<Output = F::Output> {
        let ending = Ending(self.clone());
        CURRENT.scope(self, async move {
            let Ending(span) = &ending;
            let outcome = work.await;
            tell(span, &outcome);
            outcome
        })
    }

    /// Ends a span that no work was done in.
    pub fn end(self) {
        drop(Ending(self));
    }

    /// Says something of the span. What is said twice of the same key counts the second time.
    pub fn record(&self, key: &'static str, value: impl Into<Value>) {
        if !self.0.is_recorded {
            return;
        }
        let value = value.into();
        let mut details = self.0.details.lock().unwrap_or_else(PoisonError::into_inner);
        match details.attributes.iter_mut().find(|(known, _)| *known == key) {
            Some((_, before)) => *before = value,
            None => details.attributes.push((key, value)),
        }
    }

    /// Says that what the span is about failed, and of what kind that was: a word that the code knows.
    pub fn fail(&self, kind: impl Into<Value>) {
        self.record("error.type", kind);
        self.0.details.lock().unwrap_or_else(PoisonError::into_inner).has_failed = true;
    }
}

/// Ends its span when it is dropped.
struct Ending(Active);

impl Drop for Ending {
    fn drop(&mut self) {
        let Span { tracer, is_recorded, trace, id, parent, link, name, kind, origin, begun, details } = &*self.0.0;
        if !is_recorded {
            return;
        }
        let details = std::mem::take(&mut *details.lock().unwrap_or_else(PoisonError::into_inner));
        let (epoch, started) = *origin;
        let finished = Finished {
            trace: *trace,
            id: *id,
            parent: *parent,
            link: *link,
            name: name.clone(),
            kind: *kind,
            begun: epoch + begun.duration_since(started),
            ended: epoch + started.elapsed(),
            attributes: details.attributes,
            has_failed: details.has_failed,
        };
        // Nobody waits for a collector: what there is no room for is counted.
        if tracer.finished.try_send(finished).is_err() {
            tracer.metrics.count(SpanResult::Overflowed, 1);
        }
    }
}

/// Does `work` in `span`, if there is one.
pub fn run<F: Future>(span: Option<Active>, work: F) -> impl Future<Output = F::Output> {
    match span {
        // Only what is traced pays for the larger future.
        Some(span) => Either::Right(Box::pin(span.run(work))),
        None => Either::Left(work),
    }
}

/// The same, for work that no request asked for: its log lines bear the ids, as those of requests do.
pub fn run_logged<F: Future>(span: Option<Active>, work: F) -> impl Future<Output = F::Output> {
    match span {
        Some(span) => {
            let ids = tracing::error_span!("background", trace_id = %span.trace_id(), span_id = %span.span_id());
            Either::Right(Box::pin(span.run(work)).instrument(ids))
        }
        None => Either::Left(work),
    }
}

/// Does `work` in a span of its own below the current one; just so, where nothing is recorded.
pub fn child<F: Future>(name: impl Into<Cow<'static, str>>, kind: Kind, work: F) -> impl Future<Output = F::Output> {
    child_told(name, kind, work, |_, _| {})
}

/// The same, with something to say of the span once it is known what came of the work.
pub fn child_told<F: Future>(
    name: impl Into<Cow<'static, str>>,
    kind: Kind,
    work: F,
    tell: impl FnOnce(&Active, &F::Output),
) -> impl Future<Output = F::Output> {
    match current().filter(|parent| parent.0.is_recorded) {
        Some(parent) => Either::Right(Box::pin(parent.child(name, kind).run_told(work, tell))),
        None => Either::Left(work),
    }
}

/// Takes the current span along into `work`, which another task does.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    match current() {
        Some(span) => Either::Right(CURRENT.scope(span, work)),
        None => Either::Left(work),
    }
}

/// Says something of the current span, which is worked out only if there is one that is recorded.
pub fn record<V: Into<Value>>(key: &'static str, value: impl FnOnce() -> V) {
    if let Some(span) = current().filter(|span| span.0.is_recorded) {
        span.record(key, value());
    }
}

/// Says that what the current span is about failed: see [`Active::fail`].
pub fn fail(kind: impl Into<Value>) {
    if let Some(span) = current() {
        span.fail(kind);
    }
}

/// The `traceparent` for a request that is made in the current span. For those who are told on purpose: other brokers, and
/// receivers of events. Storage and issuers get none, since they would make nothing of it.
pub fn traceparent() -> Option<HeaderValue> {
    let Active(span) = current()?;
    Traceparent { trace: span.trace, span: span.id, sampled: span.is_recorded }.header()
}

/// The current span, if anything is traced.
pub fn current() -> Option<Active> {
    CURRENT.try_with(Clone::clone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    fn tracer(ratio: f64, room: usize) -> (Arc<Tracer>, mpsc::Receiver<Finished>) {
        let (finished, receiver) = mpsc::channel(room);
        let (clock, randomness) = (Clock::manual(Timestamp::from_secs(5)), Randomness::seeded(1));
        (Arc::new(Tracer { clock, randomness, ratio, finished, metrics: Metrics::default() }), receiver)
    }

    const CALLER: Traceparent = Traceparent { trace: TraceId(7), span: SpanId(8), sampled: true };

    #[tokio::test]
    async fn spans_know_their_parents_also_in_other_tasks() {
        let (tracer, mut finished) = tracer(1.0, 8);
        let work = async {
            record("outer", || "o");
            let elsewhere = carried(async {
                child("inner", Kind::Client, async { fail("broken") }).await;
                record("late", || 2_u16);
            });
            tokio::spawn(elsewhere).await.unwrap();
        };
        tracer.begin(Origin::Here, "outer", Kind::Server).run(work).await;
        let (inner, outer) = (finished.recv().await.unwrap(), finished.recv().await.unwrap());
        assert_eq!((&*inner.name, &*outer.name), ("inner", "outer"));
        assert_eq!((inner.trace, inner.parent, outer.parent), (outer.trace, Some(outer.id), None));
        assert_eq!(outer.attributes, [("outer", Value::from("o")), ("late", Value::Number(2))]);
        assert_eq!(inner.attributes, [("error.type", Value::from("broken"))]);
        assert!(inner.has_failed && !outer.has_failed);
        assert!(outer.begun == Duration::from_secs(5) && outer.begun <= inner.begun && inner.ended <= outer.ended);
    }

    #[tokio::test]
    async fn a_span_ends_with_its_work_also_when_that_is_dropped() {
        let (tracer, mut finished) = tracer(1.0, 8);
        let work = tracer.begin(Origin::Here, "cut", Kind::Server).run(std::future::pending::<()>());
        drop(work);
        assert_eq!(finished.recv().await.unwrap().name, "cut");
    }

    #[tokio::test]
    async fn only_a_caller_who_is_believed_decides() {
        let unsampled = Traceparent { sampled: false, ..CALLER };
        for (name, ratio, origin, recorded) in [
            ("all", 1.0, Origin::Here, true),
            ("none", 0.0, Origin::Here, false),
            ("believed, and recorded", 0.0, Origin::Continued(CALLER), true),
            ("believed, and not recorded", 1.0, Origin::Continued(unsampled), false),
            ("not believed, and recorded", 0.0, Origin::Linked(CALLER), false),
            ("not believed, and not recorded", 1.0, Origin::Linked(unsampled), true),
        ] {
            let (tracer, mut finished) = tracer(ratio, 8);
            let told = tracer.begin(origin, name, Kind::Server).run(async { traceparent().unwrap() }).await;
            let told = told.to_str().unwrap().to_owned();
            assert!(told.ends_with(if recorded { "-01" } else { "-00" }), "{name}: {told}");
            let is_continued = matches!(origin, Origin::Continued(_));
            assert_eq!(told.contains(&CALLER.trace.to_string()), is_continued, "{name}");
            let span = finished.try_recv().ok();
            assert_eq!(span.is_some(), recorded, "{name}");
            if let Some(span) = span {
                assert_eq!(span.link.is_some(), matches!(origin, Origin::Linked(_)), "{name}");
                assert_eq!(span.parent.is_some(), is_continued, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_part_is_recorded_and_what_finds_no_room_is_dropped() {
        let (tracer, mut finished) = tracer(0.25, 400);
        for _ in 0..1000 {
            tracer.begin(Origin::Here, "one", Kind::Internal).run(async {}).await;
        }
        let recorded = std::iter::from_fn(|| finished.try_recv().ok()).count();
        assert!((150..350).contains(&recorded), "{recorded}");
        let (tracer, mut finished) = self::tracer(1.0, 2);
        for _ in 0..5 {
            tracer.begin(Origin::Here, "one", Kind::Internal).run(async {}).await;
        }
        assert_eq!(std::iter::from_fn(|| finished.try_recv().ok()).count(), 2);
    }

    #[tokio::test]
    async fn without_a_trace_nothing_is_made() {
        let current = child("one", Kind::Client, carried(async { current().is_some() }));
        assert!(!current.await);
        record("never", || -> &str { panic!("worked out for nobody") });
        assert_eq!(traceparent(), None);
    }
}
