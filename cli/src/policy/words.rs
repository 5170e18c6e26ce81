//! Compiled rules and selectors in words.

use std::time::Duration;

use jiff::Timestamp;
use proto::rules::object::Is;
use proto::rules::{self, Action, Object, PolicyBlob, Rule, Section, Selector};
use yaml::Span;

/// What the parts of the language are called.
pub(super) fn section(section: Section) -> &'static str {
    match section {
        Section::Process => "programs",
        Section::File => "files",
        Section::Network => "sockets",
        Section::Dns => "names (DNS)",
        Section::Capabilities => "capabilities",
        Section::Syscalls => "system calls",
        Section::Endpoints => "connections",
        Section::Presets => "ready-made checks",
        Section::Devices => "USB devices",
        Section::Flows => "packets",
        _ => "other operations",
    }
}

/// For which workloads a policy is, as the end of "for …".
pub(super) fn workloads(blob: &PolicyBlob) -> String {
    let selector = blob.selector.clone().unwrap_or_default();
    let nodes = blob.nodes.clone().unwrap_or_default();
    match blob.kind.as_str() {
        "KubeArmorHostPolicy" => format!("nodes{}", labelled(&nodes)),
        "KubeArmorNetworkPolicy" => network(&selector, blob.nodes.as_ref()),
        "KubeArmorClusterPolicy" => cluster(&selector),
        _ => format!(
            "workloads of namespace {}{}",
            selector.namespace,
            labelled(&selector)
        ),
    }
}

/// A cluster policy names its namespaces among its expressions.
fn cluster(selector: &Selector) -> String {
    let (spaces, others) = (selector.expressions.iter().cloned())
        .partition(|expression: &rules::Expression| expression.key == "namespace");
    let spaces: Vec<rules::Expression> = spaces;
    let named: Vec<&rules::Expression> = spaces.iter().filter(|space| !space.not_in).collect();
    let barred = spaces.iter().filter(|space| space.not_in);
    let barred: Vec<String> = barred.flat_map(|space| space.values.clone()).collect();
    let left = |name: &&String| {
        let everywhere = named.iter().all(|space| space.values.contains(*name));
        everywhere && !barred.contains(*name)
    };
    let whom = match (named.first(), &barred[..]) {
        (None, []) => "workloads of every namespace".to_owned(),
        (None, barred) => format!("workloads of every namespace but {}", listed(barred, "and")),
        (Some(first), _) => {
            let names: Vec<String> = first.values.iter().filter(left).cloned().collect();
            match names.is_empty() {
                true => return "nobody: no namespace fits all that is asked of it".to_owned(),
                false => format!("workloads of namespace {}", listed(&names, "or")),
            }
        }
    };
    let rest = Selector {
        expressions: others,
        ..selector.clone()
    };
    format!("{whom}{}", labelled(&rest))
}

/// A network policy may be about nodes, about pods (of every namespace), about both, or about nobody.
fn network(pods: &Selector, nodes: Option<&Selector>) -> String {
    let nodes = nodes.filter(|nodes| !nodes.match_labels.is_empty());
    let nodes = nodes.map(|nodes| format!("the network of nodes{}", labelled(nodes)));
    let pods = Some(pods).filter(|pods| !pods.none);
    let pods = pods.map(|pods| {
        format!(
            "the traffic of workloads of every namespace{}",
            labelled(pods)
        )
    });
    let both: Vec<String> = nodes.into_iter().chain(pods).collect();
    if both.is_empty() {
        "nobody".to_owned()
    } else {
        both.join("; and for ")
    }
}

fn labelled(selector: &Selector) -> String {
    let mut parts: Vec<String> = Vec::new();
    let labels: Vec<String> = selector
        .match_labels
        .iter()
        .map(|label| format!("{}={}", label.key, label.value))
        .collect();
    if !labels.is_empty() {
        parts.push(format!("with {}", listed(&labels, "and")));
    }
    for expression in &selector.expressions {
        let values = listed(&expression.values, "or");
        parts.push(match (expression.key.as_str(), expression.not_in) {
            ("namespace", false) => format!("in namespace {values}"),
            ("namespace", true) => format!("not in namespace {values}"),
            (_, false) => format!("with {values}"),
            (_, true) => format!("without {values}"),
        });
    }
    if !selector.containers.is_empty() {
        let one = if selector.containers.len() == 1 {
            "container"
        } else {
            "containers"
        };
        parts.push(format!("in {one} {}", listed(&selector.containers, "and")));
    }
    parts.iter().map(|part| format!(", {part}")).collect()
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(words: &[String], joint: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {joint} {last}", most.join(", ")),
    }
}

/// A second of unix time as a date, in UTC.
pub(super) fn time(unix: i64) -> String {
    match Timestamp::from_second(unix) {
        Ok(time) => time.to_string(),
        Err(_) => format!("second {unix} of unix time"),
    }
}

/// What a rule is about, with its conditions: `starting /usr/bin/apt by /usr/bin/bash`.
pub(super) fn rule(rule: &Rule) -> String {
    let mut text = deed(rule);
    if !rule.args.is_empty() {
        text += match rule.action() {
            Action::Block => " with arguments other than ",
            _ => " with no arguments but ",
        };
        text += &listed(&rule.args, "and");
    }
    let sources: Vec<String> = rule.sources.iter().map(source).collect();
    if !sources.is_empty() {
        text += &format!(" by {}", listed(&sources, "or"));
    }
    text += match (rule.owner_only, rule.action()) {
        (true, Action::Allow) => " as the file's owner",
        // Said by the verb.
        (true, _) if rule.read_only => "",
        (true, _) => " by others than the file's owner",
        (false, _) => "",
    };
    if rule.pts == Some(false) {
        text += " at a terminal";
    }
    text
}

