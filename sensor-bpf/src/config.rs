//! The sensor's settings: the `sensor` section of the one configuration file.
//!
//! Types read what was written; [`SensorConfig::check`] finds everything that serde cannot see and names
//! the key, so that the caller can add file and line. Nothing after it checks again.
//!
//! ```text
//! file ─▶ yaml tree ─▶ Config (defaults filled) ─▶ check() ─▶ Sensor::build
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the sensor needs of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster, in every event as `ClusterName`.
    pub cluster: String,
    /// The `sensor` section.
    pub sensor: SensorConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            sensor: SensorConfig::default(),
        }
    }
}

/// The `sensor` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SensorConfig {
    /// Relays, tried in turn: `https://HOST:PORT`, or `http://` for a loopback address.
    pub relay: Vec<String>,
    /// Files for mutual TLS with the relay.
    pub tls: Option<TlsConfig>,
    /// In place of `tls`: a file with a token of `cresset token create`. With it the sensor joins the relay's own authority
    /// and gets its certificate, once; it renews that by itself, and the file is not needed any more. A new token there
    /// makes it join anew.
    pub join_token_file: Option<PathBuf>,
    /// Unix socket where workloads are registered: `unix:PATH` or `PATH`. It is made with mode 0600.
    pub control: String,
    /// Name of this node in every event (`HostName`). Default: the host name.
    pub node: Option<String>,
    /// Labels of this node, told to the relay.
    pub labels: BTreeMap<String, String>,
    /// Where the sensor keeps its identity, its last accepted rules and its spool.
    /// Default: /var/lib/cresset as root, else the user's XDG data folder.
    pub data_dir: Option<PathBuf>,
    /// File with the sensor's identity, made at first start. Default: `sensor-id` in the data folder.
    pub id_file: Option<PathBuf>,
    /// Events that the relay has not acknowledged yet.
    pub spool: SpoolConfig,
    /// What is told besides alerts.
    pub visibility: Visibility,
    /// What a kernel without LSM hooks may do about a Block rule.
    pub contain: Contain,
    /// Time from a workload's registration after which nothing is enforced on it any more: for trials on machines that
    /// matter. Default: as long as it lives.
    pub enforce_for: Option<yaml::Span>,
    /// Replacements made in arguments before an event is written anywhere.
    pub redact: Vec<Redaction>,
    /// Limit on alerts.
    pub throttle: Throttle,
}

impl Default for SensorConfig {
    fn default() -> Self {
        Self {
            relay: vec!["http://127.0.0.1:9481".to_owned()],
            tls: None,
            join_token_file: None,
            control: "unix:/run/cresset/sensor.sock".to_owned(),
            node: None,
            labels: BTreeMap::new(),
            data_dir: None,
            id_file: None,
            spool: SpoolConfig::default(),
            visibility: Visibility::default(),
            contain: Contain::default(),
            enforce_for: None,
            redact: Vec::new(),
            throttle: Throttle::default(),
        }
    }
}

/// PEM files for the connection to the relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// This sensor's certificate chain.
    pub cert_file: PathBuf,
    /// The key of that certificate.
    pub key_file: PathBuf,
    /// The authorities that may sign the relay's certificate.
    pub ca_file: PathBuf,
}

/// Bounds of the spool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Folder. Default: `spool` in the data folder.
    pub dir: Option<PathBuf>,
    /// Disk for all streams together: a quarter is for alerts, the rest for telemetry. The oldest go first, counted.
    pub max_size: yaml::Size,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            dir: None,
            max_size: yaml::Size(1 << 30),
        }
    }
}

/// A class of operations that visibility turns on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum VisibilityClass {
    /// exec
    Process,
    /// open, unlink, rename
    File,
    /// socket, connect, bind, listen, accept
    Network,
    /// setuid, setgid, mount, umount
    Capabilities,
}

/// Which operations become Logs. Alerts do not depend on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Visibility {
    /// Of labelled workloads.
    pub workloads: BTreeSet<VisibilityClass>,
    /// Of the host's own tasks: of every task that is in no workload, but of the sensor's own process (and with `cresset
    /// up` the relay, which is the same process), whose telling would make more to tell. They become `HostLog`s; no rule
    /// judges them. All but `process` add work to every system call of the machine. Default: none.
    pub host: BTreeSet<VisibilityClass>,
}

impl Default for Visibility {
    fn default() -> Self {
        use VisibilityClass::{Capabilities, File, Network, Process};
        Self {
            workloads: BTreeSet::from([Process, File, Network, Capabilities]),
            host: BTreeSet::new(),
        }
    }
}

/// What tier 3 does about Block rules; the LSM tiers deny and need none of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Contain {
    /// A forbidden exec is killed before its first instruction, forbidden IP sockets are denied.
    #[default]
    Default,
    /// Also kill after a forbidden file operation, which by then has happened.
    All,
    /// Only tell.
    None,
}

/// The part of an event that a redaction looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedactField {
    /// Command lines: `Source`, `Resource` of exec, `Args`.
    Arguments,
}

