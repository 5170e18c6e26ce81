//! `cresset up --demo`: a small workload that does something allowed, something audited and something blocked, and
//! then says what to type next. It is started as anybody would start it, by `cresset run`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Where this node is.
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    pub(crate) feed: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// Each step tells what it tries before it does; the policies of `examples/policies` decide what comes of it.
const WORKLOAD: &str = r#"
say() { echo "demo: $*" >&2; }
say "ls: allowed"; /bin/ls / >/dev/null
say "id: audited, it runs and is told"; /usr/bin/id >/dev/null
say "cat /etc/shadow: audited"; /bin/cat /etc/shadow >/dev/null
say "sleep 5: blocked"; /bin/sleep 5; say "sleep ended with status $?"
"#;

/// Runs the sample workload, then prints the three lines.
pub(crate) async fn run(place: Place) {
    if let Err(error) = workload(&place).await {
        eprintln!("demo: the sample workload could not run: {error}");
    }
    // The last alert is on its way: kernel, spool, relay, disk, terminal.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let this = program();
    let socket = place.data.join("sensor.sock");
    eprintln!();
    eprintln!("Next, in a second terminal; Ctrl-C here ends it all:");
    eprintln!(
        "  {this} run --sensor {} -n demo -l app=demo -- bash    # a shell under the same policies",
        socket.display()
    );
    eprintln!(
        "  {this} logs --relay {} --since 10m    # what happened; -f stays, --json for programs",
        place.feed
    );
    eprintln!(
        "  {this} status --relay {}    # tier, policies, sinks, losses; metrics at http://{}/metrics",
        place.feed, place.http
    );
}

async fn workload(place: &Place) -> std::io::Result<()> {
    Command::new(std::env::current_exe()?)
        .arg("run")
        .arg("--sensor")
        .arg(place.data.join("sensor.sock"))
        .args([
            "-n", "demo", "--name", "demo", "-l", "app=demo", "--", "sh", "-c", WORKLOAD,
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await?;
    Ok(())
}

/// How a recorded stream gets into the relay of this data folder.
pub(crate) fn import_hint(data: &Path) -> String {
    format!(
        "{} import --data {} examples/events.jsonl",
        program(),
        data.display()
    )
}

/// This program as it was called.
fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "cresset".to_owned())
}
