//! What a membership keeps.
//!
//! ```text
//! DATA/identity/ca.crt         the relay's authority
//! DATA/identity/identity.pem   the token's name, key and certificate: one file, so that they always belong together
//! DATA/identity/next.key       the key of a certificate that was asked for and has not come; asked for again with it
//! ```
//! All are 0600 and replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TrustError;

/// The first line of an identity.
const TOKEN: &str = "joined with token ";

/// The folder.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

/// A certificate that this sensor holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// The name of the token that it goes back to.
    pub(super) token: String,
    /// Key and chain, in PEM.
    pub(super) identity: String,
    /// In PEM.
    pub(super) authority: String,
    /// Unix seconds.
    pub(super) issued: u64,
    pub(super) expires: u64,
}

impl Files {
    /// Makes the folder if there is none.
    pub(super) fn open(folder: PathBuf) -> Result<Self, TrustError> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        made.map_err(failed("identity folder", &folder))?;
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What it holds; none before it joined.
    pub(super) fn held(&self) -> Result<Option<Held>, TrustError> {
        let path = self.path("identity.pem");
        let (identity, authority) = match (read(&path)?, read(&self.path("ca.crt"))?) {
            (Some(identity), Some(authority)) => (identity, authority),
            _ => return Ok(None),
        };
        let damaged = |why: &str| TrustError::Damaged {
            path: path.clone(),
            why: why.to_owned(),
        };
        let der = CertificateDer::from_pem_slice(identity.as_bytes())
            .map_err(|_| damaged("no certificate in it"))?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|_| damaged("not a certificate"))?;
        let validity = certificate.validity();
        let unix = |time: i64| u64::try_from(time).unwrap_or(0);
        let token = identity.lines().find_map(|line| line.strip_prefix(TOKEN));
        Ok(Some(Held {
            token: token.unwrap_or_default().to_owned(),
            issued: unix(validity.not_before.timestamp()),
            expires: unix(validity.not_after.timestamp()),
            identity,
            authority,
        }))
    }

    /// The key to ask with: the same until an answer was kept.
    pub(super) fn next_key(&self) -> Result<KeyPair, TrustError> {
        let path = self.path("next.key");
        if let Some(text) = read(&path)? {
            // One that was cut short by a crash was never used.
            if let Ok(key) = KeyPair::from_pem(&text) {
                return Ok(key);
            }
        }
        let key = KeyPair::generate()?;
        self.write("next.key", &key.serialize_pem())?;
        Ok(key)
    }

    /// Keeps an answer to a request of `key`.
    pub(super) fn keep(
        &self,
        token: &str,
        key: &KeyPair,
        chain: &str,
        authority: &str,
    ) -> Result<(), TrustError> {
        self.write("ca.crt", authority)?;
        let identity = format!("{TOKEN}{token}\n{}{chain}", key.serialize_pem());
        self.write("identity.pem", &identity)?;
        let next = self.path("next.key");
        fs::remove_file(&next).map_err(failed("key", &next))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), TrustError> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(failed("identity", &path))
    }
}

/// A request for a certificate (PKCS #10, DER). The relay takes the key out of it and nothing else.
pub(super) fn request(key: &KeyPair, sensor: &str) -> Result<Vec<u8>, TrustError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, sensor);
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// A file's text; none if there is no such file.
fn read(path: &Path) -> Result<Option<String>, TrustError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(failed("identity", path)(why)),
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrustError {
    let path = path.to_owned();
    move |source| TrustError::File { what, path, source }
}
