//! The real servers of the tests: `exporters/tests/servers/NAME/start.sh`.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// One of them; it ends with this value, because its script watches its standard input.
pub(crate) struct Real {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) address: String,
}

impl Real {
    /// Starts one in an empty folder and waits until it answers.
    pub(crate) fn start(name: &str, folder: &Path) -> Result<Real> {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../exporters/tests/servers")
            .join(name)
            .join("start.sh");
        let port = free_port()?;
        let mut child = Command::new(&script)
            .arg(folder)
            .arg(port.to_string())
            .env("STOP_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| script.display().to_string())?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let real = Real {
            child,
            stdin,
            address: format!("127.0.0.1:{port}"),
        };
        match lines.any(|line| line == "ready") {
            true => Ok(real),
            false => bail!("{name} does not start; see {}", folder.display()),
        }
    }
}

/// One with a free neighbour, for Kafka's controller.
fn free_port() -> Result<u16> {
    for port in (21_000..29_000).step_by(211) {
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 1) && free(port + 100) {
            return Ok(port);
        }
    }
    bail!("there is no free port")
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
