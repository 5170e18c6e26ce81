//! What the kernel saw, as plain values: one [`Observation`] a record.
//!
//! The records are written by the programs in `bpf/` and read here from their bytes. Everything above this module
//! works with these values only, so it runs in a plain test, without a kernel.
//!
//! ```text
//! hook ─▶ record in a ring ─▶ decode() ─▶ Observation ─▶ Alert or Log
//!                                          │ verdict: the kernel's own decision and the slot of the rule that took it
//!                                          └ nothing here guesses a policy
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kernel::raw;

/// Bits of a record's flags (`event.h`).
const HAS_OWNER: u32 = 1;
const HAS_FAULT: u32 = 2;

/// One thing that a labelled task did, or was kept from doing.
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
    /// Index of the workload, as given to `Kernel::add_workload`.
    pub workload: u32,
    /// The image that acts: drawn at each exec, unique for a sensor's boot. 0: no exec was seen since the label.
    pub exec_id: u64,
    /// The image of the parent process when this image started; 0 when the parent is outside the workload.
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
    /// A system call that a policy names.
    Syscall {
        /// Its number on this architecture.
        number: u16,
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

/// Reads a record. None: these bytes are none. `clock` is the Unix time of the machine's boot in nanoseconds.
pub(crate) fn decode(bytes: &[u8], clock: u64) -> Option<Observation> {
    let record = header(bytes)?;
    let texts = Texts {
        lengths: record.lengths,
        bytes: bytes.get(size_of::<raw::record>()..)?,
    };
    let op = op(&record, &texts)?;
    Some(Observation {
        time_ns: clock.wrapping_add(record.time),
        task: task(&record, &texts),
        op,
        result: record.result,
        verdict: decision(&record),
        truncated: record.truncated,
        display_only: record.display_only,
    })
}

fn header(bytes: &[u8]) -> Option<raw::record> {
    let bytes = bytes.get(..size_of::<raw::record>())?;
    // SAFETY: there are enough bytes, read_unaligned asks for no alignment, and a record is plain numbers, of which
    // every pattern of bits is a value.
    Some(unsafe { bytes.as_ptr().cast::<raw::record>().read_unaligned() })
}

fn task(record: &raw::record, texts: &Texts<'_>) -> Task {
    let tty = until_nul(&record.tty);
    Task {
        workload: record.workload,
        exec_id: record.exec_id,
        parent_exec_id: record.parent_exec_id,
        host_pid: record.tgid,
        host_tid: record.tid,
        host_ppid: record.ppid,
        pid: record.ns_pid,
        ppid: record.ns_ppid,
        uid: record.uid,
        comm: until_nul(&record.comm),
        cwd: texts.get(raw::text::TEXT_CWD),
        tty: (!tty.is_empty()).then_some(tty),
    }
}

fn op(record: &raw::record, texts: &Texts<'_>) -> Option<Op> {
    let call = call(record.call);
    let object = || texts.get(raw::text::TEXT_OBJECT);
    let second = || texts.get(raw::text::TEXT_SECOND);
    Some(match raw::kind(record.kind.into()) {
        raw::kind::KIND_EXEC => Op::Exec {
            path: object(),
            literal: second(),
            args: texts.args(),
            parent_exe: texts.get(raw::text::TEXT_PARENT),
            call,
        },
        raw::kind::KIND_EXIT => Op::Exit {
            code: record.arg as i32,
        },
        raw::kind::KIND_OPEN => Op::Open {
            path: object(),
            flags: record.arg,
            call,
            dirfd: record.fd,
            owner_uid: (record.flags & HAS_OWNER != 0).then_some(record.owner),
        },
        raw::kind::KIND_UNLINK => Op::Unlink {
            path: object(),
            call,
            flags: record.arg,
            dirfd: record.fd,
        },
        raw::kind::KIND_RENAME => Op::Rename {
            from: object(),
            to: second(),
            call,
        },
        raw::kind::KIND_SOCKET => socket(record),
        raw::kind::KIND_CONNECT => Op::Connect {
            fd: record.fd,
            peer: address(record, texts),
            kind: record.r#type,
            protocol: record.protocol,
        },
        raw::kind::KIND_ACCEPT => Op::Accept {
            fd: record.fd,
            peer: address(record, texts),
            kind: record.r#type,
            protocol: record.protocol,
        },
        raw::kind::KIND_LISTEN => Op::Listen {
            fd: record.fd,
            local: address(record, texts),
        },
        raw::kind::KIND_BIND => Op::Bind {
            fd: record.fd,
            local: address(record, texts),
        },
        raw::kind::KIND_CAPABILITY => Op::Capability {
            number: record.arg as u8,
        },
        raw::kind::KIND_SYSCALL => Op::Syscall {
            number: record.arg as u16,
        },
        _ => return None,
    })
}

/// A decision is about the protocol that the socket would have, not about the 0 that asks for its type's default.
fn socket(record: &raw::record) -> Op {
    let (family, kind, asked) = (record.family, record.r#type, record.protocol);
    let internet = [libc::AF_INET, libc::AF_INET6].contains(&i32::from(family));
    let judged = record.decision.by != 0;
    let protocol = match policy::SocketKey::of(i32::from(kind), i32::from(asked)).protocol {
        255 => asked,
        default if internet && judged && asked == 0 => default.into(),
        _ => asked,
    };
    Op::Socket {
        family,
        kind,
        protocol,
    }
}

fn call(number: u8) -> Call {
    match raw::call(number.into()) {
        raw::call::CALL_EXECVE => Call::Execve,
        raw::call::CALL_EXECVEAT => Call::Execveat,
        raw::call::CALL_OPEN => Call::Open,
        raw::call::CALL_OPENAT => Call::Openat,
        raw::call::CALL_OPENAT2 => Call::Openat2,
        raw::call::CALL_CREAT => Call::Creat,
        raw::call::CALL_UNLINK => Call::Unlink,
        raw::call::CALL_UNLINKAT => Call::Unlinkat,
        raw::call::CALL_RMDIR => Call::Rmdir,
        raw::call::CALL_RENAME => Call::Rename,
        raw::call::CALL_RENAMEAT => Call::Renameat,
        raw::call::CALL_RENAMEAT2 => Call::Renameat2,
        raw::call::CALL_CONNECT => Call::Connect,
        raw::call::CALL_ACCEPT => Call::Accept,
        raw::call::CALL_ACCEPT4 => Call::Accept4,
        raw::call::CALL_LISTEN => Call::Listen,
        raw::call::CALL_BIND => Call::Bind,
        raw::call::CALL_SOCKET => Call::Socket,
        raw::call::CALL_TRUNCATE => Call::Truncate,
        _ => Call::None,
    }
}

fn decision(record: &raw::record) -> Option<Decision> {
    let made = &record.decision;
    let by = match raw::by(made.by.into()) {
        raw::by::BY_RULE => By::Rule {
            set: made.set,
            generation: made.generation,
            slot: made.slot,
        },
        raw::by::BY_POSTURE => By::Posture,
        _ => return None,
    };
    let action = match raw::action(made.action.into()) {
        raw::action::ACTION_BLOCK => Action::Block,
        _ => Action::Audit,
    };
    let outcome = match raw::outcome(made.outcome.into()) {
        raw::outcome::OUTCOME_DENIED => Outcome::Denied,
        raw::outcome::OUTCOME_KILLED => Outcome::Killed,
        _ => Outcome::Passed,
    };
    let fault = record.flags & HAS_FAULT != 0;
    Some(Decision {
        action,
        by,
        outcome,
        hook: hook(made.hook),
        fault,
    })
}

fn hook(number: u8) -> Hook {
    match raw::hook(number.into()) {
        raw::hook::HOOK_EXEC => Hook::ExecTracepoint,
        raw::hook::HOOK_CGROUP => Hook::Cgroup,
        raw::hook::HOOK_BPRM_CHECK => Hook::BprmCheck,
        raw::hook::HOOK_FILE_OPEN => Hook::FileOpen,
        raw::hook::HOOK_MMAP_FILE => Hook::MmapFile,
        raw::hook::HOOK_PATH_UNLINK => Hook::PathUnlink,
        raw::hook::HOOK_PATH_RENAME => Hook::PathRename,
        raw::hook::HOOK_PATH_LINK => Hook::PathLink,
        raw::hook::HOOK_PATH_TRUNCATE => Hook::PathTruncate,
        raw::hook::HOOK_SOCKET_CREATE => Hook::SocketCreate,
        raw::hook::HOOK_CAPABLE => Hook::Capable,
        _ => Hook::SyscallExit,
    }
}

fn address(record: &raw::record, texts: &Texts<'_>) -> Address {
    let port = record.port;
    let [a, b, c, d, ..] = record.address;
    match i32::from(record.family) {
        libc::AF_INET => Address::Ip {
            ip: Ipv4Addr::new(a, b, c, d).into(),
            port,
        },
        libc::AF_INET6 => Address::Ip {
            ip: Ipv6Addr::from(record.address).into(),
            port,
        },
        libc::AF_UNIX => Address::Unix(local_name(texts.bytes_of(raw::text::TEXT_OBJECT))),
        _ => Address::Other(record.family),
    }
}

/// An abstract name begins with NUL and may hold more of them; a path ends at its first.
fn local_name(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((0, name)) if !name.is_empty() => {
            format!("@{}", String::from_utf8_lossy(name).replace('\0', "@"))
        }
        _ => {
            let path = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(path).into_owned()
        }
    }
}

/// The texts behind a record.
struct Texts<'a> {
    lengths: [u16; 5],
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    /// The texts lie one after the other, in the order of [`raw::text`].
    fn bytes_of(&self, text: raw::text) -> &'a [u8] {
        let index = text.0 as usize;
        let before: usize = self
            .lengths
            .iter()
            .take(index)
            .map(|length| usize::from(*length))
            .sum();
        let length = self.lengths.get(index).copied().unwrap_or_default();
        self.bytes
            .get(before..before + usize::from(length))
            .unwrap_or_default()
    }

    fn get(&self, text: raw::text) -> String {
        String::from_utf8_lossy(self.bytes_of(text)).into_owned()
    }

    /// Each argument ends with NUL; the last may be cut.
    fn args(&self) -> Vec<String> {
        let bytes = self.bytes_of(raw::text::TEXT_ARGS);
        let whole = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        if bytes.is_empty() {
            return Vec::new();
        }
        whole
            .split(|byte| *byte == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect()
    }
}

