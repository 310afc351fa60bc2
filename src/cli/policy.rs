//! `policy test`: would this configuration decide as it is meant to?

mod case;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::app::compile_policies;
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Sections};
use crate::model::chain;
use case::{Case, Judge, Verdict};

/// Try out policies
#[derive(clap::Args)]
pub(super) struct PolicyArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run cases against the policies of a configuration: claims and a request in, a decision out
    #[command(after_long_help = FORMAT)]
    Test(TestArguments),
}

#[derive(clap::Args)]
struct TestArguments {
    /// The cases, in TOML
    #[arg(value_name = "FILE")]
    cases: PathBuf,

    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// How the outcome is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// How the outcome is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A line a case, for people
    Text,
    /// One JSON document, for machines
    Json,
}

const FORMAT: &str = r#"Nothing is asked of the network, and nothing is counted: limits of a principal (max_active, rate,
daily_bytes) are not looked at. Of the issuers' keys nothing is read either; claims are taken for signed.

Each case of the file is a section:

  [[cases]]
  name = "a creator uploads a film"
  claims = { sub = "ada", roles = ["creator"] }
  request = { filename = "holiday.mp4", content_type = "video/mp4", size_bytes = 73400320 }
  expect = "admitted"
  policy = "videos"
  object = "videos/ada/{id}.mp4"

Needed are:
  name      what must hold
  claims    the claims of the token; "iss", "aud", "iat" and "exp" may be left out, "sub" may not
  request   the body of POST /v1/uploads
  expect    "admitted", or the code of the refusal: "unauthenticated", "policy-denied", "policy-violation",
            "invalid-request"

May be left out, and is not looked at then:
  issuer    whose token it is; left out, the "iss" of the claims, or the first of [[issuers]]
  at        when, as in "2026-11-30T12:00:00Z": names of objects can hold the date; left out, now
  policy    by which policy it is admitted
  object    the name of the object, with {id} where the upload's id stands, and {shard} for its first two digits
  regions   the regions that may take it; [] for any
  limits    the limits that are broken, all of them; of a policy with report_only, those that it reports
  admin     whether the caller is an administrator

Exit code: 0 if all cases pass, 1 if one fails, 2 if a file cannot be used."#;

/// Runs the cases.
pub(super) fn run(arguments: &PolicyArguments) -> anyhow::Result<ExitCode> {
    let Command::Test(arguments) = &arguments.command;
    let (config, cases) = (config::load_file(&arguments.config), Sections::load_file(&arguments.cases, "cases"));
    let (config, cases) = match (config, cases) {
        (Ok(config), Ok(cases)) => (config, cases),
        (config, cases) => {
            for errors in [config.err(), cases.err()].into_iter().flatten() {
                super::tell(&errors.to_string());
            }
            return Ok(ExitCode::from(super::UNUSABLE));
        }
    };
    let verdicts = match judge(&config, &cases) {
        Ok(verdicts) => verdicts,
        Err(mistakes) => {
            for mistake in &mistakes {
                super::tell(mistake);
            }
            return Ok(ExitCode::from(super::UNUSABLE));
        }
    };
    let failed = verdicts.iter().filter(|verdict| !verdict.passed()).count();
    let passed = verdicts.len() - failed;
    super::print(&match arguments.format {
        Format::Text => text(&cases, &verdicts, passed, failed),
        Format::Json => {
            let cases = cases.sections.iter().zip(&verdicts).map(|(case, verdict)| verdict.to_json(&case.name));
            let document = json!({"passed": passed, "failed": failed, "cases": cases.collect::<Vec<_>>()});
            format!("{document:#}\n")
        }
    })?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What becomes of each case.
fn judge(config: &Config, cases: &Sections<Case>) -> Result<Vec<Verdict>, Vec<String>> {
    let policies = compile_policies(config).map_err(|mistake| vec![chain(&mistake)])?;
    let judge = Judge { policies: &policies, issuers: &config.issuers, now: Clock::System.now() };
    let mut verdicts = Vec::with_capacity(cases.sections.len());
    let mut mistakes = Vec::new();
    for (index, case) in cases.sections.iter().enumerate() {
        match judge.hear(case) {
            Ok(verdict) => verdicts.push(verdict),
            Err(case::Mistake::Case { key, reason }) => mistakes.push(cases.error(index, key, reason).to_string()),
            Err(case::Mistake::Issuer { position, error }) => {
                let mistake: ConfigError = config.error("issuers", Some(position), error.key, error.reason);
                return Err(vec![mistake.to_string()]);
            }
        }
    }
    if mistakes.is_empty() { Ok(verdicts) } else { Err(mistakes) }
}

fn text(cases: &Sections<Case>, verdicts: &[Verdict], passed: usize, failed: usize) -> String {
    let mut lines = Vec::new();
    for (index, (case, verdict)) in cases.sections.iter().zip(verdicts).enumerate() {
        let word = if verdict.passed() { "ok    " } else { "FAILED" };
        lines.push(format!("{word}  {}: {}", case.name, verdict.decision));
        let location = cases.locate(index, "name");
        lines.extend(verdict.differences.iter().map(|difference| format!("        {location}: {difference}")));
    }
    lines.push(format!("{passed} passed, {failed} failed\n"));
    lines.join("\n")
}
