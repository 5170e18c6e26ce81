//! The rules for values. They run over the document and not over the model, so that every problem has the line of the
//! value, also when other parts of the document did not read.
//!
//! A value's rule is found by its path without the list positions: `process.matchPaths.path`. What depends on several
//! values of one item stands in [`item`].

use yaml::{Node, Problem, Severity, nearest};

use crate::compile::encoded_len;
use crate::model::{Kind, Policy};
use crate::names::{CAPABILITIES, Protocol};
use crate::path::impossible;
use crate::selector::{CONTAINER_NAME, containers};
use crate::set::MAX_BLOB;
use crate::syscalls::SYSCALLS;

/// KubeArmor's own bound on a path; beyond it KubeArmor refuses what is fine here.
const KUBEARMOR_PATH: usize = 200;
const MAX_ARGS: usize = 20;
const MAX_RULES: usize = 10_000;
/// Bounds of what every alert repeats, in bytes.
const MAX_MESSAGE: usize = 4096;
pub(crate) const PRESETS: [&str; 5] = [
    "filelessExec",
    "anonymousMapExec",
    "protectEnv",
    "protectProc",
    "exec",
];
const DEVICES: [&str; 20] = [
    "AUDIO",
    "CDC",
    "COMM",
    "HID",
    "PHYSICAL",
    "IMAGE",
    "PRINTER",
    "MASS-STORAGE",
    "HUB",
    "CDC-DATA",
    "SMART-CARD",
    "CONTENT-SECURITY",
    "VIDEO",
    "PERSONAL-HEALTHCARE",
    "AUDIO-VIDEO",
    "BILLBOARD",
    "WIRELESS-CONTROLLER",
    "MISCELLANEOUS",
    "APPLICATION-SPECIFIC",
    "VENDOR-SPECIFIC",
];

enum Finding {
    Error(String),
    Warning(String),
}

type Judged = Result<(), Finding>;

fn wrong<T>(message: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Error(message.into()))
}

/// Checks every value of a policy's document.
pub(crate) fn check(document: &Node, policy: &Policy, problems: &mut Vec<Problem>) {
    let Some(spec) = document.get("spec") else {
        return;
    };
    let before = problems.len();
    let mut walk = Walk {
        kind: policy.kind,
        rules: 0,
        problems,
    };
    walk.node(spec, "");
    let rules = walk.rules;
    if rules == 0 {
        let message = "no rules: this policy does nothing".to_owned();
        walk.tell(spec, Finding::Warning(message));
    } else if rules > MAX_RULES {
        walk.tell(
            spec,
            Finding::Error(format!("more than {MAX_RULES} rules; split the policy")),
        );
    } else if problems.len() == before && encoded_len(policy) > MAX_BLOB {
        let message = format!(
            "compiles to more than {} MiB; split the policy",
            MAX_BLOB >> 20
        );
        problems.push(spec.problem(message));
    }
}

struct Walk<'p> {
    kind: Kind,
    rules: usize,
    problems: &'p mut Vec<Problem>,
}

