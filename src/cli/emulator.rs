//! `emulator`: the storage stand-in alone, for other people's tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{Clock, Randomness};
use crate::emulator::{BucketSettings, Emulator, Settings, SubscriptionSettings};
use crate::model::address::UpstreamUrl;
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

    /// The two regions of a configurable dual-region in --location, or the zone of buckets in one zone
    #[arg(long, value_name = "REGION,REGION", value_delimiter = ',')]
    placement: Vec<String>,

    /// Where to write the key of the stand-in's own service account, as `GOOGLE_APPLICATION_CREDENTIALS` wants it
    #[arg(long, value_name = "FILE")]
    service_account: Option<PathBuf>,

    /// A service account whose signed URLs are accepted as well, with its public key; may be given several times
    #[arg(long = "signer", value_name = "EMAIL=PUBLIC_KEY.pem", value_parser = signer)]
    signers: Vec<(String, PathBuf)>,

    #[command(flatten)]
    push: Push,
}

/// The one subscription of the command line.
#[derive(clap::Args)]
struct Push {
    /// Where to push a Pub/Sub message for each change of an object: https, or http to loopback. Pushes are repeated
    /// until they are acknowledged. The keys of their tokens are at /oauth2/v3/certs; the issuer is the stand-in
    #[arg(id = "push_endpoint", long = "push-endpoint", value_name = "URL")]
    endpoint: Option<UpstreamUrl>,

    /// Whom the tokens of the pushes are for; left out, the endpoint
    #[arg(id = "push_audience", long = "push-audience", value_name = "AUDIENCE", requires = "push_endpoint")]
    audience: Option<String>,

    /// Whose tokens the pushes bear; left out, they bear none
    #[arg(
        id = "push_service_account",
        long = "push-service-account",
        value_name = "EMAIL",
        requires = "push_endpoint"
    )]
    service_account: Option<String>,

    /// The certificates that pushes trust instead of those of the system
    #[arg(id = "push_ca", long = "push-ca", value_name = "FILE.pem", requires = "push_endpoint")]
    ca: Option<PathBuf>,
}

impl Push {
    fn subscription(self) -> Option<SubscriptionSettings> {
        Some(SubscriptionSettings {
            audience: self.audience,
            service_account: self.service_account,
            ca: self.ca,
            ..SubscriptionSettings::to(self.endpoint?.to_string())
        })
    }
}

fn signer(text: &str) -> Result<(String, PathBuf), &'static str> {
    match text.split_once('=') {
        Some((email, file)) if email.contains('@') && !file.is_empty() => Ok((email.to_owned(), file.into())),
        _ => Err("expected an e-mail address and the file of a public key, with = between them"),
    }
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let listen = SocketAddr::from(([127, 0, 0, 1], arguments.port));
    let subscriptions = arguments.push.subscription().into_iter().collect();
    let buckets = arguments.buckets.into_iter();
    let mut signers = BTreeMap::new();
    for (email, file) in arguments.signers {
        let key = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        signers.insert(email, key);
    }
    let settings = Settings {
        listen,
        subscriptions,
        buckets: buckets
            .map(|name| BucketSettings {
                name: name.to_string(),
                location: arguments.location.clone(),
                placement: arguments.placement.clone(),
                ..BucketSettings::default()
            })
            .collect(),
        signers,
        clock: Clock::System,
        randomness: Randomness::System,
        ..Settings::default()
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let emulator = Emulator::start(settings).await.with_context(|| format!("cannot serve on {listen}"))?;
    if let Some(file) = arguments.service_account {
        let key = emulator.service_account_key()?;
        write_secret(&file, &key).with_context(|| format!("cannot write {}", file.display()))?;
    }
    super::print(&format!("storage emulator: {}\n", emulator.url()))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    emulator.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that no one else may read, also where one was there before that others might.
fn write_secret(file: &Path, text: &str) -> std::io::Result<()> {
    match fs::symlink_metadata(file) {
        // A device or a pipe is not for this process to remove, and what a link leads to is not to be guessed.
        Ok(found) if !found.is_file() => return Err(Error::other("something that is not a file is there")),
        Ok(_) => fs::remove_file(file)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_for_its_owner_alone_whatever_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.json");
        for text in ["first", "second"] {
            write_secret(&file, text).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        assert!(write_secret(&folder.path().join("none/key.json"), "x").is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for other in [link.as_path(), folder.path()] {
            assert!(write_secret(other, "x").is_err(), "{}", other.display());
            assert!(fs::symlink_metadata(other).is_ok(), "{} is still there", other.display());
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn subscription(options: &[&str]) -> Result<Option<SubscriptionSettings>, clap::error::ErrorKind> {
        let line = Line::try_parse_from([&["emulator"], options].concat());
        line.map(|line| line.arguments.push.subscription()).map_err(|error| error.kind())
    }

    #[test]
    fn the_push_options_make_one_subscription() {
        use clap::error::ErrorKind;
        assert_eq!(subscription(&[]), Ok(None));
        let endpoint = "https://localhost:8443/v1/notifications/storage";
        let push_endpoint = ["--push-endpoint", endpoint];
        assert_eq!(subscription(&push_endpoint), Ok(Some(SubscriptionSettings::to(endpoint))));
        let options = ["--push-audience", "a", "--push-service-account", "p@acme.example", "--push-ca", "ca.pem"];
        let all = SubscriptionSettings {
            audience: Some("a".into()),
            service_account: Some("p@acme.example".into()),
            ca: Some("ca.pem".into()),
            ..SubscriptionSettings::to(endpoint)
        };
        assert_eq!(subscription(&[&push_endpoint[..], &options].concat()), Ok(Some(all)));
        for pair in options.chunks(2) {
            assert_eq!(subscription(pair), Err(ErrorKind::MissingRequiredArgument), "{pair:?} alone");
        }
        let plain = subscription(&["--push-endpoint", "http://example.com/push"]);
        assert_eq!(plain, Err(ErrorKind::ValueValidation));
    }

    #[test]
    fn a_signer_is_an_address_and_a_file() {
        let expected = ("a@b.example".to_owned(), PathBuf::from("keys/a=b.pem"));
        assert_eq!(signer("a@b.example=keys/a=b.pem"), Ok(expected));
        for wrong in ["a@b.example", "a@b.example=", "keys/a.pem", "nobody=keys/a.pem"] {
            assert!(signer(wrong).is_err(), "{wrong}");
        }
    }
}
