//! See `fuzz::filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::begin("filter"), |bytes: &[u8]| fuzz::filter::run(bytes));
