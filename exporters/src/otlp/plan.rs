//! What becomes of each field of the field table, worked out once for each kind of event.

use std::sync::LazyLock;

use proto::{Found, Kind, fields};

use super::attribute::Name;

/// Names in the field table that say where an event comes from: they are the resource's.
pub(super) const PLACES: [&str; 9] = [
    "k8s.cluster.name",
    "host.name",
    "host.ip",
    "host.id",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.id",
    "container.image.name",
];

/// Those that have a place of their own in a record; the id does not come out of the event's bytes.
const ELSEWHERE: [&str; 3] = ["@timestamp", "kubearmor.timestamp", "log.record.uid"];

/// What becomes of the fields of one kind. Bits are places in its table.
pub(super) struct Plan {
    /// By place.
    names: Vec<Name>,
    /// Of the resource.
    places: u64,
    /// Attributes of the record.
    attributes: u64,
    owner: u64,
}

/// The plan for a kind of event.
pub(super) fn plan(kind: Kind) -> &'static Plan {
    static PLANS: LazyLock<[Plan; 3]> = LazyLock::new(|| Kind::ALL.map(Plan::new));
    &PLANS[kind as usize - 1]
}

impl Plan {
    fn new(kind: Kind) -> Self {
        let names: Vec<&str> = fields::of(kind).iter().map(|field| field.otel).collect();
        let bits = |wanted: &dyn Fn(&str) -> bool| {
            let places = names.iter().enumerate().filter(|(_, name)| wanted(name));
            places.fold(0, |bits, (at, _)| bits | 1 << at)
        };
        Plan {
            places: bits(&|name| PLACES.contains(&name)),
            attributes: bits(&|name| !PLACES.contains(&name) && !ELSEWHERE.contains(&name)),
            owner: bits(&|name| name == "kubearmor.owner"),
            names: names.into_iter().map(Name::new).collect(),
        }
    }

    /// The fields of an event that belong to its resource, with their names.
    pub(super) fn places(
        &self,
        found: &Found<'_>,
    ) -> impl Iterator<Item = (usize, &Name)> + use<'_> {
        self.those(found, self.places)
    }

    /// The fields of an event that are attributes of its record, with their names.
    pub(super) fn attributes(
        &self,
        found: &Found<'_>,
    ) -> impl Iterator<Item = (usize, &Name)> + use<'_> {
        self.those(found, self.attributes)
    }

    /// The fields of an event that have a place of their own.
    pub(super) fn elsewhere(&self, found: &Found<'_>) -> impl Iterator<Item = usize> + use<> {
        found.shown_among(!(self.places | self.attributes))
    }

    /// Where the owner is, if there is one.
    pub(super) fn owner(&self, found: &Found<'_>) -> Option<usize> {
        found.shown_among(self.owner).next()
    }

    fn those(
        &self,
        found: &Found<'_>,
        wanted: u64,
    ) -> impl Iterator<Item = (usize, &Name)> + use<'_> {
        let shown = found.shown_among(wanted);
        shown.map(|at| (at, &self.names[at]))
    }
}
