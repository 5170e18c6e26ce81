//! Certificates of the listeners and who may call: what the settings say, made ready, and read again when files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::access::{Access, AccessEntry, Door};
use crate::config::{self, Config, Listen};
use crate::enrolment::{self, Enrolment};
use crate::ingest::Owners;
use crate::listen::{Certificates, Clients, Material, TlsError, TlsFiles};
use crate::log::Store;

use super::StartError;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);

/// What the doors need to know of peers; a cheap handle.
#[derive(Clone)]
pub(super) struct Trust {
    /// None: plaintext.
    pub(super) feed: Option<Certificates>,
    pub(super) link: Option<Certificates>,
    pub(super) access: Access,
    /// None: no certificates are given.
    pub(super) enrolment: Option<Enrolment>,
    entries: Arc<ArcSwap<Vec<AccessEntry>>>,
}

impl Trust {
    /// Reads every file that the settings name. The data folder has to be this relay's: its authority may be made there.
    pub(super) fn build(config: &Config) -> Result<Self, StartError> {
        let access = Access::load(&config.relay.access)?;
        let files = files(config);
        let enrolment = enrolment(config)?;
        let listen = &config.relay.listen;
        let load = |listen: &Listen, door| -> Result<Option<Certificates>, TlsError> {
            let (files, own) = (files.clone(), enrolment.clone());
            // The feed of this machine stays as it is where only sensors are to have certificates.
            let plain = files.is_none()
                && (own.is_none() || door == Door::Feed && listen.address.is_local());
            if listen.insecure || plain {
                return Ok(None);
            }
            let material = Material { files, own };
            let clients = clients(&material, &access, door);
            Certificates::load(material, clients).map(Some)
        };
        Ok(Self {
            feed: load(&listen.feed, Door::Feed)?,
            link: load(&listen.link, Door::Link)?,
            entries: Arc::new(ArcSwap::from_pointee(config.relay.access.clone())),
            access,
            enrolment,
        })
    }

    /// Takes over what other settings named and [`Trust::build`] has read. Whether a door is encrypted stays as it is.
    pub(super) fn replace(&self, other: &Trust) {
        for (mine, others) in [(&self.feed, &other.feed), (&self.link, &other.link)] {
            if let (Some(mine), Some(others)) = (mine, others) {
                mine.replace(others);
            }
        }
        if let (Some(mine), Some(other)) = (&self.enrolment, &other.enrolment) {
            mine.replace(other);
        }
        self.access.replace(&other.access);
        self.entries.store(other.entries.load_full());
    }

    /// Takes up files that change, for ever.
    pub(super) async fn watch(self) {
        let mut tokens = stamps(&self.entries.load());
        loop {
            tokio::time::sleep(LOOK).await;
            for (name, certificates) in [("feed", &self.feed), ("link", &self.link)] {
                match certificates.as_ref().map(Certificates::refresh) {
                    Some(Ok(true)) => tracing::info!(listener = name, "new certificates in force"),
                    Some(Err(why)) => {
                        tracing::error!(listener = name, %why, "changed certificates cannot be used; the old ones stay in force");
                    }
                    Some(Ok(false)) | None => {}
                }
            }
            let entries = self.entries.load_full();
            let now = stamps(&entries);
            if now != tokens {
                tokens = now;
                match self.access.reload(&entries) {
                    Ok(()) => tracing::info!("new tokens in force"),
                    Err(why) => {
                        tracing::error!(%why, "changed tokens cannot be used; the old ones stay in force");
                    }
                }
            }
        }
    }

    /// Every certificate file in use and when it expires, in unix seconds.
    pub(super) fn expiries(&self) -> Vec<(PathBuf, u64)> {
        let mut all: Vec<_> = [&self.feed, &self.link]
            .into_iter()
            .flatten()
            .flat_map(Certificates::expiries)
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

/// Looks whether what others wrote can be read, and writes nothing.
pub(super) fn look(config: &Config) -> Result<(), StartError> {
    Access::load(&config.relay.access)?;
    if let Some(files) = files(config) {
        let material = Material {
            files: Some(files),
            own: None,
        };
        Certificates::load(material, Clients::Unasked)?;
    }
    Ok(())
}

/// The files of the listeners; none: there is no TLS.
fn files(config: &Config) -> Option<TlsFiles> {
    let tls = config.relay.tls.as_ref()?;
    let file = |given: &Option<PathBuf>, name: &str| {
        given
            .clone()
            .or_else(|| tls.dir.as_ref().map(|dir| dir.join(name)))
    };
    Some(TlsFiles {
        // `check` has seen that there is one.
        cert: file(&tls.cert_file, config::SERVER_CERT)?,
        key: file(&tls.key_file, config::SERVER_KEY)?,
        client_ca: file(&tls.client_ca_file, config::CA_CERT),
    })
}

/// Who can be known by a token, or may say nothing, is not asked for a certificate it need not have; nor is whoever comes
/// for one.
fn clients(material: &Material, access: &Access, door: Door) -> Clients {
    let Material { files, own } = material;
    let known = files
        .as_ref()
        .is_some_and(|files| files.client_ca.is_some());
    if !known && own.is_none() {
        Clients::Unasked
    } else if own.is_some() && door == Door::Link || access.knows_without_certificate(door) {
        Clients::May
    } else {
        Clients::Must
    }
}

/// What the data folder knows of streams and their sensors, or all relays of the log do. The folder is this relay's: opening
/// mends what a crash cut short.
pub(super) fn owners(config: &Config, log: &Store) -> Result<Owners, StartError> {
    if let Some(agreement) = log.log().agreement() {
        return Ok(Owners::shared(agreement));
    }
    let path = config.relay.data_dir.join("streams");
    Owners::open(&path).map_err(|source| StartError::Owners { path, source })
}

/// The relay's own authority, if the settings want one.
fn enrolment(config: &Config) -> Result<Option<Enrolment>, TlsError> {
    let Some(tls) = config.relay.tls.as_ref().filter(|tls| tls.enrolment) else {
        return Ok(None);
    };
    let settings = enrolment::Settings {
        names: tls.names.clone(),
        lifetime: tls
            .lifetime
            .map_or(enrolment::LIFETIME, |lifetime| lifetime.0),
    };
    Ok(Some(Enrolment::open(&config.relay.data_dir, settings)?))
}

fn stamps(entries: &[AccessEntry]) -> Vec<Option<(std::time::SystemTime, u64)>> {
    let files = entries.iter().filter_map(|entry| entry.token_file.as_ref());
    files
        .map(|path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        })
        .collect()
}