impl Walk<'_> {
    /// `at` is the node's path below `spec`, without list positions.
    fn node(&mut self, node: &Node, at: &str) {
        if node.is_null() {
            return;
        }
        if let Some(text) = node.as_str() {
            self.rules += usize::from(at == "apparmor");
            if let Err(finding) = value(self.kind, at, text) {
                self.tell(node, finding);
            }
            return;
        }
        self.mapping(node, at);
        for (index, child) in node.items().iter().enumerate() {
            if at == "process.matchPaths.allowedArgs" && index == MAX_ARGS {
                self.tell(
                    child,
                    Finding::Error(format!("more than {MAX_ARGS} arguments; list fewer")),
                );
            }
            if child.as_str().is_none() || is_word_list(at) {
                self.node(child, at);
            }
        }
        for (key, child) in node.entries() {
            let below = if at.is_empty() {
                key.to_owned()
            } else {
                format!("{at}.{key}")
            };
            if below == "selector.matchLabels" || below == "nodeSelector.matchLabels" {
                self.labels(child);
            } else {
                self.node(child, &below);
            }
        }
    }

    fn mapping(&mut self, node: &Node, at: &str) {
        if !node.is_map() {
            return;
        }
        if is_rule(at) {
            self.rules += 1;
        }
        if let Err(finding) = item(self.kind, at, node) {
            self.tell(node, finding);
        }
    }

    fn labels(&mut self, node: &Node) {
        for (key, value) in node.entries() {
            let text = value.as_str().unwrap_or_default();
            if key == CONTAINER_NAME && !(text.starts_with('[') && text.ends_with(']')) {
                let names = containers(text).join(", ");
                let message = format!("container names stand in brackets; write \"[{names}]\"");
                self.tell(value, Finding::Warning(message));
            }
        }
    }

    fn tell(&mut self, node: &Node, finding: Finding) {
        let problem = match finding {
            Finding::Error(message) => node.problem(message),
            Finding::Warning(message) => Problem {
                severity: Severity::Warning,
                ..node.problem(message)
            },
        };
        self.problems.push(problem);
    }
}

/// Whether a list of plain words stands at this path. Elsewhere one is the reader's to complain of.
fn is_word_list(at: &str) -> bool {
    let name = at.rsplit('.').next().unwrap_or_default();
    ["tags", "syscall", "allowedArgs", "values", "iface"].contains(&name)
}

/// Whether an item at this path makes something happen.
fn is_rule(at: &str) -> bool {
    let item = at.rsplit('.').next().unwrap_or_default();
    matches!(item, "presets" | "ingress" | "egress")
        || (at.contains('.') && item.starts_with("match") && !at.contains("elector"))
}

/// Rules on several values of one item.
fn item(kind: Kind, at: &str, node: &Node) -> Judged {
    let has = |key: &str| node.key(key).is_some_and(|value| !value.is_null());
    match at {
        "process.matchPaths" if has("path") && has("execname") => {
            wrong("`path` and `execname` are both given; a rule has one of them")
        }
        "process.matchPaths" if !has("path") && !has("execname") => {
            wrong("neither `path` nor `execname` is given; add one of them")
        }
        "network.matchProtocols" | "capabilities.matchCapabilities"
            if kind == Kind::Host
                && node
                    .key("fromSource")
                    .is_none_or(|list| list.items().is_empty()) =>
        {
            wrong("`fromSource` is missing; a host policy needs it here")
        }
        "syscalls.matchSyscalls" | "syscalls.matchPaths"
            if node
                .key("syscall")
                .is_none_or(|list| list.items().is_empty()) =>
        {
            wrong("`syscall` names nothing; list the system calls")
        }
        _ if at.starts_with("syscalls.") && at.ends_with(".fromSource") => {
            match (has("path"), has("dir")) {
                (false, false) => wrong("neither `path` nor `dir` is given; add one of them"),
                (true, true) => wrong("`path` and `dir` are both given; a source has one of them"),
                _ => Ok(()),
            }
        }
        "selector.matchExpressions" => expression(kind, node),
        _ => Ok(()),
    }
}

fn expression(kind: Kind, node: &Node) -> Judged {
    let text = |key: &str| node.key(key).and_then(Node::as_str);
    let (Some(key), Some(operator)) = (text("key"), text("operator")) else {
        return Ok(());
    };
    let keys: &[&str] = if kind == Kind::Cluster {
        &["label", "namespace"]
    } else {
        &["label"]
    };
    if !keys.contains(&key) {
        let keys = keys.join("` or `");
        return wrong(format!(
            "the key `{key}` means nothing here; write `{keys}`, and labels as `name=value` in `values`"
        ));
    }
    if !["In", "NotIn"].contains(&operator) {
        return wrong(format!(
            "the operator `{operator}` is not known; write `In` or `NotIn`"
        ));
    }
    let values = node.key("values").map(Node::items).unwrap_or_default();
    if values.is_empty() {
        return wrong("`values` is empty; list at least one");
    }
    let bad = values.iter().filter_map(Node::as_str).find(|value| {
        key == "label"
            && value
                .split_once('=')
                .is_none_or(|(name, _)| name.is_empty())
    });
    bad.map_or(Ok(()), |value| {
        wrong(format!("`{value}` is no label; write `name=value`"))
    })
}

