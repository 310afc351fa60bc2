//! The emulator as its clients see it, over real connections.

mod accounts;
mod bucket_cors;
mod cors;
mod deliveries;
mod ending;
mod faults;
mod initiation;
mod network;
mod notifications;
mod operation;
mod receiver;
mod resources;
mod sending;
mod signed;
mod xml;

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{BucketSettings, Emulator, Settings};
use crate::clock::{Clock, Randomness};
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;

/// 256 KiB, what chunks are multiples of.
const Q: usize = 256 * 1024;

/// A running emulator with one bucket, `media`, and a client.
struct Stand {
    emulator: Emulator,
    client: reqwest::Client,
}

async fn stand() -> Stand {
    stand_with(|_| {}).await
}

async fn stand_with(change: impl FnOnce(&mut Settings)) -> Stand {
    let mut settings = Settings {
        buckets: vec![BucketSettings {
            name: "media".into(),
            location: "europe-west1".into(),
            ..BucketSettings::default()
        }],
        clock: Clock::manual(Timestamp::from_secs(1_763_805_600)),
        randomness: Randomness::seeded(7),
        keep_bytes: ByteCount::mib(4),
        ..Settings::default()
    };
    change(&mut settings);
    let emulator = Emulator::start(settings).await.unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    Stand { emulator, client }
}

impl Stand {
    /// A request with a token.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.emulator.url())).bearer_auth("token")
    }

    /// An initiation in `media` with that query and body.
    fn initiation(&self, query: &str, body: &str) -> RequestBuilder {
        let path = format!("/upload/storage/v1/b/media/o?uploadType=resumable&{query}");
        // An empty body would go without a length.
        self.request(Method::POST, &path).header("content-length", body.len()).body(body.to_owned())
    }

    /// The URI of a new session for that object, of the declared size.
    async fn session(&self, name: &str, size: Option<usize>) -> String {
        let mut initiation = self.initiation(&format!("name={name}"), "");
        if let Some(size) = size {
            initiation = initiation.header("x-upload-content-length", size);
        }
        location(&initiation.send().await.unwrap())
    }

    /// A `PUT` on a session URI, without a token.
    async fn put(&self, uri: &str, range: Option<&str>, body: impl Into<Vec<u8>>) -> Seen {
        self.put_with(uri, range, body, &[]).await
    }

    async fn put_with(
        &self,
        uri: &str,
        range: Option<&str>,
        body: impl Into<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> Seen {
        let body = body.into();
        let mut request = self.client.put(uri).header("content-length", body.len()).body(body);
        if let Some(range) = range {
            request = request.header("content-range", range);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Seen::of(request.send().await.unwrap()).await
    }

    /// What `bytes */*` answers.
    async fn ask(&self, uri: &str) -> Seen {
        self.put(uri, Some("bytes */*"), "").await
    }

    async fn cancel(&self, uri: &str) -> u16 {
        self.client.delete(uri).header("content-length", 0).send().await.unwrap().status().as_u16()
    }

    /// The bytes of an object in `media`.
    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.emulator.object("media", name).map(|object| object.bytes.expect("the bytes are kept").to_vec())
    }

    /// Sends a request that ends its connection, as these very bytes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.emulator.address()).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Sends these bytes and no more; gives what came back.
    async fn cut(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.emulator.address()).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset instead of an answer is an empty answer here.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn location(answer: &Response) -> String {
    assert_eq!(answer.status(), StatusCode::OK);
    answer.headers()["location"].to_str().unwrap().to_owned()
}

/// The path and query of a session URI.
fn target(uri: &str) -> &str {
    &uri[uri.find("/upload/").unwrap()..]
}

/// Bytes that differ from their neighbours.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| u8::try_from((index / 7 + index / Q) % 251).unwrap()).collect()
}

/// An answer with its body.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Seen {
    async fn of(answer: Response) -> Self {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, body: answer.text().await.unwrap() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// How many bytes a 308 says to be persisted.
    fn persisted(&self) -> usize {
        assert_eq!(self.status, 308, "{self:?}");
        self.header("range").map_or(0, |range| range.strip_prefix("bytes=0-").unwrap().parse::<usize>().unwrap() + 1)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The `Code` of an error of the XML API.
    fn code(&self) -> &str {
        assert_eq!(self.header("content-type"), Some("application/xml; charset=UTF-8"), "{self:?}");
        self.body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).expect("there is a code").0
    }

    /// The `reason` of Google's JSON error.
    fn reason(&self) -> String {
        let error = &self.json()["error"];
        assert_eq!(error["code"], self.status);
        error["errors"][0]["reason"].as_str().unwrap().to_owned()
    }
}

async fn send(request: RequestBuilder) -> Seen {
    Seen::of(request.send().await.unwrap()).await
}
