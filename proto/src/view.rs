//! The fields that filters, metrics and routing look at, borrowed from an event's bytes.

use crate::event::Kind;
use crate::fields::{self, Table, position_of, same};
use crate::slots::{EventSlots, bits};

/// Where the fields of a view are in a kind's table.
struct Places {
    timestamp: usize,
    text: [usize; TEXTS],
}

macro_rules! view {
    ($($(#[$doc:meta])* $field:ident = $name:literal;)*) => {
        /// Some fields of one event, borrowed. A field that the kind does not have, or the event does not set, is empty.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct View<'a> {
            /// Which message it is.
            pub kind: Kind,
            /// Unix seconds; 0 if absent.
            pub timestamp: i64,
            $($(#[$doc])* pub $field: &'a str,)*
        }

        const TEXTS: usize = [$($name),*].len();

        const NAMES: [&str; TEXTS] = [$($name),*];

        impl<'a> View<'a> {
            fn pick(kind: Kind, timestamp: i64, text: [&'a str; TEXTS]) -> Self {
                let [$($field),*] = text;
                View { kind, timestamp, $($field),* }
            }
        }
    };
}

view! {
    /// RFC 3339, UTC, six fraction digits.
    updated_time = "UpdatedTime";
    /// The cluster.
    cluster = "ClusterName";
    /// The node.
    host = "HostName";
    /// Namespace of the pod.
    namespace = "NamespaceName";
    /// The pod.
    pod = "PodName";
    /// `k=v,k=v` of the pod.
    labels = "Labels";
    /// The container's name.
    container_name = "ContainerName";
    /// The runtime's id of the container.
    container_id = "ContainerID";
    /// The container's image.
    container_image = "ContainerImage";
    /// Path of the parent's executable.
    parent_process = "ParentProcessName";
    /// Path of the executable.
    process = "ProcessName";
    /// The policy that decided.
    policy = "PolicyName";
    /// Decimal text, 1 to 10; empty for none.
    severity = "Severity";
    /// The policy's tags, joined by commas.
    tags = "Tags";
    /// The policy's message, or the message's text.
    message = "Message";
    /// MatchedPolicy, ContainerLog, ….
    type_ = "Type";
    /// Who acted.
    source = "Source";
    /// Process, File, Network, ….
    operation = "Operation";
    /// What was acted upon.
    resource = "Resource";
    /// How it was seen.
    data = "Data";
    /// What decided.
    enforcer = "Enforcer";
    /// Block, Audit, Allow, ….
    action = "Action";
    /// Passed, Permission denied, ….
    result = "Result";
    /// DEBUG, INFO, WARN or ERROR; messages only.
    level = "Level";
}

/// Some of a view's texts, for whoever looks at no others: each costs a check of its UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Texts(u32);

impl Texts {
    /// All of them.
    pub const ALL: Texts = Texts((1 << TEXTS) - 1);

    /// Those of these names in KubeArmor's JSON.
    ///
    /// # Panics
    /// A view has none of that name.
    #[must_use]
    pub const fn of(names: &[&str]) -> Texts {
        let (mut set, mut n) = (0, 0);
        while n < names.len() {
            let mut at = 0;
            while !same(NAMES[at].as_bytes(), names[n].as_bytes()) {
                at += 1;
            }
            set |= 1 << at;
            n += 1;
        }
        Texts(set)
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Texts) -> Texts {
        Texts(self.0 | others.0)
    }

    /// Their places among all texts.
    fn each(self) -> impl Iterator<Item = usize> {
        bits(u64::from(self.0))
    }
}

const fn places(table: &Table) -> Places {
    let mut places = Places {
        timestamp: position_of(table, "Timestamp"),
        text: [0; TEXTS],
    };
    let mut n = 0;
    while n < TEXTS {
        places.text[n] = position_of(table, NAMES[n]);
        n += 1;
    }
    places
}

static ALERT: Places = places(&fields::ALERT);
static LOG: Places = places(&fields::LOG);
static MESSAGE: Places = places(&fields::MESSAGE);

impl Places {
    fn of(kind: Kind) -> &'static Places {
        match kind {
            Kind::Alert => &ALERT,
            Kind::Log => &LOG,
            Kind::Message => &MESSAGE,
        }
    }
}

impl<'a> View<'a> {
    /// Reads the view from an event's bytes. Bytes that [`check`](crate::check()) would refuse give an empty view, or
    /// empty fields where only those are broken.
    #[must_use]
    pub fn read(kind: Kind, payload: &'a [u8]) -> Self {
        Self::read_only(kind, payload, Texts::ALL)
    }

    /// The same with no more than these texts; others are empty.
    #[must_use]
    pub fn read_only(kind: Kind, payload: &'a [u8], texts: Texts) -> Self {
        match EventSlots::read(fields::table(kind), payload) {
            Ok(slots) => Self::of(kind, &slots, texts),
            Err(_) => Self::empty(kind),
        }
    }

    /// A view of an event without fields.
    #[must_use]
    pub fn empty(kind: Kind) -> Self {
        Self::pick(kind, 0, [""; TEXTS])
    }

    /// Takes the view out of fields that were found.
    pub(crate) fn of(kind: Kind, slots: &EventSlots<'a>, texts: Texts) -> Self {
        let places = Places::of(kind);
        let mut text = [""; TEXTS];
        for n in texts.each() {
            let at = places.text[n];
            // A kind without the field has a place beyond all slots.
            if at < 64 && slots.has(at) {
                text[n] = std::str::from_utf8(slots.bytes(at)).unwrap_or_default();
            }
        }
        // An i64 travels as the same 64 bits.
        Self::pick(kind, slots.number(places.timestamp) as i64, text)
    }

    /// The pod's labels, pair by pair. Text without `=` is a key with an empty value.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let pairs = self.labels.split(',').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The severity as a number; 0 for none.
    #[must_use]
    pub fn severity_number(&self) -> u32 {
        self.severity.parse().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::feeder;

    #[test]
    fn an_alert_shows_its_fields_by_name() {
        let alert = feeder::Alert {
            timestamp: 1_767_225_600,
            namespace_name: "shop".into(),
            labels: "app=cart,tier=web,odd".into(),
            severity: "7".into(),
            r#type: "MatchedPolicy".into(),
            user_name: "root".into(),
            ..Default::default()
        };
        let bytes = alert.encode_to_vec();
        let view = View::read(Kind::Alert, &bytes);
        assert_eq!(
            (view.timestamp, view.namespace, view.type_),
            (1_767_225_600, "shop", "MatchedPolicy")
        );
        assert_eq!(
            view.labels().collect::<Vec<_>>(),
            [("app", "cart"), ("tier", "web"), ("odd", "")]
        );
        assert_eq!(view.severity_number(), 7);
        assert_eq!((view.pod, view.level), ("", ""));
    }

    #[test]
    fn the_same_field_has_another_number_in_a_log() {
        let log = feeder::Log {
            operation: "File".into(),
            labels: "a=b".into(),
            ..Default::default()
        };
        let bytes = log.encode_to_vec();
        let view = View::read(Kind::Log, &bytes);
        assert_eq!(
            (view.operation, view.labels, view.policy),
            ("File", "a=b", "")
        );
    }

    #[test]
    fn a_message_has_a_level_and_no_pod() {
        let message = feeder::Message {
            level: "WARN".into(),
            message: "hi".into(),
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let view = View::read(Kind::Message, &bytes);
        assert_eq!((view.level, view.message, view.pod), ("WARN", "hi", ""));
    }

    #[test]
    fn a_view_of_some_texts_has_no_others() {
        let alert = feeder::Alert {
            timestamp: 7,
            namespace_name: "shop".into(),
            pod_name: "cart".into(),
            action: "Block".into(),
            ..Default::default()
        };
        let bytes = alert.encode_to_vec();
        let texts = Texts::of(&["NamespaceName"]).and(Texts::of(&["Action"]));
        let some = View::read_only(Kind::Alert, &bytes, texts);
        let whole = View::read(Kind::Alert, &bytes);
        assert_eq!(some, View { pod: "", ..whole });
        let found = crate::Found::read(Kind::Alert, &bytes).unwrap();
        assert_eq!((found.view_of(texts), found.view()), (some, whole));
    }

    #[test]
    fn broken_bytes_give_an_empty_view() {
        let view = View::read(Kind::Alert, &[0x0a, 200]);
        assert_eq!(view, View::read(Kind::Alert, &[]));
    }
}
