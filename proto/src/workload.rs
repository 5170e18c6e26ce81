//! Whose event it is, as people count their workloads.

use crate::event::Kind;
use crate::fields::{self, FieldType, Table, position_of};
use crate::slots::{EventSlots, Slots};

/// Where the names are in a kind's table.
struct Places {
    owner: usize,
    pod: usize,
    container: usize,
}

const fn places(table: &Table) -> Places {
    Places {
        owner: position_of(table, "Owner"),
        pod: position_of(table, "PodName"),
        container: position_of(table, "ContainerName"),
    }
}

static ALERT: Places = places(&fields::ALERT);
static LOG: Places = places(&fields::LOG);

/// The name of the pod's owner (its Deployment, say); without one the pod's; without that the container's. Empty for what is in
/// no workload: host processes and messages. Bytes that [`check`](crate::check()) would refuse give an empty name.
#[must_use]
pub fn workload(kind: Kind, payload: &[u8]) -> &str {
    match EventSlots::read(fields::table(kind), payload) {
        Ok(slots) => of(kind, &slots),
        Err(_) => "",
    }
}

/// The same of fields that were found.
pub(crate) fn of<'a>(kind: Kind, slots: &EventSlots<'a>) -> &'a str {
    let places = match kind {
        Kind::Alert => &ALERT,
        Kind::Log => &LOG,
        Kind::Message => return "",
    };
    let table = fields::table(kind);
    owner(slots, table, places.owner)
        .or_else(|| text(slots, places.pod))
        .or_else(|| text(slots, places.container))
        .unwrap_or_default()
}

fn owner<'a>(slots: &EventSlots<'a>, table: &'static Table, at: usize) -> Option<&'a str> {
    let field = &table.fields()[at];
    let FieldType::Message(nested) = field.ty else {
        return None;
    };
    let owner = slots.nested(at, field, nested).ok()?;
    text(&owner, position_of(nested, "Name"))
}

fn text<'a, const N: usize>(slots: &Slots<'a, N>, at: usize) -> Option<&'a str> {
    let text = slots.has(at).then(|| slots.bytes(at))?;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::feeder::{Log, Message, Podowner};

    fn of(log: &Log) -> String {
        workload(Kind::Log, &log.encode_to_vec()).to_owned()
    }

    #[test]
    fn the_owner_counts_before_the_pod_and_the_pod_before_the_container() {
        let mut log = Log {
            container_name: "main".into(),
            ..Default::default()
        };
        assert_eq!(of(&log), "main");
        log.pod_name = "cart-7f9-x2".into();
        assert_eq!(of(&log), "cart-7f9-x2");
        log.owner = Some(Podowner::default());
        assert_eq!(of(&log), "cart-7f9-x2");
        log.owner = Some(Podowner {
            name: "cart".into(),
            ..Default::default()
        });
        assert_eq!(of(&log), "cart");
    }

    #[test]
    fn a_message_and_broken_bytes_have_none() {
        let message = Message {
            message: "hi".into(),
            ..Default::default()
        };
        assert_eq!(workload(Kind::Message, &message.encode_to_vec()), "");
        assert_eq!(workload(Kind::Log, &[0x0a, 200]), "");
    }
}
