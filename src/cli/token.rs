//! `token`: development tokens, and the key set that they can be checked with.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::identity::development::DevelopmentKey;
use crate::model::time::{Span, Timestamp};

/// Make a development token, or print the key set that it can be checked with
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The key, in PEM; made if there is no such file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// Print the key set, for `jwks_file` or an issuer's address, in place of a token
    #[arg(long)]
    jwks: bool,

    /// Whom the token is about
    #[arg(long, value_name = "S", required_unless_present = "jwks")]
    subject: Option<String>,

    /// Who issues it
    #[arg(long, value_name = "URL", default_value = "https://issuer.example")]
    issuer: String,

    /// Whom it is meant for
    #[arg(long, value_name = "NAME", default_value = "upload-broker")]
    audience: String,

    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    lifetime: Span,

    /// Another claim; a value that is JSON is taken as JSON, anything else as text
    #[arg(long = "claim", value_name = "K=V", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a claim has the form name=value")?;
    if name.is_empty() {
        return Err("a claim has the form name=value".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

/// Prints one line: the token, or the key set.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let key = read_or_make(&arguments.key)?;
    if arguments.jwks {
        super::print(&format!("{}\n", key.key_set()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(subject) = &arguments.subject else { bail!("--subject is needed") };
    let token = key.sign(&claims(arguments, subject, Clock::System.now()))?;
    super::print(&format!("{token}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The claims of the token: what was asked for beats what is usual.
fn claims(arguments: &Arguments, subject: &str, now: Timestamp) -> Map<String, Value> {
    let mut claims = Map::from_iter([
        ("iss".to_owned(), Value::from(arguments.issuer.as_str())),
        ("aud".to_owned(), Value::from(arguments.audience.as_str())),
        ("sub".to_owned(), Value::from(subject)),
        ("iat".to_owned(), Value::from(now.as_secs())),
        ("exp".to_owned(), Value::from(now.plus(arguments.lifetime.0).as_secs())),
    ]);
    claims.extend(arguments.claims.iter().cloned());
    claims
}

fn read_or_make(path: &Path) -> anyhow::Result<DevelopmentKey> {
    match std::fs::read_to_string(path) {
        Ok(pem) => {
            DevelopmentKey::from_pem(&pem).with_context(|| format!("{}: is no key of this kind", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = DevelopmentKey::generate()?;
            write_secret(path, key.to_pem().expose())
                .with_context(|| format!("{}: cannot be written", path.display()))?;
            super::tell(&format!("made a new key in {}", path.display()));
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("{}: cannot be read", path.display())),
    }
}

/// Writes a new file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
