//! The tests' vocabulary: programs that end with the test, free ports, waiting, and telling why a suite cannot run.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

#[path = "../../../relay/tests/support/books.rs"]
pub mod books;
pub mod node;
pub mod oracle;
pub mod program;
pub mod simulated;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Says that a suite does not run, and why; counted by `cargo xtask test`.
pub fn skip(need: &str, suite: &str, reason: &str) {
    println!("SKIPPED {suite}: {reason}");
    let Some(path) = std::env::var_os("CRESSET_SKIPS") else {
        return;
    };
    let file = std::fs::OpenOptions::new().append(true).open(path);
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{need}\t{suite}\t{reason}");
    }
}

/// Whether this machine can run the native sensor; if not, the suite is counted as skipped.
pub fn can_watch(suite: &str) -> bool {
    if std::env::var_os("CRESSET_QUICK").is_some() {
        skip("full", suite, "make test-quick leaves out what needs root");
        return false;
    }
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        skip("root", suite, "needs root");
        return false;
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip(
            "bpf",
            suite,
            "the kernel has no type information (/sys/kernel/btf/vmlinux)",
        );
        return false;
    }
    true
}

/// The folder of the programs under test.
pub fn programs() -> PathBuf {
    if std::env::var_os("CRESSET_GUEST").is_some() {
        return PathBuf::from("/bin");
    }
    // Copies, where others may build meanwhile.
    if let Some(folder) = std::env::var_os("CRESSET_PROGRAMS") {
        return folder.into();
    }
    let cresset = Path::new(env!("CARGO_BIN_EXE_cresset"));
    cresset
        .parent()
        .expect("a program stands in a folder")
        .to_path_buf()
}

/// A program of ours by name.
pub fn program(name: &str) -> Command {
    let path = programs().join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build` first",
        path.display()
    );
    let mut command = Command::new(path);
    for variable in [
        "CRESSET_RELAY",
        "KUBEARMOR_SERVICE",
        "CRESSET_SENSOR",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    // Whatever a test does wrong, nothing is enforced for longer.
    command.env("CRESSET__SENSOR__ENFORCE_FOR", "60s");
    command
}

/// Lines that a program has printed so far.
#[derive(Clone, Default)]
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    /// Whoever wrote them has closed the pipe.
    whole: Arc<AtomicBool>,
}

impl Lines {
    fn gather(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let into = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines() {
                let Ok(line) = line else { break };
                into.push(line);
            }
            into.whole.store(true, Ordering::Release);
        });
        lines
    }

    pub fn push(&self, line: String) {
        self.lines.lock().expect("lines").push(line);
    }

    pub fn all(&self) -> Vec<String> {
        self.lines.lock().expect("lines").clone()
    }

    /// Waits until nothing more comes; a child of the program may hold the pipe longer than it lives, so not for ever.
    fn until_whole(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.whole.load(Ordering::Acquire) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn text(&self) -> String {
        self.all().join("\n")
    }
}

/// A program that runs beside the test and is killed with it.
pub struct Running {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let (mut running, stdout) = Self::with_stdout(command, Stdio::piped());
        running.stdout = Lines::gather(stdout.expect("piped"));
        running
    }

    /// With its standard output where the test wants it; a pipe is the test's to read, or not.
    pub fn with_stdout(command: &mut Command, stdout: Stdio) -> (Self, Option<ChildStdout>) {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = child.stdout.take();
        let stderr = Lines::gather(child.stderr.take().expect("piped"));
        let running = Self {
            child,
            stdout: Lines::default(),
            stderr,
        };
        (running, stdout)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the pid is of a child that this value has not reaped.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    pub fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Waits for the end; a program that does not end in time fails the test with what it said.
    pub fn wait(&mut self, limit: Duration) -> std::process::ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "did not end in {limit:?}:\n{}",
                self.stderr.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that a program said that has ended: its standard error, then its standard output.
    pub fn whole_text(&self) -> String {
        self.stderr.until_whole();
        self.stdout.until_whole();
        format!("{}\n{}", self.stderr.text(), self.stdout.text())
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for a line on stderr that holds `word`.
    pub fn line(&mut self, word: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(line) = self
                .stderr
                .all()
                .into_iter()
                .find(|line| line.contains(word))
            {
                return line;
            }
            let ended = self.exited();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no line with {word:?} ({ended:?}):\n{}\n{}",
                self.stderr.text(),
                self.stdout.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The value of `key=` in a `ready …` line.
pub fn word(line: &str, key: &str) -> String {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key}= in {line:?}"))
        .to_owned()
}

/// Asks until the answer is there; fails the test with `what` when it never is.
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until every policy that the relay has is in force on its sensor.
pub fn in_force(feed: &str) {
    eventually(
        "the policies are in force",
        Duration::from_secs(150),
        || {
            let out = program("cresset")
                .args(["status", "-o", "json", "--relay", feed])
                .output()
                .ok()?;
            let status: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
            let sensor = status["sensors"].as_array()?.first()?;
            let applied = sensor["connected"] == true && sensor["rules_applied"] == true;
            (applied && sensor["rules"] == status["policies"]["digest"]).then_some(())
        },
    );
}

/// A port that was free a moment ago. Not one of those that connections take theirs from (`ip_local_port_range`): the
/// tests' own would take it while its server is being started again. Nor, for a hundred of them, one that a test program with
/// the next process id takes, which may run at the same time.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 200 * 100) as u16;
    let port = || 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..20_000).map(|_| port()).find(free).expect("a free port")
}

/// GET over plain HTTP/1.1: status and body.
pub fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default();
    Ok((status, body))
}
