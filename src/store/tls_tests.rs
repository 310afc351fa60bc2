//! A server behind TLS: trusted by the roots of the system, and not otherwise.
//!
//! Roots are those of the system, or of the file that `SSL_CERT_FILE` names. A process cannot safely change its own
//! environment, so the test runs itself once more in a process that has the variable.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::seal::tests::key_file;
use super::testing::*;
use super::*;

/// The child finds the address and its key here.
const DIRECTORY: &str = "UPLOAD_BROKER_TEST_TLS";

struct TlsServer {
    process: Child,
    port: u16,
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl TlsServer {
    /// Starts one on a free port, which somebody else may take first.
    fn start(directory: &Path) -> Self {
        for _ in 0..5 {
            let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let process = Command::new("redis-server")
                .args(["--port", "0", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
                .args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
                .args(["--tls-cert-file", "server.pem", "--tls-key-file", "server.key"])
                .args(["--tls-ca-cert-file", "root.pem"])
                .current_dir(directory)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut server = Self { process, port };
            for _ in 0..500 {
                if server.process.try_wait().unwrap().is_some() {
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

/// Writes a root and a certificate of it for `localhost`.
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
    let settings = Settings {
        url: format!("rediss://{host}:{port}"),
        key_prefix: "t".to_owned(),
        encryption_keys: vec![key_file(directory, "k1", 1)],
    };
    Store::open(&settings, Randomness::System).await.unwrap()
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
    let server = TlsServer::start(directory.path());
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
