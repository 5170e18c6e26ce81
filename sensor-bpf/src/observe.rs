//! What the kernel saw, as plain values: one [`Observation`] a record.
//!
//! The records are written by the programs in `bpf/` and read from their bytes in `decode.rs`. Everything above this module
//! works with these values only, so it runs in a plain test, without a kernel.
//!
//! ```text
//! hook ─▶ record in a ring ─▶ decode() ─▶ Observation ─▶ Alert or Log
//!                                          │ verdict: the kernel's own decision and the slot of the rule that took it
//!                                          └ nothing here guesses a policy
//! ```

use std::net::IpAddr;

/// One thing that a task did, or was kept from doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Unix time in nanoseconds.
    pub time_ns: u64,
    /// Who did it.
    pub task: Task,
    /// What it was.
    pub op: Op,
    /// 0 or a descriptor when it succeeded, else a negative errno.
    pub result: i32,
    /// What policy decided; none when no rule and no posture had anything to say.
    pub verdict: Option<Decision>,
    /// Which texts are cut: the bits of [`text`].
    pub truncated: u32,
    /// Which texts came from user memory and decided nothing: the bits of [`text`].
    pub display_only: u32,
}

/// Bits that name a text of an event, as in the event's fields `Truncated` and `DisplayOnly`.
pub mod text {
    /// The object: path, or address.
    pub const RESOURCE: u32 = 1;
    /// The argument list.
    pub const ARGS: u32 = 2;
    /// The working directory.
    pub const CWD: u32 = 4;
    /// Path of the image that acts.
    pub const PROCESS_NAME: u32 = 8;
    /// Path of the parent's image.
    pub const PARENT_PROCESS_NAME: u32 = 16;
    /// The name as the caller wrote it.
    pub const SOURCE: u32 = 32;
}

/// The task that acted. Ids are those of its thread group unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// Index of the workload, as given to `Kernel::add_workload`; `kernel::HOST`: in none.
    pub workload: u32,
    /// The image that acts: drawn at each exec, unique for a sensor's boot. 0: no exec was seen since the label, or, of the
    /// host's tasks, since they are visible.
    pub exec_id: u64,
    /// The image of the parent process when this image started; 0 when the parent is outside the workload, or unknown.
    pub parent_exec_id: u64,
    /// Process id in the initial pid namespace.
    pub host_pid: u32,
    /// Thread id in the initial pid namespace.
    pub host_tid: u32,
    /// Parent's process id in the initial pid namespace.
    pub host_ppid: u32,
    /// Process id in the task's own pid namespace.
    pub pid: u32,
    /// Parent's process id in the task's own pid namespace; 0 when the parent is outside it.
    pub ppid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// The kernel's short name of the thread, at most 15 bytes.
    pub comm: String,
    /// Working directory, from the root of its mount namespace.
    pub cwd: String,
    /// Name of the controlling terminal, such as `pts0`.
    pub tty: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A new image. With a denied or killed exec, the image that was refused.
    Exec {
        /// Path of the file that is executed (the interpreter, for a script), from the root of its mount namespace.
        path: String,
        /// The name that the caller gave: for a script, the script.
        literal: String,
        /// The argument list, with the name in front.
        args: Vec<String>,
        /// Path of the parent process's image.
        parent_exe: String,
        /// `execve` or `execveat`.
        call: Call,
    },
    /// A process ended.
    Exit {
        /// The wait status: exit code shifted by 8, or the signal in the low 7 bits.
        code: i32,
    },
    /// A file was opened, or was to be.
    Open {
        /// Path of the opened file; of a failed open, the caller's text.
        path: String,
        /// `O_*` bits.
        flags: u32,
        /// Which system call; [`Call::None`] when the hook is not one.
        call: Call,
        /// Descriptor that a relative name started from; −100 (`AT_FDCWD`) without one.
        dirfd: i32,
        /// Owner of the file, where the file is known.
        owner_uid: Option<u32>,
    },
    /// A name was removed, or was to be.
    Unlink {
        /// The name.
        path: String,
        /// `unlink`, `unlinkat` or `rmdir`.
        call: Call,
        /// `AT_*` bits.
        flags: u32,
        /// As in [`Op::Open`].
        dirfd: i32,
    },
    /// A name was changed, or was to be; with [`Hook::PathLink`], a second name was to be given.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
        /// `rename`, `renameat` or `renameat2`.
        call: Call,
        /// As in [`Op::Open`], for the old name.
        dirfd: i32,
    },
    /// A socket was asked for.
    Socket {
        /// `AF_*`.
        family: u16,
        /// `SOCK_*` without flags.
        kind: u8,
        /// `IPPROTO_*`; for the other families, theirs.
        protocol: u16,
    },
    /// A connection was asked for.
    Connect {
        /// The socket.
        fd: i32,
        /// Where to.
        peer: Address,
        /// `SOCK_*`, 0 when unknown.
        kind: u8,
        /// `IPPROTO_*`, 0 when unknown.
        protocol: u16,
    },
    /// A connection was taken.
    Accept {
        /// The new socket.
        fd: i32,
        /// Where from.
        peer: Address,
        /// `SOCK_*`, 0 when unknown.
        kind: u8,
        /// `IPPROTO_*`, 0 when unknown.
        protocol: u16,
    },
    /// A socket began to listen.
    Listen {
        /// The socket.
        fd: i32,
        /// Where.
        local: Address,
    },
    /// A socket got a name.
    Bind {
        /// The socket.
        fd: i32,
        /// The name.
        local: Address,
    },
    /// A capability was asked for.
    Capability {
        /// `CAP_*`.
        number: u8,
    },
    /// A system call that a policy names, or one that uses a capability.
    Syscall {
        /// Its number on this architecture.
        number: u16,
        /// Its arguments as numbers.
        arguments: [u64; 5],
        /// The name that it acts on, as the caller wrote it; empty when it takes none.
        path: String,
        /// Another name that it takes: the new one of a rename, the source of a mount.
        other: String,
        /// The type of the file system to mount.
        file_system: String,
        /// As in [`Op::Open`].
        dirfd: i32,
    },
}

