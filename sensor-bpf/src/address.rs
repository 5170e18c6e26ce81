//! Relay addresses: `https://HOST:PORT`, or `http://` where the host is loopback.
//!
//! Events tell what a machine does, so they do not leave it unencrypted: a plaintext address is taken only
//! if it cannot leave the machine.

use std::fmt;
use std::net::IpAddr;

use tonic::transport::Uri;

/// One relay, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    uri: Uri,
    tls: bool,
}

/// Why an address is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// Not a URI with a host.
    #[error("{0:?} is not an address; write https://HOST:PORT")]
    Malformed(String),
    /// A scheme other than http or https.
    #[error("{0:?} has an unknown scheme; write https://HOST:PORT")]
    Scheme(String),
    /// Plaintext to another machine.
    #[error(
        "{0:?} is plaintext off this machine; use https and give sensor.tls or sensor.join_token_file"
    )]
    Plaintext(String),
    /// https without certificates.
    #[error(
        "{0:?} needs certificates; give sensor.tls, or sensor.join_token_file to get them from the relay"
    )]
    NoCertificates(String),
}

impl Relay {
    /// Reads `https://HOST:PORT`, `http://LOOPBACK:PORT`, or `HOST:PORT` (https, unless the host is loopback).
    pub fn parse(text: &str, certificates: bool) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = whole.parse().map_err(|_| malformed())?;
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(malformed)?;
        uri.port_u16().ok_or_else(malformed)?;
        let loopback = is_loopback(host);
        match uri.scheme_str() {
            Some("https") if certificates => Ok(Self { uri, tls: true }),
            Some("https") => Err(AddressError::NoCertificates(text.to_owned())),
            Some("http") if loopback => Ok(Self { uri, tls: false }),
            Some("http") if !text.contains("://") && certificates => {
                Self::parse(&format!("https://{text}"), certificates)
            }
            Some("http") => Err(AddressError::Plaintext(text.to_owned())),
            _ => Err(AddressError::Scheme(text.to_owned())),
        }
    }

    /// The address for the connection.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Is it encrypted?
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The name that the relay's certificate must carry.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// `localhost` is loopback by RFC 6761; other names could resolve to anything.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_taken_only_on_loopback() {
        for good in [
            "http://127.0.0.1:9481",
            "http://[::1]:9481",
            "http://localhost:1",
            "127.0.0.1:9481",
        ] {
            assert!(!Relay::parse(good, false).unwrap().is_tls(), "{good}");
        }
        for bad in [
            "http://10.0.0.1:9481",
            "http://relay.example:9481",
            "relay.example:9481",
        ] {
            assert!(
                matches!(Relay::parse(bad, false), Err(AddressError::Plaintext(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn https_needs_certificates() {
        let address = "https://relay.example:9481";
        assert!(matches!(
            Relay::parse(address, false),
            Err(AddressError::NoCertificates(_))
        ));
        assert!(Relay::parse(address, true).unwrap().is_tls());
        assert!(Relay::parse("relay.example:9481", true).unwrap().is_tls());
    }

    #[test]
    fn nonsense_is_refused_with_the_text_in_it() {
        for bad in [
            "",
            "http://",
            "http://127.0.0.1",
            "ftp://127.0.0.1:1",
            "http://:1",
        ] {
            let why = Relay::parse(bad, true).unwrap_err();
            assert!(why.to_string().contains(&format!("{bad:?}")), "{why}");
        }
    }
}
