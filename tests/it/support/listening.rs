//! A client of server-sent events, with as little of its own mind as possible.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

use super::User;

/// An open stream of events.
pub struct Listening {
    response: Response,
    rest: String,
    /// All that came.
    pub text: String,
}

/// What stands between two empty lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    pub id: String,
    /// Empty for what is no event.
    pub event: String,
    pub data: Value,
}

impl Listening {
    /// Opens the stream of an upload's events, after the one that has the id `last`.
    pub async fn to(user: &User, id: &str, last: Option<&str>) -> Self {
        let url = format!("{}/v1/uploads/{id}/events", user.broker);
        let mut request = user.client.get(url).bearer_auth(&user.token).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        for (name, value) in
            [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
        {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        assert!(response.headers().contains_key("x-request-id"));
        let mut listening = Self { response, rest: String::new(), text: String::new() };
        assert_eq!(listening.block().await, Some(Block::default()), "the stream says when to come back");
        assert_eq!(listening.text, "retry: 2000\n\n");
        listening
    }

    /// The next block, comments included; `None` when the stream has ended as it should.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some(end) = self.rest.find("\n\n") {
                let block = parse(&self.rest[..end]);
                self.rest.drain(..end + 2);
                return Some(block);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await;
            let Some(chunk) = chunk.unwrap_or_else(|_| panic!("waited in vain for an event")).unwrap() else {
                assert_eq!(self.rest, "", "the stream ends within a block");
                return None;
            };
            let chunk = std::str::from_utf8(&chunk).unwrap();
            self.rest += chunk;
            self.text += chunk;
        }
    }

    /// The next event.
    pub async fn next(&mut self) -> Option<Block> {
        loop {
            match self.block().await {
                Some(block) if block.event.is_empty() => {}
                block => return block,
            }
        }
    }

    /// The next event, which is a `state`.
    #[track_caller]
    pub fn state(&mut self, expected: &'static str) -> impl Future<Output = Block> {
        let caller = std::panic::Location::caller();
        async move {
            let block = self.next().await.unwrap_or_else(|| panic!("no {expected} at {caller}"));
            let found = (&block.event[..], block.data["state"].as_str());
            assert_eq!(found, ("state", Some(expected)), "{caller}: {block:?}");
            block
        }
    }

    /// Events until one of this state comes, which is given.
    pub async fn until(&mut self, state: &str) -> Block {
        loop {
            let block = self.next().await.unwrap_or_else(|| panic!("it ended without {state}: {}", self.text));
            if block.data["state"] == state {
                return block;
            }
        }
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        match line.split_once(':').unwrap() {
            ("", _) | ("retry", " 2000") => {}
            ("id", id) => id.trim_start().clone_into(&mut block.id),
            ("event", event) => event.trim_start().clone_into(&mut block.event),
            ("data", data) => block.data = serde_json::from_str(data).unwrap(),
            _ => panic!("not a line of an event: {line}"),
        }
    }
    block
}
