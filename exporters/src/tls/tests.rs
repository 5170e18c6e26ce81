//! Real handshakes over loopback, with authorities made here.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// An authority and the files that it signs.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `NAME.crt` and `NAME.key`.
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn trusted(&self) -> ClientTls {
        ClientTls {
            ca_file: Some(self.file("ca.crt")),
            ..Default::default()
        }
    }

    /// Speaks a little HTTP with whoever proves to be known to `clients`, or with anybody.
    async fn serve(&self, name: &str, clients: Option<&Authority>) -> u16 {
        self.sign(name);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let roots = Arc::new(authority.trusted().roots().unwrap());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = certificates(&self.file(&format!("{name}.crt"))).unwrap();
        let key = key(&self.file(&format!("{name}.key"))).unwrap();
        let config = builder.with_single_cert(chain, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
                    )
                    .await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }
}

/// What the server answers over a bare connection.
async fn ask(tls: &ClientTls, port: u16) -> Result<String, String> {
    let config = tls.client_config(&[]).map_err(|e| e.to_string())?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = tls.name_of("127.0.0.1").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector
        .connect(name, stream)
        .await
        .map_err(|e| e.to_string())?;
    stream
        .write_all(b"hello")
        .await
        .map_err(|e| e.to_string())?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.map(|_| answer).map_err(|e| e.to_string())
}

#[tokio::test]
async fn only_a_certificate_of_the_named_authority_for_the_right_name_is_taken() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (here, there) = (
        ours.serve("127.0.0.1", None).await,
        ours.serve("siem.example", None).await,
    );
    assert!(ask(&ours.trusted(), here).await.is_ok());
    let stranger = ask(&other.trusted(), here).await.unwrap_err();
    assert!(stranger.contains("certificate"), "{stranger}");
    assert!(ask(&ours.trusted(), there).await.is_err());
    let named = ClientTls {
        server_name: Some("siem.example".into()),
        ..ours.trusted()
    };
    assert!(ask(&named, there).await.is_ok());
    // Without a file the system's authorities count, and ours is none of them.
    assert!(ask(&ClientTls::default(), here).await.is_err());
    let careless = ClientTls {
        insecure_skip_verify: true,
        ..Default::default()
    };
    assert!(ask(&careless, there).await.is_ok());
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let ours = Authority::new();
    let port = ours.serve("127.0.0.1", Some(&ours)).await;
    assert!(ask(&ours.trusted(), port).await.is_err());
    ours.sign("client");
    let known = ClientTls {
        cert_file: Some(ours.file("client.crt")),
        key_file: Some(ours.file("client.key")),
        ..ours.trusted()
    };
    assert!(ask(&known, port).await.unwrap().ends_with("ok"));
    let pem = String::from_utf8(known.identity_pem().unwrap().unwrap()).unwrap();
    assert!(pem.contains("BEGIN CERTIFICATE") && pem.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn the_http_client_takes_the_same_settings() {
    let ours = Authority::new();
    let port = ours.serve("siem.example", None).await;
    let named = ClientTls {
        server_name: Some("siem.example".into()),
        ..ours.trusted()
    };
    let config = named.client_config(&["h2", "http/1.1"]).unwrap();
    let client = reqwest::Client::builder()
        .use_preconfigured_tls(config)
        .build()
        .unwrap();
    let answer = client
        .get(format!("https://127.0.0.1:{port}/"))
        .send()
        .await;
    assert_eq!(answer.unwrap().text().await.unwrap(), "ok");
}

#[test]
fn a_file_that_is_missing_or_no_pem_is_named() {
    let ours = Authority::new();
    fs::write(ours.file("empty"), "").unwrap();
    for (file, why) in [("none", "No such file"), ("empty", "no certificate")] {
        let tls = ClientTls {
            ca_file: Some(ours.file(file)),
            ..Default::default()
        };
        let error = tls.client_config(&[]).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(why), "{error}");
        assert_eq!(tls.ca_pem().unwrap_err().to_string(), error);
    }
}

#[test]
fn a_changed_file_has_another_stamp() {
    let ours = Authority::new();
    let tls = ours.trusted();
    let before = tls.stamp();
    assert_eq!(tls.stamp(), before);
    fs::write(ours.file("ca.crt"), "another").unwrap();
    assert_ne!(tls.stamp(), before);
}

#[test]
fn what_cannot_work_is_told_with_its_place() {
    let text = "tls:\n  ca_file: ca.crt\n  cert_file: /c\n  server_name: 'a b'\n  insecure_skip_verify: true\n";
    let (nodes, mut problems) = yaml::parse("c.yaml", text);
    let node = nodes[0].get("tls").unwrap();
    let tls: ClientTls = node.read(Severity::Error, &mut problems).unwrap();
    tls.check("tls", &nodes[0], &mut problems);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for (at, part) in [
        (0, "c.yaml:3: tls.cert_file: needs its key"),
        (1, "c.yaml:2: tls.ca_file: must begin with `/`"),
        (2, "c.yaml:4: tls.server_name:"),
        (3, "c.yaml:5: tls.insecure_skip_verify:"),
    ] {
        assert!(told[at].starts_with(part), "{told:#?}");
    }
    assert_eq!(problems.iter().filter(|p| !p.is_error()).count(), 1);
}
