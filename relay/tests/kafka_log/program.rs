//! A relay as a process of its own: this test program started again, which can be killed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay::{App, LogKind};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::settings;

const TEST: &str = "program::a_relay_for_others";

/// A relay, running or not.
pub(crate) struct Program {
    folder: tempfile::TempDir,
    brokers: String,
    sinks: String,
    child: Option<Child>,
    /// Where sensors connect; none while it is down.
    pub(crate) link: Arc<Mutex<Option<SocketAddr>>>,
    http: Option<SocketAddr>,
    feed: Option<SocketAddr>,
}

impl Program {
    pub(crate) fn new(brokers: &str, sinks: &str) -> Program {
        let mut program = Program {
            folder: tempfile::tempdir().unwrap(),
            brokers: brokers.to_owned(),
            sinks: sinks.to_owned(),
            child: None,
            link: Arc::default(),
            http: None,
            feed: None,
        };
        program.start();
        program
    }

    pub(crate) fn start(&mut self) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture"])
            .env("FOLDER", self.folder.path())
            .env("BROKERS", &self.brokers)
            .env("SINKS", &self.sinks)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("UP ").map(str::to_owned))
            .expect("the relay starts");
        // Nobody else reads what the child says.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let mut addresses = addresses.split(' ').map(|word| word.parse().unwrap());
        *self.link.lock().unwrap() = addresses.next();
        self.http = addresses.next();
        self.feed = addresses.next();
        self.child = Some(child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        *self.link.lock().unwrap() = None;
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP: it says nothing, and its connections stay.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Where readers connect.
    pub(crate) fn feed(&self) -> SocketAddr {
        self.feed.unwrap()
    }

    /// Clients of brokers that it has: each has one thread of this name. What such a thread starts has its name for a moment,
    /// so it has to have it twice.
    pub(crate) fn clients(&self) -> usize {
        let first = self.threads("rdk:main");
        std::thread::sleep(Duration::from_millis(5));
        self.threads("rdk:main").intersection(&first).count()
    }

    fn threads(&self, name: &str) -> BTreeSet<OsString> {
        let pid = self.child.as_ref().expect("it runs").id();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let named = |task: std::io::Result<std::fs::DirEntry>| {
            let task = task.ok()?;
            let has = std::fs::read_to_string(task.path().join("comm")).ok()?;
            (has.trim() == name).then(|| task.file_name())
        };
        tasks.filter_map(named).collect()
    }

    /// Its page of figures.
    pub(crate) async fn metrics(&self) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/metrics", self.http.unwrap());
        client.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// One figure, by its name and labels; 0 if it is not there.
    pub(crate) async fn figure(&self, line: &str) -> f64 {
        let page = self.metrics().await;
        let value = page
            .lines()
            .find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Nothing by itself: what [`Program`] runs.
#[test]
fn a_relay_for_others() {
    let (Ok(folder), Ok(brokers), Ok(sinks)) = (
        std::env::var("FOLDER"),
        std::env::var("BROKERS"),
        std::env::var("SINKS"),
    ) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = settings(Path::new(&folder), &sinks);
        config.relay.log.kind = LogKind::Kafka;
        config.relay.log.brokers = vec![brokers];
        config.relay.log.partitions = Some(6);
        let app = App::build(config).await.unwrap();
        let at = app.addresses();
        let (link, http, feed) = (at.link, at.http, at.feed);
        // One write a line, so that what was printed is whole.
        std::io::stdout()
            .write_all(format!("\nUP {link} {http} {feed}\n").as_bytes())
            .unwrap();
        app.run(std::future::pending()).await.unwrap();
    });
}
