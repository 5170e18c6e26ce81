//! What a workload or a node asks the kernel for, and who asks.

use crate::device::Device;
use crate::endpoint::{Connection, Packet};
use crate::socket::SocketKey;

/// One operation: what is done, and what is known of who does it.
///
/// ```
/// use policy::Operation;
///
/// let operation = Operation::exec("/usr/bin/apt").args(["install", "nc"]).from("/usr/bin/dash").terminal(true);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What is done.
    pub act: Act,
    /// Who does it.
    pub by: Actor,
}

/// What is done. Paths are absolute and resolved, as the kernel prints them inside the workload's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Starting a program.
    Exec {
        /// The file that is executed.
        path: String,
        /// Its arguments without the first, which is its name; `None`: not known.
        args: Option<Vec<String>>,
    },
    /// Opening a file, or changing it by name (unlink, rename and the like are writes).
    Open {
        /// The file.
        path: String,
        /// Whether it may be changed by it.
        write: bool,
    },
    /// Making anonymous memory executable.
    MapExec,
    /// Making or using an internet or packet socket.
    Socket {
        /// What [`SocketKey::of`] makes of it.
        key: SocketKey,
    },
    /// Connecting, sending, binding or accepting with an address.
    Connect(Connection),
    /// Looking a name up in the DNS.
    Lookup {
        /// The name, as it goes over the wire.
        name: String,
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
        /// The path that it acted on; `None`: none, or not known.
        path: Option<String>,
    },
    /// Plugging a device in. Nodes only.
    Device(Device),
    /// A packet of a network policy.
    Packet(Packet),
}

/// What is known of who does it; `None` is not known, and rules that ask for it leave the verdict in
/// [doubt](crate::Verdict::doubt).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// The program, by the resolved path of its file. Of an exec: the one that calls execve.
    pub program: Option<String>,
    /// Whether its user owns the file (of one that is made: the folder).
    pub owner: Option<bool>,
    /// Whether it has a controlling terminal.
    pub terminal: Option<bool>,
    /// Its process id, as numbered by the `/proc` that its paths lead through.
    pub pid: Option<u32>,
    /// Whether it belongs to an interactive session that was brought into the container (`kubectl exec`).
    pub session: Option<bool>,
}

impl Operation {
    /// An operation by whoever.
    pub fn of(act: Act) -> Operation {
        Operation {
            act,
            by: Actor::default(),
        }
    }

    /// Starting a program whose arguments are not known.
    pub fn exec(path: impl Into<String>) -> Operation {
        Operation::of(Act::Exec {
            path: path.into(),
            args: None,
        })
    }

    /// Opening a file for reading.
    pub fn read(path: impl Into<String>) -> Operation {
        Operation::open(path, false)
    }

    /// Opening a file for writing, or changing it by name.
    pub fn write(path: impl Into<String>) -> Operation {
        Operation::open(path, true)
    }

    /// Opening a file.
    pub fn open(path: impl Into<String>, write: bool) -> Operation {
        Operation::of(Act::Open {
            path: path.into(),
            write,
        })
    }

    /// Making a socket, by the type and protocol arguments of `socket(2)`.
    pub fn socket(kind: i32, protocol: i32) -> Operation {
        Operation::of(Act::Socket {
            key: SocketKey::of(kind, protocol),
        })
    }

    /// Looking a name up.
    pub fn lookup(name: impl Into<String>) -> Operation {
        Operation::of(Act::Lookup { name: name.into() })
    }

    /// With these arguments behind the program's name; says nothing to what is not an exec.
    pub fn args<A: Into<String>>(mut self, given: impl IntoIterator<Item = A>) -> Operation {
        if let Act::Exec { args, .. } = &mut self.act {
            *args = Some(given.into_iter().map(Into::into).collect());
        }
        self
    }

    /// By this program.
    pub fn from(mut self, program: impl Into<String>) -> Operation {
        self.by.program = Some(program.into());
        self
    }

    /// By the owner of the file, or by another.
    pub fn owner(mut self, owner: bool) -> Operation {
        self.by.owner = Some(owner);
        self
    }

    /// With or without a terminal.
    pub fn terminal(mut self, terminal: bool) -> Operation {
        self.by.terminal = Some(terminal);
        self
    }

    /// By the process of this number.
    pub fn pid(mut self, pid: u32) -> Operation {
        self.by.pid = Some(pid);
        self
    }

    /// Out of a session that was brought in, or not.
    pub fn session(mut self, session: bool) -> Operation {
        self.by.session = Some(session);
        self
    }
}
