//! Kernel numbers as the words that KubeArmor's events carry.
//!
//! Errors are glibc's `strerror` texts in the C locale, kept here so that a program linked with another C library says the same.
//! Families, types and protocols are the names of `socket(2)` and `protocols(5)`; a number without a name is printed as it is.

use std::borrow::Cow;

use policy::SocketKey;

/// glibc's text of an errno; `Unknown error` where there is none.
pub(super) fn errno(number: i32) -> &'static str {
    let found = ERRORS.binary_search_by_key(&number, |(number, _)| *number);
    found
        .ok()
        .and_then(|at| ERRORS.get(at))
        .map_or("Unknown error", |(_, text)| text)
}

/// `CAP_NET_RAW`, by linux/capability.h.
pub(super) fn capability(number: u8) -> Cow<'static, str> {
    match CAPABILITIES.get(usize::from(number)) {
        Some(name) => Cow::Owned(format!("CAP_{name}")),
        None => Cow::Owned(number.to_string()),
    }
}

/// `AF_INET`.
pub(super) fn family(number: u16) -> Cow<'static, str> {
    let name = match number {
        0 => "AF_UNSPEC",
        1 => "AF_UNIX",
        2 => "AF_INET",
        10 => "AF_INET6",
        15 => "AF_KEY",
        16 => "AF_NETLINK",
        17 => "AF_PACKET",
        21 => "AF_RDS",
        29 => "AF_CAN",
        30 => "AF_TIPC",
        31 => "AF_BLUETOOTH",
        38 => "AF_ALG",
        39 => "AF_NFC",
        40 => "AF_VSOCK",
        43 => "AF_SMC",
        44 => "AF_XDP",
        _ => return Cow::Owned(number.to_string()),
    };
    Cow::Borrowed(name)
}

/// `SOCK_STREAM`, with `|SOCK_NONBLOCK|SOCK_CLOEXEC` when those bits are set.
pub(super) fn socket_type(number: u32) -> String {
    let mut text = match kind(number & 0xf) {
        Some(name) => name.to_owned(),
        None => number.to_string(),
    };
    for (bit, name) in [(0o4000, "|SOCK_NONBLOCK"), (0o2_000_000, "|SOCK_CLOEXEC")] {
        if number & bit != 0 {
            text.push_str(name);
        }
    }
    text
}

fn kind(number: u32) -> Option<&'static str> {
    Some(match number {
        1 => "SOCK_STREAM",
        2 => "SOCK_DGRAM",
        3 => "SOCK_RAW",
        4 => "SOCK_RDM",
        5 => "SOCK_SEQPACKET",
        6 => "SOCK_DCCP",
        10 => "SOCK_PACKET",
        _ => return None,
    })
}

/// `TCP`: the upper-case name of an IP protocol.
pub(super) fn protocol(number: u32) -> Cow<'static, str> {
    let name = match number {
        0 => "HOPOPT",
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPv4",
        6 => "TCP",
        17 => "UDP",
        33 => "DCCP",
        41 => "IPv6",
        46 => "RSVP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "IPv6-ICMP",
        89 => "OSPF",
        94 => "IPIP",
        103 => "PIM",
        112 => "VRRP",
        115 => "L2TP",
        132 => "SCTP",
        136 => "UDPLite",
        137 => "MPLS-in-IP",
        255 => "Reserved",
        _ => return Cow::Owned(number.to_string()),
    };
    Cow::Borrowed(name)
}

/// What a protocol rule is about, as a Resource: `protocol=TCP type=SOCK_STREAM`, or `type=SOCK_STREAM` for a
/// socket whose protocol has no rule of its own.
pub(super) fn socket_key(key: SocketKey) -> String {
    let named = match key.protocol {
        6 => "protocol=TCP type=SOCK_STREAM",
        17 => "protocol=UDP type=SOCK_DGRAM",
        1 => "protocol=ICMP type=SOCK_RAW",
        58 => "protocol=IPv6-ICMP type=SOCK_RAW",
        132 => "protocol=SCTP type=SOCK_STREAM|SOCK_SEQPACKET",
        _ => return format!("type={}", socket_type(u32::from(key.kind))),
    };
    named.to_owned()
}

/// `O_RDONLY|O_CLOEXEC`: the words and the order of KubeArmor's `getOpenFlags`.
pub(super) fn open_flags(flags: u32) -> String {
    let mut text = match flags & 3 {
        1 | 3 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_RDONLY",
    }
    .to_owned();
    for (bits, name) in OPEN_FLAGS {
        if flags & bits == *bits {
            text.push('|');
            text.push_str(name);
        }
    }
    text
}

/// Flags of `unlinkat(2)`: empty unless a directory is removed.
pub(super) fn unlink_flags(flags: u32) -> &'static str {
    if flags == 0x200 { "AT_REMOVEDIR" } else { "" }
}

/// asm-generic/fcntl.h, x86-64 values.
const OPEN_FLAGS: &[(u32, &str)] = &[
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o4_010_000, "O_SYNC"),
    (0o20_000, "O_ASYNC"),
    (0o100_000, "O_LARGEFILE"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o40_000, "O_DIRECT"),
    (0o1_000_000, "O_NOATIME"),
    (0o10_000_000, "O_PATH"),
    (0o20_000_000, "O_TMPFILE"),
];