/// The system call behind an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // reason: the names are those of the system calls
pub enum Call {
    None,
    Execve,
    Execveat,
    Open,
    Openat,
    Openat2,
    Creat,
    Unlink,
    Unlinkat,
    Rmdir,
    Rename,
    Renameat,
    Renameat2,
    Connect,
    Accept,
    Accept4,
    Listen,
    Bind,
    Socket,
    Truncate,
}

impl Call {
    /// The name that events carry, such as `SYS_OPENAT`; empty when there is no call.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Execve => "SYS_EXECVE",
            Self::Execveat => "SYS_EXECVEAT",
            Self::Open => "SYS_OPEN",
            Self::Openat => "SYS_OPENAT",
            Self::Openat2 => "SYS_OPENAT2",
            Self::Creat => "SYS_CREAT",
            Self::Unlink => "SYS_UNLINK",
            Self::Unlinkat => "SYS_UNLINKAT",
            Self::Rmdir => "SYS_RMDIR",
            Self::Rename => "SYS_RENAME",
            Self::Renameat => "SYS_RENAMEAT",
            Self::Renameat2 => "SYS_RENAMEAT2",
            Self::Connect => "SYS_CONNECT",
            Self::Accept => "SYS_ACCEPT",
            Self::Accept4 => "SYS_ACCEPT4",
            Self::Listen => "SYS_LISTEN",
            Self::Bind => "SYS_BIND",
            Self::Socket => "SYS_SOCKET",
            Self::Truncate => "SYS_TRUNCATE",
        }
    }
}

/// An end of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `AF_INET` or `AF_INET6`.
    Ip {
        /// The address.
        ip: IpAddr,
        /// The port, in host order.
        port: u16,
    },
    /// `AF_UNIX`: a path, or `@name` in the abstract space; empty when unnamed.
    Unix(String),
    /// Any other family, by its number; 0 (`AF_UNSPEC`) when unknown.
    Other(u16),
}

/// What policy decided about an operation, and who in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What the rule, or the posture, asks for.
    pub action: Action,
    /// Who asks.
    pub by: By,
    /// What came of it.
    pub outcome: Outcome,
    /// Where it was decided.
    pub hook: Hook,
    /// True where the path could not be read whole, or is in no mount namespace, so that no rule was consulted.
    pub fault: bool,
}

/// What a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep it from happening.
    Block,
    /// Tell.
    Audit,
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A rule: its slot in one generation of a set.
    Rule {
        /// The set.
        set: u32,
        /// What `Kernel::write_set` returned for it.
        generation: u32,
        /// Index in `policy::Flat::slots`.
        slot: u32,
    },
    /// The default posture of a class in allow-list mode.
    Posture,
}

/// What came of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Refused with an error before it happened.
    Denied,
    /// Let happen, and the process killed before it could use it.
    Killed,
    /// Not prevented.
    Passed,
}

/// Where a decision was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // reason: the names are those of the hooks
pub enum Hook {
    /// `sched_process_exec`: after the image is in place, before its first instruction.
    ExecTracepoint,
    /// The exit of a system call.
    SyscallExit,
    /// A program of the workload's cgroup.
    Cgroup,
    BprmCheck,
    FileOpen,
    MmapFile,
    PathUnlink,
    PathRename,
    PathLink,
    PathTruncate,
    SocketCreate,
    Capable,
}

impl Hook {
    /// The name that events of the LSM tiers carry (`lsm=NAME`); none on the native tier.
    pub fn lsm(self) -> Option<&'static str> {
        match self {
            Self::ExecTracepoint | Self::SyscallExit | Self::Cgroup => None,
            Self::BprmCheck => Some("SECURITY_BPRM_CHECK"),
            Self::FileOpen => Some("FILE_OPEN"),
            Self::MmapFile => Some("FILE_MMAP"),
            Self::PathUnlink => Some("FILE_UNLINK"),
            Self::PathRename => Some("FILE_RENAME"),
            Self::PathLink => Some("FILE_LINK"),
            Self::PathTruncate => Some("FILE_TRUNCATE"),
            Self::SocketCreate => Some("SOCKET_CREATE"),
            Self::Capable => Some("CAPABLE"),
        }
    }
}
