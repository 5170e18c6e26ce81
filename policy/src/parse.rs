//! Text → policies and everything that is wrong with it.
//!
//! A file holds documents; a document is a policy or a list of them. A policy with an error is left out (the caller
//! decides what to do with the rest: the relay keeps its last good set). Unknown fields are warnings, so that a file
//! written for a newer version is still read.

use std::collections::{BTreeMap, HashMap, HashSet};

use proto::Digest;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use yaml::{Node, Problem, Severity};

use crate::model::{Kind, Policy, Spec};
use crate::set::blob_digest;
use crate::values::check;

/// The only version there is.
pub const API_VERSION: &str = "security.kubearmor.com/v1";
const GROUP: &str = "security.kubearmor.com/";
/// The namespace of a policy that names none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";

/// What becomes of fields that the language does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They are warnings, so that a file written for a newer version is still read.
    #[default]
    Warn,
    /// They are errors.
    Refuse,
}

/// Reads one file.
pub fn parse(file: &str, text: &str) -> (Vec<Policy>, Vec<Problem>) {
    load([(file, text)])
}

/// [`parse`] for bytes of unknown origin; what is not UTF-8 is a problem.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> (Vec<Policy>, Vec<Problem>) {
    let mut whole = Whole::default();
    whole.add(Reading::of(yaml::parse_bytes(file, bytes), Unknown::Warn));
    (whole.policies, whole.problems)
}

/// Reads many files, names and texts; also finds policies that are there twice.
pub fn load<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> (Vec<Policy>, Vec<Problem>) {
    load_with(files, Unknown::Warn)
}

/// [`load`], as strict as one likes.
pub fn load_with<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
    unknown: Unknown,
) -> (Vec<Policy>, Vec<Problem>) {
    let mut whole = Whole::default();
    for (file, text) in files {
        whole.add(Reading::of(yaml::parse(file, text), unknown));
    }
    (whole.policies, whole.problems)
}

/// [`load`] again and again: only files that changed since the last time are read. What is not there any more is forgotten.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    read: HashMap<String, (Digest, Reading)>,
}

impl Loader {
    /// What [`load`] gives.
    pub fn load<'a>(
        &mut self,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Vec<Policy>, Vec<Problem>) {
        let mut before = std::mem::take(&mut self.read);
        let mut whole = Whole::default();
        for (file, text) in files {
            let digest = blob_digest(text.as_bytes());
            let reading = match before.remove(file) {
                Some((known, reading)) if known == digest => reading,
                _ => Reading::of(yaml::parse(file, text), Unknown::Warn),
            };
            whole.add(reading.clone());
            self.read.insert(file.to_owned(), (digest, reading));
        }
        (whole.policies, whole.problems)
    }
}

/// Many files together.
#[derive(Default)]
struct Whole {
    policies: Vec<Policy>,
    problems: Vec<Problem>,
    seen: HashMap<Key, String>,
}

impl Whole {
    fn add(&mut self, reading: Reading) {
        let Reading {
            policies,
            mut problems,
            named,
            ..
        } = reading;
        let (mut twice, mut again) = (HashSet::new(), Vec::new());
        for Named {
            key,
            at,
            index,
            problem,
        } in named
        {
            match self.seen.get(&key) {
                Some(first) => {
                    again.push(twin(&key, first, problem));
                    twice.extend(index);
                }
                None => drop(self.seen.insert(key, at)),
            }
        }
        if !again.is_empty() {
            problems.extend(again);
            problems.sort_by_key(|problem| (problem.line, problem.column));
        }
        let once = policies.into_iter().enumerate();
        let once = once.filter(|(index, _)| !twice.contains(index));
        self.policies.extend(once.map(|(_, policy)| policy));
        self.problems.extend(problems);
    }
}

/// What a policy is known by: kind, namespace, name.
type Key = (Kind, String, String);

/// Somebody has this name.
#[derive(Clone, Debug)]
struct Named {
    key: Key,
    /// `file:line`.
    at: String,
    /// Among the policies of the file; none: it has errors.
    index: Option<usize>,
    /// Where to say so if somebody else has it too.
    problem: Problem,
}

fn twin((_, namespace, name): &Key, first: &str, problem: Problem) -> Problem {
    let place = match namespace.as_str() {
        "" => String::new(),
        namespace => format!(" in namespace `{namespace}`"),
    };
    Problem {
        message: format!("the policy `{name}`{place} is also at {first}; rename or remove one"),
        ..problem
    }
}

