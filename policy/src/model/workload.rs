//! What rules on workloads look like: the sections of a spec, and their items.

use schemars::JsonSchema;
use serde::{Deserialize as Read, Serialize as Write};

use super::{Attributes, EndpointMatch, is_default};
use crate::rule::Action;

/// KubeArmor's pattern, which is held to the end only, so that comma lists pass.
const PROTOCOLS: &str = "(tcp|TCP|udp|UDP|raw|RAW|icmp|ICMP|icmpv6|ICMPV6|sctp|SCTP|stream|STREAM|dgram|DGRAM|rdm|RDM|seqpacket|SEQPACKET|dccp|DCCP|packet|PACKET|all|ALL)$";

/// As KubeArmor's, with the seven names that Linux has and it has not.
const CAPABILITY_NAMES: &str = "(chown|dac_override|dac_read_search|fowner|fsetid|kill|setgid|setuid|setpcap|linux_immutable|net_bind_service|net_broadcast|net_admin|net_raw|ipc_lock|ipc_owner|sys_module|sys_rawio|sys_chroot|sys_ptrace|sys_pacct|sys_admin|sys_boot|sys_nice|sys_resource|sys_time|sys_tty_config|mknod|lease|audit_write|audit_control|setfcap|mac_override|mac_admin|syslog|wake_alarm|block_suspend|audit_read|perfmon|bpf|checkpoint_restore)$";

// === process and file ===

object! {
    /// By which program.
    Source {
        optional {
            /// Absolute path of its file.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: String,
        }
    }
}

object! {
    /// Rules on programs that are started.
    Process {
        optional {
            /// Single programs.
            match_paths: Vec<ProcessPath>,
            /// Programs in directories.
            match_directories: Vec<ProcessDirectory>,
            /// Programs by glob.
            match_patterns: Vec<ProcessPattern>,
        }
    } with attributes
}

object! {
    /// One program.
    ProcessPath {
        optional {
            /// Absolute path; literal.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: Option<String>,
            /// File name in any directory.
            #[schemars(regex(pattern = r"^[^\/]+$"))]
            execname: Option<String>,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when started by one of these.
            from_source: Vec<Source>,
            /// The arguments that may be used.
            #[schemars(length(max = 20))]
            allowed_args: Vec<String>,
        }
    } with attributes
}

object! {
    /// Programs in a directory.
    ProcessDirectory {
        required {
            /// Absolute, ends in `/`.
            #[schemars(regex(pattern = r"^\/$|^\/.*\/$"))]
            dir: String,
        }
        optional {
            /// Everything below, not only direct children.
            recursive: bool,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when started by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Programs by glob.
    ProcessPattern {
        required {
            /// Glob over the absolute path.
            pattern: String,
        }
        optional {
            /// Only the owner of the file may.
            owner_only: bool,
        }
    } with attributes
}

object! {
    /// Rules on files.
    File {
        optional {
            /// Single files.
            match_paths: Vec<FilePath>,
            /// Files in directories.
            match_directories: Vec<FileDirectory>,
            /// Files by glob.
            match_patterns: Vec<FilePattern>,
        }
    } with attributes
}

object! {
    /// One file.
    FilePath {
        required {
            /// Absolute path; literal.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: String,
        }
        optional {
            /// It may be read and not written.
            read_only: bool,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Files in a directory.
    FileDirectory {
        required {
            /// Absolute, ends in `/`.
            #[schemars(regex(pattern = r"^\/$|^\/.*\/$"))]
            dir: String,
        }
        optional {
            /// Everything below, not only direct children.
            recursive: bool,
            /// They may be read and not written.
            read_only: bool,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Files by glob.
    FilePattern {
        required {
            /// Glob over the absolute path.
            pattern: String,
        }
        optional {
            /// They may be read and not written.
            read_only: bool,
            /// Only the owner of the file may.
            owner_only: bool,
        }
    } with attributes
}

// === network, capabilities, system calls, presets ===

object! {
    /// Rules on sockets and names.
    Network {
        optional {
            /// Sockets by protocol or type.
            match_protocols: Vec<NetworkProtocol>,
            /// Names that are looked up.
            #[serde(rename = "matchDNSQueries")]
            match_dns_queries: Vec<DnsQuery>,
            /// Connections by their far end.
            match_endpoints: Vec<EndpointMatch>,
        }
    } with attributes
}

object! {
    /// Sockets of a protocol or type.
    NetworkProtocol {
        required {
            /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `stream`, `dgram`, `raw`, `rdm`, `seqpacket`, `dccp`, `packet`, `all`; several
            /// with commas.
            #[schemars(regex(pattern = PROTOCOLS))]
            protocol: String,
        }
        optional {
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// A name that is looked up.
    DnsQuery {
        required {
            /// The name; names below it are meant, too.
            domain: String,
        }
        optional {
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Rules on capabilities.
    Capabilities {
        optional {
            /// Single capabilities.
            match_capabilities: Vec<Capability>,
        }
    } with attributes
}

object! {
    /// A capability.
    Capability {
        required {
            /// Lower case, without `cap_`.
            #[schemars(regex(pattern = CAPABILITY_NAMES))]
            capability: String,
        }
        optional {
            /// Only when used by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// System calls to tell of; they are never denied.
    Syscalls {
        optional {
            /// Wherever they act.
            match_syscalls: Vec<SyscallMatch>,
            /// On these paths.
            match_paths: Vec<SyscallPath>,
            /// 1 (lowest) to 10 (highest).
            #[schemars(range(min = 1, max = 10))]
            severity: Option<i64>,
            /// Told with every alert.
            tags: Vec<String>,
            /// Told with every alert.
            message: String,
        }
    }
}

impl Syscalls {
    /// The attributes of this level alone; system calls have no action of their own.
    pub fn attributes(&self) -> Attributes<'_> {
        let Self {
            severity,
            tags,
            message,
            ..
        } = self;
        Attributes {
            severity: *severity,
            tags,
            message,
            action: None,
        }
    }
}

object! {
    /// System calls wherever they act.
    SyscallMatch {
        optional {
            /// Their names.
            syscall: Vec<String>,
            /// Only when made by one of these.
            from_source: Vec<SyscallSource>,
        }
    }
}

object! {
    /// System calls on a path.
    SyscallPath {
        optional {
            /// A file, or a directory with its closing `/`.
            #[schemars(regex(pattern = r"(^\/+.*[^\/]$)|(^\/$|^\/.*\/$)"))]
            path: String,
            /// Everything below the directory.
            recursive: bool,
            /// Their names.
            syscall: Vec<String>,
            /// Only when made by one of these.
            from_source: Vec<SyscallSource>,
        }
    }
}

object! {
    /// By which program, or by those of which directory.
    SyscallSource {
        optional {
            /// Absolute path of a program.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: Option<String>,
            /// Absolute path of a directory.
            dir: Option<String>,
            /// Everything below the directory.
            recursive: bool,
        }
    }
}

object! {
    /// A ready-made check.
    Preset {
        optional {
            /// `filelessExec`, `anonymousMapExec`, `protectEnv`, `protectProc` or `exec`.
            name: String,
            /// Does not come from the spec: nothing and `Allow` mean Block.
            action: Option<Action>,
        }
    }
}
