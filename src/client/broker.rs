//! The broker's API, one function an operation, each repeated until it has an answer or patience ends.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};
use reqwest::{Method, RequestBuilder};
use url::Url;

use crate::model::address::UpstreamUrl;
use crate::model::id::UploadId;
use crate::model::secret::SecretText;

use super::error::{Error, Operation, Refusal, Trouble};
use super::http::{Http, is_transient, read_body, retry_after};
use super::pace::Pace;
use super::wire::{CreateUpload, Upload, read_refusal};

/// How long one call may take, its body included. Completion has the broker look at storage, which takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A larger answer is not an upload: its largest parts are a name of 1 KiB, a URI of 8 KiB and metadata of 8 KiB.
const MAX_ANSWER: usize = 256 << 10;

/// A larger file is not a token: servers refuse headers of that size.
const MAX_TOKEN: usize = 16 << 10;

/// Where the bearer token comes from.
#[derive(Clone, Debug)]
pub enum Token {
    /// A file, read anew for each call, so that something else can refresh it.
    File(PathBuf),
    /// A text.
    Fixed(SecretText),
}

impl Token {
    async fn header(&self) -> Result<HeaderValue, Error> {
        let text = match self {
            Self::Fixed(token) => token.clone(),
            Self::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                SecretText::new(read.map_err(|source| Error::Token { path: path.clone(), source })?)
            }
        };
        let token = text.expose().trim();
        if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::TokenForm);
        }
        let bearer = SecretText::new(format!("Bearer {token}"));
        let mut header = HeaderValue::from_str(bearer.expose()).map_err(|_| Error::TokenForm)?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// One broker, called as one user.
#[derive(Clone, Debug)]
pub(super) struct Broker {
    http: Http,
    base: UpstreamUrl,
    /// The broker of the region that took the upload, where that is another one.
    taker: Option<UpstreamUrl>,
    token: Token,
}

/// What the broker makes of a client's word that all is stored.
pub(super) enum Completion {
    /// It looked; usually the upload is final now.
    Upload(Box<Upload>),
    /// Storage has not all bytes.
    NotComplete,
    /// Storage has neither the session nor the object.
    SessionLost,
    /// The upload ended otherwise before.
    Ended,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    retry_after: Option<Duration>,
    location: Option<String>,
}

impl Answer {
    fn refusal(&self) -> Refusal {
        Refusal { retry_after: self.retry_after, ..read_refusal(self.status, &self.body) }
    }

    fn is(&self, status: u16, code: &str) -> bool {
        self.status == status && self.refusal().code.as_deref() == Some(code)
    }

    fn upload(&self, operation: Operation) -> Result<Upload, Error> {
        // The error of the parser could quote the body, and with it the session URI.
        serde_json::from_slice(&self.body).map_err(|_| Error::Nonsense { operation, what: "it is not an upload" })
    }

    fn refused(&self, operation: Operation) -> Error {
        Error::Refused { operation, refusal: Box::new(self.refusal()) }
    }
}

impl Broker {
    pub(super) const fn new(http: Http, base: UpstreamUrl, token: Token) -> Self {
        Self { http, base, taker: None, token }
    }

    /// The address, as it is kept in state files.
    pub(super) fn address(&self) -> String {
        self.base.to_string()
    }

    /// The address of the broker that took the upload, where that is another one.
    pub(super) fn taker(&self) -> Option<String> {
        self.taker.as_ref().map(ToString::to_string)
    }

    /// Asks about the upload at the broker that took it, by what [`Broker::taker`] gave.
    pub(super) fn ask_at(&mut self, taker: Option<&str>) {
        self.taker = taker.and_then(|taker| taker.parse().ok());
    }

    /// Creates an upload, or finds the one that `key` created before. It may be the broker of another region that takes
    /// it: the upload is asked about there from then on. That broker is given the token, as it was by the one that sent
    /// the request on.
    pub(super) async fn create(
        &mut self,
        body: &CreateUpload,
        key: &str,
        pace: &mut Pace<'_>,
    ) -> Result<Upload, Error> {
        let operation = Operation::Create;
        self.taker = None;
        loop {
            let request = |request: RequestBuilder| request.header("idempotency-key", key).json(body);
            let answer = self.call(Method::POST, "", request, pace).await?;
            match answer.status {
                200 | 201 => {
                    let upload = answer.upload(operation)?;
                    self.taker =
                        answer.location.as_deref().and_then(|location| taker(location, &upload.id, &self.base));
                    return Ok(upload);
                }
                // A repeat that overtook the original, or came after a crash: the broker knows soon which.
                409 if answer.is(409, "idempotency-in-progress") => {
                    let wait = answer.retry_after;
                    pace.pause(Trouble::Broker(Box::new(answer.refusal())), wait).await?;
                }
                _ => return Err(answer.refused(operation)),
            }
        }
    }

    /// The upload as it stands, or `None` when the broker knows none of that id and owner.
    pub(super) async fn find(&self, id: UploadId, pace: &mut Pace<'_>) -> Result<Option<Upload>, Error> {
        self.find_at(&format!("/{id}"), pace).await
    }

    async fn find_at(&self, path: &str, pace: &mut Pace<'_>) -> Result<Option<Upload>, Error> {
        let operation = Operation::Find;
        let answer = self.call(Method::GET, path, |request| request, pace).await?;
        match answer.status {
            200 => answer.upload(operation).map(Some),
            404 => Ok(None),
            _ => Err(answer.refused(operation)),
        }
    }

