//! Rules on one value.

use yaml::nearest;

use super::{Judged, flow, warn, wrong};
use crate::device::{DEVICE_CLASSES, class};
use crate::endpoint::{Cidr, Transport};
use crate::expiry::moment;
use crate::glob::Glob;
use crate::model::Kind;
use crate::names::{CAPABILITIES, Protocol};
use crate::path::impossible;
use crate::preset::Preset;
use crate::syscalls::SYSCALLS;

/// KubeArmor's own bound on a path; beyond it KubeArmor refuses what is fine here.
const KUBEARMOR_PATH: usize = 200;
/// Bounds of what every alert repeats, in bytes.
const MAX_MESSAGE: usize = 4096;
const MAX_TAG: usize = 256;

/// Judges the value at a path.
pub(super) fn judge(kind: Kind, at: &str, text: &str) -> Judged {
    let name = at.rsplit('.').next().unwrap_or_default();
    let section = at.split('.').next().unwrap_or_default();
    match (section, name) {
        ("ingress" | "egress", _) => flow::judge(at, text),
        ("network", _) if at.starts_with("network.matchEndpoints.") => endpoint(at, text),
        ("syscalls", "path") if at == "syscalls.matchPaths.path" => path_or_directory(text),
        ("syscalls", "dir") => directory(&format!("{}/", text.trim_end_matches('/'))),
        (_, "path") => path(text),
        (_, "dir") => directory(text),
        (_, "execname") if text.is_empty() || text.contains('/') => wrong(format!(
            "`{text}` is not a file name; write the last part of the path, without `/`"
        )),
        (_, "pattern") => pattern(text),
        ("expires", _) if moment(text).is_none() => wrong(format!(
            "`{text}` is no time; write as in `2027-01-31T18:00:00Z`"
        )),
        ("network", "protocol") => each(text, protocol),
        (_, "domain") => each(text, domain),
        (_, "capability") => each(text, capability),
        (_, "syscall") => one_of("system call", text, SYSCALLS.iter().copied()),
        ("presets", "name") => one_of("preset", text, Preset::NAMES.map(|(name, _)| name)),
        (_, "severity") => severity(text),
        (_, "message" | "tags") => text_length(at, text),
        ("device", "class") => device(text),
        ("device", "subClass" | "protocol")
            if text.parse::<i64>().is_ok_and(|n| !(0..=255).contains(&n)) =>
        {
            wrong(format!("{text} is not between 0 and 255"))
        }
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
        return warn(format!(
            "longer than {KUBEARMOR_PATH} bytes: KubeArmor itself refuses it"
        ));
    }
    if text.contains('*') {
        return warn("`*` is a literal star here; globs belong in matchPatterns");
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

/// A name as it goes over the wire (RFC 1035, 2.3.4): labels of 1 to 63 bytes, 253 in all.
fn domain(text: &str) -> Judged {
    if !text.is_ascii() {
        return wrong(format!(
            "`{text}` never goes over the wire like this; write its ASCII form, which begins with `xn--`"
        ));
    }
    let name = crate::domain::canonical(text);
    let sound = |label: &str| {
        let legible = !label.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*');
        (1..=63).contains(&label.len()) && legible
    };
    if name.len() > 253 || !name.split('.').all(sound) {
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
    if class(text).is_ok() {
        return Ok(());
    }
    one_of("device class", text, DEVICE_CLASSES.map(|(name, _)| name))
}

fn pattern(text: &str) -> Judged {
    if text.is_empty() {
        return wrong("the pattern is empty; write a glob such as `/opt/*/bin/nc`");
    }
    if let Err(bad) = Glob::new(text) {
        return wrong(format!("`{text}`: {bad}"));
    }
    let anywhere = text.starts_with(['/', '{', '[']) || text.starts_with("**");
    if !anywhere {
        return warn(format!(
            "`{text}` matches nothing: patterns are over absolute paths; write `/**/{}`",
            text.trim_start_matches("*/")
        ));
    }
    Ok(())
}

fn endpoint(at: &str, text: &str) -> Judged {
    match at.trim_start_matches("network.matchEndpoints.") {
        "cidr" if Cidr::parse(text).is_none() => wrong(format!(
            "`{text}` is no range of addresses; write as in `10.0.0.0/8`"
        )),
        "domain" => domain(text),
        "protocol" | "ports.protocol" if Transport::of(text).is_none() => wrong(format!(
            "`{text}` has no ports; write tcp, udp or sctp, and other protocols in matchProtocols"
        )),
        "ports.port" | "ports.endPort" => flow::port(text),
        "fromSource.path" => path(text),
        "severity" => severity(text),
        _ => text_length(at, text),
    }
}

/// Bounds of what every alert repeats.
fn text_length(at: &str, text: &str) -> Judged {
    match at.rsplit('.').next().unwrap_or_default() {
        "message" if text.len() > MAX_MESSAGE => {
            wrong(format!("longer than {MAX_MESSAGE} bytes; say less"))
        }
        "tags" if text.len() > MAX_TAG => wrong("a tag longer than 256 bytes; say less"),
        _ => Ok(()),
    }
}
