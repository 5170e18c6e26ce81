//! sensor-bpf
