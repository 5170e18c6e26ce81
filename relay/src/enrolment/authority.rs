//! The authority: its key, what it signs, and the relay's own certificate.
//!
//! ```text
//! DATA/authority/authority.pem   key and certificate, 0600; appears whole or not at all, is never replaced
//! DATA/authority/ca.crt          the certificate again, for those who read
//! ```
//! Removing the folder makes a new authority at the next start: every certificate and token of the old one is void.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto::RELAY_NAME;
use proto::enrolment::Certificate;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKey, SanType, SerialNumber,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::now;
use crate::access::{Presented, Role};

/// How long the authority itself is good.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long the relay's certificate is good, and how old the one becomes that new connections are greeted with.
const SERVER: Duration = Duration::from_secs(7 * 24 * 3600);
const SERVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// Clocks of machines may be so far behind the relay's.
const SKEW: Duration = Duration::from_secs(300);

/// The authority's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Not readable, or not writable.
    #[error(
        "cannot use {path}: {source}; the relay's authority needs a folder that this user may write"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what it should be.
    #[error(
        "{path} is damaged ({why}); restore it, or remove it, and all who joined have to join again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A name that no certificate can carry.
    #[error("relay.tls.names: `{0}` is neither a DNS name nor an address")]
    Name(String),
    /// The library.
    #[error("cannot make certificates: {0}")]
    Make(#[from] rcgen::Error),
}

/// Key and certificate of the relay's own authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: [u8; 32],
    domain: String,
    path: PathBuf,
}

/// What the relay shows its clients.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its own certificate and the authority's, by which a machine that only knows the pin finds it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// When the next one is to be made.
    pub(crate) due: SystemTime,
}

// === impl Authority ===

impl Authority {
    pub(super) fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let path = folder.join("authority.pem");
        if !path.exists() {
            make(folder, &path)?;
        }
        let text = fs::read(&path).map_err(file(&path))?;
        let authority = Self::read(&text, &path)?;
        let public = folder.join("ca.crt");
        if fs::read_to_string(&public).ok().as_deref() != Some(&authority.pem) {
            fs::write(&public, &authority.pem).map_err(file(&public))?;
        }
        Ok(Self {
            path: public,
            ..authority
        })
    }

    fn read(text: &[u8], path: &Path) -> Result<Self, AuthorityError> {
        let damaged = |why: String| AuthorityError::Damaged {
            path: path.to_owned(),
            why,
        };
        let no_pem = |why: pem::Error| damaged(why.to_string());
        let unusable = |why: rcgen::Error| damaged(why.to_string());
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(no_pem)?;
        let certificate = CertificateDer::from_pem_slice(text).map_err(no_pem)?;
        let key = KeyPair::try_from(&key).map_err(unusable)?;
        let presented = Presented::read(&certificate);
        if presented.key != digest(&key) {
            return Err(damaged("its key is not its certificate's".to_owned()));
        }
        let begin = b"-----BEGIN CERTIFICATE-----";
        let at = text.windows(begin.len()).position(|part| part == begin);
        let pem = String::from_utf8_lossy(&text[at.unwrap_or_default()..]).into_owned();
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key).map_err(unusable)?,
            domain: domain(&presented.key),
            pin: presented.key,
            certificate,
            pem,
            path: path.to_owned(),
        })
    }

    /// SHA-256 of its public key.
    pub(super) fn pin(&self) -> &[u8; 32] {
        &self.pin
    }

    /// The trust domain of the names in its certificates: no other authority's.
    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    /// Whom its holders are believed by.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The file with its certificate.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A certificate for the holder of a key.
    pub(super) fn sign(
        &self,
        key: &PublicKey,
        role: Role,
        id: &str,
        lifetime: Duration,
    ) -> Result<Certificate, rcgen::Error> {
        let uri = format!("spiffe://{}/{role}/{id}", self.domain);
        let mut params = leaf(id, lifetime)?;
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(key, &self.issuer)?;
        Ok(Certificate {
            chain: signed.pem(),
            authority: self.pem.clone(),
            expires_unix: now() + lifetime.as_secs(),
        })
    }

    /// A key and a certificate for the relay: good under [`RELAY_NAME`], this machine's names and `names`.
    pub(super) fn server(&self, names: &[String]) -> Result<Server, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = leaf("Cresset relay", SERVER)?;
        params.subject_alt_names = server_names(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params.signed_by(&key, &self.issuer)?;
        Ok(Server {
            chain: vec![signed.into(), self.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            due: SystemTime::now() + SERVER_AGE,
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.domain)
    }
}

/// Writes a new authority, unless another process is faster.
fn make(folder: &Path, path: &Path) -> Result<(), AuthorityError> {
    // Events tell of secrets, so nobody else may look into the data folder; nor into this one.
    let mut folders = fs::DirBuilder::new();
    folders
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(file(folder))?;
    let key = KeyPair::generate()?;
    let mut params = named("Cresset relay authority", AUTHORITY)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    let new = folder.join(format!("authority.{}", std::process::id()));
    let text = format!("{}{}", key.serialize_pem(), certificate.pem());
    let written = write_private(&new, text.as_bytes()).and_then(|()| link_new(&new, path));
    let _ = fs::remove_file(&new);
    written.map_err(file(path))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(file(folder))
}

/// Gives a file its name, unless there is one of that name.
fn link_new(new: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(new, path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        _ => Ok(()),
    }
}

/// Writes a file that only this user may read.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File { path, source }
}

/// Parameters that all have: a subject, a time, a random serial number (RFC 5280, 4.1.2.2).
fn named(subject: &str, lifetime: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, subject);
    params.distinguished_name = name;
    let now = SystemTime::now();
    params.not_before = (now - SKEW.min(lifetime / 10)).into();
    params.not_after = (now + lifetime).into();
    params.serial_number = Some(serial());
    Ok(params)
}

fn leaf(subject: &str, lifetime: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = named(subject, lifetime)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn serial() -> SerialNumber {
    let mut bytes = [proto::StreamId::random().0, proto::StreamId::random().0].concat();
    // Positive, and not empty.
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 1;
    }
    bytes.into()
}

fn server_names(names: &[String]) -> Result<Vec<SanType>, AuthorityError> {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let own = [RELAY_NAME, "localhost", "127.0.0.1", "::1", &host].map(str::to_owned);
    let mut all: Vec<SanType> = Vec::new();
    for name in own.iter().chain(names) {
        let name = san(name)?;
        if !all.contains(&name) {
            all.push(name);
        }
    }
    Ok(all)
}

fn san(name: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || AuthorityError::Name(name.to_owned());
    let dns = name
        .bytes()
        .all(|letter| letter.is_ascii_alphanumeric() || b".-_*".contains(&letter));
    if name.is_empty() || !dns {
        return Err(bad());
    }
    name.try_into().map(SanType::DnsName).map_err(|_| bad())
}

/// A domain that only this key's authority has.
fn domain(pin: &[u8; 32]) -> String {
    let [a, b, c, d, e, f, g, h, ..] = *pin;
    format!("{}.cresset", proto::StreamId([a, b, c, d, e, f, g, h]))
}

fn digest(key: &KeyPair) -> [u8; 32] {
    use rcgen::PublicKeyData as _;
    Sha256::digest(key.subject_public_key_info()).into()
}
