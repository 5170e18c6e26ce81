//! Certificates for connections to daemons.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::config::{Address, SourceTls};

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be used: {why}; the source's tls needs PEM files that this user may read")]
pub(super) struct BadFile {
    path: String,
    why: String,
}

fn bad<E: ToString>(path: &Path) -> impl FnOnce(E) -> BadFile {
    let path = path.display().to_string();
    move |why| BadFile {
        path,
        why: why.to_string(),
    }
}

/// Reads the files.
pub(super) fn connector(tls: &SourceTls) -> Result<TlsConnector, BadFile> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&tls.ca_file)? {
        roots.add(authority).map_err(bad(&tls.ca_file))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(bad(&tls.ca_file))?
        .with_root_certificates(roots);
    let mut config = match (&tls.cert_file, &tls.key_file) {
        (Some(chain), Some(key_file)) => {
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(bad(key_file))?;
            builder
                .with_client_auth_cert(certificates(chain)?, key)
                .map_err(bad(chain))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the daemon's certificate must carry.
pub(super) fn name(tls: &SourceTls, address: &Address) -> Result<ServerName<'static>, String> {
    let name = tls.server_name.as_ref().unwrap_or(&address.host);
    ServerName::try_from(name.clone()).map_err(|_| {
        format!("`{name}` is no name that a certificate can carry; give tls.server_name")
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(bad(path))?
        .collect::<Result<_, _>>()
        .map_err(bad(path))?;
    if chain.is_empty() {
        Err(bad(path)("it holds no certificate"))
    } else {
        Ok(chain)
    }
}
