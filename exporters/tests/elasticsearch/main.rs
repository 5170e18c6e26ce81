//! The Elasticsearch sink: against the real servers through their own door, and against a server that misbehaves as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

#[path = "../support/elasticsearch.rs"]
mod server;
#[path = "../support/servers.rs"]
mod servers;

mod certificates;
mod fake;
mod faults;
mod identity;
mod mapping;
mod once;
mod opensearch;
mod pressure;
mod scene;
mod setup;
