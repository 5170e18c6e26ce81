//! `cresset up --demo`: a small workload that does something allowed, something audited and something blocked, and
//! then says what to type next. It is started as anybody would start it, by `cresset run`.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::link::EventKind;
use proto::query::{Filter, StatusRequest, WatchRequest};
use tokio::process::Command;

use crate::connect::{Relay, Trouble};
use crate::up::tell;

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
    let since = SystemTime::now();
    if let Err(error) = workload(&place).await {
        tell(&format!("demo: the sample workload could not run: {error}"));
    }
    // The last alert is on its way: kernel, spool, relay, disk, terminal.
    let _ = tokio::time::timeout(TOLD_WITHIN, told(&place, since)).await;
    let this = program();
    let socket = place.data.join("sensor.sock");
    tell("");
    tell("Next, in a second terminal; Ctrl-C here ends it all:");
    tell(&format!(
        "  {this} run --sensor {} -n demo -l app=demo -- bash    # a shell under the same policies",
        socket.display()
    ));
    tell(&format!(
        "  {this} logs --relay {} --since 10m    # what happened; -f stays, --json for programs",
        place.feed
    ));
    tell(&format!(
        "  {this} status --relay {}    # tier, policies, sinks, losses; metrics at http://{}/metrics",
        place.feed, place.http
    ));
}

/// How long the last alert may take to the terminal; under other policies than the demo's there may be none.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Waits until the relay has the alert of the last step, and every sink has what the relay has.
async fn told(place: &Place, since: SystemTime) -> Result<(), Trouble> {
    let relay = Relay::connect(&place.feed.to_string()).await?;
    let mut query = relay.query();
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let request = WatchRequest {
        filter: Some(Filter {
            kinds: vec![EventKind::Alert.into()],
            namespace: "^demo$".to_owned(),
            action: "Block".to_owned(),
            ..Filter::default()
        }),
        since_ns: i64::try_from(since.as_nanos()).unwrap_or(0),
        limit: 1,
        follow: true,
        ..WatchRequest::default()
    };
    let trouble = |status| relay.trouble(status);
    let mut alerts = query.watch(request).await.map_err(trouble)?.into_inner();
    while alerts.message().await.map_err(trouble)?.is_some() {}
    loop {
        let status = query.status(StatusRequest {}).await.map_err(trouble)?;
        if status
            .into_inner()
            .sinks
            .iter()
            .all(|sink| sink.pending == 0)
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn workload(place: &Place) -> io::Result<()> {
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

/// The policies of the demo, for those who name none: a folder that goes with this value.
pub(crate) struct Policies(PathBuf);

impl Policies {
    /// Writes them where only this user can read or change them.
    pub(crate) fn write() -> io::Result<Policies> {
        let name = format!("cresset-demo-{}", proto::StreamId::random());
        let folder = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let policies = Policies(folder);
        for (name, text) in EXAMPLES {
            std::fs::write(policies.0.join(name), text)?;
        }
        Ok(policies)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        // In a folder for temporary files, so what cannot be removed now is removed by whoever cleans there.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const EXAMPLES: [(&str, &str); 3] = [
    (
        "demo-audit-id.yaml",
        include_str!("../../examples/policies/demo-audit-id.yaml"),
    ),
    (
        "demo-audit-shadow.yaml",
        include_str!("../../examples/policies/demo-audit-shadow.yaml"),
    ),
    (
        "demo-block-sleep.yaml",
        include_str!("../../examples/policies/demo-block-sleep.yaml"),
    ),
];
