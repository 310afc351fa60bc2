//! `emulator`: the storage stand-in alone, for other people's tests.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{Clock, Randomness};
use crate::emulator::{BucketSettings, Emulator, Settings};
use crate::model::name::BucketName;

/// Run the storage stand-in alone, for tests
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The port, on the loopback address; 0 takes a free one
    #[arg(long, default_value_t = 9023)]
    port: u16,

    /// A bucket to begin with; may be given several times
    #[arg(long = "bucket", value_name = "NAME", default_value = "media")]
    buckets: Vec<BucketName>,

    /// Where the buckets say that they are
    #[arg(long, value_name = "REGION", default_value = "europe-west1")]
    location: String,
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let listen = SocketAddr::from(([127, 0, 0, 1], arguments.port));
    let buckets = arguments.buckets.into_iter();
    let settings = Settings {
        listen,
        buckets: buckets
            .map(|name| BucketSettings { name: name.to_string(), location: arguments.location.clone() })
            .collect(),
        clock: Clock::System,
        randomness: Randomness::System,
        ..Settings::default()
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let emulator = Emulator::start(settings).await.with_context(|| format!("cannot listen on {listen}"))?;
    super::print(&format!("storage emulator: {}\n", emulator.url()))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    emulator.stop().await;
    Ok(ExitCode::SUCCESS)
}
