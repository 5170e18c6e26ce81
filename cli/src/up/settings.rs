//! The settings of `cresset up`: the flags over the file, and what only `up` has as its default.

use std::net::SocketAddr;
use std::path::PathBuf;

use relay::{Address, Listen, PolicySource, PolicySourceKind};
use sensor_bpf::config::Contain;

use super::{ContainArg, UpArgs};
use crate::config::Both;
use crate::connect::Trouble;

/// The flags over the file, and what only `up` has as its default.
pub(super) fn settle(args: &UpArgs, both: &mut Both) -> Result<(), Trouble> {
    let Both { relay, sensor, .. } = both;
    if let Some(data) = &args.data {
        let data = std::path::absolute(data)
            .map_err(|why| Trouble::Usage(format!("--data {}: {why}", data.display())))?;
        relay.relay.listen.admin.address = Address::Unix(data.join("admin.sock"));
        sensor.sensor.control = format!("unix:{}", data.join("sensor.sock").display());
        relay.relay.data_dir = data;
    }
    if sensor.sensor.data_dir.is_none() || args.data.is_some() {
        sensor.sensor.data_dir = Some(relay.relay.data_dir.join("sensor"));
    }
    let listen = &mut relay.relay.listen;
    for (flag, given, listener) in [
        ("--listen-feed", args.listen_feed, &mut listen.feed),
        ("--listen-link", args.listen_link, &mut listen.link),
        ("--listen-http", args.listen_http, &mut listen.http),
    ] {
        if let Some(address) = given {
            local(flag, address, listener)?;
            listener.address = Address::Tcp(address);
        }
    }
    if let Some(contain) = args.contain {
        sensor.sensor.contain = match contain {
            ContainArg::Default => Contain::Default,
            ContainArg::All => Contain::All,
            ContainArg::None => Contain::None,
        };
    }
    policies(args, relay);
    if relay.sinks.is_empty() {
        relay.sinks = default_sinks();
    }
    Ok(())
}

/// A flag may not open a door that the file has to open in so many words.
fn local(flag: &str, address: SocketAddr, listener: &Listen) -> Result<(), Trouble> {
    if address.ip().is_loopback() || listener.insecure {
        return Ok(());
    }
    Err(Trouble::Usage(format!(
        "{flag} {address} is not a loopback address: everybody who reaches it could read; \
         write `{{address: {address}, insecure: true}}` in the configuration file if that is meant"
    )))
}

fn policies(args: &UpArgs, relay: &mut relay::Config) {
    let folder = match &args.policies {
        Some(folder) => folder.clone(),
        None if relay.policies.sources.is_empty() => default_policies(),
        None => return,
    };
    relay.policies.sources = vec![self::folder(folder)];
}

pub(super) fn folder(path: PathBuf) -> PolicySource {
    PolicySource {
        kind: PolicySourceKind::Folder,
        path: std::path::absolute(&path).unwrap_or(path),
        branch: None,
    }
}

/// /etc/cresset/policies as root, else in the XDG configuration folder.
fn default_policies() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/etc/cresset/policies");
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("/etc"))
        .join("cresset/policies")
}

/// Alerts on standard output, and metrics: what a person who starts it by hand wants to see.
fn default_sinks() -> std::collections::BTreeMap<String, exporters::SinkConfig> {
    let text = "{console: {type: stdout, format: text, filter: {kinds: [alert]}}, metrics: {type: prometheus}}";
    let (documents, _) = yaml::parse("defaults", text);
    let sinks = documents
        .first()
        .and_then(|node| node.read(yaml::Severity::Error, &mut Vec::new()));
    sinks.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_sinks_are_read() {
        assert_eq!(
            default_sinks().keys().collect::<Vec<_>>(),
            ["console", "metrics"]
        );
    }
}
