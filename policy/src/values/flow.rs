//! Values of network policies' ingress and egress, and of endpoints' ports.

use yaml::Node;

use super::{Judged, warn, wrong};
use crate::endpoint::Cidr;
use crate::lower::{PORT_NAMES, bytes};

/// Judges the value at a path.
pub(super) fn judge(at: &str, text: &str) -> Judged {
    match at.split_once('.').map_or("", |(_, rest)| rest) {
        "limit" if bytes(text).is_none() => wrong(format!(
            "`{text}` is no amount; write as in `500MB`, `2G` (no unit: GB)"
        )),
        "duration" => duration(text),
        "ports.port" => port(text),
        "ports.endPort" if !text.parse::<u16>().is_ok_and(|port| port > 0) => wrong(format!(
            "`{text}` is no port; write a number from 1 to 65535"
        )),
        "ports.protocol" if !["TCP", "UDP", "SCTP", "tcp", "udp", "sctp"].contains(&text) => {
            wrong(format!("unknown protocol `{text}`; write TCP, UDP or SCTP"))
        }
        "from.ipBlock.cidr" | "to.ipBlock.cidr"
            if !text.contains('/') || Cidr::parse(text).is_none() =>
        {
            wrong(format!(
                "`{text}` is no range of addresses; write as in `10.0.0.0/8`"
            ))
        }
        "severity" if text.parse::<i64>().is_ok_and(|number| number > 10) => {
            warn("a severity above 10 is told as 10")
        }
        "severity" if text.parse::<i64>().is_ok_and(|number| number < 0) => {
            warn("a severity below 1 is told as none")
        }
        _ => Ok(()),
    }
}

/// A limit and its duration go together.
pub(super) fn judge_item(node: &Node) -> Judged {
    let has = |key: &str| node.key(key).is_some_and(|value| !value.is_null());
    match (has("limit"), has("duration")) {
        (true, false) => {
            wrong("`limit` without `duration`; say in what time, as in `duration: 1h`")
        }
        (false, true) => {
            wrong("`duration` without `limit`; say how much may pass, as in `limit: 500MB`")
        }
        (true, true) if ["from", "to", "ports", "iface"].into_iter().any(has) => warn(
            "with a limit only the direction counts: addresses, interfaces and ports are not looked at",
        ),
        _ => Ok(()),
    }
}

/// A port by number or name.
pub(super) fn port(text: &str) -> Judged {
    if PORT_NAMES.iter().any(|(name, _)| *name == text) || text.parse::<u16>().is_ok() {
        return Ok(());
    }
    wrong(format!(
        "`{text}` is no port; write a number up to 65535, or ssh, http, https, dns"
    ))
}

/// A range of ports that begins before it ends.
pub(super) fn range(node: &Node) -> Judged {
    let text = |key: &str| node.key(key).and_then(Node::as_str);
    let (Some(first), Some(last)) = (text("port"), text("endPort")) else {
        return Ok(());
    };
    let named = PORT_NAMES.iter().find(|(name, _)| *name == first);
    let first = named.map(|(_, number)| *number).or(first.parse().ok());
    match (first, last.parse::<u16>()) {
        (Some(first), Ok(last)) if last < first => wrong(format!(
            "the range ends at {last}, before it begins at {first}"
        )),
        _ => Ok(()),
    }
}

/// Go's `time.ParseDuration`, without a sign: hours are the largest unit. A quota counts over whole seconds.
fn duration(text: &str) -> Judged {
    let small = !text.contains(['d', 'w', ' ']);
    match text.parse::<yaml::Span>() {
        Ok(span) if small && span.0.as_secs() > 0 => Ok(()),
        Ok(_) if small => wrong(format!(
            "`{text}` is too short a time to count in; write a second or more, as in `1h`"
        )),
        _ => wrong(format!(
            "`{text}` is no length of time; write as in `30s`, `1h30m`"
        )),
    }
}
