//! `serve`: the service.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::{self, App, Ended, World};
use crate::config;
use crate::http::gate::Transport;
use crate::model::chain;

/// How long new connections are taken after SIGTERM: a load balancer learns from its probes that it must stop sending.
const NOTICE: Duration = Duration::from_secs(2);

/// How long it takes from SIGTERM to the end of the process, at most: whoever would kill it waits as long as this. It is
/// what the chart adds to `preStopSleepSeconds`.
const LONGEST_END: Duration = Duration::from_secs(35);

const _: () = assert!(
    NOTICE.as_secs() + app::LONGEST_DRAIN.as_secs() < LONGEST_END.as_secs(),
    "a process is killed that still answers"
);

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
/// end other processes, has the configuration and the database of addresses read again.
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
    for remark in config.remarks_on_text() {
        warn!("this may not be meant: {remark}");
    }
    // Before anyone can read that this listens, and send one.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    info!(region = %app.region().name, address = %app.public_addr(), operations = %app.operations_addr(), "listening");

    let shutdown = CancellationToken::new();
    let reloader = app.reloader();
    tokio::spawn({
        let (reloader, stop) = (Arc::clone(&reloader), shutdown.clone());
        async move { reloader.watch(arguments.config, stop).await }
    });
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
            _ = hang_up.recv() => reloader.ask(),
        }
    }
}
