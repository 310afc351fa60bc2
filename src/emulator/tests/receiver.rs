//! A receiver of pushes: keeps what comes, and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::TcpListener;

/// A push as it came.
#[derive(Debug, Clone)]
pub(super) struct Push {
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Push {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.body["message"]["attributes"][name].as_str()
    }

    /// What happened to which object.
    pub(super) fn what(&self) -> (String, String) {
        let attribute = |name| self.attribute(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_owned();
        (attribute("eventType"), attribute("objectId"))
    }

    /// The resource within a wrapped message.
    pub(super) fn data(&self) -> Value {
        let text = STANDARD.decode(self.body["message"]["data"].as_str().unwrap()).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub(super) fn bearer(&self) -> &str {
        self.header("authorization").strip_prefix("Bearer ").unwrap()
    }
}

#[derive(Default)]
struct Kept {
    pushes: Vec<Push>,
    /// What the next pushes are answered; 204 after that.
    answers: VecDeque<u16>,
}

/// A running receiver on loopback.
pub(super) struct Receiver {
    pub(super) endpoint: String,
    kept: Arc<Mutex<Kept>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub(super) async fn start(answers: impl IntoIterator<Item = u16>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers)
    }

    pub(super) fn on(listener: TcpListener, answers: impl IntoIterator<Item = u16>) -> Self {
        let endpoint = format!("http://{}/push", listener.local_addr().unwrap());
        let kept = Arc::new(Mutex::new(Kept { pushes: Vec::new(), answers: answers.into_iter().collect() }));
        let router = Router::new().fallback(receive).with_state(Arc::clone(&kept));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, kept, serving }
    }

    pub(super) fn pushes(&self) -> Vec<Push> {
        self.kept.lock().unwrap().pushes.clone()
    }

    pub(super) fn what(&self) -> Vec<(String, String)> {
        self.pushes().iter().map(Push::what).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(State(kept): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut kept = kept.lock().unwrap();
    kept.pushes.push(Push { headers, body: serde_json::from_slice(&body).unwrap() });
    let status = StatusCode::from_u16(kept.answers.pop_front().unwrap_or(204)).unwrap();
    if status.is_redirection() {
        // Whoever followed it would be seen here.
        return (status, [(header::LOCATION, "/elsewhere")]).into_response();
    }
    status.into_response()
}
