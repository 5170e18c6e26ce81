//! Vocabulary of the kernel tests: a cgroup of their own, processes in it, and what the kernel says of them.
//!
//! Every workload has a deadline, and its cgroup is emptied and removed whatever happens to the test.

#![allow(dead_code, unreachable_pub)] // reason: each test program uses its part
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // reason: tests fail by panicking

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sensor_bpf::kernel::{Contain, Events, Kernel, KernelConfig, Visibility};
use sensor_bpf::observe::{Observation, Op, Outcome};

/// Nothing is enforced longer than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where cgroup2 is mounted.
pub fn mount() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        after.starts_with("cgroup2 ").then(|| PathBuf::from(point))
    })
}

/// A cgroup that exists as long as this.
pub struct Group(pub PathBuf);

impl Group {
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = mount()?.join(format!("cresset-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// Makes a command start inside.
    pub fn adopt(&self, command: &mut Command) {
        let procs = File::options()
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .expect("opens");
        let procs = OwnedFd::from(procs);
        // SAFETY: write(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(move || enter(procs.as_raw_fd()));
        }
    }

    /// Runs `work` in a forked child inside the cgroup. It may only make system calls; its result is the exit code.
    pub fn fork(&self, work: impl FnOnce() -> i32) -> i32 {
        let procs = File::options()
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .expect("opens");
        // SAFETY: the child only makes system calls and leaves by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let entered = enter(procs.as_raw_fd()).is_ok();
                // SAFETY: ends this child, without running what the parent registered.
                unsafe { libc::_exit(if entered { work() } else { 125 }) }
            }
            child => wait(child),
        }
    }
}

/// Exit code, or 128 + signal.
pub fn wait(child: i32) -> i32 {
    assert!(child > 0, "fork failed");
    let mut status = 0;
    // SAFETY: the status is a valid place.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    }
}

fn enter(procs: i32) -> std::io::Result<()> {
    // SAFETY: the buffer is valid for one byte.
    let written = unsafe { libc::write(procs, b"0".as_ptr().cast(), 1) };
    if written == 1 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(mut kill) = File::options().write(true).open(self.0.join("cgroup.kill")) {
            _ = kill.write_all(b"1");
        }
        for _ in 0..200 {
            for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    _ = fs::remove_dir(entry.path());
                }
            }
            if fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} could not be removed", self.0.display());
    }
}

/// Loaded programs, one workload with index 7, everything visible.
/// Says that a test of the kernel half does not run, and why; `cargo xtask test` counts what stands in the file that
/// `CRESSET_SKIPS` names, as NEED, SUITE and REASON with tabs between.
pub fn skip(need: &str, reason: &str) {
    println!("SKIPPED: {reason}");
    let Some(path) = std::env::var_os("CRESSET_SKIPS") else {
        return;
    };
    let line = format!("{need}\tsensor-bpf kernel tests\t{reason}\n");
    let file = std::fs::OpenOptions::new().append(true).open(path);
    if let Ok(mut file) = file {
        let _ = std::io::Write::write_all(&mut file, line.as_bytes());
    }
}

pub struct Scene {
    // dropped in this order: the workload's tasks are gone before its programs
    pub group: Group,
    pub kernel: Kernel,
    pub events: Events,
    pub seen: Vec<Observation>,
}

pub const WORKLOAD: u32 = 7;

impl Scene {
    /// None, and a line that says why, where this machine cannot.
    pub fn new(contain: Contain) -> Option<Self> {
        let tier = std::env::var("CRESSET_TEST_TIER")
            .ok()
            .and_then(|tier| tier.parse().ok());
        Self::at_tier(contain, tier)
    }

