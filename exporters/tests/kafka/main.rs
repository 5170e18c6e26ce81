//! The Kafka sink against a real broker, read back by a consumer and by kcat.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod delivery;
#[path = "../support/events.rs"]
mod events;
mod faults;
mod scene;
mod secure;
#[path = "../support/servers.rs"]
mod servers;

/// How the ledger of skips calls this program's tests.
const SUITE: &str = "exporters kafka";
