//! `Operation`, `Resource`, `Data`, `Result`, times: the exact words per operation.
//!
//! Consumers match on substrings of Data and Resource, so these texts are a contract: KubeArmor's, where it has the event.

use std::net::IpAddr;

use jiff::Timestamp;

use super::calls::Asked;
use super::texts;
use crate::observe::{Action, Address, By, Call, Decision, Observation, Op};
use crate::process::{Image, command_line};

/// The event's `Operation`; none for what is not told.
pub(super) fn operation(op: &Op) -> Option<&'static str> {
    match op {
        Op::Exec { .. } => Some("Process"),
        Op::Exit { .. } => None,
        Op::Open { .. } | Op::Unlink { .. } | Op::Rename { .. } => Some("File"),
        Op::Socket { .. }
        | Op::Connect { .. }
        | Op::Accept { .. }
        | Op::Listen { .. }
        | Op::Bind { .. } => Some("Network"),
        Op::Capability { .. } => Some("Capabilities"),
        Op::Syscall { .. } => Some("Syscall"),
    }
}

/// What an event says of the operation itself.
pub(super) struct Texts {
    pub(super) resource: String,
    pub(super) data: String,
    pub(super) result: &'static str,
}

/// Of an operation that policy decided. A denial or a posture on a socket names the rule's key, as KubeArmor's LSM
/// programs do; an Audit rule names what was asked for, as its monitor does.
pub(super) fn decided(image: &Image, observation: &Observation, decision: Decision) -> Texts {
    let op = &observation.op;
    let resource = match op {
        Op::Socket {
            family,
            kind,
            protocol,
        } if !audited(decision) => {
            texts::socket_key(crate::sets::socket_key(*family, *kind, *protocol))
        }
        _ => resource(observation, image),
    };
    let data = match (lsm(op, decision), op) {
        (Some(hook), Op::Socket { .. } | Op::Capability { .. }) => format!("lsm={hook} {resource}"),
        (Some(hook), _) => format!("lsm={hook}"),
        (None, _) => data(op),
    };
    Texts {
        resource,
        data,
        result: "",
    }
}

/// Of a system call; none for results that KubeArmor never reports.
pub(super) fn call(image: &Image, observation: &Observation) -> Option<Texts> {
    let op = &observation.op;
    let result = result(observation.result)?;
    Some(Texts {
        resource: resource(observation, image),
        data: data(op),
        result,
    })
}

/// Of a TCP connection that was made, taken, or is on its way, as the protocol sees it.
pub(super) fn protocol(observation: &Observation) -> Option<Texts> {
    let (probe, peer, kind, protocol) = match &observation.op {
        Op::Connect {
            peer,
            kind,
            protocol,
            ..
        } => ("tcp_connect", peer, *kind, *protocol),
        Op::Accept {
            peer,
            kind,
            protocol,
            ..
        } => ("tcp_accept", peer, *kind, *protocol),
        _ => return None,
    };
    let tcp = protocol == 6 || (protocol == 0 && kind == 1);
    let Address::Ip { ip, port } = peer else {
        return None;
    };
    let made = observation.result >= 0 || observation.result == IN_PROGRESS;
    (tcp && made).then(|| Texts {
        resource: format!("remoteip={ip} port={port} protocol=TCP"),
        data: format!("kprobe={probe} domain={}", ip_family(*ip)),
        result: "Passed",
    })
}

fn resource(observation: &Observation, image: &Image) -> String {
    let cwd = &observation.task.cwd;
    match &observation.op {
        Op::Exec { .. } => command_line(&image.exe, &image.args),
        Op::Exit { .. } | Op::Listen { .. } => String::new(),
        Op::Open { path, dirfd, .. }
        | Op::Unlink { path, dirfd, .. }
        | Op::Rename {
            from: path, dirfd, ..
        } => absolute(path, *dirfd, cwd),
        op @ Op::Syscall { dirfd, .. } => {
            asked(op).map_or_else(String::new, |call| absolute(call.resource(), *dirfd, cwd))
        }
        Op::Socket {
            family,
            kind,
            protocol,
        } => format!(
            "domain={} type={} protocol={}",
            texts::family(*family),
            texts::socket_type(u32::from(*kind)),
            texts::protocol(u32::from(*protocol))
        ),
        Op::Connect { peer: end, .. }
        | Op::Accept { peer: end, .. }
        | Op::Bind { local: end, .. } => sockaddr(end),
        Op::Capability { number } => texts::capability(*number).into_owned(),
    }
}

