//! What a workload asks the kernel for, as people write and read it, and what the policies answer.
//!
//! The one place of this folder that makes a `policy::Operation` and reads a `policy::Verdict`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use policy::{
    Act, Actor, Connection, Device, Devices, Direction, Effective, Endpoints, Enforced, Moment,
    Node, Object, Operation, Packet, Posture, Protocol, Rules, SocketKey, Transport, Workload,
    decide, select, select_node,
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
    /// The process, where that matters: whose `/proc` is looked into.
    pub(super) pid: Option<u32>,
    /// Out of a `kubectl exec` session; none: not known.
    pub(super) session: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Exec(String),
    Open {
        path: String,
        write: bool,
    },
    /// Making memory executable that no file stands behind.
    MapExec,
    /// The name of a protocol, socket type, or what else `matchProtocols` knows.
    Socket(SocketName),
    Dns(String),
    Capability(String),
    Syscall {
        name: String,
        path: String,
    },
    Connect(Peer),
    /// Nodes only.
    Plug(Device),
    /// Of a network policy.
    Packet(Packet),
}

/// The far end of a connection, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) direction: Direction,
    pub(super) transport: Transport,
    pub(super) address: IpAddr,
    /// The far end's; of what comes in, one's own. None: not known.
    pub(super) port: Option<u16>,
    /// The names that the address was looked up by; none: not known.
    pub(super) names: Option<Vec<String>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.name().to_uppercase();
        let article = if self.transport == Transport::Sctp {
            "an"
        } else {
            "a"
        };
        write!(f, "{article} {transport} connection ")?;
        match (self.direction, self.port) {
            (Direction::Egress, Some(port)) => {
                write!(f, "to {}", SocketAddr::new(self.address, port))?;
            }
            (Direction::Egress, None) => write!(f, "to {}", self.address)?,
            (Direction::Ingress, Some(port)) => write!(f, "from {} at port {port}", self.address)?,
            (Direction::Ingress, None) => write!(f, "from {}", self.address)?,
        }
        match self.names.iter().flatten().next() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
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

impl SocketName {
    /// As the letters are spoken: an ICMPv6, an rdm, an SCTP.
    fn article(self) -> &'static str {
        match (self.0.protocol, self.0.kind) {
            (1 | 58 | 132, _) => "an",
            (6 | 17, _) => "a",
            (_, 4) => "an",
            _ => "a",
        }
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
            pid: None,
            session: Some(false),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Exec(path) => write!(f, "starting {path}")?,
            What::Open { path, write: true } => write!(f, "writing {path}")?,
            What::Open { path, write: false } => write!(f, "reading {path}")?,
            What::MapExec => write!(f, "making anonymous memory executable")?,
            What::Socket(name) => write!(f, "{} {name} socket", name.article())?,
            What::Dns(name) => write!(f, "asking for the name {name}")?,
            What::Capability(name) => write!(f, "using CAP_{}", name.to_uppercase())?,
            What::Syscall { name, path } if path.is_empty() => write!(f, "calling {name}")?,
            What::Syscall { name, path } => write!(f, "calling {name} on {path}")?,
            What::Connect(peer) => write!(f, "{peer}")?,
            What::Plug(device) => write!(f, "plugging in {}", plugged(*device))?,
            What::Packet(one) => packet(one, f)?,
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
        if self.session == Some(true) {
            write!(f, " in a session")?;
        }
        Ok(())
    }
}

/// A device in the words that rules have for it.
fn plugged(device: Device) -> Devices {
    Devices {
        class: Some(device.class),
        sub_class: Some(device.sub_class),
        protocol: Some(device.protocol),
        level: Some(device.level),
    }
}

