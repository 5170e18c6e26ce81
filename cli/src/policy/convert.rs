//! `cresset policy convert`: old and exported forms into today's.
//!
//! What is changed is what earlier versions of KubeArmor wrote or let pass and what `kubectl get -o yaml` adds; each change is
//! told on standard error. What cannot be converted is told too, and left for `cresset policy check` to complain about.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::files::{self, Wanted};
use super::fmt::{arrange, is_policy};
use super::layout::{File, Tree, Value};
use super::report::line;
use crate::connect::{Trouble, say};

/// Turn old forms into today's
#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// Files, folders, or - for standard input; the result goes to standard output
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Runs `cresset policy convert`.
///
/// # Errors
/// A file that cannot be read or is not YAML; an output that cannot be written.
pub(super) fn run(args: &ConvertArgs) -> Result<ExitCode, Trouble> {
    let mut out = Vec::new();
    let read = files::read(&args.paths, Wanted::Policies)?;
    for file in &read.texts {
        let (text, told) = converted(&file.name, &file.text).map_err(Trouble::Local)?;
        told.iter()
            .for_each(|line| eprintln!("{}: {line}", file.name));
        out.push(text);
    }
    say(&out.join("---\n"))?;
    read.problems
        .iter()
        .for_each(|problem| eprint!("{}", line(problem)));
    Ok(match read.problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A file in today's form, and what was changed.
///
/// # Errors
/// What is wrong with it as YAML.
fn converted(name: &str, text: &str) -> Result<(String, Vec<String>), String> {
    let mut file = File::read(name, text)?;
    let mut told = Vec::new();
    if file.lost_comments {
        told.push("comments are left out: there are too many".to_owned());
    }
    for document in &mut file.documents {
        policy(document, &mut told);
    }
    Ok((file.written(), told))
}

/// The groups under which KubeArmor's kinds were known.
const OLD_GROUPS: [&str; 2] = ["security.accuknox.com/", "security.kubearmor.com/"];
/// What a server adds to what was written.
const ADDED: [&str; 9] = [
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What `kubectl apply` keeps of the file that it was given: the whole policy once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn policy(document: &mut Tree, told: &mut Vec<String>) {
    if let Some(items) = list_mut(document, "items") {
        return items.iter_mut().for_each(|item| policy(item, told));
    }
    let Some(version) = document.get("apiVersion").and_then(Tree::as_str) else {
        return;
    };
    if !OLD_GROUPS.iter().any(|group| version.starts_with(group)) {
        return;
    }
    if version != ::policy::API_VERSION {
        told.push(format!(
            "apiVersion {version} is {} now",
            ::policy::API_VERSION
        ));
        set(document, "apiVersion", Tree::text(::policy::API_VERSION));
    }
    if remove(document, "status") {
        told.push("status is the server's, left out".to_owned());
    }
    if let Some(metadata) = get_mut(document, "metadata") {
        for key in ADDED.into_iter().filter(|key| remove(metadata, key)) {
            told.push(format!("metadata.{key} is the server's, left out"));
        }
        last_applied(metadata, told);
    }
    if let Some(spec) = get_mut(document, "spec") {
        spelling(spec, told);
        containers(spec, told);
        for section in ["process", "file"] {
            if let Some(section) = get_mut(spec, section) {
                closing_slashes(section, told);
            }
        }
        split(spec, "network", "matchProtocols", "protocol", told);
        split(spec, "network", "matchDNSQueries", "domain", told);
        split(
            spec,
            "capabilities",
            "matchCapabilities",
            "capability",
            told,
        );
        if remove(spec, "selinux") {
            told.push(
                "spec.selinux is left out: no version of the custom resources has it".to_owned(),
            );
        }
    }
    if is_policy(document) {
        arrange(document);
    }
}

fn last_applied(metadata: &mut Tree, told: &mut Vec<String>) {
    let Some(annotations) = get_mut(metadata, "annotations") else {
        return;
    };
    if remove(annotations, LAST_APPLIED) {
        told.push(format!("annotation {LAST_APPLIED} is kubectl's, left out"));
        if matches!(&annotations.value, Value::Map(left) if left.is_empty()) {
            remove(metadata, "annotations");
        }
    }
}

/// Fields that hold a number or a truth value, which older versions took in quotes, too.
const UNQUOTED: [&str; 6] = [
    "severity",
    "ownerOnly",
    "readOnly",
    "recursive",
    "pts",
    "endPort",
];

/// `"5"` and `"true"` without their quotes.
fn unquoted(key: &str, tree: &mut Tree, told: &mut Vec<String>) {
    let Value::Scalar { text, plain } = &mut tree.value else {
        return;
    };
    let is_value = ["true", "false"].contains(&&**text) || text.parse::<u32>().is_ok();
    if UNQUOTED.contains(&key) && !*plain && is_value {
        told.push(format!("{key}: \"{text}\" is {text} now"));
        *plain = true;
    }
}

/// Actions begin with a capital letter, protocols and capabilities have none and no prefix, numbers and truth values no
/// quotes. Labels are as their owner spells them.
fn spelling(tree: &mut Tree, told: &mut Vec<String>) {
    match &mut tree.value {
        Value::Scalar { .. } => {}
        Value::List(items) => items.iter_mut().for_each(|item| spelling(item, told)),
        Value::Map(entries) => {
            for (key, value) in entries.iter_mut().filter(|(key, _)| key != "matchLabels") {
                unquoted(key, value, told);
                let old = value.as_str().unwrap_or_default().to_owned();
                let new = match key.as_str() {
                    "action" => action(&old),
                    "capability" => {
                        let bare = old.to_ascii_lowercase().replace("cap_", "");
                        Some(bare)
                    }
                    "protocol" => Some(old.to_ascii_lowercase()),
                    _ => None,
                };
                match new.filter(|new| *new != old && !old.is_empty()) {
                    Some(new) => {
                        told.push(format!("{key}: {old} is {new} now"));
                        replace(value, &new);
                    }
                    None => spelling(value, told),
                }
            }
        }
    }
}

fn action(word: &str) -> Option<String> {
    match word.to_ascii_lowercase().as_str() {
        "allow" => Some("Allow".to_owned()),
        "audit" => Some("Audit".to_owned()),
        "block" => Some("Block".to_owned()),
        _ => None,
    }
}

/// `kubearmor.io/container.name: web` is `"[web]"`.
fn containers(spec: &mut Tree, told: &mut Vec<String>) {
    let labels = get_mut(spec, "selector").and_then(|selector| get_mut(selector, "matchLabels"));
    let name = labels.and_then(|labels| get_mut(labels, "kubearmor.io/container.name"));
    let Some(name) = name else { return };
    let old = name.as_str().unwrap_or_default().to_owned();
    if !old.is_empty() && !old.starts_with('[') {
        told.push(format!("container name {old} is [{old}] now"));
        replace(name, &format!("[{old}]"));
    }
}

/// A path that ends in `/` is a directory, and a directory ends in `/`.
fn closing_slashes(section: &mut Tree, told: &mut Vec<String>) {
    let mut moved = Vec::new();
    if let Some(paths) = list_mut(section, "matchPaths") {
        let is_directory = |item: &Tree| {
            let path = item.get("path").and_then(Tree::as_str);
            path.is_some_and(|path| path.ends_with('/'))
        };
        let (directories, kept) = std::mem::take(paths).into_iter().partition(is_directory);
        (moved, *paths) = (directories, kept);
    }
    for item in &mut moved {
        let path = item.get("path").and_then(Tree::as_str).unwrap_or_default();
        told.push(format!(
            "path {path} is a directory: moved to matchDirectories"
        ));
        rename(item, "path", "dir");
    }
    if !moved.is_empty() {
        if list_mut(section, "matchPaths").is_some_and(|paths| paths.is_empty()) {
            remove(section, "matchPaths");
        }
        append(section, "matchDirectories", moved);
    }
    for item in list_mut(section, "matchDirectories").into_iter().flatten() {
        if let Some(dir) = get_mut(item, "dir") {
            let old = dir.as_str().unwrap_or_default().to_owned();
            if !old.is_empty() && !old.ends_with('/') {
                told.push(format!("dir {old} is {old}/ now"));
                replace(dir, &format!("{old}/"));
            }
        }
    }
}

/// `tcp,udp` in one item are two items.
fn split(spec: &mut Tree, section: &str, list: &str, key: &str, told: &mut Vec<String>) {
    let items = get_mut(spec, section).and_then(|section| list_mut(section, list));
    let Some(items) = items else { return };
    let mut all = Vec::new();
    for item in std::mem::take(items) {
        let text = item
            .get(key)
            .and_then(Tree::as_str)
            .unwrap_or_default()
            .to_owned();
        if !text.contains(',') {
            all.push(item);
            continue;
        }
        told.push(format!("{key}: {text} is one item each now"));
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let mut one = item.clone();
            set(&mut one, key, Tree::text(part));
            all.push(one);
        }
    }
    *items = all;
}

// === trees ===

fn get_mut<'t>(tree: &'t mut Tree, key: &str) -> Option<&'t mut Tree> {
    match &mut tree.value {
        Value::Map(entries) => entries
            .iter_mut()
            .find(|(own, _)| own == key)
            .map(|(_, tree)| tree),
        _ => None,
    }
}

