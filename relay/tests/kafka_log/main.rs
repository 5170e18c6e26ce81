//! The log: one contract on the journal and on a real Kafka broker, and relays that share one broker.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod agreed;
mod contract;
#[path = "../../../exporters/tests/support/elasticsearch.rs"]
mod elasticsearch;
mod ground;
mod outage;
mod past;
mod program;
mod relays;
mod sensor;
#[path = "../../../exporters/tests/support/servers.rs"]
mod servers;
mod shared;
#[path = "../support/mod.rs"]
mod support;
mod together;
