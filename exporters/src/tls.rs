//! Encrypted connections to destinations: the `tls` key of every sink that connects.
//!
//! ```yaml
//! tls:
//!   ca_file: /etc/cresset/ca.crt        # else the system's authorities, else those of Mozilla's list
//!   cert_file: /etc/cresset/client.crt  # with key_file: this program's own certificate
//!   key_file: /etc/cresset/client.key
//!   server_name: siem.example           # the name in the server's certificate, if it is not the address's host
//! ```
//!
//! One rustls (ring) configuration is made from it, whoever speaks over the connection: reqwest, tonic or a bare socket.
//! Libraries with a TLS of their own (librdkafka, the Elasticsearch client) take the paths or the PEM text from here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use yaml::{Node, Problem, Severity};

use crate::stamp::Stamp;

/// How a connection to a destination is encrypted. Files are PEM and read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    /// The authorities that may sign the server's certificate. Default: those that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// This program's own certificate chain, for servers that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The name in the server's certificate. Default: the host of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Takes any certificate: whoever stands in between reads and changes everything. For trials only.
    pub insecure_skip_verify: bool,
}

/// TLS settings that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tls: {place} cannot be used: {why}")]
pub struct BadTls {
    place: String,
    why: String,
}

fn bad<E: ToString>(path: &Path) -> impl FnOnce(E) -> BadTls {
    let place = path.display().to_string();
    move |why| BadTls {
        place,
        why: why.to_string(),
    }
}

