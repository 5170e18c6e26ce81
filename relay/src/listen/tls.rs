//! Certificates of a listener, read again when their files change.
//!
//! A connection keeps the certificates that it began with; the next one is greeted with what the files hold by then. Files
//! that cannot be used leave the last good ones in force. Sessions are resumed only within one reading, so a client whose
//! authority was taken out has to show its certificate, and is refused.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::access::Presented;

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read as PEM.
    #[error("cannot read {path}: {source}; relay.tls needs PEM files that this user may read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file has no certificate.
    #[error("{path} holds no certificate")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key, or the authority, are not usable.
    #[error("{path} cannot be used: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The clients' authority is not usable.
    #[error("{path} cannot be used to check certificates: {source}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// The files of a listener, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Who signs the certificates of clients.
    pub(crate) client_ca: Option<PathBuf>,
}

/// Whether clients show certificates of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// They are not asked.
    Unasked,
    /// Those that have one show it; the others are known by something else.
    May,
    /// There is no handshake without one.
    Must,
}

/// What a file looked like when it was read: another file under its name has another one.
type Stamp = Option<(u64, u64, i64, i64)>;

/// Certificates of one listener; a cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    inner: Arc<ArcSwap<Inner>>,
}

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    clients: Clients,
    current: ArcSwap<ServerConfig>,
    /// Of the last reading, good or bad.
    stamps: Mutex<Vec<Stamp>>,
}

impl Certificates {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles, clients: Clients) -> Result<Self, TlsError> {
        let stamps = Mutex::new(files.stamps());
        let current = ArcSwap::from_pointee(read(&files, clients)?);
        let inner = Inner {
            files,
            clients,
            current,
            stamps,
        };
        Ok(Self {
            inner: Arc::new(ArcSwap::from_pointee(inner)),
        })
    }

    /// Takes over the files of others, which were read already.
    pub(crate) fn replace(&self, others: &Certificates) {
        self.inner.store(others.inner.load_full());
    }

    /// Greets the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.inner.load().current.load_full())
    }

    /// Are clients asked for certificates?
    pub(crate) fn asks(&self) -> bool {
        self.inner.load().clients != Clients::Unasked
    }

    /// Reads the files again if they changed. True: new ones are in force.
    ///
    /// # Errors
    /// They cannot be used, and the old ones stay; said once for each change of the files.
    pub(crate) fn refresh(&self) -> Result<bool, TlsError> {
        let inner = self.inner.load_full();
        let Inner {
            files,
            clients,
            current,
            stamps,
        } = &*inner;
        let now = files.stamps();
        let mut seen = stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        current.store(Arc::new(read(files, *clients)?));
        Ok(true)
    }

    /// Each certificate file and when what is in it expires first, in unix seconds.
    pub(crate) fn expiries(&self) -> Vec<(PathBuf, u64)> {
        let inner = self.inner.load();
        let files = [Some(&inner.files.cert), inner.files.client_ca.as_ref()];
        files
            .into_iter()
            .flatten()
            .filter_map(|path| Some((path.clone(), expires(path)?)))
            .collect()
    }
}

impl TlsFiles {
    fn stamps(&self) -> Vec<Stamp> {
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| {
                let file = fs::metadata(path).ok()?;
                Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
            })
            .collect()
    }
}

/// When the first of a file's certificates expires, in unix seconds.
fn expires(path: &Path) -> Option<u64> {
    let chain = certificates(path).ok()?;
    chain
        .iter()
        .map(|certificate| Presented::read(certificate).expires)
        .min()
}

fn read(files: &TlsFiles, clients: Clients) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unusable { path, source }
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable(&files.cert))?;
    let builder = match files
        .client_ca
        .as_ref()
        .filter(|_| clients != Clients::Unasked)
    {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(unusable(path))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                Clients::Must => verifier,
                Clients::May | Clients::Unasked => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|source| TlsError::Authority {
                path: path.clone(),
                source,
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Read {
        path: files.key.clone(),
        source,
    })?;
    let mut config = builder
        .with_single_cert(certificates(&files.cert)?, key)
        .map_err(unusable(&files.cert))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if chain.is_empty() {
        Err(TlsError::Empty {
            path: path.to_owned(),
        })
    } else {
        Ok(chain)
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        io::Error::other(error)
    }
}