fn packet(packet: &Packet, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let transport = packet.transport.name().to_uppercase();
    let way = match packet.direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    write!(
        f,
        "a {transport} packet {way} {} port {}",
        packet.address, packet.port
    )?;
    if !packet.interface.is_empty() {
        write!(f, " through {}", packet.interface)?;
    }
    match packet.used {
        Some(used) if used > 0 => write!(f, " after {used} bytes"),
        _ => Ok(()),
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
    /// Nothing that a rule asks for is unknown.
    pub(super) sure: bool,
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
    titles: Vec<String>,
}

/// Other names of a literal path: where its links lead.
pub(super) type Links<'s> = &'s dyn Fn(&str) -> Vec<String>;

impl<'s> Judge<'s> {
    /// The policies of a set that are about a workload now.
    pub(super) fn new(compiled: &'s Compiled, workload: &Workload, links: Links<'_>) -> Judge<'s> {
        let now = Moment::from(std::time::SystemTime::now());
        Judge::of(compiled, &select(&compiled.set, workload, now), links)
    }

    /// The policies of a set that are about a node now.
    pub(super) fn on_node(compiled: &'s Compiled, node: &Node, links: Links<'_>) -> Judge<'s> {
        let now = Moment::from(std::time::SystemTime::now());
        Judge::of(compiled, &select_node(&compiled.set, node, now), links)
    }

    fn of(compiled: &'s Compiled, effective: &Effective, links: Links<'_>) -> Judge<'s> {
        Judge {
            compiled,
            rules: Rules::new(effective, links),
            digest: effective.digest(),
            titles: effective.policies(),
        }
    }

    /// Equal for equal policies.
    pub(super) fn digest(&self) -> proto::Digest {
        self.digest
    }

    /// The titles of the policies.
    pub(super) fn policies(&self) -> &[String] {
        &self.titles
    }

    /// What they say to an operation.
    pub(super) fn answer(&self, asked: &Asked) -> Answer {
        let Some(operation) = operation(asked) else {
            return Answer::NOTHING;
        };
        let verdict = decide(&self.rules, &operation);
        let sure = verdict.doubt().is_none() && self.knows_enough(&asked.what);
        let would = verdict.shadow.filter(Enforced::denies);
        let (outcome, rule) = match (verdict.enforced, would, verdict.audit) {
            (Enforced::Block(rule), ..) => (Outcome::Block, Some(rule)),
            (Enforced::Posture(Posture::Block), ..) => (Outcome::Block, None),
            (_, Some(Enforced::Block(rule)), _) => (Outcome::WouldBlock, Some(rule)),
            (_, Some(_), _) => (Outcome::WouldBlock, None),
            (_, _, Some(rule)) => (Outcome::Audit, Some(rule)),
            (Enforced::Posture(Posture::Audit), ..) => (Outcome::Audit, None),
            (Enforced::Allow(rule), ..) => (Outcome::Pass, Some(rule)),
            (Enforced::Nothing, ..) => {
                return Answer {
                    sure,
                    ..Answer::NOTHING
                };
            }
        };
        let by = rule.map_or(POSTURE, |rule| self.compiled.policy_of(rule));
        Answer {
            outcome,
            by: by.to_owned(),
            rule: rule.map_or(0, |rule| rule.0),
            sure,
        }
    }
}

impl Judge<'_> {
    /// Whether nothing that a rule asks of a far end is missing.
    fn knows_enough(&self, what: &What) -> bool {
        let What::Connect(peer) = what else {
            return true;
        };
        let asks = |own: &Endpoints| {
            own.direction
                .is_none_or(|direction| direction == peer.direction)
                && (peer.names.is_none() && own.domain.is_some()
                    || peer.port.is_none() && !own.ports.is_empty())
        };
        !self
            .rules
            .iter()
            .any(|(_, rule)| matches!(&rule.object, Object::Endpoints(own) if asks(own)))
    }
}

impl Answer {
    /// Nobody says anything.
    const NOTHING: Answer = Answer {
        outcome: Outcome::Pass,
        by: String::new(),
        rule: 0,
        sure: true,
    };
}

/// None for a name that no operation has.
fn operation(asked: &Asked) -> Option<Operation> {
    let act = match &asked.what {
        What::Exec(path) => Act::Exec {
            path: path.clone(),
            args: Some(asked.args.clone()),
        },
        What::Open { path, write } => Act::Open {
            path: path.clone(),
            write: *write,
        },
        What::MapExec => Act::MapExec,
        What::Socket(SocketName(key)) => Act::Socket { key: *key },
        What::Dns(name) => Act::Lookup { name: name.clone() },
        What::Capability(name) => Act::Capability {
            number: policy::capability(name)?,
        },
        What::Syscall { name, path } => Act::Syscall {
            number: policy::syscall(name)?,
            path: Some(path.clone()).filter(|path| !path.is_empty()),
        },
        What::Connect(peer) => Act::Connect(Connection {
            direction: peer.direction,
            transport: peer.transport,
            address: peer.address,
            port: peer.port.unwrap_or_default(),
            names: peer.names.clone().unwrap_or_default(),
        }),
        What::Plug(device) => Act::Device(*device),
        What::Packet(packet) => Act::Packet(packet.clone()),
    };
    let by = Actor {
        program: asked.source.clone(),
        owner: Some(asked.owner),
        terminal: Some(asked.tty),
        pid: asked.pid,
        session: asked.session,
    };
    Some(Operation { act, by })
}
