//! The way to a destination, step by step: what `cresset sink test` shows before anything is sent.
//!
//! ```text
//! resolve ─▶ connect ─▶ proxy, if there is one ─▶ TLS, if it is encrypted
//! ```
//! The connection is one of its own and is closed again; what the steps find out is the same for the sink's own, which is made
//! right after them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Dial, Wire, bare, tls_trouble};
use crate::{Failed, Trial};

/// For a server that ends a connection of which it does not like the certificate: with TLS 1.3 it says so after the handshake.
const SECOND_THOUGHTS: Duration = Duration::from_millis(500);

impl Dial {
    /// Goes all the way once.
    ///
    /// # Errors
    /// A step failed; it has been told.
    pub(crate) async fn try_out(&self, trial: &Trial) -> Result<(), Failed> {
        let first = match self.proxy.address() {
            None => (self.host.clone(), self.port),
            Some(Ok(url)) => {
                let port = url.port_or_known_default().unwrap_or(80);
                (url.host_str().unwrap_or_default().to_owned(), port)
            }
            // Settings that hold such an address are refused when they are read.
            Some(Err(why)) => return trial.step("proxy", async { Err(why) }).await,
        };
        let mut stream = reach(trial, &[first]).await?;
        if let Some(proxy) = &self.proxy.url {
            let asked = async {
                self.ask_proxy(&mut stream).await?;
                Ok(((), format!("{proxy} leads to {}:{}", self.host, self.port)))
            };
            trial.step("proxy", asked).await?;
        }
        if self.tls.is_some() {
            trial.step("TLS", self.handshake(stream)).await?;
        }
        Ok(())
    }

    async fn handshake(&self, stream: TcpStream) -> Result<((), String), String> {
        let Wire::Encrypted(mut stream) = self.encrypt(stream).await? else {
            return Ok(((), "not encrypted".to_owned()));
        };
        let mut byte = [0];
        if let Ok(Err(error)) = timeout(SECOND_THOUGHTS, stream.read(&mut byte)).await {
            return Err(tls_trouble(&error));
        }
        // A receiver takes a connection that ends without a word for one that broke.
        let _ = timeout(SECOND_THOUGHTS, stream.shutdown()).await;
        let (_, session) = stream.get_ref();
        let version = session
            .protocol_version()
            .and_then(|v| v.as_str().map(str::to_owned));
        let version = version.unwrap_or_default().replace('_', ".");
        Ok(((), format!("{version}, its certificate is good")))
    }
}

/// The steps `resolve` and `connect`, to the first of these hosts and ports that can be reached.
///
/// # Errors
/// None can; it has been told.
pub(crate) async fn reach(trial: &Trial, hosts: &[(String, u16)]) -> Result<TcpStream, Failed> {
    let addresses = trial.step("resolve", resolve(hosts)).await?;
    trial.step("connect", connect(&addresses)).await
}

async fn resolve(hosts: &[(String, u16)]) -> Result<(Vec<SocketAddr>, String), String> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (host, port) in hosts {
        match lookup_host((bare(host), *port)).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => wrong.push(format!("{host}: {error}")),
        }
    }
    if found.is_empty() {
        wrong.push("check the name in the sink's settings, and this machine's DNS".to_owned());
        return Err(wrong.join("; "));
    }
    let mut told: Vec<String> = found.iter().map(ToString::to_string).collect();
    told.extend(wrong);
    Ok((found, told.join(", ")))
}

async fn connect(addresses: &[SocketAddr]) -> Result<(TcpStream, String), String> {
    let mut wrong = Vec::new();
    // Leaves time to hear of all of them, for a step has its own limit.
    let each = Duration::from_secs(10) / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, format!("{address} answers"))),
            Ok(Err(error)) => wrong.push(format!("{address}: {error}")),
            Err(_) => wrong.push(format!(
                "{address}: no answer; a firewall may stand in between"
            )),
        }
    }
    wrong.push("check host and port in the sink's settings, and that the server runs".to_owned());
    Err(wrong.join("; "))
}
