//! A connection to a relay that says in every call who calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use clap::Args;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};
use tower::Service;

use super::Trouble;

/// KubeArmor's usual folder of certificates.
const KUBEARMOR: &str = "/var/lib/kubearmor/tls";

/// Who asks.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// File with the token that this reader is known by
    #[arg(long, value_name = "FILE", env = "CRESSET_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the authority that signed the relay's certificate; with it the connection is encrypted
    #[arg(long, value_name = "FILE", env = "CRESSET_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// PEM file with this reader's certificate
    #[arg(long, value_name = "FILE", requires = "key_file", requires = "ca_file")]
    cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// The name in the relay's certificate, where it is not the address's
    #[arg(long, value_name = "NAME", requires = "ca_file")]
    server_name: Option<String>,
    /// As karmor spells it: certificates out of a folder
    #[arg(long, hide = true)]
    secure: bool,
    /// ca.crt, client.crt and client.key lie here
    #[arg(
        long = "tlsCertPath",
        hide = true,
        requires = "secure",
        value_name = "DIR"
    )]
    tls_cert_path: Option<PathBuf>,
}

impl Credentials {
    /// Is the connection to be encrypted?
    pub(crate) fn is_encrypted(&self) -> bool {
        self.secure || self.ca_file.is_some()
    }

    /// The endpoint, encrypted if that was asked for.
    pub(crate) fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, Trouble> {
        if !self.is_encrypted() {
            return Ok(endpoint);
        }
        let folder = self
            .tls_cert_path
            .as_deref()
            .unwrap_or(Path::new(KUBEARMOR));
        let of_folder = |name: &str| self.secure.then(|| folder.join(name));
        let ca = self.ca_file.clone().or_else(|| of_folder("ca.crt"));
        let certificate = self.cert_file.clone().or_else(|| of_folder("client.crt"));
        let key = self.key_file.clone().or_else(|| of_folder("client.key"));
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(&ca)?));
        }
        if let (Some(certificate), Some(key)) = (certificate, key) {
            tls = tls.identity(Identity::from_pem(read(&certificate)?, read(&key)?));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        endpoint
            .tls_config(tls)
            .map_err(|error| Trouble::Usage(super::deepest(&error)))
    }

    /// The value of the `authorization` header.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, Trouble> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&read(file)?).into_owned();
        let token = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'));
        let value = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let mut value = value.ok_or_else(|| {
            Trouble::Usage(format!(
                "{} holds no token; write one on a line",
                file.display()
            ))
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    fs::read(path)
        .map_err(|error| Trouble::Usage(format!("cannot read {}: {error}", path.display())))
}

/// A channel whose calls carry a token, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Authorized {
    channel: Channel,
    authorization: Option<HeaderValue>,
}

impl Authorized {
    pub(crate) fn new(channel: Channel, authorization: Option<HeaderValue>) -> Self {
        Self {
            channel,
            authorization,
        }
    }
}

impl Service<Request<Body>> for Authorized {
    type Response = Response<Body>;
    type Error = Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        self.channel.call(request)
    }
}
