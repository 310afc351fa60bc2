//! `check`: is this configuration one that `serve` would take, and is what it names there?

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, World};
use crate::config::{self, Config};
use crate::http::gate::Transport;
use crate::live;
use crate::live::report::{Report, Row, Status};
use crate::model::chain;

/// Validate a configuration
///
/// Names every mistake with its file, key and line, without asking the network for anything. With --live, also asks
/// whatever the configuration names, changes nothing, and tells what it found and what to do about it; that takes less
/// than 20 seconds, whoever does not answer.
///
/// The exit code is 0 when nothing failed (there may be warnings), 1 when a check failed, and 2 when the configuration
/// cannot be used.
#[derive(clap::Args)]
#[command(after_long_help = CHECKS)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Also ask storage, Redis, issuers, receivers and the other regions
    #[arg(long)]
    live: bool,

    /// How the result is printed, to standard output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const CHECKS: &str = "\
Checks of --live, by the names that they have in the result:
  instance       whether the metadata server says that this machine is in the configured region
  regions        whether the names of [[regions]] are known
  credentials    whether there is a token for storage, and whose
  clock          whether this machine's clock is that of storage
  location       whether the bucket is where the region is
  permissions    whether objects can be created, read and deleted in the bucket
  cors           whether the bucket lets the allowed origins in, where transfers need that
  retention      what becomes of objects that are deleted
  notifications  whether the bucket tells of new objects, where [notifications] is set
  signing        whether URLs can be signed, and by whom, where a policy needs that
  store          whether Redis can be reached, and is set up so that nothing is forgotten
  issuer         whether the keys of each issuer can be had
  push issuer    whether those of [notifications] can
  webhook        whether each receiver takes connections; nothing is sent
  broker         whether the broker of each other region answers
  certificate    whether it is good for a while, and for the public name

A row of --format json has name, subject, status (ok, warning, failed, skipped), found and, where there is something to
do, remedy. The status of all is the worst of them: {\"status\": \"...\", \"checks\": [...]}.";

/// How the result is printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table for people
    Text,
    /// One JSON object, for programs
    Json,
}

/// What the configuration itself is called among the checks.
const CONFIGURATION: &str = "configuration";

/// What to do about what may not be meant.
const IF_NOT_MEANT: &str = "change it, unless it is meant";

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match config::load_file(&arguments.config) {
        Ok(config) => config,
        Err(errors) => return unusable(arguments, errors.iter().map(ToString::to_string).collect()),
    };
    let world = World::of_this_process(Transport::HttpsOnly);
    let remarks = config.remarks();
    let mistakes = app::mistakes(&config, &world).await;
    if !mistakes.is_empty() {
        return unusable(arguments, mistakes.iter().map(|mistake| chain(mistake)).collect());
    }
    let file = arguments.config.display().to_string();
    let mut rows = vec![Row::ok(CONFIGURATION, &file, summary(&config))];
    rows.extend(remarks.iter().map(|remark| Row::warning(CONFIGURATION, &file, remark.to_string(), IF_NOT_MEANT)));
    if arguments.live {
        let subject = match app::live_subject(&config, &world).await {
            Ok(subject) => subject,
            Err(mistake) => return unusable(arguments, vec![chain(&mistake)]),
        };
        rows.extend(Box::pin(live::check(&subject)).await.checks);
    }
    let report = Report::new(rows);
    match arguments.format {
        Format::Json => super::print(&(serde_json::to_string_pretty(&report)? + "\n"))?,
        Format::Text if arguments.live => super::print(&report.table())?,
        Format::Text => {
            for remark in &remarks {
                super::tell(&format!("warning: {remark}"));
            }
            super::print(&format!("{file}: {}: nothing wrong\n", summary(&config)))?;
        }
    }
    Ok(if report.status == Status::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn summary(config: &Config) -> String {
    format!(
        "region {}, {} issuer(s), {} policies, {} region(s)",
        config.region.as_str(),
        config.issuers.len(),
        config.policies.len(),
        config.regions.len(),
    )
}

/// Tells the mistakes to people, and to programs that wait for a result.
fn unusable(arguments: &Arguments, mistakes: Vec<String>) -> anyhow::Result<ExitCode> {
    for mistake in &mistakes {
        super::tell(mistake);
    }
    if arguments.format == Format::Json {
        let file = arguments.config.display().to_string();
        let row = |mistake| Row::failed(CONFIGURATION, &file, mistake, "correct the configuration");
        let report = Report::new(mistakes.into_iter().map(row).collect());
        super::print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    Ok(ExitCode::from(super::UNUSABLE))
}
