//! What this kernel can do, found out by trying.
//!
//! ```text
//! 1 LSM        deny before it happens               needs BPF in the kernel's list of security modules
//! 2 fmod_ret   the same, by the same programs       needs trampolines (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)
//! 3 contain    end the image before it runs, deny IP sockets of the workload's cgroup, tell of the rest
//! ```
//! That programs load and attach proves little: where BPF is missing from the list, LSM programs attach and are never
//! called. So a tier counts only after a canary: a socket that no program asks for is refused with the programs' error.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use super::words::Words;
use super::{Contain, Kernel, KernelConfig};

/// Protocol of the canary, which no socket has (`CANARY` in `socket.h`).
const CANARY: i32 = 0x7c5e;

/// What can be done here.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// 1 LSM, 2 `fmod_ret`, 3 contain, 0 nothing.
    pub tier: u8,
    /// For each operation.
    pub abilities: Vec<Ability>,
    /// Why there is no better tier, for a person; empty on tier 1.
    pub reason: String,
}

/// What can be done to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// `exec`, `file`, `network` or `capabilities`.
    pub operation: &'static str,
    /// `deny`, `kill`, `audit` or `none`.
    pub how: &'static str,
    /// What it does not cover, for a person.
    pub reason: &'static str,
}

/// Tries every tier, loads nothing for longer than the trial, and says what there is.
pub fn probe(cgroup2: &Path) -> Probe {
    let config = KernelConfig {
        contain: Contain::Default,
        cgroup2: cgroup2.to_owned(),
        tier_limit: None,
    };
    match Kernel::load(config) {
        Ok((kernel, _events)) => kernel.probe().clone(),
        Err(error) => Probe {
            tier: 0,
            abilities: Vec::new(),
            reason: error.to_string(),
        },
    }
}

pub(super) fn name(tier: u8) -> &'static str {
    match tier {
        1 => "BPF LSM",
        2 => "fmod_ret",
        _ => "contain",
    }
}

impl Probe {
    /// `capabilities`: the native tier's kernel tells of those that it grants.
    pub(super) fn of(tier: u8, contain: Contain, capabilities: bool, reason: String) -> Self {
        let abilities = if tier < 3 {
            denying()
        } else {
            containing(contain, capabilities)
        };
        Self {
            tier,
            abilities,
            reason,
        }
    }
}

fn ability(operation: &'static str, how: &'static str, reason: &'static str) -> Ability {
    Ability {
        operation,
        how,
        reason,
    }
}

fn denying() -> Vec<Ability> {
    vec![
        ability("exec", "deny", ""),
        ability("file", "deny", ""),
        ability("network", "deny", "making internet and packet sockets"),
        ability("capabilities", "deny", ""),
    ]
}

fn containing(contain: Contain, capabilities: bool) -> Vec<Ability> {
    let (exec, file, network) = match contain {
        Contain::None => ("audit", "audit", "audit"),
        Contain::Default => ("kill", "audit", "deny"),
        Contain::All => ("kill", "kill", "deny"),
    };
    vec![
        ability(
            "exec",
            exec,
            "the final binary only: the path of a #! script is not seen",
        ),
        ability("file", file, "opening only, and after the fact"),
        ability("network", network, "internet sockets only"),
        if capabilities {
            ability("capabilities", "audit", "after the fact, by rules only")
        } else {
            ability("capabilities", "none", "this kernel does not tell of them")
        },
    ]
}

/// A reason not even to try. An unreadable list proves nothing.
pub(super) fn ruled_out(tier: u8) -> Option<String> {
    let list = fs::read_to_string("/sys/kernel/security/lsm").ok()?;
    let on = list.trim().split(',').any(|module| module == "bpf");
    (tier == 1 && !on).then(|| {
        format!(
            "bpf is not among the security modules ({}); boot with lsm=…,bpf",
            list.trim()
        )
    })
}

/// Asks for a socket that only the programs know, and looks whose refusal comes back.
pub(super) fn canary_is_refused(words: &Words) -> bool {
    words.set_canary(std::process::id());
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, CANARY) };
    let error = std::io::Error::last_os_error();
    words.set_canary(0);
    if fd >= 0 {
        // SAFETY: the descriptor was just made and nobody else has it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return false;
    }
    error.raw_os_error() == Some(libc::EACCES)
}