/// The rule for one value.
fn value(kind: Kind, at: &str, text: &str) -> Judged {
    let name = at.rsplit('.').next().unwrap_or_default();
    let section = at.split('.').next().unwrap_or_default();
    match (section, name) {
        ("ingress" | "egress", _) => flow(at, text),
        ("syscalls", "path") if at == "syscalls.matchPaths.path" => path_or_directory(text),
        ("syscalls", "dir") => directory(&format!("{}/", text.trim_end_matches('/'))),
        (_, "path") => path(text),
        (_, "dir") => directory(text),
        (_, "execname") if text.is_empty() || text.contains('/') => wrong(format!(
            "`{text}` is not a file name; write the last part of the path, without `/`"
        )),
        (_, "pattern") if text.is_empty() => {
            wrong("the pattern is empty; write a glob such as `/opt/*/bin/nc`")
        }
        ("network", "protocol") => each(text, protocol),
        (_, "domain") => each(text, domain),
        (_, "capability") => each(text, capability),
        (_, "syscall") => one_of("system call", text, SYSCALLS.iter().copied()),
        ("presets", "name") => one_of("preset", text, PRESETS),
        (_, "severity") => severity(text),
        (_, "message") if text.len() > MAX_MESSAGE => {
            wrong(format!("longer than {MAX_MESSAGE} bytes; say less"))
        }
        (_, "tags") if text.len() > 256 => wrong("a tag longer than 256 bytes; say less"),
        ("device", "class") => device(text),
        ("device", "level") => at_least_one(text),
        ("level", _) if kind == Kind::Network => {
            let word = text.to_ascii_lowercase();
            if word == "pod" || word == "policy" {
                Ok(())
            } else {
                wrong("write `pod` or `policy`")
            }
        }
        _ => Ok(()),
    }
}

fn path(text: &str) -> Judged {
    if !text.starts_with('/') {
        return wrong(format!("`{text}` is not absolute; begin the path with `/`"));
    }
    if text.ends_with('/') {
        return wrong(format!(
            "`{text}` ends in `/`; remove it, or name a directory in matchDirectories"
        ));
    }
    possible(text)
}

fn directory(text: &str) -> Judged {
    if !text.starts_with('/') {
        return wrong(format!(
            "`{text}` is not absolute; begin the directory with `/`"
        ));
    }
    if !text.ends_with('/') {
        return wrong(format!("`{text}` does not end in `/`; write `{text}/`"));
    }
    possible(text)
}

fn path_or_directory(text: &str) -> Judged {
    if text.ends_with('/') {
        directory(text)
    } else {
        path(text)
    }
}

fn possible(text: &str) -> Judged {
    if let Some(why) = impossible(text) {
        return wrong(format!("the path {why}"));
    }
    if text.len() > KUBEARMOR_PATH {
        let message = format!("longer than {KUBEARMOR_PATH} bytes: KubeArmor itself refuses it");
        return Err(Finding::Warning(message));
    }
    if text.contains('*') {
        let message = "`*` is a literal star here; globs belong in matchPatterns".to_owned();
        return Err(Finding::Warning(message));
    }
    Ok(())
}

/// Applies a rule to every part of a comma list.
fn each(text: &str, rule: fn(&str) -> Judged) -> Judged {
    text.split(',').try_for_each(|part| rule(part.trim()))
}

fn protocol(text: &str) -> Judged {
    one_of(
        "protocol",
        &text.to_ascii_lowercase(),
        Protocol::NAMES.map(|(name, _)| name),
    )
}