fn list_mut<'t>(tree: &'t mut Tree, key: &str) -> Option<&'t mut Vec<Tree>> {
    match &mut get_mut(tree, key)?.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// Another text in place of a scalar; what was said about it stays.
fn replace(tree: &mut Tree, text: &str) {
    tree.value = Tree::text(text).value;
}

fn set(tree: &mut Tree, key: &str, value: Tree) {
    if let Some(old) = get_mut(tree, key) {
        old.value = value.value;
    } else if let Value::Map(entries) = &mut tree.value {
        entries.push((key.to_owned(), value));
    }
}

fn append(tree: &mut Tree, key: &str, items: Vec<Tree>) {
    if let Some(list) = list_mut(tree, key) {
        return list.extend(items);
    }
    let mut list = Tree::text("");
    list.value = Value::List(items);
    set(tree, key, list);
}

fn rename(tree: &mut Tree, from: &str, to: &str) {
    if let Value::Map(entries) = &mut tree.value {
        for (key, _) in entries.iter_mut().filter(|(key, _)| key == from) {
            *key = to.to_owned();
        }
    }
}

fn remove(tree: &mut Tree, key: &str) -> bool {
    let Value::Map(entries) = &mut tree.value else {
        return false;
    };
    let before = entries.len();
    entries.retain(|(own, _)| own != key);
    entries.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
apiVersion: security.accuknox.com/v1
kind: KubeArmorPolicy
metadata:
  name: old
  namespace: shop
  uid: 1-2-3
  creationTimestamp: null
spec:
  selector: {matchLabels: {kubearmor.io/container.name: web}}
  file:
    matchPaths:
      - {path: /etc/}   # the whole folder
      - {path: /etc/hosts}
    matchDirectories: [{dir: /opt, recursive: true, action: audit}]
  network: {matchProtocols: [{protocol: 'TCP,udp'}]}
  capabilities: {matchCapabilities: [{capability: CAP_NET_RAW}]}
  action: block
status: {status: OK}
";

    #[test]
    fn old_forms_become_todays_and_each_change_is_told() {
        let (text, told) = converted("old.yaml", OLD).unwrap();
        assert_eq!(
            text,
            "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: old
  namespace: shop
spec:
  selector:
    matchLabels:
      kubearmor.io/container.name: \"[web]\"
  action: Block
  file:
    matchPaths:
      - path: /etc/hosts
    matchDirectories:
      - dir: /opt/
        recursive: true
        action: Audit
      - dir: /etc/  # the whole folder
  network:
    matchProtocols:
      - protocol: tcp
      - protocol: udp
  capabilities:
    matchCapabilities:
      - capability: net_raw
"
        );
        assert_eq!(told.len(), 12, "{told:#?}");
        let (policies, problems) = ::policy::parse("new.yaml", &text);
        assert_eq!((policies.len(), problems), (1, Vec::new()));
    }

    #[test]
    fn quotes_around_numbers_and_what_kubectl_keeps_are_left_out() {
        let quoted = OLD
            .replace(
                "  uid: 1-2-3",
                "  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}",
            )
            .replace("spec:", "spec:\n  severity: \"5\"")
            .replace(
                "{path: /etc/hosts}",
                "{path: /etc/hosts, ownerOnly: \"true\"}",
            )
            .replace(
                "container.name: web",
                "container.name: web, severity: \"5\"",
            );
        let (text, told) = converted("old.yaml", &quoted).unwrap();
        for needed in [
            "\n  severity: 5\n",
            "ownerOnly: true\n",
            "      severity: \"5\"\n",
        ] {
            assert!(text.contains(needed), "{needed}: {text}");
        }
        assert!(!text.contains("annotations"), "{text}");
        assert!(
            told.contains(&"severity: \"5\" is 5 now".to_owned()),
            "{told:#?}"
        );
        let (policies, problems) = ::policy::parse("new.yaml", &text);
        assert_eq!((policies.len(), problems), (1, Vec::new()));
    }

    #[test]
    fn what_is_of_today_is_only_formatted() {
        let (text, told) = converted("a.yaml", OLD).unwrap();
        let _ = told;
        assert_eq!(
            converted("b.yaml", &text).unwrap(),
            (text.clone(), Vec::new())
        );
    }
}
