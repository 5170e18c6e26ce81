//! `cresset support-bundle`: what a report of a problem needs, in one file that may be handed on.
//!
//! ```text
//! cresset-support-TIME/about.txt      versions, kernel, what is missing and why
//!                      settings.json  as they are in force, secrets and addresses' credentials taken out
//!                      status.json    `cresset status -o json`
//!                      metrics.txt    one scrape
//!                      log.txt        the relay's latest lines
//!                      journal.txt    `cresset journal inspect`
//! ```
//! Nothing secret goes in: secrets are not in the settings but in files and variables that they name, and what those hold is
//! looked for in everything that is written ([`redact`]). No event goes in either. What cannot be had is said in `about.txt`;
//! a relay that does not answer is no reason to write nothing.

mod redact;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use proto::operate::{LogsRequest, SettingsRequest};
use proto::query::{StatusReply, StatusRequest};
use serde_json::Value;

use self::redact::Secrets;
use crate::connect::{AdminArgs, Relay, Trouble, say};
use crate::{journal, status};

/// How long a scrape may take.
const SCRAPE: Duration = Duration::from_secs(10);

/// Which relay, and where to
#[derive(Args, Clone, Debug)]
pub(crate) struct BundleArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// The relay's configuration file, for a relay that does not answer
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to [default: cresset-support-TIME.tar.gz here]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `cresset support-bundle`.
///
/// # Errors
/// The file cannot be written.
pub(crate) async fn bundle(args: BundleArgs) -> Result<ExitCode, Trouble> {
    let mut bundle = Bundle::default();
    let relay = match args.admin.connect().await {
        Ok(relay) => Some(relay),
        Err(trouble) => {
            bundle.lacks("the relay", trouble);
            None
        }
    };
    let settings = settings(relay.as_ref(), args.config.as_deref(), &mut bundle).await;
    if let Some(relay) = &relay {
        from_relay(relay, &mut bundle).await;
    }
    let data = settings
        .as_ref()
        .and_then(|settings| settings["relay"]["data_dir"].as_str());
    match data {
        Some(data) => match journal::inspected(Path::new(data)) {
            Ok(text) => bundle.add("journal.txt", text),
            Err(why) => bundle.lacks("the journal", why),
        },
        None => bundle.lacks(
            "the journal",
            "where it is stands in the settings, which are missing",
        ),
    }
    let mut secrets = Secrets::default();
    if let Some(mut settings) = settings {
        secrets = Secrets::of(&mut settings);
        bundle.add("settings.json", format!("{settings:#}\n"));
    }
    let name = format!(
        "cresset-support-{}",
        jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")
    );
    let file = args
        .output
        .unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let missing = bundle.missing.len();
    bundle
        .write(&file, &name, &secrets)
        .map_err(|error| Trouble::Local(format!("cannot write {}: {error}", file.display())))?;
    let lacks = match missing {
        0 => String::new(),
        missing => format!("; {missing} parts are missing, about.txt in it says why"),
    };
    say(&format!(
        "{} is written, without secrets and without events{lacks}; look into it before you hand it on\n",
        file.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The settings in force; of a relay that does not answer, those of its file.
async fn settings(
    relay: Option<&Relay>,
    file: Option<&Path>,
    bundle: &mut Bundle,
) -> Option<Value> {
    if let Some(relay) = relay {
        match relay.operate().settings(SettingsRequest {}).await {
            Ok(reply) => return serde_json::from_str(&reply.into_inner().json).ok(),
            Err(status) => bundle.lacks("the settings in force", relay.trouble(status)),
        }
    }
    let Some(file) = file else {
        bundle.lacks(
            "the settings",
            "no relay answers; name its file with --config FILE",
        );
        return None;
    };
    match crate::config::load(Some(file)) {
        Ok(both) => serde_json::to_value(&both.relay).ok(),
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            bundle.lacks("the settings", problems.join("\n"));
            None
        }
    }
}

async fn from_relay(relay: &Relay, bundle: &mut Bundle) {
    match relay.query().status(StatusRequest {}).await {
        Ok(reply) => {
            let reply = reply.into_inner();
            match metrics(&reply).await {
                Ok(page) => bundle.add("metrics.txt", page),
                Err(why) => bundle.lacks("the metrics", why),
            }
            bundle.add("status.json", format!("{:#}\n", status::json(&reply)));
        }
        Err(status) => bundle.lacks("the status", relay.trouble(status)),
    }
    match relay.operate().logs(LogsRequest {}).await {
        Ok(reply) => bundle.add("log.txt", reply.into_inner().text),
        Err(status) => bundle.lacks("the log", relay.trouble(status)),
    }
}

/// One scrape of the relay's own page.
async fn metrics(reply: &StatusReply) -> Result<String, String> {
    let address = reply
        .relay
        .as_ref()
        .and_then(|relay| relay.listeners.get("http"));
    let address = address.cloned().ok_or("the relay says no address")?;
    let scraped = tokio::task::spawn_blocking(move || scrape(&address));
    scraped
        .await
        .map_err(|died| died.to_string())?
        .map_err(|error| error.to_string())
}

fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SCRAPE))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    Ok(body.unwrap_or(answer))
}

/// What has been gathered.
#[derive(Default)]
struct Bundle {
    files: Vec<(&'static str, String)>,
    missing: Vec<String>,
}

impl Bundle {
    fn add(&mut self, name: &'static str, text: String) {
        self.files.push((name, text));
    }

    fn lacks(&mut self, what: &str, why: impl ToString) {
        self.missing.push(format!("{what}: {}", why.to_string()));
    }

    /// Writes everything into one file that only this user may read, with what is secret taken out once more.
    fn write(mut self, file: &Path, name: &str, secrets: &Secrets) -> std::io::Result<()> {
        let about = about(&self.missing);
        self.files.insert(0, ("about.txt", about));
        let out = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(file)?;
        let mut tar = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        for (part, text) in &self.files {
            let text = secrets.without(&plain(text));
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            tar.append_data(&mut header, format!("{name}/{part}"), text.as_bytes())?;
        }
        tar.into_inner()?.finish()?.sync_all()
    }
}

/// Without the colours of a terminal.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out += before;
        rest = after
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or("", |end| &after[end + 1..]);
    }
    out + rest
}

fn about(missing: &[String]) -> String {
    let system = rustix::system::uname();
    let shown = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let mut text = format!(
        "cresset {}\nkernel {} {} {}\nwritten {}\n",
        env!("CARGO_PKG_VERSION"),
        shown(system.sysname()),
        shown(system.release()),
        shown(system.machine()),
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    );
    if let Ok(release) = std::fs::read_to_string("/etc/os-release") {
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        text += &format!("system {}\n", name.unwrap_or("unknown").trim_matches('"'));
    }
    for part in missing {
        text += &format!("missing: {part}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(plain("a \u{1b}[32mINFO\u{1b}[0m b"), "a INFO b");
        assert_eq!(plain("no end \u{1b}[3"), "no end ");
    }
}