    pub fn at_tier(contain: Contain, tier_limit: Option<u8>) -> Option<Self> {
        let Some(cgroup2) = mount() else {
            skip("root", "no cgroup2 file system is mounted");
            return None;
        };
        let (kernel, events) = match Kernel::load(KernelConfig {
            contain,
            cgroup2,
            tier_limit,
        }) {
            Ok(loaded) => loaded,
            Err(error @ sensor_bpf::kernel::LoadError::NotPermitted(_)) => {
                skip("bpf", &error.to_string());
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        println!("tier {}: {}", kernel.tier(), kernel.probe().reason);
        let Some(group) = Group::new() else {
            skip("root", "no cgroup can be made");
            return None;
        };
        let deadline = Instant::now() + DEADLINE;
        kernel
            .add_workload(WORKLOAD, &group.0, 0, Some(deadline))
            .expect("labels an empty cgroup");
        let all = Visibility {
            process: true,
            file: true,
            network: true,
            capabilities: true,
        };
        kernel.visibility(WORKLOAD, all);
        Some(Self {
            group,
            kernel,
            events,
            seen: Vec::new(),
        })
    }

    /// Puts rules in force for the workload; gives their set and generation.
    pub fn rules(&self, flat: &policy::Flat) -> (u32, u32) {
        let generation = self.kernel.write_set(1, flat).expect("rules are taken");
        self.kernel.point(WORKLOAD, 1);
        (1, generation)
    }

    /// Starts a command in the workload and waits for its end.
    pub fn run(&mut self, command: &mut Command) -> ExitStatus {
        self.start(command).wait().expect("ends")
    }

    /// Whether the command ran and succeeded. If it did not, it was refused, in the way of the tier.
    pub fn ran(&mut self, command: &mut Command) -> bool {
        self.group.adopt(command);
        match command.stdin(Stdio::null()).status() {
            Ok(status) if status.success() => true,
            Ok(status) => {
                assert_eq!(self.kernel.tier(), 3, "{status}");
                assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
                false
            }
            Err(error) => {
                assert!(self.kernel.tier() < 3, "{error}");
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
                false
            }
        }
    }

    pub fn by_tier<T>(&self, native: T, lsm: T) -> T {
        if self.kernel.tier() == 3 { native } else { lsm }
    }

    /// What becomes of a forbidden exec.
    pub fn refusal(&self) -> Outcome {
        self.by_tier(Outcome::Killed, Outcome::Denied)
    }

    pub fn start(&mut self, command: &mut Command) -> Child {
        self.group.adopt(command);
        command.stdin(Stdio::null()).spawn().expect("starts")
    }

    /// What was seen up to now, and what comes in the next moment.
    pub fn look(&mut self) -> &[Observation] {
        let seen = &mut self.seen;
        let wait = Duration::from_millis(60);
        while self
            .events
            .poll(wait, &mut |one| seen.push(one))
            .expect("polls")
            > 0
        {}
        assert_eq!(self.events.unreadable(), 0, "records that are none");
        &self.seen
    }

    /// What was seen up to now does not count.
    pub fn forget(&mut self) {
        self.look();
        self.seen.clear();
    }

    /// The executions of a path.
    pub fn execs(&mut self, of: &str) -> Vec<Observation> {
        let is = |seen: &&Observation| matches!(&seen.op, Op::Exec { path, .. } if path == of);
        self.look().iter().filter(is).cloned().collect()
    }

    /// Openings of a path.
    pub fn opens(&mut self, of: &str) -> Vec<Observation> {
        let is = |seen: &&Observation| matches!(&seen.op, Op::Open { path, .. } if path == of);
        self.look().iter().filter(is).cloned().collect()
    }
}

/// The path with every link resolved.
pub fn resolved(path: &str) -> String {
    fs::canonicalize(path)
        .expect("exists")
        .to_string_lossy()
        .into_owned()
}

/// A copy of a program in a folder of its own, so that it keeps its name: one binary may be many programs.
///
/// Another process writes it: a descriptor of this one, open for writing in a fork of another test, would make its
/// exec fail with ETXTBSY.
pub fn copy_of(program: &str, folder: &Path, own: &str) -> String {
    let folder = folder.join(own);
    fs::create_dir_all(&folder).expect("makes");
    let copy = folder.join(Path::new(program).file_name().expect("has a name"));
    let status = Command::new("cp")
        .arg(resolved(program))
        .arg(&copy)
        .status()
        .expect("starts");
    assert!(status.success());
    resolved(&copy.to_string_lossy())
}