/// One replacement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// Where to look.
    pub field: RedactField,
    /// Regular expression (syntax of the Rust `regex` crate).
    #[serde(rename = "match")]
    pub pattern: String,
    /// What stands in its place; `$1` is the first group.
    #[serde(default = "stars")]
    pub replace: String,
}

fn stars() -> String {
    "***".to_owned()
}

/// Limit on alerts, per workload and policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Throttle {
    /// Alerts a second of one workload and policy; more are counted, told by an `AlertThreshold` notice and left out.
    /// 0: no limit.
    pub alerts_per_second: u32,
}

/// A key whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigProblem {
    /// Where in the document: `sensor.redact[0].match`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Config {
    /// All problems that the types let through.
    pub fn check(&self) -> Vec<ConfigProblem> {
        self.sensor.check()
    }
}

impl SensorConfig {
    /// All problems that the types let through; paths begin with `sensor.`.
    pub fn check(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut say =
            |path: String, message: String| problems.push(ConfigProblem { path, message });
        for (index, relay) in self.relay.iter().enumerate() {
            if let Err(why) = crate::address::Relay::parse(relay, self.has_certificates()) {
                say(format!("sensor.relay[{index}]"), why.to_string());
            }
        }
        if self.tls.is_some() && self.join_token_file.is_some() {
            say(
                "sensor.join_token_file".to_owned(),
                "stands beside sensor.tls; give certificates or a token to get one, not both"
                    .to_owned(),
            );
        }
        for (index, redaction) in self.redact.iter().enumerate() {
            if let Err(why) = regex::Regex::new(&redaction.pattern) {
                say(
                    format!("sensor.redact[{index}].match"),
                    last_line(&why.to_string()),
                );
            }
        }
        if self.spool.max_size.0 < MIN_SPOOL {
            say(
                "sensor.spool.max_size".to_owned(),
                "less than 16MiB; give it more".to_owned(),
            );
        }
        if !self.control_path().is_absolute() {
            say(
                "sensor.control".to_owned(),
                "not an absolute path; write unix:/DIR/NAME".to_owned(),
            );
        }
        problems
    }

    /// Has it certificates for encrypted connections, or will it have?
    pub fn has_certificates(&self) -> bool {
        self.tls.is_some() || self.join_token_file.is_some()
    }

    /// The control socket's path.
    pub fn control_path(&self) -> &Path {
        Path::new(self.control.strip_prefix("unix:").unwrap_or(&self.control))
    }

    /// The data folder.
    pub fn data_path(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(default_data_dir)
    }

    /// The spool's folder.
    pub fn spool_path(&self) -> PathBuf {
        self.spool
            .dir
            .clone()
            .unwrap_or_else(|| self.data_path().join("spool"))
    }

    /// The file of the sensor's identity.
    pub fn id_path(&self) -> PathBuf {
        self.id_file
            .clone()
            .unwrap_or_else(|| self.data_path().join("sensor-id"))
    }
}

/// Below this a spool would be all segment heads.
const MIN_SPOOL: u64 = 16 << 20;

/// A regex error draws the pattern over several lines; its last one says what is wrong.
fn last_line(text: &str) -> String {
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or(text);
    last.trim().trim_start_matches("error: ").to_owned()
}

/// /var/lib/cresset as root, else `$XDG_DATA_HOME/cresset` or `~/.local/share/cresset`.
fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/cresset");
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/tmp"))
        .join("cresset")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut SensorConfig)) -> Vec<String> {
        let mut config = SensorConfig::default();
        change(&mut config);
        config.check().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_found_and_named() {
        let found = problems(|config| {
            config.relay = vec!["http://relay.example:9481".to_owned(), "ftp://a".to_owned()];
            config.redact = vec![Redaction {
                field: RedactField::Arguments,
                pattern: "(".to_owned(),
                replace: String::new(),
            }];
            config.spool.max_size = yaml::Size(1);
            config.control = "sensor.sock".to_owned();
        });
        let paths: Vec<&str> = found
            .iter()
            .filter_map(|line| line.split(": ").next())
            .collect();
        assert_eq!(
            paths,
            [
                "sensor.relay[0]",
                "sensor.relay[1]",
                "sensor.redact[0].match",
                "sensor.spool.max_size",
                "sensor.control"
            ]
        );
        assert!(found[2].contains("unclosed group"), "{}", found[2]);
    }

    #[test]
    fn the_example_of_the_documentation_reads() {
        let text = r#"{"cluster":"prod-eu","sensor":{"relay":["https://relay.example:9481"],
            "tls":{"cert_file":"/a","key_file":"/b","ca_file":"/c"},"control":"unix:/run/cresset/sensor.sock",
            "spool":{"max_size":"1GiB"},"visibility":{"workloads":["process","file"],"host":["process","network"]},"contain":"default",
            "redact":[{"field":"arguments","match":"(?i)(password|token)=\\S+","replace":"***"}],
            "throttle":{"alerts_per_second":0}}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.check(), []);
        assert_eq!(config.sensor.spool.max_size.0, 1 << 30);
        assert_eq!(
            config.sensor.control_path(),
            Path::new("/run/cresset/sensor.sock")
        );
    }
}
