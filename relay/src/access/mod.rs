//! Who speaks: every call has a caller with a role, found by its certificate, its token, or the door it came through.
//!
//! ```text
//! connection ─ TLS ─▶ certificate? ─┐
//! call ─ authorization: Bearer … ───┼─▶ Access::admit(door) ─▶ Caller {role, id, namespaces} ─▶ the service
//!                  nothing at all ──┘            └─ no: UNAUTHENTICATED or PERMISSION_DENIED with the reason, counted
//! ```
//! A token decides before a certificate, so that one machine's certificate can carry several readers. A certificate is what
//! its URI SAN says (`spiffe://DOMAIN/ROLE/ID`, SPIFFE-ID 2.1); one without, as KubeArmor's are, is a reader. Entries of
//! `relay.access` override both. Who says nothing is a reader or a sensor only where there is nothing to say it with:
//! on a plaintext door (loopback, or `insecure: true`) without entries for it.

mod caller;
mod config;
mod presented;
mod rules;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::Status;

pub use caller::{Caller, Namespaces};
pub(crate) use config::check;
pub use config::{AccessEntry, Role};
pub(crate) use presented::Presented;
pub use rules::AccessError;
use rules::{Grant, Rules};

/// Where a call comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Readers.
    Feed,
    /// Sensors and other relays.
    Link,
    /// The administrator's socket; its file mode decides who may.
    Admin,
}

impl Door {
    fn admits(self, role: Role) -> bool {
        match self {
            Self::Feed => matches!(role, Role::Reader | Role::Relay | Role::Admin),
            Self::Link => matches!(role, Role::Sensor | Role::Relay),
            Self::Admin => role == Role::Admin,
        }
    }

    /// Who comes here where nobody has to say who they are.
    fn guest(self) -> Role {
        match self {
            Self::Feed => Role::Reader,
            Self::Link => Role::Sensor,
            Self::Admin => Role::Admin,
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Feed => "reader or admin",
            Self::Link => "sensor or relay",
            Self::Admin => "admin",
        }
    }
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error(
        "nobody is known here without a certificate or a token; send `authorization: Bearer TOKEN`, or use a client certificate"
    )]
    Nobody,
    #[error("the token is not known here; it may have been changed or taken out of relay.access")]
    Token,
    #[error("the authorization is not of the form `Bearer TOKEN`")]
    Form,
    #[error(
        "the certificate's name `{0}` says no role; it has to be spiffe://DOMAIN/ROLE/ID with one of sensor, relay, reader, admin"
    )]
    Certificate(String),
    #[error(
        "the certificate `{0}` was revoked, or replaced by another; join again with a new token (`cresset token create`)"
    )]
    Void(String),
    #[error("{who} has the role {role}; this door needs {}", .door.needs())]
    Role { who: String, role: Role, door: Door },
}

impl Denied {
    /// The label of its metric.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Token => "token",
            Self::Form => "form",
            Self::Certificate(_) => "certificate",
            Self::Void(_) => "revoked",
            Self::Role { .. } => "role",
        }
    }
}

impl From<&Denied> for Status {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Nobody | Denied::Token | Denied::Form | Denied::Void(_) => {
                Status::unauthenticated(denied.to_string())
            }
            Denied::Certificate(_) | Denied::Role { .. } => {
                Status::permission_denied(denied.to_string())
            }
        }
    }
}

/// What a call shows of its caller.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown<'a> {
    /// The connection is encrypted and clients may have certificates, so that saying nothing means something.
    pub(crate) asked: bool,
    pub(crate) certificate: Option<&'a Presented>,
    /// The `authorization` header.
    pub(crate) authorization: Option<&'a str>,
}

/// Who may do what; a cheap handle whose rules can be replaced while it is used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    rules: Arc<ArcSwap<Rules>>,
}

impl Access {
    /// Reads the token files.
    ///
    /// # Errors
    /// A token file cannot be read or holds no good token.
    pub(crate) fn load(entries: &[AccessEntry]) -> Result<Self, AccessError> {
        let access = Self::default();
        access.reload(entries)?;
        Ok(access)
    }

    /// Reads them again; after an error the old rules stay.
    pub(crate) fn reload(&self, entries: &[AccessEntry]) -> Result<(), AccessError> {
        self.rules.store(Arc::new(Rules::load(entries)?));
        Ok(())
    }

    /// Takes over the rules of another, which were read already.
    pub(crate) fn replace(&self, other: &Access) {
        self.rules.store(other.rules.load_full());
    }

    /// Can a caller without a certificate be known at this door?
    pub(crate) fn knows_without_certificate(&self, door: Door) -> bool {
        self.rules.load().without_certificate(door)
    }

    /// The caller, if it may come in here.
    pub(crate) fn admit(&self, door: Door, shown: Shown<'_>) -> Result<Caller, Denied> {
        let caller = self.identify(door, shown)?;
        if door.admits(caller.role) {
            return Ok(caller);
        }
        Err(Denied::Role {
            who: caller.name,
            role: caller.role,
            door,
        })
    }

    fn identify(&self, door: Door, shown: Shown<'_>) -> Result<Caller, Denied> {
        if door == Door::Admin {
            return Ok(Caller::guest(door.guest()));
        }
        let rules = self.rules.load();
        if let Some(header) = shown.authorization {
            let token = bearer(header).ok_or(Denied::Form)?;
            let grant = rules.token(token).ok_or(Denied::Token)?;
            return Ok(Caller::granted(grant, None));
        }
        if let Some(certificate) = shown.certificate {
            return match rules.certificate(certificate) {
                Some(grant) => Ok(Caller::granted(grant, certificate.id())),
                None => certificate.caller(),
            };
        }
        match rules.anonymous() {
            Some(grant) if door == Door::Feed => Ok(Caller::granted(grant, None)),
            _ if shown.asked || rules.speaks_of(door) => Err(Denied::Nobody),
            _ => Ok(Caller::guest(door.guest())),
        }
    }
}

/// The token of an `authorization` header (RFC 6750, 2.1; the scheme's case does not count, RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

impl Caller {
    fn granted(grant: &Grant, id: Option<&str>) -> Self {
        Self {
            name: grant.name.clone(),
            role: grant.role,
            id: id.map(str::to_owned),
            namespaces: grant.namespaces.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
