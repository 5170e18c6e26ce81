//! What every destination for people wants to know of an event: when it was, how grave it is, and what happened in one line.

use jiff::Timestamp;
use proto::{Kind, View};

/// When the event was built: `UpdatedTime`, else `Timestamp`; none if it has neither.
pub(crate) fn time(view: &View<'_>) -> Option<Timestamp> {
    let exact = view.updated_time.parse().ok();
    exact.or_else(|| match view.timestamp {
        0 => None,
        seconds => Timestamp::from_second(seconds).ok(),
    })
}

/// How grave an event is, 0 to 10, as alerts count it. Logs are 1; messages by their level.
pub(crate) fn gravity(view: &View<'_>) -> u32 {
    match view.kind {
        // An alert without severity is still an alert.
        Kind::Alert if view.severity.is_empty() => 5,
        Kind::Alert => view.severity_number().min(10),
        Kind::Log => 1,
        Kind::Message => match view.level {
            "ERROR" => 7,
            "WARN" => 5,
            "DEBUG" => 0,
            _ => 1,
        },
    }
}

/// What happened, in one line for people.
pub(crate) fn summary(view: &View<'_>) -> String {
    let mut line = String::new();
    say(view, |part| line.push_str(part));
    line
}

/// The same, part by part.
pub(crate) fn say<'a>(view: &View<'a>, mut say: impl FnMut(&'a str)) {
    if view.kind == Kind::Message {
        return words([view.level, view.message], &mut say);
    }
    if !view.policy.is_empty() {
        say(view.policy);
        say(": ");
    }
    words([view.action, view.operation, view.resource], &mut say);
    let place = match (view.namespace, view.pod) {
        ("", "") => [view.host, "", ""],
        (namespace, pod) => [namespace, "/", pod],
    };
    for (before, what) in [
        (" by ", [view.process, "", ""]),
        (" in ", place),
        (", ", [view.result, "", ""]),
    ] {
        if what != [""; 3] {
            say(before);
            what.into_iter().for_each(&mut say);
        }
    }
}

/// With spaces between them.
fn words<'a, const N: usize>(words: [&'a str; N], say: &mut impl FnMut(&'a str)) {
    let there = words.into_iter().filter(|word| !word.is_empty());
    for (n, word) in there.enumerate() {
        if n > 0 {
            say(" ");
        }
        say(word);
    }
}

/// The other end of a network event: address and port, as far as they are told (reference: KubeArmor's `remoteip=… port=…`,
/// `sin_addr=… sin_port=…`, `daddr=…`).
pub(crate) fn peer<'a>(view: &View<'a>) -> (Option<&'a str>, Option<u16>) {
    let word = |keys: &[&str]| {
        let words = view.resource.split(' ').chain(view.data.split(' '));
        let mut pairs = words.filter_map(|word| word.split_once('='));
        pairs
            .find(|(key, _)| keys.contains(key))
            .map(|(_, value)| value)
    };
    let port = word(&["port", "sin_port"]).and_then(|port| port.parse().ok());
    (word(&["remoteip", "sin_addr", "daddr"]), port)
}

/// Whether a program is started. For these alone `Source` is the parent's command line and `Resource` the program's own
/// (reference: KubeArmor's events); a `ptrace`, which is a Process event too, has the other process as its resource.
pub(crate) fn starts(view: &View<'_>) -> bool {
    view.operation == "Process" && !view.data.contains("SYS_PTRACE")
}

/// Executable and command line of the process that acted.
pub(crate) fn actor<'a>(view: &View<'a>) -> (&'a str, &'a str) {
    match starts(view) {
        true => (view.parent_process, view.source),
        false => (view.process, view.source),
    }
}

/// Whether the other end of a connection began it.
pub(crate) fn is_inbound(view: &View<'_>) -> bool {
    ["_ACCEPT", "tcp_accept"]
        .iter()
        .any(|word| view.data.contains(word))
}

