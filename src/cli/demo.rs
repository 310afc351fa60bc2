//! `demo`: everything embedded.

use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Randomness;
use crate::demo::{CAPTION, Demo, Journey, Row, Settings, table, tour_table};
use crate::geo::Country;

/// Run several regions embedded, upload samples, show what happened, and serve
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The port of the page, on the loopback address; 0 takes a free one. All else is wherever there is room
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// How many regions there are: europe-west1, us-central1, asia-northeast1
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    regions: u8,

    /// The country that the client is in at first, by its code (ISO 3166-1 alpha-2); the page can change it
    #[arg(long, value_name = "CC", default_value = "DE")]
    country: Country,

    /// Leave when the tables are printed
    #[arg(long)]
    exit: bool,
}

/// Succeeds if every sample ended as it should.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Who closes the terminal leaves no key behind either.
    let mut hangup = signal(SignalKind::hangup())?;
    let folder = SampleFolder::make()?;
    let mut stopped = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    let settings = Settings {
        port: arguments.port,
        regions: arguments.regions.into(),
        country: arguments.country,
        folder: &folder.0,
    };
    let demo = Demo::start(settings).await?;
    let shown = tokio::select! {
        biased;
        () = &mut stopped => {
            demo.stop().await;
            return Ok(ExitCode::FAILURE);
        }
        shown = show(&demo, &folder.0) => shown,
    };
    let good = shown?;
    if !arguments.exit {
        super::print(&places(&demo))?;
        stopped.await;
    }
    demo.stop().await;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Uploads the samples and makes the tour, and says how they went: whether as they should.
async fn show(demo: &Demo, folder: &Path) -> anyhow::Result<bool> {
    let rows = demo.upload_samples(folder).await?;
    super::print(&table(&rows))?;
    let journeys = demo.tour(folder).await?;
    if !journeys.is_empty() {
        super::print(&format!("\n{CAPTION}\n{}", tour_table(&journeys)))?;
    }
    Ok(rows.iter().all(Row::is_good) && journeys.iter().all(Journey::is_good))
}

/// Where everything is.
fn places(demo: &Demo) -> String {
    let page = demo.page();
    let mut text = format!("\nA page to upload from:  {page}\nA token:                curl '{page}/token?sub=ada'\n");
    for (((region, broker), operations), storage) in demo.brokers().zip(demo.operations()).zip(demo.storages()) {
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            "\n{region}\n  the broker:           {broker} (its interface: {broker}/docs)\n  \
             for operators:        {operations}/metrics\n  storage:              {storage}\n",
            storage = storage.url(),
        );
    }
    text.push_str("\nCtrl-C ends it.\n");
    text
}

/// A folder for the samples and the key, gone with the demo, and closed to others.
struct SampleFolder(std::path::PathBuf);

impl SampleFolder {
    fn make() -> std::io::Result<Self> {
        let random: [u8; 8] = Randomness::System.bytes();
        let folder = std::env::temp_dir().join(format!("upload-broker-demo-{:016x}", u64::from_le_bytes(random)));
        // Fails where something has that name already: in a shared folder it could be anybody's.
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for SampleFolder {
    fn drop(&mut self) {
        // What stays in the temporary folder is the system's to clear.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
