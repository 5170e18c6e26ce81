//! A relay of ours as the source of another.

use std::path::{Path, PathBuf};

use proto::Kind;
use proto::batch;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::daemon::free;
use crate::scene::{Kept, daemon_status, eventually, of_streams, pulling};
use crate::support::{Relay, STREAM, alert, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_a_relay_keeps_the_same_events_under_ids_of_its_own() {
    let (here, there) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let upper = Relay::start(there.path()).await;
    let lower = pulling(here.path(), &[upper.at.feed]).await;
    watched(&lower, &upper).await;
    let (mut sensor, _) = upper.welcomed("a").await;
    sensor.batch(1, 3000).await;
    assert_eq!(sensor.ack().await.up_to, 3000);
    let mut kept = Kept::of(&lower, &[Kind::Alert]).await;
    for number in 1..=3000 {
        let (id, payload) = kept.next().await;
        let (_, sent) = batch::split(alert(number)).expect("an event");
        assert_eq!(
            payload, sent,
            "the sensor's bytes, without the other relay's id"
        );
        assert_eq!(id.sequence, number);
        assert_ne!(id.stream, STREAM);
    }
    let status = daemon_status(&lower).await;
    assert_eq!(
        of_streams(&status, |stream| stream.rejected + stream.missed),
        [0, 0, 0]
    );
    lower.stop().await;
    upper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_away_is_read_again() {
    let (here, there) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let feed = free().await;
    let lower = pulling(here.path(), &[feed]).await;
    let mut kept = Kept::of(&lower, &[Kind::Alert]).await;
    for round in 0..3 {
        let mut config = settings(there.path(), "");
        config.relay.listen.feed.address = relay::Address::Tcp(feed);
        let upper = Relay::with(config).await;
        watched(&lower, &upper).await;
        let (mut sensor, _) = upper.welcomed("a").await;
        sensor.batch(10 * round + 1, 10).await;
        assert_eq!(sensor.ack().await.up_to, 10 * round + 10);
        for number in 10 * round + 1..=10 * round + 10 {
            assert_eq!(
                kept.next().await.1,
                batch::split(alert(number)).expect("an event").1
            );
        }
        upper.stop().await;
        eventually("the end is seen", async || {
            !daemon_status(&lower).await.connected
        })
        .await;
    }
    lower.stop().await;
}

/// Waits until the lower relay reads all three kinds of the upper one.
async fn watched(lower: &Relay, upper: &Relay) {
    eventually("it is watched", async || {
        let status = daemon_status(lower).await;
        status.connected && status.streams.iter().all(|stream| stream.open)
    })
    .await;
    // Opened is asked for: the far side's feed has the streams a moment later.
    upper
        .metric_becomes("cresset_feed_clients", |streams| streams >= 3.0)
        .await;
}

/// An authority, and where it puts what it signs.
struct Authority<'a> {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: &'a Path,
}

impl Authority<'_> {
    fn new(folder: &Path) -> Authority<'_> {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
            .expect("signed");
        std::fs::write(folder.join("ca.crt"), issuer.pem()).expect("written");
        Authority { issuer, folder }
    }

    /// Writes NAME.crt and NAME.key for a host.
    fn sign(&self, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("params");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let paths = (
            self.folder.join(format!("{name}.crt")),
            self.folder.join(format!("{name}.key")),
        );
        std::fs::write(&paths.0, certificate.pem()).expect("written");
        std::fs::write(&paths.1, key.serialize_pem()).expect("written");
        paths
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_asked_for_and_shown() {
    let (here, there) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let authority = Authority::new(there.path());
    let (cert_file, key_file) = authority.sign("server", "127.0.0.1");
    let mut config = settings(there.path(), "");
    config.relay.tls = Some(relay::Tls {
        cert_file: Some(cert_file),
        key_file: Some(key_file),
        client_ca_file: Some(there.path().join("ca.crt")),
        ..relay::Tls::default()
    });
    let upper = Relay::with(config).await;
    authority.sign("client", "lower");
    let files = there.path().display();
    let sources = format!(
        "sources:\n  good: {{type: kubearmor, addresses: [\"{at}\"], tls: {{ca_file: {files}/ca.crt, cert_file: {files}/client.crt, key_file: {files}/client.key}}}}\n  \
         nameless: {{type: kubearmor, addresses: [\"https://{at}\"], tls: {{ca_file: {files}/ca.crt}}}}\n  \
         misnamed: {{type: kubearmor, addresses: [\"https://{at}/\"], tls: {{ca_file: {files}/ca.crt, server_name: other.example}}}}\n  \
         plain: {{type: kubearmor, addresses: [\"http://{at}\"]}}\n",
        at = upper.at.feed,
    );
    let lower = Relay::with(settings(here.path(), &sources)).await;
    eventually("one is let in, and three are not", async || {
        let status = crate::scene::status(&lower).await;
        status.sources.iter().all(|source| {
            source.connected == (source.name == "good")
                && (source.name == "good" || source.errors > 1)
        })
    })
    .await;
    lower.stop().await;
    upper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_none_is_named_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("ca.crt"), "no PEM").expect("written");
    let sources = format!(
        "sources: {{old: {{type: kubearmor, addresses: [\"127.0.0.1:1\"], tls: {{ca_file: {}/ca.crt}}}}}}\n",
        folder.path().display()
    );
    let error = match relay::App::build(settings(folder.path(), &sources)).await {
        Ok(_) => panic!("it should not have started"),
        Err(error) => error.to_string(),
    };
    assert!(
        error.contains("source old") && error.contains("ca.crt"),
        "{error}"
    );
}
