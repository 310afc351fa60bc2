//! A collector of traces on loopback: OTLP over HTTP, in JSON.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

/// A running collector, and everything that it was sent.
#[derive(Clone, Default)]
pub struct Collector {
    pub url: String,
    got: Arc<Mutex<Got>>,
}

#[derive(Default)]
struct Got {
    bytes: Vec<u8>,
    spans: Vec<Value>,
    refusals: usize,
    /// What is answered in place of taking spans.
    refusing: Option<StatusCode>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { url: format!("http://{}", listener.local_addr().unwrap()), got: Arc::default() };
        let taking = collector.clone();
        let take = async move |headers: HeaderMap, body: Bytes| taking.take(&headers, &body);
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        collector
    }

    fn take(&self, headers: &HeaderMap, body: &[u8]) -> (StatusCode, axum::Json<Value>) {
        let mut got = self.got.lock().unwrap();
        if let Some(status) = got.refusing {
            got.refusals += 1;
            return (status, axum::Json(json!({})));
        }
        assert_eq!(headers["content-type"], "application/json");
        for (name, value) in headers {
            got.bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        got.bytes.extend_from_slice(body);
        let request: Value = serde_json::from_slice(body).unwrap();
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        got.spans.extend_from_slice(spans);
        (StatusCode::OK, axum::Json(json!({})))
    }

    /// The section of a configuration that sends traces here.
    pub fn section(&self) -> String {
        format!("[telemetry]\notlp_endpoint = \"{}\"\n", self.url)
    }

    /// Refuses everything with this status, or nothing.
    pub fn refuse(&self, status: Option<u16>) {
        self.got.lock().unwrap().refusing = status.map(|status| StatusCode::from_u16(status).unwrap());
    }

    /// How often something was refused.
    pub fn refusals(&self) -> usize {
        self.got.lock().unwrap().refusals
    }

    /// Every byte of what was taken.
    pub fn bytes(&self) -> Vec<u8> {
        self.got.lock().unwrap().bytes.clone()
    }

    /// The spans that are there by now.
    pub fn spans(&self) -> Vec<Value> {
        self.got.lock().unwrap().spans.clone()
    }

    /// The first span that `wanted` holds for, once it is there.
    pub async fn span(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1000 {
            if let Some(span) = self.spans().into_iter().find(&wanted) {
                return span;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no {what} in {:#?}", self.spans());
    }

    /// The first span of that name, once it is there.
    pub async fn named(&self, name: &str) -> Value {
        self.span(name, |span| span["name"] == name).await
    }
}

/// The value of an attribute, as it is written.
pub fn attribute(span: &Value, key: &str) -> Option<String> {
    let attributes = span["attributes"].as_array().unwrap();
    let value = &attributes.iter().find(|attribute| attribute["key"] == key)?["value"];
    value["stringValue"].as_str().or_else(|| value["intValue"].as_str()).map(str::to_owned)
}
