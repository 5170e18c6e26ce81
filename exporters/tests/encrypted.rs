//! Sinks that do not speak HTTP/1, over TLS and through a proxy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/events.rs"]
mod events;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use events::{alert, alerts, ids, letters, sink, steps};

const SOON: Duration = Duration::from_secs(60);

/// An authority in `folder` and a certificate of it for 127.0.0.1: certificate and key as PEM.
fn certified(folder: &Path) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.crt"), issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn syslog_over_tls_reaches_the_receiver_that_the_authority_vouches_for() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (certificate, key) = certified(folders[0].path());
    certified(folders[1].path());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, mut told) = mpsc::channel(9);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut all = Vec::new();
            // A connection that ends without good-bye would be an error here.
            stream.read_to_end(&mut all).await.unwrap();
            tell.send(String::from_utf8(all).unwrap()).await.unwrap();
        }
    });
    let to = |folder: &Path| {
        sink(&format!(
            "{{type: syslog, transport: tls, address: '{at}', tls: {{ca_file: '{}'}}}}",
            folder.join("ca.crt").display()
        ))
    };
    let stranger = to(folders[1].path()).send(alerts(1)).await.unwrap_err();
    assert!(stranger.reason.contains("TLS"), "{stranger}");
    let (tried, why) = steps(&*to(folders[1].path()), alert(1, "cart")).await;
    assert_eq!(tried, ["+resolve", "+connect", "-TLS"], "{why}");
    assert!(why.contains("tls.ca_file"), "{why}");
    let sink = to(folders[0].path());
    let (tried, why) = steps(&*sink, alert(99, "marked")).await;
    assert_eq!(tried, ["+resolve", "+connect", "+TLS", "+write"], "{why}");
    // The way is tried with a connection of its own, which says good-bye.
    assert_eq!(timeout(SOON, told.recv()).await.unwrap().unwrap(), "");
    let batch = alerts(30);
    let outcomes = timeout(SOON, sink.send(batch.clone()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(letters(&outcomes), "d".repeat(30));
    sink.flush().await.unwrap();
    let all = timeout(SOON, told.recv()).await.unwrap().unwrap();
    assert!(ids(&batch).iter().all(|id| all.contains(id)));
}

#[derive(Clone, Default)]
struct Door(Arc<Mutex<usize>>);

#[tonic::async_trait]
impl LogsService for Door {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        if request
            .metadata()
            .get("authorization")
            .is_none_or(|text| text != "Bearer hush")
        {
            return Err(Status::unauthenticated("who are you?"));
        }
        for logs in request
            .get_ref()
            .resource_logs
            .iter()
            .flat_map(|logs| &logs.scope_logs)
        {
            *self.0.lock().unwrap() += logs.log_records.len();
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// A proxy that only knows CONNECT, and who asks.
async fn proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                if !head.contains("Proxy-Authorization: Basic bWU6aHVzaA==\r\n") {
                    let _ = stream.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n").await;
                    return;
                }
                let to = head
                    .strip_prefix("CONNECT ")
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap();
                let mut there = TcpStream::connect(to).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 Fine\r\n\r\n")
                    .await
                    .unwrap();
                let _ = copy_bidirectional(&mut stream, &mut there).await;
            });
        }
    });
    format!("http://{at}")
}

#[tokio::test]
async fn otlp_over_grpc_goes_encrypted_through_a_proxy_with_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certified(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let door = Door::default();
    let service = LogsServiceServer::new(door.clone());
    tokio::spawn(async move {
        let identity = Identity::from_pem(certificate, key);
        Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    let secret = folder.path().join("hush");
    fs::write(&secret, "hush\n").unwrap();
    let (proxy, secret) = (proxy().await, secret.display().to_string());
    let to = |user: &str| {
        sink(&format!(
            "{{type: otlp, endpoint: 'https://{at}', tls: {{ca_file: '{}'}}, auth: {{token_file: '{secret}'}}, \
             proxy: {{url: '{proxy}', username: {user}, password_file: '{secret}'}}}}",
            folder.path().join("ca.crt").display()
        ))
    };
    let refused = timeout(SOON, to("you").send(alerts(1)))
        .await
        .unwrap()
        .unwrap_err();
    assert!(refused.reason.contains("407"), "{refused}");
    let outcomes = timeout(SOON, to("me").send(alerts(30)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(letters(&outcomes), "d".repeat(30));
    assert_eq!(*door.0.lock().unwrap(), 30);
}
