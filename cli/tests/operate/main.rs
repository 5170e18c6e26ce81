//! The relay operated from outside, one module a command or a matter.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../../relay/tests/support/authority.rs"]
mod authority;
#[cfg(feature = "kafka")]
#[path = "../../../exporters/tests/support/elasticsearch.rs"]
mod elasticsearch;
#[cfg(feature = "kafka")]
#[path = "../../../exporters/tests/support/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod bundle;
mod deploy;
mod effects;
#[cfg(feature = "kafka")]
mod kafka_log;
mod reload;
mod scene;
mod sensors;
mod snapshot;
mod supervisor;
mod top;
mod trace;
mod traces;
