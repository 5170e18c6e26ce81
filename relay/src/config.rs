//! The relay's settings: the parts' settings side by side, as the one configuration file spells them.
//!
//! ```text
//! file ─▶ yaml tree ─▶ + environment ─▶ Config (defaults filled) ─▶ check ─▶ App::build
//!                         read.rs          this file              check.rs
//! ```
//!
//! What is wrong is found in one pass and told with file, line and path. Nothing after `check` checks again. Keys
//! that the language of the file has but this version does not are read as [`Later`], so that they can be refused by
//! name: a setting that is ignored in silence is worse than one that is missing.

mod check;
mod environment;
mod log;
mod look;
mod read;
mod rollout;
mod telemetry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::access::AccessEntry;
use crate::sources::SourceConfig;

pub use self::log::{LogConfig, LogKind};
pub use self::read::Settings;
pub use self::rollout::{Rollout, StopOn};
pub use self::telemetry::{Format, LogLines, Telemetry, Traces};

/// The whole file, except for the `sensor` section, which belongs to the sensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version of this format: 1.
    pub version: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// The relay itself.
    pub relay: Relay,
    /// Where events come from besides Cresset's own sensors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, SourceConfig>,
    /// Where events go. The key names the sink's cursor: renaming a sink makes a new one.
    pub sinks: BTreeMap<String, exporters::SinkConfig>,
    /// Where policies come from.
    pub policies: Policies,
    /// The sensor's section, read by the sensor.
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub sensor: Later,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 1,
            cluster: "default".to_owned(),
            relay: Relay::default(),
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            policies: Policies::default(),
            sensor: Later::default(),
        }
    }
}

/// The `relay` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// Journal, cursors and dead letters. Default: /var/lib/cresset as root, else the user's XDG data folder.
    pub data_dir: PathBuf,
    /// Where the relay listens.
    pub listen: Listeners,
    /// Certificates of the feed and link listeners. Without them they are plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who may do what. Nothing said: on a plaintext listener everybody, else whoever has a certificate that `tls`
    /// takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessEntry>,
    /// What one peer may take of the listeners.
    pub limits: PeerLimits,
    /// Where events are kept.
    pub log: LogConfig,
    /// How long events are kept.
    pub retention: Retention,
    /// When sensors are missed.
    pub sensors: SensorWatch,
    /// What comes in.
    pub ingest: Intake,
    /// Live readers.
    pub feeds: Feeds,
    /// Log lines and traces.
    pub telemetry: Telemetry,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            data_dir: default_data_dir(),
            listen: Listeners::default(),
            tls: None,
            access: Vec::new(),
            limits: PeerLimits::default(),
            log: LogConfig::default(),
            retention: Retention::default(),
            sensors: SensorWatch::default(),
            ingest: Intake::default(),
            feeds: Feeds::default(),
            telemetry: Telemetry::default(),
        }
    }
}

/// The `relay.listen` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listeners {
    /// Readers: `feeder.LogService` and queries.
    pub feed: Listen,
    /// Sensors.
    pub link: Listen,
    /// /metrics, /healthz, /readyz.
    pub http: Listen,
    /// The administrator's door: a Unix socket with mode 0600.
    pub admin: Listen,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            feed: Listen::loopback(32767),
            link: Listen::loopback(9481),
            http: Listen::loopback(9480),
            admin: Listen {
                address: Address::Unix(default_admin()),
                insecure: false,
            },
        }
    }
}

/// One listener: `ADDRESS` or `{address: ADDRESS, insecure: true}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "ListenForm")]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// Plaintext for whoever can reach it, although a plaintext listener off loopback lets everybody read.
    pub insecure: bool,
}

impl Listen {
    /// A port of 127.0.0.1.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        let address = Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        Self {
            address,
            insecure: false,
        }
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ListenForm::json_schema(generator)
    }
}

// Not derived from `ListenForm`: an untagged enum would hide what is wrong behind "no variant matched".
impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListenVisitor)
    }
}

struct ListenVisitor;

impl<'de> Visitor<'de> for ListenVisitor {
    type Value = Listen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ADDRESS or {address: ADDRESS, insecure: true}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Listen, E> {
        let address = text.parse().map_err(E::custom)?;
        Ok(Listen {
            address,
            insecure: false,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listen, A::Error> {
        let map = ListenMap::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Listen {
            address: map.address,
            insecure: map.insecure,
        })
    }
}

/// The two ways to write a listener.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum ListenForm {
    /// `ADDRESS`
    Address(Address),
    /// `{address: ADDRESS, insecure: true}`
    Full(ListenMap),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListenMap {
    address: Address,
    #[serde(default)]
    insecure: bool,
}

impl From<Listen> for ListenForm {
    fn from(Listen { address, insecure }: Listen) -> Self {
        if insecure {
            Self::Full(ListenMap { address, insecure })
        } else {
            Self::Address(address)
        }
    }
}

/// `IP:PORT`, `localhost:PORT`, `:PORT` (every address) or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Text that is not an address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address; write IP:PORT, localhost:PORT or unix:/PATH")]
pub struct BadAddress(String);

impl Address {
    /// Can only this machine reach it?
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(bad())
            };
        }
        let numeric = match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("127.0.0.1:{port}"),
            Some(("", port)) => format!("[::]:{port}"),
            _ => text.to_owned(),
        };
        numeric.parse().map(Self::Tcp).map_err(|_| bad())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "IP:PORT, localhost:PORT or unix:/PATH"})
    }
}