fn capability(text: &str) -> Judged {
    let bare = text.to_ascii_lowercase();
    let bare = bare.strip_prefix("cap_").unwrap_or(&bare);
    if bare != text && CAPABILITIES.contains(&bare) {
        return wrong(format!("`{text}` is written `{bare}`"));
    }
    one_of("capability", text, CAPABILITIES)
}

fn domain(text: &str) -> Judged {
    let bad =
        text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*');
    if bad {
        return wrong(format!(
            "`{text}` is not a domain; write a name such as `example.org`, which covers all below it"
        ));
    }
    Ok(())
}

fn one_of<'a>(what: &str, text: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Judged {
    if known.clone().into_iter().any(|known| known == text) {
        return Ok(());
    }
    let count = known.clone().into_iter().count();
    match nearest(text, known.clone()) {
        Some(near) => wrong(format!("unknown {what} `{text}`; did you mean `{near}`?")),
        None if count > 20 => wrong(format!("unknown {what} `{text}`")),
        None => {
            let all: Vec<&str> = known.into_iter().collect();
            wrong(format!(
                "unknown {what} `{text}`; there are {}",
                all.join(", ")
            ))
        }
    }
}

fn severity(text: &str) -> Judged {
    match text.parse::<i64>() {
        Ok(1..=10) => Ok(()),
        Ok(number) => wrong(format!("severity {number} is not between 1 and 10")),
        Err(_) => Ok(()), // told by the reader
    }
}

fn at_least_one(text: &str) -> Judged {
    match text.parse::<i64>() {
        Ok(number) if number < 1 => wrong(format!("{number} is less than 1")),
        _ => Ok(()),
    }
}

fn device(text: &str) -> Judged {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).is_ok(),
        None => text.parse::<u8>().is_ok(),
    };
    if number || text == "ALL" || DEVICES.contains(&text) {
        return Ok(());
    }
    one_of("device class", text, DEVICES)
}

/// Values of network policies' ingress and egress.
fn flow(at: &str, text: &str) -> Judged {
    match at.split_once('.').map_or("", |(_, rest)| rest) {
        "limit" if !is_limit(text) => wrong(format!(
            "`{text}` is no amount; write as in `500MB`, `2G` (no unit: GB)"
        )),
        "duration" if !is_go_duration(text) => wrong(format!(
            "`{text}` is no length of time; write as in `30s`, `1h30m`"
        )),
        "ports.port"
            if !["ssh", "http", "https", "dns"].contains(&text) && text.parse::<u16>().is_err() =>
        {
            wrong(format!(
                "`{text}` is no port; write a number up to 65535, or ssh, http, https, dns"
            ))
        }
        "ports.endPort" if !text.parse::<u16>().is_ok_and(|port| port > 0) => wrong(format!(
            "`{text}` is no port; write a number from 1 to 65535"
        )),
        "ports.protocol" if !["TCP", "UDP", "SCTP", "tcp", "udp", "sctp"].contains(&text) => {
            wrong(format!("unknown protocol `{text}`; write TCP, UDP or SCTP"))
        }
        "from.ipBlock.cidr" | "to.ipBlock.cidr" if !is_cidr(text) => wrong(format!(
            "`{text}` is no range of addresses; write as in `10.0.0.0/8`"
        )),
        _ => Ok(()),
    }
}

fn is_limit(text: &str) -> bool {
    let unit = ["KB", "MB", "GB", "K", "M", "G"]
        .into_iter()
        .find_map(|unit| text.strip_suffix(unit));
    let number = unit.unwrap_or(text);
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// Go's `time.ParseDuration`, without a sign: hours are the largest unit.
fn is_go_duration(text: &str) -> bool {
    let small = !text.contains(['d', 'w', ' ']);
    text == "0" || (small && text.parse::<yaml::Span>().is_ok())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    match (address.parse::<std::net::IpAddr>(), bits.parse::<u8>()) {
        (Ok(std::net::IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(std::net::IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}
