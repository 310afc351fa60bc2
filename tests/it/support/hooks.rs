//! Whoever is told how uploads end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

/// A receiver of webhooks that takes everything.
pub struct Hooks {
    url: String,
    events: Arc<Mutex<Vec<Event>>>,
    _serving: AbortOnDropHandle<()>,
}

/// An event as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The `webhook-id`.
    pub id: String,
    pub body: Value,
}

impl Hooks {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let take = move |headers: HeaderMap, body: String| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            heard.lock().unwrap().push(Event { id, body: serde_json::from_str(&body).unwrap() });
            std::future::ready(())
        };
        let router = Router::new().route("/hook", post(take));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, events, _serving: AbortOnDropHandle::new(serving) }
    }

    /// The section that has events sent here, its secret in a file in `folder`.
    pub fn section(&self, folder: &Path) -> String {
        let secret = folder.join("webhook.secret");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        format!(
            "[[webhooks]]\nurl = \"{}\"\nsecret_file = \"{}\"\nallow_private_addresses = true\n",
            self.url,
            secret.display()
        )
    }

    /// All events so far, by id.
    pub fn by_id(&self) -> BTreeMap<String, Vec<Event>> {
        let mut by_id = BTreeMap::<_, Vec<Event>>::new();
        for event in self.events.lock().unwrap().iter() {
            by_id.entry(event.id.clone()).or_default().push(event.clone());
        }
        by_id
    }

    /// Waits until there are as many events as this, repeats included.
    pub async fn has(&self, count: usize) {
        for _ in 0..1500 {
            if self.events.lock().unwrap().len() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} events, where {count} are to come", self.events.lock().unwrap().len());
    }
}