/// Certificates of the feed and link listeners: PEM files, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A folder in KubeArmor's layout: ca.crt, server.crt, server.key. The keys below name other files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// The relay's certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Who signs the certificates of sensors and readers. The link listener needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// The relay has an authority of its own (made in the data folder when there is none) and gives certificates to
    /// machines that show a token of `cresset token create`. The link listener is then encrypted without any file here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enrolment: bool,
    /// Names and addresses of this relay, for its certificate of its own authority. Sensors need none: they know it by the
    /// authority.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// How long the certificates of those who joined are good; they renew them at two thirds of it. Default: 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<yaml::Span>,
}

impl Tls {
    /// Can clients be known by their certificates?
    pub(crate) fn knows_clients(&self) -> bool {
        self.enrolment || self.dir.is_some() || self.client_ca_file.is_some()
    }
}

/// The files of KubeArmor's layout.
pub(crate) const CA_CERT: &str = "ca.crt";
pub(crate) const SERVER_CERT: &str = "server.crt";
pub(crate) const SERVER_KEY: &str = "server.key";

/// What one peer may take of the feed and link listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PeerLimits {
    /// Connections of one address to one listener; more are closed. Many sensors behind one address need as many.
    pub connections: u32,
    /// Of those, so many may be at their handshake (TLS, and the first words of HTTP/2) at one time; more are closed and may
    /// come again a moment later.
    pub handshakes: u32,
    /// A connection on which nothing is asked is closed after this time.
    pub idle: yaml::Span,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshakes: 256,
            idle: yaml::Span(std::time::Duration::from_secs(300)),
        }
    }
}

/// When sensors are missed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SensorWatch {
    /// A sensor that is not heard for so long is told of as an event, in status and in /metrics. One that is there speaks
    /// every two seconds.
    pub silent_after: yaml::Span,
    /// One that has been away for so long is not missed any more.
    pub forget_after: yaml::Span,
}

impl Default for SensorWatch {
    fn default() -> Self {
        Self {
            silent_after: yaml::Span(std::time::Duration::from_secs(120)),
            forget_after: yaml::Span(std::time::Duration::from_secs(7 * 24 * 3600)),
        }
    }
}

/// How long events are kept, whoever has read them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Older events go once every sink has passed them.
    pub max_age: yaml::Span,
    /// The oldest events go when the journal is larger, read or not (a sink can forbid it with `when_full: refuse`).
    pub max_size: yaml::Size,
    /// How closed segments are stored.
    pub compression: Compression,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: yaml::Span(std::time::Duration::from_secs(7 * 24 * 3600)),
            max_size: yaml::Size(20 << 30),
            compression: Compression::None,
        }
    }
}

/// How closed segments are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they were written.
    #[default]
    None,
    /// Zstandard, in the background once a segment is closed.
    Zstd,
}

/// What comes in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Intake {
    /// Memory for everything between the sensors' connections and the disk. 128MiB is enough for 1,100 sensors at one time;
    /// more of them wait to be accepted.
    pub budget: yaml::Size,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            budget: yaml::Size(128 << 20),
        }
    }
}

/// Live readers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Feeds {
    /// A live reader that is further behind jumps to fresh events and is told how many it missed.
    pub max_lag: yaml::Span,
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            max_lag: yaml::Span(std::time::Duration::from_secs(60)),
        }
    }
}

/// Where policies come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// All of them together are the set in force.
    pub sources: Vec<PolicySource>,
    /// What happens to an operation that no rule names where an Allow rule makes the class an allow list.
    pub default_posture: DefaultPosture,
    /// How a new set reaches the sensors. Not given: all of them at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// KubeArmor's PolicyService and ProbeService on the feed listener, which must then be on loopback: `karmor vm policy add`.
    pub policy_service: bool,
}

/// One source of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySource {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: PolicySourceKind,
    /// The folder. Its YAML files are read, and read again when one changes.
    #[serde(default)]
    pub path: PathBuf,
    /// Of a checkout: the branch to hold it against, as in `origin/main`. Default: what its own branch follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// The kinds of policy source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicySourceKind {
    /// A folder of YAML files.
    Folder,
    /// A Git checkout, or a folder in one. It is read as it stands: nothing is fetched.
    Git,
    /// Kubernetes resources; not in this version.
    Crd,
}

/// Default posture, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultPosture {
    /// Programs and files.
    pub file: Posture,
    /// Sockets.
    pub network: Posture,
    /// Capabilities.
    pub capabilities: Posture,
}

/// What happens to an operation that an allow list does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Posture {
    /// It passes.
    Allow,
    /// It passes and is told.
    #[default]
    Audit,
    /// It is denied and told.
    Block,
}

/// A part of the file that is not read here: only whether it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Later(bool);

impl Later {
    /// Is it given?
    #[must_use]
    pub fn is_given(self) -> bool {
        self.0
    }
}

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An absent value and an empty one say the same.
        let value = Option::<serde::de::IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(value.is_some()))
    }
}

impl Serialize for Later {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl JsonSchema for Later {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NotInThisVersion".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"description": "not available in this version"})
    }
}

/// The JSON schema of the relay's part of the file.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}

/// /var/lib/cresset as root, else `$XDG_DATA_HOME/cresset` or `~/.local/share/cresset`.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/cresset");
    }
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/tmp"))
        .join("cresset")
}

/// /run/cresset/admin.sock as root, else in `$XDG_RUNTIME_DIR`, else in the data folder.
fn default_admin() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/cresset/admin.sock");
    }
    absolute("XDG_RUNTIME_DIR")
        .map_or_else(default_data_dir, |run| run.join("cresset"))
        .join("admin.sock")
}

/// The XDG base directory rules: a relative path is no path.
fn absolute(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
