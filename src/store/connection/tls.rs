//! Whom `rediss…` trusts, and who we are there.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};

use super::super::error::{Cause, OpenError};
use super::super::settings::{Settings, TlsSettings};

/// The certificates for servers behind TLS; `None` for those of the system, and no name of our own.
pub(in super::super) async fn load(settings: &Settings) -> Result<Option<TlsCertificates>, OpenError> {
    if settings.tls.is_some() && !settings.url.starts_with("rediss") {
        return Err(OpenError::TlsUnused);
    }
    let TlsSettings { ca, certificate, key } = settings.tls.clone().unwrap_or_default();
    let root_cert = match (&ca, &settings.trusted_ca) {
        (Some(path), _) => Some(read_certificates(path).await?),
        (None, Some(path)) => {
            let mut roots = of_the_system();
            roots.extend(read_certificates(path).await?);
            Some(roots)
        }
        (None, None) => None,
    };
    let client_tls = match (&certificate, &key) {
        (Some(certificate), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read_certificates(certificate).await?, client_key: read(key).await? })
        }
        (None, None) => None,
        _ => return Err(OpenError::TlsPair),
    };
    let is_needed = root_cert.is_some() || client_tls.is_some();
    Ok(is_needed.then_some(TlsCertificates { client_tls, root_cert }))
}

/// The same address, reached with `certificates`; one without TLS as it is.
pub(super) fn with(info: ConnectionInfo, certificates: &TlsCertificates) -> Result<ConnectionInfo, OpenError> {
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Ok(info);
    }
    let refused = |error: redis::RedisError| OpenError::Tls(Cause::from(&error));
    let client = Client::build_with_tls(info, certificates.clone()).map_err(refused)?;
    Ok(client.get_connection_info().clone())
}

/// The roots of the system: the client takes either those or what it is given.
fn of_the_system() -> Vec<u8> {
    let mut pem = Vec::new();
    for root in rustls_native_certs::load_native_certs().certs {
        pem.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(&root).as_bytes().chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    }
    pem
}

/// Reads a file that must hold a certificate: of an empty one the client would trust nobody, and not say so.
async fn read_certificates(path: &Path) -> Result<Vec<u8>, OpenError> {
    let pem = read(path).await?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    let holds_one = pem.windows(begin.len()).any(|window| window == begin);
    if holds_one { Ok(pem) } else { Err(OpenError::TlsForm(path.to_owned())) }
}

async fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| OpenError::TlsFile { path: path.to_owned(), source })
}
