//! The fan-out over a real journal: fake destinations for the faults that a real one will not produce on demand, real
//! files and metrics for the rest.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/books.rs"]
mod books;
mod cursor;
mod delivery;
mod outcomes;
mod real;
mod scene;
