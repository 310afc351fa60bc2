//! The certificate, and its replacement while connections live.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::settings::TlsSettings;

/// A chain of certificates or a key is a few KiB. A file beyond this is something else.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not PEM, or not of the kind that belongs there.
    #[error("{} holds no {expected} in PEM", file.display())]
    Pem {
        /// Which one.
        file: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What was found.
        source: pem::Error,
    },
    /// The two do not belong together, or one of them is of a kind that is not supported.
    #[error("the key in {} does not serve the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What does not fit.
        source: rustls::Error,
    },
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up")]
    SetUp(#[source] rustls::Error),
}

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The files hold what is being served already.
    Unchanged,
    /// New handshakes get what the files hold now.
    Changed,
}

/// The certificate of a listener. Clones share it: a reload through one is served by all.
#[derive(Clone)]
pub struct TlsCertificate(Arc<Inner>);

struct Inner {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    served: Arc<Served>,
    config: Arc<ServerConfig>,
}

/// What handshakes get.
#[derive(Debug)]
struct Served(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl TlsCertificate {
    /// Reads the files and checks that the key fits the certificate. Blocks for two small reads.
    ///
    /// # Errors
    /// When a file cannot be read, is not what it should be, or the two do not fit.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(provider::default_provider());
        let files = Files::read(settings)?;
        let served = Arc::new(Served(ArcSwap::from_pointee(files.certified(settings, &provider)?)));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::SetUp)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&served) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are resumed from tickets that the client keeps, so resuming costs no memory here.
        config.ticketer = provider::Ticketer::new().map_err(TlsError::SetUp)?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self(Arc::new(Inner { settings: settings.clone(), provider, served, config: Arc::new(config) })))
    }

    /// Reads the files again, for handshakes from now on; connections that stand keep what they have. Blocks for two
    /// small reads.
    ///
    /// # Errors
    /// As [`TlsCertificate::load`]; what was served before is served on.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let Inner { settings, provider, served, .. } = &*self.0;
        let files = Files::read(settings)?;
        let fresh = files.certified(settings, provider)?;
        // A key can only change together with its certificate's public key.
        if fresh.cert == served.0.load().cert {
            return Ok(Reloaded::Unchanged);
        }
        served.0.store(Arc::new(fresh));
        Ok(Reloaded::Changed)
    }

    /// The certificate that new handshakes get, without those that vouch for it.
    pub fn leaf(&self) -> CertificateDer<'static> {
        // A chain without any certificate is refused when it is read.
        self.0.served.0.load().cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// The acceptor of handshakes.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.config))
    }
}

/// Says which files; the key is not part of it.
impl std::fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TlsCertificate").field(&self.0.settings).finish()
    }
}

/// What the two files hold.
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        Ok(Self { certificate: read_bounded(&settings.certificate)?.to_vec(), key: read_bounded(&settings.key)? })
    }

    fn certified(&self, settings: &TlsSettings, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let pem = |file: &Path, expected| {
            let file = file.to_owned();
            move |source| TlsError::Pem { file, expected, source }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(pem(&settings.certificate, "certificate"))?;
        if chain.is_empty() {
            return Err(pem(&settings.certificate, "certificate")(pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(pem(&settings.key, "private key"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Mismatch {
            certificate: settings.certificate.clone(),
            key: settings.key.clone(),
            source,
        })
    }
}

fn read_bounded(file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = || {
        let mut bytes = Zeroizing::new(Vec::new());
        let mut reader = std::io::Read::take(std::fs::File::open(file)?, MAX_FILE_BYTES + 1);
        std::io::Read::read_to_end(&mut reader, &mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(std::io::Error::other("it is larger than 1 MiB"));
        }
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read { file: file.to_owned(), source })
}
