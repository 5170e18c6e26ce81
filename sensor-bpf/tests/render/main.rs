//! What KubeArmor's consumers read: one golden event for each kind of operation and decision.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

mod alerts;
mod host;
mod scene;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
