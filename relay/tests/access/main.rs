//! Who may speak, and what bad input gets.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod enrolment;
mod roles;
mod silence;
mod streams;
