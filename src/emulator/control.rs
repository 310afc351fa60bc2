//! What tests in other languages steer the emulator with: `/_emulator/…`. Not journalled, no token, no faults.

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::http::StatusCode;
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use std::error::Error as _;
use std::sync::Arc;

use super::World;
use super::faults::Fault;
use super::notifications::{SubscriptionError, SubscriptionSettings, Subscriptions};
use super::problem::{self, Answer, Problem};
use super::session::State;
use super::sessions::Entry;
use super::target::Query;
use crate::model::time::Span;

/// The largest body that is read.
const BODY_BYTES: usize = 1 << 20;

/// How many faults may be set at a time.
const FAULTS: usize = 10_000;

/// How many sessions are listed at most.
const LISTED: usize = 1000;

/// Answers a request below `/_emulator/`.
pub(super) async fn serve(world: &Arc<World>, place: &str, head: &Parts, body: Incoming) -> Answer {
    let answer = match (place, head.method.as_str()) {
        ("journal", "GET") => journal(world, head),
        ("journal", "DELETE") => {
            world.journal.clear();
            Ok(problem::empty(StatusCode::NO_CONTENT))
        }
        ("faults", "GET") => Ok(faults(world)),
        ("faults", "POST") => set_faults(world, body).await,
        ("faults", "DELETE") => {
            world.faults.clear();
            Ok(problem::empty(StatusCode::NO_CONTENT))
        }
        ("faults/release", "POST") => {
            world.faults.release();
            Ok(problem::empty(StatusCode::NO_CONTENT))
        }
        ("clock", "GET") => Ok(clock(world)),
        ("clock", "POST") => advance(world, body).await,
        ("network", "GET") => Ok(network(world)),
        ("network", "PUT") => set_network(world, body).await,
        ("sessions", "GET") => Ok(sessions(world)),
        ("subscriptions", method) => subscriptions(&Subscriptions::of(Arc::clone(world)), method, body).await,
        ("subscriptions/release", "POST") => {
            Subscriptions::of(Arc::clone(world)).release();
            Ok(problem::empty(StatusCode::NO_CONTENT))
        }
        ("journal" | "faults" | "faults/release" | "clock" | "network" | "sessions" | "subscriptions/release", _) => {
            Err(Problem::method_not_allowed())
        }
        _ => Err(Problem::not_found(
            "The emulator has journal, faults, faults/release, clock, network, sessions, subscriptions and \
             subscriptions/release here.",
        )),
    };
    answer.unwrap_or_else(|problem| problem.answer())
}

async fn read<T: for<'de> Deserialize<'de>>(body: Incoming) -> Result<T, Problem> {
    let body = Limited::new(body, BODY_BYTES).collect().await;
    let body = body.map_err(|_| Problem::too_large("The body is too large, or was cut."))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| Problem::invalid(error.to_string()))
}

fn journal(world: &World, head: &Parts) -> Result<Answer, Problem> {
    let query = Query::of(head.uri.query().unwrap_or_default()).unwrap_or_default();
    let since = match query.get("since") {
        None => 0,
        Some(text) => text.parse().map_err(|_| Problem::invalid("since is a sequence number"))?,
    };
    let entries = world.journal.since(since);
    let latest = entries.last().map_or(since, |entry| entry.sequence);
    Ok(problem::json(StatusCode::OK, &json!({"entries": entries, "latest": latest})))
}

fn faults(world: &World) -> Answer {
    problem::json(StatusCode::OK, &json!({"faults": world.faults.list()}))
}

async fn set_faults(world: &World, body: Incoming) -> Result<Answer, Problem> {
    let more: Vec<Fault> = read(body).await?;
    if world.faults.list().len() + more.len() > FAULTS {
        return Err(Problem::full("faults"));
    }
    for fault in more {
        world.faults.add(fault);
    }
    Ok(faults(world))
}

fn clock(world: &World) -> Answer {
    problem::json(StatusCode::OK, &json!({"now": world.now()}))
}

fn network(world: &World) -> Answer {
    problem::json(StatusCode::OK, &json!(world.network.conditions()))
}

async fn set_network(world: &World, body: Incoming) -> Result<Answer, Problem> {
    world.network.set(read(body).await?);
    Ok(network(world))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance: Span,
}

async fn advance(world: &World, body: Incoming) -> Result<Answer, Problem> {
    let Advance { advance } = read(body).await?;
    world.advance(advance.0);
    Ok(clock(world))
}

async fn subscriptions(subscriptions: &Subscriptions, method: &str, body: Incoming) -> Result<Answer, Problem> {
    match method {
        "GET" => {}
        "POST" => {
            let settings: SubscriptionSettings = read(body).await?;
            subscriptions.add(settings).map_err(|error| refused(&error))?;
        }
        "DELETE" => {
            subscriptions.clear();
            return Ok(problem::empty(StatusCode::NO_CONTENT));
        }
        _ => return Err(Problem::method_not_allowed()),
    }
    Ok(problem::json(StatusCode::OK, &json!({"subscriptions": subscriptions.list()})))
}

fn refused(error: &SubscriptionError) -> Problem {
    match error {
        SubscriptionError::Taken(_) => Problem::conflict(error.to_string()),
        SubscriptionError::Full => Problem::full("subscriptions"),
        SubscriptionError::Endpoint(_)
        | SubscriptionError::Topic(_)
        | SubscriptionError::Range(_)
        | SubscriptionError::Ca(..)
        | SubscriptionError::Tls(_) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Problem::invalid(format!("{error}{cause}"))
        }
    }
}

fn sessions(world: &World) -> Answer {
    let now = world.now();
    let listed: Vec<Value> = world.sessions.newest(LISTED).iter().map(|entry| describe(entry)).collect();
    problem::json(StatusCode::OK, &json!({"live": world.sessions.live(now), "sessions": listed}))
}

fn describe(entry: &Entry) -> Value {
    let session = entry.lock();
    let mut described = json!({
        "session": session.number,
        "bucket": session.bucket,
        "object": session.insertion.name,
        "started": entry.started,
    });
    let state = match &session.state {
        State::Open { content, total } => {
            described["persisted"] = json!(content.size());
            if let Some(total) = total {
                described["total"] = json!(total);
            }
            "open"
        }
        State::Completed(object) => {
            described["generation"] = json!(object.generation.to_string());
            "completed"
        }
        State::Cancelled => "cancelled",
        State::Dead => "dead",
        State::Forgotten => "forgotten",
    };
    described["state"] = json!(state);
    if let Some(Ok(origin)) = session.origin.as_ref().map(hyper::http::HeaderValue::to_str) {
        described["origin"] = json!(origin);
    }
    described
}