fn deed(rule: &Rule) -> String {
    let object = rule.object.as_ref();
    match rule.section() {
        Section::Process => format!("starting {}", place(object, "program")),
        Section::File => {
            let verb = match (rule.read_only, rule.owner_only, rule.action()) {
                (false, ..) => "reading or writing",
                (true, _, Action::Allow) => "reading",
                (true, false, _) => "writing",
                (true, true, _) => "anything but the owner's reading of",
            };
            format!("{verb} {}", place(object, "file"))
        }
        Section::Network => format!("{} sockets", place(object, "")),
        Section::Dns => format!("asking for {} and names below", place(object, "")),
        Section::Capabilities => format!("using CAP_{}", place(object, "").to_uppercase()),
        Section::Syscalls => format!("calling {}", place(object, "")),
        Section::Endpoints => format!("connections {}", place(object, "")),
        Section::Flows => format!("packets {}", place(object, "")),
        Section::Devices => format!("plugging in {}", place(object, "")),
        _ => place(object, "operation"),
    }
}

fn place(object: Option<&Object>, noun: &str) -> String {
    let Some(is) = object.and_then(|object| object.is.as_ref()) else {
        return format!("a {noun} that this version does not know");
    };
    match is {
        Is::Path(path) => path.clone(),
        Is::Name(name) => format!("{name} in any folder"),
        Is::Directory(directory) if directory.path == "/" && directory.recursive => {
            format!("any {noun}")
        }
        Is::Directory(directory) if directory.recursive => {
            format!("any {noun} below {}", directory.path)
        }
        Is::Directory(directory) => format!("any {noun} directly in {}", directory.path),
        Is::Pattern(pattern) => format!("{noun}s like {pattern}"),
        Is::Protocol(name) | Is::Domain(name) | Is::Capability(name) => name.clone(),
        Is::Syscall(call) => syscall(call),
        Is::Preset(name) => preset(name).to_owned(),
        Is::Endpoint(end) => endpoint(end),
        Is::Device(device) => device_words(device),
        Is::Flow(flow) => flow_words(flow),
    }
}

fn syscall(call: &rules::object::Syscall) -> String {
    let names = listed(&call.names, "or");
    match (call.path.as_str(), call.recursive) {
        ("", _) => names,
        (path, true) => format!("{names} on anything below {path}"),
        (path, false) => format!("{names} on {path}"),
    }
}

/// What each preset watches (policy.md of KubeArmor, "Presets").
fn preset(name: &str) -> &'static str {
    match name {
        "filelessExec" => "starting programs out of memory",
        "anonymousMapExec" => "making memory executable that no file stands behind",
        "protectEnv" => "reading the environment of another process",
        "protectProc" => "looking into /proc of another process",
        "exec" => "starting anything in an exec session",
        _ => "a preset that this version does not know",
    }
}

fn ports(ports: &[rules::object::Ports]) -> String {
    let one = |ports: &rules::object::Ports| {
        let range = match ports.first == ports.last {
            true => ports.first.to_string(),
            false => format!("{}-{}", ports.first, ports.last),
        };
        format!(
            "{}/{range}",
            if ports.protocol.is_empty() {
                "any"
            } else {
                &ports.protocol
            }
        )
    };
    if ports.is_empty() {
        return String::new();
    }
    let all: Vec<String> = ports.iter().map(one).collect();
    format!(" at {}", listed(&all, "or"))
}

fn endpoint(end: &rules::object::Endpoint) -> String {
    let whom = [&end.cidr, &end.domain]
        .into_iter()
        .find(|text| !text.is_empty());
    let whom = whom.map_or("anyone", String::as_str);
    let way = match end.direction() {
        rules::Direction::Egress => "to",
        rules::Direction::Ingress => "from",
        rules::Direction::Both => "with",
    };
    format!("{way} {whom}{}", ports(&end.ports))
}

fn flow_words(flow: &rules::object::Flow) -> String {
    let way = match flow.direction() {
        rules::Direction::Egress => "to",
        rules::Direction::Ingress => "from",
        rules::Direction::Both => "with",
    };
    let whom = match flow.cidrs.is_empty() {
        true => "anyone".to_owned(),
        false => listed(&flow.cidrs, "or"),
    };
    let mut text = format!("{way} {whom}{}", ports(&flow.ports));
    if !flow.interfaces.is_empty() {
        text += &format!(" on {}", listed(&flow.interfaces, "or"));
    }
    if let Some(quota) = &flow.quota {
        let time = Duration::from_secs(quota.seconds);
        text += &format!(" beyond {} in {}", amount(quota.bytes), Span(time));
    }
    text
}

/// In the largest unit that divides it, as `limit` is written: powers of 1024.
fn amount(bytes: u64) -> String {
    let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(
        || format!("{bytes} bytes"),
        |(unit, name)| format!("{} {name}", bytes / unit),
    )
}

fn device_words(device: &rules::object::Device) -> String {
    let part = |name: &str, value: Option<u32>| value.map(|value| format!("{name} {value}"));
    let parts: Vec<String> = [
        part("class", device.class),
        part("subclass", device.sub_class),
        part("protocol", device.protocol),
        part("level", device.level),
    ]
    .into_iter()
    .flatten()
    .collect();
    match parts.is_empty() {
        true => "any USB device".to_owned(),
        false => format!("USB devices of {}", listed(&parts, "and")),
    }
}

fn source(object: &Object) -> String {
    place(Some(object), "program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_as_people_say_them() {
        let words: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(listed(&words, "and"), "a, b and c");
        assert_eq!(listed(&words[..1], "and"), "a");
        assert_eq!(listed(&[], "and"), "");
    }
}
