//! How the sensor knows its relays, and how they know it.
//!
//! ```text
//! plain        a loopback address; nobody is asked
//! files        sensor.tls: certificates that somebody else puts there; read at every connection
//! membership   sensor.join_token_file: joins a relay's own authority once, renews by itself from then on
//! ```

mod files;
mod membership;
mod pin;

use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::address::Relay;
use crate::config::{SensorConfig, TlsConfig};

pub use membership::Membership;

/// Folder of the membership's files, below the data folder.
const FOLDER: &str = "identity";

/// Why there are no certificates for a connection.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The token's file holds none.
    #[error("{}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: proto::BadToken,
    },
    /// What the sensor keeps was changed by somebody.
    #[error("{} is damaged ({why}); remove it and give a new join token", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Joining did not work.
    #[error("cannot join: {0}")]
    Join(String),
    /// Making keys.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
}

/// One of the three ways.
#[derive(Debug, Clone)]
pub enum Trust {
    /// No certificates.
    Plain,
    /// Somebody else's.
    Files(TlsConfig),
    /// Those of a relay's own authority.
    Membership(Membership),
}

impl Trust {
    /// The way that the settings say, looked at: its files are there, or can be had.
    ///
    /// # Errors
    /// The first file that is missing.
    pub fn build(settings: &SensorConfig, sensor: &str) -> Result<Self, TrustError> {
        if let Some(files) = &settings.tls {
            read(files)?;
            return Ok(Self::Files(files.clone()));
        }
        let Some(token_file) = &settings.join_token_file else {
            return Ok(Self::Plain);
        };
        let folder = settings.data_path().join(FOLDER);
        Membership::open(folder, token_file.clone(), sensor.to_owned()).map(Self::Membership)
    }

    /// What a connection to this relay is encrypted with; nothing on loopback.
    ///
    /// # Errors
    /// There is nothing to show, and it cannot be had now.
    pub async fn tls(&self, relay: &Relay) -> Result<Option<ClientTlsConfig>, TrustError> {
        if !relay.is_tls() {
            return Ok(None);
        }
        match self {
            Self::Plain => Ok(None),
            Self::Files(files) => Ok(Some(read(files)?.domain_name(relay.host()))),
            Self::Membership(membership) => membership.tls(relay).await.map(Some),
        }
    }
}

fn read(files: &TlsConfig) -> Result<ClientTlsConfig, TrustError> {
    let read = |what, path: &Path| {
        std::fs::read(path).map_err(|source| TrustError::File {
            what,
            path: path.to_owned(),
            source,
        })
    };
    let certificate = read("certificate", &files.cert_file)?;
    let key = read("key", &files.key_file)?;
    let authorities = read("certificate authorities", &files.ca_file)?;
    Ok(ClientTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .ca_certificate(Certificate::from_pem(authorities)))
}
