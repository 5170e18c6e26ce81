//! The sensor: sees what labelled workloads do, stops what policy forbids, and tells a relay.
//!
//! ```text
//! events   kernel ─▶ observe ─▶ teller (process, redact, render, throttle) ─▶ spool ─▶ link ═▶ relay
//! rules    kernel ◀─ rules ◀─ sets (select, flatten) ◀────────────────────────────────── link ◀═ relay
//! people   cresset run ─▶ control ─▶ engine ─▶ cgroup, workload
//! ```
//! [`Sensor`] puts it together; the [`engine`] thread owns the kernel; [`enforcer`] is the seam to it, with a fake in the tests.

pub mod address;
pub mod cgroup;
pub mod config;
pub mod control;
mod decode;
pub mod enforcer;
pub mod engine;
mod footprint;
pub mod kernel;
pub mod link;
pub mod lost;
pub mod node;
pub mod observe;
pub mod process;
pub mod redact;
pub mod render;
pub mod resolve;
mod rules;
pub mod rules_file;
mod sensor;
pub mod sets;
mod settings;
mod shortfall;
pub mod spool;
pub mod teller;
pub mod throttle;
pub mod trust;
pub mod users;
pub mod workload;

pub use config::Config;
pub use footprint::Footprint;
pub use sensor::{Sensor, StartError};
