//! What the tests of this crate speak in: policies in short, workloads, operations.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests: a failure here is the test's")]

use std::collections::BTreeMap;

use policy::{
    Act, Effective, Flat, Judges, Moment, Operation, Rules, Set, Workload, compile, load, select,
};
use proto::rules;

/// When tests take place.
pub(crate) const NOW: Moment = Moment(1_800_000_000);

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
        devices: block,
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
    select(set, &workload("shop", &[("app", "cart")]), NOW)
}

/// A merged `/usr`, as most systems have it.
pub(crate) fn merged_usr(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    if path == "/bin/" || path.starts_with("/bin/") || path.starts_with("/sbin/") {
        names.push(format!("/usr{path}"));
    }
    names
}

pub(crate) fn rules(effective: &Effective) -> Rules {
    Rules::new(effective, &merged_usr)
}

/// On a node that judges the whole language.
pub(crate) fn flat(effective: &Effective) -> Flat {
    policy::flatten(&rules(effective), Judges::ALL)
}

/// On a node that judges no conditions.
pub(crate) fn plain(effective: &Effective) -> Flat {
    policy::flatten(&rules(effective), Judges::PLAIN)
}

pub(crate) fn exec(path: &str) -> Operation {
    Operation::exec(path)
}

pub(crate) fn open(path: &str) -> Operation {
    Operation::read(path)
}

pub(crate) fn socket(kind: i32, protocol: i32) -> Operation {
    Operation::socket(kind, protocol)
}

pub(crate) fn capability(name: &str) -> Operation {
    let number = policy::capability(name).unwrap();
    Operation::of(Act::Capability { number })
}

pub(crate) fn syscall(name: &str) -> Operation {
    let number = policy::syscall(name).unwrap();
    Operation::of(Act::Syscall { number, path: None })
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
