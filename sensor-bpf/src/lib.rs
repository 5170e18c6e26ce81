//! sensor-bpf

pub mod kernel;
pub mod observe;
mod rules;
