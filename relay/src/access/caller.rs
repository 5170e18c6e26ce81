//! Whoever makes a call, as the services see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Role;

/// Who calls, and what they may see. In the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For people: `token of siem.token`, `certificate spiffe://…`, `anonymous`.
    pub name: String,
    /// What they are.
    pub role: Role,
    /// The id in their certificate: the one sensor that they may speak for.
    pub id: Option<String>,
    /// What a reader may see.
    pub namespaces: Namespaces,
}

impl Caller {
    /// Somebody who did not have to say who they are.
    pub(crate) fn guest(role: Role) -> Self {
        Self {
            name: "anonymous".to_owned(),
            role,
            id: None,
            namespaces: Namespaces::default(),
        }
    }

    /// The caller of a request; a request that came through no listener (in a test, say) is a guest's.
    pub(crate) fn of<'a>(extensions: impl Into<Option<&'a Caller>>, role: Role) -> Self {
        extensions
            .into()
            .cloned()
            .unwrap_or_else(|| Self::guest(role))
    }

    /// Is it one sensor, and has shown which?
    #[must_use]
    pub fn is_one_sensor(&self) -> bool {
        self.role == Role::Sensor && self.id.is_some()
    }

    /// May this caller speak in the name of a sensor? Relays forward what others say.
    #[must_use]
    pub fn may_speak_for(&self, sensor: &str) -> bool {
        match (self.role, &self.id) {
            (Role::Sensor, Some(id)) => id == sensor,
            (Role::Sensor | Role::Relay, _) => true,
            (Role::Reader | Role::Admin, _) => false,
        }
    }
}

/// The namespaces that somebody may see: all, or these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Option<Arc<BTreeSet<String>>>);

impl Namespaces {
    /// These and no others.
    pub fn only(names: impl IntoIterator<Item = String>) -> Self {
        Self(Some(Arc::new(names.into_iter().collect())))
    }

    /// Is nothing hidden?
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Is what belongs to this namespace seen? What belongs to none (a host, the relay itself) is hidden from those who do
    /// not see all.
    #[must_use]
    pub fn admits(&self, namespace: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|names| names.contains(namespace))
    }
}
