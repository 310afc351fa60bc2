//! The commands, as people and scripts use them.

use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::support::Settings;
use crate::support::broker::configuration;
use crate::support::process::{Process, command};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command().args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_explains_itself() {
    let folder = TempDir::new().unwrap();
    for name in ["serve", "demo", "upload", "check", "emulator", "token", "openapi", "healthcheck"] {
        let output = run(folder.path(), &[name, "--help"]);
        assert!(output.status.success(), "{name}");
        assert!(text(&output.stdout).contains("Usage: upload-broker"), "{name}");
    }
}

#[test]
fn what_cannot_be_used_is_one_clear_message_and_exit_2() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("typo.toml"), "region = \"europe-west1\"\n\n[server]\nlisten_on = \"x\"\n")
        .unwrap();
    for (name, arguments, message) in [
        ("an unknown flag", &["serve", "--port", "1"][..], "--port"),
        ("no configuration", &["serve"], "--config"),
        ("a configuration that is not there", &["check", "--config", "none.toml"], "none.toml"),
        ("an unknown key", &["check", "--config", "typo.toml"], "typo.toml:4"),
        ("an unknown key, served", &["serve", "--config", "typo.toml"], "typo.toml:4"),
        ("a bad log filter", &["check", "--config", "typo.toml", "--log", "a=b=c"], "RUST_LOG"),
        ("a token without a subject", &["token", "--key", "k.pem"], "--subject"),
        ("a claim without a value", &["token", "--key", "k.pem", "--subject", "a", "--claim", "x"], "name=value"),
        ("a bucket that cannot be", &["emulator", "--bucket", "A"], "bucket"),
        ("more regions than there are", &["demo", "--regions", "4"], "--regions"),
        ("a country that is none", &["demo", "--country", "XX"], "country code"),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(message), "{name}: {}", text(&output.stderr));
    }
}

#[test]
fn a_mistake_is_told_with_its_cause() {
    let folder = TempDir::new().unwrap();
    let config = configuration(folder.path(), "http://127.0.0.1:1", &Settings::default());
    std::fs::write(folder.path().join("broker.toml"), config.replace("memory", "redis://127.0.0.1:1")).unwrap();
    std::fs::remove_file(folder.path().join("session.key")).unwrap();
    for name in ["check", "serve"] {
        let output = run(folder.path(), &[name, "--config", "broker.toml"]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let told = text(&output.stderr);
        assert!(told.contains("cannot be read: No such file"), "{name}: {told}");
    }
}

#[test]
fn sighup_reloads_and_ends_nothing() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("broker.toml");
    let secrets = folder.path().join("webhook.secret");
    let secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";
    std::fs::write(&secrets, secret).unwrap();
    let webhook = "\n[[webhooks]]\nurl = \"http://127.0.0.1:1/\"\nname = \"backend\"\n\
        secret_file = \"webhook.secret\"\nallow_private_addresses = true\n";
    let text = configuration(folder.path(), "http://127.0.0.1:1", &Settings::default()) + webhook;
    std::fs::write(&config, text).unwrap();
    let (mut broker, ..) = Process::serve(&config, "info");
    broker.signal("HUP");
    broker.line_with("other settings need a restart");
    broker.line_with("the secrets of a webhook were read again");
    std::fs::write(&secrets, "whsec_").unwrap();
    broker.signal("HUP");
    broker.line_with("the secrets of a webhook stay as they were");
    broker.signal("TERM");
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.printed());
}

