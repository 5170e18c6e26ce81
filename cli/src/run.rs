//! `cresset run`: a command as a labelled workload, in a cgroup of its own, under the policies that select it.
//!
//! ```text
//! register ─▶ ready (rules are live) ─▶ clone3(CLONE_INTO_CGROUP) ─▶ exec COMMAND
//!    │                                        │ signals are passed on, the end is waited for
//!    └── the connection is the workload's life: when it closes, the sensor kills what is left and removes the cgroup
//! ```
//! The child is born inside the cgroup, so no instruction of COMMAND runs unjudged and no process is ever moved.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use sensor_bpf::control::{ReadyReply, Reply, Request};
use sensor_bpf::workload::Identity;

/// Runs a command as a workload; exits with its status.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Control socket of the sensor
    #[arg(
        long,
        value_name = "SOCKET",
        env = "CRESSET_SENSOR",
        default_value = "/run/cresset/sensor.sock"
    )]
    pub(crate) sensor: PathBuf,
    /// Namespace of the workload
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Pod name of the workload [default: the command's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Labels that policies select, comma-separated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Container name [default: the pod name]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) container: String,
    /// The command and its arguments, after --
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Exit status when no sensor answers, or it left before the command did.
const UNREACHABLE: u8 = 3;
/// The workload was refused.
const REFUSED: u8 = 1;
/// As shells do: found and not executable, not found.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How long the sensor may take to put a workload's rules in force.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long the sensor may take to end what is left of a workload.
const END_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(
        "no sensor answers at {}: {source}; start one with `cresset up`, or name its socket with --sensor",
        socket.display()
    )]
    NoSensor { socket: PathBuf, source: io::Error },
    #[error("the sensor refused the workload: {0}")]
    Refused(String),
    #[error("{0}: {1}")]
    Exec(String, io::Error),
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error(
        "the sensor ended, and the workload with it: its rules are not enforced without a sensor"
    )]
    SensorGone,
}

impl RunError {
    fn code(&self) -> u8 {
        match self {
            Self::NoSensor { .. } | Self::SensorGone => UNREACHABLE,
            Self::Refused(_) | Self::System { .. } => REFUSED,
            Self::Exec(_, why) if why.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Exec(..) => NOT_EXECUTABLE,
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Runs the command and gives its exit status, 128 + n when a signal ended it.
///
/// Call it before any thread is started.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    match try_run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            anstream::eprintln!("cresset run: {why}");
            ExitCode::from(why.code())
        }
    }
}

fn try_run(args: &RunArgs) -> Result<u8, RunError> {
    let command = Command::new(&args.command)?;
    let (connection, ready) = register(args)?;
    let outcome = start(&command, &ready).and_then(|child| child.wait(&connection, &ready.cgroup));
    finish(connection);
    outcome
}

// === the sensor ===

fn identity(args: &RunArgs) -> Identity {
    let program = args
        .command
        .first()
        .map(|name| Path::new(name).file_name().unwrap_or(name));
    let default = || {
        program
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    Identity {
        namespace: args.namespace.clone(),
        name: args.name.clone().unwrap_or_else(default),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        container: args.container.clone(),
        ..Identity::default()
    }
}

fn register(args: &RunArgs) -> Result<(UnixStream, ReadyReply), RunError> {
    let unreachable = |source| RunError::NoSensor {
        socket: args.sensor.clone(),
        source,
    };
    let mut stream = UnixStream::connect(&args.sensor).map_err(unreachable)?;
    let request =
        serde_json::to_string(&Request::Register(identity(args))).map_err(io::Error::from);
    let request = request.map_err(unreachable)?;
    writeln!(stream, "{request}").map_err(unreachable)?;
    let mut line = String::new();
    stream
        .set_read_timeout(Some(READY_WITHIN))
        .map_err(unreachable)?;
    // Nothing follows the reply, so nothing is lost in this reader.
    BufReader::new(&stream)
        .read_line(&mut line)
        .map_err(unreachable)?;
    stream.set_read_timeout(None).map_err(unreachable)?;
    if line.is_empty() {
        return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&line) {
        Ok(Reply::Ready(ready)) => Ok((stream, ready)),
        Ok(Reply::Error(why)) => Err(RunError::Refused(why)),
        Ok(Reply::Status(_)) => Err(unreachable(io::Error::other(
            "an answer to another question",
        ))),
        Err(why) => Err(unreachable(why.into())),
    }
}

/// Says that the workload is over and waits until nothing is left of it.
fn finish(connection: UnixStream) {
    let closed = connection
        .shutdown(std::net::Shutdown::Write)
        .and_then(|()| connection.set_read_timeout(Some(END_WITHIN)));
    if closed.is_ok() {
        let mut rest = [0; 256];
        while matches!((&connection).read(&mut rest), Ok(n) if n > 0) {}
    }
}

// === the command ===

/// `argv`, ready before the child exists: after it, nothing may allocate.
struct Command {
    name: String,
    words: Vec<CString>,
}

impl Command {
    fn new(words: &[OsString]) -> Result<Self, RunError> {
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

struct Child {
    pid: libc::pid_t,
    signals: OwnedFd,
}

fn start(command: &Command, ready: &ReadyReply) -> Result<Child, RunError> {
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

/// From now on they are read from the descriptor. Also gives the mask as it was.
fn signals() -> io::Result<(OwnedFd, libc::sigset_t)> {
    // SAFETY: plain calls on sets that live here; the descriptor that signalfd gives is owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
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
    fn wait(self, connection: &UnixStream, cgroup: &Path) -> Result<u8, RunError> {
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