    /// As [`Broker::find`], after the broker has looked at what storage has.
    pub(super) async fn look(&self, id: UploadId, pace: &mut Pace<'_>) -> Result<Option<Upload>, Error> {
        self.find_at(&format!("/{id}?refresh=true"), pace).await
    }

    pub(super) async fn complete(&self, id: UploadId, pace: &mut Pace<'_>) -> Result<Completion, Error> {
        let operation = Operation::Complete;
        let answer = self.call(Method::POST, &format!("/{id}/complete"), |request| request, pace).await?;
        let code = answer.refusal().code;
        match (answer.status, code.as_deref()) {
            (200, _) => answer.upload(operation).map(|upload| Completion::Upload(Box::new(upload))),
            (409, Some("not-complete")) => Ok(Completion::NotComplete),
            (409, Some("session-lost")) => Ok(Completion::SessionLost),
            (409, Some("invalid-state")) => Ok(Completion::Ended),
            _ => Err(answer.refused(operation)),
        }
    }

    /// A new session for the same upload.
    ///
    /// # Errors
    /// [`Error::SessionLost`] when the broker has no such operation.
    pub(super) async fn renew(&self, id: UploadId, pace: &mut Pace<'_>) -> Result<Upload, Error> {
        let operation = Operation::Renew;
        let answer = self.call(Method::POST, &format!("/{id}/renew"), |request| request, pace).await?;
        match answer.status {
            200 | 201 => answer.upload(operation),
            404 | 405 => Err(Error::SessionLost),
            _ => Err(answer.refused(operation)),
        }
    }

    pub(super) async fn cancel(&self, id: UploadId, pace: &mut Pace<'_>) -> Result<(), Error> {
        let operation = Operation::Cancel;
        let answer = self.call(Method::DELETE, &format!("/{id}"), |request| request, pace).await?;
        match answer.status {
            200 | 204 | 404 => Ok(()),
            _ => Err(answer.refused(operation)),
        }
    }

    /// Calls until the answer is one that a repeat would not change. A token that was refused is read once more.
    async fn call(
        &self,
        method: Method,
        path: &str,
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
        pace: &mut Pace<'_>,
    ) -> Result<Answer, Error> {
        let url = self.url(path);
        loop {
            let attempt = async |token: &HeaderValue| {
                let request = self.http.toward(&url).request(method.clone(), url.clone());
                exchange(complete(request.header(AUTHORIZATION, token).timeout(CALL_TIMEOUT))).await
            };
            let token = self.token.header().await?;
            let mut answer = attempt(&token).await;
            if answer.as_ref().is_ok_and(|answer| answer.status == 401) {
                let fresh = self.token.header().await?;
                if fresh != token {
                    answer = attempt(&fresh).await;
                }
            }
            let (trouble, wait) = match answer {
                Ok(answer) if is_transient(answer.status) => {
                    (Trouble::Broker(Box::new(answer.refusal())), answer.retry_after)
                }
                Ok(answer) => return Ok(answer),
                Err(error) => (Trouble::BrokerUnreachable(error), None),
            };
            pace.pause(trouble, wait).await?;
        }
    }

    fn url(&self, path: &str) -> Url {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let base = self.taker.as_ref().unwrap_or(&self.base);
        let mut url = base.as_url().clone();
        url.set_path(&format!("{}/v1/uploads{path}", base.as_url().path().trim_end_matches('/')));
        url.set_query(query);
        url.set_fragment(None);
        url
    }
}

/// The broker that took the upload, by the upload's address, if that is not the one that was asked.
fn taker(location: &str, id: &str, asked: &UpstreamUrl) -> Option<UpstreamUrl> {
    // A path is one of the broker that was asked, perhaps behind a prefix that it does not know of.
    let mut url = Url::parse(location).ok()?;
    let base = url.path().strip_suffix(&format!("/v1/uploads/{id}"))?.to_owned();
    if url.scheme() != asked.as_url().scheme() || url.origin() == asked.as_url().origin() {
        return None;
    }
    url.set_path(&base);
    url.as_str().parse().ok()
}

async fn exchange(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
    let body = read_body(response, MAX_ANSWER).await?;
    Ok(Answer { status, body, retry_after, location })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_asked_about_where_it_is() {
        for (name, location, expected) in [
            ("here", "/v1/uploads/1a", None),
            ("here, in full", "https://eu.example.com/v1/uploads/1a", None),
            ("another region", "https://us.example.com/v1/uploads/1a", Some("https://us.example.com/")),
            ("behind a prefix", "https://us.example.com/broker/v1/uploads/1a", Some("https://us.example.com/broker")),
            ("another upload", "https://us.example.com/v1/uploads/2b", None),
            ("another place", "https://us.example.com/1a", None),
            ("in the clear", "http://us.example.com/v1/uploads/1a", None),
            ("in the clear on this machine", "http://127.0.0.1/v1/uploads/1a", None),
            ("with a password", "https://a:b@us.example.com/v1/uploads/1a", None),
            ("nonsense", "https://", None),
        ] {
            let asked = "https://eu.example.com".parse().unwrap();
            let found = taker(location, "1a", &asked).map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
