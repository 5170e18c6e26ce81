//! An authority, what it signed, and connections with it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::expect_used)] // reason: a test that cannot go on has failed

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Certificate and key, in PEM.
pub type Pair = (String, String);

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
            .expect("signed");
        Authority { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a DNS name, as KubeArmor's certificates are.
    pub fn sign(&self, name: &str) -> Pair {
        self.finish(CertificateParams::new(vec![name.to_owned()]).expect("params"))
    }

    /// For `spiffe://example.org/NAME`.
    pub fn spiffe(&self, name: &str) -> Pair {
        self.finish(Self::named(name))
    }

    /// The same, of the past.
    pub fn expired(&self, name: &str) -> Pair {
        let mut params = Self::named(name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.finish(params)
    }

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        let uri = format!("spiffe://example.org/{name}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        params
    }

    fn finish(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// A client that trusts this authority.
    pub fn client(&self, identity: Option<Pair>) -> ClientTlsConfig {
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.issuer.pem()))
            .domain_name("relay.test");
        match identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

pub async fn connect(
    address: SocketAddr,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("https://{address}"))
        .expect("an address")
        .tls_config(tls)?
        .connect()
        .await
}
