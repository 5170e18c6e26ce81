//! Sources over real sockets: a tonic server that plays a KubeArmor daemon, its faults included, and relays of our own.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod daemon;
mod faults;
mod load;
mod pings;
mod reading;
mod relays;
mod scene;
#[path = "../support/mod.rs"]
mod support;
