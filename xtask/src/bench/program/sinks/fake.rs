//! Destinations that say yes to everything as fast as they can, each in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::{link, web};
use crate::args::FakeKind;

/// One of them; it ends with this value.
pub(crate) struct Fake {
    child: Child,
    pub(crate) address: String,
}

impl Fake {
    pub(crate) fn start(kind: FakeKind) -> Result<Fake> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["fake", &kind.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the fake does not start")?;
        let stdout = child.stdout.take().context("the fake has no output")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        let address = address.trim().to_owned();
        Ok(Fake { child, address })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends.
pub(crate) fn be_fake(kind: FakeKind) -> Result<()> {
    match kind {
        FakeKind::Kafka => return be_kafka(),
        FakeKind::Link | FakeKind::Logs => return link::be(kind),
        FakeKind::Bulk | FakeKind::Web | FakeKind::Drain => {}
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || match kind {
                FakeKind::Bulk => web::serve(stream, web::bulk),
                FakeKind::Drain => web::drain(stream),
                _ => web::serve(stream, |_, _| Ok(String::new())),
            });
        }
    });
    wait()
}

/// For the end of standard input.
pub(super) fn wait() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// librdkafka's own broker for tests, which keeps what comes in memory up to a bound.
fn be_kafka() -> Result<()> {
    let cluster = rdkafka::mocking::MockCluster::new(1)?;
    for topic in [
        "kubearmor-alerts",
        "kubearmor-syslogs",
        "kubearmor-messages",
    ] {
        cluster.create_topic(topic, 4, 1)?;
    }
    println!("{}", cluster.bootstrap_servers());
    wait()
}
