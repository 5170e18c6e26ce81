//! The closed lists of the language: protocols, capabilities, system calls.

/// What a `matchProtocols` rule names: a protocol of internet sockets, a socket type, or everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// STREAM sockets that speak TCP.
    Tcp,
    /// DGRAM sockets that speak UDP.
    Udp,
    /// DGRAM and RAW sockets that speak ICMP.
    Icmp,
    /// DGRAM and RAW sockets that speak ICMPv6.
    Icmpv6,
    /// STREAM and SEQPACKET sockets that speak SCTP.
    Sctp,
    /// `SOCK_STREAM`, whatever it speaks.
    Stream,
    /// `SOCK_DGRAM`.
    Dgram,
    /// `SOCK_RAW`.
    Raw,
    /// `SOCK_RDM`.
    Rdm,
    /// `SOCK_SEQPACKET`.
    Seqpacket,
    /// `SOCK_DCCP`.
    Dccp,
    /// Packet sockets.
    Packet,
    /// Every socket.
    All,
}

impl Protocol {
    /// All of them with their names.
    pub const NAMES: [(&'static str, Protocol); 13] = [
        ("tcp", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("icmp", Protocol::Icmp),
        ("icmpv6", Protocol::Icmpv6),
        ("sctp", Protocol::Sctp),
        ("stream", Protocol::Stream),
        ("dgram", Protocol::Dgram),
        ("raw", Protocol::Raw),
        ("rdm", Protocol::Rdm),
        ("seqpacket", Protocol::Seqpacket),
        ("dccp", Protocol::Dccp),
        ("packet", Protocol::Packet),
        ("all", Protocol::All),
    ];

    /// The protocol of a lower-case name.
    pub fn of(name: &str) -> Option<Protocol> {
        Protocol::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, protocol)| *protocol)
    }

    /// Its lower-case name.
    pub fn name(self) -> &'static str {
        Protocol::NAMES
            .iter()
            .find(|(_, known)| *known == self)
            .map_or("", |(name, _)| *name)
    }
}

/// Capability names by number, without `CAP_` (linux/capability.h, Linux 6.12).
pub const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The number of a capability.
pub fn capability(name: &str) -> Option<u8> {
    let number = CAPABILITIES.iter().position(|known| *known == name)?;
    u8::try_from(number).ok()
}
