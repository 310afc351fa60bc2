//! Faults on demand: what goes wrong, with which calls, how often.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::journal::Operation;
use super::problem::{self, Answer};
use crate::model::time::Span;

/// Something that goes wrong.
///
/// As JSON: `{"operation": "chunk", "object": "videos/", "skip": 1, "count": 2, "action": {"kind": "reset"}}`, where only
/// `action` must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which calls.
    #[serde(default)]
    pub operation: Which,
    /// Only calls whose object's name contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// How many such calls go well first.
    #[serde(default)]
    pub skip: u32,
    /// How many then go wrong; `None` (in JSON `null`) means all of them. Left out of JSON, it is one.
    #[serde(default = "once")]
    pub count: Option<u32>,
    /// What goes wrong.
    pub action: Action,
}

#[expect(clippy::unnecessary_wraps, reason = "it is the default of an optional field")]
fn once() -> Option<u32> {
    Some(1)
}

impl Fault {
    /// `action` on the next call of that kind.
    pub fn once(operation: Operation, action: Action) -> Self {
        Self { operation: Which::Only(operation), object: None, skip: 0, count: once(), action }
    }
}

/// Which calls a fault is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// All but preflights, which browsers do not tell their pages about.
    #[default]
    Any,
    /// One kind.
    #[serde(untagged)]
    Only(Operation),
}

/// What goes wrong. `Delay` and `Hold` pause a call and let the next fault that fits act as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answers so, without acting.
    Respond(Reply),
    /// Resets the connection, without acting.
    Reset,
    /// Acts, journals, and answers so instead of with what happened.
    ActThenRespond(Reply),
    /// Acts, journals, and resets the connection: the answer is lost.
    ActThenReset,
    /// Acts, journals, and holds the answer until the held calls are released, the faults are cleared, or the client
    /// goes away.
    ActThenHold,
    /// Waits, before anything else.
    Delay {
        /// How long.
        #[serde(rename = "for")]
        by: Span,
    },
    /// Waits until the held calls are released, or the faults are cleared.
    Hold,
    /// Persists this many bytes of the chunk, exactly and without minding multiples, and answers so. The object is not
    /// completed, whatever arrived.
    PersistThenRespond {
        /// How many bytes.
        bytes: u64,
        /// The answer.
        reply: Reply,
    },
    /// The same, but resets the connection.
    PersistThenReset {
        /// How many bytes.
        bytes: u64,
    },
    /// Acts, and leaves `Range` out of a 308.
    OmitRange,
    /// Makes the session one that never was: it answers 404 from now on.
    ForgetSession,
    /// Ends the session before its week: it answers 410 from now on.
    KillSession,
    /// Initiates, and names another host, `host` or `host:port`, in `Location`.
    WrongLocation {
        /// The other host.
        host: String,
    },
    /// Initiates, and leaves `Location` out.
    OmitLocation,
}

/// An answer that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The status, 200 to 599; anything else becomes 503.
    pub status: u16,
    /// `Retry-After`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// What the body looks like.
    #[serde(default)]
    pub body: Body,
}

impl Reply {
    /// An answer in plain text, as the upload servers mostly give.
    pub fn status(status: u16) -> Self {
        Self { status, retry_after: None, body: Body::Text }
    }

    pub(super) fn answer(&self) -> Answer {
        // Anything else is not the status of a whole answer, and hyper would not send it.
        let status = StatusCode::from_u16(self.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let code = status.as_u16();
        let mut answer = match self.body {
            Body::Empty => problem::empty(status),
            Body::Text => problem::body(status, "text/plain; charset=utf-8", format!("Fault on demand: {code}")),
            Body::Html => {
                let page = format!("<!DOCTYPE html><title>Error {code}</title><p>That is an error.");
                problem::body(status, "text/html; charset=UTF-8", page)
            }
            Body::Xml => {
                let name = match code {
                    403 => "AccessDenied",
                    404 => "NoSuchKey",
                    408 => "RequestTimeout",
                    412 => "PreconditionFailed",
                    429 => "SlowDown",
                    500 => "InternalError",
                    501.. => "ServiceUnavailable",
                    _ => "InvalidArgument",
                };
                problem::xml_document(status, name, "Fault on demand", "")
            }
            Body::Json => {
                let reason = match code {
                    403 => "forbidden",
                    404 => "notFound",
                    408 => "requestTimeout",
                    429 => "rateLimitExceeded",
                    500.. => "backendError",
                    _ => "invalid",
                };
                let message = "Fault on demand";
                let errors = [serde_json::json!({"domain": "global", "reason": reason, "message": message})];
                let error = serde_json::json!({"code": code, "message": message, "errors": errors});
                problem::json(status, &serde_json::json!({"error": error}))
            }
        };
        if let Some(seconds) = self.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

/// What the body of a [`Reply`] looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// `text/plain`.
    #[default]
    Text,
    /// Google's JSON error.
    Json,
    /// The error document of the XML API.
    Xml,
    /// A page, as front ends answer.
    Html,
    /// Nothing.
    Empty,
}

/// A fault that is set, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Active {
    /// The fault as it was set.
    pub fault: Fault,
    /// How many calls fitted it.
    pub seen: u32,
    /// How many of these went wrong.
    pub used: u32,
}

/// The faults that are set, in order: the first one that fits a call acts, later ones do not see the call. Those that
/// are used up are dropped. Clones are handles to the same list.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    active: Mutex<Vec<Active>>,
    released: watch::Sender<u64>,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self { shared: Arc::new(Shared { active: Mutex::default(), released: watch::Sender::new(0) }) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Active>> {
        self.shared.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets one more.
    pub fn add(&self, fault: Fault) {
        self.lock().push(Active { fault, seen: 0, used: 0 });
    }

    /// Those that are set and not used up.
    pub fn list(&self) -> Vec<Active> {
        self.lock().clone()
    }

    /// Drops all of them, and releases what is held.
    pub fn clear(&self) {
        self.lock().clear();
        self.release();
    }

    /// Lets the calls go on that [`Action::Hold`] and [`Action::ActThenHold`] hold now.
    pub fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// What is to go wrong with a call.
    pub(super) fn plan(&self, operation: Operation, object: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        let mut active = self.lock();
        active.retain_mut(|Active { fault, seen, used }| {
            let is_meant = match fault.operation {
                Which::Any => operation != Operation::Preflight,
                Which::Only(only) => only == operation,
            };
            let names = |wanted: &String| object.is_some_and(|object| object.contains(wanted.as_str()));
            if plan.action.is_some() || !is_meant || !fault.object.as_ref().is_none_or(names) {
                return true;
            }
            *seen = seen.saturating_add(1);
            if *seen <= fault.skip {
                return true;
            }
            *used = used.saturating_add(1);
            match &fault.action {
                Action::Delay { by } => plan.pauses.push(Pause::For(by.0)),
                Action::Hold => plan.pauses.push(Pause::UntilReleased(self.shared.released.subscribe())),
                action => {
                    if *action == Action::ActThenHold {
                        plan.last = Some(Pause::UntilReleased(self.shared.released.subscribe()));
                    }
                    plan.action = Some(action.clone());
                }
            }
            fault.count.is_none_or(|count| *used < count)
        });
        plan
    }
}

/// What goes wrong with one call.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) pauses: Vec<Pause>,
    pub(super) action: Option<Action>,
    /// A wait between the deed and its answer.
    pub(super) last: Option<Pause>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.pauses.is_empty() && self.action.is_none()
    }
}

