//! Certificates of a listener, read again when their files change.
//!
//! A connection keeps the certificates that it began with; the next one is greeted with what the files hold by then. Files
//! that cannot be used leave the last good ones in force. Sessions are resumed only within one reading, so a client whose
//! authority was taken out has to show its certificate, and is refused.
//!
//! A relay with an authority of its own has a certificate of that, too, made anew every day: it is shown to those who ask for
//! [`RELAY_NAME`], and to everybody where there are no files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use proto::RELAY_NAME;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::access::Presented;
use crate::enrolment::{AuthorityError, Enrolment, Server};

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
    /// The relay's own authority.
    #[error(transparent)]
    Own(#[from] AuthorityError),
}

/// What a listener shows, and whom it believes; at least one of the two.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    pub(crate) files: Option<TlsFiles>,
    pub(crate) own: Option<Enrolment>,
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
    material: Material,
    clients: Clients,
    current: ArcSwap<ServerConfig>,
    read: Mutex<Reading>,
}

/// The last reading, good or bad.
#[derive(Debug, PartialEq)]
struct Reading {
    stamps: Vec<Stamp>,
    /// When the relay's own certificate is to be replaced.
    due: Option<SystemTime>,
}

impl Certificates {
    /// Reads the files, and makes the relay's own certificate.
    pub(crate) fn load(material: Material, clients: Clients) -> Result<Self, TlsError> {
        let stamps = material.stamps();
        let (config, due) = read(&material, clients)?;
        let inner = Inner {
            material,
            clients,
            current: ArcSwap::from_pointee(config),
            read: Mutex::new(Reading { stamps, due }),
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

    /// Reads the files again if they changed, and makes the relay's own certificate anew when it is time. True: new ones
    /// are in force.
    ///
    /// # Errors
    /// They cannot be used, and the old ones stay; said once for each change of the files.
    pub(crate) fn refresh(&self) -> Result<bool, TlsError> {
        let inner = self.inner.load_full();
        let Inner {
            material,
            clients,
            current,
            read: last,
        } = &*inner;
        let stamps = material.stamps();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.stamps == stamps && last.due.is_none_or(|due| SystemTime::now() < due) {
            return Ok(false);
        }
        last.stamps = stamps;
        let (config, due) = read(material, *clients)?;
        last.due = due;
        current.store(Arc::new(config));
        Ok(true)
    }

    /// Each certificate file and when what is in it expires first, in unix seconds.
    pub(crate) fn expiries(&self) -> Vec<(PathBuf, u64)> {
        let inner = self.inner.load();
        let Material { files, own } = &inner.material;
        let named = files
            .iter()
            .flat_map(|files| [Some(&files.cert), files.client_ca.as_ref()]);
        let own = own.as_ref().map(|own| own.authority().path());
        named
            .flatten()
            .map(PathBuf::as_path)
            .chain(own)
            .filter_map(|path| Some((path.to_owned(), expires(path)?)))
            .collect()
    }
}

impl Material {
    fn stamps(&self) -> Vec<Stamp> {
        let files = self.files.iter();
        files
            .flat_map(|files| {
                [
                    Some(&files.cert),
                    Some(&files.key),
                    files.client_ca.as_ref(),
                ]
            })
            .flatten()
            .map(|path| {
                let file = fs::metadata(path).ok()?;
                Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
            })
            .collect()
    }

    /// Who signs the certificates of clients, each with where it comes from.
    fn authorities(&self) -> Result<Vec<(PathBuf, CertificateDer<'static>)>, TlsError> {
        let mut all = Vec::new();
        if let Some(path) = self
            .files
            .as_ref()
            .and_then(|files| files.client_ca.as_ref())
        {
            let from = certificates(path)?.into_iter();
            all.extend(from.map(|certificate| (path.clone(), certificate)));
        }
        if let Some(own) = &self.own {
            let authority = own.authority();
            all.push((authority.path().to_owned(), authority.certificate().clone()));
        }
        Ok(all)
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

/// A configuration, and when it is to be made anew.
fn read(
    material: &Material,
    clients: Clients,
) -> Result<(ServerConfig, Option<SystemTime>), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let place = material.place();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable(&place))?;
    let authorities = material.authorities()?;
    let builder = if clients == Clients::Unasked || authorities.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for (path, authority) in authorities {
            roots.add(authority).map_err(unusable(&path))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = match clients {
            Clients::Must => verifier,
            Clients::May | Clients::Unasked => verifier.allow_unauthenticated(),
        };
        let verifier = verifier.build().map_err(|source| TlsError::Authority {
            path: place.clone(),
            source,
        })?;
        builder.with_client_cert_verifier(verifier)
    };
    let files = material
        .files
        .as_ref()
        .map(|files| files.key(&provider))
        .transpose()?;
    let own = material.own.as_ref().map(Enrolment::server).transpose()?;
    let due = own.as_ref().map(|own| own.due);
    let own = own.map(|Server { chain, key, .. }| CertifiedKey::from_der(chain, key, &provider));
    let own = own.transpose().map_err(unusable(&place))?;
    let shown = Shown {
        files: files.map(Arc::new),
        own: own.map(Arc::new),
    };
    let mut config = builder.with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((config, due))
}

impl TlsFiles {
    fn key(&self, provider: &rustls::crypto::CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::Read {
            path: self.key.clone(),
            source,
        })?;
        CertifiedKey::from_der(certificates(&self.cert)?, key, provider)
            .map_err(unusable(&self.cert))
    }
}

impl Material {
    /// What is named where something cannot be used.
    fn place(&self) -> PathBuf {
        let file = self.files.as_ref().map(|files| &files.cert);
        let own = self
            .own
            .as_ref()
            .map(|own| own.authority().path().to_owned());
        file.cloned().or(own).unwrap_or_default()
    }
}

/// Which certificate a client is shown.
#[derive(Debug)]
struct Shown {
    files: Option<Arc<CertifiedKey>>,
    own: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (first, second) = if hello.server_name() == Some(RELAY_NAME) {
            (&self.own, &self.files)
        } else {
            (&self.files, &self.own)
        };
        first.as_ref().or(second.as_ref()).cloned()
    }
}

fn unusable(path: &Path) -> impl Fn(rustls::Error) -> TlsError + use<> {
    let path = path.to_owned();
    move |source| TlsError::Unusable {
        path: path.clone(),
        source,
    }
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
