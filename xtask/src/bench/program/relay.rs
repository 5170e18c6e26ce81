//! The program that is measured: a child process with a data folder and ports of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The relay has this long to start, to answer, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay that runs. Killed when dropped.
pub(crate) struct Relay {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) feed: SocketAddr,
    pub(crate) link: SocketAddr,
    http: SocketAddr,
    /// From its start until it said so itself at /readyz.
    pub(crate) ready_after: Duration,
    log: PathBuf,
}

impl Relay {
    /// Starts it with its data in `folder`; `more` goes into its settings, `limit` is the journal's bound in bytes.
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        limit: u64,
        more: &str,
    ) -> Result<Relay> {
        let config = folder.join("relay.yaml");
        fs::write(&config, settings(folder, limit, more))?;
        let log = folder.join("relay.log");
        let begun = Instant::now();
        let mut child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("the relay ended at once")?;
        let [feed, link, http] = addresses(&mut child, &log, begun).await?;
        let mut relay = Relay {
            child,
            pid,
            feed,
            link,
            http,
            ready_after: Duration::ZERO,
            log,
        };
        while !relay.get("/readyz").await?.0.contains("200") {
            if begun.elapsed() > PATIENCE {
                bail!("the relay is not ready; {}", relay.last_words());
            }
            sleep(Duration::from_millis(2)).await;
        }
        relay.ready_after = begun.elapsed();
        Ok(relay)
    }

    /// Status line and body of a page.
    async fn get(&self, path: &str) -> Result<(String, String)> {
        let ask = async {
            let mut stream = TcpStream::connect(self.http).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            std::io::Result::Ok(text)
        };
        let text = timeout(PATIENCE, ask)
            .await
            .with_context(|| format!("{path} was not answered"))??;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.lines().next().unwrap_or_default();
        Ok((status.to_owned(), body.to_owned()))
    }

    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        let (_, body) = self.get("/metrics").await?;
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(Metrics(values.collect()))
    }

    /// Tells it to stop and waits until it has; an exit code other than 0 is an error.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid as i32).context("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(()),
            Ok(status) => bail!("the relay ended with {:?}; {}", status?, self.last_words()),
            Err(_) => bail!(
                "the relay did not stop in {PATIENCE:?}; {}",
                self.last_words()
            ),
        }
    }

    fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

fn settings(folder: &Path, limit: u64, more: &str) -> String {
    let folder = folder.display();
    let none = if more.contains("policies:") {
        ""
    } else {
        "policies: {sources: []}\n"
    };
    format!(
        "cluster: bench\n\
         relay:\n  data_dir: {folder}/data\n  \
         listen: {{feed: \"127.0.0.1:0\", link: \"127.0.0.1:0\", http: \"127.0.0.1:0\", admin: \"unix:{folder}/admin.sock\"}}\n  \
         retention: {{max_size: {limit}}}\n\
         {none}{more}"
    )
}

/// The addresses in the line that says that the relay is ready.
async fn addresses(child: &mut Child, log: &Path, begun: Instant) -> Result<[SocketAddr; 3]> {
    loop {
        let text = fs::read_to_string(log)?;
        // The line is written in one go, and counts once its end is there.
        let ready = text
            .split_inclusive('\n')
            .find_map(|line| line.strip_prefix("ready ")?.strip_suffix('\n'));
        if let Some(ready) = ready {
            let address = |name: &str| {
                ready
                    .split(' ')
                    .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
                    .with_context(|| format!("no {name} address in `{ready}`"))
            };
            return Ok([address("feed")?, address("link")?, address("http")?]);
        }
        if child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
            bail!("the relay did not start; {}", last_words(log));
        }
        sleep(Duration::from_millis(1)).await;
    }
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    format!("its last words were:\n{}", last.join("\n"))
}

/// What /metrics said: lines by their name and labels.
pub(crate) struct Metrics(HashMap<String, f64>);

impl Metrics {
    /// One line, by its name and labels as they stand there; NaN if there is none.
    pub(crate) fn get(&self, line: &str) -> f64 {
        self.0.get(line).copied().unwrap_or(f64::NAN)
    }

    /// All lines of a name, whatever their labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let is_name = |line: &str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let of_name = self.0.iter().filter(|(line, _)| is_name(line));
        of_name.map(|(_, value)| value).sum()
    }

    /// A figure of one sink.
    pub(crate) fn sink(&self, figure: &str, sink: &str) -> f64 {
        let begin = format!("cresset_sink_{figure}{{sink=\"{sink}\",");
        let found = self.0.iter().find(|(line, _)| line.starts_with(&begin));
        found.map_or(f64::NAN, |(_, value)| *value)
    }
}
