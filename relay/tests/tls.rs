//! Certificates on the listeners: who has none of the right kind is not let in.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::path::{Path, PathBuf};

use proto::feeder::NonceMessage;
use proto::feeder::log_service_client::LogServiceClient;
use proto::link::from_relay::Is as Reply;
use proto::link::link_client::LinkClient;
use proto::link::{self, from_sensor};
use relay::{App, Config};
use support::authority::{Authority, connect};
use support::{Relay, SOON, hello, settings};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

fn with_tls(folder: &Path, authority: &Authority) -> Config {
    let (certificate, key) = authority.sign("relay.test");
    let mut config = settings(folder, "");
    config.relay.tls = Some(relay::Tls {
        cert_file: Some(write(folder, "server.crt", &certificate)),
        key_file: Some(write(folder, "server.key", &key)),
        client_ca_file: Some(write(folder, "ca.crt", &authority.pem())),
        ..relay::Tls::default()
    });
    config
}

/// Says Hello and hears whether it is welcome.
async fn greet(channel: Channel) -> Result<bool, tonic::Status> {
    let first = link::FromSensor {
        is: Some(from_sensor::Is::Hello(hello("a"))),
    };
    let say = futures::StreamExt::chain(futures::stream::iter([first]), futures::stream::pending());
    let mut heard = timeout(SOON, LinkClient::new(channel).exchange(say))
        .await
        .expect("in time")?
        .into_inner();
    let first = timeout(SOON, heard.message()).await.expect("in time")?;
    Ok(matches!(
        first.and_then(|first| first.is),
        Some(Reply::Welcome(_))
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_needs_a_certificate_of_the_right_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let relay = Relay::with(with_tls(folder.path(), &authority)).await;

    let channel = connect(
        relay.at.link,
        authority.client(Some(authority.spiffe("sensor/a"))),
    )
    .await
    .expect("connected");
    assert!(greet(channel).await.expect("an answer"));

    for identity in [None, Some(stranger.spiffe("sensor/a"))] {
        // TLS 1.3 refuses a client's certificate after the handshake has ended on its side.
        let refused = match connect(relay.at.link, authority.client(identity)).await {
            Ok(channel) => greet(channel).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
    // Plaintext: HTTP/2 is no TLS handshake.
    let plain = Endpoint::from_shared(format!("http://{}", relay.at.link)).expect("an address");
    let refused = match plain.connect().await {
        Ok(channel) => greet(channel).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    // At least: clients try again by themselves.
    let failures = r#"cresset_connection_failures_total{listener="link",reason="tls"}"#;
    relay.metric_becomes(failures, |count| count >= 3.0).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_over_tls_with_its_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let relay = Relay::with(with_tls(folder.path(), &authority)).await;
    let channel = connect(
        relay.at.feed,
        authority.client(Some(authority.sign("reader"))),
    )
    .await
    .expect("connected");
    let reply = LogServiceClient::new(channel)
        .health_check(NonceMessage { nonce: 5 })
        .await
        .expect("a reply");
    assert_eq!(reply.into_inner().retval, 5);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_certificates_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let good = with_tls(folder.path(), &authority);
    for (name, text) in [("server.crt", "no PEM"), ("server.key", ""), ("ca.crt", "")] {
        let path = folder.path().join(name);
        let before = std::fs::read_to_string(&path).expect("read");
        std::fs::write(&path, text).expect("written");
        let error = match App::build(good.clone()).await {
            Ok(_) => panic!("it should not have started with {name}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(&path.display().to_string()), "{error}");
        std::fs::write(&path, before).expect("written");
    }
}
