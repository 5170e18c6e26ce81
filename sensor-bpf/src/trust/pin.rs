//! Knowing a relay of which only the hash of its authority's key is known: on the first contact.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Believes whoever shows an authority with the right key, and a certificate that this authority signed.
#[derive(Debug)]
pub(super) struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// `pin`: SHA-256 of the authority's SubjectPublicKeyInfo.
    pub(super) fn new(pin: [u8; 32]) -> Self {
        Self {
            pin,
            provider: Arc::new(ring::default_provider()),
        }
    }

    fn is_authority(&self, certificate: &CertificateDer<'_>) -> bool {
        is_pinned(certificate, &self.pin)
    }
}

/// Is this the certificate of the key with this SHA-256?
pub(super) fn is_pinned(certificate: &CertificateDer<'_>, pin: &[u8; 32]) -> bool {
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| Sha256::digest(&*parsed.subject_public_key_info())[..] == pin[..])
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = intermediates.iter().find(|shown| self.is_authority(shown));
        let authority = found.ok_or_else(|| {
            Error::General(
                "it is not the relay that made the token: its authority has another key".to_owned(),
            )
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let roots = Arc::new(roots);
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|why| Error::General(why.to_string()))?
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
