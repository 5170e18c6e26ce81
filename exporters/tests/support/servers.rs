//! Real servers for tests: `servers/NAME/start.sh DATA_DIR PORT …` prints `ready` when the server answers and stops on SIGTERM.
//!
//! A server ends with the test that started it: by its pid when the guard is dropped, and when the test itself is killed,
//! because the script also watches the standard input that the test holds. What a machine lacks makes the suite SKIPPED,
//! told through the ledger that `cargo xtask test` reads.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Long enough for a first download and a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(300);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// How a script says that what it needs cannot be downloaded.
const NO_DOWNLOAD: i32 = 3;

/// Says that a suite does not run, and why; counted by `cargo xtask test`.
pub fn skip(need: &str, suite: &str, reason: &str) {
    println!("SKIPPED {suite}: {reason}");
    let Some(path) = std::env::var_os("CRESSET_SKIPS") else {
        return;
    };
    if let Ok(mut file) = fs::OpenOptions::new().append(true).open(path) {
        let _ = writeln!(file, "{need}\t{suite}\t{reason}");
    }
}

/// Whether a server that runs on Java can be had here; if not, the suite is counted as skipped.
pub fn has_java(suite: &str) -> bool {
    if std::env::var_os("CRESSET_QUICK").is_some() {
        skip("full", suite, "make test-quick leaves out real servers");
        return false;
    }
    for (program, package) in [
        ("java", "default-jdk-headless"),
        ("javac", "default-jdk-headless"),
        ("mvn", "maven"),
    ] {
        if !on_path(program) {
            skip(
                "java",
                suite,
                &format!("there is no {program}; install {package}"),
            );
            return false;
        }
    }
    true
}

/// Whether a program stands on `PATH`.
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Ports that nobody listens on: `count` of them side by side, below those that the kernel gives to clients.
pub fn free_ports(count: u16) -> u16 {
    let start = RandomState::new().build_hasher().finish();
    (0..1000)
        .map(|n| 10_000 + ((start.wrapping_add(n * 37)) % 20_000) as u16)
        .find(|&first| {
            let held: Vec<_> = (first..first + count)
                .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
                .collect();
            held.iter().all(Result::is_ok)
        })
        .expect("no free ports")
}

/// One server process. Dropping it ends it.
pub struct Server {
    child: Child,
}

/// A server that did not start.
pub enum Failed {
    /// What it consists of cannot be downloaded.
    NoDownload,
    /// It ended; its last words.
    Ended(String),
}

impl Server {
    /// Runs `servers/NAME/start.sh` with these arguments and waits until it is ready. `data` is where it may keep things;
    /// what it says on standard error is in the file `DATA.err` beside it.
    pub fn start<'a>(
        name: &str,
        data: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        environment: &[(&str, &str)],
    ) -> Result<Server, Failed> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap()
            .join("exporters/tests/servers")
            .join(name)
            .join("start.sh");
        let said = data.with_extension("err");
        let mut child = Command::new(&script)
            .arg(data)
            .args(arguments)
            .envs(environment.iter().copied())
            .env("STOP_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&said).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", script.display()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // The pipe ends with the server.
            let _ = tell.send(lines.map_while(Result::ok).any(|line| line == "ready"));
        });
        let mut server = Server { child };
        match told.recv_timeout(STARTS_WITHIN) {
            Ok(true) => Ok(server),
            Ok(false) => Err(match server.wait() {
                Some(NO_DOWNLOAD) => Failed::NoDownload,
                _ => Failed::Ended(last_words(data, &said)),
            }),
            Err(_) => panic!("{name} is not ready: {}", last_words(data, &said)),
        }
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Ends it where it stands.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = Pid::from_child(&self.child);
            let _ = kill_process(pid, signal);
            let deadline = Instant::now() + STOPS_WITHIN;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
        }
        self.wait();
    }

    fn wait(&mut self) -> Option<i32> {
        // The input must stay open meanwhile: its end is another way to tell the server to stop.
        let input = self.child.stdin.take();
        let ended = self.child.wait().ok()?;
        drop(input);
        ended.code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

fn last_words(data: &Path, said: &Path) -> String {
    let mut words = String::new();
    for path in [said.to_owned(), data.join("server.log")] {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(20)) {
            words.push('\n');
            words.push_str(line);
        }
    }
    words
}

/// A real Kafka broker, alone in its cluster: KRaft, topics made on demand with three partitions.
pub struct Kafka {
    server: Option<Server>,
    port: u16,
    folder: TempDir,
    properties: Option<PathBuf>,
}

impl Kafka {
    /// Starts one for this test, or says why it cannot be had.
    pub fn start(suite: &str) -> Option<Kafka> {
        Self::with(suite, |_| String::new())
    }

    /// The same with further lines of server.properties, which may use the ports PORT, PORT + 2 and PORT + 3.
    pub fn with(suite: &str, properties: impl Fn(u16) -> String) -> Option<Kafka> {
        if !has_java(suite) {
            return None;
        }
        for _ in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_ports(4);
            let file = folder.path().join("more.properties");
            fs::write(&file, properties(port)).unwrap();
            let mut kafka = Kafka {
                server: None,
                port,
                folder,
                properties: Some(file),
            };
            match kafka.run() {
                Ok(()) => return Some(kafka),
                Err(Failed::NoDownload) => {
                    skip("network", suite, "the broker's jars cannot be downloaded");
                    return None;
                }
                // Somebody else took the port meanwhile.
                Err(Failed::Ended(words)) if words.contains("Address already in use") => {}
                Err(Failed::Ended(words)) => panic!("the broker ended: {words}"),
            }
        }
        panic!("no port stayed free long enough for a broker");
    }

    /// One broker for all tests of a program that run at the same time: each uses topics of its own.
    pub fn shared(suite: &str) -> Option<Arc<Kafka>> {
        static SHARED: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kafka) = shared.upgrade() {
            return Some(kafka);
        }
        let kafka = Arc::new(Kafka::start(suite)?);
        *shared = Arc::downgrade(&kafka);
        Some(kafka)
    }

    fn run(&mut self) -> Result<(), Failed> {
        let port = self.port.to_string();
        let more = self.properties.iter().filter_map(|path| path.to_str());
        let arguments = std::iter::once(port.as_str()).chain(more);
        let data = self.folder.path().join("data");
        self.server = Some(Server::start("kafka", &data, arguments, &[])?);
        Ok(())
    }

    /// HOST:PORT for clients.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port for clients without encryption; PORT + 2 and PORT + 3 are free for other listeners.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A folder that goes with the broker.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the broker in order; its data stay.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Ends the broker where it stands; its data stay.
    pub fn kill(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
        }
        self.server = None;
    }

    /// Starts it again on the same port with the same data.
    pub fn restart(&mut self) {
        if let Err(Failed::Ended(words)) = self.run() {
            panic!("the broker did not start again: {words}");
        }
    }
}
