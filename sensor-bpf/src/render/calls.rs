//! What an event of Operation `Syscall` says of the call.
//!
//! Texts for the ten calls that KubeArmor tells of, and in their manner for the rest. What `mount` was handed as data may
//! hold a password, so its word stays empty.

use std::borrow::Cow;

use super::texts;

/// A system call as it was asked for.
pub(super) struct Asked<'a> {
    pub(super) number: u16,
    pub(super) arguments: [u64; 5],
    pub(super) path: &'a str,
    pub(super) other: &'a str,
    pub(super) file_system: &'a str,
}

impl Asked<'_> {
    /// `syscall=SYS_NAME` and its arguments, as `key=value` words.
    pub(super) fn data(&self) -> String {
        let Some(name) = policy::SYSCALLS.get(usize::from(self.number)) else {
            return format!("syscall={}", self.number);
        };
        let mut data = format!("syscall=SYS_{}", name.to_uppercase());
        if let Some(words) = self.words(name) {
            data.push(' ');
            data.push_str(&words);
        }
        data
    }

    /// The file of a call that acts on one; calls that mount name both ends in their data.
    pub(super) fn resource(&self) -> &str {
        match policy::SYSCALLS.get(usize::from(self.number)) {
            Some(&("mount" | "umount2")) => "",
            _ => self.path,
        }
    }

    fn words(&self, name: &str) -> Option<String> {
        let [a, b, c, d, e] = self.arguments;
        Some(match name {
            "setuid" | "setgid" => format!("userid={}", number(a)),
            "chown" | "lchown" => format!("userid={} group={}", number(b), number(c)),
            "fchownat" => format!(
                "userid={} group={} mode={}",
                number(c),
                number(d),
                number(e)
            ),
            "unlinkat" => format!("flags={}", texts::unlink_flags(c as u32)),
            "mount" => format!(
                "source={} target={} filesystem={} mountflag={d} data=",
                self.other, self.path, self.file_system
            ),
            "umount2" => format!("target={} flag={}", self.path, number(b)),
            "ptrace" => format!("request={} pid={} process=", ptrace_request(a), number(b)),
            _ if !self.other.is_empty() => format!("newpath={}", self.other),
            _ => return None,
        })
    }
}

/// The kernel takes the low half of the register; −1 leaves an id as it is.
fn number(argument: u64) -> i32 {
    argument as i32
}

/// include/uapi/linux/ptrace.h.
fn ptrace_request(request: u64) -> Cow<'static, str> {
    let name = match request {
        0 => "PTRACE_TRACEME",
        1 => "PTRACE_PEEKTEXT",
        2 => "PTRACE_PEEKDATA",
        3 => "PTRACE_PEEKUSR",
        4 => "PTRACE_POKETEXT",
        5 => "PTRACE_POKEDATA",
        6 => "PTRACE_POKEUSR",
        7 => "PTRACE_CONT",
        8 => "PTRACE_KILL",
        9 => "PTRACE_SINGLESTEP",
        12 => "PTRACE_GETREGS",
        13 => "PTRACE_SETREGS",
        16 => "PTRACE_ATTACH",
        17 => "PTRACE_DETACH",
        24 => "PTRACE_SYSCALL",
        0x4200 => "PTRACE_SETOPTIONS",
        0x4201 => "PTRACE_GETEVENTMSG",
        0x4204 => "PTRACE_GETREGSET",
        0x4205 => "PTRACE_SETREGSET",
        0x4206 => "PTRACE_SEIZE",
        0x4207 => "PTRACE_INTERRUPT",
        _ => return Cow::Owned(request.to_string()),
    };
    Cow::Borrowed(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, arguments: [u64; 5]) -> Asked<'static> {
        Asked {
            number: policy::syscall(name).expect("is a system call"),
            arguments,
            path: "/mnt",
            other: "/dev/vdb",
            file_system: "ext4",
        }
    }

    #[test]
    fn calls_that_consumers_know_have_their_words() {
        let minus_one = u64::from(u32::MAX);
        let told = [
            (
                asked("setgid", [7, 0, 0, 0, 0]).data(),
                "syscall=SYS_SETGID userid=7",
            ),
            (
                asked("fchownat", [3, 0, 0, minus_one, 256]).data(),
                "syscall=SYS_FCHOWNAT userid=0 group=-1 mode=256",
            ),
            (
                asked("unlinkat", [0, 0, 0x200, 0, 0]).data(),
                "syscall=SYS_UNLINKAT flags=AT_REMOVEDIR",
            ),
            (
                asked("mount", [1, 2, 3, 4, 5]).data(),
                "syscall=SYS_MOUNT source=/dev/vdb target=/mnt filesystem=ext4 mountflag=4 data=",
            ),
            (
                asked("ptrace", [16, 42, 0, 0, 0]).data(),
                "syscall=SYS_PTRACE request=PTRACE_ATTACH pid=42 process=",
            ),
        ];
        for (data, expected) in told {
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn other_calls_are_named_and_a_number_without_a_name_is_told_as_it_is() {
        let link = asked("link", [0; 5]);
        assert_eq!(link.data(), "syscall=SYS_LINK newpath=/dev/vdb");
        assert_eq!(
            (link.resource(), asked("mount", [0; 5]).resource()),
            ("/mnt", "")
        );
        let quiet = Asked {
            other: "",
            ..asked("chroot", [0; 5])
        };
        assert_eq!(quiet.data(), "syscall=SYS_CHROOT");
        let unknown = Asked {
            number: 600,
            ..quiet
        };
        assert_eq!(unknown.data(), "syscall=600");
    }
}
