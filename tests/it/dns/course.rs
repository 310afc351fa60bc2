//! Clients that get sessions all the time, each by the name and through a resolver of its own, and what became of each.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::task::JoinSet;
use upload_broker::clock::Clock;

use super::resolver::{Resolver, ask};
use super::{CLIENTS, Client, FAILOVER, TTL, region_of};
use crate::support::user::{User, request};

/// How long after one attempt the next one begins.
const PACE: Duration = Duration::from_millis(200);

/// How long a client waits for a session before it tries again.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long clients must be where they belong to count as being there: answers are asked for twice in it, and health
/// is at least twice looked at.
const STEADY: Duration = Duration::from_secs(5);

/// One attempt to get a session.
#[derive(Debug)]
pub struct Attempt {
    pub begun: Instant,
    pub ended: Instant,
    /// The region that the client went to, as its resolver said.
    pub sent_to: &'static str,
    /// What was wrong with what it got there.
    pub failure: Option<String>,
}

/// All that became of one client.
#[derive(Debug, Default)]
pub struct Course {
    pub attempts: Vec<Attempt>,
    /// The regions that the name server gave for it at each attempt, whatever its resolver had kept.
    pub given: Vec<&'static str>,
}

impl Course {
    /// The regions that the client was sent to, each stay as one.
    pub fn stays(&self) -> Vec<&'static str> {
        stays(self.attempts.iter().map(|attempt| attempt.sent_to))
    }

    /// The same as the name server gave them.
    pub fn given_stays(&self) -> Vec<&'static str> {
        stays(self.given.iter().copied())
    }

    /// The first attempt that was begun at `time` or later and got a session in `region`.
    pub fn first_session(&self, region: &str, time: Instant) -> Option<&Attempt> {
        let is_it =
            |attempt: &&Attempt| attempt.failure.is_none() && attempt.sent_to == region && attempt.begun >= time;
        self.attempts.iter().find(is_it)
    }

    pub fn failures(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.failure.is_some())
    }

    /// For how long it has had sessions in `region`, and nothing else.
    fn steady_in(&self, region: &str) -> Duration {
        let is_right = |attempt: &&Attempt| attempt.failure.is_none() && attempt.sent_to == region;
        let first = self.attempts.iter().rev().take_while(is_right).last();
        first.map_or(Duration::ZERO, |first| first.begun.elapsed())
    }
}

fn stays(regions: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut stays: Vec<_> = regions.collect();
    stays.dedup();
    stays
}

/// A client of each country.
pub struct Clients {
    courses: Vec<Arc<Mutex<Course>>>,
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Clients {
    /// They begin at once. Brokers are at `port` of the address that the name server gives.
    pub fn start(names: SocketAddr, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let courses: Vec<_> = CLIENTS.iter().map(|_| Arc::default()).collect();
        let mut running = JoinSet::new();
        for (client, course) in CLIENTS.iter().zip(&courses) {
            running.spawn(run(client, names, port, Arc::clone(course), Arc::clone(&stop)));
        }
        Self { courses, stop, running }
    }

    /// Waits until every client is where `expected` says, and has been for a while.
    pub async fn settle(&self, expected: impl Fn(&Client) -> &'static str) {
        let begun = Instant::now();
        let is_there = |(client, course): (&Client, &Arc<Mutex<Course>>)| {
            course.lock().unwrap().steady_in(expected(client)) >= STEADY
        };
        while !CLIENTS.iter().zip(&self.courses).all(is_there) {
            // How long it may take is for whoever looks at the courses: this is only for it to have an end.
            assert!(begun.elapsed() < 3 * FAILOVER, "they do not settle: {:#?}", self.courses);
            tokio::time::sleep(PACE).await;
        }
    }

    /// Stops them all, and gives what became of them, in the order of [`CLIENTS`].
    pub async fn stop(mut self) -> Vec<Course> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        self.courses.iter().map(|course| std::mem::take(&mut *course.lock().unwrap())).collect()
    }
}

async fn run(client: &Client, names: SocketAddr, port: u16, course: Arc<Mutex<Course>>, stop: Arc<AtomicBool>) {
    // Processes have no other clock than the system's.
    let mut user = User::new(String::new(), client.country, Clock::System.now());
    user.client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let mut resolver = Resolver::new(names, client.network);
    while !stop.load(Ordering::Relaxed) {
        let given = ask(names, client.network).await;
        let begun = Instant::now();
        if let (Some((given, ttl)), Some(address)) = (given, resolver.resolve().await) {
            assert_eq!(ttl, TTL, "the answer may be kept for as long as the zone says");
            let sent_to = region_of(address);
            let failure = create(&user.at(format!("http://{address}:{port}")), sent_to).await.err();
            let mut course = course.lock().unwrap();
            course.given.push(region_of(given));
            course.attempts.push(Attempt { begun, ended: Instant::now(), sent_to, failure });
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Gets a session in that region, or says why not.
async fn create(user: &User, region: &str) -> Result<(), String> {
    let answer = user.try_call(Method::POST, "/v1/uploads", Some(&request(10))).await;
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    let is_beside = answer.body["region"] == region && answer.body["bucket"] == format!("media-{region}");
    if answer.status == 201 && is_beside { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
}
