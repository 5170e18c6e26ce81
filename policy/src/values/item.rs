//! Rules on several values of one item.

use yaml::Node;

use super::{Judged, flow, warn, wrong};
use crate::model::Kind;

/// Judges the item at a path.
pub(super) fn judge(kind: Kind, at: &str, node: &Node) -> Judged {
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
        "presets" if !has("name") => missing("name"),
        _ if at.ends_with(".fromSource") && !at.starts_with("syscalls.") && !has("path") => {
            missing("path")
        }
        "syscalls.matchPaths" if !has("path") => missing("path"),
        "network.matchEndpoints" => endpoint(node),
        "nodeSelector"
            if node
                .key("matchLabels")
                .is_none_or(|labels| labels.entries().next().is_none()) =>
        {
            warn(
                "an empty nodeSelector is about no node; write `kubearmor.io/hostname: \"*\"` for all",
            )
        }
        "defaultPosture" if has("device") && kind != Kind::Host => {
            warn("`device` says nothing here; devices are for host policies")
        }
        "ingress" | "egress" => flow::judge_item(node),
        "ingress.ports" | "egress.ports" | "network.matchEndpoints.ports" => flow::range(node),
        _ => Ok(()),
    }
}

fn endpoint(node: &Node) -> Judged {
    let has = |key: &str| node.key(key).is_some_and(|value| !value.is_null());
    if has("cidr") && has("domain") {
        return wrong("`cidr` and `domain` are both given; a rule has one of them");
    }
    if !["cidr", "domain", "ports", "protocol", "direction"]
        .into_iter()
        .any(has)
    {
        return wrong(
            "no `cidr`, `domain`, `ports`, `protocol` or `direction`: this is every connection; write `cidr: ::/0` if it is meant",
        );
    }
    Ok(())
}

fn missing(field: &str) -> Judged {
    wrong(format!("`{field}` is missing; add it"))
}

fn expression(kind: Kind, node: &Node) -> Judged {
    let text = |key: &str| node.key(key).and_then(Node::as_str);
    let Some(key) = text("key") else {
        return missing("key");
    };
    let Some(operator) = text("operator") else {
        return missing("operator");
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
