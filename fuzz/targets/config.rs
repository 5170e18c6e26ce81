//! See `fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::begin("config"), |bytes: &[u8]| fuzz::config::run(bytes));
