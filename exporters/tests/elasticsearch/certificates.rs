//! Encrypted connections: trusted, not trusted, under another name, and with a certificate of one's own.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::fake::Fake;
use crate::scene::*;

const MANUAL: &str = "index: {setup: manual}";

/// An authority with what it has signed, as files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sign(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file("client.crt"), certificate.pem()).unwrap();
        std::fs::write(self.file("client.key"), key.serialize_pem()).unwrap();
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), der.into())
    }

    /// A server with a certificate for `name`; `clients` need one, too.
    async fn server(&self, name: &str, clients: bool) -> Fake {
        let (chain, key) = self.sign(name, ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(vec![chain], key).unwrap();
        Fake::serve([], Some(TlsAcceptor::from(Arc::new(config)))).await
    }
}

/// `https://NAME:PORT`, where the fake is.
fn url(fake: &Fake, host: &str) -> String {
    let port = fake.address.rsplit(':').next().unwrap();
    format!("https://{host}:{port}")
}

async fn away(url: &str, more: &str) -> String {
    send(&*sink_to(url, &format!("{more}, {MANUAL}")), &alerts(1..=1))
        .await
        .unwrap_err()
        .reason
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_its_name() {
    let authority = Authority::new();
    let fake = authority.server("localhost", false).await;
    let tls = format!("tls: {{ca_file: {}}}", authority.file("ca.crt").display());
    send_all_done(
        &*sink_to(&url(&fake, "localhost"), &format!("{tls}, {MANUAL}")),
        &alerts(1..=2),
    )
    .await;
    assert_eq!(fake.kept().len(), 2);

    let other = Authority::new();
    let reason = away(
        &url(&fake, "localhost"),
        &format!("tls: {{ca_file: {}}}", other.file("ca.crt").display()),
    )
    .await;
    assert!(reason.contains("certificate"), "{reason}");
    let reason = away(&url(&fake, "127.0.0.1"), &tls).await;
    assert!(reason.contains("certificate"), "{reason}");
    let reason = away(&fake.url(), "compression: none").await;
    assert!(reason.starts_with(&fake.url()), "{reason}");
    // For trials.
    let trial = format!("tls: {{insecure_skip_verify: true}}, {MANUAL}");
    send_all_done(&*sink_to(&url(&fake, "127.0.0.1"), &trial), &alerts(3..=3)).await;
    assert_eq!(fake.kept().len(), 3);
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_it_beside_the_key() {
    let authority = Authority::new();
    let fake = authority.server("localhost", true).await;
    let ca = authority.file("ca.crt").display().to_string();
    let reason = away(&url(&fake, "localhost"), &format!("tls: {{ca_file: {ca}}}")).await;
    assert!(reason.starts_with("https://localhost"), "{reason}");

    authority.sign("relay", ExtendedKeyUsagePurpose::ClientAuth);
    std::fs::write(authority.file("api.key"), "key").unwrap();
    let [chain, key, api_key] = ["client.crt", "client.key", "api.key"]
        .map(|name| authority.file(name).display().to_string());
    let more = format!(
        "tls: {{ca_file: {ca}, cert_file: {chain}, key_file: {key}}}, auth: {{api_key_file: {api_key}}}, {MANUAL}"
    );
    send_all_done(&*sink_to(&url(&fake, "localhost"), &more), &alerts(1..=2)).await;
    assert_eq!(fake.bulks()[0].headers["authorization"], "ApiKey key");
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let authority = Authority::new();
    let fake = authority.server("localhost", false).await;
    let good = std::fs::read(authority.file("ca.crt")).unwrap();
    std::fs::copy(Authority::new().file("ca.crt"), authority.file("ca.crt")).unwrap();
    let tls = format!(
        "tls: {{ca_file: {}}}, {MANUAL}",
        authority.file("ca.crt").display()
    );
    let sink = sink_to(&url(&fake, "localhost"), &tls);
    assert!(send(&*sink, &alerts(1..=1)).await.is_err());
    std::fs::write(authority.file("ca.crt"), good).unwrap();
    send_all_done(&*sink, &alerts(1..=1)).await;
}
