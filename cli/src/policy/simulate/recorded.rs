//! An event as the operation that it tells of, with what it leaves open.

use policy::{Direction, SocketKey, Transport, Workload};
use proto::feeder::{Alert, Log};

use super::super::asked::{Asked, Peer, SocketName, What};
use super::super::names::Names;

/// `AccessMask`: write, append, create, unlink, rename (feeder.proto, field 111).
const CHANGES: u32 = 2 | 8 | 16 | 32 | 64;
/// `Truncated` and `DisplayOnly`: the resource (feeder.proto, fields 114 and 115).
const RESOURCE: u32 = 1;
/// What a system call may have been about that says an address and no protocol.
const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

/// The classes of operations, as people call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Class {
    Process,
    File,
    Network,
    Dns,
    Capabilities,
    Syscalls,
    Connections,
    /// Memory that is made executable.
    Memory,
    Packets,
    Devices,
}

impl Class {
    pub(super) const ALL: [Class; 10] = [
        Class::Process,
        Class::File,
        Class::Network,
        Class::Dns,
        Class::Capabilities,
        Class::Syscalls,
        Class::Connections,
        Class::Memory,
        Class::Packets,
        Class::Devices,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Process => "process",
            Class::File => "file",
            Class::Network => "network",
            Class::Dns => "dns",
            Class::Capabilities => "capabilities",
            Class::Syscalls => "syscalls",
            Class::Connections => "connections",
            Class::Memory => "memory",
            Class::Packets => "packets",
            Class::Devices => "devices",
        }
    }
}

/// An operation of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Recorded {
    pub(in super::super) workload: Workload,
    /// `namespace/pod`.
    pub(in super::super) name: String,
    pub(in super::super) class: Class,
    /// The cases that the record leaves open: one where it says everything.
    pub(in super::super) cases: Vec<Asked>,
    /// Unix seconds.
    pub(in super::super) time: i64,
}

/// What an event is to a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Told {
    /// One event may tell of two: of a TCP connection and of the socket that it is made with.
    Operations(Vec<Recorded>),
    /// The workload told more alerts than it may; the rest of that time is missing.
    Throttled { name: String },
    /// Not of a workload, or nothing that a policy judges.
    Beside,
    /// Of a workload, and too little of it is known.
    Unclear { name: String },
}

/// The fields that alerts and logs have in common.
struct Fields<'e> {
    kind: &'e str,
    namespace: &'e str,
    pod: &'e str,
    labels: &'e str,
    container: &'e str,
    operation: &'e str,
    resource: &'e str,
    data: &'e str,
    process: &'e str,
    parent: &'e str,
    source_image: &'e str,
    tty: &'e str,
    args: &'e [String],
    uid: i32,
    pid: i32,
    owner: Option<u32>,
    access: u32,
    truncated: u32,
    display_only: u32,
    time: i64,
}

macro_rules! fields {
    ($event:expr) => {
        Fields {
            kind: &$event.r#type,
            namespace: &$event.namespace_name,
            pod: &$event.pod_name,
            labels: &$event.labels,
            container: &$event.container_name,
            operation: &$event.operation,
            resource: &$event.resource,
            data: &$event.data,
            process: &$event.process_name,
            parent: &$event.parent_process_name,
            source_image: &$event.source_image,
            tty: &$event.tty,
            args: &$event.args,
            uid: $event.uid,
            pid: $event.pid,
            owner: $event.owner_uid,
            access: $event.access_mask,
            truncated: $event.truncated,
            display_only: $event.display_only,
            time: $event.timestamp,
        }
    };
}

/// Reads an alert.
pub(in super::super) fn alert(event: &Alert, names: &Names) -> Told {
    fields!(event).told(names)
}

/// Reads a log.
pub(in super::super) fn log(event: &Log, names: &Names) -> Told {
    fields!(event).told(names)
}

