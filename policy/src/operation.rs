//! What a workload asks the kernel for.

/// One operation, in the terms that rules are written in. Paths are absolute and resolved, as the kernel prints them
/// inside the workload's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Starting a program.
    Exec {
        /// The file that is executed.
        path: String,
    },
    /// Opening a file, or changing it by name (unlink, rename and the like are writes).
    Open {
        /// The file.
        path: String,
        /// Whether it may be changed by it.
        write: bool,
    },
    /// Making or using an internet or packet socket.
    Socket {
        /// What [`SocketKey::of`](crate::SocketKey::of) makes of it.
        key: crate::SocketKey,
    },
    /// Using a capability.
    Capability {
        /// Its number.
        number: u8,
    },
    /// A system call that returned.
    Syscall {
        /// Its number on x86-64.
        number: u16,
    },
}