#[test]
fn a_token_is_made_with_a_new_key_and_kept_from_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let key_set = run(folder.path(), &["token", "--key", "issuer.pem", "--jwks"]);
    let key_set: serde_json::Value = serde_json::from_slice(&key_set.stdout).unwrap();
    assert_eq!(key_set["keys"][0]["kty"], "EC");
    let mode = std::fs::metadata(folder.path().join("issuer.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token =
        run(folder.path(), &["token", "--key", "issuer.pem", "--subject", "ada", "--claim", "roles=[\"creator\"]"]);
    let token = text(&token.stdout);
    assert_eq!(token.trim().split('.').count(), 3);
    let again = run(folder.path(), &["token", "--key", "issuer.pem", "--jwks"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&again.stdout).unwrap(), key_set, "the key is kept");
}

#[test]
fn healthcheck_fails_where_nothing_listens() {
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), &["healthcheck", "http://127.0.0.1:1/readyz"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_demo_uploads_its_samples_and_leaves() {
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), &["demo", "--exit", "--port", "0"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    let columns = ["sample", "transfer", "policy", "object", "bytes", "chunks", "resumes", "renewals", "state", "ms"];
    let rows = rows(&printed, &columns);
    let some = 1..=u64::MAX;
    for (row, (sample, transfer, policy, bytes, resumes, renewals, state)) in rows.iter().zip([
        ("a small file", "resumable", "notes", 1_500, 0..=0, 0, "completed"),
        ("one signed PUT", "simple", "notes", 1_500, 0..=0, 0, "completed"),
        ("a session that the client opens", "signed_resumable", "notes", 3 << 20, 0..=0, 0, "completed"),
        ("the connection is cut", "resumable", "videos", 6 << 20, some.clone(), 0, "completed"),
        ("storage forgets the session", "resumable", "videos", 6 << 20, 0..=u64::MAX, 1, "completed"),
        ("the client dies, and is started again", "resumable", "videos", 12 << 20, some, 0, "completed"),
        ("a pipe, of a size that nobody knows", "resumable", "streams", 3_500_000, 0..=0, 0, "completed"),
        ("a pipe with more than is allowed", "resumable", "streams", 5 << 20, 0..=0, 0, "rejected (size-limit)"),
    ]) {
        let number = |column: usize| row[column].parse::<u64>().unwrap();
        assert_eq!((row[0], row[1], row[2], row[8]), (sample, transfer, policy, state), "{printed}");
        assert!(row[3].starts_with(policy), "{printed}");
        assert_eq!((number(4), number(7)), (bytes, renewals), "{printed}");
        assert!(number(5) >= 1 && resumes.contains(&number(6)), "{printed}");
        number(9);
    }
    assert_eq!(rows.len(), 8, "{printed}");
    // What was persisted before the client died was not sent again by the second run.
    assert!(rows[5][5].parse::<u64>().unwrap() < 12, "{printed}");

    // Five clients: where each was sent, and how long it took there and to the farthest region.
    let columns = ["client", "sent to", "km", "rtt ms", "ms", "farthest", "km", "rtt ms", "ms", "times"];
    let rows = self::rows(&printed, &columns);
    let number = |row: &[&str], column: usize| row[column].parse::<f64>().unwrap();
    let (eu, us, asia) = ("europe-west1", "us-central1", "asia-northeast1");
    for (row, (client, nearest, farthest)) in rows.iter().zip([
        ("Germany", eu, asia),
        ("Brazil", us, asia),
        ("Japan", asia, us),
        ("South Africa", eu, us),
        ("Australia", asia, eu),
    ]) {
        assert_eq!((row[0], row[1], row[5]), (client, nearest, farthest), "{printed}");
        assert!(number(row, 2) < number(row, 6) && number(row, 3) < number(row, 7), "{printed}");
        // At least the round trips of the handshakes and of a request for each chunk.
        assert!(number(row, 4) > 8.0 * number(row, 3) && number(row, 8) > 8.0 * number(row, 7), "{printed}");
        assert!((number(row, 8) / number(row, 4) - number(row, 9)).abs() < 0.1, "{printed}");
    }
    assert_eq!(rows.len(), 5, "{printed}");
}

/// The rows of the table with these columns.
fn rows<'a>(printed: &'a str, columns: &[&str]) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>();
    let mut lines = printed.lines().map(cells);
    assert!(lines.any(|line| line == columns), "no such table in {printed}");
    lines.take_while(|line| !line.is_empty()).collect()
}

#[test]
fn a_demo_of_one_region_has_no_distance_to_show() {
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), &["demo", "--exit", "--port", "0", "--regions", "1", "--country", "au"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    assert!(printed.starts_with("sample") && !printed.contains("farthest"), "{printed}");
}
