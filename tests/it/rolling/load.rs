//! Creates at a steady pace, what came of them, and whether the machine itself stood in their way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::task::JoinSet;
use upload_broker::clock::Clock;

use super::proxy::Proxy;
use crate::support::user::{Answer, User, request};

/// Creates a second.
pub const RATE: u32 = 200;

/// How long a client waits. A broker answers earlier, whatever happens: a request that takes longer was lost.
const PATIENCE: Duration = Duration::from_secs(25);

/// For so long a machine must have done nothing for a request that took too long, in all: a quarter of what a create waits
/// for Redis.
pub const HELD_UP: Duration = Duration::from_millis(500);

/// What came of the load.
pub struct Load {
    pub begun: Instant,
    /// When the last create was sent.
    pub ended: Instant,
    /// When the last answer had come.
    answered: Instant,
    pub sent: usize,
    /// How many sessions the instance at each address has given.
    pub served: HashMap<String, usize>,
    pub failures: Vec<Failure>,
}

impl Load {
    /// Sessions a second.
    pub fn rate(&self) -> f64 {
        let served = u32::try_from(self.served.values().sum::<usize>()).unwrap();
        f64::from(served) / (self.answered - self.begun).as_secs_f64()
    }

    fn note(&mut self, outcome: Result<String, Failure>) {
        match outcome {
            Ok(address) => *self.served.entry(address).or_default() += 1,
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// A create that got no session.
#[derive(Debug)]
pub struct Failure {
    /// Of the instance.
    pub address: String,
    pub begun: Instant,
    pub ended: Instant,
    /// Whether it was answered, in form, that Redis or storage took too long. A connection that is refused or breaks, an
    /// answer that is cut off, none at all, and a refusal for load are all something else.
    pub is_of_slowness: bool,
    pub what: String,
}

/// Those who create. Signing their tokens takes a while.
pub fn users() -> Vec<User> {
    // Processes have no other clock than the system's.
    let now = Clock::System.now();
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let mut users: Vec<_> = (0..20).map(|number| User::new(String::new(), &format!("user-{number}"), now)).collect();
    for user in &mut users {
        user.client = client.clone();
    }
    users
}

/// Creates until the proxy is closed, and waits for the last answer.
pub async fn creates(users: Vec<User>, proxy: Arc<Proxy>) -> Load {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let begun = Instant::now();
    let mut running = JoinSet::new();
    let mut load = Load { begun, ended: begun, answered: begun, sent: 0, served: HashMap::new(), failures: Vec::new() };
    while let Some(address) = proxy.pick().await {
        running.spawn(create(users[load.sent % users.len()].at(format!("http://{address}")), address));
        load.sent += 1;
        while let Some(outcome) = running.try_join_next() {
            load.note(outcome.unwrap());
        }
        pace.tick().await;
    }
    load.ended = Instant::now();
    while let Some(outcome) = running.join_next().await {
        load.note(outcome.unwrap());
    }
    load.answered = Instant::now();
    load
}

/// The address of the instance that gave a session, or why it did not.
async fn create(user: User, address: String) -> Result<String, Failure> {
    let begun = Instant::now();
    let answer = user.try_call(Method::POST, "/v1/uploads", Some(&request(10))).await;
    let failure = |is_of_slowness, what| {
        let (address, ended) = (address.clone(), Instant::now());
        Failure { address, begun, ended, is_of_slowness, what }
    };
    match answer {
        Ok(answer) if answer.status == 201 && answer.body["transfer"]["uri"].is_string() => Ok(address),
        Ok(answer) => Err(failure(is_of_slowness(&answer), format!("{} {}", answer.status, answer.body))),
        Err(error) => Err(failure(false, format!("{error:?}"))),
    }
}

fn is_of_slowness(answer: &Answer) -> bool {
    matches!(answer.body["code"].as_str(), Some("store-unavailable" | "storage-unavailable" | "storage-timeout"))
}