/// One file.
#[derive(Clone, Debug, Default)]
struct Reading {
    unknown: Unknown,
    policies: Vec<Policy>,
    problems: Vec<Problem>,
    /// All that say who they are, good or not.
    named: Vec<Named>,
}

/// What stands around a spec. Everything that Kubernetes itself writes there may stay.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(
    dead_code,
    reason = "fields that are read to be known and then not looked at"
)]
struct Document<S> {
    #[serde(default)]
    api_version: IgnoredAny,
    #[serde(default)]
    kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
    #[serde(default)]
    status: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(
    dead_code,
    reason = "fields that are read to be known and then not looked at"
)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    labels: IgnoredAny,
    #[serde(default)]
    annotations: IgnoredAny,
    #[serde(default)]
    creation_timestamp: IgnoredAny,
    #[serde(default)]
    deletion_grace_period_seconds: IgnoredAny,
    #[serde(default)]
    deletion_timestamp: IgnoredAny,
    #[serde(default)]
    finalizers: IgnoredAny,
    #[serde(default)]
    generate_name: IgnoredAny,
    #[serde(default)]
    generation: IgnoredAny,
    #[serde(default)]
    managed_fields: IgnoredAny,
    #[serde(default)]
    owner_references: IgnoredAny,
    #[serde(default)]
    resource_version: IgnoredAny,
    #[serde(default)]
    self_link: IgnoredAny,
    #[serde(default)]
    uid: IgnoredAny,
}

/// What a document says that it is.
enum Said {
    Policy(Kind),
    /// A list, with the kind that its items have unless they say otherwise.
    List(Option<Kind>),
    Foreign,
    Nonsense,
}

impl Reading {
    fn of((documents, problems): (Vec<Node>, Vec<Problem>), unknown: Unknown) -> Reading {
        let broken = problems.iter().any(Problem::is_error);
        let mut reading = Reading {
            unknown,
            problems,
            ..Reading::default()
        };
        for document in &documents {
            reading.document(document, None);
        }
        if broken {
            // A key that is there twice, a document that breaks off: what was read may not be what was meant.
            reading.policies.clear();
        }
        reading
            .problems
            .sort_by_key(|problem| (problem.line, problem.column));
        reading
    }

    fn document(&mut self, node: &Node, expected: Option<Kind>) {
        if !node.is_map() {
            let message = format!("expected a policy (a mapping with `apiVersion: {API_VERSION}`)");
            return self.problems.push(node.problem(message));
        }
        let before = self.problems.len();
        match self.said(node, expected) {
            Said::Policy(kind) => self.policy(node, kind, before),
            Said::List(kind) => self.list(node, kind),
            Said::Foreign => {
                let kind = node.get("kind").and_then(Node::as_str).unwrap_or_default();
                let message = format!("a {kind} is not a KubeArmor policy; it is left out");
                self.problems.push(warning(node, "kind", message));
            }
            Said::Nonsense => {}
        }
    }

    fn said(&mut self, node: &Node, expected: Option<Kind>) -> Said {
        let text = |key| {
            node.get(key)
                .and_then(Node::as_str)
                .filter(|text| !text.is_empty())
        };
        let (version, kind) = (text("apiVersion"), text("kind"));
        let known = |word: &str| Kind::ALL.into_iter().find(|kind| kind.name() == word);
        let list = |word: &str| known(word.strip_suffix("List")?);
        let wrong = version.filter(|version| *version != API_VERSION);
        match kind {
            Some("List") => return Said::List(None),
            Some(word) if known(word).is_none() && list(word).is_none() => {
                let foreign = version.is_none_or(|version| !version.starts_with(GROUP));
                if foreign && near_kind(word).is_none() {
                    return Said::Foreign;
                }
                let message = match near_kind(word) {
                    Some(near) => format!("unknown kind `{word}`; did you mean `{near}`?"),
                    None => format!("unknown kind `{word}`; a policy is a {}", kinds()),
                };
                self.problems.push(node.problem_at("kind", message));
                return Said::Nonsense;
            }
            None if expected.is_none() => {
                let message = format!("`kind` is missing; add one of {}", kinds());
                self.problems.push(node.problem_at("kind", message));
                return Said::Nonsense;
            }
            _ => {}
        }
        if let Some(version) = wrong {
            let message = format!("unknown version `{version}`; write `{API_VERSION}`");
            self.problems.push(node.problem_at("apiVersion", message));
        } else if version.is_none() && expected.is_none() {
            let message = format!("`apiVersion` is missing; write `apiVersion: {API_VERSION}`");
            self.problems.push(node.problem_at("apiVersion", message));
        }
        match (kind.and_then(known), kind.and_then(list), expected) {
            (Some(kind), _, _) | (None, None, Some(kind)) => Said::Policy(kind),
            (None, kind, _) => Said::List(kind),
        }
    }

