//! From the bytes of a record to an [`Observation`]. Pure, and total: any bytes are a record or none.
//!
//! ```text
//! struct record (event.h), plain numbers ‖ texts one after the other, of record.lengths
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::kernel::raw;
use crate::observe::{Action, Address, By, Call, Decision, Hook, Observation, Op, Outcome, Task};

/// Bits of a record's flags (`event.h`).
const HAS_OWNER: u32 = 1;
const HAS_FAULT: u32 = 2;

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
            dirfd: record.fd,
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
            arguments: texts.numbers(),
            path: object(),
            other: second(),
            file_system: texts.get(raw::text::TEXT_PARENT),
            dirfd: record.fd,
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

    /// The arguments of a system call.
    fn numbers(&self) -> [u64; 5] {
        let mut numbers = [0; 5];
        let bytes = self.bytes_of(raw::text::TEXT_ARGS);
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        numbers
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
