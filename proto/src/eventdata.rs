//! `EventData`: the words of Data, and for Network those of Resource too, as a map.

use std::collections::BTreeMap;

/// What KubeArmor puts into `EventData` for this Operation, Data and Resource.
///
/// Words are split at white space; one that holds `=` is cut at its first, its key gets an upper-case first letter, and
/// the others are left out. For Network, Resource is read as well and wins on equal keys.
///
/// ```
/// let data = proto::event_data("File", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY", "/etc/shadow");
/// assert_eq!(data["Syscall"], "SYS_OPENAT");
/// assert_eq!(data["Fd"], "-100");
/// ```
#[must_use]
pub fn event_data(operation: &str, data: &str, resource: &str) -> BTreeMap<String, String> {
    let resource = if operation == "Network" { resource } else { "" };
    let words = data.split_whitespace().chain(resource.split_whitespace());
    let pairs = words.filter_map(|word| word.split_once('='));
    pairs
        .map(|(key, value)| (capitalised(key), value.to_owned()))
        .collect()
}

fn capitalised(key: &str) -> String {
    let mut letters = key.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(operation: &str, data: &str, resource: &str) -> Vec<(String, String)> {
        event_data(operation, data, resource).into_iter().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn words_become_keys_with_a_capital() {
        assert_eq!(
            of(
                "File",
                "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY",
                "/a x=1"
            ),
            pairs(&[
                ("Fd", "-100"),
                ("Flags", "O_RDONLY"),
                ("Syscall", "SYS_OPENAT")
            ])
        );
        assert_eq!(
            of("Capabilities", "lsm=CAPABLE CAP_NET_RAW", ""),
            pairs(&[("Lsm", "CAPABLE")])
        );
    }

    #[test]
    fn the_resource_of_a_network_event_counts_and_wins() {
        assert_eq!(
            of(
                "Network",
                "kprobe=tcp_connect port=1",
                "remoteip=10.0.0.9 port=443 protocol=TCP"
            ),
            pairs(&[
                ("Kprobe", "tcp_connect"),
                ("Port", "443"),
                ("Protocol", "TCP"),
                ("Remoteip", "10.0.0.9"),
            ])
        );
    }

    #[test]
    fn a_word_is_cut_at_its_first_sign_and_may_be_empty_after_it() {
        assert_eq!(
            of("Syscall", "syscall=SYS_MOUNT data=a=b,c=d flags=", ""),
            pairs(&[("Data", "a=b,c=d"), ("Flags", ""), ("Syscall", "SYS_MOUNT")])
        );
        assert!(of("File", "", "").is_empty());
    }
}
