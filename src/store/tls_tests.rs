//! A server behind TLS: trusted by the roots of the system or those that are named, and not otherwise.
//!
//! Those of the system may also be in the file that `SSL_CERT_FILE` names. A process cannot safely change its own
//! environment, so the test runs itself once more in a process that has the variable.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::seal::tests::key_file;
use super::testing::*;
use super::*;

/// The child finds the address and its key here.
const DIRECTORY: &str = "UPLOAD_BROKER_TEST_TLS";

struct TlsServer {
    process: Process,
    port: u16,
}

impl TlsServer {
    /// Starts one on a free port, which somebody else may take first.
    fn start(directory: &Path, options: &[&str]) -> Self {
        for _ in 0..5 {
            let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let process = Command::new("redis-server")
                .args(["--port", "0", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
                .args(["--tls-port", &port.to_string()])
                .args(options)
                .args(["--tls-cert-file", "server.pem", "--tls-key-file", "server.key"])
                .args(["--tls-ca-cert-file", "root.pem"])
                .current_dir(directory)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut server = Self { process: Process(process), port };
            for _ in 0..500 {
                if server.process.has_ended() {
                    break;
                }
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return server;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("redis-server does not listen");
    }
}

/// Writes a root and a certificate of it for `localhost`, which serves both sides.
fn certify(directory: &Path) {
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "root of a test");
    let root_key = rcgen::KeyPair::generate().unwrap();
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    for (name, text) in
        [("root.pem", root_certificate.pem()), ("server.pem", certificate.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(directory.join(name), text).unwrap();
    }
}

/// Whether this `redis-server` knows TLS; continuous integration must have one that does.
fn is_supported() -> bool {
    let asked = Command::new("redis-server").args(["--port", "0", "--tls-port", "0", "--save", "", "--bogus"]).output();
    let is_supported = asked.is_ok_and(|asked| {
        let said = [asked.stdout, asked.stderr].concat();
        !String::from_utf8_lossy(&said).contains("'tls-port")
    });
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    let must_run = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(is_supported || !must_run, "redis-server is not installed, or is without TLS");
    is_supported
}

async fn open(directory: &Path, host: &str, port: u16) -> Store {
    Store::open(&settings(directory, &format!("rediss://{host}:{port}")), Randomness::System).await.unwrap()
}

fn settings(directory: &Path, url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        tls: None,
        trusted_ca: None,
        key_prefix: "t".to_owned(),
        encryption_keys: vec![key_file(directory, "k1", 1)],
    }
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_told() {
    if !is_supported() {
        return;
    }
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certify(directory.path());
    certify(elsewhere.path());
    let users = ["--user", "default", "off", "--user", "ada", "on", ">s3cret/", "~*", "&*", "+@all"];
    let options = [["--tls-auth-clients", "yes"].as_slice(), &users].concat();
    let server = TlsServer::start(directory.path(), &options);
    let (host, in_own) = (format!("localhost:{}", server.port), |name: &str| Some(directory.path().join(name)));
    let ada = format!("rediss://ada:s3cret%2F@{host}");
    let known = || TlsSettings { ca: in_own("root.pem"), certificate: in_own("server.pem"), key: in_own("server.key") };
    let foreign_ca = || Some(elsewhere.path().join("root.pem"));
    for (name, url, tls, trusted_ca, serves) in [
        ("all that is asked", ada.clone(), known(), None, true),
        ("trusted by the top level", ada.clone(), TlsSettings { ca: None, ..known() }, in_own("root.pem"), true),
        (
            "only its own authority counts",
            ada.clone(),
            TlsSettings { ca: foreign_ca(), ..known() },
            in_own("root.pem"),
            false,
        ),
        ("no authority", ada.clone(), TlsSettings { ca: None, ..known() }, None, false),
        ("no certificate", ada.clone(), TlsSettings { certificate: None, key: None, ..known() }, None, false),
        ("another's password", format!("rediss://ada:other@{host}"), known(), None, false),
        ("nobody", format!("rediss://{host}"), known(), None, false),
    ] {
        let settings = Settings { tls: Some(tls), trusted_ca, ..settings(directory.path(), &url) };
        let answer = Store::open(&settings, Randomness::System).await.unwrap().ping().await;
        assert_eq!(answer.is_ok(), serves, "{name}: {answer:?}");
        assert!(!format!("{settings:?} {answer:?}").contains("s3cret"), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn files_that_make_no_tls_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let file = |name: &str| Some(directory.path().join(name));
    let (pem, key) = (|| file("server.pem"), || file("server.key"));
    for (name, url, tls, expected) in [
        (
            "not behind TLS",
            "redis://a",
            TlsSettings { ca: file("root.pem"), ..TlsSettings::default() },
            "begin with rediss",
        ),
        ("no key", "rediss://a", TlsSettings { certificate: pem(), ..TlsSettings::default() }, "go together"),
        ("no file", "rediss://a", TlsSettings { ca: file("none"), ..TlsSettings::default() }, "cannot be read"),
        ("no authority", "rediss://a", TlsSettings { ca: key(), ..TlsSettings::default() }, "holds no certificate"),
        (
            "no chain",
            "rediss+cluster://a",
            TlsSettings { ca: None, certificate: key(), key: key() },
            "holds no certificate",
        ),
        (
            "no key in it",
            "rediss+sentinel://a/m",
            TlsSettings { ca: None, certificate: pem(), key: pem() },
            "cannot be used",
        ),
    ] {
        let settings = Settings { tls: Some(tls), ..settings(directory.path(), url) };
        let refusal = Store::open(&settings, Randomness::System).await.err().map(|error| error.to_string());
        assert!(refusal.as_ref().is_some_and(|refusal| refusal.contains(expected)), "{name}: {refusal:?}");
    }
}

#[tokio::test]
async fn a_server_behind_tls_serves_whoever_trusts_it() {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    if let Ok(address) = std::env::var(DIRECTORY) {
        let (port, directory) = address.split_once(' ').unwrap();
        return trusting(Path::new(directory), port.parse().unwrap()).await;
    }
    if !is_supported() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let server = TlsServer::start(directory.path(), &["--tls-auth-clients", "no"]);
    let stranger = open(directory.path(), "localhost", server.port).await.ping().await;
    assert!(matches!(stranger, Err(Error::Unavailable(_))), "trusted without its root: {stranger:?}");

    let trusting = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tls_tests::a_server_behind_tls_serves_whoever_trusts_it"])
        .env("SSL_CERT_FILE", directory.path().join("root.pem"))
        .env(DIRECTORY, format!("{} {}", server.port, directory.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&trusting.stdout);
    assert!(trusting.status.success() && said.contains("1 passed"), "{said}");
}

/// In the process that has the root.
async fn trusting(directory: &Path, port: u16) {
    let store = open(directory, "localhost", port).await;
    let upload = intent_of(user(1), 1, NOW);
    let tracked = store.create(&plain(&upload, limits(Some(1), None, None))).await;
    assert_eq!(store.find(upload.id).await.unwrap(), Some(tracked));
    // The certificate is for another name.
    let misnamed = open(directory, "127.0.0.1", port).await.ping().await;
    assert!(matches!(misnamed, Err(Error::Unavailable(_))), "{misnamed:?}");
}
