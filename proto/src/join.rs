//! The token with which a machine joins a relay that it has never met.
//!
//! ```text
//! cresset-join.1f2e3d4c5b6a.00112233445566778899aabbccddeeff.9f86d081…0f00a08
//!              name         secret                           pin
//! ```
//! *Name* is how people and logs speak of it. *Secret* says that its holder may join; the relay keeps only its digest.
//! *Pin* is the SHA-256 of the public key (SubjectPublicKeyInfo) of the relay's authority, as in kubeadm's
//! `--discovery-token-ca-cert-hash`: with it the machine knows the relay before it shows the secret to anybody.

use std::fmt;
use std::str::FromStr;

use crate::ids::{parse_hex, write_hex};

/// The name that a relay with an authority of its own proves, whatever its address: such an authority signs nothing else
/// for servers.
pub const RELAY_NAME: &str = "relay.cresset.internal";

/// What every token begins with, so that scanners of leaked secrets know it.
const PREFIX: &str = "cresset-join";

/// A token; its `Debug` form keeps the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    name: [u8; 6],
    secret: [u8; 16],
    pin: [u8; 32],
}

/// Text that is no token. It is not repeated: it may be a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token; it has the form {PREFIX}.NAME.SECRET.PIN, as `cresset token create` prints it"
)]
pub struct BadToken;

impl JoinToken {
    /// Draws a new one for the relay whose authority's key has this SHA-256.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn draw(pin: [u8; 32]) -> Result<Self, getrandom::Error> {
        let (mut name, mut secret) = ([0; 6], [0; 16]);
        getrandom::fill(&mut name)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { name, secret, pin })
    }

    /// What it is called where it must not be shown.
    #[must_use]
    pub fn name(&self) -> String {
        hex(&self.name)
    }

    /// What has to stay between its holder and the relay.
    #[must_use]
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the relay's authority.
    #[must_use]
    pub fn pin(&self) -> &[u8; 32] {
        &self.pin
    }

    /// The text for its holder, secret and all.
    #[must_use]
    pub fn reveal(&self) -> String {
        let Self { name, secret, pin } = self;
        format!("{PREFIX}.{}.{}.{}", hex(name), hex(secret), hex(pin))
    }
}

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let mut parts = text.trim().split('.');
        let mut next = || parts.next().ok_or(BadToken);
        if next()? != PREFIX {
            return Err(BadToken);
        }
        let token = Self {
            name: parse_hex(next()?).map_err(|_| BadToken)?,
            secret: parse_hex(next()?).map_err(|_| BadToken)?,
            pin: parse_hex(next()?).map_err(|_| BadToken)?,
        };
        if parts.next().is_some() {
            return Err(BadToken);
        }
        Ok(token)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.name())
    }
}

/// Bytes as lower-case hex.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(self.0, f)
    }
}

fn hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_printed_and_keeps_its_secret_in_logs() {
        let token = JoinToken::draw([7; 32]).unwrap();
        let text = token.reveal();
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        let secret = hex(token.secret());
        assert!(text.contains(&secret) && !format!("{token:?}").contains(&secret));
    }

    #[test]
    fn what_is_cut_or_longer_or_another_is_no_token() {
        let text = JoinToken::draw([7; 32]).unwrap().reveal();
        let cut = &text[..text.len() - 1];
        let longer = format!("{text}.00");
        let other = text.replace("cresset-join", "kubeadm");
        for bad in [cut, &longer, &other, "", "...", "cresset-join"] {
            assert_eq!(bad.parse::<JoinToken>(), Err(BadToken), "{bad}");
        }
    }
}
