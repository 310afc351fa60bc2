//! The HTTP clients that the broker and storage are called with.

use std::path::Path;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::redirect;
use reqwest::{Certificate, Client, ClientBuilder, Response};
use url::Url;

use crate::clock::Clock;
use crate::model::address::is_loopback;

use super::error::Error;

/// A connection that takes longer to open than this is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Nobody is asked to come back later than this: it is beyond anyone's patience.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The forms of a date (RFC 9110, section 5.6.7): the one that is sent, and two that must still be understood.
const DATE_FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// HTTP, with TLS against the system's roots and those of the caller. Redirects are never followed: storage's 308
/// means "Resume Incomplete", and a token or session URI must not travel to wherever an answer points.
#[derive(Clone, Debug)]
pub struct Http {
    proxied: Client,
    direct: Client,
}

impl Http {
    /// Clients that trust `roots` in addition to the system's.
    ///
    /// # Errors
    /// When the TLS stack refuses a certificate or cannot be set up.
    pub fn new(roots: &[Certificate]) -> Result<Self, Error> {
        let build = |configure: fn(ClientBuilder) -> ClientBuilder| {
            let builder = Client::builder()
                .user_agent(concat!("upload-broker/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .tls_certs_merge(roots.iter().cloned());
            configure(builder).build().map_err(Error::Http)
        };
        Ok(Self { proxied: build(|builder| builder)?, direct: build(ClientBuilder::no_proxy)? })
    }

    /// The client for `url`: through the system's proxy, if there is one, unless `url` is on this machine.
    pub(crate) fn toward(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.direct } else { &self.proxied }
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub async fn read_roots(path: &Path) -> Result<Vec<Certificate>, Error> {
    let pem = tokio::fs::read(path).await.map_err(|source| Error::RootsFile { path: path.to_owned(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(roots) if !roots.is_empty() => Ok(roots),
        Ok(_) | Err(_) => Err(Error::RootsForm(path.to_owned())),
    }
}

/// The body, cut off after `limit` bytes.
pub(crate) async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        let room = limit - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if body.len() == limit {
            break;
        }
    }
    Ok(body)
}

/// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3), up to a day. A date is held against the answer's
/// own `Date`, whose clock made it, or else against ours; one that has passed is no wait.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = read_date(headers, RETRY_AFTER)?;
        let now = read_date(headers, DATE).unwrap_or_else(|| Clock::System.now().as_secs());
        Duration::from_secs(u64::try_from(until.saturating_sub(now)).unwrap_or(0))
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// A date, in seconds since the epoch.
fn read_date(headers: &HeaderMap, name: HeaderName) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    let date = DATE_FORMS.iter().find_map(|form| DateTime::strptime(form, text).ok())?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Whether a request that was answered with `status` may succeed when it is repeated (storage documentation, "Retry
/// strategy").
pub(super) const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (status, expected) in [(408, true), (429, true), (500, true), (503, true), (599, true), (400, false)] {
            assert_eq!(is_transient(status), expected, "{status}");
        }
    }

    #[test]
    fn a_server_says_when_to_come_back_in_seconds_or_with_a_date() {
        let day = 24 * 60 * 60;
        for (text, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("18446744073709551615", Some(day)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(37)),
            ("Sun Nov  6 08:49:37 1994", Some(37)),
            ("Sun, 06 Nov 1994 08:48:59 GMT", Some(0)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(day)),
            ("Sun, 06 Nov 1994 25:49:37 GMT", None),
            ("1994-11-06T08:49:37Z", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            headers.insert(DATE, "Sun, 06 Nov 1994 08:49:00 GMT".parse().unwrap());
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{text}");
        }
        for (text, expected) in [("Sun, 06 Nov 1994 08:49:37 GMT", 0), ("Sat, 06 Nov 2094 08:49:37 GMT", day)] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers), Some(Duration::from_secs(expected)), "by our own clock: {text}");
        }
    }

    /// A server with a certificate of its own making; gives its address and the certificate.
    async fn serve_tls() -> (Url, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        });
        (url, made.cert.pem())
    }

    #[tokio::test]
    async fn a_certificate_of_ones_own_is_trusted_only_if_it_is_named() {
        let (url, pem) = serve_tls().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("roots.pem");
        std::fs::write(&file, pem).unwrap();
        let roots = read_roots(&file).await.unwrap();
        let get = async |roots: &[Certificate]| Http::new(roots).unwrap().toward(&url).get(url.clone()).send().await;
        assert!(get(&[]).await.is_err());
        let answer = get(&roots).await.unwrap();
        assert_eq!(read_body(answer, 1).await.unwrap(), b"o", "and no more is read than was asked for");
    }
}
