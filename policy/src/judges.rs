//! What a node's kernel half can judge.
//!
//! The language says more than every kernel can ask. A node names the parts that its programs judge, and
//! [`flatten`](crate::flatten()) leaves rules out that need more: reported, and never replaced by something broader.

use std::sync::Arc;

use proto::rules::{PolicyBlob, Unenforced};

use crate::flat::NotEnforced;
use crate::flatten::flatten;
use crate::path::{MAX_COMPONENT, MAX_COMPONENTS, components, depth};
use crate::rule::{Object, Rule};
use crate::select::Effective;
use crate::set::{CompiledPolicy, Set, title};
use crate::standing::Rules;

/// A part of the language that a kernel half may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    /// `fromSource`.
    Source,
    /// `ownerOnly`.
    Owner,
    /// `readOnly`.
    ReadOnly,
    /// `pts: false`.
    Terminal,
    /// `allowedArgs`.
    Arguments,
    /// `execname`.
    Name,
    /// `matchPatterns`.
    Pattern,
    /// `matchDNSQueries`.
    Dns,
    /// `matchEndpoints`.
    Endpoint,
    /// `syscalls.matchPaths`.
    SyscallPath,
    /// `presets`.
    Preset,
    /// `device`.
    Device,
    /// Network policies.
    Flow,
    /// Host policies.
    Host,
    /// `mode: audit` beside what is enforced; without, what it would stop is told as an Audit where nothing else is.
    Shadow,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 15] = [
        Part::Source,
        Part::Owner,
        Part::ReadOnly,
        Part::Terminal,
        Part::Arguments,
        Part::Name,
        Part::Pattern,
        Part::Dns,
        Part::Endpoint,
        Part::SyscallPath,
        Part::Preset,
        Part::Device,
        Part::Flow,
        Part::Host,
        Part::Shadow,
    ];

    /// What people write to ask for it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Source => "fromSource",
            Part::Owner => "ownerOnly",
            Part::ReadOnly => "readOnly",
            Part::Terminal => "pts",
            Part::Arguments => "allowedArgs",
            Part::Name => "execname",
            Part::Pattern => "matchPatterns",
            Part::Dns => "matchDNSQueries",
            Part::Endpoint => "matchEndpoints",
            Part::SyscallPath => "the path that a system call acts on",
            Part::Preset => "this preset",
            Part::Device => "device rules",
            Part::Flow => "network policies",
            Part::Host => "host policies",
            Part::Shadow => "mode: audit",
        }
    }
}

/// The parts that a node judges, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judges(u32);

impl Judges {
    /// Paths, directories, protocols, capabilities and system calls without conditions: what every node judges.
    pub const PLAIN: Judges = Judges(0);
    /// What the kernel programs of this version's sensor judge.
    pub const SENSOR: Judges = Judges::PLAIN;
    /// The whole language.
    pub const ALL: Judges = Judges(u32::MAX);

    /// With one part more.
    #[must_use]
    pub const fn with(self, part: Part) -> Judges {
        Judges(self.0 | 1 << part as u32)
    }

    /// Whether the part is among them.
    pub const fn has(self, part: Part) -> bool {
        self.0 & (1 << part as u32) != 0
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// Whether a rule of this kind of policy is in force on such a node.
    pub fn judges(self, kind: &str, rule: &Rule) -> bool {
        Part::of_kind(kind).is_none_or(|part| self.has(part)) && self.lack(rule).is_none()
    }

    /// Why a rule is left out of force on such a node; `None` for one that is judged in full. It is left out whole,
    /// rather than applied more broadly than it was written.
    pub fn lack(self, rule: &Rule) -> Option<String> {
        if let Some(why) = unreachable(&rule.object) {
            return Some(why.to_owned());
        }
        let missing = Part::ALL
            .into_iter()
            .find(|part| part.is_asked_by(rule) && !self.has(*part))?;
        let name = missing.name();
        let verb = match missing {
            Part::Device | Part::Flow | Part::Host => "are",
            _ => "is",
        };
        Some(match missing {
            Part::Source | Part::Owner | Part::ReadOnly | Part::Terminal | Part::Arguments => {
                format!("{name} {verb} not judged by this version's sensor: the rule is left out")
            }
            _ => format!("{name} {verb} not judged by this version's sensor"),
        })
    }
}

impl Judges {
    /// Everything that the policies of a set ask for and such a node does not judge, wherever the policies select.
    pub fn lacks(self, set: &Set) -> Vec<NotEnforced> {
        set.policies
            .iter()
            .flat_map(|policy| self.lacks_of(policy))
            .collect()
    }