impl ClientTls {
    /// Reports what cannot work; `path` is where these settings stand below `node`, as in `tls`.
    pub fn check(&self, path: &str, node: &Node, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: &str| {
            problems.push(node.problem_at(&format!("{path}.{key}"), message));
        };
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => wrong("cert_file", "needs its key; give key_file, too"),
            (None, Some(_)) => wrong("key_file", "needs its certificate; give cert_file, too"),
            _ => {}
        }
        for (key, file) in [
            ("ca_file", &self.ca_file),
            ("cert_file", &self.cert_file),
            ("key_file", &self.key_file),
        ] {
            if file.as_ref().is_some_and(|file| !file.is_absolute()) {
                wrong(
                    key,
                    "must begin with `/`, or it would depend on where the program was started",
                );
            }
        }
        if self.server_name.is_some() && self.name_of("").is_err() {
            wrong("server_name", "is no name that a certificate can carry");
        }
        if self.insecure_skip_verify {
            problems.push(Problem {
                severity: Severity::Warning,
                ..node.problem_at(
                    &format!("{path}.insecure_skip_verify"),
                    "whoever stands in between can read and change every event; give ca_file instead",
                )
            });
        }
    }

    /// Reports files that are not there or are not what they should be; `path` as for [`ClientTls::check`].
    pub fn look(&self, path: &str, node: &Node, problems: &mut Vec<Problem>) {
        let before = problems.len();
        let of = |key: &str| format!("{path}.{key}");
        for (name, file) in [("ca_file", &self.ca_file), ("cert_file", &self.cert_file)] {
            if let Some(Err(why)) = file.as_deref().map(certificates) {
                problems.push(node.problem_at(&of(name), why.to_string()));
            }
        }
        if let Some(Err(why)) = self.key_file.as_deref().map(key) {
            problems.push(node.problem_at(&of("key_file"), why.to_string()));
        }
        let both = self.cert_file.is_some() && self.key_file.is_some();
        if both
            && problems.len() == before
            && let Err(why) = self.client_config(&[])
        {
            problems.push(node.problem_at(&of("cert_file"), why.to_string()));
        }
    }

    /// Reports files that cannot be read, for libraries that know more kinds of files than this program.
    pub(crate) fn look_for_files(&self, path: &str, node: &Node, problems: &mut Vec<Problem>) {
        for (key, file) in [
            ("ca_file", &self.ca_file),
            ("cert_file", &self.cert_file),
            ("key_file", &self.key_file),
        ] {
            if let Some(file) = file
                && let Err(why) = std::fs::File::open(file)
            {
                let message = bad(file)(why).to_string();
                problems.push(node.problem_at(&format!("{path}.{key}"), message));
            }
        }
    }

    /// The configuration for connections that offer these protocols (`h2`, `http/1.1`; none for a bare socket).
    ///
    /// # Errors
    /// A file is missing or no PEM, or the key does not fit the certificate; the file is named.
    pub fn client_config(&self, protocols: &[&str]) -> Result<ClientConfig, BadTls> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad(Path::new("the TLS library")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(provider)?));
        let mut config = match (&self.cert_file, &self.key_file) {
            (Some(chain), Some(key_file)) => builder
                .with_client_auth_cert(certificates(chain)?, key(key_file)?)
                .map_err(bad(chain))?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(config)
    }

    /// The name that the certificate of `host` must carry.
    ///
    /// # Errors
    /// It is neither a DNS name nor an address.
    pub fn name_of(&self, host: &str) -> Result<ServerName<'static>, BadTls> {
        let name = self.server_name.as_deref().unwrap_or(host);
        // An IPv6 address of a URL stands in brackets.
        let name = name
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .unwrap_or(name);
        ServerName::try_from(name.to_owned()).map_err(|_| BadTls {
            place: format!("the name `{name}`"),
            why: "no certificate can carry it; give tls.server_name".to_owned(),
        })
    }

    /// The authorities of `ca_file` as PEM text, for libraries that read it themselves.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn ca_pem(&self) -> Result<Option<Vec<u8>>, BadTls> {
        self.ca_file.as_deref().map(pem_of).transpose()
    }

    /// This program's certificate chain followed by its key as PEM text, for libraries that read it themselves.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should.
    pub fn identity_pem(&self) -> Result<Option<Vec<u8>>, BadTls> {
        let (Some(chain), Some(key_file)) = (&self.cert_file, &self.key_file) else {
            return Ok(None);
        };
        let mut pem = pem_of(chain)?;
        key(key_file)?;
        pem.push(b'\n');
        pem.extend(std::fs::read(key_file).map_err(bad(key_file))?);
        Ok(Some(pem))
    }

    /// Another stamp means other files: make the connection's configuration anew.
    pub fn stamp(&self) -> Stamp {
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        Stamp::of(files.into_iter().flatten())
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Verifier, BadTls> {
        let place = self.ca_file.clone().unwrap_or("the system's list".into());
        let chain = match self.insecure_skip_verify {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(
                    Arc::new(self.roots()?),
                    Arc::clone(&provider),
                )
                .build()
                .map_err(bad(&place))?,
            ),
        };
        let name = match &self.server_name {
            Some(_) => Some(self.name_of("")?),
            None => None,
        };
        Ok(Verifier {
            chain,
            name,
            provider,
        })
    }

    fn roots(&self) -> Result<RootCertStore, BadTls> {
        let mut roots = RootCertStore::empty();
        let Some(file) = &self.ca_file else {
            // Some of the system's may be of kinds that rustls does not take; the others count.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            return Ok(roots);
        };
        for authority in certificates(file)? {
            roots.add(authority).map_err(bad(file))?;
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(bad(path))?
        .collect::<Result<_, _>>()
        .map_err(bad(path))?;
    match chain.is_empty() {
        true => Err(bad(path)("it holds no certificate in PEM form")),
        false => Ok(chain),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, BadTls> {
    PrivateKeyDer::from_pem_file(path).map_err(bad(path))
}

fn pem_of(path: &Path) -> Result<Vec<u8>, BadTls> {
    certificates(path)?;
    std::fs::read(path).map_err(bad(path))
}

/// Checks the chain as usual, against another name than the address's if one is given, or not at all.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = self.name.as_ref().unwrap_or(server_name);
        match &self.chain {
            Some(chain) => {
                chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
