//! `serve`: the service.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::{App, Ended, World};
use crate::config;
use crate::http::gate::Transport;
use crate::model::chain;
use crate::server::{Reloaded, TlsCertificate};
use crate::webhooks::Webhooks;

/// How long new connections are taken after SIGTERM: a load balancer learns from its probes that it must stop sending.
const NOTICE: Duration = Duration::from_secs(2);

/// Run the service
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Give session URIs over plain HTTP to loopback addresses too: for development
    #[arg(long)]
    insecure_loopback: bool,
}

/// Serves until SIGTERM or SIGINT, then answers what is under way. SIGINT while it drains ends it at once. SIGHUP, which would
/// end other processes, reads the certificate, the secrets of webhooks and the database of addresses again.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = match config::load_file(&arguments.config) {
        Ok(config) => config,
        Err(errors) => {
            super::tell(&errors.to_string());
            return Ok(ExitCode::from(super::UNUSABLE));
        }
    };
    let transport = if arguments.insecure_loopback { Transport::PlainOnLoopback } else { Transport::HttpsOnly };
    let world = World::of_this_process(transport);
    let app = match App::bind(&config, world).await {
        Ok(app) => app,
        Err(error) => {
            super::tell(&chain(&error));
            return Ok(ExitCode::from(super::UNUSABLE));
        }
    };
    if config.server.tls.is_none() && config.server.trusted_proxies.is_empty() && transport == Transport::HttpsOnly {
        warn!("every request will be refused: neither server.tls nor server.trusted_proxies is set");
    }
    // Before anyone can read that this listens, and send one.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    info!(region = %app.region().name, address = %app.public_addr(), operations = %app.operations_addr(), "listening");

    let shutdown = CancellationToken::new();
    let (certificate, routing, webhooks) = (app.certificate(), app.routing(), app.webhooks());
    let serving = app.serve(shutdown.clone(), NOTICE);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            ended = &mut serving => return Ok(match ended {
                Ended::Drained => {
                    info!("every request was answered");
                    ExitCode::SUCCESS
                }
                Ended::Cut => {
                    warn!("some requests took too long and were cut");
                    ExitCode::FAILURE
                }
            }),
            // Supervisors may pass a signal on that the process has had already; being told twice is no hurry.
            _ = terminate.recv() => shutdown.cancel(),
            _ = interrupt.recv() => {
                if shutdown.is_cancelled() {
                    warn!("interrupted while draining");
                    return Ok(ExitCode::FAILURE);
                }
                shutdown.cancel();
            }
            _ = hang_up.recv() => {
                info!(
                    "told to reload: the TLS certificate, the secrets of webhooks and the database of addresses are read again; \
                     other settings need a restart in this version"
                );
                reload_certificate(certificate.clone()).await;
                reload_secrets(Arc::clone(&webhooks)).await;
                routing.refresh_database().await;
            }
        }
    }
}

/// Reads the certificate again now; the watch would do so within half a minute.
async fn reload_certificate(certificate: Option<TlsCertificate>) {
    let Some(certificate) = certificate else { return };
    match tokio::task::spawn_blocking(move || certificate.reload()).await {
        Ok(Ok(Reloaded::Changed)) => info!("the TLS certificate was replaced"),
        Ok(Ok(Reloaded::Unchanged)) => info!("the TLS certificate is the same as before"),
        Ok(Err(error)) => warn!(error = chain(&error), "the TLS certificate cannot be used; the old one is served on"),
        Err(error) => warn!(error = chain(&error), "the TLS certificate was not read"),
    }
}

/// Reads the secrets of every endpoint again. One whose file cannot be used signs on with those that it had.
async fn reload_secrets(webhooks: Arc<Webhooks>) {
    let read = tokio::task::spawn_blocking(move || {
        for endpoint in &webhooks.endpoints {
            match endpoint.reload_secrets() {
                Ok(()) => info!(endpoint = %endpoint.name(), "the secrets of a webhook were read again"),
                Err(error) => {
                    warn!(endpoint = %endpoint.name(), error = chain(&error), "the secrets of a webhook stay as they were");
                }
            }
        }
    });
    if let Err(error) = read.await {
        warn!(error = chain(&error), "the secrets of webhooks were not read");
    }
}