    fn list(&mut self, node: &Node, kind: Option<Kind>) {
        match node.get("items") {
            Some(items) if items.is_list() || items.is_null() => {
                items
                    .items()
                    .iter()
                    .for_each(|item| self.document(item, kind));
            }
            Some(items) => self
                .problems
                .push(items.problem("expected a list of policies")),
            None => self
                .problems
                .push(node.problem("`items` is missing; a list has its policies there")),
        }
    }

    /// Takes a policy whose problems begin at `before`.
    fn policy(&mut self, node: &Node, kind: Kind, before: usize) {
        let read = match kind {
            Kind::Workload => self.read(node).map(|(m, spec)| (m, Spec::Workload(spec))),
            Kind::Cluster => self.read(node).map(|(m, spec)| (m, Spec::Cluster(spec))),
            Kind::Host => self.read(node).map(|(m, spec)| (m, Spec::Host(spec))),
            Kind::Network => self.read(node).map(|(m, spec)| (m, Spec::Network(spec))),
        };
        let Some((metadata, spec)) = read else { return };
        let namespace = self.namespace(node, kind, metadata.namespace);
        let mut policy = Policy {
            file: node.file().to_owned(),
            line: node.line(),
            place: node.path(),
            kind,
            namespace,
            name: metadata.name,
            spec,
            lines: BTreeMap::new(),
        };
        self.name(node, &policy);
        policy.lines = check(node, &policy, &mut self.problems);
        if let Some(expires) = node.get("spec.expires") {
            let at = (expires.line(), expires.column());
            policy.lines.insert("spec.expires".to_owned(), at);
        }
        let fine = !self.problems[before..].iter().any(Problem::is_error);
        self.named.push(Named {
            key: (policy.kind, policy.namespace.clone(), policy.name.clone()),
            at: format!("{}:{}", policy.file, policy.line),
            index: fine.then_some(self.policies.len()),
            problem: node.problem_at("metadata.name", String::new()),
        });
        if fine {
            self.policies.push(policy);
        }
    }

    fn read<S: DeserializeOwned>(&mut self, node: &Node) -> Option<(Metadata, Box<S>)> {
        let document: Document<S> = node.read(self.severity(), &mut self.problems)?;
        Some((document.metadata, Box::new(document.spec)))
    }

    fn severity(&self) -> Severity {
        match self.unknown {
            Unknown::Warn => Severity::Warning,
            Unknown::Refuse => Severity::Error,
        }
    }

    fn namespace(&mut self, node: &Node, kind: Kind, given: Option<String>) -> String {
        let given = given.unwrap_or_default();
        match (kind, given.is_empty()) {
            (Kind::Workload, false) => given,
            (Kind::Workload, true) => {
                let message =
                    format!("no namespace is given; it is taken to be `{DEFAULT_NAMESPACE}`");
                self.problems.push(warning(node, "metadata", message));
                DEFAULT_NAMESPACE.to_owned()
            }
            (_, true) => String::new(),
            (_, false) => {
                let message = format!("a {kind} has no namespace; remove it");
                self.problems
                    .push(warning(node, "metadata.namespace", message));
                String::new()
            }
        }
    }

    fn name(&mut self, node: &Node, policy: &Policy) {
        for (path, what, word) in [
            ("metadata.name", "name", &policy.name),
            ("metadata.namespace", "namespace", &policy.namespace),
        ] {
            let cluster_wide = what == "namespace" && word.is_empty();
            if !cluster_wide && !is_name(word) {
                let message = format!(
                    "`{word}` is no {what}; use letters, digits, `-`, `_` and `.`, at most 253 of them"
                );
                self.problems.push(node.problem_at(path, message));
            }
        }
    }
}

fn near_kind(word: &str) -> Option<&'static str> {
    yaml::nearest(word, Kind::ALL.map(Kind::name))
}

fn kinds() -> String {
    Kind::ALL.map(|kind| format!("`{kind}`")).join(", ")
}

/// Kubernetes' form of names (DNS subdomain, RFC 1123), and underscores and capitals, which it refuses and others use.
fn is_name(word: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    word.len() <= 253
        && word.bytes().all(inner)
        && end(word.bytes().next())
        && end(word.bytes().last())
}

fn warning(node: &Node, path: &str, message: String) -> Problem {
    Problem {
        severity: Severity::Warning,
        ..node.problem_at(path, message)
    }
}