    /// [`Judges::lacks`], and what is softened for what is left out, of each policy as if it stood alone.
    pub fn shortfall(self, set: &Set) -> Vec<NotEnforced> {
        let mut all = Vec::new();
        for policy in &set.policies {
            let mut told = self.lacks_of(policy);
            if self.judges_kind(policy) {
                let rules = Rules::new(&Effective::alone(policy, set), &|_| Vec::new());
                let softened = flatten(&rules, self).not_enforced.into_iter();
                let softened: Vec<NotEnforced> =
                    softened.filter(|part| !told.contains(part)).collect();
                told.extend(softened);
            }
            all.append(&mut told);
        }
        all
    }

    fn judges_kind(self, policy: &CompiledPolicy) -> bool {
        Part::of_kind(&policy.kind).is_none_or(|part| self.has(part))
    }

    /// [`Judges::lacks`] of one policy as it is distributed.
    pub fn lacks_in(self, blob: &PolicyBlob) -> Vec<NotEnforced> {
        let rules = blob.rules.iter();
        let rules: Vec<Rule> = rules
            .filter_map(|rule| Rule::from_wire(rule).ok())
            .collect();
        let title = title(&blob.namespace, &blob.name);
        self.missing(&blob.kind, &title, &blob.unenforced, rules.iter())
    }

    fn lacks_of(self, policy: &CompiledPolicy) -> Vec<NotEnforced> {
        let rules = policy.rules.iter().map(Arc::as_ref);
        self.missing(&policy.kind, &policy.title(), &policy.unenforced, rules)
    }

    fn missing<'r>(
        self,
        kind: &str,
        policy: &str,
        marked: &[Unenforced],
        rules: impl Iterator<Item = &'r Rule>,
    ) -> Vec<NotEnforced> {
        let told = |path: String, reason: String| NotEnforced {
            policy: policy.to_owned(),
            path,
            reason,
            softened: false,
        };
        let whole = Part::of_kind(kind).filter(|part| !self.has(*part));
        if let Some(part) = whole {
            let reason = format!("{} are not judged by this version's sensor", part.name());
            return vec![told("spec".to_owned(), reason)];
        }
        let marked = marked.iter();
        let marked = marked.map(|part| told(part.path.clone(), part.reason.clone()));
        let rules = rules.filter_map(|rule| Some(told(rule.title(), self.lack(rule)?)));
        marked.chain(rules).collect()
    }
}

impl Part {
    /// What a whole kind of policy asks for.
    fn of_kind(kind: &str) -> Option<Part> {
        match kind {
            "KubeArmorHostPolicy" => Some(Part::Host),
            "KubeArmorNetworkPolicy" => Some(Part::Flow),
            _ => None,
        }
    }

    fn is_asked_by(self, rule: &Rule) -> bool {
        match self {
            Part::Source => !rule.sources.is_empty(),
            Part::Owner => rule.owner_only,
            Part::ReadOnly => rule.read_only,
            Part::Terminal => rule.pts == Some(false),
            Part::Arguments => !rule.args.is_empty(),
            Part::Name => matches!(rule.object, Object::Name(_)),
            Part::Pattern => matches!(rule.object, Object::Pattern(_)),
            Part::Dns => matches!(rule.object, Object::Domain(_)),
            Part::Endpoint => matches!(rule.object, Object::Endpoints(_)),
            Part::SyscallPath => {
                matches!(&rule.object, Object::Syscall { path, .. } if !path.is_empty())
            }
            Part::Preset => matches!(rule.object, Object::Preset(_)),
            Part::Device => matches!(rule.object, Object::Devices(_)),
            Part::Flow => matches!(rule.object, Object::Flows(_)),
            Part::Host | Part::Shadow => false, // of a policy, not of a rule
        }
    }
}

/// Why no kernel can follow the path.
fn unreachable(object: &Object) -> Option<&'static str> {
    let (Object::Path(path) | Object::Directory { path, .. }) = object else {
        return None;
    };
    if depth(path) > MAX_COMPONENTS {
        return Some("the path has more than 48 components");
    }
    if components(path).any(|name| name.len() > MAX_COMPONENT) {
        return Some("a component of the path is longer than 255 bytes, which none can be");
    }
    None
}
