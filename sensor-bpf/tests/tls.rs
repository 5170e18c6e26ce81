//! The link with certificates: both ends show theirs, and neither believes a stranger's.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

mod support;

use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sensor_bpf::Config;
use sensor_bpf::config::TlsConfig;
use support::kernel::FakeKernel;
use support::relay::{FakeRelay, Memory};
use support::{Running, eventually, settings};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.0)
            .unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, name: &str, clients: &Authority) -> ServerTlsConfig {
        let (certificate, key) = self.sign(name);
        ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(clients.0.pem()))
    }

    /// Settings of a sensor whose certificate this authority signed and that believes `relays`.
    fn sensor(&self, dir: &Path, relay: &FakeRelay, relays: &Authority) -> Config {
        let (certificate, key) = self.sign("sensor");
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut config = settings(
            dir,
            &[format!("https://localhost:{}", relay.address.port())],
        );
        config.sensor.tls = Some(TlsConfig {
            cert_file: write("client.crt", certificate),
            key_file: write("client.key", key),
            ca_file: write("ca.crt", relays.0.pem()),
        });
        config
    }
}

async fn greets(config: Config, memory: &Memory) -> bool {
    let running = Running::start(config, FakeKernel::default());
    tokio::time::sleep(Duration::from_millis(700)).await;
    running.stop().await;
    !memory.ledger().hellos.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_show_certificates_of_the_right_authority() {
    let (dir, memory, authority) = (
        tempfile::tempdir().unwrap(),
        Memory::default(),
        Authority::new(),
    );
    let relay = FakeRelay::start_tls(&memory, authority.server("localhost", &authority));
    let config = authority.sensor(dir.path(), &relay, &authority);
    let running = Running::start(config, FakeKernel::default());
    eventually("a greeting", || {
        (!memory.ledger().hellos.is_empty()).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_another_authority_or_name_hears_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for server in [
        theirs.server("localhost", &ours),
        ours.server("other.example", &ours),
    ] {
        let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
        let relay = FakeRelay::start_tls(&memory, server);
        assert!(!greets(ours.sensor(dir.path(), &relay, &ours), &memory).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_hears_nothing_of_a_sensor_of_another_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let relay = FakeRelay::start_tls(&memory, ours.server("localhost", &ours));
    assert!(!greets(theirs.sensor(dir.path(), &relay, &ours), &memory).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = settings(dir.path(), &["https://localhost:1".to_owned()]);
    config.sensor.tls = Some(TlsConfig {
        cert_file: dir.path().join("none.crt"),
        key_file: dir.path().join("none.key"),
        ca_file: dir.path().join("none.ca"),
    });
    let built =
        sensor_bpf::Sensor::build_on(config, dir.path().to_owned(), || Ok(FakeKernel::default()));
    let why = built.unwrap_err().to_string();
    assert!(
        why.contains("certificate") && why.contains("none.crt"),
        "{why}"
    );
}