/// What happened, as `key=value` words.
fn data(op: &Op) -> String {
    match op {
        // The caller's descriptor is not kept; a name that was absolute had none.
        Op::Exec { call, .. } => call_or(*call, "SYS_EXECVE"),
        Op::Exit { .. } => String::new(),
        Op::Open {
            flags, call, dirfd, ..
        } => open(*call, *dirfd, *flags),
        Op::Unlink {
            call: Call::Unlinkat,
            flags,
            ..
        } => {
            format!("syscall=SYS_UNLINKAT flags={}", texts::unlink_flags(*flags))
        }
        Op::Unlink { call, .. } => call_or(*call, "SYS_UNLINK"),
        Op::Rename { to, call, .. } => format!("{} newpath={to}", call_or(*call, "SYS_RENAME")),
        Op::Socket { .. } => "syscall=SYS_SOCKET".to_owned(),
        Op::Connect { fd, .. } => format!("syscall=SYS_CONNECT fd={fd}"),
        Op::Accept { fd, .. } => format!("syscall=SYS_ACCEPT fd={fd}"),
        Op::Listen { fd, .. } => format!("syscall=SYS_LISTEN fd={fd}"),
        Op::Bind { fd, .. } => format!("syscall=SYS_BIND fd={fd}"),
        Op::Capability { number } => format!("kfunc=cap_capable {}", texts::capability(*number)),
        op @ Op::Syscall { .. } => asked(op).map_or_else(String::new, |call| call.data()),
    }
}

fn asked(op: &Op) -> Option<Asked<'_>> {
    match op {
        Op::Syscall {
            number,
            arguments,
            path,
            other,
            file_system,
            dirfd: _,
        } => Some(Asked {
            number: *number,
            arguments: *arguments,
            path,
            other,
            file_system,
        }),
        _ => None,
    }
}

/// A relative name from the working directory, as Go's `filepath.Join` makes it. From another directory it stays as it
/// was written: which one that was is known to the kernel only.
fn absolute(path: &str, dirfd: i32, cwd: &str) -> String {
    if path.is_empty() || path.starts_with('/') || dirfd != libc::AT_FDCWD || cwd.is_empty() {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in cwd.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The LSM word, where KubeArmor's LSM programs would have told it: denials and postures. An Audit rule is told by the
/// system call, as KubeArmor's monitor does, unless the hook is all there is.
fn lsm(op: &Op, decision: Decision) -> Option<&'static str> {
    let hook = decision.hook.lsm()?;
    let known_call = matches!(op, Op::Socket { .. }) || call_of(op) != Call::None;
    (!(audited(decision) && known_call)).then_some(hook)
}

fn audited(decision: Decision) -> bool {
    decision.action == Action::Audit && matches!(decision.by, By::Rule { .. })
}

fn call_of(op: &Op) -> Call {
    match op {
        Op::Exec { call, .. }
        | Op::Open { call, .. }
        | Op::Unlink { call, .. }
        | Op::Rename { call, .. } => *call,
        _ => Call::None,
    }
}

fn call_or(call: Call, otherwise: &str) -> String {
    let name = if call == Call::None {
        otherwise
    } else {
        call.name()
    };
    format!("syscall={name}")
}

fn open(call: Call, dirfd: i32, flags: u32) -> String {
    let flags = texts::open_flags(flags);
    match call {
        Call::Open | Call::Creat => format!("syscall=SYS_OPEN flags={flags}"),
        // openat2 has the same arguments; consumers know the older name.
        _ => format!("syscall=SYS_OPENAT fd={dirfd} flags={flags}"),
    }
}

fn sockaddr(address: &Address) -> String {
    match address {
        Address::Ip { ip, port } => {
            format!("sa_family={} sin_port={port} sin_addr={ip}", ip_family(*ip))
        }
        Address::Unix(path) => format!("sa_family=AF_UNIX sun_path={path}"),
        Address::Other(family) => format!("sa_family={}", texts::family(*family)),
    }
}

fn ip_family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "AF_INET" } else { "AF_INET6" }
}

/// What was asked for: 1 exec, 2 write, 4 read, 8 append, 16 create, 32 unlink, 64 rename.
pub(super) fn access_mask(op: &Op) -> u32 {
    match op {
        Op::Exec { .. } => 1,
        Op::Open { flags, .. } => {
            let mode = match flags & 3 {
                0 => 4,
                1 => 2,
                _ => 6,
            };
            let bit = |flag: u32, mask: u32| if flags & flag != 0 { mask } else { 0 };
            mode | bit(0o1000, 2) | bit(0o2000, 8) | bit(0o100, 16)
        }
        Op::Unlink { .. } => 32,
        Op::Rename { .. } => 64,
        _ => 0,
    }
}

/// `Passed`, or the error's text; none for what KubeArmor never reports.
fn result(result: i32) -> Option<&'static str> {
    match result {
        0.. => Some("Passed"),
        NO_ENTRY | IN_PROGRESS => None,
        _ => Some(texts::errno(result.saturating_neg())),
    }
}

const NO_ENTRY: i32 = -2;
const IN_PROGRESS: i32 = -115;

/// KubeArmor always appends a slash; the root is one.
pub(super) fn cwd(path: &str) -> String {
    match path {
        "" | "/" => path.to_owned(),
        _ => format!("{path}/"),
    }
}

/// `YYYY-MM-DDThh:mm:ss.ffffffZ`.
pub fn updated_time(time_ns: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_ends_with_one_slash() {
        assert_eq!(["", "/", "/usr/share"].map(cwd), ["", "/", "/usr/share/"]);
    }
}
