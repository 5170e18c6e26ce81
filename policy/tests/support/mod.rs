//! What the tests of this crate speak in: policies in short, workloads, operations.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests: a failure here is the test's")]

use std::collections::BTreeMap;

use policy::{Effective, Flat, Operation, Set, SocketKey, Workload, compile, load, select};
use proto::rules;

/// A whole policy for namespace `shop`, label `app=cart`, out of the lines below `spec:` but the selector.
pub(crate) fn shop(name: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: cart}}}}\n{spec}"
    )
}

/// Compiles texts that must be without errors and takes them in again as a node does.
pub(crate) fn set_under(postures: &rules::Postures, texts: &[String]) -> Set {
    let files = texts.iter().map(|text| ("p.yaml", text.as_str()));
    let (policies, problems) = load(files);
    let errors: Vec<_> = problems
        .iter()
        .filter(|problem| problem.is_error())
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors, Vec::<String>::new());
    let ruleset = compile(&policies, postures);
    Set::from_wire(&ruleset.manifest, &ruleset.blobs).unwrap()
}

pub(crate) fn set(texts: &[String]) -> Set {
    set_under(&rules::Postures::default(), texts)
}

pub(crate) fn blocking() -> rules::Postures {
    let block = rules::Posture::Block.into();
    rules::Postures {
        file: block,
        network: block,
        capabilities: block,
    }
}

pub(crate) fn workload(namespace: &str, labels: &[(&str, &str)]) -> Workload {
    let labels = labels
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    Workload {
        namespace: namespace.into(),
        labels: labels.collect::<BTreeMap<_, _>>(),
        container: "web".into(),
    }
}

pub(crate) fn cart(set: &Set) -> Effective {
    select(set, &workload("shop", &[("app", "cart")]))
}

/// A merged `/usr`, as most systems have it.
pub(crate) fn merged_usr(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    if path == "/bin/" || path.starts_with("/bin/") || path.starts_with("/sbin/") {
        names.push(format!("/usr{path}"));
    }
    names
}

pub(crate) fn flat(effective: &Effective) -> Flat {
    policy::flatten(effective, &merged_usr)
}

pub(crate) fn exec(path: &str) -> Operation {
    Operation::Exec { path: path.into() }
}

pub(crate) fn open(path: &str) -> Operation {
    Operation::Open {
        path: path.into(),
        write: false,
    }
}

pub(crate) fn socket(kind: i32, protocol: i32) -> Operation {
    Operation::Socket {
        key: SocketKey::of(kind, protocol),
    }
}

pub(crate) fn capability(name: &str) -> Operation {
    let number = policy::capability(name).unwrap();
    Operation::Capability { number }
}

pub(crate) fn syscall(name: &str) -> Operation {
    let number = policy::syscall(name).unwrap();
    Operation::Syscall { number }
}

/// The outcome in words: `block a`, `allow b`, `posture block`, `pass`; with the audit that tells, `pass, audit c`.
/// Rules are named by their message.
pub(crate) fn outcome(flat: &Flat, operation: &Operation) -> String {
    use policy::Enforced;
    let name = |slot: u32| flat.slots[slot as usize].message.clone();
    let verdict = flat.decide(operation);
    let mut words = match verdict.enforced {
        Enforced::Nothing => "pass".to_owned(),
        Enforced::Allow(slot) => format!("allow {}", name(slot)),
        Enforced::Block(slot) => format!("block {}", name(slot)),
        Enforced::Posture(posture) => format!("posture {posture:?}").to_lowercase(),
    };
    if let Some(slot) = verdict.audit {
        words += &format!(", audit {}", name(slot));
    }
    words
}
