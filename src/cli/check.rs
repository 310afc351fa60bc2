//! `check`: is this configuration one that `serve` would take?

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, World};
use crate::config;
use crate::http::gate::Transport;
use crate::model::chain;

/// Validate a configuration
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Names every mistake with its file, key and line, and warns of what may not be meant.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match config::load_file(&arguments.config) {
        Ok(config) => config,
        Err(errors) => {
            super::tell(&errors.to_string());
            return Ok(ExitCode::from(super::UNUSABLE));
        }
    };
    for remark in config.remarks() {
        super::tell(&format!("warning: {remark}"));
    }
    let mistakes = app::mistakes(&config, &World::of_this_process(Transport::HttpsOnly)).await;
    if !mistakes.is_empty() {
        for mistake in mistakes {
            super::tell(&chain(&mistake));
        }
        return Ok(ExitCode::from(super::UNUSABLE));
    }
    super::print(&format!(
        "{}: region {}, {} issuer(s), {} policies, {} region(s): nothing wrong\n",
        arguments.config.display(),
        config.region,
        config.issuers.len(),
        config.policies.len(),
        config.regions.len(),
    ))?;
    Ok(ExitCode::SUCCESS)
}
