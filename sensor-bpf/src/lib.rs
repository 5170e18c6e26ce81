//! sensor-bpf

pub mod observe;
