//! What a workload asks the kernel for, as people write and read it, and what the policies answer.
//!
//! The one place of this folder that makes a `policy::Operation` and reads a `policy::Verdict`.

use std::fmt;

use policy::{
    Act, Enforced, Operation, Posture, Protocol, Rules, SocketKey, Workload, decide, select,
};

use super::loaded::Compiled;

/// One operation with the circumstances that rules look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    pub(super) what: What,
    /// The program that does it; of a start, the one that starts.
    pub(super) source: Option<String>,
    /// The arguments of a start, without the program's name.
    pub(super) args: Vec<String>,
    /// Done by the owner of the file.
    pub(super) owner: bool,
    /// A terminal is attached.
    pub(super) tty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Exec(String),
    Open {
        path: String,
        write: bool,
    },
    /// The name of a protocol, socket type, or what else `matchProtocols` knows.
    Socket(SocketName),
    Dns(String),
    Capability(String),
    Syscall {
        name: String,
        path: String,
    },
}

/// A socket by the name that a policy has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SocketName(pub(super) SocketKey);

impl SocketName {
    /// The plainest socket of this name.
    pub(super) fn of(name: &str) -> Option<SocketName> {
        Protocol::of(name)?;
        let key = match name {
            "udp" | "dgram" => SocketKey::of(2, 17),
            "icmp" => SocketKey::of(2, 1),
            "icmpv6" => SocketKey::of(2, 58),
            "sctp" => SocketKey::of(1, 132),
            "raw" => SocketKey::of(3, 0),
            "rdm" => SocketKey::of(4, 0),
            "seqpacket" => SocketKey::of(5, 0),
            "dccp" => SocketKey::of(6, 0),
            "packet" => SocketKey::PACKET,
            _ => SocketKey::of(1, 6), // tcp, stream, all
        };
        Some(SocketName(key))
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.kind {
            1 => "stream",
            2 => "dgram",
            3 => "raw",
            4 => "rdm",
            5 => "seqpacket",
            6 => "dccp",
            _ => "packet",
        };
        let protocol = match self.0.protocol {
            6 => "TCP ",
            17 => "UDP ",
            1 => "ICMP ",
            58 => "ICMPv6 ",
            132 => "SCTP ",
            _ => "",
        };
        write!(f, "{protocol}{kind}")
    }
}

impl Asked {
    /// Done by somebody, without arguments, terminal or ownership.
    pub(super) fn plain(what: What) -> Asked {
        Asked {
            what,
            source: None,
            args: Vec::new(),
            owner: false,
            tty: false,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Exec(path) => write!(f, "starting {path}")?,
            What::Open { path, write: true } => write!(f, "writing {path}")?,
            What::Open { path, write: false } => write!(f, "reading {path}")?,
            What::Socket(name) => write!(f, "a {name} socket")?,
            What::Dns(name) => write!(f, "asking for the name {name}")?,
            What::Capability(name) => write!(f, "using CAP_{}", name.to_uppercase())?,
            What::Syscall { name, path } if path.is_empty() => write!(f, "calling {name}")?,
            What::Syscall { name, path } => write!(f, "calling {name} on {path}")?,
        }
        if !self.args.is_empty() {
            write!(f, " {}", self.args.join(" "))?;
        }
        if let Some(source) = &self.source {
            write!(f, " by {source}")?;
        }
        if self.owner {
            write!(f, " as the file's owner")?;
        }
        if self.tty {
            write!(f, " at a terminal")?;
        }
        Ok(())
    }
}

/// What people see of a verdict.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It passes in silence.
    Pass,
    /// It passes and is told.
    Audit,
    /// It passes, and is told as what would have been blocked.
    WouldBlock,
    /// It is denied and told.
    Block,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Pass => "pass",
            Outcome::Audit => "audit",
            Outcome::WouldBlock => "would-block",
            Outcome::Block => "block",
        })
    }
}

/// How alerts name the posture.
pub(super) const POSTURE: &str = "DefaultPosture";

/// An outcome, and whose word it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// The policy, `DefaultPosture`, or nobody.
    pub(super) by: String,
    /// The rule, where it is one.
    pub(super) rule: u64,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.outcome)?;
        if !self.by.is_empty() {
            write!(f, " by {}", self.by)?;
        }
        Ok(())
    }
}

/// The policies of one workload, ready to answer.
pub(super) struct Judge<'s> {
    compiled: &'s Compiled,
    rules: Rules,
    digest: proto::Digest,
    policies: Vec<String>,
}

/// Other names of a literal path: where its links lead.
pub(super) type Links<'s> = &'s dyn Fn(&str) -> Vec<String>;

impl<'s> Judge<'s> {
    /// The policies of a set that are about a workload.
    pub(super) fn new(compiled: &'s Compiled, workload: &Workload, links: Links<'s>) -> Judge<'s> {
        let now = std::time::SystemTime::now().into();
        let effective = select(&compiled.set, workload, now);
        Judge {
            compiled,
            rules: Rules::new(&effective, links),
            digest: effective.digest(),
            policies: effective.policies(),
        }
    }

    /// Equal for equal policies.
    pub(super) fn digest(&self) -> proto::Digest {
        self.digest
    }

    /// The titles of the policies.
    pub(super) fn policies(&self) -> Vec<String> {
        self.policies.clone()
    }

    /// What they say to an operation.
    pub(super) fn answer(&self, asked: &Asked) -> Answer {
        let Some(operation) = operation(asked) else {
            return Answer {
                outcome: Outcome::Pass,
                by: String::new(),
                rule: 0,
            };
        };
        let verdict = decide(&self.rules, &operation);
        let would = verdict.shadow.filter(|shadow| shadow.denies());
        let (outcome, rule) = match (verdict.enforced, verdict.audit) {
            _ if would.is_some() => match would {
                Some(Enforced::Block(rule)) => (Outcome::WouldBlock, Some(rule)),
                _ => (Outcome::WouldBlock, None),
            },
            (Enforced::Block(rule), _) => (Outcome::Block, Some(rule)),
            (Enforced::Posture(Posture::Block), _) => (Outcome::Block, None),
            (_, Some(rule)) => (Outcome::Audit, Some(rule)),
            (Enforced::Posture(Posture::Audit), None) => (Outcome::Audit, None),
            (Enforced::Allow(rule), None) => (Outcome::Pass, Some(rule)),
            (Enforced::Nothing, None) => {
                return Answer {
                    outcome: Outcome::Pass,
                    by: String::new(),
                    rule: 0,
                };
            }
        };
        let by = rule.map_or(POSTURE, |rule| self.compiled.policy_of(rule));
        Answer {
            outcome,
            by: by.to_owned(),
            rule: rule.map_or(0, |rule| rule.0),
        }
    }
}

/// None for names that are none.
fn operation(asked: &Asked) -> Option<Operation> {
    let mut operation = match &asked.what {
        What::Exec(path) => Operation::exec(path.as_str()).args(asked.args.clone()),
        What::Open { path, write } => Operation::open(path.as_str(), *write),
        What::Socket(SocketName(key)) => Operation::of(Act::Socket { key: *key }),
        What::Capability(name) => Operation::of(Act::Capability {
            number: policy::capability(name)?,
        }),
        What::Syscall { name, path } => Operation::of(Act::Syscall {
            number: policy::syscall(name)?,
            path: Some(path.clone()),
        }),
        What::Dns(name) => Operation::lookup(name.as_str()),
    };
    operation.by.program = asked.source.clone();
    Some(operation.owner(asked.owner).terminal(asked.tty))
}
