//! The command as a child that is born in the workload's cgroup: its start, the signals it is passed, its end.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use sensor_bpf::control::ReadyReply;

use super::{RunError, system};

/// `argv`, ready before the child exists: after it, nothing may allocate.
pub(super) struct Command {
    name: String,
    words: Vec<CString>,
}

impl Command {
    pub(super) fn new(words: &[OsString]) -> Result<Self, RunError> {
        let name = words
            .first()
            .map(|word| word.to_string_lossy().into_owned())
            .unwrap_or_default();
        let words: Result<_, _> = words
            .iter()
            .map(|word| CString::new(word.clone().into_vec()))
            .collect();
        match words {
            Ok(words) => Ok(Self { name, words }),
            Err(why) => Err(RunError::Exec(name, why.into())),
        }
    }
}

/// The command, running.
pub(super) struct Child {
    pid: libc::pid_t,
    signals: OwnedFd,
}

/// Starts the command in the workload's cgroup; when this returns, it has called exec.
pub(super) fn start(command: &Command, ready: &ReadyReply) -> Result<Child, RunError> {
    let cgroup = File::open(&ready.cgroup).map_err(system("open the workload's cgroup"))?;
    let (mut reader, writer) = io::pipe().map_err(system("make a pipe"))?;
    let (signals, before) = signals().map_err(system("block signals"))?;
    let argv: Vec<*const libc::c_char> = command
        .words
        .iter()
        .map(|word| word.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    // SAFETY: the child only calls `child`, which keeps to what may be called there.
    let pid = unsafe { clone_into(cgroup.as_raw_fd()) }.map_err(system(
        "start a process in the workload's cgroup (clone3, Linux 5.7)",
    ))?;
    if pid == 0 {
        // SAFETY: argv is a NULL-terminated array of strings that live in this copy of the memory.
        unsafe { child(&argv, &before, writer.as_raw_fd()) }
    }
    drop(writer);
    let mut errno = [0; 4];
    match reader.read_exact(&mut errno) {
        // The pipe closed with exec.
        Err(_) => Ok(Child { pid, signals }),
        Ok(()) => {
            let _ = wait(pid, 0);
            let why = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
            Err(RunError::Exec(command.name.clone(), why))
        }
    }
}

/// clone3(2) with CLONE_INTO_CGROUP: like fork, but born in the cgroup.
///
/// # Safety
/// In the child (0) only async-signal-safe functions may be called until exec.
unsafe fn clone_into(cgroup: RawFd) -> io::Result<libc::pid_t> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup as u64;
    // SAFETY: the pointer and the size are those of a live clone_args; without CLONE_VM memory is copied as by fork.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match libc::pid_t::try_from(result) {
        Ok(pid) if pid >= 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The child's whole life before exec. Nothing here allocates.
///
/// # Safety
/// `argv` ends with NULL and its strings live.
unsafe fn child(argv: &[*const libc::c_char], mask: &libc::sigset_t, report: RawFd) -> ! {
    // SAFETY: all of these are system calls on values that live here; execvp of glibc and musl uses the stack only.
    unsafe {
        // Rust ignores SIGPIPE, and ignored signals stay ignored over exec.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut());
        if let Some(program) = argv.first() {
            libc::execvp(*program, argv.as_ptr());
        }
        let errno = io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::ENOENT)
            .to_ne_bytes();
        libc::write(report, errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}

/// Signals that are passed on to the command, and the one that tells of its end.
const PASSED_ON: [libc::c_int; 6] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// From now on they are read from the descriptor. Also gives the mask as it was, which the command gets.
fn signals() -> io::Result<(OwnedFd, libc::sigset_t)> {
    // SAFETY: plain calls on sets that live here; the descriptor that signalfd gives is owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        // Ignored, as some callers leave it, the kernel would bury the command before its status is read.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::sigemptyset(&raw mut set);
        for signal in PASSED_ON.into_iter().chain([libc::SIGCHLD]) {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok((OwnedFd::from_raw_fd(fd), before)),
        }
    }
}

impl Child {
    /// Until it ends, passing signals on; the sensor's end is its end.
    pub(super) fn wait(self, connection: &UnixStream, cgroup: &Path) -> Result<u8, RunError> {
        loop {
            let mut events = [
                poll_in(self.signals.as_raw_fd()),
                poll_in(connection.as_raw_fd()),
            ];
            // SAFETY: two live pollfd structures.
            let ready = unsafe { libc::poll(events.as_mut_ptr(), 2, -1) };
            if ready < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Err(system("poll")(io::Error::last_os_error()));
            }
            if events[0].revents != 0 {
                let (signal, from_terminal) = self.signal().map_err(system("read a signal"))?;
                if signal != libc::SIGCHLD && !from_terminal {
                    // SAFETY: our own child, which has not been waited for.
                    unsafe { libc::kill(self.pid, signal) };
                }
            }
            if let Some(code) = wait(self.pid, libc::WNOHANG).map_err(system("wait"))? {
                return Ok(code);
            }
            if events[1].revents != 0 {
                return self.orphaned(cgroup);
            }
        }
    }

    /// The terminal sends its signals to the whole foreground group, so the command has had those.
    fn signal(&self) -> io::Result<(libc::c_int, bool)> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let mut file = File::from(self.signals.try_clone()?);
        file.read_exact(&mut info)?;
        // SAFETY: the kernel wrote a whole signalfd_siginfo, which is plain numbers; the read is unaligned.
        let info: libc::signalfd_siginfo =
            unsafe { std::ptr::read_unaligned(info.as_ptr().cast()) };
        const SI_KERNEL: i32 = 0x80;
        Ok((info.ssi_signo.cast_signed(), info.ssi_code == SI_KERNEL))
    }

    /// Nobody judges the workload any more, so it must not go on.
    fn orphaned(self, cgroup: &Path) -> Result<u8, RunError> {
        if std::fs::write(cgroup.join("cgroup.kill"), "1").is_err() {
            // SAFETY: our own child, which has not been waited for.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
        wait(self.pid, 0).map_err(system("wait"))?;
        // The sensor may have removed it on its way out.
        let _ = std::fs::remove_dir(cgroup);
        Err(RunError::SensorGone)
    }
}

fn poll_in(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

/// The exit status of our child, if it has ended: 128 + n when a signal ended it.
fn wait(pid: libc::pid_t, flags: libc::c_int) -> io::Result<Option<u8>> {
    let mut status = 0;
    // SAFETY: our own child and a live integer.
    match unsafe { libc::waitpid(pid, &raw mut status, flags) } {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ if libc::WIFSIGNALED(status) => {
            Ok(Some(128_u8.saturating_add(libc::WTERMSIG(status) as u8)))
        }
        // Exit statuses have 8 bits.
        _ => Ok(Some(libc::WEXITSTATUS(status) as u8)),
    }
}
