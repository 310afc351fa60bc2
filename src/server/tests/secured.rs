//! TLS: handshakes, and certificates that change.

use std::path::PathBuf;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::super::{Reloaded, TlsError, TlsSettings};
use super::*;

/// A directory with a certificate for `localhost` and its key.
struct Files {
    directory: TempDir,
    settings: TlsSettings,
}

/// A fresh certificate and key, in PEM.
fn fresh() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

impl Files {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let settings =
            TlsSettings { certificate: directory.path().join("tls.crt"), key: directory.path().join("tls.key") };
        let this = Self { directory, settings };
        this.replace();
        this
    }

    /// Puts a fresh pair in place, and gives the certificate.
    fn replace(&self) -> CertificateDer<'static> {
        let (certificate, key) = fresh();
        std::fs::write(&self.settings.certificate, &certificate).unwrap();
        std::fs::write(&self.settings.key, key).unwrap();
        CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.settings.certificate).unwrap()
    }

    fn load(&self) -> TlsCertificate {
        TlsCertificate::load(&self.settings).unwrap()
    }
}

/// The certificate that a new handshake gets, if it trusts `expected` only.
async fn handshake(address: SocketAddr, expected: &CertificateDer<'static>) -> Result<(), std::io::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(expected.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.map(drop)
}

fn client(trusted: &CertificateDer<'static>, address: SocketAddr) -> reqwest::ClientBuilder {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_der(trusted).unwrap()])
        .resolve("localhost", address)
}

#[tokio::test]
async fn both_protocols_are_negotiated_over_tls() {
    let files = Files::new();
    let served = Served::start_with(patient(), Some(files.load())).await;
    let url = format!("https://localhost:{}/peer", served.address.port());
    for (name, client, version) in [
        ("HTTP/2", client(&files.certificate(), served.address), axum::http::Version::HTTP_2),
        ("HTTP/1.1", client(&files.certificate(), served.address).http1_only(), axum::http::Version::HTTP_11),
    ] {
        let response = soon(name, client.build().unwrap().get(&url).send()).await.unwrap();
        assert_eq!(response.version(), version, "{name}");
        let text = response.text().await.unwrap();
        assert!(text.starts_with("127.0.0.1:") && text.ends_with(" true"), "{name}: {text}");
    }
}

#[tokio::test]
async fn handshakes_that_do_not_come_are_given_up() {
    let files = Files::new();
    let limits = Limits { tls_handshake_timeout: SOON, ..patient() };
    let served = Served::start_with(limits, Some(files.load())).await;
    assert_eq!(served.connect().await.rest().await, "", "a silent client");
    let mut plain = served.connect().await;
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = soon("the server closes", plain.0.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/"), "plain HTTP is not answered");
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_its_handshake_too() {
    let files = Files::new();
    let limits = Limits { header_timeout: SOON, ..patient() };
    let served = Served::start_with(limits, Some(files.load())).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(files.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the server closes", stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_reload_is_seen_by_new_handshakes_and_a_bad_one_changes_nothing() {
    let files = Files::new();
    let tls = files.load();
    let served = Served::start_with(patient(), Some(tls.clone())).await;
    let first = files.certificate();
    handshake(served.address, &first).await.unwrap();
    assert_eq!(tls.reload().unwrap(), Reloaded::Unchanged);

    let second = files.replace();
    handshake(served.address, &first).await.unwrap();
    assert_eq!(tls.reload().unwrap(), Reloaded::Changed);
    handshake(served.address, &second).await.unwrap();
    assert!(handshake(served.address, &first).await.is_err(), "the old one is gone");

    let (_, stranger) = fresh();
    std::fs::write(&files.settings.key, stranger).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Mismatch { .. })));
    std::fs::remove_file(&files.settings.certificate).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Read { .. })));
    handshake(served.address, &second).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_replaced_through_a_symbolic_link() {
    let files = Files::new();
    // As Kubernetes mounts secrets: the files are links into a directory that is itself a link, and is swapped.
    let at = |name: &str| files.directory.path().join(name);
    let store = |name: &str| -> CertificateDer<'static> {
        std::fs::create_dir(at(name)).unwrap();
        let (certificate, key) = fresh();
        std::fs::write(at(name).join("tls.crt"), &certificate).unwrap();
        std::fs::write(at(name).join("tls.key"), key).unwrap();
        CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()
    };
    let (first, second) = (store("one"), store("two"));
    let link = |target: &str| {
        std::os::unix::fs::symlink(at(target), at("swap")).unwrap();
        std::fs::rename(at("swap"), at("data")).unwrap();
    };
    link("one");
    let settings = TlsSettings { certificate: at("data").join("tls.crt"), key: at("data").join("tls.key") };
    let tls = TlsCertificate::load(&settings).unwrap();
    let served = Served::start_with(patient(), Some(tls.clone())).await;
    handshake(served.address, &first).await.unwrap();

    assert_eq!(tls.reload().unwrap(), Reloaded::Unchanged);
    link("two");
    assert_eq!(tls.reload().unwrap(), Reloaded::Changed);
    handshake(served.address, &second).await.unwrap();
}

#[test]
fn what_cannot_be_served_is_refused_with_the_name_of_its_file() {
    let (certificate, key) = fresh();
    let (_, stranger) = fresh();
    for (name, certificate, key, expected) in [
        ("no certificate file", None, Some(key.as_str()), "tls.crt cannot be read"),
        ("no key file", Some(certificate.as_str()), None, "tls.key cannot be read"),
        ("an empty certificate", Some(""), Some(key.as_str()), "tls.crt holds no certificate in PEM"),
        ("a key in its place", Some(key.as_str()), Some(key.as_str()), "tls.crt holds no certificate in PEM"),
        ("an empty key", Some(certificate.as_str()), Some("s3cret"), "tls.key holds no private key in PEM"),
        ("a key of another", Some(certificate.as_str()), Some(stranger.as_str()), "tls.key does not serve"),
        (
            "a broken certificate",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Some(key.as_str()),
            "does not serve the certificate in",
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let settings =
            TlsSettings { certificate: directory.path().join("tls.crt"), key: directory.path().join("tls.key") };
        for (file, text) in [(&settings.certificate, certificate), (&settings.key, key)] {
            if let Some(text) = text {
                std::fs::write(file, text).unwrap();
            }
        }
        let error = TlsCertificate::load(&settings).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{name}");
    }
    let missing = TlsSettings { certificate: PathBuf::from("/nonexistent"), key: PathBuf::from("/nonexistent") };
    assert!(TlsCertificate::load(&missing).is_err());
}

#[test]
fn the_key_is_not_printed() {
    let files = Files::new();
    assert!(PrivateKeyDer::from_pem_file(&files.settings.key).is_ok());
    let shown = format!("{:?}", files.load());
    assert!(shown.contains("tls.crt") && !shown.contains("PRIVATE"), "{shown}");
}