/// A wait before a call is served, or before its answer is sent.
#[derive(Debug)]
pub(super) enum Pause {
    For(Duration),
    UntilReleased(watch::Receiver<u64>),
}

impl Pause {
    pub(super) async fn wait(self) {
        match self {
            Self::For(duration) => tokio::time::sleep(duration).await,
            // An error means that the list of faults is gone, which is a release as well.
            Self::UntilReleased(mut released) => drop(released.changed().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_documented() {
        let text = r#"[
            {"action": {"kind": "reset"}},
            {"operation": "chunk", "object": "v/", "skip": 1, "count": null, "action": {"kind": "delay", "for": "5s"}},
            {"operation": "any", "action": {"kind": "respond", "status": 429, "retry_after": 3, "body": "json"}},
            {"action": {"kind": "persist_then_respond", "bytes": 7, "reply": {"status": 503}}}
        ]"#;
        let faults: Vec<Fault> = serde_json::from_str(text).unwrap();
        assert_eq!(faults[0], Fault { operation: Which::Any, ..Fault::once(Operation::Get, Action::Reset) });
        assert_eq!(faults[1].operation, Which::Only(Operation::Chunk));
        assert_eq!((faults[1].skip, faults[1].count), (1, None));
        assert_eq!(faults[1].action, Action::Delay { by: Span::seconds(5) });
        let reply = Reply { status: 429, retry_after: Some(3), body: Body::Json };
        assert_eq!(faults[2].action, Action::Respond(reply));
        assert_eq!(faults[3].action, Action::PersistThenRespond { bytes: 7, reply: Reply::status(503) });
        for wrong in [
            r#"{"action": {"kind": "explode"}}"#,
            r#"{"operation": "chunky", "action": {"kind": "reset"}}"#,
            r#"{"when": 1, "action": {"kind": "reset"}}"#,
            r#"{"action": {"kind": "respond"}}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_fault_that_fits_acts_and_is_used_up() {
        let faults = Faults::new();
        let fault = |skip, count, action| Fault { skip, count, ..Fault::once(Operation::Chunk, action) };
        faults.add(Fault { object: Some("other".into()), ..fault(0, None, Action::KillSession) });
        faults.add(fault(1, Some(2), Action::Reset));
        faults.add(fault(0, None, Action::OmitRange));
        let next = || faults.plan(Operation::Chunk, Some("videos/a")).action;
        let actions: Vec<_> = (0..4).map(|_| next()).collect();
        let omit = Some(Action::OmitRange);
        assert_eq!(actions, [omit.clone(), Some(Action::Reset), Some(Action::Reset), omit]);
        assert!(faults.plan(Operation::Get, Some("videos/a")).is_empty());
        assert_eq!(faults.plan(Operation::Chunk, Some("another")).action, Some(Action::KillSession));
        assert_eq!(faults.list().len(), 2, "what is used up is gone");
        faults.clear();
        assert!(next().is_none());
    }

    #[test]
    fn pauses_stack_with_what_follows() {
        let faults = Faults::new();
        faults.add(Fault::once(Operation::Get, Action::Delay { by: Span::seconds(1) }));
        faults.add(Fault::once(Operation::Get, Action::Hold));
        faults.add(Fault::once(Operation::Get, Action::Reset));
        let plan = faults.plan(Operation::Get, None);
        assert_eq!((plan.pauses.len(), plan.action), (2, Some(Action::Reset)));
    }

    #[test]
    fn an_answer_is_held_after_the_deed() {
        let faults = Faults::new();
        faults.add(serde_json::from_str(r#"{"action": {"kind": "act_then_hold"}}"#).unwrap());
        let plan = faults.plan(Operation::Initiate, None);
        assert!(plan.pauses.is_empty(), "the deed itself waits for nothing");
        assert!(plan.last.is_some());
    }
}
