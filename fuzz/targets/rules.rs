//! See `fuzz::rules`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::begin("rules"), |bytes: &[u8]| fuzz::rules::run(bytes));
