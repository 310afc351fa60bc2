//! `upload-broker healthcheck`: asks a running broker whether it is ready, for images without a shell.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use url::Url;

use crate::client::{Http, presentable, read_body, read_roots};

/// The image gives the probe 3 s, and the broker takes 1 s for its own look at the store. An answer that takes longer is
/// none, and there must be time left to say so.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The reasons why a broker is not ready are a few lines.
const MAX_ANSWER: usize = 4 << 10;

/// Exits with 0 if the broker is ready, with 1 if it is not or does not answer.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HealthcheckArguments {
    /// The address to ask.
    #[arg(default_value = "http://127.0.0.1:9090/readyz")]
    url: Url,

    /// A PEM file with root certificates to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Asks, and prints one line with the answer.
///
/// # Errors
/// When the certificates cannot be read or nothing can be printed. A broker that is away is no error but an answer.
pub(super) async fn run(arguments: HealthcheckArguments) -> anyhow::Result<ExitCode> {
    let health = check(&arguments).await?;
    let (line, code) = match health {
        Health::Ready => ("ready".to_owned(), ExitCode::SUCCESS),
        Health::NotReady(reason) => (format!("not ready: {reason}"), ExitCode::FAILURE),
    };
    writeln!(io::stdout().lock(), "{line}").context("the answer cannot be printed")?;
    Ok(code)
}

#[derive(Debug, PartialEq, Eq)]
enum Health {
    Ready,
    NotReady(String),
}

async fn check(arguments: &HealthcheckArguments) -> anyhow::Result<Health> {
    let roots = match &arguments.ca {
        Some(path) => read_roots(path).await?,
        None => Vec::new(),
    };
    let http = Http::new(&roots)?;
    let answer = async {
        let response = http.toward(&arguments.url).get(arguments.url.clone()).timeout(TIMEOUT).send().await?;
        let status = response.status().as_u16();
        Ok((status, read_body(response, MAX_ANSWER).await.unwrap_or_default()))
    };
    Ok(match answer.await {
        Ok((200, _)) => Health::Ready,
        Ok((status, body)) => {
            Health::NotReady(presentable(&format!("{status} {}", reason(&body))).trim_end().to_owned())
        }
        Err(error) => Health::NotReady(format!("{:#}", anyhow::Error::from(reqwest::Error::without_url(error)))),
    })
}

/// What the answer of an operators' listener says.
#[derive(serde::Deserialize)]
struct Answer {
    /// Of `/readyz`.
    #[serde(default)]
    reasons: Vec<String>,
    /// Of a problem document (RFC 9457).
    #[serde(default)]
    detail: String,
}

/// The reasons that the broker gives, or the text as it is: something else may stand before it.
fn reason(body: &[u8]) -> String {
    match serde_json::from_slice::<Answer>(body) {
        Ok(answer) if !answer.reasons.is_empty() => answer.reasons.join("; "),
        Ok(answer) if !answer.detail.is_empty() => answer.detail,
        Ok(_) | Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;

    /// What `/readyz` answers.
    const AWAY: &str = r#"{"status":"not ready","reasons":["the process is draining","the store does not answer"]}"#;

    async fn serve() -> std::net::SocketAddr {
        let router = Router::new()
            .route("/ready", get(async || "fine"))
            .route("/draining", get(async || (StatusCode::SERVICE_UNAVAILABLE, "draining\u{1b}[2J\n")))
            .route("/away", get(async || (StatusCode::SERVICE_UNAVAILABLE, AWAY)))
            .route("/moved", get(async || (StatusCode::FOUND, [("location", "/ready")])));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn only_a_200_is_ready() {
        let address = serve().await;
        let not_ready = |reason: &str| Health::NotReady(reason.to_owned());
        for (path, expected) in [
            ("ready", Health::Ready),
            ("draining", not_ready("503 draining[2J")),
            ("away", not_ready("503 the process is draining; the store does not answer")),
            ("moved", not_ready("302")),
            ("nothing", not_ready("404")),
        ] {
            let url = format!("http://{address}/{path}").parse().unwrap();
            assert_eq!(check(&HealthcheckArguments { url, ca: None }).await.unwrap(), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_not_ready() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let health = check(&HealthcheckArguments { url, ca: None }).await.unwrap();
        assert!(matches!(health, Health::NotReady(_)), "{health:?}");
    }

    #[tokio::test]
    async fn a_certificate_file_without_certificates_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").unwrap();
        for ca in [empty, directory.path().join("missing.pem")] {
            let url = "https://127.0.0.1:1/".parse().unwrap();
            assert!(check(&HealthcheckArguments { url, ca: Some(ca.clone()) }).await.is_err(), "{}", ca.display());
        }
    }
}
