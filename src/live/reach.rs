//! Whether webhook receivers and the brokers of other regions can be reached. Receivers are sent nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Subject;
use super::report::Row;
use crate::routing::{Unready, region_of};
use crate::uploads::Region;
use crate::webhooks::Endpoint;

/// How long one subject may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// How others are reached, and which of them are trusted.
#[derive(Clone)]
pub struct Outside {
    tls: Arc<ClientConfig>,
    client: reqwest::Client,
}

/// Why nobody could be reached.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// There are no usable certificate authorities.
    #[error("the certificate authorities cannot be used")]
    Trust(#[from] rustls::Error),
    /// There is no HTTP client.
    #[error("the HTTP client cannot be set up")]
    Client(#[from] reqwest::Error),
}

impl Outside {
    /// Trusts the authorities of the system, and these.
    ///
    /// # Errors
    /// When there are none that can be used.
    pub fn new(trusted_ca: &[CertificateDer<'static>], user_agent: &str) -> Result<Self, OutsideError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let roots = trusted_ca.iter().cloned();
        let tls = match rustls_platform_verifier::Verifier::new_with_extra_roots(roots, provider) {
            Ok(verifier) => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
            }
            // A system without any authority: nobody is trusted, which a row says.
            Err(_) => config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            // Probes and forwards take no proxy, so one must not make the difference here.
            .no_proxy()
            .connect_timeout(PATIENCE)
            .user_agent(user_agent)
            .build()?;
        Ok(Self { tls: Arc::new(tls), client })
    }

    /// Opens a connection to one of `addresses`, with TLS for `host` where that is given, and closes it.
    async fn connect(&self, addresses: &[SocketAddr], host: Option<&str>) -> Result<(), String> {
        let stream = TcpStream::connect(addresses).await.map_err(|error| error.to_string())?;
        let Some(host) = host else { return Ok(()) };
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(name, stream).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Whether receivers take connections.
pub(super) async fn webhooks(outside: &Outside, endpoints: &[Arc<Endpoint>]) -> Vec<Row> {
    const NAME: &str = "webhook";
    let questions = endpoints.iter().map(|endpoint| {
        let (outside, endpoint) = (outside.clone(), Arc::clone(endpoint));
        async move {
            let connected = in_time(async {
                let addresses = endpoint.resolve().await?;
                let is_secure = endpoint.origin().starts_with("https:");
                outside.connect(&addresses, is_secure.then(|| endpoint.host())).await
            });
            let subject = endpoint.name().as_str();
            match connected.await {
                Ok(()) => Row::ok(NAME, subject, format!("{} takes connections; nothing was sent", endpoint.origin())),
                Err(reason) => Row::failed(
                    NAME,
                    subject,
                    format!("{}: {reason}", endpoint.origin()),
                    "see that the receiver runs, has a certificate that is trusted here, and can be reached from here",
                ),
            }
        }
    });
    in_order(questions).await
}

/// Whether the brokers of the other regions answer, each where it is said to be.
pub(super) async fn brokers(subject: &Subject, own: Option<&Region>) -> Vec<Row> {
    const NAME: &str = "broker";
    let Subject { outside, regions, public_url, .. } = subject;
    let is_other = |region: &&Region| own.is_none_or(|own| own.name != region.name) && region.url != *public_url;
    let others = regions.iter().filter(is_other).cloned();
    let questions = others.map(|region| {
        let outside = outside.clone();
        async move {
            let (subject, url) = (region.name.as_str(), &region.url);
            match region_of(&outside.client, url).await {
                Ok(name) if name == region.name => Row::ok(NAME, subject, format!("{url} answers, and takes uploads")),
                Ok(name) => Row::failed(
                    NAME,
                    subject,
                    format!("{url} is the broker of {name}"),
                    "give each region the url of its own broker: by a name that only it answers to",
                ),
                Err(Unready::Refused(code)) => Row::warning(
                    NAME,
                    subject,
                    format!("{url} answers, and takes no uploads: {code}"),
                    "look at /readyz on its operators' listener, which says what is missing",
                ),
                Err(reason) => Row::warning(
                    NAME,
                    subject,
                    format!("{url}: {reason}"),
                    "nothing, if it is still to be deployed; otherwise see that it runs, and that its url is right",
                ),
            }
        }
    });
    in_order(questions).await
}

async fn in_time(question: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    timeout(PATIENCE, question).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

/// Asks all at once, and gives the rows in the order of the questions.
async fn in_order(questions: impl Iterator<Item = impl Future<Output = Row> + Send + 'static>) -> Vec<Row> {
    let mut asked = JoinSet::new();
    for (position, question) in questions.enumerate() {
        asked.spawn(async move { (position, question.await) });
    }
    let mut rows = asked.join_all().await;
    rows.sort_unstable_by_key(|(position, _)| *position);
    rows.into_iter().map(|(_, row)| row).collect()
}
