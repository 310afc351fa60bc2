//! The receivers: each with its client, its secrets and its share of attempts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::address::Reach;
use super::event::EventKind;
use super::queue::Queue;
use super::send::Sender;
use super::settings::{EndpointName, MAX_ENDPOINTS, WebhookSettings};
use super::sign::Secrets;
use crate::model::endpoint::EndpointId;
use crate::model::section::{Fault, SectionError};
use crate::model::upload::StateKind;
use crate::telemetry::outage::Outage;

/// What a section of what is set up here is called.
const SECTION: &str = "webhooks";

/// How many attempts one endpoint may have under way. One that hangs takes up its own share, and nobody else's.
pub(super) const ATTEMPTS_AT_ONCE: usize = 16;

/// One receiver of events.
pub struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) name: EndpointName,
    pub(super) events: Vec<EventKind>,
    pub(super) sender: Sender,
    /// The partitions in which something may be due for it.
    pub(super) queue: Queue,
    /// Whether it accepts events, as far as the log has it.
    pub(super) outage: Outage,
    /// The section that it was made of.
    settings: WebhookSettings,
}

/// Shows what it is called, and nothing of its address, which may hold a secret.
impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("events", &self.events).finish_non_exhaustive()
    }
}

/// Why endpoints cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A value of the configuration is refused.
    #[error(transparent)]
    Settings(#[from] SectionError),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client for webhooks cannot be set up")]
    Client(#[from] reqwest::Error),
}

impl Endpoint {
    /// Sets up the endpoint of each section, in their order. Reads the secrets, and asks nothing of the network.
    ///
    /// # Errors
    /// When a section or a file that it names cannot be used, or two sections have one name.
    pub fn open_all(
        settings: &[WebhookSettings],
        trusted_ca: &[CertificateDer<'static>],
        user_agent: &str,
    ) -> Result<Vec<Arc<Self>>, OpenError> {
        let mut endpoints: Vec<Arc<Self>> = Vec::with_capacity(settings.len());
        for (index, section) in settings.iter().enumerate() {
            let refuse = |fault: Fault| fault.at(SECTION, index);
            if index == MAX_ENDPOINTS {
                return Err(refuse(Fault::new("url", format!("is one too many: {MAX_ENDPOINTS} can be told"))).into());
            }
            section.check_address().map_err(refuse)?;
            let name = section.endpoint_name().map_err(refuse)?;
            if endpoints.iter().any(|earlier| earlier.name == name) {
                return Err(refuse(Fault::new("name", format!("{name:?} is the name of an earlier endpoint"))).into());
            }
            let secrets = secrets(&section.secret_file).map_err(refuse)?;
            let reach = if section.allow_private_addresses { Reach::Anywhere } else { Reach::Public };
            let roots = trusted_ca.iter().map(|root| reqwest::Certificate::from_der(root)).collect::<Result<_, _>>()?;
            let url = section.url.as_url().clone();
            endpoints.push(Arc::new(Self {
                id: name.id(),
                name,
                events: section.events.clone(),
                sender: Sender::new(url, secrets, reach, roots, user_agent, ATTEMPTS_AT_ONCE)?,
                queue: Queue::new(),
                outage: Outage::default(),
                settings: section.clone(),
            }));
        }
        Ok(endpoints)
    }

    /// What stands for it in what is stored.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// What it is called.
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// The host that it is at. The rest of its address may hold a secret.
    pub fn host(&self) -> &str {
        self.sender.host()
    }

    /// Resolves its name to the addresses that events may be sent to, with the port, and connects to none.
    ///
    /// # Errors
    /// With the reason, which holds nothing of the address.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, &'static str> {
        self.sender.resolve().await
    }

    /// Where events go: scheme, host and port. The rest of the address may be a secret.
    pub fn origin(&self) -> String {
        self.sender.origin()
    }

    /// The final states that it is told of.
    pub fn states(&self) -> impl Iterator<Item = StateKind> {
        self.events.iter().map(|event| event.state())
    }

    /// Whether it is told the same, at the same address.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.settings == other.settings
    }

    /// Signs all messages from now on with the secrets that `fresh` has read.
    pub(super) fn take_secrets(&self, fresh: &Self) {
        self.sender.take_secrets(&fresh.sender);
    }
}

fn secrets(file: &Path) -> Result<Secrets, Fault> {
    Secrets::read(file).map_err(|invalid| Fault::new("secret_file", invalid.to_string()))
}