/// At most so many characters, with a mark where something is left out.
pub(crate) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => {
            let end = text
                .char_indices()
                .nth(characters.saturating_sub(1))
                .map_or(0, |(at, _)| at);
            format!("{}…", &text[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::feeder;

    use super::*;

    #[test]
    fn an_alert_is_told_in_one_line() {
        let alert = feeder::Alert {
            namespace_name: "shop".into(),
            pod_name: "cart-1".into(),
            policy_name: "no-apt".into(),
            action: "Block".into(),
            operation: "Process".into(),
            resource: "/usr/bin/apt update".into(),
            process_name: "/usr/bin/apt".into(),
            result: "Permission denied".into(),
            severity: "8".into(),
            updated_time: "2026-01-01T00:00:00.123456Z".into(),
            ..Default::default()
        };
        let bytes = alert.encode_to_vec();
        let view = View::read(Kind::Alert, &bytes);
        assert_eq!(
            summary(&view),
            "no-apt: Block Process /usr/bin/apt update by /usr/bin/apt in shop/cart-1, Permission denied"
        );
        assert_eq!(gravity(&view), 8);
        assert_eq!(time(&view).unwrap().as_microsecond(), 1_767_225_600_123_456);
    }

    #[test]
    fn the_peer_of_a_connection_is_found_in_either_form() {
        let peer_of = |resource: &str, data: &str| {
            let log = feeder::Log {
                resource: resource.into(),
                data: data.into(),
                ..Default::default()
            };
            let bytes = log.encode_to_vec();
            let (address, port) = peer(&View::read(Kind::Log, &bytes));
            (address.map(str::to_owned), port)
        };
        let of = |address: &str, port| (Some(address.to_owned()), Some(port));
        assert_eq!(
            peer_of(
                "remoteip=10.0.0.7 port=443 protocol=TCP",
                "kprobe=tcp_connect"
            ),
            of("10.0.0.7", 443)
        );
        assert_eq!(
            peer_of("sin_port=53 sin_addr=::1 sa_family=AF_INET6", ""),
            of("::1", 53)
        );
        assert_eq!(peer_of("/etc/passwd", "lsm=FILE_OPEN"), (None, None));
    }

    #[test]
    fn who_acts_is_the_parent_where_a_program_is_started() {
        let acted = |operation: &str, data: &str| {
            let log = feeder::Log {
                operation: operation.into(),
                data: data.into(),
                source: "s".into(),
                process_name: "/own".into(),
                parent_process_name: "/parent".into(),
                ..Default::default()
            };
            let bytes = log.encode_to_vec();
            let view = View::read(Kind::Log, &bytes);
            (actor(&view).0.to_owned(), is_inbound(&view))
        };
        assert_eq!(acted("Process", "syscall=SYS_EXECVE").0, "/parent");
        assert_eq!(acted("Process", "lsm=SECURITY_BPRM_CHECK").0, "/parent");
        assert_eq!(acted("Process", "syscall=SYS_PTRACE pid=3").0, "/own");
        assert_eq!(acted("File", "lsm=FILE_OPEN").0, "/own");
        for data in [
            "kprobe=tcp_accept domain=AF_INET",
            "syscall=SYS_ACCEPT fd=3",
        ] {
            assert!(acted("Network", data).1, "{data}");
        }
        assert!(!acted("Network", "kprobe=tcp_connect").1);
    }

    #[test]
    fn a_message_is_its_own_line_and_an_event_without_time_has_none() {
        let message = feeder::Message {
            level: "WARN".into(),
            message: "7 lost".into(),
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let view = View::read(Kind::Message, &bytes);
        assert_eq!(
            (summary(&view).as_str(), gravity(&view)),
            ("WARN 7 lost", 5)
        );
        assert_eq!(time(&view), None);
        assert_eq!(cut("üüüü", 3), "üü…");
        assert_eq!(cut("üüü", 3), "üüü");
    }
}