impl Fields<'_> {
    fn told(&self, names: &Names) -> Told {
        if self.namespace.is_empty() || self.kind.contains("Host") {
            return Told::Beside;
        }
        let name = format!("{}/{}", self.namespace, self.pod);
        if self.operation == "AlertThreshold" {
            return Told::Throttled { name };
        }
        let Some(class) = self.class() else {
            return Told::Beside;
        };
        let mut all = Vec::new();
        match self.what(class, names) {
            None => {}
            Some(Err(Unclear)) => return Told::Unclear { name },
            Some(Ok(what)) => all.push(self.recorded(class, &[what])),
        }
        let peers = self.peers();
        if !peers.is_empty() {
            all.push(self.recorded(Class::Connections, &peers));
        }
        if all.is_empty() {
            return Told::Beside;
        }
        Told::Operations(all)
    }

    fn recorded(&self, class: Class, whats: &[What]) -> Recorded {
        Recorded {
            workload: self.workload(),
            name: format!("{}/{}", self.namespace, self.pod),
            class,
            cases: (whats.iter())
                .flat_map(|what| self.cases(class, what))
                .collect(),
            time: self.time,
        }
    }

    fn class(&self) -> Option<Class> {
        match self.operation {
            "Process" => Some(Class::Process),
            "File" => Some(Class::File),
            "Network"
                if self
                    .word("domain")
                    .is_some_and(|name| !name.starts_with("AF_")) =>
            {
                Some(Class::Dns)
            }
            "Network" => Some(Class::Network),
            "Capabilities" => Some(Class::Capabilities),
            "Syscall" => Some(Class::Syscalls),
            _ => None,
        }
    }

    /// The value of `key=value` in Data, else in Resource.
    fn word(&self, key: &str) -> Option<&str> {
        let mut words = self.data.split(' ').chain(self.resource.split(' '));
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn workload(&self) -> Workload {
        let labels = self
            .labels
            .split(',')
            .filter_map(|pair| pair.split_once('='));
        Workload {
            namespace: self.namespace.to_owned(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            container: self.container.to_owned(),
        }
    }

    /// None: nothing that a policy judges.
    fn what(&self, class: Class, names: &Names) -> Option<Result<What, Unclear>> {
        match class {
            Class::Process if self.process.starts_with('/') => {
                Some(Ok(What::Exec(self.process.to_owned())))
            }
            Class::File if self.resource.is_empty() => None, // close(2) and the like
            Class::File if self.truncated & RESOURCE == 0 && self.resource.starts_with('/') => {
                // What a program wrote may hold links; what a hook saw does not.
                let path = if self.display_only & RESOURCE != 0 || self.data.starts_with("syscall=")
                {
                    names.target(self.resource)
                } else {
                    self.resource.to_owned()
                };
                Some(Ok(What::Open {
                    path,
                    write: self.writes(),
                }))
            }
            Class::Process | Class::File => Some(Err(Unclear)),
            Class::Network => self.socket().map(|key| Ok(What::Socket(SocketName(key)))),
            Class::Dns => Some(Ok(What::Dns(self.word("domain")?.to_owned()))),
            // Told of beside something else, or by nobody.
            Class::Connections | Class::Memory | Class::Packets | Class::Devices => None,
            Class::Capabilities => {
                let name = self.resource.strip_prefix("CAP_")?.to_ascii_lowercase();
                Some(Ok(What::Capability(name)))
            }
            Class::Syscalls => {
                let name = self
                    .word("syscall")?
                    .strip_prefix("SYS_")?
                    .to_ascii_lowercase();
                let path = if self.resource.starts_with('/') {
                    self.resource
                } else {
                    ""
                };
                Some(Ok(What::Syscall {
                    name,
                    path: path.to_owned(),
                }))
            }
        }
    }

    fn writes(&self) -> bool {
        let flags = self.word("flags").unwrap_or_default();
        let opens = ["O_WRONLY", "O_RDWR", "O_TRUNC", "O_APPEND"];
        let changes = [
            "UNLINK", "RENAME", "RMDIR", "MKDIR", "MKNOD", "CHMOD", "CHOWN", "TRUNCATE", "LINK",
        ];
        self.access & CHANGES != 0
            || (self.access == 0
                && (opens.iter().any(|flag| flags.contains(flag))
                    || changes.iter().any(|call| self.data.contains(call))))
    }

    /// None: a socket that no policy judges, or a call on one that was judged when it was made.
    fn socket(&self) -> Option<SocketKey> {
        let protocol = self.word("protocol").unwrap_or_default();
        let kind = self.word("type").unwrap_or_default();
        if self
            .word("domain")
            .is_some_and(|domain| !domain.starts_with("AF_INET") && domain != "AF_PACKET")
        {
            return None;
        }
        if self.word("domain") == Some("AF_PACKET") {
            return Some(SocketKey::PACKET);
        }
        let number = match protocol.to_ascii_uppercase().as_str() {
            "TCP" => 6,
            "UDP" => 17,
            "ICMP" => 1,
            "IPV6-ICMP" | "ICMPV6" => 58,
            "SCTP" => 132,
            _ => 0,
        };
        let kind = match kind.split('|').next().unwrap_or_default() {
            "SOCK_STREAM" => 1,
            "SOCK_DGRAM" => 2,
            "SOCK_RAW" => 3,
            "SOCK_RDM" => 4,
            "SOCK_SEQPACKET" => 5,
            "SOCK_DCCP" => 6,
            "SOCK_PACKET" => return Some(SocketKey::PACKET),
            _ if number == 6 => 1,
            _ if number == 17 => 2,
            _ => return None,
        };
        Some(SocketKey::of(kind, number))
    }

    /// The far end that the event tells of: one for each transport that it may have been.
    fn peers(&self) -> Vec<What> {
        let probes = ["syscall", "kprobe", "kfunc", "lsm"];
        let probe = probes.iter().find_map(|key| self.word(key));
        let (direction, transports): (_, &[Transport]) = match probe.unwrap_or_default() {
            "tcp_connect" => (Direction::Egress, &[Transport::Tcp]),
            "UDP_SENDSKB" | "UDP_SENDMSG" => (Direction::Egress, &[Transport::Udp]),
            "SYS_CONNECT" | "SOCKET_CONNECT" => (Direction::Egress, &TRANSPORTS),
            "tcp_accept" => (Direction::Ingress, &[Transport::Tcp]),
            "SYS_BIND" | "SYS_ACCEPT" => (Direction::Ingress, &TRANSPORTS),
            _ => return Vec::new(),
        };
        let mut addresses = ["remoteip", "daddr", "sin_addr"].iter();
        let Some(address) = addresses.find_map(|key| self.word(key)?.parse().ok()) else {
            return Vec::new();
        };
        let port = self.word("port").or(self.word("sin_port"));
        // Who takes a connection is told of the far end's port, and rules ask for its own.
        let own = direction == Direction::Egress || probe == Some("SYS_BIND");
        let peer = |transport: &Transport| Peer {
            direction,
            transport: *transport,
            address,
            port: port.filter(|_| own).and_then(|port| port.parse().ok()),
            names: None,
        };
        transports
            .iter()
            .map(|one| What::Connect(peer(one)))
            .collect()
    }

    /// Everything that the record does not exclude.
    fn cases(&self, class: Class, what: &What) -> Vec<Asked> {
        let source = match class {
            Class::Process if self.source_image.is_empty() => self.parent,
            _ if self.source_image.is_empty() => self.process,
            _ => self.source_image,
        };
        let owners = match (self.owner, u32::try_from(self.uid)) {
            (Some(owner), Ok(uid)) => vec![owner == uid],
            _ if matches!(class, Class::Process | Class::File) => vec![false, true],
            _ => vec![false],
        };
        let one = |owner| Asked {
            what: what.clone(),
            source: Some(source.to_owned()).filter(|source| source.starts_with('/')),
            args: self.args.get(1..).unwrap_or_default().to_vec(),
            owner,
            tty: !self.tty.is_empty(),
            pid: u32::try_from(self.pid).ok().filter(|pid| *pid > 0),
            session: None,
        };
        owners.into_iter().map(one).collect()
    }
}

/// Too little is known.
struct Unclear;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(operation: &str, resource: &str, data: &str) -> Log {
        Log {
            namespace_name: "shop".into(),
            pod_name: "cart".into(),
            labels: "app=cart,tier=web".into(),
            container_name: "web".into(),
            operation: operation.into(),
            resource: resource.into(),
            data: data.into(),
            process_name: "/usr/bin/cat".into(),
            parent_process_name: "/usr/bin/dash".into(),
            r#type: "ContainerLog".into(),
            ..Log::default()
        }
    }

    fn read(event: &Log) -> Recorded {
        match log(event, &Names::new(None)) {
            Told::Operations(mut all) => all.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn what(operation: &str, resource: &str, data: &str) -> What {
        read(&event(operation, resource, data)).cases[0]
            .what
            .clone()
    }

    #[test]
    fn each_kind_of_event_is_the_operation_that_it_tells_of() {
        let open = |path: &str, write| What::Open {
            path: path.into(),
            write,
        };
        assert_eq!(
            what("Process", "/usr/bin/cat x", "syscall=SYS_EXECVE"),
            What::Exec("/usr/bin/cat".into())
        );
        assert_eq!(
            what(
                "File",
                "/etc/x",
                "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY|O_CLOEXEC"
            ),
            open("/etc/x", false)
        );
        assert_eq!(
            what("File", "/etc/x", "syscall=SYS_OPEN flags=O_RDWR"),
            open("/etc/x", true)
        );
        assert_eq!(
            what("File", "/etc/x", "lsm=FILE_UNLINK"),
            open("/etc/x", true)
        );
        let socket = |kind, protocol| What::Socket(SocketName(SocketKey::of(kind, protocol)));
        assert_eq!(
            what(
                "Network",
                "domain=AF_INET type=SOCK_DGRAM protocol=UDP",
                "syscall=SYS_SOCKET"
            ),
            socket(2, 17)
        );
        assert_eq!(
            what(
                "Network",
                "remoteip=1.2.3.4 port=5 protocol=TCP",
                "kprobe=tcp_connect domain=AF_INET"
            ),
            socket(1, 6)
        );
        assert_eq!(
            what(
                "Network",
                "sa_family=AF_INET sin_port=53",
                "kfunc=UDP_SENDSKB domain=a.b daddr=1.1.1.1 qtype=A"
            ),
            What::Dns("a.b".into())
        );
        assert_eq!(
            what("Capabilities", "CAP_NET_RAW", "lsm=CAPABLE CAP_NET_RAW"),
            What::Capability("net_raw".into())
        );
        assert_eq!(
            what("Syscall", "/tmp/x", "syscall=SYS_UNLINK"),
            What::Syscall {
                name: "unlink".into(),
                path: "/tmp/x".into()
            }
        );
    }

    /// Far ends in the text that people see, one for each case.
    fn peers(resource: &str, data: &str) -> Vec<String> {
        let Told::Operations(all) = log(&event("Network", resource, data), &Names::new(None))
        else {
            return Vec::new();
        };
        let connections = all
            .into_iter()
            .filter(|one| one.class == Class::Connections);
        let cases = connections.flat_map(|one| one.cases);
        cases
            .map(|one| Asked::plain(one.what).to_string())
            .collect()
    }

    #[test]
    fn what_a_connection_is_told_by_is_a_connection_too() {
        let told = peers(
            "remoteip=1.2.3.4 port=5 protocol=TCP",
            "kprobe=tcp_connect domain=AF_INET",
        );
        assert_eq!(told, ["a TCP connection to 1.2.3.4:5"]);
        let told = peers(
            "remoteip=::1 port=5 protocol=TCP",
            "kprobe=tcp_accept domain=AF_INET6",
        );
        assert_eq!(
            told,
            ["a TCP connection from ::1"],
            "whose port it is, is not said"
        );
        let told = peers(
            "sa_family=AF_INET sin_port=53",
            "kfunc=UDP_SENDSKB domain=a.b daddr=1.1.1.1 qtype=A",
        );
        assert_eq!(told, ["a UDP connection to 1.1.1.1:53"]);
        let told = peers(
            "sa_family=AF_INET sin_port=9 sin_addr=1.1.1.1",
            "syscall=SYS_CONNECT fd=3",
        );
        assert_eq!(told.len(), 3, "what carries it is not said: {told:?}");
        assert!(peers("sa_family=AF_UNIX sun_path=/x", "syscall=SYS_CONNECT fd=3").is_empty());
    }

    #[test]
    fn what_the_record_does_not_say_is_open() {
        let recorded = read(&event("File", "/etc/x", ""));
        assert_eq!(recorded.cases.len(), 2, "who owns it is not known");
        assert_eq!(recorded.cases[0].source.as_deref(), Some("/usr/bin/cat"));
        assert_eq!(recorded.workload.labels["tier"], "web");
        let known = Log {
            owner_uid: Some(0),
            ..event("File", "/etc/x", "")
        };
        assert_eq!(read(&known).cases.len(), 1);
        assert!(read(&known).cases[0].owner);
        let exec = read(&event("Process", "", ""));
        assert_eq!(exec.cases[0].source.as_deref(), Some("/usr/bin/dash"));
    }

    #[test]
    fn what_is_no_operation_of_a_workload_is_left_out_and_what_is_cut_off_is_unclear() {
        let names = Names::new(None);
        let host = Log {
            r#type: "HostLog".into(),
            ..event("File", "/x", "")
        };
        assert_eq!(log(&host, &names), Told::Beside);
        assert_eq!(
            log(&event("File", "", "syscall=SYS_CLOSE fd=3"), &names),
            Told::Beside
        );
        let unix = event(
            "Network",
            "domain=AF_UNIX type=SOCK_STREAM protocol=0",
            "syscall=SYS_SOCKET",
        );
        assert_eq!(log(&unix, &names), Told::Beside);
        let cut = Log {
            truncated: 1,
            ..event("File", "/very/long", "")
        };
        assert_eq!(
            log(&cut, &names),
            Told::Unclear {
                name: "shop/cart".into()
            }
        );
        let notice = event("AlertThreshold", "", "");
        assert_eq!(
            log(&notice, &names),
            Told::Throttled {
                name: "shop/cart".into()
            }
        );
    }
}
