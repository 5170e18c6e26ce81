//! The real program `cresset-relay` in a folder of its own: started, asked, stopped and killed.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::operate::operate_client::OperateClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::books::Page;
use super::{Running, eventually, get, program, word};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A data folder and settings, for many lives of the program.
pub struct Place {
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    /// `relay` stands in the settings' `relay` section, `sinks` is that section; DIR in them is this folder.
    pub fn new(relay: &str, sinks: &str) -> Place {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut place = Place::at(temporary.path(), relay, sinks);
        place._temporary = Some(temporary);
        place
    }

    /// The same in a folder that stays.
    pub fn at(dir: &Path, relay: &str, sinks: &str) -> Place {
        let settings = format!(
            "version: 1
cluster: test
relay:
  data_dir: DIR/data
  listen: {{feed: \"127.0.0.1:0\", link: \"127.0.0.1:0\", http: \"127.0.0.1:0\", admin: \"unix:DIR/admin.sock\"}}
  {relay}
sinks: {{{sinks}}}
policies: {{sources: []}}
"
        );
        let settings = settings.replace("DIR", &dir.display().to_string());
        std::fs::write(dir.join("relay.yaml"), settings).expect("settings");
        Place {
            dir: dir.to_owned(),
            _temporary: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The relay's own service behind its admin socket.
    pub async fn operate(&self) -> OperateClient<Channel> {
        let path = self.path("admin.sock");
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let endpoint = Endpoint::from_static("http://relay");
        let channel = endpoint.connect_with_connector(connect).await;
        OperateClient::new(channel.expect("connected"))
    }

    /// Begins a life; it is not ready yet.
    pub fn spawn(&self, stdout: Stdio) -> (Running, Option<ChildStdout>) {
        let mut command = program("cresset-relay");
        command.arg("--config").arg(self.path("relay.yaml"));
        Running::with_stdout(&mut command, stdout)
    }

    /// Begins a life and waits until it is ready.
    pub fn start(&self) -> Relay {
        Relay::ready(self.spawn(Stdio::null()).0)
    }
}

/// One life of the program.
pub struct Relay {
    pub running: Running,
    pub feed: String,
    pub link: SocketAddr,
    pub http: String,
}

impl Relay {
    /// Waits until it says where it listens.
    pub fn ready(mut running: Running) -> Relay {
        let ready = running.line("ready feed=", START);
        Relay {
            feed: word(&ready, "feed"),
            link: word(&ready, "link").parse().expect("an address"),
            http: word(&ready, "http"),
            running,
        }
    }

    /// All figures of this moment, which have to balance.
    pub fn page(&self) -> Page {
        let (_, text) = get(&self.http, "/metrics").expect("metrics");
        let page = Page::read(&text);
        assert_eq!(page.check(), Ok(()));
        page
    }

    /// Asks until the figures fit.
    pub fn page_when(&self, what: &str, fits: impl Fn(&Page) -> bool) -> Page {
        eventually(what, Duration::from_secs(120), || {
            Some(self.page()).filter(|page| fits(page))
        })
    }

    /// Status and body of /readyz.
    pub fn readiness(&self) -> (u16, String) {
        get(&self.http, "/readyz").expect("an answer")
    }

    /// What it logged, line by line, that holds `words`.
    pub fn logged(&self, words: &str) -> Vec<String> {
        let lines = self.running.stderr.all().into_iter();
        lines.filter(|line| line.contains(words)).collect()
    }

    /// Looks whether the accounts add up, then SIGTERM and the end, which has to be a good one.
    pub fn stop(mut self) {
        self.page();
        self.running.signal(libc::SIGTERM);
        let ended = self.running.wait(START);
        assert_eq!(ended.code(), Some(0), "{}", self.running.stderr.text());
    }
}
