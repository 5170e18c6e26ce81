//! A client's certificate, after the handshake has found it good.

use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Caller, Denied, Namespaces, Role};

/// What a certificate says of its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presented {
    /// The first URI among its alternative names.
    uri: Option<String>,
    common_name: String,
    /// Unix seconds.
    pub(crate) expires: u64,
    /// SHA-256 of its key (SubjectPublicKeyInfo).
    pub(crate) key: [u8; 32],
}

impl Presented {
    /// Reads a leaf certificate, in DER. One that cannot be read says nothing, and is nobody's.
    pub(crate) fn read(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self::default();
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        let uri = names.and_then(|names| {
            names
                .value
                .general_names
                .iter()
                .find_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                })
        });
        let common_name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        Self {
            uri,
            common_name: common_name.unwrap_or_default().to_owned(),
            expires: u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0),
            key: Sha256::digest(certificate.public_key().raw).into(),
        }
    }

    /// The name by which `relay.access` can mean it.
    pub(crate) fn name(&self) -> &str {
        self.uri.as_deref().unwrap_or(&self.common_name)
    }

    /// Role and id, if its URI is of our form.
    pub(crate) fn named(&self) -> Option<(Role, &str)> {
        self.uri.as_deref().and_then(spiffe)
    }

    /// The id, if its URI is of our form.
    pub(super) fn id(&self) -> Option<&str> {
        self.named().map(|(_, id)| id)
    }

    /// Is its name of this trust domain?
    pub(crate) fn is_of(&self, domain: &str) -> bool {
        let rest = self
            .uri
            .as_deref()
            .and_then(|uri| uri.strip_prefix("spiffe://"));
        rest.and_then(|rest| rest.split_once('/'))
            .is_some_and(|(own, _)| own == domain)
    }

    /// What it is by itself.
    pub(super) fn caller(&self) -> Result<Caller, Denied> {
        let name = format!("certificate {}", self.name());
        let Some(uri) = &self.uri else {
            // KubeArmor's certificates have no URI.
            return Ok(Caller {
                name,
                ..Caller::guest(Role::Reader)
            });
        };
        let (role, id) = spiffe(uri).ok_or_else(|| Denied::Certificate(uri.clone()))?;
        Ok(Caller {
            name,
            role,
            id: Some(id.to_owned()),
            namespaces: Namespaces::default(),
        })
    }
}

/// Role and id of `spiffe://DOMAIN/ROLE/ID` (SPIFFE-ID, section 2).
fn spiffe(uri: &str) -> Option<(Role, &str)> {
    let (domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let (role, id) = path.split_once('/')?;
    let good = !domain.is_empty() && !id.is_empty() && !id.contains('/');
    Role::named(role).filter(|_| good).map(|role| (role, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_has_a_domain_a_role_and_one_id() {
        assert_eq!(
            spiffe("spiffe://example.org/sensor/node-1"),
            Some((Role::Sensor, "node-1"))
        );
        for bad in [
            "spiffe:///sensor/a",
            "spiffe://example.org/sensor/",
            "spiffe://example.org/sensor",
            "spiffe://example.org/root/a",
            "spiffe://example.org/sensor/a/b",
            "https://example.org/sensor/a",
        ] {
            assert_eq!(spiffe(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        assert_eq!(Presented::read(b"garbage"), Presented::default());
    }
}