fn until_nul(chars: &[i8]) -> String {
    let bytes: Vec<u8> = chars
        .iter()
        .map(|char| *char as u8)
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(record: &raw::record, texts: &[&[u8]]) -> Vec<u8> {
        let mut record = *record;
        for (length, text) in record.lengths.iter_mut().zip(texts) {
            *length = text.len() as u16;
        }
        let at = std::ptr::from_ref(&record).cast::<u8>();
        // SAFETY: the record is valid for its size; its padding was zeroed with it.
        let mut bytes = unsafe { std::slice::from_raw_parts(at, size_of_val(&record)) }.to_vec();
        texts.iter().for_each(|text| bytes.extend_from_slice(text));
        bytes
    }

    fn record(kind: raw::kind) -> raw::record {
        // SAFETY: a record is plain numbers.
        let mut record: raw::record = unsafe { std::mem::zeroed() };
        record.kind = kind.0 as u8;
        record
    }

    #[test]
    fn an_exec_is_read_with_all_its_texts() {
        let mut exec = record(raw::kind::KIND_EXEC);
        exec.time = 5;
        exec.call = raw::call::CALL_EXECVEAT.0 as u8;
        exec.comm[..2].copy_from_slice(&[b's' as i8, b'h' as i8]);
        let texts: [&[u8]; 5] = [
            b"/usr/bin/sh",
            b"sh",
            b"/root",
            b"/sbin/init",
            b"sh\0\0-c\0",
        ];
        let seen = decode(&bytes(&exec, &texts), 100).expect("is a record");
        assert_eq!(seen.time_ns, 105);
        assert_eq!(
            (seen.task.comm.as_str(), seen.task.cwd.as_str()),
            ("sh", "/root")
        );
        let args = ["sh", "", "-c"].map(str::to_owned).to_vec();
        let wanted = Op::Exec {
            path: "/usr/bin/sh".to_owned(),
            literal: "sh".to_owned(),
            args,
            parent_exe: "/sbin/init".to_owned(),
            call: Call::Execveat,
        };
        assert_eq!((seen.op, seen.verdict, seen.task.tty), (wanted, None, None));
    }

    #[test]
    fn no_arguments_are_not_one_empty_argument() {
        let args = |text: &[u8]| {
            let exec = bytes(&record(raw::kind::KIND_EXEC), &[b"", b"", b"", b"", text]);
            match decode(&exec, 0).expect("is a record").op {
                Op::Exec { args, .. } => args,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(args(b""), Vec::<String>::new());
        assert_eq!(args(b"\0"), [""]);
        assert_eq!(args(b"a\0b"), ["a", "b"]);
    }

    #[test]
    fn addresses_are_read_by_their_family() {
        let peer = |family: i32, text: &[u8]| {
            let mut connect = record(raw::kind::KIND_CONNECT);
            connect.family = family as u16;
            connect.port = 443;
            connect.address[..4].copy_from_slice(&[10, 0, 0, 9]);
            match decode(&bytes(&connect, &[text]), 0)
                .expect("is a record")
                .op
            {
                Op::Connect { peer, .. } => peer,
                other => panic!("{other:?}"),
            }
        };
        let ip = "10.0.0.9".parse().expect("an address");
        assert_eq!(peer(libc::AF_INET, b""), Address::Ip { ip, port: 443 });
        let ip = "a00:9::".parse().expect("an address");
        assert_eq!(peer(libc::AF_INET6, b""), Address::Ip { ip, port: 443 });
        assert_eq!(
            peer(libc::AF_UNIX, b"/run/s\0"),
            Address::Unix("/run/s".to_owned())
        );
        assert_eq!(
            peer(libc::AF_UNIX, b"\0a\0b"),
            Address::Unix("@a@b".to_owned())
        );
        assert_eq!(peer(libc::AF_UNIX, b""), Address::Unix(String::new()));
        assert_eq!(peer(libc::AF_NETLINK, b""), Address::Other(16));
    }

    #[test]
    fn a_decision_names_its_rule_or_the_posture() {
        let mut open = record(raw::kind::KIND_OPEN);
        open.flags = HAS_FAULT;
        open.decision.set = 3;
        open.decision.generation = 4;
        open.decision.slot = 5;
        open.decision.by = raw::by::BY_RULE.0 as u8;
        open.decision.action = raw::action::ACTION_BLOCK.0 as u8;
        open.decision.outcome = raw::outcome::OUTCOME_DENIED.0 as u8;
        open.decision.hook = raw::hook::HOOK_FILE_OPEN.0 as u8;
        let seen = decode(&bytes(&open, &[b"/x"]), 0).expect("is a record");
        let wanted = Decision {
            action: Action::Block,
            by: By::Rule {
                set: 3,
                generation: 4,
                slot: 5,
            },
            outcome: Outcome::Denied,
            hook: Hook::FileOpen,
            fault: true,
        };
        assert_eq!(seen.verdict, Some(wanted));
        open.decision.by = raw::by::BY_POSTURE.0 as u8;
        let seen = decode(&bytes(&open, &[b"/x"]), 0).expect("is a record");
        assert_eq!(seen.verdict.map(|made| made.by), Some(By::Posture));
    }

    #[test]
    fn any_bytes_are_a_record_or_none() {
        let whole = bytes(
            &record(raw::kind::KIND_EXEC),
            &[b"/a", b"b", b"/", b"/c", b"d\0"],
        );
        let fixed = size_of::<raw::record>();
        for end in 0..whole.len() {
            assert_eq!(
                decode(&whole[..end], 0).is_some(),
                end >= fixed,
                "{end} bytes"
            );
        }
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut noise = whole.clone();
            for byte in &mut noise {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let at = std::mem::offset_of!(raw::record, kind);
            noise[at] %= 16;
            let known = (1..=12).contains(&noise[at]);
            assert_eq!(decode(&noise, u64::MAX).is_some(), known);
        }
    }
}
