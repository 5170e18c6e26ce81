//! The relay: takes events from sensors, keeps them, and hands them to everyone who watches; takes policies and
//! hands them to every sensor.
//!
//! ```text
//! events   sensors ══link══▶ ingest ─▶ log (journal) ─▶ fanout ─▶ exporters, one durable cursor each
//!                                          └──────────▶ feed   ─▶ readers
//! policy   sensors ◀═link══ distribute ◀─ rollout ◀─ policies ◀─ folder
//! ```
//!
//! The rule of the house: an `Ack` is sent after the events up to it are on disk, never before.
//!
//! Each part has its settings and its `build`; [`App`] alone knows them all.

mod access;
mod app;
mod audit;
mod conditions;
mod config;
pub mod distribute;
mod enrolment;
pub mod fanout;
pub mod feed;
pub mod filter;
mod framed;
mod http;
pub mod ingest;
mod listen;
pub mod log;
mod losses;
mod memory;
mod metrics;
mod operate;
pub mod policies;
pub mod query;
pub mod received;
mod rollout;
mod sources;
pub mod standing;
pub mod status;
mod steering;
mod supervisor;
pub mod telemetry;
pub mod traces;

pub use access::{AccessEntry, AccessError, Caller, Namespaces, Role};
pub use app::{Addresses, App, RunError, Source, StartError};
pub use conditions::Conditions;
pub use config::{
    Address, Compression, Config, DefaultPosture, Feeds, Intake, Later, Listen, Listeners,
    LogConfig, LogKind, LogLines, PeerLimits, Policies, PolicySource, PolicySourceKind, Posture,
    Relay, Retention, Rollout, Settings, StopOn, Telemetry, Tls, Traces, default_data_dir, schema,
};
pub use enrolment::AuthorityError;
pub use listen::{BindError, TlsError};
pub use log::OpenError;
pub use memory::bound_arenas;
pub use metrics::{Described, Registry};
pub use sources::{KubeArmor, SourceConfig, SourceTls};
