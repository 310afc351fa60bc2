//! Somebody who uploads, and what the broker answers them.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Map, Value, json};
use upload_broker::model::time::Timestamp;

use super::{AUDIENCE, ISSUER, issuer_key};

/// A client of one broker, with a token.
#[derive(Clone)]
pub struct User {
    pub client: Client,
    pub broker: String,
    pub token: String,
    headers: Vec<(&'static str, String)>,
}

/// A response, after what must hold of every response was checked.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

/// A token for `subject`, good for an hour from `now`, with `more` claims.
pub fn token(subject: &str, now: Timestamp, more: &[(&str, Value)]) -> String {
    let mut claims = Map::from_iter([
        ("iss".to_owned(), json!(ISSUER)),
        ("aud".to_owned(), json!(AUDIENCE)),
        ("sub".to_owned(), json!(subject)),
        ("iat".to_owned(), json!(now.as_secs())),
        ("exp".to_owned(), json!(now.as_secs() + 3600)),
    ]);
    claims.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    issuer_key().sign(&claims).unwrap()
}

impl User {
    pub fn new(broker: String, subject: &str, now: Timestamp) -> Self {
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { client, broker, token: token(subject, now, &[]), headers: Vec::new() }
    }

    /// The same user at another broker.
    pub fn at(&self, broker: String) -> Self {
        Self { client: self.client.clone(), broker, token: self.token.clone(), headers: self.headers.clone() }
    }

    /// The same, with another header on every request.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The same, with another token.
    pub fn bearing(mut self, token: String) -> Self {
        self.token = token;
        self
    }

    /// Sends a request and checks what must hold of every response.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(method, path, body).await.unwrap()
    }

    /// The same, for tests in which the broker can die.
    pub async fn try_call(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.broker)).bearer_auth(&self.token);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::of(request.send().await?).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// Creates an upload from a whole request body.
    pub async fn create_from(&self, body: Value) -> Answer {
        self.call(Method::POST, "/v1/uploads", Some(&body)).await
    }

    /// Creates an upload of so many bytes.
    pub async fn create(&self, size: u64) -> Answer {
        self.create_from(request(size)).await
    }

    pub async fn complete(&self, id: &str) -> Answer {
        self.call(Method::POST, &format!("/v1/uploads/{id}/complete"), None).await
    }

    pub async fn cancel(&self, id: &str) -> Answer {
        self.call(Method::DELETE, &format!("/v1/uploads/{id}"), None).await
    }

    pub async fn look(&self, id: &str) -> Answer {
        self.get(&format!("/v1/uploads/{id}?refresh=true")).await
    }

    /// Sends bytes straight to storage; `range` as in `Content-Range`, left out for all at once.
    pub async fn put(&self, uri: &str, range: Option<&str>, bytes: Vec<u8>) -> StatusCode {
        let mut request = self.client.put(uri).body(bytes);
        if let Some(range) = range {
            request = request.header("content-range", range);
        }
        request.send().await.unwrap().status()
    }
}

/// The body of an ordinary create request.
pub fn request(size: u64) -> Value {
    json!({"filename": "holiday.mp4", "content_type": "video/mp4", "size_bytes": size})
}

impl Answer {
    /// Reads a response of the broker, and checks what must hold of every one.
    pub async fn of(response: reqwest::Response) -> reqwest::Result<Self> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let answer = Self { status, headers, body };
        answer.check();
        Ok(answer)
    }

    /// What must hold of every response of the broker.
    fn check(&self) {
        assert!(self.headers.contains_key("x-request-id"), "no request id: {self:?}");
        if self.body.to_string().contains("upload_id=") {
            assert_eq!(self.headers["cache-control"], "no-store", "a session URI that caches may keep");
        }
        assert!(!self.body.to_string().contains(":null"), "null on the wire: {}", self.body);
        if self.status >= 400 {
            assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
            assert_eq!(self.body["status"], self.status, "{self:?}");
            assert_eq!(self.body["request_id"], self.headers["x-request-id"].to_str().unwrap());
            for field in ["type", "title", "detail", "code"] {
                assert!(self.body[field].is_string(), "no {field}: {self:?}");
            }
        }
        if matches!(self.status, 429 | 503) {
            let wait: u64 = self.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!(wait >= 1, "{self:?}");
        }
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    pub fn is_problem(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        self
    }

    #[track_caller]
    pub fn is_upload(self, status: u16, state: &str) -> Self {
        assert_eq!((self.status, self.body["state"].as_str()), (status, Some(state)), "{}", self.body);
        self
    }

    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        let value = self.body.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {}", self.body));
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    pub fn id(&self) -> String {
        self.text("/id")
    }

    pub fn uri(&self) -> String {
        self.text("/transfer/uri")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}
