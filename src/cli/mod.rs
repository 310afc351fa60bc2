//! The command line: one file a command. The only place that prints.

mod check;
#[cfg(feature = "demo")]
mod demo;
#[cfg(feature = "demo")]
mod emulator;
mod healthcheck;
mod openapi;
mod policy;
mod serve;
mod token;
mod upload;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{self, LogFormat};

/// What a command gives that cannot begin: a bad flag, or a bad configuration.
const UNUSABLE: u8 = 2;

/// Hands out resumable upload sessions of Google Cloud Storage.
#[derive(Parser)]
#[command(version, about, long_about = None, propagate_version = true, max_term_width = 100)]
struct Arguments {
    /// How log lines are written, to standard error
    #[arg(long, global = true, value_enum, default_value = "json")]
    log_format: LogFormat,

    /// Which log lines are written, as in `info,upload_broker=debug`
    #[arg(long, global = true, env = "RUST_LOG", default_value = "", hide_default_value = true, value_name = "FILTER")]
    log: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Arguments),
    /// Run everything embedded, upload samples, show what happened, and serve
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    /// Upload files: hash, send, resume, wait for the final state
    Upload(upload::UploadArguments),
    /// Validate a configuration
    Check(check::Arguments),
    /// Try out policies
    Policy(policy::PolicyArguments),
    /// Run the storage stand-in alone, for tests
    #[cfg(feature = "demo")]
    Emulator(emulator::Arguments),
    /// Make a development token, or print the key set that it can be checked with
    Token(token::Arguments),
    /// Print the OpenAPI document
    Openapi,
    /// Ask a running service whether it is ready
    Healthcheck(healthcheck::HealthcheckArguments),
}

impl Command {
    /// Which log lines are written where nobody has said.
    fn usual_log(&self) -> &'static str {
        match self {
            // Its tables are for people, and would be lost among the lines of three brokers.
            #[cfg(feature = "demo")]
            Self::Demo(_) => "warn,upload_broker::audit=off",
            _ => "",
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The one cryptographic provider, whoever asks for a default.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tell("a cryptographic provider is installed already");
    }
    let log = if arguments.log.is_empty() { arguments.command.usual_log() } else { &arguments.log };
    if let Err(error) = telemetry::init(arguments.log_format, Some(log)) {
        tell(&format!("{error:#}"));
        return ExitCode::from(UNUSABLE);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&format!("the runtime cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Serve(arguments) => serve::run(arguments).await,
            #[cfg(feature = "demo")]
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Upload(arguments) => upload::run(arguments).await,
            Command::Check(arguments) => check::run(&arguments).await,
            #[cfg(feature = "demo")]
            Command::Emulator(arguments) => emulator::run(arguments).await,
            Command::Policy(arguments) => policy::run(&arguments),
            Command::Token(arguments) => token::run(&arguments),
            Command::Openapi => openapi::run(),
            Command::Healthcheck(arguments) => healthcheck::run(arguments).await,
        }
    });
    // Threads that still read a file or a pipe must not keep a finished command.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        tell(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Prints a line for people to standard error.
fn tell(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "upload-broker: {line}");
}

/// Prints `text` to standard output, as it is.
///
/// # Errors
/// When standard output is closed.
fn print(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