const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const ERRORS: &[(i32, &str)] = &[
    (1, "Operation not permitted"),
    (2, "No such file or directory"),
    (3, "No such process"),
    (4, "Interrupted system call"),
    (5, "Input/output error"),
    (6, "No such device or address"),
    (7, "Argument list too long"),
    (8, "Exec format error"),
    (9, "Bad file descriptor"),
    (10, "No child processes"),
    (11, "Resource temporarily unavailable"),
    (12, "Cannot allocate memory"),
    (13, "Permission denied"),
    (14, "Bad address"),
    (15, "Block device required"),
    (16, "Device or resource busy"),
    (17, "File exists"),
    (18, "Invalid cross-device link"),
    (19, "No such device"),
    (20, "Not a directory"),
    (21, "Is a directory"),
    (22, "Invalid argument"),
    (23, "Too many open files in system"),
    (24, "Too many open files"),
    (25, "Inappropriate ioctl for device"),
    (26, "Text file busy"),
    (27, "File too large"),
    (28, "No space left on device"),
    (29, "Illegal seek"),
    (30, "Read-only file system"),
    (31, "Too many links"),
    (32, "Broken pipe"),
    (33, "Numerical argument out of domain"),
    (34, "Numerical result out of range"),
    (35, "Resource deadlock avoided"),
    (36, "File name too long"),
    (37, "No locks available"),
    (38, "Function not implemented"),
    (39, "Directory not empty"),
    (40, "Too many levels of symbolic links"),
    (61, "No data available"),
    (62, "Timer expired"),
    (71, "Protocol error"),
    (75, "Value too large for defined data type"),
    (84, "Invalid or incomplete multibyte or wide character"),
    (85, "Interrupted system call should be restarted"),
    (87, "Too many users"),
    (88, "Socket operation on non-socket"),
    (89, "Destination address required"),
    (90, "Message too long"),
    (91, "Protocol wrong type for socket"),
    (92, "Protocol not available"),
    (93, "Protocol not supported"),
    (94, "Socket type not supported"),
    (95, "Operation not supported"),
    (96, "Protocol family not supported"),
    (97, "Address family not supported by protocol"),
    (98, "Address already in use"),
    (99, "Cannot assign requested address"),
    (100, "Network is down"),
    (101, "Network is unreachable"),
    (102, "Network dropped connection on reset"),
    (103, "Software caused connection abort"),
    (104, "Connection reset by peer"),
    (105, "No buffer space available"),
    (106, "Transport endpoint is already connected"),
    (107, "Transport endpoint is not connected"),
    (108, "Cannot send after transport endpoint shutdown"),
    (109, "Too many references: cannot splice"),
    (110, "Connection timed out"),
    (111, "Connection refused"),
    (112, "Host is down"),
    (113, "No route to host"),
    (114, "Operation already in progress"),
    (115, "Operation now in progress"),
    (116, "Stale file handle"),
    (121, "Remote I/O error"),
    (122, "Disk quota exceeded"),
    (125, "Operation canceled"),
    (126, "Required key not available"),
    (127, "Key has expired"),
    (128, "Key has been revoked"),
    (129, "Key was rejected by service"),
    (130, "Owner died"),
    (131, "State not recoverable"),
    (133, "Memory page has hardware error"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_the_texts_of_glibc() {
        assert_eq!(errno(13), "Permission denied");
        assert_eq!(errno(2), "No such file or directory");
        assert_eq!(errno(5000), "Unknown error");
        assert!(ERRORS.is_sorted_by_key(|(number, _)| *number));
    }

    #[test]
    fn open_flags_are_kubearmors_words() {
        assert_eq!(open_flags(0), "O_RDONLY");
        assert_eq!(open_flags(0o2_000_000), "O_RDONLY|O_CLOEXEC");
        assert_eq!(open_flags(0o1101), "O_WRONLY|O_CREAT|O_TRUNC");
        assert_eq!(open_flags(0o20_200_002), "O_RDWR|O_DIRECTORY|O_TMPFILE");
    }

    #[test]
    fn socket_keys_are_the_texts_of_the_rules() {
        let text = |kind, protocol| socket_key(SocketKey::of(kind, protocol));
        assert_eq!(text(1, 0), "protocol=TCP type=SOCK_STREAM");
        assert_eq!(text(3, 1), "protocol=ICMP type=SOCK_RAW");
        assert_eq!(text(2, 1), "protocol=ICMP type=SOCK_RAW");
        assert_eq!(text(3, 255), "type=SOCK_RAW");
        assert_eq!(socket_key(SocketKey::PACKET), "type=SOCK_PACKET");
        assert_eq!(socket_type(1 | 0o2_000_000), "SOCK_STREAM|SOCK_CLOEXEC");
        assert_eq!(protocol(58), "IPv6-ICMP");
        assert_eq!((family(10), family(200)), ("AF_INET6".into(), "200".into()));
    }

    #[test]
    fn capabilities_have_names() {
        assert_eq!(
            (capability(13), capability(40)),
            ("CAP_NET_RAW".into(), "CAP_CHECKPOINT_RESTORE".into())
        );
        assert_eq!(capability(99), "99");
    }
}
